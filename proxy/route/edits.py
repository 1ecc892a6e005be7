"""Header mutations of all levels of one route, folded when configuration changes into one edit.

It does not know operators (``%REQ(x)%``): the compiler passes in how a value is made.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from proxy.model.config import ConfigError
from proxy.model.exchange import Exchange, Head
from proxy.model.route import AppendAction, HeaderValueOption

Render = Callable[[Head, Exchange], tuple[frozenset[bytes], bytes]]
# A value is its bytes, or a function of the exchange when it has operators.
Value = bytes | Callable[[Exchange], bytes]
CompileValue = Callable[[str, str], Value]
Step = tuple[AppendAction | None, bytes, Value]

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class HeaderEdits:
    """What to do to a head: leave out the headers named in ``strip`` (lower case), append ``extra`` (ready lines).

    If ``render`` is not ``None`` the edit depends on the exchange: call it with the head that is edited and the
    exchange; it returns ``(strip, extra)``, and the two attributes are empty.
    """

    strip: frozenset[bytes] = frozenset()
    extra: bytes = b""
    render: Render | None = None


def compile_edits(
    levels: Sequence[tuple[Sequence[HeaderValueOption], Sequence[str], str]], compile_value: CompileValue
) -> HeaderEdits | None:
    """One edit for all ``levels``, ``None`` if there is nothing to do.

    ``levels``: (headers to add, names to remove, field path), in the order in which they apply (Envoy: the most
    specific first). In each level removals come first. ``compile_value(text, field)`` makes a value.
    Raises ``ConfigError`` for names that must not be touched: pseudo headers and those that frame the message.
    """
    steps: list[Step] = []
    for add, remove, field in levels:
        steps += [(None, _name(name, f"{field}_to_remove[{n}]"), b"") for n, name in enumerate(remove)]
        adds = []
        for n, option in enumerate(add):
            path = f"{field}_to_add[{n}].header"
            adds.append(
                (
                    option.append_action,
                    _name(option.name, f"{path}.key"),
                    compile_value(option.value, f"{path}.value"),
                )
            )
        # Envoy overwrites before it appends, whatever the order in the list.
        steps += sorted(adds, key=lambda step: step[0] in ("APPEND_IF_EXISTS_OR_ADD", "ADD_IF_ABSENT"))
    if not steps:
        return None
    if all(isinstance(value, bytes) and action not in _CONDITIONAL for action, _, value in steps):
        strip, extra = _apply(steps, None, None)
        return HeaderEdits(strip, extra)
    return HeaderEdits(render=lambda head, exchange: _apply(steps, head, exchange))


_CONDITIONAL = frozenset(("ADD_IF_ABSENT", "OVERWRITE_IF_EXISTS"))


def _apply(
    steps: Sequence[Step], head: Head | None, exchange: Exchange | None
) -> tuple[frozenset[bytes], bytes]:
    """Run the steps: which received headers go, and the lines that come. Empty values add nothing, as in Envoy."""
    strip: set[bytes] = set()
    lines: list[tuple[bytes, bytes]] = []
    for action, name, made in steps:
        if action is None:
            strip.add(name)
            lines = [line for line in lines if line[0] != name]
            continue
        value = made if isinstance(made, bytes) else made(exchange)  # type: ignore[arg-type]
        if not value:
            continue
        if action != "APPEND_IF_EXISTS_OR_ADD":
            received = head is not None and name not in strip and head.get(name) is not None
            exists = received or any(line[0] == name for line in lines)
            if exists == (action == "ADD_IF_ABSENT") and action in _CONDITIONAL:
                continue
            if action != "ADD_IF_ABSENT":
                strip.add(name)
                lines = [line for line in lines if line[0] != name]
        lines.append((name, value))
    return frozenset(strip), b"".join(b"%b: %b\r\n" % line for line in lines)


_FRAMING = frozenset(
    ("host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer")
)


def _name(name: str, field: str) -> bytes:
    lowered = name.lower()
    if lowered.startswith(":") or lowered in _FRAMING:
        raise ConfigError(field, f"{name!r} may not be changed: it names or frames the message")
    if not _TOKEN(lowered):
        raise ConfigError(field, f"{name!r} is not a header name (RFC 9110 section 5.1)")
    return lowered.encode()


def safe_value(value: bytes) -> bytes:
    """A header value without control characters: what a client sent must not make a line of its own."""
    return _CONTROL.sub(b"", value).strip(b" \t") if _CONTROL.search(value) else value.strip(b" \t")
