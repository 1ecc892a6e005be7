"""Sends documents as one change set and brings the answer's causes back to files and lines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from control_plane.cli.connection import CommandFailed, Connection, Refused, fail
from control_plane.cli.manifest import Document, ManifestProblem

PATH = "/apis/mesh.tulle.io/v1/changesets"
_CAUSE = re.compile(r"(?:objects|delete)\[(\d+)\]\.?(.*)", re.DOTALL)


def send(
    connection: Connection, field: str, documents: Sequence[Document], **options: bool
) -> tuple[dict[str, Any], list[ManifestProblem]]:
    """``field`` is ``objects`` or ``delete``. The answer, or all problems. Raises :class:`CommandFailed`."""
    body = {field: [document.body for document in documents], **options}
    try:
        return connection.request("POST", PATH, body), []
    except Refused as refused:
        problems = [_located(cause, documents) for cause in refused.causes]
        if not problems or None in problems:
            raise fail(refused) from None
        return {}, [problem for problem in problems if problem is not None]


def report(problems: Sequence[ManifestProblem], what: str) -> CommandFailed:
    """Every problem on a line of its own, and what it means."""
    count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return CommandFailed("\n".join([*map(str, problems), f"{count}: {what}"]))


def in_order(problems: Sequence[ManifestProblem], documents: Sequence[Document]) -> list[ManifestProblem]:
    """By file, in the order in which the files were named, then by line; each once."""
    files = {file: index for index, file in enumerate(dict.fromkeys(d.file for d in documents))}
    unique = dict.fromkeys(problems)
    return sorted(unique, key=lambda p: (files.get(p.file, len(files)), p.line))


def _located(cause: Any, documents: Sequence[Document]) -> ManifestProblem | None:
    match = _CAUSE.fullmatch(cause.get("field", ""))
    if match is None or int(match[1]) >= len(documents):
        return None
    return documents[int(match[1])].problem(match[2], cause["message"])
