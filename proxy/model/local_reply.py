"""``LocalReplyConfig``: how the proxy's own answers look."""

from __future__ import annotations

from proxy.model.access_log import JsonLogFormat, TextLogFormat
from proxy.model.frozen import dataclass
from proxy.model.log_filter import LogFilter
from proxy.model.route import HeaderValueOption


@dataclass(frozen=True, slots=True)
class BodyFormat:
    """``SubstitutionFormatString`` of a body. ``content_type`` "" is the format's own: plain text or JSON."""

    format: JsonLogFormat | TextLogFormat
    content_type: str = ""
    omit_empty_values: bool = False


@dataclass(frozen=True, slots=True)
class ResponseMapper:
    """The first whose ``filter`` takes an answer changes it; ``None`` leaves that part as it is."""

    filter: LogFilter
    status_code: int | None = None
    body: str | None = None
    body_format: BodyFormat | None = None
    headers: tuple[HeaderValueOption, ...] = ()


@dataclass(frozen=True, slots=True)
class LocalReplyConfig:
    """``body_format`` is for answers whose mapper has none."""

    mappers: tuple[ResponseMapper, ...] = ()
    body_format: BodyFormat | None = None
