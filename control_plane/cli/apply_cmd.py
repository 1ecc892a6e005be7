"""``tulle apply``: everything in the named manifests as one revision, or nothing and every problem."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from control_plane.cli.connection import CommandFailed, Connection, config_option

if TYPE_CHECKING:
    from control_plane.cli.manifest import ManifestProblem


@click.command()
@click.option(
    "-f", "--filename", "filenames", multiple=True, required=True, help="A file, a directory, or - for stdin."
)
@click.option("-R", "--recursive", is_flag=True, help="Also the directories inside a directory.")
@click.option("-n", "--namespace", help="The namespace of objects that name none (default: default).")
@click.option("--dry-run", is_flag=True, help="Only check; the control plane stores nothing.")
@config_option
def apply(
    filenames: tuple[str, ...], recursive: bool, namespace: str | None, dry_run: bool, config: Path
) -> None:
    """Create or change objects from YAML or JSON manifests.

    All or nothing: if anything is wrong with any object, every problem is printed with its file and line,
    nothing is changed and the exit code is 1.
    """
    from control_plane.cli import changeset, sources

    documents, problems = sources.load(filenames, recursive=recursive, namespace=namespace)
    broken = bool(problems)
    if broken and not documents:
        raise changeset.report(problems, "nothing was applied")
    if not documents:
        raise CommandFailed("there are no objects in what -f names")
    answer: dict[str, Any] = {}
    refused: list[ManifestProblem] = []
    try:
        connection = Connection.open(config)
        # What cannot be applied anyway is still checked whole, so that one run shows all there is to mend.
        answer, refused = changeset.send(connection, "objects", documents, dryRun=dry_run or broken)
    except CommandFailed:
        if not broken:
            raise
    problems = changeset.in_order([*problems, *_new(refused, problems)], documents)
    if problems:
        raise changeset.report(problems, "nothing was applied")
    for result in answer["results"]:
        what = f"{result['kind']} {result['namespace']}/{result['name']} {result['action']}"
        click.echo(what + (" (dry run)" if dry_run else ""))
    if not dry_run:
        click.echo(f"revision {answer['revision']}")


def _new(refused: list[ManifestProblem], known: list[ManifestProblem]) -> list[ManifestProblem]:
    """The server sees duplicates too, but cannot name the file."""
    places = {(problem.file, problem.line, problem.field) for problem in known}
    return [problem for problem in refused if (problem.file, problem.line, problem.field) not in places]
