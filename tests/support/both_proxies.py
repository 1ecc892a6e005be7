"""The same bootstrap in a real Envoy and in Tulle's data path, the same client and backend for both.

What is compared: the bytes and the end that each peer saw, and the fields of the access log. The listener's own log
has one line for each connection; it tells when a connection is over.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxy.accept.worker import Worker
from proxy.bootstrap import parse
from proxy.runtime.compile import CompileEnv
from proxy.runtime.hub import Hub
from proxy.tls.store import SecretStore
from tests.support.envoy_process import EnvoyProcess

HOST = "127.0.0.1"
WAIT = 60.0
TYPE = "type.googleapis.com/envoy.extensions."
FIELDS = {
    "flags": "%RESPONSE_FLAGS%",
    "received": "%BYTES_RECEIVED%",
    "sent": "%BYTES_SENT%",
    "failure": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "cluster": "%UPSTREAM_CLUSTER%",
    "host": "%UPSTREAM_HOST%",
    "sni": "%REQUESTED_SERVER_NAME%",
    "remote": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "direct": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%",
    "local": "%DOWNSTREAM_LOCAL_ADDRESS%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
}
Json = dict[str, Any]
Play = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[Any]]


def address(port: int = 0) -> Json:
    return {"socket_address": {"address": HOST, "port_value": port}}


def access_log(path: str, who: str) -> list[Json]:
    line = "|".join([who, *FIELDS.values()]) + "\n"
    config = {
        "@type": f"{TYPE}access_loggers.file.v3.FileAccessLog",
        "path": path,
        "log_format": {"text_format_source": {"inline_string": line}},
    }
    return [{"name": "file", "typed_config": config}]


def tcp_proxy(path: str, name: str, cluster: str = "up", **options: Any) -> Json:
    config: Json = {"@type": f"{TYPE}filters.network.tcp_proxy.v3.TcpProxy", "stat_prefix": name}
    config |= {"access_log": access_log(path, name)}
    config |= options if "weighted_clusters" in options else {"cluster": cluster, **options}
    return {"name": "tcp", "typed_config": config}


def chain(filters: Json, **match: Any) -> Json:
    return {"filters": [filters], **({"filter_chain_match": match} if match else {})}


def listener_filter(kind: str, **options: Any) -> Json:
    module = {
        "ProxyProtocol": "proxy_protocol",
        "TlsInspector": "tls_inspector",
        "HttpInspector": "http_inspector",
    }
    more = {"filter_disabled": options.pop("filter_disabled")} if "filter_disabled" in options else {}
    config = {"@type": f"{TYPE}filters.listener.{module[kind]}.v3.{kind}", **options}
    return {"name": kind, "typed_config": config, **more}


def listener(path: str, name: str, *chains: Json, filters: tuple[Json, ...] = (), **options: Any) -> Json:
    return {
        "name": name,
        "address": address(),
        "stat_prefix": name,
        "filter_chains": list(chains),
        "listener_filters": list(filters),
        "access_log": access_log(path, "listener"),
        **options,
    }


def cluster(name: str, *ports: int, **options: Any) -> Json:
    endpoints = [{"endpoint": {"address": address(port)}} for port in ports]
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
        **options,
    }


Make = Callable[[str, int, int], tuple[list[Json], list[Json]]]
"""From a log path, the backend's port and a port that nobody listens on: listeners and clusters."""


@dataclass
class Outcome:
    """What became of one connection. ``log`` has the lines of the proxies' filters, without what must differ."""

    client: Any
    backend: Any
    log: list[dict[str, str]] = field(default_factory=list)


