"""``proxy.route.edits``: levels and append actions as in Envoy."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.model.config import ConfigError
from proxy.model.route import HeaderValueOption
from proxy.route.edits import HeaderEdits, Value, compile_edits, safe_value
from tests.fakes.exchange import FakeExchange, FakeHead


def _value(text: str, field: str) -> Value:
    if text.startswith("="):
        return lambda x: x.head.get(text[1:].encode()) or b"" if x.head else b""
    return text.encode()


def _add(name: str, value: str, action: Any = "APPEND_IF_EXISTS_OR_ADD") -> HeaderValueOption:
    return HeaderValueOption(name, value, action)


def _apply(edits: HeaderEdits | None, *lines: tuple[str, str]) -> list[tuple[str, str]]:
    """What a head with ``lines`` becomes."""
    assert edits is not None
    head = FakeHead("/", *lines)
    strip, extra = (
        (edits.strip, edits.extra) if edits.render is None else edits.render(head, FakeExchange(head))
    )
    kept = [(name, value) for name, value in lines if name.encode() not in strip]
    return kept + [tuple(line.split(": ", 1)) for line in extra.decode().splitlines()]  # type: ignore[misc]


def test_nothing_to_do_is_none() -> None:
    assert compile_edits([((), (), "f"), ((), (), "g")], _value) is None


@pytest.mark.parametrize(
    ("action", "absent", "present"),
    [
        ("APPEND_IF_EXISTS_OR_ADD", [("x", "new")], [("x", "1"), ("x", "2"), ("x", "new")]),
        ("ADD_IF_ABSENT", [("x", "new")], [("x", "1"), ("x", "2")]),
        ("OVERWRITE_IF_EXISTS_OR_ADD", [("x", "new")], [("x", "new")]),
        ("OVERWRITE_IF_EXISTS", [], [("x", "new")]),
    ],
)
def test_append_actions(action: str, absent: list[Any], present: list[Any]) -> None:
    edits = compile_edits([([_add("X", "new", action)], (), "f")], _value)
    assert _apply(edits) == absent
    assert _apply(edits, ("x", "1"), ("x", "2")) == present


def test_constant_edits_are_ready_bytes() -> None:
    edits = compile_edits(
        [([_add("a", "1"), _add("b", "2", "OVERWRITE_IF_EXISTS_OR_ADD")], ["C"], "f")], _value
    )
    assert edits == HeaderEdits(frozenset((b"b", b"c")), b"b: 2\r\na: 1\r\n")


def test_levels_apply_in_order_and_remove_first() -> None:
    edits = compile_edits(
        [
            ([_add("a", "route"), _add("b", "route")], (), "route"),
            ([_add("a", "host", "OVERWRITE_IF_EXISTS_OR_ADD"), _add("c", "host")], ["b"], "host"),
            ([_add("c", "table", "ADD_IF_ABSENT"), _add("d", "table", "OVERWRITE_IF_EXISTS")], (), "table"),
        ],
        _value,
    )
    assert _apply(edits, ("a", "0"), ("b", "0")) == [("a", "host"), ("c", "host")]


def test_values_of_the_exchange_and_empty_ones() -> None:
    edits = compile_edits([([_add("x-n", "=x-q"), _add("x-o", "=nope")], (), "f")], _value)
    assert _apply(edits, ("x-q", "v")) == [("x-q", "v"), ("x-n", "v")]


@pytest.mark.parametrize(
    "name", [":path", "Host", "content-length", "transfer-encoding", "a b", "", "x\r\ny"]
)
def test_names_that_must_not_be_changed(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compile_edits([([_add("ok", "1"), _add(name, "1")], (), "route.request_headers")], _value)
    assert caught.value.path == "route.request_headers_to_add[1].header.key"
    with pytest.raises(ConfigError) as caught:
        compile_edits([((), [name], "route.request_headers")], _value)
    assert caught.value.path == "route.request_headers_to_remove[0]"


@pytest.mark.parametrize(
    ("raw", "safe"), [(b"a", b"a"), (b" a\tb ", b"a\tb"), (b"a\r\nx: y\0", b"ax: y"), (b"\x7f", b"")]
)
def test_what_a_client_sent_cannot_end_a_line(raw: bytes, safe: bytes) -> None:
    assert safe_value(raw) == safe
