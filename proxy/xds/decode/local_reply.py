"""``LocalReplyConfig``: mappers and body formats of the proxy's own answers."""

from __future__ import annotations

from typing import Any

from proxy.model.config import ConfigError
from proxy.model.local_reply import BodyFormat, LocalReplyConfig, ResponseMapper
from proxy.xds.decode import headers
from proxy.xds.decode.access_log import substitution
from proxy.xds.decode.fields import check, forbid, known, wrapped
from proxy.xds.decode.log_filter import log_filter

_CONFIG = known("mappers", "body_format")
_MAPPER = known("filter", "status_code", "body", "body_format_override", "headers_to_add")
_BODY = known("inline_string", "inline_bytes")


def local_reply(message: Any, path: str) -> LocalReplyConfig:
    """A ``LocalReplyConfig``."""
    check(message, path, _CONFIG)
    return LocalReplyConfig(
        tuple(_mapper(item, f"{path}.mappers[{n}]") for n, item in enumerate(message.mappers)),
        _format(message, path, "body_format"),
    )


def _mapper(message: Any, path: str) -> ResponseMapper:
    check(message, path, _MAPPER)
    forbid(not message.HasField("filter"), f"{path}.filter", "is required")
    status = wrapped(message, "status_code", None)
    forbid(
        status is not None and not 200 <= status <= 599, f"{path}.status_code", f"{status} is not in 200..599"
    )
    body: str | None = None
    if message.HasField("body"):
        check(message.body, f"{path}.body", _BODY)
        value = getattr(message.body, message.body.WhichOneof("specifier") or "inline_string")
        try:
            body = value.decode() if isinstance(value, bytes) else value
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path}.body.inline_bytes", f"not UTF-8: {error}") from error
    return ResponseMapper(
        log_filter(message.filter, f"{path}.filter"),
        status,
        body,
        _format(message, path, "body_format_override"),
        headers.added(message.headers_to_add, f"{path}.headers_to_add"),
    )


def _format(message: Any, path: str, name: str) -> BodyFormat | None:
    if not message.HasField(name):
        return None
    at = f"{path}.{name}"
    value = getattr(message, name)
    found, omit = substitution(value, at, content_type=True)
    if found is None:
        raise ConfigError(at, "is empty: set text_format_source or json_format")
    forbid(not value.content_type.isprintable(), f"{at}.content_type", "holds a control character")
    return BodyFormat(found, value.content_type, omit)
