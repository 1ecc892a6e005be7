"""Memory of ``tulle proxy`` as a process: much relayed, and nobody reading, in both directions."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

WAIT = 120.0
SIZE = 400 << 20
CHUNK = bytes(1 << 20)
STALLED = 40
SLACK = 8 << 20
"""Bytes that the allocator and lazily imported code may need once."""
TCP_PROXY = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"


class Relay:
    """A sidecar with one TCP proxy before ``server``."""

    def __init__(self, directory: Path) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.server.settimeout(WAIT)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        proxy = {"@type": TCP_PROXY, "stat_prefix": "t", "cluster": "up"}
        document = {
            "static_resources": {
                "listeners": [
                    {
                        "name": "l",
                        "address": _address(self.port),
                        "filter_chains": [{"filters": [{"name": "tcp", "typed_config": proxy}]}],
                    }
                ],
                "clusters": [
                    {
                        "name": "up",
                        "type": "STATIC",
                        "load_assignment": {
                            "cluster_name": "up",
                            "endpoints": [
                                {
                                    "lb_endpoints": [
                                        {"endpoint": {"address": _address(self.server.getsockname()[1])}}
                                    ]
                                }
                            ],
                        },
                    }
                ],
            }
        }
        config = directory / "bootstrap.json"
        config.write_text(json.dumps(document))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "control_plane.cli.main", "proxy", "-c", str(config)],
            env=os.environ | {"TULLE_CONFIG": ""},
        )

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """A client and what the server accepted for it."""
        deadline = time.monotonic() + WAIT
        while True:
            try:
                client = socket.create_connection(("127.0.0.1", self.port), WAIT)
                break
            except ConnectionRefusedError:
                assert time.monotonic() < deadline and self.process.poll() is None
                time.sleep(0.02)  # polls another process
        accepted, _ = self.server.accept()
        accepted.settimeout(WAIT)
        return client, accepted

    @property
    def rss(self) -> int:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) << 10
        raise AssertionError("no VmRSS")

    @property
    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))


def _address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    made = Relay(tmp_path)
    yield made
    made.process.terminate()
    made.process.wait(WAIT)
    made.server.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)  # polls another process


def send(source: socket.socket, size: int) -> None:
    while size > 0:
        size -= source.send(CHUNK[:size])
    source.shutdown(socket.SHUT_WR)


def receive(sink: socket.socket) -> int:
    # MSG_TRUNC: counted and thrown away by the kernel.
    got = 0
    space = bytearray(1 << 20)
    while count := sink.recv_into(space, 0, socket.MSG_TRUNC):
        got += count
    return got


def transfer(source: socket.socket, sink: socket.socket, size: int) -> None:
    writer = threading.Thread(target=send, args=(source, size))
    writer.start()
    assert receive(sink) == size
    writer.join()


def test_much_is_relayed_at_the_same_memory(relay: Relay) -> None:
    client, server = relay.pair()
    transfer(client, server, 1 << 20)
    transfer(server, client, 1 << 20)
    before = relay.rss
    for _ in range(2):
        client, server = relay.pair()
        transfer(client, server, SIZE // 2)
        transfer(server, client, SIZE // 2)
        assert relay.rss - before < SLACK


def fill(socks: list[socket.socket]) -> int:
    """Write to all until nothing more is taken for a while; how much was."""
    sent = 0
    quiet = 0
    for sock in socks:
        sock.setblocking(False)
    while quiet < 20:
        quiet += 1
        for sock in socks:
            try:
                sent += sock.send(CHUNK)
                quiet = 0
            except BlockingIOError:
                continue
        time.sleep(0.01)  # another process may still be reading
    return sent


def test_writers_without_readers_in_both_directions(relay: Relay) -> None:
    """Forty relays, all of them stalled both ways: more than there are pipes. The process holds next to nothing."""
    client, server = relay.pair()
    transfer(client, server, 1 << 20)
    before, descriptors = relay.rss, relay.descriptors
    with contextlib.ExitStack() as stack:
        pairs = [relay.pair() for _ in range(STALLED)]
        socks = [sock for pair in pairs for sock in pair]
        for sock in socks:
            stack.callback(sock.close)
        assert fill(socks) > 2 * STALLED * len(CHUNK)
        # 80 directions: 64 with a pipe in the kernel, 16 with at most one read in memory.
        assert relay.rss - before < SLACK + 16 * 64 * 1024
        # One that is read from goes on.
        for sock in pairs[0]:
            sock.setblocking(True)
        reader = threading.Thread(target=receive, args=(pairs[0][1],))
        reader.start()
        pairs[0][0].sendall(CHUNK * 8)
        pairs[0][0].shutdown(socket.SHUT_WR)
        reader.join(WAIT)
        assert not reader.is_alive()
    # The connections that ended leave no descriptor; pipes that were emptied are kept for others.
    until(lambda: relay.descriptors <= descriptors + 2 * 64)
    until(lambda: relay.rss - before < SLACK)
