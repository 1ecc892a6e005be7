"""``proxy.grpc.timeout``: Envoy's rules for reading and writing ``grpc-timeout``."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.grpc.timeout import MAX_VALUE, parse, render


@pytest.mark.parametrize(
    ("value", "milliseconds"),
    [
        (None, None),
        (b"", None),
        (b"0H", 0),
        (b"1M", 60000),
        (b"2H", 7200000),
        (b"1S", 1000),
        (b"3S", 3000),
        (b"4m", 4),
        (b"5n", 1),
        (b"5000000n", 5),
        (b"6u", 1),
        (b"1001u", 2),
        (b"0n", 0),
        (b"-0S", 0),
        (b"-1S", None),
        (b"99999999H", 359999996400000),
        (b"99999999m", 99999999),
        (b"000000001m", 1),
        # Too many digits: the count would have overflowed (CVE-2021-28682).
        (b"100000000m", None),
        (b"9223372036854775807H", None),
        (b"18446744073709551616n", None),
        (b"9" * 5000 + b"S", None),
        (b"1", None),
        (b"S", None),
        (b"1s", None),
        (b"1X", None),
        (b"1.5S", None),
        (b"foo", None),
        (b"5 S", 5000),
        (b"1Sm", None),
    ],
)
def test_parse(value: bytes | None, milliseconds: int | None) -> None:
    assert parse(value) == milliseconds


@pytest.mark.parametrize(
    ("milliseconds", "value"),
    [
        (0, b"0m"),
        (1, b"1m"),
        (99999999, b"99999999m"),
        (100000000, b"100000S"),
        (100000000000, b"1666666M"),
        (9000000000000, b"2500000H"),
        (99999999000, b"99999999S"),
        (60000000000000, b"16666666H"),
        (359999996400000, b"99999999H"),
        (360000000000000, b"99999999H"),
        (1 << 62, b"99999999H"),
    ],
)
def test_render(milliseconds: int, value: bytes) -> None:
    assert render(milliseconds) == value


@given(st.integers(min_value=0, max_value=MAX_VALUE * 3600000))
def test_what_is_written_can_be_read_and_is_never_longer(milliseconds: int) -> None:
    found = parse(render(milliseconds))
    assert found is not None
    assert found <= milliseconds < found + 3600000
