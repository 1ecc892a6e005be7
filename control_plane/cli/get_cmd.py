"""``tulle get``: objects as a table, YAML or JSON, once or as they change."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import click

from control_plane.cli.connection import CommandFailed, Connection, Refused, config_option, fail, warn

if TYPE_CHECKING:
    from control_plane.cli.served import Served

_RECONNECT = 1.0
"""Seconds before a broken watch is taken up again."""


@click.command()
@click.argument("kind")
@click.argument("name", required=False)
@click.option("-n", "--namespace", default="default", show_default=True)
@click.option("-A", "--all-namespaces", is_flag=True)
@click.option("-l", "--selector", default="", help="Only objects with these labels, like app=web,tier!=test.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "yaml", "json", "name"]),
    default="table",
    show_default=True,
)
@click.option("-w", "--watch", is_flag=True, help="Go on and show what changes.")
@config_option
def get(
    kind: str,
    name: str | None,
    namespace: str,
    all_namespaces: bool,
    selector: str,
    output: str,
    watch: bool,
    config: Path,
) -> None:
    """Show objects of one KIND (plural, singular or short name), or the one called NAME.

    PROGRAMMED says how many of the sidecars that the object concerns use its present state.
    """
    from control_plane.cli import served

    connection = Connection.open(config)
    try:
        resource = served.find(connection, kind)
        view = _View(connection, resource, None if all_namespaces else namespace, name, selector, output)
        version = view.show()
        if watch:
            view.follow(version)
    except Refused as refused:
        raise fail(refused) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


class _View:
    def __init__(
        self,
        connection: Connection,
        resource: Served,
        namespace: str | None,
        name: str | None,
        labels: str,
        output: str,
    ) -> None:
        from control_plane.cli import table

        self._connection = connection
        self._resource = resource
        self._namespace = namespace
        self._name = name
        self._output = output
        self._query = {"labelSelector": labels} if labels else {}
        if name is not None:
            self._query["fieldSelector"] = f"metadata.name={name}"
        self._columns = table.columns(resource.kind, namespaces=namespace is None)
        self._widths: list[int] = []
        if resource.namespaced and namespace is None and name is not None:
            raise CommandFailed("a name and -A do not go together: name the namespace with -n")

    def show(self) -> str:
        """Print what there is now; returns the revision."""
        path = self._resource.path(self._namespace)
        if self._name is not None:
            body = self._connection.request("GET", self._resource.path(self._namespace, self._name))
            self._print([body], body)
            return str(body["metadata"].get("resourceVersion", ""))
        body = self._connection.request("GET", f"{path}?{urlencode(self._query)}")
        self._print(body["items"], body)
        return str(body["metadata"].get("resourceVersion", ""))

    def follow(self, version: str) -> None:
        """Print changes until interrupted; a watch that breaks is taken up where it was."""
        if "watch" not in self._resource.verbs:
            raise CommandFailed(f"{self._resource.plural} cannot be watched")
        while True:
            query = {**self._query, "watch": "1", "allowWatchBookmarks": "true", "resourceVersion": version}
            try:
                for line in self._connection.lines(
                    f"{self._resource.path(self._namespace)}?{urlencode(query)}"
                ):
                    version = self._event(line, version)
            except Refused as refused:
                if refused.code != 410:
                    raise
                warn("the revision to go on from is no longer known: showing everything anew")
                version = self.show()
            except CommandFailed as failed:
                warn(failed.message)
            time.sleep(_RECONNECT)

    def _event(self, line: Mapping[str, Any], version: str) -> str:
        body = line["object"]
        if line["type"] == "ERROR":
            raise Refused(body)
        if line["type"] != "BOOKMARK":
            self._print_event(line["type"], body)
        return str(body["metadata"]["resourceVersion"])

    def _print_event(self, kind: str, body: Mapping[str, Any]) -> None:
        if self._output == "table":
            row = [cell(body) for _, cell in self._columns]
            if kind == "DELETED":
                row[-1] = "deleted"
            click.echo(self._row(row))
        else:
            if self._output == "yaml":
                click.echo("---")
            self._print([body], body)

    def _print(self, items: Sequence[Mapping[str, Any]], whole: Mapping[str, Any]) -> None:
        if self._output == "json":
            click.echo(json.dumps(whole, indent=2, ensure_ascii=False))
        elif self._output == "yaml":
            import yaml

            click.echo(yaml.safe_dump(whole, sort_keys=False, allow_unicode=True), nl=False)
        elif self._output == "name":
            for item in items:
                click.echo(f"{self._resource.plural}/{item['metadata']['name']}")
        elif items:
            self._print_table([[cell(item) for _, cell in self._columns] for item in items])
        else:
            where = "in any namespace" if self._namespace is None else f"in namespace {self._namespace}"
            warn(f"no {self._resource.plural} {where}")

    def _print_table(self, rows: Sequence[Sequence[str]]) -> None:
        from control_plane.cli import table

        text = table.render([heading for heading, _ in self._columns], rows)
        headings = [heading for heading, _ in self._columns]
        self._widths = [
            max(len(row[index]) for row in [headings, *rows]) for index in range(len(self._columns))
        ]
        click.echo(text)

    def _row(self, row: Sequence[str]) -> str:
        from control_plane.cli import table

        if not self._widths:
            self._widths = [max(len(h), len(cell)) for (h, _), cell in zip(self._columns, row, strict=True)]
            click.echo(table.format_row([heading for heading, _ in self._columns], self._widths))
        return table.format_row(row, self._widths)
