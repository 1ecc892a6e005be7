"""``tulle history``: the revisions, and what one of them changed."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from control_plane.cli.connection import Connection, Refused, config_option, fail

_PATH = "/apis/mesh.tulle.io/v1/revisions"
_SHOWN = 3


@click.command()
@click.argument("revision", type=click.IntRange(min=1), required=False)
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True)
@config_option
def history(revision: int | None, limit: int, config: Path) -> None:
    """List the newest revisions, or show REVISION as a diff."""
    connection = Connection.open(config)
    try:
        if revision is None:
            _list(connection.request("GET", f"{_PATH}?limit={limit}")["items"])
        else:
            _show(connection.request("GET", f"{_PATH}/{revision}"))
    except Refused as refused:
        raise fail(refused) from None


def _list(items: list[Mapping[str, Any]]) -> None:
    from control_plane.cli import table

    now = datetime.now(UTC)
    rows = []
    for item in items:
        changes = [f"{_name(change)} {change['action']}" for change in item["changes"][:_SHOWN]]
        more = len(item["changes"]) - _SHOWN
        changes += [f"and {more} more"] if more > 0 else []
        when = table.age(item["metadata"]["creationTimestamp"], now)
        rows.append([item["metadata"]["name"], when, item["author"], ", ".join(changes)])
    click.echo(table.render(["REVISION", "AGE", "AUTHOR", "CHANGES"], rows))


def _show(revision: Mapping[str, Any]) -> None:
    when = revision["metadata"]["creationTimestamp"]
    click.echo(f"revision {revision['metadata']['name']} by {revision['author']} at {when}")
    for change in revision["changes"]:
        click.echo(f"\n{_name(change)} {change['action']}")
        for line in _diff(change["before"], change["after"]):
            click.echo(line)


def _diff(before: Any, after: Any) -> Iterator[str]:
    """A unified diff of both as YAML, without its file header."""
    import yaml

    old, new = (yaml.safe_dump(body, sort_keys=True).splitlines() if body else [] for body in (before, after))
    for index, line in enumerate(difflib.unified_diff(old, new, lineterm="", n=2)):
        if index > 1:
            yield line


def _name(change: Mapping[str, Any]) -> str:
    plural = f"{change['plural']}.{change['group']}" if change["group"] else change["plural"]
    return f"{plural} {change['namespace']}/{change['name']}"
