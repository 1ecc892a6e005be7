"""Format strings and JSON formats compiled to one function from an exchange to a line.

Every value is escaped: what a client sends can neither end a line nor reach a terminal as a control sequence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from json.encoder import encode_basestring_ascii as quote

from proxy.model.access_log import JsonLogFormat
from proxy.model.config import ConfigError
from proxy.model.exchange import Exchange
from proxy.observe.operators import Getter, Value, compile_operator, is_number

Render = Callable[[Exchange], str]
# Literal text or an operator's getter, in the order of the format.
Part = str | Getter

DEFAULT_FORMAT = (
    '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% '
    "%RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "
    '"%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%"\n'
)

_OPERATOR = re.compile(r"%(?:%|([A-Z0-9_]+)(?:\(([^)]*)\))?(?::([0-9]+))?%)")


def parse(text: str, field: str, hostname: str = "") -> list[Part]:
    """The parts of a format string. Raises ``ConfigError`` for ``field``: unknown operators, a stray ``%``."""
    parts: list[Part] = []
    literal = ""
    at = 0
    while (percent := text.find("%", at)) >= 0:
        literal += text[at:percent]
        match = _OPERATOR.match(text, percent)
        if match is None:
            raise ConfigError(
                field, f"no operator at position {percent} ({text[percent : percent + 20]!r}); write %% for %"
            )
        if match[1] is None:
            literal += "%"
        else:
            if literal:
                parts.append(literal)
                literal = ""
            getter = compile_operator(match[1], match[2], field, hostname)
            parts.append(getter if match[3] is None else _truncated(getter, int(match[3])))
        at = match.end()
    literal += text[at:]
    if literal:
        parts.append(literal)
    return parts


def _truncated(getter: Getter, length: int) -> Getter:
    def get(x: Exchange) -> Value:
        value = getter(x)
        return value if value is None or isinstance(value, int) else value[:length]

    return get


def _weave(parts: list[Part]) -> tuple[list[str], list[Getter]]:
    """Literals at the even places, empty places for the getters' values between them, and the getters."""
    chunks, getters = [""], []
    for part in parts:
        if isinstance(part, str):
            chunks[-1] += part
        else:
            chunks += ["", ""]
            getters.append(part)
    return chunks, getters


def compile_text(text: str, field: str, *, omit_empty: bool = False, hostname: str = "") -> Render:
    """A text line. A missing value is ``-``, or nothing with ``omit_empty``."""
    missing = "" if omit_empty else "-"
    chunks, getters = _weave(parse(text, field, hostname))

    def render(x: Exchange) -> str:
        line = chunks.copy()
        at = 1
        for get in getters:
            value = get(x)
            if value is None:
                line[at] = missing
            elif isinstance(value, int):
                line[at] = str(value)
            else:
                shown = value if isinstance(value, str) else decode(value)
                line[at] = shown if shown.isprintable() else _visible(shown)
            at += 2
        return "".join(line)

    return render


def decode(value: bytes) -> str:
    """Bytes from the wire: UTF-8 if they are that, else each byte as the character of its number."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _visible(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def compile_json(spec: JsonLogFormat, field: str, *, omit_empty: bool = False, hostname: str = "") -> Render:
    """A JSON line, keys sorted. Numbers are numbers; a missing value is ``null``, or left out with ``omit_empty``."""
    if omit_empty:
        sparse = _sparse(spec, field, hostname)
        return lambda x: (sparse(x) or "{}") + "\n"
    chunks, getters = _weave([*_dense(spec, field, hostname), "\n"])
    template = "%s".join(chunk.replace("%", "%%") for chunk in chunks[0::2])
    members = tuple(get if is_number(get) else _member(get) for get in getters)
    return lambda x: template % tuple([member(x) for member in members])


def _member(get: Getter) -> Render:
    """The value as JSON text."""

    def render(x: Exchange) -> str:
        value = get(x)
        if value is None:
            return "null"
        kind = value.__class__
        if kind is str:
            return quote(value)
        return quote(decode(value)) if kind is bytes else str(value)  # type: ignore[arg-type]

    return render


def _dense(spec: object, field: str, hostname: str) -> list[Part]:
    """JSON text with getters for its values."""
    if isinstance(spec, JsonLogFormat):
        parts: list[Part] = ["{"]
        for key, value in sorted(spec.fields, key=lambda pair: pair[0]):
            parts += [
                f"{',' if len(parts) > 1 else ''}{quote(key)}:",
                *_dense(value, f"{field}.{key}", hostname),
            ]
        return [*parts, "}"]
    if isinstance(spec, tuple | list):
        parts = ["["]
        for n, value in enumerate(spec):
            parts += ["," if n else "", *_dense(value, f"{field}[{n}]", hostname)]
        return [*parts, "]"]
    if not isinstance(spec, str):
        return [_constant(spec, field)]
    parts = parse(spec, field, hostname)
    if len(parts) == 1 and not isinstance(parts[0], str):
        return parts
    if not any(callable(part) for part in parts):
        return [quote("".join(part for part in parts if isinstance(part, str)))]
    return [compile_plain(spec, field, missing="-", hostname=hostname)]


def _sparse(spec: object, field: str, hostname: str) -> Callable[[Exchange], str | None]:
    """The same as a function whose ``None`` leaves the member out."""
    if isinstance(spec, JsonLogFormat):
        members = [
            (f"{quote(key)}:", _sparse(value, f"{field}.{key}", hostname))
            for key, value in sorted(spec.fields, key=lambda pair: pair[0])
        ]

        def render_object(x: Exchange) -> str | None:
            found = [(key, get(x)) for key, get in members]
            inner = ",".join([key + value for key, value in found if value is not None])
            return f"{{{inner}}}" if inner else None

        return render_object
    if isinstance(spec, tuple | list):
        items = [_sparse(value, f"{field}[{n}]", hostname) for n, value in enumerate(spec)]
        return lambda x: "[" + ",".join(v for v in (get(x) for get in items) if v is not None) + "]"
    if not isinstance(spec, str):
        constant = _constant(spec, field)
        return lambda x: constant
    parts = parse(spec, field, hostname)
    if len(parts) != 1 or isinstance(parts[0], str):
        plain = compile_plain(spec, field, missing="", hostname=hostname)
        return lambda x: quote(plain(x))
    get = parts[0]

    def render_value(x: Exchange) -> str | None:
        value = get(x)
        if value is None:
            return None
        if isinstance(value, int):
            return str(value)
        return quote(decode(value) if isinstance(value, bytes) else value)

    return render_value


def _constant(value: object, field: str) -> str:
    try:
        return json.dumps(value)
    except TypeError:
        raise ConfigError(field, f"{value!r} has no JSON form") from None


def compile_plain(text: str, field: str, *, missing: str, hostname: str = "") -> Render:
    """Text that is not escaped yet: the caller must do that (JSON members, header values)."""
    parts = parse(text, field, hostname)

    def render(x: Exchange) -> str:
        out = ""
        for part in parts:
            value = part if isinstance(part, str) else part(x)
            if value is None:
                out += missing
            else:
                out += decode(value) if isinstance(value, bytes) else str(value)
        return out

    return render


def has_operators(text: str, field: str) -> bool:
    """Whether a format string depends on the exchange. Raises ``ConfigError`` as ``parse`` does."""
    return any(not isinstance(part, str) for part in parse(text, field))
