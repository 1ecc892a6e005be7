"""A real Envoy and Tulle's data path side by side: one bootstrap, one kind of backend, the same client bytes to both.

A ``Case`` is one client connection. All cases of a module are played first, many at a time, on both sides; the tests
then only compare. What differs by nature (ports, dates, random identifiers, header order) is made equal here; nothing
else is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from proxy.accept.worker import Worker
from proxy.admin.clusters import clusters_json
from proxy.bootstrap import parse
from proxy.observe.metrics import stats_text
from proxy.runtime.compile import CompileEnv
from proxy.runtime.hub import Hub
from proxy.tls.store import SecretStore

ENVOY = Path(sys.executable).with_name("envoy")
WAIT = 15.0
"""Seconds after which a case gives up; never how long it takes."""

LOGGED = {
    "port": "%DOWNSTREAM_DIRECT_REMOTE_PORT%",
    "remote": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(:PATH)%",
    "authority": "%REQ(:AUTHORITY)%",
    "protocol": "%PROTOCOL%",
    "code": "%RESPONSE_CODE%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
    "route": "%ROUTE_NAME%",
    "received": "%BYTES_RECEIVED%",
    "sent": "%BYTES_SENT%",
}


def typed(kind: str, **value: Any) -> dict[str, Any]:
    """A named extension. ``kind``: its type, without ``envoy.extensions.``."""
    return {"name": kind, "typed_config": {"@type": f"type.googleapis.com/envoy.extensions.{kind}", **value}}


def manager(
    name: str,
    *routes: dict[str, Any],
    filters: Iterable[dict[str, Any]] = (),
    host: dict[str, Any] | None = None,
    router: dict[str, Any] | None = None,
    log: dict[str, str] | None = None,
    transport_socket: dict[str, Any] | None = None,
    **hcm: Any,
) -> dict[str, Any]:
    """A listener with one connection manager; ``LOG`` in its log path is replaced for each side."""
    log_format = {"json_format": {**LOGGED, **(log or {})}}
    access_log = typed("access_loggers.file.v3.FileAccessLog", path=f"LOG/{name}", log_format=log_format)
    virtual_host = {"name": "v", "domains": ["*"], "routes": list(routes), **(host or {})}
    http = typed(
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        **{
            "stat_prefix": name,
            "access_log": [access_log],
            "route_config": {"name": name, "virtual_hosts": [virtual_host], "validate_clusters": False},
            "http_filters": [*filters, typed("filters.http.router.v3.Router", **(router or {}))],
            **hcm,
        },
    )
    chain: dict[str, Any] = {"filters": [http]}
    if transport_socket is not None:
        chain["transport_socket"] = transport_socket
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    return {"name": name, "address": address, "filter_chains": [chain]}


def says(text: str = "ok", prefix: str = "/", **more: Any) -> dict[str, Any]:
    """A route with a direct response."""
    body = {"status": 200, "body": {"inline_string": text}}
    return {"match": {"prefix": prefix}, "direct_response": body, **more}


def to(
    cluster: str = "up", prefix: str = "/", match: dict[str, Any] | None = None, **action: Any
) -> dict[str, Any]:
    """A route to a cluster."""
    return {"match": match or {"prefix": prefix}, "route": {"cluster": cluster, **action}}


def upstream(name: str = "up", port: int | str = "BACKEND", **more: Any) -> dict[str, Any]:
    """A cluster of one endpoint; the port ``BACKEND`` is the recording server's."""
    endpoint = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}
    assignment = {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]}
    return {"name": name, "connect_timeout": "5s", "type": "STATIC", "load_assignment": assignment, **more}


# What a client does: bytes are sent; the other steps are these.


@dataclass(frozen=True)
class Until:
    """Read until ``what`` has come."""

    what: bytes


@dataclass(frozen=True)
class Eof:
    """End the sending half."""


@dataclass(frozen=True)
class Reset:
    """Close at once."""


@dataclass(frozen=True)
class Heard:
    """Wait until the backend has read ``what`` on the case's exchange."""

    what: bytes


Step = bytes | Until | Eof | Reset | Heard


