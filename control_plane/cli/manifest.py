"""Reads manifests: YAML documents as JSON values, each field with the line where it stands.

It follows the YAML 1.2 core schema, so ``no`` and ``12:30`` are strings and only ``true`` and ``false`` are
booleans. Built on the parser's events: no tags are constructed, duplicate keys are found, and nesting,
aliases and size are bounded. All problems of a file are collected. It must not know any kind but ``List``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

MAX_BYTES = 16 << 20
MAX_DEPTH = 100
MAX_VALUES = 500_000
"""Values in one file after aliases are expanded: what a "billion laughs" would explode."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULL = re.compile(r"~|null|Null|NULL|")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]{1,40}")
_PREFIXED_INT = re.compile(r"0o[0-7]{1,40}|0x[0-9a-fA-F]{1,40}")
_FLOAT = re.compile(
    r"[-+]?(?:(?:\.[0-9]{1,400}|[0-9]{1,400}\.[0-9]{0,400})(?:[eE][-+]?[0-9]{1,4})?|[0-9]{1,400}[eE][-+]?[0-9]{1,4})"
)
_NOT_JSON = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True, slots=True)
class ManifestProblem:
    """One thing that is wrong, printed as ``file:line: subject: field: message``."""

    file: str
    line: int
    message: str
    subject: str = ""
    field: str = ""

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return ": ".join(part for part in (where, self.subject, self.field, self.message) if part)


@dataclass(frozen=True, slots=True)
class Document:
    """One object. ``lines``: field path (``spec.rules[0].name``) -> line, counted from 1; "" = its first line."""

    file: str
    body: Any
    lines: Mapping[str, int]

    @property
    def subject(self) -> str:
        """``HTTPRoute default/web``, as far as the document says."""
        if not isinstance(self.body, dict):
            return ""
        metadata = self.body.get("metadata")
        metadata = metadata if isinstance(metadata, dict) else {}
        name = f"{metadata.get('namespace') or 'default'}/{metadata.get('name') or '<no name>'}"
        return f"{self.body.get('kind') or '<no kind>'} {name}"

    def line(self, field: str) -> int:
        """The line of ``field``, or of the nearest thing around it that is written in the file."""
        while field and field not in self.lines:
            field = field[: max(field.rfind("."), field.rfind("["), 0)]
        return self.lines.get(field, 0)

    def problem(self, field: str, message: str) -> ManifestProblem:
        return ManifestProblem(self.file, self.line(field), message, self.subject, field)


def parse(data: bytes, file: str) -> tuple[list[Document], list[ManifestProblem]]:
    """The documents of one file that can be read, and everything that is wrong with it as YAML."""
    if len(data) > MAX_BYTES:
        return [], [ManifestProblem(file, 0, f"is larger than {MAX_BYTES} bytes")]
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return [], [ManifestProblem(file, line, f"is not UTF-8: {error.reason}")]
    reader = _Reader(file)
    documents: list[Document] = []
    try:
        for document in reader.read(text):
            documents += _objects(document, reader.problems)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        said = ", ".join(part for part in (error.context, error.problem) if part)
        reader.problems.append(ManifestProblem(file, mark.line + 1 if mark else 0, f"is not YAML: {said}"))
    except yaml.YAMLError as error:
        reader.problems.append(ManifestProblem(file, 0, f"is not YAML: {str(error).splitlines()[0]}"))
    except _Stop as stop:
        reader.problems.append(ManifestProblem(file, stop.line, str(stop)))
    return documents, reader.problems


