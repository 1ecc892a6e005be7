"""Python expressions for what log operators read: a format becomes the source of one function, without calls between.

An expression speaks of ``x``, the exchange (``proxy.model.exchange.Exchange``), and of constants by the names that
``Constants`` gave them. No text of a configuration is ever part of the source.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii as quote
from typing import Any, Literal

from proxy.model.exchange import Exchange

Kind = Literal["number", "text", "wire", "any"]
"""What an expression gives: always an ``int``; ``str`` or ``None``; ``bytes`` that came over the wire, or ``None``; or
any of them."""


@dataclass(frozen=True, slots=True)
class Expression:
    """``code`` in Python and what it gives."""

    code: str
    kind: Kind


class Constants:
    """What the expressions of one function refer to by name."""

    __slots__ = ("names",)

    def __init__(self) -> None:
        self.names: dict[str, Any] = {
            "as_json": as_json,
            "as_text": as_text,
            "decode": decode,
            "label": label,
            "quote": quote,
        }

    def add(self, value: object) -> str:
        """The name under which ``value`` can be referred to."""
        name = f"c{len(self.names)}"
        self.names[name] = value
        return name

    def function(self, code: str) -> Callable[[Exchange], Any]:
        """``code`` as a function of ``x``."""
        made: Callable[[Exchange], Any] = eval(f"lambda x: {code}", self.names)
        return made


def milliseconds(start: str, end: str, *, happened: str) -> Expression:
    """Milliseconds between two times, missing unless ``happened``."""
    return Expression(f"int((x.{end} - x.{start}) * 1000.0) if x.{happened} else None", "any")


def number(code: str) -> Expression:
    """Code that gives a number."""
    return Expression(code, "number")


def text(code: str) -> Expression:
    """Code that gives text or nothing."""
    return Expression(code, "text")


def text_of(thing: str, code: str, kind: Kind = "text") -> Expression:
    """An expression for ``v``, the attribute ``thing`` of the exchange; missing without one."""
    return Expression(f"None if (v := x.{thing}) is None else {code}", kind)


def label(address: tuple[str, int]) -> str:
    """``ip:port``, with brackets around IPv6."""
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"


def decode(value: bytes) -> str:
    """Bytes from the wire: UTF-8 if they are that, else each byte as the character of its number."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def as_json(value: str | int | bytes | None) -> str:
    """JSON text of a value."""
    if value is None:
        return "null"
    if isinstance(value, bytes):
        return quote(decode(value))
    return quote(value) if isinstance(value, str) else str(value)


def as_text(value: str | int | bytes | None, missing: str) -> str:
    """A value that can neither end a line nor reach a terminal as a control sequence."""
    if value is None:
        return missing
    shown = decode(value) if isinstance(value, bytes) else str(value)
    if shown.isprintable():
        return shown
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in shown)
