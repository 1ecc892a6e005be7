"""``tulle delete``: named objects, or everything that manifests name, as one revision."""

from __future__ import annotations

from pathlib import Path

import click

from control_plane.cli.connection import CommandFailed, Connection, Refused, config_option, fail


@click.command()
@click.argument("kind", required=False)
@click.argument("names", nargs=-1)
@click.option("-f", "--filename", "filenames", multiple=True, help="A file, a directory, or - for stdin.")
@click.option("-R", "--recursive", is_flag=True, help="Also the directories inside a directory.")
@click.option("-n", "--namespace", help="The namespace (default: default).")
@click.option("--ignore-not-found", is_flag=True, help="Objects that are not there are no error.")
@click.option("--dry-run", is_flag=True, help="Only check; nothing is deleted.")
@config_option
def delete(
    kind: str | None,
    names: tuple[str, ...],
    filenames: tuple[str, ...],
    recursive: bool,
    namespace: str | None,
    ignore_not_found: bool,
    dry_run: bool,
    config: Path,
) -> None:
    """Delete objects: KIND NAME..., or those that -f names. All or none."""
    from control_plane.cli import changeset, served, sources
    from control_plane.cli.manifest import Document

    if bool(kind) == bool(filenames) or bool(kind) != bool(names):
        raise click.UsageError("say either KIND NAME... or -f FILE")
    connection = Connection.open(config)
    if kind is not None:
        try:
            resource = served.find(connection, kind)
        except Refused as refused:
            raise fail(refused) from None
        documents = [
            Document(
                "tulle delete",
                {
                    "apiVersion": resource.api_version,
                    "kind": resource.kind,
                    "metadata": {"name": name, "namespace": namespace or "default"},
                },
                {},
            )
            for name in names
        ]
    else:
        documents, problems = sources.load(filenames, recursive=recursive, namespace=namespace)
        if problems:
            raise changeset.report(changeset.in_order(problems, documents), "nothing was deleted")
        if not documents:
            raise CommandFailed("there are no objects in what -f names")
    answer, problems = changeset.send(
        connection, "delete", documents, dryRun=dry_run, ignoreNotFound=ignore_not_found
    )
    if problems:
        raise changeset.report(problems, "nothing was deleted")
    for result in answer["results"]:
        what = f"{result['kind']} {result['namespace']}/{result['name']} {result['action']}"
        click.echo(what + (" (dry run)" if dry_run else ""))
