"""An access log: one format, compiled, and the file that its lines go to."""

from __future__ import annotations

from collections.abc import Callable

from proxy.model.access_log import FileAccessLog, JsonLogFormat
from proxy.model.exchange import Exchange
from proxy.observe.format import DEFAULT_FORMAT, Render, compile_json, compile_text
from proxy.observe.log_file import LogFile


class AccessLogWriter:
    """One configured log. ``log(exchange)`` formats and buffers a line; it does no input or output."""

    __slots__ = ("log", "path", "render")

    def __init__(self, render: Render, file: LogFile) -> None:
        self.render = render
        self.path = file.path
        append = file.append

        def log(exchange: Exchange) -> None:
            append(render(exchange))

        self.log: Callable[[Exchange], None] = log


def compile_access_log(
    config: FileAccessLog, open_log: Callable[[str], LogFile], field: str, hostname: str = ""
) -> AccessLogWriter:
    """The writer of ``config``. Raises ``ConfigError`` under ``field``."""
    omit = config.omit_empty_values
    if isinstance(config.format, JsonLogFormat):
        render = compile_json(config.format, f"{field}.json_format", omit_empty=omit, hostname=hostname)
    else:
        text = DEFAULT_FORMAT if config.format is None else config.format.text
        render = compile_text(text, f"{field}.text_format", omit_empty=omit, hostname=hostname)
    return AccessLogWriter(render, open_log(config.path))
