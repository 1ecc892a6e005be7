"""Access log sinks (``extensions.access_loggers.file.v3.FileAccessLog`` and the stdout/stderr loggers)."""

from __future__ import annotations

from proxy.model.frozen import dataclass


@dataclass(frozen=True, slots=True)
class JsonLogFormat:
    """``json_format``: pairs of key and format (a string with operators, a constant, or a nested format)."""

    fields: tuple[tuple[str, object], ...]


@dataclass(frozen=True, slots=True)
class TextLogFormat:
    """``text_format_source.inline_string``, the newline included."""

    text: str


@dataclass(frozen=True, slots=True)
class FileAccessLog:
    """A log file. ``format`` ``None`` is Envoy's default text format."""

    path: str
    format: JsonLogFormat | TextLogFormat | None = None
    omit_empty_values: bool = False
