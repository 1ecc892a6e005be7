"""The saved inputs of the fuzzer, and some of hypothesis's, through the same targets."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS
from tests.unit.http2.pairs import frame

CORPUS = Path(__file__).with_name("corpus")
FILES = sorted(path for path in CORPUS.rglob("*") if path.is_file())
PARTS = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\n", b"POST /a?b HTTP/1.0\r\n", b"HTTP/1.1 200 OK\r\n", b"Host: a\r\n", b"host: b:1\r\n",
        b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close, x\r\n", b"\r\n", b"\n",
        b" ", b"\t", b":", b"\0", b"5\r\n", b"hello\r\n", b"0\r\n", b";a=b", b"x", b"\xff",
    ]
)  # fmt: skip
CUT = st.binary(min_size=1, max_size=1)
STREAM = st.sampled_from([0, 1, 2, 3, 5])
FLAGS = st.sampled_from([0, 1, 4, 5, 8, 9, 12, 13])
# HPACK: indexed fields of the static table, literals that are kept and that are not, table sizes.
BLOCK = st.lists(
    st.sampled_from(
        [
            b"\x82", b"\x83", b"\x84", b"\x86", b"\x87", b"\x88", b"\x8d", b"\x41\1a",
            b"\x01\1a", b"\x44\2/b", b"\x5c\0011",
            b"\x40\1a\1b", b"\0\1A\1b", b"\x10\1a\1b", b"\0\2te\1x", b"\xbe", b"\xbf", b"\x20",
            b"\x3f\xe1\x1f", b"\xff",
        ]
    ),
    max_size=8,
).map(b"".join)  # fmt: skip
REQUEST = st.just(b"\x82\x86\x84\x41\1a")
PAYLOAD = st.one_of(
    BLOCK, REQUEST, st.binary(max_size=40), st.integers(0, 2**31).map(lambda value: value.to_bytes(4, "big"))
)
FRAMES = st.one_of(
    st.builds(frame, st.integers(0, 12), FLAGS, STREAM, PAYLOAD),
    st.builds(frame, st.just(1), st.sampled_from([4, 5]), STREAM, st.one_of(REQUEST, BLOCK)),
    st.builds(frame, st.just(0), st.sampled_from([0, 1]), STREAM, st.binary(max_size=30)),
)


def test_the_corpus_is_there() -> None:
    assert {path.parent.name for path in FILES} == set(TARGETS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_saved_input(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
@given(cut=CUT, parts=st.lists(PARTS, max_size=12))
def test_parts_of_messages(name: str, cut: bytes, parts: list[bytes]) -> None:
    TARGETS[name](cut + b"".join(parts))


@given(cut=CUT, parts=st.lists(FRAMES, max_size=12), rest=st.binary(max_size=12))
def test_frames(cut: bytes, parts: list[bytes], rest: bytes) -> None:
    TARGETS["http2"](cut + b"".join(parts) + rest)
