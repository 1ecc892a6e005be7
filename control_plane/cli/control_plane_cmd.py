"""``tulle control-plane``: its options, and running it in the foreground."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from control_plane.addresses import HostPort, parse
from control_plane.cli.connection import CommandFailed, default_data_dir

if TYPE_CHECKING:
    from control_plane.app import ControlPlane


class _Parsed(click.ParamType[Any]):
    """An option whose text ``read`` turns into a value; its ``ValueError`` is the message."""

    def __init__(self, name: str, read: Callable[[str], Any]) -> None:
        self.name = name
        self._read = read

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._read(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _address_or_none(text: str) -> HostPort | None:
    return None if text == "none" else parse(text)


_ADDRESS = _Parsed("HOST:PORT", parse)
_OPTIONAL_ADDRESS = _Parsed("HOST:PORT|none", _address_or_none)
_CIDR = _Parsed("CIDR", ipaddress.ip_network)


@click.command("control-plane")
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    default=default_data_dir,
    help="Where the store, the CA and the administrator's credentials are kept. Also TULLE_DATA_DIR.",
)
@click.option("--trust-domain", default="mesh.local", show_default=True, help="Of the SPIFFE IDs.")
@click.option("--mesh-domain", default="mesh.local", show_default=True, help="Suffix of services' names.")
@click.option(
    "--api-address", type=_ADDRESS, default="0.0.0.0:15017", show_default=True, help="REST API and CA."
)
@click.option(
    "--xds-address",
    type=_OPTIONAL_ADDRESS,
    default="0.0.0.0:15012",
    show_default=True,
    help="Sidecars, over mTLS.",
)
@click.option(
    "--xds-plaintext-address",
    type=_OPTIONAL_ADDRESS,
    default="none",
    show_default=True,
    help="Sidecars on this host, without TLS; loopback only, like 127.0.0.1:15010.",
)
@click.option(
    "--monitoring",
    type=_OPTIONAL_ADDRESS,
    default="127.0.0.1:15014",
    show_default=True,
    help="Prometheus metrics, without authentication.",
)
@click.option(
    "--advertise",
    multiple=True,
    metavar="HOST",
    help="A name or address by which others reach this host; repeat for several. Goes into the certificate.",
)
@click.option(
    "--dns-resolver",
    "dns_resolvers",
    type=_ADDRESS,
    multiple=True,
    metavar="IP:PORT",
    help="Whom sidecars ask for SRV records; repeat for several.  [default: the resolvers of their host]",
)
@click.option(
    "--h2-upgrade-policy",
    type=click.Choice(["DO_NOT_UPGRADE", "UPGRADE"]),
    default="DO_NOT_UPGRADE",
    show_default=True,
    help="Whether HTTP/1.1 requests share HTTP/2 connections between sidecars: fewer connections for more CPU.",
)
@click.option("--service-cidr", type=_CIDR, default="10.96.0.0/16", show_default=True, help="For clusterIPs.")
@click.option(
    "--ca-passphrase-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Seals the CA's keys. Also TULLE_CA_PASSPHRASE.",
)
@click.option("--svid-ttl", type=click.IntRange(min=60), default=86_400, show_default=True, help="Seconds.")
@click.option(
    "--keep-revisions",
    type=click.IntRange(min=1),
    default=10_000,
    show_default=True,
    help="How far back watches and the history reach.",
)
@click.option("--max-body-bytes", type=click.IntRange(min=1024), default=4 << 20, show_default=True)
@click.option("--max-watches", type=click.IntRange(min=1), default=1_000, show_default=True)
@click.option("--max-json-depth", type=click.IntRange(min=8), default=64, show_default=True)
@click.option("--max-changeset-objects", type=click.IntRange(min=1), default=5_000, show_default=True)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
)
def control_plane(
    api_address: HostPort,
    xds_address: HostPort | None,
    xds_plaintext_address: HostPort | None,
    dns_resolvers: tuple[HostPort, ...],
    svid_ttl: int,
    max_body_bytes: int,
    max_watches: int,
    max_json_depth: int,
    max_changeset_objects: int,
    log_level: str,
    **options: Any,
) -> None:
    """Run the control plane: API, certificate authority and configuration of the sidecars.

    A port of 0 takes any free one; run.json in the data directory tells which.
    """
    import asyncio
    import logging
    from datetime import timedelta

    from control_plane.api.limits import Limits
    from control_plane.app import run
    from control_plane.ca.bootstrap import BootstrapError
    from control_plane.config import ControlPlaneConfig
    from control_plane.store.base import StoreUnavailable

    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    config = ControlPlaneConfig(
        api=api_address,
        xds=xds_address,
        xds_plaintext=xds_plaintext_address,
        dns_resolvers=tuple(str(address) for address in dns_resolvers),
        svid_lifetime=timedelta(seconds=svid_ttl),
        limits=replace(
            Limits(),
            body=max_body_bytes,
            watches=max_watches,
            depth=max_json_depth,
            changeset=max_changeset_objects,
        ),
        **options,
    )
    try:
        code = asyncio.run(run(config, _started))
    except (BootstrapError, StoreUnavailable, ValueError) as error:
        raise CommandFailed(f"the control plane cannot start: {error}") from None
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise CommandFailed(f"the control plane cannot start: {where}{error.strerror or error}") from None
    raise SystemExit(code)


def _started(plane: ControlPlane) -> None:
    addresses = plane.addresses
    directory = plane.config.data_dir
    click.echo(f"trust domain   {plane.config.trust_domain}")
    click.echo(f"API and CA     https://{addresses['api']}")
    for name, label in (
        ("xds", "xDS over mTLS"),
        ("xds_plaintext", "xDS plaintext"),
        ("monitoring", "metrics"),
    ):
        if name in addresses:
            click.echo(f"{label:<15}{addresses[name]}")
    click.echo(f"administrator  {directory / 'admin.conf'}")
    click.echo(f"try            tulle --help; export TULLE_CONFIG={directory / 'admin.conf'}")
