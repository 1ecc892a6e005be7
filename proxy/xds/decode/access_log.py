"""Access loggers (``config.accesslog.v3`` with the file and standard stream sinks)."""

from __future__ import annotations

from typing import Any

from envoy.extensions.access_loggers.file.v3 import file_pb2
from envoy.extensions.access_loggers.stream.v3 import stream_pb2

from proxy.model.access_log import FileAccessLog, JsonLogFormat, TextLogFormat
from proxy.model.config import ConfigError
from proxy.xds.decode.fields import check, known, required, unpack

_ACCESS_LOG = known("typed_config", without_effect={"name": "is a label; the type URL decides"})
_FILE = known("path", "format", "json_format", "typed_json_format", "log_format")
_STREAM = known("log_format")
_FORMAT = known(
    "text_format",
    "json_format",
    "text_format_source",
    "omit_empty_values",
    without_effect={"json_format_options": "keys are always sorted, which is all that it can ask for"},
)
_SOURCE = known("inline_string", "inline_bytes")

_STREAMS = {"StdoutAccessLog": "/dev/stdout", "StderrAccessLog": "/dev/stderr"}


def access_logs(messages: Any, path: str) -> tuple[FileAccessLog, ...]:
    """Each ``AccessLog`` of a list."""
    return tuple(_access_log(message, f"{path}[{index}]") for index, message in enumerate(messages))


def _access_log(message: Any, path: str) -> FileAccessLog:
    check(message, path, _ACCESS_LOG)
    path = f"{path}.typed_config"
    sinks = (file_pb2.FileAccessLog, stream_pb2.StdoutAccessLog, stream_pb2.StderrAccessLog)
    sink = unpack(message.typed_config, path, sinks)
    stream = _STREAMS.get(sink.DESCRIPTOR.name)
    check(sink, path, _FILE if stream is None else _STREAM)
    target = required(sink.path, f"{path}.path") if stream is None else stream
    kind = sink.WhichOneof("access_log_format")
    if kind is None:
        return FileAccessLog(target)
    if kind == "log_format":
        log_format, omit = substitution(sink.log_format, f"{path}.log_format")
        return FileAccessLog(target, log_format, omit)
    if kind == "format":
        return FileAccessLog(target, TextLogFormat(sink.format) if sink.format else None)
    return FileAccessLog(target, _json(getattr(sink, kind)))


def substitution(
    message: Any, path: str, *, content_type: bool = False
) -> tuple[JsonLogFormat | TextLogFormat | None, bool]:
    """A ``SubstitutionFormatString`` and its ``omit_empty_values``; an empty text is Envoy's default format."""
    check(message, path, _FORMAT | {"content_type"} if content_type else _FORMAT)
    omit: bool = message.omit_empty_values
    kind = message.WhichOneof("format")
    if kind == "json_format":
        return _json(message.json_format), omit
    if kind == "text_format":
        return (TextLogFormat(message.text_format) if message.text_format else None), omit
    if kind == "text_format_source":
        at = f"{path}.text_format_source"
        check(message.text_format_source, at, _SOURCE)
        source = message.text_format_source.WhichOneof("specifier")
        if source is None:
            raise ConfigError(at, "is empty: set inline_string")
        try:
            text = getattr(message.text_format_source, source)
            text = text.decode() if isinstance(text, bytes) else text
        except UnicodeDecodeError as error:
            raise ConfigError(f"{at}.{source}", f"not UTF-8: {error}") from error
        return (TextLogFormat(text) if text else None), omit
    raise ConfigError(path, "is empty: set json_format or text_format_source")


def _json(struct: Any) -> JsonLogFormat:
    """A ``Struct``, keys sorted as Envoy prints them."""
    return JsonLogFormat(tuple((key, _value(struct.fields[key])) for key in sorted(struct.fields)))


def _value(value: Any) -> object:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return _json(value.struct_value)
    if kind == "list_value":
        return tuple(_value(item) for item in value.list_value.values)
    if kind in (None, "null_value"):
        return None
    found = getattr(value, kind)
    return int(found) if kind == "number_value" and found.is_integer() else found