@dataclass(frozen=True)
class Case:
    """``steps``, then read: to the end if ``to_end``, else one more request asks whether the connection is open.

    ``answers``: how many responses (1xx apart) to read before that question. ``{case}`` in the bytes stands for the
    case's name, by which the backend's part is found: send it as the value of ``x-case``. ``tls``: the client's side of
    a handshake to begin with.
    """

    name: str
    listener: str
    steps: tuple[Step, ...]
    answers: int = 1
    to_end: bool = False
    head: bool = False
    tls: ssl.SSLContext | None = None


def get(target: str = "/", *lines: str, method: str = "GET", host: str | None = "h", body: str = "") -> bytes:
    """A request of the case that sends it."""
    fields = "".join(
        f"{line}\r\n" for line in (*([] if host is None else [f"host: {host}"]), "x-case: {case}", *lines)
    )
    return f"{method} {target} HTTP/1.1\r\n{fields}\r\n{body}".encode("latin-1")


@dataclass
class Played:
    """What was seen: by the client, by the backend, in the access log. ``port``: the listener's."""

    client: list[Any] = field(default_factory=list)
    fate: str = ""
    backend: list[Any] = field(default_factory=list)
    log: list[dict[str, Any]] = field(default_factory=list)
    raw: bytes = b""
    port: int = 0


Script = Callable[["Conversation"], None]
_CASE = re.compile(rb"^x-case: *([^\r\n]+)\r\n", re.M | re.I)
_LENGTH = re.compile(rb"^content-length: *([0-9]+)\r\n", re.M | re.I)


class Conversation:
    """One connection of the proxy to the backend."""

    def __init__(self, connection: socket.socket, keep: Callable[[str, bytes], None]) -> None:
        self.socket = connection
        self.head = b""
        self.case = ""
        self._buffer = b""
        self._keep = keep

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read_head(self) -> bytes:
        while b"\r\n\r\n" not in self._buffer:
            if not self._more():
                return b""
        self.head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        self.head += b"\r\n"
        found = _CASE.search(self.head)
        self.case = found[1].decode() if found else ""
        self._keep(self.case, self.head + b"\r\n")
        return self.head

    def read_body(self) -> bytes:
        """The body by its framing, as it came."""
        length = _LENGTH.search(self.head)
        if length:
            return self.exactly(int(length[1]))
        if b"\r\ntransfer-encoding: chunked\r\n" in self.head.lower():
            return self.until(b"0\r\n\r\n")
        return b""

    def note_early(self, seconds: float) -> None:
        """Keep ``EARLY`` if something comes within ``seconds``."""
        self.socket.settimeout(seconds)
        if self._buffer or self._more():
            self._keep(self.case, b"EARLY")
        self.socket.settimeout(4 * WAIT)

    def exactly(self, size: int) -> bytes:
        while len(self._buffer) < size and self._more():
            pass
        return self._take(min(size, len(self._buffer)))

    def until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            if not self._more():
                return self._take(len(self._buffer))
        return self._take(self._buffer.find(mark) + len(mark))

    def rest(self) -> bytes:
        """What comes until the proxy closes or resets."""
        while self._more():
            pass
        return self._take(len(self._buffer))

    def _take(self, size: int) -> bytes:
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        if data:
            self._keep(self.case, data)
        return data

    def _more(self) -> bool:
        try:
            data = self.socket.recv(65536)
        except OSError:
            return False
        self._buffer += data
        return bool(data)


def hello(talk: Conversation) -> None:
    talk.read_body()
    talk.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


class RecordingBackend:
    """An HTTP server that answers by the first segment of the path: ``scripts``, else 200."""

    def __init__(self, scripts: dict[bytes, Script]) -> None:
        self._scripts = scripts
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self._socket.getsockname()[1]
        self.received: dict[str, bytes] = {}
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _keep(self, case: str, data: bytes) -> None:
        with self._lock:
            self.received[case] = self.received.get(case, b"") + data

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(4 * WAIT)
        with connection:
            talk = Conversation(connection, self._keep)
            while head := talk.read_head():
                segment = re.split(rb"[/? :]", head.split(b" ", 2)[1].lstrip(b"/"))[0]
                try:
                    self._scripts.get(segment, hello)(talk)
                except OSError:
                    return


