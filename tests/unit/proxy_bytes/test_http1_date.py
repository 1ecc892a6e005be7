"""HTTP's dates against the standard library's."""

from __future__ import annotations

from email.utils import formatdate

from hypothesis import example, given
from hypothesis import strategies as st

from proxy.http1.date import http_date


@given(st.integers(0, 253402300799))
@example(784111777)  # RFC 9110's own: Sun, 06 Nov 1994 08:49:37 GMT
@example(951782400)  # 29 February
def test_as_the_standard_library_writes_them(at: int) -> None:
    assert http_date(at).decode() == formatdate(at, usegmt=True)
