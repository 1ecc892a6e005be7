"""``tulle proxy``: the sidecar's options. It imports no more of the control plane than this package."""

from __future__ import annotations

import gc
import logging
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from proxy.model.address import SocketAddress
    from proxy.workers.spawner import Spawner
    from proxy.xds.node import EgressListener, InboundListener

ENV = "TULLE"
_PROTOCOLS = ("HTTP", "HTTP2", "GRPC", "TCP")
"""What ``--inbound`` takes; the control plane's ``INBOUND_PROTOCOLS``, which would be slow to import."""


def address(text: str, option: str) -> SocketAddress:
    """``HOST:PORT`` or ``[V6]:PORT``. Raises :class:`click.BadParameter` naming the option."""
    from proxy.model.address import SocketAddress

    host, separator, port = text.rpartition(":")
    if not separator or not host or not port.isdigit() or int(port) > 65535:
        raise click.BadParameter(f"{text!r} is not HOST:PORT", param_hint=option)
    return SocketAddress(host.strip("[]"), int(port))


def optional_address(text: str, option: str) -> SocketAddress | None:
    """As :func:`address`; ``none`` is none."""
    return None if text == "none" else address(text, option)


def labels(pairs: tuple[str, ...]) -> dict[str, str]:
    """``k=v`` pairs."""
    found = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise click.BadParameter(f"{pair!r} is not KEY=VALUE", param_hint="--label")
        found[key] = value
    return found


def inbound(text: str) -> InboundListener:
    """``LISTEN=APP[,name=http][,protocol=HTTP]``."""
    from proxy.xds.node import InboundListener

    first, *settings = text.split(",")
    bind, separator, app = first.partition("=")
    if not separator:
        raise click.BadParameter(
            f"{text!r} is not LISTEN=APP[,name=NAME][,protocol={'|'.join(_PROTOCOLS)}]",
            param_hint="--inbound",
        )
    address(bind, "--inbound")
    address(app, "--inbound")
    options = {}
    for setting in settings:
        key, _, value = setting.partition("=")
        if key not in ("name", "protocol") or not value:
            raise click.BadParameter(f"{setting!r} is not name=... or protocol=...", param_hint="--inbound")
        options[key] = value
    protocol = options.get("protocol", "HTTP").upper()
    if protocol not in _PROTOCOLS:
        raise click.BadParameter(
            f"protocol {protocol} is not one of {', '.join(_PROTOCOLS)}", param_hint="--inbound"
        )
    return InboundListener(bind, app, options.get("name", protocol.lower()), protocol)


def egress(text: str) -> EgressListener:
    """``LISTEN=HOST:PORT``."""
    from proxy.xds.node import EgressListener

    bind, separator, target = text.partition("=")
    if not separator:
        raise click.BadParameter(f"{text!r} is not LISTEN=HOST:PORT", param_hint="--egress")
    address(bind, "--egress")
    service = address(target, "--egress")
    return EgressListener(bind, service.host, service.port)


class _Escaping(logging.Formatter):
    """One line a record, control characters escaped: a log line must not be forgeable by what it quotes.

    The lines of a traceback are indented, so that none of them looks like a record either.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        return _escaped(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        return "\n".join(f"  {_escaped(line)}" for line in super().formatException(ei).splitlines())


def _escaped(text: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def set_up_logging(level: str) -> None:
    """The application log, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Escaping("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


@click.command("proxy", context_settings={"auto_envvar_prefix": ENV})
@click.option(
    "-c",
    "--config-path",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A static bootstrap in Envoy's format (YAML or JSON); no control plane then.",
)
@click.option("--control-plane", metavar="HOST:PORT", help="The control plane's xDS address.")
@click.option("--ca-address", metavar="HOST:PORT", help="Its API and CA.  [default: same host, port 15017]")
@click.option(
    "--token-file", type=click.Path(path_type=Path), help="A file with the join token, for enrolment."
)
@click.option(
    "--token", help="The join token itself (seen by everyone who can list processes; prefer the file)."
)
@click.option("--namespace", default="default", show_default=True)
@click.option("--service-account", default="default", show_default=True)
@click.option("--name", help="Of the workload.  [default: the host name]")
@click.option(
    "--label", "label", multiple=True, metavar="KEY=VALUE", help="Services select workloads by labels."
)
@click.option(
    "--ip", multiple=True, help="An address at which others reach this workload; repeat for several."
)
@click.option("--mesh-domain", default="mesh.local", show_default=True)
@click.option(
    "--interception-mode",
    type=click.Choice(["REDIRECT", "NONE"]),
    default="NONE",
    show_default=True,
    help="REDIRECT: traffic is captured to 15001 and 15006 (tulle pod add). NONE: explicit listeners.",
)
@click.option(
    "--capture-mark",
    type=click.IntRange(0),
    default=0,
    help="SO_MARK of own sockets, which capture leaves alone.",
)
@click.option(
    "--inbound",
    "inbounds",
    multiple=True,
    metavar="LISTEN=APP[,name=http][,protocol=HTTP]",
    help="NONE: where others call, and where the app listens; protocol HTTP, HTTP2, GRPC or TCP.",
)
@click.option(
    "--outbound-bind", default="", metavar="HOST:PORT", help="NONE: an HTTP listener that routes by host."
)
@click.option(
    "--egress",
    "egresses",
    multiple=True,
    metavar="LISTEN=HOST:PORT",
    help="NONE: a listener for one service.",
)
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path),
    help="Where identity and last good configuration are kept.",
)
@click.option("--admin-address", default="127.0.0.1:15000", show_default=True, metavar="HOST:PORT|none")
@click.option("--readiness-address", default="0.0.0.0:15021", show_default=True, metavar="HOST:PORT|none")
@click.option("--access-log", default="/dev/stdout", show_default=True)
@click.option(
    "--workers",
    type=click.IntRange(1, 128),
    default=1,
    show_default=True,
    help="Processes that share the ports and the work. More than one pays where one core is not enough.",
)
@click.option(
    "--max-tls-handshakes",
    type=click.IntRange(2),
    default=1000,
    show_default=True,
    help="With clients, under way at one time in each process; a listener has half of them, the others wait.",
)
@click.option("--drain-time", type=click.FloatRange(0), default=5.0, show_default=True, help="Seconds.")
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
def proxy(**options: Any) -> None:
    """Run the sidecar.

    With a control plane (--control-plane), or from a static bootstrap in Envoy's format (-c).
    """
    set_up_logging(options["log_level"])
    if (options["config_path"] is None) == (options["control_plane"] is None):
        raise click.UsageError("give either --control-plane HOST:PORT or -c FILE")
    # Start-up makes hardly any garbage; looking for it a hundred times takes a tenth of the time. Collection begins
    # when the configuration has settled.
    gc.disable()
    if options["config_path"] is not None:
        _static(options)
    else:
        spawner = _spawner(options)
        import uvloop

        uvloop.run(_managed(options, spawner))


