"""What a ``WorkerPool`` must do: ``python -m tests.support.pool_scenarios NAME DIRECTORY`` for each.

The pool forks, which wants a process with one thread; that of the tests has many.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import uvloop

from certs.der import read_certificate
from proxy.cluster import flags
from proxy.model.address import SocketAddress
from proxy.model.cluster import Cluster, Endpoint, LoadAssignment, LocalityEndpoints
from proxy.model.config import Config, ConfigError
from proxy.model.health_check import TcpCheck
from proxy.runtime.compile import CompileEnv
from proxy.runtime.hub import Hub
from proxy.tls.store import SecretStore
from proxy.workers import pool as pool_module
from proxy.workers import process
from proxy.workers.pool import PoolOptions, WorkerPool
from proxy.workers.spawner import Spawner, SpawnerDiedError
from tests.fakes.checked import health_check
from tests.fakes.sidecar import HOST, Mesh, chain, cluster, config, direct, forward, http, listener, strict
from tests.support.sidecar_process import free_port

WORKERS = 2
#: So many connections leave one of two workers out with a probability of 2^-40.
MANY = 40


@dataclass
class Leader:
    hub: Hub
    pool: WorkerPool
    secrets: SecretStore

    async def replaced(self, victim: int) -> None:
        """Wait until another worker serves in the place of ``victim``."""

        def again() -> bool:
            pids = self.pool.pids()
            serve = all(member.committed for member in self.pool._members.values())
            return victim not in pids and len(pids) == WORKERS and serve

        await self.pool._until(again)


@asynccontextmanager
async def leader(spawner: Spawner, first: Config) -> AsyncIterator[Leader]:
    def failed(error: SpawnerDiedError) -> None:
        raise AssertionError(error)

    hub = Hub(CompileEnv())
    secrets = SecretStore()
    hub.join(secrets.prepare)
    pool = WorkerPool(spawner, hub, PoolOptions(WORKERS, None, {}), failed)
    hub.apply(first)
    await pool.start()
    try:
        yield Leader(hub, pool, secrets)
    finally:
        await pool.stop()


def answers(port: int) -> set[bytes]:
    """The bodies that ``MANY`` new connections get; "" is no connection."""
    connections = [socket.create_connection((HOST, port), 30) for _ in range(MANY)]
    bodies = set()
    for connection in connections:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    for connection in connections:
        data = b""
        while part := connection.recv(65536):
            data += part
        bodies.add(data.partition(b"\r\n\r\n")[2])
        connection.close()
    return bodies


def says(body: bytes, port: int, version: str) -> Config:
    return config(listener(chain(http(direct("/", 200, body))), port=port), version=version)


async def swap(spawner: Spawner, directory: Path) -> None:
    """When ``apply`` returns, which is before the ACK is sent, all workers serve the new configuration."""
    one, two = free_port(), free_port()
    async with leader(spawner, says(b"old", one, "1")) as lead:
        assert answers(one) == {b"old"}
        for number in range(5):
            body = b"new %d" % number
            lead.hub.apply(says(body, one, str(number)))
            assert answers(one) == {body}
        lead.hub.apply(says(b"moved", two, "moved"))
        assert answers(two) == {b"moved"}
        # Each worker closes the old socket in its next turn: when they answer, they have.
        await lead.pool.counted()
        try:
            socket.create_connection((HOST, one), 30).close()
        except ConnectionRefusedError:
            return
        raise AssertionError("the old port is still open")


def refusing_work(directory: Path, sock: socket.socket) -> None:
    """A worker; the first of them refuses the configuration ``bad``."""
    prepare = Hub.prepare

    def refusing(hub: Hub, new: Config) -> Callable[[], object]:
        if new.version == "bad":
            raise ConfigError("cluster[c].tls", "only this worker cannot use it")
        return prepare(hub, new)

    try:
        os.close(os.open(directory / "the one that refuses", os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        process.work(sock)
        return
    process.Hub.prepare = refusing  # type: ignore[method-assign,assignment]
    process.work(sock)


async def refusal(spawner: Spawner, directory: Path) -> None:
    """One worker that cannot use a configuration is enough: nothing changes, in any of them."""

    port = free_port()
    async with leader(spawner, says(b"old", port, "1")) as lead:
        before = lead.hub.current
        try:
            lead.hub.apply(says(b"bad", port, "bad"))
        except ConfigError as error:
            assert (error.path, error.message) == ("cluster[c].tls", "only this worker cannot use it")
        else:
            raise AssertionError("it was not refused")
        assert lead.hub.current is before
        assert answers(port) == {b"old"}
        lead.hub.apply(says(b"good", port, "2"))
        assert answers(port) == {b"good"}


async def silence(spawner: Spawner, directory: Path) -> None:
    """A worker that hangs does not hold up the configuration for ever: it is replaced and has the new one."""
    port = free_port()
    async with leader(spawner, says(b"old", port, "1")) as lead:
        victim = lead.pool.pids()[0]
        os.kill(victim, signal.SIGSTOP)
        pool_module.PATIENCE = 0.5
        lead.hub.apply(says(b"new", port, "2"))
        pool_module.PATIENCE = 30.0
        await lead.replaced(victim)
        assert answers(port) == {b"new"}
        assert lead.hub.current.stats.server.worker_restarts >= 1


async def identity(spawner: Spawner, directory: Path) -> None:
    """A renewed certificate is used by all workers, and by one that comes later."""
    mesh = Mesh()
    client = directory / "client.pem"
    client.write_bytes(mesh.pem("client"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cadata=mesh.root.pem)
    context.load_cert_chain(client)

    def seen(port: int) -> set[str]:
        found = set()
        for _ in range(MANY):
            with (
                socket.create_connection((HOST, port), 30) as raw,
                context.wrap_socket(raw) as tls,
            ):
                der = tls.getpeercert(True)
                assert der is not None
                found.add(read_certificate(der).uris[0].rpartition("/")[2])
        return found

    port = free_port()
    first = config(listener(chain(http(direct("/", 200)), tls=strict()), port=port))
    async with leader(spawner, first) as lead:
        for name in ("first", "second", "third"):
            lead.pool.new_identity(mesh.pem(name), mesh.root.pem)
            # Messages keep their order: whoever has answered has taken the identity.
            await lead.pool.counted()
            assert seen(port) == {name}
        victim = lead.pool.pids()[0]
        os.kill(victim, signal.SIGKILL)
        await lead.replaced(victim)
        assert seen(port) == {"third"}


async def endpoints(spawner: Spawner, directory: Path) -> None:
    """What one lookup found is known to all workers, and to one that comes later."""
    backend = socket.create_server((HOST, 0))

    def serve() -> None:
        while True:
            connection, _ = backend.accept()
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nfound")
            connection.close()

    port = free_port()
    first = config(
        Cluster("c", "STRICT_DNS"), listener(chain(http(forward("/", "c"))), port=port), version="1"
    )
    async with leader(spawner, first) as lead:
        threading.Thread(target=serve, daemon=True).start()
        assert answers(port) == {b"no healthy upstream"}
        there = Endpoint(SocketAddress(HOST, backend.getsockname()[1]))
        lead.pool.endpoints("c", LoadAssignment("c", (LocalityEndpoints((there,)),)))
        await lead.pool.counted()
        assert answers(port) == {b"found"}
        victim = lead.pool.pids()[0]
        os.kill(victim, signal.SIGKILL)
        await lead.replaced(victim)
        assert answers(port) == {b"found"}


async def health(spawner: Spawner, directory: Path) -> None:
    """What health checks found is known to all workers, and to one that comes later; what they connect to, to the
    leader."""
    backend = socket.create_server((HOST, 0))

    def serve() -> None:
        while True:
            connection, _ = backend.accept()
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nfound")
            connection.close()

    port, there = free_port(), backend.getsockname()[1]
    first = config(
        cluster("c", there, panic_threshold=0.0, health_check=health_check(TcpCheck())),
        listener(chain(http(forward("/", "c"))), port=port),
        version="1",
    )
    async with leader(spawner, first) as lead:
        threading.Thread(target=serve, daemon=True).start()
        assert answers(port) == {b"no healthy upstream"}
        assert not lead.pool.has_traffic("c")
        lead.pool.health("c", {(HOST, there): 0})
        await lead.pool.counted()
        assert answers(port) == {b"found"}
        await lead.pool.counted()
        assert lead.pool.has_traffic("c")
        victim = lead.pool.pids()[0]
        os.kill(victim, signal.SIGKILL)
        await lead.replaced(victim)
        assert answers(port) == {b"found"}
        lead.pool.health("c", {(HOST, there): flags.FAILED_ACTIVE_HC})
        await lead.pool.counted()
        assert answers(port) == {b"no healthy upstream"}


async def making(spawner: Spawner, directory: Path) -> None:
    """A worker whose process is only being made is not listed: it has no process id yet."""
    pool = WorkerPool(spawner, Hub(CompileEnv()), PoolOptions(WORKERS, None, {}), lambda error: None)
    starting = asyncio.create_task(pool.start())
    await asyncio.sleep(0)
    assert len(pool._members) == WORKERS
    assert pool.pids() == []
    await starting
    assert len(pool.pids()) == WORKERS
    await pool.stop()


Scenario = Callable[[Spawner, Path], Awaitable[None]]
SCENARIOS: dict[str, Scenario] = {
    made.__name__: made for made in (swap, refusal, silence, identity, endpoints, health, making)
}


def main() -> None:
    name, directory = sys.argv[1], Path(sys.argv[2])
    spawner = Spawner(partial(refusing_work, directory) if name == "refusal" else process.work)

    async def run() -> None:
        async with asyncio.timeout(120):
            await SCENARIOS[name](spawner, directory)

    uvloop.run(run())
    print("done")


if __name__ == "__main__":
    main()
