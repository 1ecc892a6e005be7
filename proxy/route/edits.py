"""Header mutations of all levels of one route, folded when configuration changes into one edit.

It does not know operators (``%REQ(x)%``): the compiler passes in how a value is made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from proxy.model.exchange import Exchange, Head

Render = Callable[[Head, Exchange], tuple[frozenset[bytes], bytes]]


@dataclass(frozen=True, slots=True)
class HeaderEdits:
    """What to do to a head: leave out the headers named in ``strip`` (lower case), append ``extra`` (ready lines).

    If ``render`` is not ``None`` the edit depends on the exchange: call it with the head that is edited and the
    exchange; it returns ``(strip, extra)``, and the two attributes are empty.
    """

    strip: frozenset[bytes] = frozenset()
    extra: bytes = b""
    render: Render | None = None