def _spawner(options: dict[str, Any]) -> Spawner | None:
    """Fork the process that forks workers, while there is neither a thread nor an event loop nor a secret."""
    if options["workers"] == 1:
        return None
    from proxy.workers.process import warm, work
    from proxy.workers.spawner import Spawner

    warm()
    return Spawner(work)


def _static(options: dict[str, Any]) -> None:
    from proxy.decoder import BootstrapDecoder, DecoderDiedError

    path = options["config_path"]
    decoder = BootstrapDecoder(path)
    spawner = _spawner(options)
    import uvloop

    from proxy.app import Common, Sidecar
    from proxy.model.config import ConfigError
    from proxy.workers.spawner import SpawnerDiedError

    async def run() -> None:
        decoded = decoder.result()
        common = Common(
            admin=decoded.admin.address if decoded.admin is not None else None,
            readiness=None,
            drain_time=options["drain_time"],
            mark=options["capture_mark"],
            workers=options["workers"],
            overload=decoded.overload,
            listener_limits=decoded.listener_limits,
            max_handshakes=options["max_tls_handshakes"],
        )
        await Sidecar(common, spawner).run_static(decoded.config, decoder)

    try:
        uvloop.run(run())
    except ConfigError as error:
        raise click.ClickException(f"{path}: {error}") from error
    except (OSError, DecoderDiedError, SpawnerDiedError) as error:
        raise click.ClickException(str(error)) from error


async def _managed(options: dict[str, Any], spawner: Spawner | None) -> None:
    from proxy.app import Common, Sidecar
    from proxy.managed import Managed, run_managed
    from proxy.tls.identity import IdentityError
    from proxy.workers.spawner import SpawnerDiedError
    from proxy.xds.node import NodeOptions

    xds = address(options["control_plane"], "--control-plane")
    ca = options["ca_address"] or str(type(xds)(xds.host, 15017))
    address(ca, "--ca-address")
    ips = options["ip"] or (_own_ip(xds.host),)
    namespace, account = options["namespace"], options["service_account"]
    name = options["name"] or socket.gethostname()
    state_dir = options["state_dir"] or _default_state_dir() / f"{namespace}.{name}"
    managed = Managed(
        xds=xds,
        ca=ca,
        node=NodeOptions(
            name=name,
            namespace=namespace,
            service_account=account,
            ips=tuple(ips),
            labels=labels(options["label"]),
            interception_mode=options["interception_mode"],
            capture_mark=options["capture_mark"],
            inbound=tuple(inbound(text) for text in options["inbounds"]),
            outbound_bind=options["outbound_bind"],
            egress=tuple(egress(text) for text in options["egresses"]),
            access_log=options["access_log"],
            mesh_domain=options["mesh_domain"],
        ),
        state_dir=state_dir,
        token=_token_source(options),
    )
    common = Common(
        admin=optional_address(options["admin_address"], "--admin-address"),
        readiness=optional_address(options["readiness_address"], "--readiness-address"),
        drain_time=options["drain_time"],
        mark=options["capture_mark"],
        workers=options["workers"],
        max_handshakes=options["max_tls_handshakes"],
    )
    try:
        await run_managed(Sidecar(common, spawner), managed)
    except (IdentityError, OSError, SpawnerDiedError) as error:
        raise click.ClickException(str(error)) from error


def _token_source(options: dict[str, Any]) -> Any:
    from proxy.tls.identity import token_from_file

    if options["token_file"] is not None:
        return token_from_file(options["token_file"])
    token = options["token"]
    return lambda: token


def _own_ip(towards: str) -> str:
    """The address that this host uses towards the control plane. No packet is sent."""
    try:
        family, _, _, _, target = socket.getaddrinfo(towards, 9, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(target)
            return str(probe.getsockname()[0])
    except OSError as error:
        raise click.ClickException(
            f"--ip is needed: no route to {towards}: {error.strerror or error}"
        ) from error


def _default_state_dir() -> Path:
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "tulle"
