"""``tulle token``: join tokens, with which workloads enrol once."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from control_plane.cli.connection import Connection, Refused, config_option, fail, warn


@click.group()
def token() -> None:
    """Join tokens: with one, a sidecar gets its first certificate."""


def _path(namespace: str, name: str | None = None) -> str:
    path = f"/apis/mesh.tulle.io/v1/namespaces/{quote(namespace, safe='')}/jointokens"
    return path if name is None else f"{path}/{quote(name, safe='')}"


@token.command()
@click.option("-n", "--namespace", default="default", show_default=True, help="Of the workload.")
@click.option("-s", "--service-account", required=True, help="Of the workload.")
@click.option("--ttl", default="1h", show_default=True, help="How long it can be used, like 30m or 24h.")
@click.option("--uses", default=1, show_default=True, help="How many workloads may enrol with it.")
@config_option
def create(namespace: str, service_account: str, ttl: str, uses: int, config: Path) -> None:
    """Make a token and print it, alone, on standard output. It cannot be shown again."""
    body = {
        "apiVersion": "mesh.tulle.io/v1",
        "kind": "JoinToken",
        "metadata": {"namespace": namespace},
        "spec": {"serviceAccount": service_account, "ttl": ttl, "uses": uses},
    }
    made = _ask(Connection.open(config), "POST", _path(namespace), body)
    click.echo(made["status"]["token"])
    expires = made["spec"]["expirationTimestamp"]
    warn(f"join token {made['metadata']['name']} for {namespace}/{service_account}, until {expires}")


@token.command()
@click.option("-n", "--namespace", default="default", show_default=True)
@click.option("-A", "--all-namespaces", is_flag=True)
@config_option
def ls(namespace: str, all_namespaces: bool, config: Path) -> None:
    """List tokens, without their secrets."""
    from control_plane.cli import table

    path = "/apis/mesh.tulle.io/v1/jointokens" if all_namespaces else _path(namespace)
    items = _ask(Connection.open(config), "GET", path)["items"]
    rows = [
        [
            item["metadata"]["namespace"],
            item["metadata"]["name"],
            item["spec"]["serviceAccount"],
            f"{item['status'].get('used', 0)}/{item['spec'].get('uses', 1)}",
            item["spec"]["expirationTimestamp"],
        ]
        for item in items
    ]
    click.echo(table.render(["NAMESPACE", "NAME", "SERVICE-ACCOUNT", "USED", "EXPIRES"], rows))


@token.command()
@click.argument("name")
@click.option("-n", "--namespace", help="Default: the one that the name begins with.")
@config_option
def revoke(name: str, namespace: str | None, config: Path) -> None:
    """Make a token useless. Certificates that were issued for it stay."""
    _ask(Connection.open(config), "DELETE", _path(namespace or name.rpartition("-")[0] or "default", name))
    click.echo(f"join token {name} revoked")


def _ask(connection: Connection, method: str, path: str, body: Any = None) -> dict[str, Any]:
    try:
        return connection.request(method, path, body)
    except Refused as refused:
        raise fail(refused) from None
