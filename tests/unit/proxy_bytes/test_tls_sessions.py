"""When the session of a connection is looked at: each look loses memory in CPython, so there are few."""

from __future__ import annotations

import ssl
from types import SimpleNamespace
from typing import Any

import pytest

from proxy.tls import context
from proxy.tls.context import LOOK_INTERVAL, TlsContext


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    made = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(context, "time", SimpleNamespace(time=lambda: made.now))
    return made


def client(**options: Any) -> TlsContext:
    return TlsContext(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), None, **options)  # type: ignore[arg-type]


def session(at: float, life: float) -> Any:
    return SimpleNamespace(time=at, timeout=life)


def test_an_accepted_session_serves_for_half_of_its_life(clock: SimpleNamespace) -> None:
    made = client()
    assert made.wants_session("a", resumed=False)
    made.remember("a", session(clock.now, 7200))
    for _ in range(1000):
        assert not made.wants_session("a", resumed=True)
    clock.now += 3600
    assert made.wants_session("a", resumed=True)


def test_a_server_that_accepts_none_is_looked_at_once_in_a_while(clock: SimpleNamespace) -> None:
    made = client()
    looks = 0
    for _ in range(600):
        looks += made.wants_session("a", resumed=False)
        clock.now += LOOK_INTERVAL / 60
    assert looks == 10


def test_servers_do_not_wait_for_each_other(clock: SimpleNamespace) -> None:
    made = client()
    assert made.wants_session("a", resumed=False) and made.wants_session("b", resumed=False)
    assert not made.wants_session("a", resumed=False)


def test_what_is_known_of_servers_is_bounded(clock: SimpleNamespace) -> None:
    made = client(max_sessions=10)
    for number in range(100):
        made.wants_session(str(number), resumed=False)
    assert len(made._looked) == 10


def test_without_resumption_nothing_is_looked_at(clock: SimpleNamespace) -> None:
    assert not client(max_sessions=0).wants_session("a", resumed=False)
