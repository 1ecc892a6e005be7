"""The saved inputs of the fuzzer, and some of hypothesis's, through the same targets."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS

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


def test_the_corpus_is_there() -> None:
    assert {path.parent.name for path in FILES} == set(TARGETS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_saved_input(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
@given(cut=CUT, parts=st.lists(PARTS, max_size=12))
def test_parts_of_messages(name: str, cut: bytes, parts: list[bytes]) -> None:
    TARGETS[name](cut + b"".join(parts))
