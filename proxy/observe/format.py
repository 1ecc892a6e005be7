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
from proxy.observe.expressions import Constants, Expression, decode
from proxy.observe.operators import compile_operator

Render = Callable[[Exchange], str]
# Literal text or what an operator reads, in the order of the format.
Part = str | Expression

DEFAULT_FORMAT = (
    '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% '
    "%RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "
    '"%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%"\n'
)

_OPERATOR = re.compile(r"%(?:%|([A-Z0-9_]+)(?:\(([^)]*)\))?(?::([0-9]+))?%)")


def parse(text: str, field: str, constants: Constants, hostname: str = "") -> list[Part]:
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
            found = compile_operator(match[1], match[2], field, constants, hostname)
            parts.append(found if match[3] is None else _truncated(found, int(match[3]), constants))
        at = match.end()
    literal += text[at:]
    if literal:
        parts.append(literal)
    return parts


def _truncated(found: Expression, length: int, constants: Constants) -> Expression:
    def cut(value: str | int | bytes | None) -> str | int | bytes | None:
        return value if value is None or isinstance(value, int) else value[:length]

    return Expression(f"{constants.add(cut)}({found.code})", found.kind)


def _line(parts: list[str | tuple[str]], constants: Constants) -> Render:
    """One function for a line: ``parts`` are literal text and, as 1-tuples, code."""
    template = constants.add("".join(p.replace("%", "%%") if isinstance(p, str) else "%s" for p in parts))
    codes = "".join(f"{part[0]}, " for part in parts if not isinstance(part, str))
    return constants.function(f"{template} % ({codes})")


def compile_text(text: str, field: str, *, omit_empty: bool = False, hostname: str = "") -> Render:
    """A text line. A missing value is ``-``, or nothing with ``omit_empty``."""
    constants = Constants()
    missing = constants.add("" if omit_empty else "-")
    return _line(
        [
            part
            if isinstance(part, str)
            else (part.code if part.kind == "number" else f"as_text({part.code}, {missing})",)
            for part in parse(text, field, constants, hostname)
        ],
        constants,
    )


def compile_json(spec: JsonLogFormat, field: str, *, omit_empty: bool = False, hostname: str = "") -> Render:
    """A JSON line, keys sorted. Numbers are numbers; a missing value is ``null``, or left out with ``omit_empty``."""
    if omit_empty:
        sparse = _sparse(spec, field, hostname)
        return lambda x: (sparse(x) or "{}") + "\n"
    constants = Constants()
    return _line(
        [
            part if isinstance(part, str) else (_json_code(part),)
            for part in (*_dense(spec, field, hostname, constants), "\n")
        ],
        constants,
    )


def _json_code(found: Expression) -> str:
    """The code for JSON text (or a number) of what ``found`` gives."""
    if found.kind == "number":
        return found.code
    if found.kind == "any":
        return f"as_json({found.code})"
    shown = "quote(s)" if found.kind == "text" else "quote(decode(s))"
    return f"('null' if (s := ({found.code})) is None else {shown})"


def _dense(spec: object, field: str, hostname: str, constants: Constants) -> list[Part]:
    """JSON text with expressions for its values."""
    if isinstance(spec, JsonLogFormat):
        parts: list[Part] = ["{"]
        for key, value in sorted(spec.fields, key=lambda pair: pair[0]):
            parts += [
                f"{',' if len(parts) > 1 else ''}{quote(key)}:",
                *_dense(value, f"{field}.{key}", hostname, constants),
            ]
        return [*parts, "}"]
    if isinstance(spec, tuple | list):
        parts = ["["]
        for n, value in enumerate(spec):
            parts += ["," if n else "", *_dense(value, f"{field}[{n}]", hostname, constants)]
        return [*parts, "]"]
    if not isinstance(spec, str):
        return [_constant(spec, field)]
    parts = parse(spec, field, constants, hostname)
    if len(parts) == 1 and isinstance(parts[0], Expression):
        return parts
    if all(isinstance(part, str) for part in parts):
        return [quote("".join(part for part in parts if isinstance(part, str)))]
    plain = constants.add(compile_plain(spec, field, missing="-", hostname=hostname))
    return [Expression(f"{plain}(x)", "text")]


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
    constants = Constants()
    parts = parse(spec, field, constants, hostname)
    if len(parts) != 1 or isinstance(parts[0], str):
        plain = compile_plain(spec, field, missing="", hostname=hostname)
        return lambda x: quote(plain(x))
    return constants.function(f"None if (one := ({parts[0].code})) is None else as_json(one)")


def _constant(value: object, field: str) -> str:
    try:
        return json.dumps(value)
    except TypeError:
        raise ConfigError(field, f"{value!r} has no JSON form") from None


def compile_plain(text: str, field: str, *, missing: str, hostname: str = "") -> Render:
    """Text that is not escaped yet: the caller must do that (JSON members, header values)."""
    constants = Constants()
    read = [
        part if isinstance(part, str) else constants.function(part.code)
        for part in parse(text, field, constants, hostname)
    ]

    def render(x: Exchange) -> str:
        out = ""
        for one in read:
            value = one if isinstance(one, str) else one(x)
            if value is None:
                out += missing
            else:
                out += decode(value) if isinstance(value, bytes) else str(value)
        return out

    return render


def has_operators(text: str, field: str) -> bool:
    """Whether a format string depends on the exchange. Raises ``ConfigError`` as ``parse`` does."""
    return any(not isinstance(part, str) for part in parse(text, field, Constants()))
