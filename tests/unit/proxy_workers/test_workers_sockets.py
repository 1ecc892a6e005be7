"""The listening sockets of all workers."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from proxy.accept.listeners import SocketKey
from proxy.model.address import SocketAddress
from proxy.runtime.compile import CompileEnv
from proxy.runtime.hub import Hub
from proxy.runtime.runtime import Runtime
from proxy.workers.sockets import SharedSockets
from tests.fakes.sidecar import HOST, chain, config, direct, http, listener


def runtime(*ports: int) -> Runtime:
    """A listener on each port."""
    hub = Hub(CompileEnv())
    hub.apply(
        config(
            *(
                listener(chain(http(direct("/", 200))), name=f"l{n}", port=port)
                for n, port in enumerate(ports)
            )
        )
    )
    return hub.current


@pytest.fixture
def shared() -> Iterator[SharedSockets]:
    made = SharedSockets(3)
    yield made
    made.close()


def port_of(shared: SharedSockets, key: SocketKey, worker: int) -> int:
    with socket.socket(fileno=os.dup(shared.descriptor(key, worker))) as duplicate:
        port: int = duplicate.getsockname()[1]
        return port


def test_all_workers_have_a_socket_of_their_own_on_one_port(shared: SharedSockets) -> None:
    (key,) = shared.reconcile(runtime(0))
    assert len({port_of(shared, key, worker) for worker in range(3)}) == 1
    assert len({os.fstat(shared.descriptor(key, worker)).st_ino for worker in range(3)}) == 3
    # What stays is not opened again.
    before = [shared.descriptor(key, worker) for worker in range(3)]
    assert shared.reconcile(runtime(0)) == []
    assert [shared.descriptor(key, worker) for worker in range(3)] == before


def test_what_is_gone_is_closed(shared: SharedSockets) -> None:
    (key,) = shared.reconcile(runtime(0))
    port = port_of(shared, key, 0)
    assert shared.reconcile(runtime()) == []
    assert shared.keys() == []
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, port))


@pytest.mark.parametrize("joins", [False, True], ids=["alone", "reuse_port"])
def test_a_port_in_use_is_an_error_and_the_others_are_opened(shared: SharedSockets, joins: bool) -> None:
    with socket.socket() as other:
        if joins:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind((HOST, 0))
        other.listen()
        taken = other.getsockname()[1]
        opened = shared.reconcile(runtime(taken, 0))
        assert [key.listener for key in opened] == ["l1"]
        with pytest.raises(OSError, match=f"listener 'l0': cannot listen on {HOST}:{taken}"):
            shared.raise_first_error()
    assert shared.reconcile(runtime(taken, 0)) == [
        SocketKey("l0", SocketAddress(HOST, taken), False, opened[0].backlog)
    ]
    shared.raise_first_error()
