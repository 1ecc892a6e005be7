"""``tulle pod add|del|ls|exec`` and ``tulle unshare``: options to specs, results to text.

It must not know how pods are made. ``netns`` is imported when a command runs, so that ``--help`` is quick.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from netns.pods import Pod, PodManager
    from netns.spec import CaptureSpec, Network, NetworkSpec, PodSpec

_state_dir = click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/run/tulle"),
    show_default=True,
    help="Where pods, networks and addresses in use are recorded.",
)
_netns_dir = click.option(
    "--netns-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/run/netns"),
    show_default=True,
    help="Where namespaces are bound; iproute2 looks in /run/netns.",
)
_DEFAULT_MARK = 1337


@click.group()
def pod() -> None:
    """Make and remove pods: network namespaces joined by a bridge, with traffic capture.

    Needs root, or a shell inside `tulle unshare`.
    """


@pod.command("add")
@click.argument("name")
@click.option(
    "--ip", "ips", multiple=True, metavar="ADDRESS", help="Insist on this address (one per IP version)."
)
@click.option("--network", "network_name", default="default", show_default=True, help="The network to join.")
@click.option(
    "--subnet", "subnets", multiple=True, metavar="CIDR", help="Ranges of a new network, IPv4 and IPv6."
)
@click.option(
    "--gateway", "gateways", multiple=True, metavar="ADDRESS", help="The bridge's addresses.  [first usable]"
)
@click.option("--bridge", metavar="NAME", help="The bridge of a new network.  [tulle0, or tl-NETWORK]")
@click.option("--mtu", type=int, help="Of a new network.  [that of the default route]")
@click.option("--no-masquerade", is_flag=True, help="Leave the pods' source addresses alone on the way out.")
@click.option("--no-capture", is_flag=True, help="Turn no connections into a sidecar.")
@click.option(
    "--capture-mark", type=int, help=f"The sidecar's socket mark.  [{_DEFAULT_MARK}, without uid and gid]"
)
@click.option("--capture-uid", type=int, help="The sidecar's user id, whose connections are not captured.")
@click.option("--capture-gid", type=int, help="The sidecar's group id, likewise.")
@click.option(
    "--exclude-inbound-ports", default="", metavar="PORTS", help="Besides 15021 and 15090; commas between."
)
@click.option("--exclude-outbound-ports", default="", metavar="PORTS", help="Commas between.")
@click.option("--exclude-inbound-cidrs", default="", metavar="CIDRS", help="Sources not captured.")
@click.option("--exclude-outbound-cidrs", default="", metavar="CIDRS", help="Destinations not captured.")
@click.option(
    "--capture-dns", type=int, metavar="PORT", help="Turn queries to port 53 to this port of localhost."
)
@click.option(
    "--dns", "servers", multiple=True, metavar="SERVER", help="The pod's DNS servers.  [the host's]"
)
@click.option("--search", multiple=True, metavar="DOMAIN", help="The pod's search domains.")
@click.option(
    "--host", "hosts", multiple=True, metavar="NAME=ADDRESS", help="A line of the pod's /etc/hosts."
)
@_state_dir
@_netns_dir
def add(name: str, network_name: str, state_dir: Path, netns_dir: Path, **options: Any) -> None:
    """Make pod NAME and print its addresses. Adding the same pod again changes nothing."""
    from netns import capabilities
    from netns.pods import PodManager

    with _failing():
        spec = _pod_spec(name, options)
        capabilities.require()
        known = PodManager(state_dir, netns_dir=netns_dir).known_network(network_name)
        network = _network_spec(network_name, options, known)
        made = PodManager(state_dir, network, netns_dir=netns_dir).add(spec)
        click.echo("\n".join(made.ips))


@pod.command("del")
@click.argument("name", required=False)
@click.option("--all", "everything", is_flag=True, help="Every pod of the state directory.")
@_state_dir
@_netns_dir
def delete(name: str | None, everything: bool, state_dir: Path, netns_dir: Path) -> None:
    """Remove pod NAME, and bridge and rules with the last pod of a network.

    A pod that is not there, or half gone, is no error. Processes inside live on, without a network.
    """
    from netns import capabilities
    from netns.pods import PodManager

    if (name is None) == (not everything):
        raise click.UsageError("give either a NAME or --all")
    with _failing():
        capabilities.require()
        manager = PodManager(state_dir, netns_dir=netns_dir)
        deleted = manager.delete_all() if name is None else (name,) * manager.delete(name)
        for each in deleted:
            click.echo(f"deleted {each}")
        if name is not None and not deleted:
            click.echo(f"no pod {name}", err=True)


@pod.command("ls")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@_state_dir
@_netns_dir
def list_pods(output: str, state_dir: Path, netns_dir: Path) -> None:
    """List the pods.

    STATE: Ready; Gone (namespace or link vanished, as after a reboot); Incomplete (adding it was cut off).
    """
    from netns.pods import PodManager

    with _failing():
        pods = PodManager(state_dir, netns_dir=netns_dir).list()
    if output == "json":
        click.echo(json.dumps([_as_json(each) for each in pods], indent=2))
        return
    rows = [("NAME", "NETWORK", "IPS", "CAPTURE", "STATE", "NAMESPACE")]
    rows += [
        (
            each.name,
            each.network,
            ",".join(each.ips),
            "no" if each.capture is None else "yes",
            each.state.capitalize(),
            str(each.netns_path),
        )
        for each in pods
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@pod.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("name")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@_state_dir
@_netns_dir
def exec_in(name: str, command: Sequence[str], state_dir: Path, netns_dir: Path) -> None:
    """Run COMMAND in pod NAME: its network, and its resolv.conf and hosts.

    This process becomes the command, so signals and the exit status are the command's own.
    """
    from netns import exec as netns_exec
    from netns.errors import NetnsError
    from netns.pods import PodManager

    argv = list(command[1:] if command[0] == "--" else command)
    if not argv:
        raise click.UsageError("give a command to run")
    with _failing(125):
        # No full check of capabilities: entering needs no nft.
        target = _existing(PodManager(state_dir, netns_dir=netns_dir), name)
        if target.state != "ready":
            raise NetnsError(f"pod {name} is {target.state}; `tulle pod del {name}` and add it again")
        binds = [(str(source), where) for source, where in target.binds]
        with _executing(argv):
            netns_exec.enter_and_exec(str(target.netns_path), binds, argv)


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def unshare(command: Sequence[str]) -> None:
    """Run COMMAND, or $SHELL, as root of its own user, network and mount namespaces.

    For `tulle pod` without root. /run is empty and private there, and nothing outside can be reached; everything
    made inside is gone when the last process in it ends.
    """
    from netns import exec as netns_exec
    from netns import namespace

    argv = list(command[1:] if command[:1] == ("--",) else command) or [os.environ.get("SHELL", "/bin/sh")]
    with _failing(125):
        namespace.enter_user_namespace()
        with _executing(argv):
            netns_exec.become(argv, os.environ)


def _pod_spec(name: str, options: dict[str, Any]) -> PodSpec:
    from netns.errors import NetnsError
    from netns.spec import PodSpec, parse_address

    hosts = []
    for text in options["hosts"]:
        host, equals, address = text.partition("=")
        if not equals:
            raise NetnsError(f"--host {text!r}: write NAME=ADDRESS")
        hosts.append((host, parse_address(address, f"--host {host}")))
    return PodSpec(
        name,
        addresses=tuple(parse_address(text, "--ip") for text in options["ips"]),
        capture=_capture_spec(options),
        dns=tuple(parse_address(text, "--dns") for text in options["servers"]),
        search=tuple(options["search"]),
        hosts=tuple(hosts),
    )


def _capture_spec(options: dict[str, Any]) -> CaptureSpec | None:
    from netns.errors import NetnsError
    from netns.spec import CaptureSpec

    capture_options = [key for key in options if key.startswith(("capture_", "exclude_")) and options[key]]
    if options["no_capture"]:
        if capture_options:
            raise NetnsError(
                f"--{capture_options[0].replace('_', '-')} says how to capture, but --no-capture is given"
            )
        return None
    mark, uid, gid = (options[f"capture_{key}"] for key in ("mark", "uid", "gid"))
    if mark is None and uid is None and gid is None:
        mark = _DEFAULT_MARK
    return CaptureSpec(
        mark=mark,
        uid=uid,
        gid=gid,
        exclude_inbound_ports=(
            *CaptureSpec().exclude_inbound_ports,
            *_ports(options["exclude_inbound_ports"], "--exclude-inbound-ports"),
        ),
        exclude_outbound_ports=_ports(options["exclude_outbound_ports"], "--exclude-outbound-ports"),
        exclude_inbound_cidrs=_cidrs(options["exclude_inbound_cidrs"], "--exclude-inbound-cidrs"),
        exclude_outbound_cidrs=_cidrs(options["exclude_outbound_cidrs"], "--exclude-outbound-cidrs"),
        dns_port=options["capture_dns"],
    )


def _network_spec(name: str, options: dict[str, Any], known: NetworkSpec | None) -> NetworkSpec | None:
    """What the options say of the network; what they leave out is as known, or else the default."""
    from netns.errors import NetnsError
    from netns.pods import default_network
    from netns.spec import NetworkSpec, Subnet, parse_address

    gateways = [parse_address(text, "--gateway") for text in options["gateways"]]
    if gateways and not options["subnets"]:
        raise NetnsError("--gateway needs --subnet")
    subnets = []
    for cidr in options["subnets"]:
        plain = Subnet.parse(cidr)
        inside = [gateway for gateway in gateways if gateway in plain.network]
        subnets.append(Subnet(plain.network, inside[0]) if inside else plain)
        gateways = [gateway for gateway in gateways if gateway not in inside]
    if gateways:
        raise NetnsError(f"--gateway {gateways[0]} is in no --subnet")
    base = known or (default_network() if name == "default" else None)
    if base is None and not subnets:
        raise NetnsError(f"network {name} does not exist yet: give its ranges with --subnet")
    return NetworkSpec(
        tuple(subnets) or (base.subnets if base else ()),
        name=name,
        bridge=options["bridge"] or (base.bridge if base else f"tl-{name}"),
        mtu=options["mtu"] or (known.mtu if known else None),
        masquerade=not options["no_masquerade"] and (base.masquerade if base else True),
    )


def _ports(text: str, option: str) -> tuple[int, ...]:
    from netns.errors import NetnsError

    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words:
        if not word.isascii() or not word.isdigit():
            raise NetnsError(f"{option}: {word!r} is not a port; write numbers with commas between")
    return tuple(map(int, words))


def _cidrs(text: str, option: str) -> tuple[Network, ...]:
    from netns.spec import parse_network

    return tuple(parse_network(word.strip(), option) for word in text.split(",") if word.strip())


def _existing(manager: PodManager, name: str) -> Pod:
    from netns.errors import NetnsError

    found = manager.get(name)
    if found is None:
        names = ", ".join(each.name for each in manager.list()) or "none"
        raise NetnsError(f"no pod {name} (there are: {names})")
    return found


def _as_json(each: Pod) -> dict[str, Any]:
    return {
        "name": each.name,
        "network": each.network,
        "ips": list(each.ips),
        "netns": str(each.netns_path),
        "interface": each.host_interface,
        "capture": each.capture is not None,
        "state": each.state.capitalize(),
    }


@contextmanager
def _failing(status: int = 1) -> Iterator[None]:
    from netns.errors import NetnsError

    try:
        yield
    except NetnsError as error:
        for line in (str(error), *getattr(error, "__notes__", ())):
            click.echo(f"tulle: {line}", err=True)
        sys.exit(status)


@contextmanager
def _executing(argv: Sequence[str]) -> Iterator[None]:
    from netns import exec as netns_exec

    try:
        yield
    except OSError as error:
        click.echo(f"tulle: cannot run {argv[0]}: {error.strerror}", err=True)
        sys.exit(netns_exec.exit_status(error))