class Side:
    """One of the two: where its listeners are, its backend, its logs, what it says at ``/clusters?format=json`` and
    ``/stats``."""

    def __init__(
        self,
        name: str,
        directory: Path,
        backend: RecordingBackend,
        ports: dict[str, int],
        clusters: Callable[[], Any],
        stats: Callable[[], str],
    ) -> None:
        self.clusters = clusters
        self.stats = stats
        self.name = name
        self.directory = directory
        self.backend = backend
        self.ports = ports

    def play(self, cases: Iterable[Case]) -> dict[str, Played]:
        cases = list(cases)
        by_port: dict[tuple[str, int], Played] = {}
        with ThreadPoolExecutor(24) as pool:
            results = pool.map(lambda case: self._one(case, by_port), cases)
            found = dict(zip((case.name for case in cases), results, strict=True))
        for name, data in list(self.backend.received.items()):
            if name in found:
                found[name].backend = requests(data)
        self._read_logs({case.listener for case in cases}, by_port)
        return found

    def _one(self, case: Case, by_port: dict[tuple[str, int], Played]) -> Played:
        played = Played(port=self.ports[case.listener])
        connection = socket.create_connection(("127.0.0.1", self.ports[case.listener]), timeout=WAIT)
        with contextlib.ExitStack() as stack:
            by_port[case.listener, connection.getsockname()[1]] = played
            if case.tls is not None:
                connection = case.tls.wrap_socket(connection, server_hostname="h")
            stack.enter_context(connection)
            client = _Client(connection)
            try:
                for step in case.steps:
                    if isinstance(step, bytes):
                        connection.sendall(step.replace(b"{case}", case.name.encode()))
                    elif isinstance(step, Until):
                        client.until(step.what)
                    elif isinstance(step, Heard):
                        self._heard(case.name, step.what)
                    elif isinstance(step, Eof):
                        connection.shutdown(socket.SHUT_WR)
                    else:
                        connection.close()
                        played.fate = "left"
                        return played
                if case.to_end:
                    client.rest()
                    played.fate = "closed"
                else:
                    for _ in range(case.answers):
                        played.client += client.response(head=case.head)
                    played.fate = client.fate()
            except EOFError:
                played.fate = "ended early"
            except TimeoutError:
                played.fate = "timeout"
            except ConnectionError as error:
                played.fate = type(error).__name__
            played.raw = bytes(client.raw)
            if case.to_end:
                with contextlib.suppress(EOFError):
                    while client.buffer:
                        played.client += client.response(head=case.head)
        return played

    def _heard(self, case: str, what: bytes) -> None:
        deadline = time.monotonic() + WAIT
        while what not in self.backend.received.get(case, b""):
            if time.monotonic() > deadline:
                raise TimeoutError
            time.sleep(0.005)  # polls another thread

    def _read_logs(self, listeners: set[str], by_port: dict[tuple[str, int], Played]) -> None:
        """Every connection has at least one line, unless it sent nothing that was a request."""
        deadline = time.monotonic() + 3
        while True:
            for played in by_port.values():
                played.log = []
            for name in listeners:
                path = self.directory / name
                for line in path.read_text().splitlines() if path.exists() else ():
                    entry = json.loads(_UUID.sub("UUID", line))
                    seen = by_port.get((name, int(entry.pop("port") or 0)))
                    if seen is not None and entry.get("path") != "/is-it-open":
                        seen.log.append(entry)
            if all(played.log for played in by_port.values()) or time.monotonic() > deadline:
                return
            time.sleep(0.05)  # polls another process


