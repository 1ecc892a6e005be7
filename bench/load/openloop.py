"""Requests at random times of a fixed mean rate (Poisson arrivals), whatever the answers take.

A latency counts from the time at which the request was due, waiting for a free connection included: a proxy that stalls
is charged for everything that should have happened meanwhile (no coordinated omission). One thread, ``select`` with
its microsecond timeouts, about 50 µs of CPU a request; ``lag`` tells how late the generator itself woke up, to judge by
it whether a figure can be trusted.
"""

from __future__ import annotations

import ctypes
import random
import select
import socket
import time
from collections import deque
from dataclasses import dataclass

from bench import messages

_PR_SET_TIMERSLACK = 29


@dataclass(frozen=True, slots=True)
class Latencies:
    """Seconds. ``lag``: by how much the generator was late, at its own 99th percentile."""

    p50: float
    p99: float
    count: int
    lag: float


def arrivals(rate: float, seconds: float, seed: int) -> list[float]:
    """When requests are due, from 0; the same for the same seed, so that all kinds get the same."""
    source = random.Random(seed)
    due = []
    at = source.expovariate(rate)
    while at < seconds:
        due.append(at)
        at += source.expovariate(rate)
    return due


def percentile(ordered: list[float], share: float) -> float:
    """The nearest-rank percentile of sorted values."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def run(port: int, rate: float, seconds: float, *, connections: int = 32, seed: int = 1) -> Latencies:
    """Load a port. Raises ``RuntimeError`` if a request fails or answers stop coming."""
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    request = messages.request("server.default:8080")
    free = deque(_connect(port) for _ in range(connections))
    try:
        return _run(free, request, deque(arrivals(rate, seconds, seed)), seconds)
    finally:
        for sock in free:
            sock.close()


def _run(free: deque[socket.socket], request: bytes, due: deque[float], seconds: float) -> Latencies:
    busy: dict[socket.socket, tuple[float, bytes]] = {}
    late: deque[float] = deque()
    latencies: list[float] = []
    lags: list[float] = []
    clock = time.perf_counter
    start = clock()
    while due or late or busy:
        now = clock() - start
        if now > seconds + 10:
            raise RuntimeError(f"{len(busy)} requests were not answered within 10 s")
        while due and due[0] <= now:
            lags.append(now - due[0])
            late.append(due.popleft())
        while late and free:
            sock = free.popleft()
            sock.send(request)
            busy[sock] = (late.popleft(), b"")
        wait = max(0.0, due[0] - (clock() - start)) if due else 1.0
        ready, _, _ = select.select(busy, (), (), wait)
        for sock in ready:
            at, before = busy[sock]
            data = before + sock.recv(65536)
            if not complete(data, ended=len(data) == len(before)):
                busy[sock] = (at, data)
                continue
            latencies.append(clock() - start - at)
            del busy[sock]
            free.append(sock)
    latencies.sort()
    lags.sort()
    return Latencies(
        percentile(latencies, 0.5), percentile(latencies, 0.99), len(latencies), percentile(lags, 0.99)
    )


def complete(data: bytes, *, ended: bool) -> bool:
    """Whether ``data`` is a whole response with 200 and a length. Raises ``RuntimeError`` if it will not be one."""
    head, separator, body = data.partition(b"\r\n\r\n")
    if separator and head.startswith(b"HTTP/1.1 200"):
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        if len(body) >= int(length):
            return True
        separator = b""
    if separator or ended:
        raise RuntimeError(f"a request failed: {data[:300]!r}")
    return False


def _connect(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), 10)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock
