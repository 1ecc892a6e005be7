"""Which manifests ``-f`` names, and all their documents. It must not judge them beyond what YAML and identity say."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from control_plane.cli.manifest import MAX_BYTES, Document, ManifestProblem, parse

_SUFFIXES = frozenset({".yaml", ".yml", ".json"})


def load(
    names: Sequence[str], *, recursive: bool, namespace: str | None
) -> tuple[list[Document], list[ManifestProblem]]:
    """Every document of the named files, directories and ``-`` (standard input), and every problem.

    ``namespace`` is given to documents that name none.
    """
    documents: list[Document] = []
    problems: list[ManifestProblem] = []
    for name, data in _contents(names, recursive, problems):
        found, wrong = parse(data, name)
        documents += [_in_namespace(document, namespace) for document in found]
        problems += wrong
    problems += _duplicates(documents)
    return documents, problems


def _contents(
    names: Sequence[str], recursive: bool, problems: list[ManifestProblem]
) -> list[tuple[str, bytes]]:
    contents: list[tuple[str, bytes]] = []
    for name in names:
        if name == "-":
            contents.append(("<stdin>", sys.stdin.buffer.read(MAX_BYTES + 1)))
            continue
        path = Path(name)
        if path.is_dir():
            pattern = "**/*" if recursive else "*"
            files = sorted(file for file in path.glob(pattern) if file.suffix in _SUFFIXES and file.is_file())
            if not files:
                problems.append(ManifestProblem(name, 0, "has no .yaml, .yml or .json files"))
        else:
            files = [path]
        for file in files:
            try:
                with file.open("rb") as opened:
                    contents.append((str(file), opened.read(MAX_BYTES + 1)))
            except OSError as error:
                problems.append(ManifestProblem(str(file), 0, f"cannot be read: {error.strerror}"))
    return contents


def _in_namespace(document: Document, namespace: str | None) -> Document:
    body = document.body
    metadata = body.get("metadata")
    if namespace is None or not isinstance(metadata, dict) or metadata.get("namespace"):
        return document
    placed = {**body, "metadata": {**metadata, "namespace": namespace}}
    return Document(document.file, placed, document.lines)


def _duplicates(documents: Sequence[Document]) -> list[ManifestProblem]:
    first: dict[tuple[str, ...], Document] = {}
    problems = []
    for document in documents:
        identity = _identity(document.body)
        if identity is None:
            continue
        other = first.setdefault(identity, document)
        if other is not document:
            message = f"is defined already at {other.file}:{other.line('metadata.name')}"
            problems.append(document.problem("metadata.name", message))
    return problems


def _identity(body: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Group, kind, namespace and name, if the document says them."""
    metadata = body.get("metadata")
    if not isinstance(metadata, dict):
        return None
    group = str(body.get("apiVersion", "")).rpartition("/")[0]
    named = (body.get("kind"), metadata.get("namespace") or "default", metadata.get("name"))
    parts = [part for part in named if isinstance(part, str)]
    return (group, *parts) if len(parts) == len(named) else None