class Setting:
    """A backend's port and an Envoy in front of it, for a whole module."""

    def __init__(self, make: Make, directory: Path) -> None:
        self.backend = socket.create_server((HOST, 0))
        self.closed = socket.socket()
        self.closed.bind((HOST, 0))
        self._make = make
        self._tulle_log = directory / "tulle.log"
        self.envoy_log = directory / "envoy.access.log"
        self.envoy = EnvoyProcess(self.document(self.envoy_log), directory)

    def document(self, log: Path) -> Json:
        listeners, clusters = self._make(
            str(log), self.backend.getsockname()[1], self.closed.getsockname()[1]
        )
        return {"static_resources": {"listeners": listeners, "clusters": clusters}}

    def close(self) -> None:
        self.envoy.stop()
        self.backend.close()
        self.closed.close()

    @asynccontextmanager
    async def tulle(self) -> AsyncIterator[Tulle]:
        """Tulle's data path with the same document, in the running loop."""
        self._tulle_log.unlink(missing_ok=True)
        env = CompileEnv()
        hub = Hub(env)
        hub.apply(parse(self.document(self._tulle_log)).config)
        worker = Worker(hub, SecretStore(), env.log_files)
        await worker.start()
        try:
            yield Tulle(worker, hub, self._tulle_log)
        finally:
            await worker.stop()

    async def both(
        self, name: str, client: Play, serve: Play, *, own_log: bool = True, connections: int = 1
    ) -> tuple[Outcome, Outcome]:
        """Play the same with Envoy and with Tulle. ``own_log``: the filter writes a line of its own;
        ``connections``: so many does the client make."""
        expected = await self.play(
            self.envoy.ports[name], self.envoy_log, client, serve, own_log=own_log, connections=connections
        )
        async with self.tulle() as tulle:
            found = await self.play(
                tulle.ports[name], tulle.log, client, serve, own_log=own_log, connections=connections
            )
        return expected, found

    async def play(
        self, port: int, log: Path, client: Play, serve: Play, *, own_log: bool = True, connections: int = 1
    ) -> Outcome:
        """One connection to ``port``."""
        outcome = Outcome(None, None)
        over = asyncio.Event()
        accepted = False

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal accepted
            accepted = True
            try:
                outcome.backend = await serve(reader, writer)
            finally:
                writer.close()
                over.set()

        before = _lines(log)
        server = await asyncio.start_server(accept, sock=socket.socket(fileno=os.dup(self.backend.fileno())))
        try:
            reader, writer = await asyncio.open_connection(HOST, port)
            outcome.client = await client(reader, writer)
            writer.close()
            async with asyncio.timeout(WAIT):
                while _ended(log, len(before)) < connections:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                if accepted:
                    await over.wait()
                own = _lines(log)[len(before) :]
                # The filter's own line, of a connection that had a chain, is written along with the listener's.
                while accepted and own_log and len(own) < 2:
                    await asyncio.sleep(0.01)
                    own = _lines(log)[len(before) :]
        finally:
            server.close()
        for line in own:
            if line.pop("who") != "listener" or len(own) == 1:
                outcome.log.append({key: _stable(value) for key, value in line.items()})
        names = [line.split("|")[0] for line in log.read_text().splitlines()[len(before) :]]
        outcome.log.append({"chain": next((name for name in names if name != "listener"), "none")})
        return outcome


@dataclass
class Tulle:
    """Tulle's data path, running."""

    worker: Worker
    hub: Hub
    log: Path

    @property
    def ports(self) -> dict[str, int]:
        return {name: bound[0][1] for name, bound in self.worker.addresses().items()}


def _lines(log: Path) -> list[dict[str, str]]:
    if not log.exists():
        return []
    text = log.read_text()
    return [
        dict(zip(("who", *FIELDS), line.split("|"), strict=True))
        for line in text[: text.rfind("\n") + 1].splitlines()
    ]


def _ended(log: Path, before: int) -> int:
    return sum(line["who"] == "listener" for line in _lines(log)[before:])


def _stable(value: str) -> str:
    """Ports of loopback addresses are the kernel's choice."""
    return HOST if value.startswith(f"{HOST}:") else value


async def rest(reader: asyncio.StreamReader) -> tuple[bytes, str]:
    """Everything up to the end, and how it ended."""
    got = b""
    try:
        async with asyncio.timeout(WAIT):
            while data := await reader.read(1 << 16):
                got += data
    except ConnectionError:
        return got, "reset"
    return got, "fin"


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection with RST."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def echo_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[bytes, bytes]:
    """A backend that answers the first bytes that it gets and closes."""
    got = await reader.read(1 << 17)
    writer.write(b"answer to %d bytes" % len(got))
    return got[:40], got[-40:]


def say(data: bytes, step: int = 0) -> Play:
    """A client that sends ``data`` (in pieces of ``step`` bytes) and reads to the end."""

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[bytes, str]:
        try:
            for at in range(0, len(data), step or max(1, len(data))):
                writer.write(data[at : at + (step or len(data))])
                if step:
                    await writer.drain()
                    await asyncio.sleep(0)
        except ConnectionError:
            # Refused before all was said: reading tells how.
            pass
        return await rest(reader)

    return client
