"""What the benchmark reads: wrk's output, ``/proc``, responses; and what it decides by itself."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from bench.load import h2load, openloop, wrk
from bench.processes import Memory, cpu_of, free_ports, memory_of, tree
from bench.site import Placement, interleave

WRK = """Running 4s test @ http://127.0.0.1:1/
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     4.12ms    1.02ms  18.60ms   91.20%
    Req/Sec     7.81k   310.12     8.20k    80.00%
  31244 requests in 4.01s, 37.10MB read
Requests/sec:   7791.52
Transfer/sec:      9.25MB
"""
H2LOAD = """finished in 1.00s, 9248.00 req/s, 2.60MB/s
requests: 9248 total, 9348 started, 9248 done, 9248 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 9248 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 2.60MB (2721600) total, 90.3KB (92480) headers (space savings 94.50%), 2.26MB (2367488) data
"""
SMAPS = """55d0c8a00000-7ffd1c5fe000 ---p 00000000 00:00 0                          [rollup]
Rss:               34000 kB
Pss:               21000 kB
Shared_Clean:       9000 kB
Private_Clean:      5000 kB
Private_Dirty:     20000 kB
"""


def test_reads_wrk() -> None:
    assert wrk.parse(WRK) == wrk.Done(31244, 7791.52)


@pytest.mark.parametrize(
    "line", ["  Non-2xx or 3xx responses: 3", "  Socket errors: connect 0, read 394, write 0, timeout 0"]
)
def test_a_failed_request_is_no_result(line: str) -> None:
    with pytest.raises(RuntimeError, match="failed requests"):
        wrk.parse(WRK.replace("Requests/sec", f"{line}\nRequests/sec"))


def test_reads_h2load() -> None:
    assert h2load.parse(H2LOAD, 256) == h2load.Done(9248, 9248.0)


@pytest.mark.parametrize(
    "change",
    [
        ("0 failed", "1 failed"),
        ("0 errored", "1 errored"),
        ("0 timeout", "1 timeout"),
        ("0 5xx", "1 5xx"),
        ("9248 succeeded", "9247 succeeded"),
        # gRPC's own errors are responses of 200 without a message.
        ("(2367488) data", "(2367487) data"),
        ("finished in", "ended"),
    ],
)
def test_a_failed_call_is_no_result(change: tuple[str, str]) -> None:
    assert change[0] in H2LOAD
    with pytest.raises(RuntimeError, match="failed calls"):
        h2load.parse(H2LOAD.replace(*change), 256)


def test_reads_memory() -> None:
    assert memory_of(SMAPS) == Memory(34000 * 1024, 25000 * 1024, 21000 * 1024)


def test_reads_its_own_cost() -> None:
    assert os.getpid() in list(tree(os.getpid()))
    assert cpu_of(os.getpid()) > 0
    assert memory_of(Path("/proc/self/smaps_rollup").read_text()).rss > 0


def test_ports_are_not_those_that_clients_get() -> None:
    lowest, highest = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    ports = free_ports(20)
    assert len(set(ports)) == 20
    if lowest > 11000:
        assert not any(lowest <= port <= highest for port in ports)


def test_arrivals_are_random_of_the_rate_and_the_same_for_the_same_seed() -> None:
    due = openloop.arrivals(1000, 10, 1)
    assert due == openloop.arrivals(1000, 10, 1) != openloop.arrivals(1000, 10, 2)
    assert due == sorted(due) and due[0] > 0 and due[-1] < 10
    assert 9000 < len(due) < 11000
    gaps = [later - earlier for earlier, later in itertools.pairwise(due)]
    assert sum(gap < 0.0001 for gap in gaps) > 500, "many close together, as independent callers are"


@pytest.mark.parametrize(("share", "value"), [(0.0, 0), (0.5, 50), (0.99, 99), (1.0, 99)])
def test_percentiles(share: float, value: float) -> None:
    assert openloop.percentile([float(number) for number in range(100)], share) == value


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "whole"), [(b"", False), (HEAD[:-1], False), (HEAD + b"ab", False), (HEAD + b"abc", True)]
)
def test_whole_responses(data: bytes, whole: bool) -> None:
    assert openloop.complete(data, ended=False) is whole


@pytest.mark.parametrize(
    ("data", "ended"), [(b"HTTP/1.1 503 no\r\nContent-Length: 0\r\n\r\n", False), (HEAD, True), (b"", True)]
)
def test_failed_responses(data: bytes, ended: bool) -> None:
    with pytest.raises(RuntimeError, match="a request failed"):
        openloop.complete(data, ended=ended)


@pytest.mark.parametrize(
    ("cpus", "placement"),
    [
        ([3], ({3}, {3}, {3}, {3})),
        ([0, 1], ({0}, {0}, {1}, {1})),
        ([0, 2, 5], ({0}, {0}, {2, 5}, {2, 5})),
        ([0, 1, 2, 3, 4], ({0}, {1}, {2}, {3, 4})),
    ],
)
def test_load_and_proxies_share_no_cpu_if_there_are_two(
    cpus: list[int], placement: tuple[set[int], set[int], set[int], set[int]]
) -> None:
    found = Placement.of(cpus)
    assert (found.outbound, found.inbound, found.backend, found.load) == placement


def test_rounds_are_interleaved_in_changing_order() -> None:
    order = []

    def measure(subject: str) -> dict[str, float]:
        order.append(subject)
        return {"metric": float(len(order))}

    found = interleave(3, {name: name for name in "abc"}, measure)
    per_round = [order[at : at + 3] for at in (0, 3, 6)]
    assert all(sorted(names) == ["a", "b", "c"] for names in per_round)
    assert len({tuple(names) for names in per_round}) == 3
    assert {kind: len(values) for kind, values in found["metric"].items()} == {"a": 3, "b": 3, "c": 3}