class _Client:
    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self.buffer = b""
        self.raw = bytearray()

    def more(self) -> bool:
        data = self._socket.recv(65536)
        self.buffer += data
        self.raw += data
        return bool(data)

    def until(self, mark: bytes) -> None:
        while mark not in self.raw:
            if not self.more():
                raise EOFError(f"{mark!r} never came: {bytes(self.raw)!r}")

    def rest(self) -> None:
        with contextlib.suppress(ConnectionError):
            while self.more():
                pass

    def _line(self, mark: bytes) -> bytes:
        while mark not in self.buffer:
            if not self.more():
                raise EOFError
        line, _, self.buffer = self.buffer.partition(mark)
        return line

    def _exactly(self, size: int) -> bytes:
        while len(self.buffer) < size:
            if not self.more():
                break
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    def response(self, *, head: bool) -> list[Any]:
        """One response, with the interim ones before it: (status, headers, body)."""
        found: list[Any] = []
        while True:
            try:
                block = self._line(b"\r\n\r\n")
            except EOFError:
                rest, self.buffer = self.buffer, b""
                return [*found, ("end", rest)]
            status = int(block.split(b" ", 2)[1])
            headers = fields(block)
            if status < 200 and status != 101:
                found.append((status, headers, b""))
                continue
            named = dict(headers)
            body = b""
            if head or status in (101, 204, 304):
                pass
            elif "content-length" in named:
                body = self._exactly(int(named["content-length"]))
            elif named.get("transfer-encoding") == "chunked":
                try:
                    while size := int(self._line(b"\r\n").split(b";")[0], 16):
                        body += self._exactly(size)
                        self._line(b"\r\n")
                    while self._line(b"\r\n"):
                        pass
                except EOFError:
                    body += b"<cut>"
            else:
                with contextlib.suppress(ConnectionError):
                    while self.more():
                        pass
                body, self.buffer = self.buffer, b""
            return [*found, (status, headers, body)]

    def fate(self) -> str:
        """Whether another request is answered."""
        if self.buffer:
            return f"surplus {self.buffer!r}"
        try:
            self._socket.sendall(b"GET /is-it-open HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
            return "open" if self._socket.recv(65536) else "closed"
        except ConnectionError:
            return "closed"


_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_VARIES = frozenset(("date", "x-envoy-upstream-service-time"))


def fields(block: bytes) -> list[tuple[str, str]]:
    """The header fields after the first line, sorted, their random parts made equal."""
    found = []
    for line in block.decode("latin-1").split("\r\n")[1:]:
        if line:
            name, _, value = line.partition(":")
            name, value = name.lower(), _UUID.sub("UUID", value.strip())
            found.append((name, "*" if name in _VARIES else value))
    return _joined(found)


def _joined(found: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Several lines of one name are one list (RFC 9110 section 5.3), for both to write as they like."""
    together: dict[str, list[str]] = {}
    for name, value in found:
        together.setdefault(name, []).append(value.replace(", ", ","))
    return sorted((name, ",".join(values)) for name, values in together.items())


def requests(data: bytes) -> list[Any]:
    """The requests that a backend got: (request line, fields, body as it came)."""
    found = []
    while data:
        block, end, data = data.partition(b"\r\n\r\n")
        if not end:
            found.append(("tail", [], block))
            break
        line = block.split(b"\r\n")[0].decode("latin-1")
        length = _LENGTH.search(block + b"\r\n")
        if length:
            body, data = data[: int(length[1])], data[int(length[1]) :]
        elif line.startswith("GET ") and b"\r\nupgrade:" not in block.lower():
            body = b""
        else:
            body, data = data, b""
        found.append((line, fields(block), body))
    return found


def host_counts(clusters: Any) -> dict[str, dict[str, int]]:
    """By the cluster's name, what is counted of its one host."""
    return {
        item["name"]: {one["name"]: int(one.get("value", 0)) for one in item["host_statuses"][0]["stats"]}
        for item in clusters["cluster_statuses"]
        if item.get("host_statuses")
    }


def counters(stats: str, prefix: str) -> dict[str, int]:
    """The counters and gauges under ``prefix`` that are not zero, without it."""
    found = {}
    for line in stats.splitlines():
        name, _, value = line.partition(": ")
        if name.startswith(prefix) and value.isdigit() and value != "0":
            found[name.removeprefix(prefix)] = int(value)
    return found


def _json(url: str) -> Any:
    return json.loads(_text(url))


def _text(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:
        text: str = answer.read().decode()
        return text


def _fill(document: Any, backend: int, directory: Path) -> Any:
    text = json.dumps(document).replace('"BACKEND"', str(backend)).replace("LOG/", f"{directory}/")
    return json.loads(text)


@contextlib.contextmanager
def envoy(document: dict[str, Any], directory: Path, scripts: dict[bytes, Script]) -> Iterator[Side]:
    """A real Envoy with ``document`` (``static_resources``)."""
    backend = RecordingBackend(scripts)
    logs = directory / "envoy-logs"
    logs.mkdir()
    filled = _fill(document, backend.port, logs)
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    (directory / "envoy.json").write_text(
        json.dumps({"admin": {"address": address}, "static_resources": filled})
    )
    admin = directory / "admin"
    output = directory / "envoy-output"
    with output.open("w") as sink:
        process = subprocess.Popen(
            [str(ENVOY), "-c", str(directory / "envoy.json"), "--admin-address-path", str(admin), "--concurrency", "1",
             "--disable-hot-restart", "--log-level", "error", "--drain-time-s", "1", "--drain-strategy", "immediate",
             "--file-flush-interval-msec", "50"],
            stdout=sink, stderr=sink,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        wanted = {item["name"] for item in document["listeners"]}
        while True:
            assert process.poll() is None, output.read_text()
            assert time.monotonic() < deadline, output.read_text()
            if admin.exists() and (where := admin.read_text()):
                statuses = _json(f"http://{where}/listeners?format=json").get("listener_statuses", [])
                ports = {s["name"]: s["local_address"]["socket_address"]["port_value"] for s in statuses}
                if set(ports) == wanted:
                    break
            time.sleep(0.05)  # polls another process
        yield Side(
            "envoy",
            logs,
            backend,
            ports,
            lambda: _json(f"http://{where}/clusters?format=json"),
            lambda: _text(f"http://{where}/stats"),
        )
    finally:
        process.terminate()
        process.wait(10)
        backend.close()


@contextlib.contextmanager
def tulle(document: dict[str, Any], directory: Path, scripts: dict[bytes, Script]) -> Iterator[Side]:
    """Tulle's worker with the same, in a thread of its own."""
    backend = RecordingBackend(scripts)
    logs = directory / "tulle-logs"
    logs.mkdir()
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    env = CompileEnv()
    hub = Hub(env)
    hub.apply(parse({"static_resources": _fill(document, backend.port, logs)}).config)
    thread.start()
    worker = Worker(hub, SecretStore(), env.log_files)
    asyncio.run_coroutine_threadsafe(worker.start(), loop).result(WAIT)
    try:
        ports = {name: found[0][1] for name, found in worker.addresses().items()}
        yield Side(
            "tulle",
            logs,
            backend,
            ports,
            lambda: clusters_json(hub.current.clusters.values(), {}),
            lambda: stats_text(hub.current.stats, hub.current.clusters.values()),
        )
    finally:
        asyncio.run_coroutine_threadsafe(worker.stop(), loop).result(WAIT)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(WAIT)
        backend.close()


Pair = tuple[dict[str, Played], dict[str, Played]]


def play_both(
    document: dict[str, Any],
    directory: Path,
    cases: Iterable[Case],
    scripts: dict[bytes, Script] | None = None,
) -> Pair:
    """All cases on both: what Envoy did and what Tulle did, by the case's name."""
    cases = list(cases)
    with (
        envoy(document, directory, scripts or {}) as one,
        tulle(document, directory, scripts or {}) as other,
        ThreadPoolExecutor(2) as pool,
    ):
        first = pool.submit(one.play, cases)
        second = pool.submit(other.play, cases)
        return first.result(), second.result()


def comparable(played: Played, without: Iterable[str] = ()) -> dict[str, Any]:
    """What has to be equal; ``without`` names log fields that a case is not about."""
    drop = set(without)
    return {
        "client": list(played.client),
        "fate": played.fate,
        "backend": list(played.backend),
        "log": [{k: v for k, v in line.items() if k not in drop} for line in played.log],
    }