class _Stop(Exception):
    """A limit was reached; the rest of the file is not read."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True, slots=True)
class _Built:
    value: Any
    size: int


class _Reader:
    def __init__(self, file: str) -> None:
        self.problems: list[ManifestProblem] = []
        self._file = file
        self._lines: dict[str, int] = {}
        self._anchors: dict[str, _Built] = {}
        self._values = 0

    def read(self, text: str) -> Iterator[Document]:
        events = iter(yaml.parse(text, Loader=_LOADER))
        for event in events:
            if not isinstance(event, yaml.DocumentStartEvent):
                continue
            self._lines, self._anchors = {}, {}
            first = next(events)
            self._lines[""] = _line(first)
            found = len(self.problems)
            built = self._node(first, events, "", 0)
            # What is broken as YAML need not be judged as an object; other documents are.
            if len(self.problems) == found and built.value is not None:
                yield Document(self._file, built.value, dict(self._lines))

    def _node(self, event: yaml.Event, events: Iterator[yaml.Event], path: str, depth: int) -> _Built:
        line = _line(event)
        if depth > MAX_DEPTH:
            raise _Stop(line, f"is nested more than {MAX_DEPTH} levels deep")
        if isinstance(event, yaml.AliasEvent):
            built = self._alias(event, line)
            self._count(built.size, line)
            return built
        self._count(1, line)
        if isinstance(event, yaml.ScalarEvent):
            built = _Built(self._scalar(event, line), 1)
        elif isinstance(event, yaml.SequenceStartEvent):
            self._check_tag(event.tag, "seq", line)
            built = self._sequence(events, path, depth)
        else:
            assert isinstance(event, yaml.MappingStartEvent)
            self._check_tag(event.tag, "map", line)
            built = self._mapping(events, path, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = built
        return built

    def _sequence(self, events: Iterator[yaml.Event], path: str, depth: int) -> _Built:
        items: list[Any] = []
        size = 1
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            here = f"{path}[{len(items)}]"
            self._lines[here] = _line(event)
            built = self._node(event, events, here, depth + 1)
            items.append(built.value)
            size += built.size
        return _Built(items, size)

    def _mapping(self, events: Iterator[yaml.Event], path: str, depth: int) -> _Built:
        own: dict[str, Any] = {}
        first: dict[str, int] = {}
        merged: dict[str, Any] = {}
        size = 1
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            line = _line(event)
            if not isinstance(event, yaml.ScalarEvent):
                raise _Stop(line, "a key must be plain text")
            key = event.value
            merges = key == "<<" and event.implicit[0]
            here = path if merges else _join(path, key)
            if key in first:
                self._problem(line, f"key {key!r} is here twice, first at line {first[key]}", here)
            elif not merges:
                first[key] = line
                self._lines[here] = line
            built = self._node(next(events), events, here, depth + 1)
            size += built.size
            if merges:
                self._merge(merged, built.value, line)
            else:
                own[key] = built.value
        return _Built({**merged, **own}, size)

    def _merge(self, merged: dict[str, Any], value: Any, line: int) -> None:
        """``<<``: what is named first wins."""
        for source in value if isinstance(value, list) else [value]:
            if not isinstance(source, dict):
                self._problem(line, "<< must name a mapping, or a list of mappings")
                return
            for key, item in source.items():
                merged.setdefault(key, item)

    def _alias(self, event: yaml.AliasEvent, line: int) -> _Built:
        built = self._anchors.get(event.anchor or "")
        if built is None:
            self._problem(line, f"alias *{event.anchor} has no anchor before it, or is inside it")
            return _Built(None, 1)
        return built

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> Any:
        text, tag = event.value, event.tag
        if tag is None:
            return self._plain(text, line) if event.implicit[0] else text
        if tag in ("!", f"{_TAG}str"):
            return text
        if tag in (f"{_TAG}{name}" for name in ("int", "float", "bool", "null")):
            return self._plain(text, line)
        self._check_tag(tag, "str", line)
        return text

    def _plain(self, text: str, line: int) -> Any:
        if _NULL.fullmatch(text):
            return None
        if _TRUE.fullmatch(text):
            return True
        if _FALSE.fullmatch(text):
            return False
        if _INT.fullmatch(text):
            return int(text)
        if _PREFIXED_INT.fullmatch(text):
            return int(text, 0)
        if _FLOAT.fullmatch(text) and math.isfinite(number := float(text)):
            return number
        if _NOT_JSON.fullmatch(text):
            self._problem(line, f"{text} is not a value that JSON has")
            return None
        return text

    def _check_tag(self, tag: str | None, name: str, line: int) -> None:
        if tag not in (None, "!", _TAG + name):
            self._problem(line, f"tag {tag!r} is not supported")

    def _count(self, values: int, line: int) -> None:
        self._values += values
        if self._values > MAX_VALUES:
            raise _Stop(line, f"has more than {MAX_VALUES} values when its aliases are expanded")

    def _problem(self, line: int, message: str, field: str = "") -> None:
        self.problems.append(ManifestProblem(self._file, line, message, "", field))


def _line(event: yaml.Event) -> int:
    assert event.start_mark is not None, "parse() marks every event"
    return event.start_mark.line + 1


def _join(path: str, key: str) -> str:
    # As the API writes field paths.
    if not key.isidentifier():
        return f"{path}[{key}]"
    return f"{path}.{key}" if path else key


def _objects(document: Document, problems: list[ManifestProblem]) -> list[Document]:
    """``document``, or the items of a Kubernetes ``List`` (what ``get -o yaml`` prints)."""
    body = document.body
    if not isinstance(body, dict):
        problems.append(document.problem("", "must be an object with apiVersion, kind and metadata"))
        return []
    items, kind = body.get("items"), body.get("kind")
    if not isinstance(items, list) or not isinstance(kind, str) or not kind.endswith("List"):
        return [document]
    found: list[Document] = []
    for index, item in enumerate(items):
        prefix = f"items[{index}]"
        lines = {
            path[len(prefix) :].lstrip("."): line
            for path, line in document.lines.items()
            if path == prefix or path.startswith((f"{prefix}.", f"{prefix}["))
        }
        found += _objects(Document(document.file, item, lines), problems)
    return found
