"""``tulle proxy --workers N`` as processes: shared ports, one admin view, workers that die and are replaced."""

from __future__ import annotations

import http.server
import json
import os
import re
import select
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.sidecar_process import WAIT, App, Process, bootstrap, free_port, get, until

WORKERS = 3
#: So many connections leave one of three workers out with a probability of (2/3)^60.
MANY = 60


@pytest.fixture
def app() -> Iterator[int]:
    App.reached.clear()
    App.release.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), App)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    App.release.set()
    server.shutdown()
    server.server_close()
    thread.join()


@dataclass
class Sidecar:
    process: Process
    listen: int
    admin: int

    @property
    def pid(self) -> int:
        return self.process.popen.pid

    def workers(self) -> list[int]:
        status, body = get(self.admin, "/server_info")
        return json.loads(body)["worker_pids"] if status == 200 else []

    def spawner(self) -> int:
        (pid,) = children(self.pid)
        return pid

    def stat(self, name: str) -> int:
        found = re.search(
            rf"^{re.escape(name)}: (\d+)$", get(self.admin, f"/stats?filter={name}")[1], re.MULTILINE
        )
        return int(found[1]) if found else -1

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.listen), WAIT)

    def owner(self, connection: socket.socket) -> int:
        """The worker that has accepted ``connection``."""
        inode = accepted_inode(self.listen, connection.getsockname()[1])
        for pid in self.workers():
            if inode in sockets(pid):
                return pid
        raise AssertionError(f"no worker has {connection.getsockname()}")


@pytest.fixture
def sidecar(app: int, tmp_path: Path) -> Iterator[Sidecar]:
    made = start(app, tmp_path)
    yield made
    if made.process.popen.poll() is None:
        made.process.end(signal.SIGKILL)


def start(app: int, directory: Path, *options: str, edit: Callable[[Any], None] = lambda c: None) -> Sidecar:
    listen, admin = free_port(), free_port()
    config = bootstrap(listen, app, admin)
    edit(config)
    file = directory / "envoy.json"
    file.write_text(json.dumps(config))
    process = Process(directory / "log", "proxy", "-c", str(file), "--workers", str(WORKERS), *options)
    made = Sidecar(process, listen, admin)
    until(lambda: get(admin, "/ready")[0] == 200 and len(made.workers()) == WORKERS, "all serve", process)
    return made


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def sockets(pid: int) -> set[str]:
    """The inodes of the sockets that a process has open."""
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(entry.readlink())
        except FileNotFoundError:
            continue
        if target.startswith("socket:["):
            found.add(target[8:-1])
    return found


def accepted_inode(local: int, remote: int) -> str:
    """The inode of the accepted end of a connection on loopback; "" before it was accepted."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if [int(end.rpartition(":")[2], 16) for end in fields[1:3]] == [local, remote]:
            return fields[9] if fields[9] != "0" else ""
    return ""


def request(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode()


def answer(connection: socket.socket) -> bytes:
    """What comes, up to the end of a body of two bytes or of the connection; b"" for one that was reset."""
    data = b""
    try:
        while b"\r\n\r\n" not in data or len(data.partition(b"\r\n\r\n")[2]) < 2:
            part = connection.recv(65536)
            if not part:
                break
            data += part
    except ConnectionError:
        return b""
    return data


def ok(data: bytes) -> bool:
    return data.startswith(b"HTTP/1.1 200 ")


def test_connections_are_spread_over_all_workers_and_counted_once(sidecar: Sidecar) -> None:
    connections = [sidecar.connect() for _ in range(MANY)]
    for connection in connections:
        connection.sendall(request("/direct"))
    assert all(ok(answer(connection)) for connection in connections)
    owners = [sidecar.owner(connection) for connection in connections]
    assert set(owners) == set(sidecar.workers())
    assert sidecar.stat("http.in.downstream_rq_total") == MANY
    assert sidecar.stat("http.in.downstream_cx_active") == MANY
    assert sidecar.stat("server.concurrency") == WORKERS
    for connection in connections:
        connection.close()
    gone = "http.in.downstream_cx_active"
    until(lambda: sidecar.stat(gone) == 0, "the gauge is down again", sidecar.process)
    assert sidecar.stat("http.in.downstream_cx_total") == MANY


def test_a_killed_worker_takes_only_its_own_requests_with_it_and_is_replaced(sidecar: Sidecar) -> None:
    for _ in range(5):
        assert get(sidecar.listen, "/direct") == (200, "hi")
    assert sidecar.stat("http.in.downstream_rq_2xx") == 5
    before = sidecar.workers()
    connections = [sidecar.connect() for _ in range(12)]
    for connection in connections:
        connection.sendall(request("/slow"))
    under_way = "http.in.downstream_rq_active"
    until(lambda: sidecar.stat(under_way) == len(connections), "all are under way", sidecar.process)
    owners = [sidecar.owner(connection) for connection in connections]
    victim = owners[0]
    os.kill(victim, signal.SIGKILL)
    until(lambda: sidecar.stat("server.worker_restarts") == 1, "it is counted", sidecar.process)
    until(lambda: len(sidecar.workers()) == WORKERS, "it is replaced", sidecar.process)
    assert set(before) - set(sidecar.workers()) == {victim}
    App.release.set()
    for connection, owner in zip(connections, owners, strict=True):
        assert ok(answer(connection)) is (owner != victim)
    log = sidecar.process.log()
    assert f"(process {victim}) was killed by SIGKILL; replaced in 0.0 s" in log

    # What it had counted is still in the sum, what it had open is not.
    survivors = sum(owner != victim for owner in owners)
    assert sidecar.stat("http.in.downstream_rq_2xx") == 5 + survivors
    assert sidecar.stat(under_way) == 0
    again = [sidecar.connect() for _ in range(MANY)]
    for connection in again:
        connection.sendall(request("/direct"))
    assert all(ok(answer(connection)) for connection in again)
    assert {sidecar.owner(connection) for connection in again} == set(sidecar.workers())
    assert sidecar.stat("http.in.downstream_rq_2xx") == 5 + survivors + MANY


def test_connections_that_waited_for_a_worker_that_died_are_served_by_the_next(sidecar: Sidecar) -> None:
    victim = sidecar.workers()[0]
    # It accepts nothing any more: a third of these are only in the kernel's queue for it.
    os.kill(victim, signal.SIGSTOP)
    connections = [sidecar.connect() for _ in range(MANY)]
    for connection in connections:
        connection.sendall(request("/direct"))
    os.kill(victim, signal.SIGKILL)
    assert all(ok(answer(connection)) for connection in connections)
    assert sidecar.stat("server.worker_restarts") == 1


def test_one_that_dies_again_and_again_is_replaced_with_growing_pauses(sidecar: Sidecar) -> None:
    for pause in ("0.0", "0.1", "0.2"):
        victim = sidecar.workers()[0]
        os.kill(victim, signal.SIGKILL)
        replaced = f"(process {victim}) was killed by SIGKILL; replaced in {pause} s"
        until(lambda: replaced in sidecar.process.log(), replaced, sidecar.process)  # noqa: B023
        until(lambda: len(sidecar.workers()) == WORKERS, "it is replaced", sidecar.process)
    assert sidecar.stat("server.worker_restarts") == 3


def test_sigterm_drains_all_and_leaves_nothing_behind(sidecar: Sidecar) -> None:
    processes = [sidecar.pid, sidecar.spawner(), *sidecar.workers()]
    connections = [sidecar.connect() for _ in range(12)]
    for connection in connections:
        connection.sendall(request("/slow"))
    until(lambda: sidecar.stat("http.in.downstream_rq_active") == 12, "all are under way", sidecar.process)
    os.kill(sidecar.pid, signal.SIGTERM)
    until(lambda: get(sidecar.listen, "/direct")[0] == 0, "the port is closed", sidecar.process)
    App.release.set()
    assert all(ok(answer(connection)) for connection in connections)
    assert sidecar.process.popen.wait(WAIT) == 0, sidecar.process.log()
    assert not any(alive(pid) for pid in processes)


def test_nothing_outlives_a_leader_that_was_killed(sidecar: Sidecar, tmp_path: Path, app: int) -> None:
    processes = [sidecar.spawner(), *sidecar.workers()]
    # Not even one that can do nothing itself.
    os.kill(processes[1], signal.SIGSTOP)
    assert sidecar.process.end(signal.SIGKILL) == -signal.SIGKILL
    await_end(processes)
    with socket.socket() as probe:
        # Connections that were closed may linger in the kernel; a listener may not.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", sidecar.listen))
        probe.listen()


def await_end(processes: list[int]) -> None:
    """Wait until processes that are not our children have ended."""
    for pid in processes:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            assert select.select([descriptor], [], [], WAIT)[0], f"{pid} is still there"
        finally:
            os.close(descriptor)


def test_without_the_process_that_forks_the_sidecar_ends_in_order(sidecar: Sidecar) -> None:
    processes = sidecar.workers()
    os.kill(sidecar.spawner(), signal.SIGKILL)
    assert sidecar.process.popen.wait(WAIT) == 1
    assert "Error: the process that forks workers has ended" in sidecar.process.log()
    await_end(processes)


def test_one_log_of_whole_lines_and_rotation(app: int, tmp_path: Path) -> None:
    log = tmp_path / "access.log"

    def with_log(config: Any) -> None:
        chain = config["static_resources"]["listeners"][0]["filter_chains"][0]
        chain["filters"][0]["typed_config"]["access_log"] = [
            {
                "name": "file",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                    "path": str(log),
                    "log_format": {"json_format": {"path": "%REQ(:PATH)%", "code": "%RESPONSE_CODE%"}},
                },
            }
        ]

    sidecar = start(app, tmp_path, edit=with_log)
    try:
        wanted = {f"/direct?{number}" for number in range(MANY)}
        for path in wanted:
            assert get(sidecar.listen, path)[0] == 200
        until(
            lambda: log.exists() and log.read_text().count("\n") == MANY, "all are written", sidecar.process
        )
        assert {json.loads(line)["path"] for line in log.read_text().splitlines()} == wanted
        log.rename(tmp_path / "access.log.1")
        os.kill(sidecar.pid, signal.SIGUSR1)

        def rotated() -> bool:
            get(sidecar.listen, "/direct?later")
            return all(str(log) in logs_of(pid) for pid in sidecar.workers())

        until(rotated, "every worker has the new file", sidecar.process)
        assert sidecar.process.end() == 0, sidecar.process.log()
        lines = (tmp_path / "access.log.1").read_text() + log.read_text()
        assert all(json.loads(line)["code"] == 200 for line in lines.splitlines())
    finally:
        if sidecar.process.popen.poll() is None:
            sidecar.process.end(signal.SIGKILL)


def logs_of(pid: int) -> set[str]:
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.add(str(entry.readlink()))
        except FileNotFoundError:
            continue
    return found


def test_admin_speaks_for_all(sidecar: Sidecar) -> None:
    for _ in range(MANY):
        assert get(sidecar.listen, "/x")[0] == 200
    clusters = get(sidecar.admin, "/clusters")[1]
    assert re.search(rf"^app::127\.0\.0\.1:\d+::rq_total::{MANY}$", clusters, re.MULTILINE), clusters
    assert "app::default_priority::max_requests::1024\n" in clusters
    metrics = get(sidecar.admin, "/stats?format=prometheus")[1]
    assert f'envoy_cluster_upstream_rq_total{{envoy_cluster_name="app"}} {MANY}\n' in metrics
    assert f'envoy_cluster_upstream_rq_time_count{{envoy_cluster_name="app"}} {MANY}\n' in metrics
    assert "# TYPE envoy_server_worker_restarts counter\n" in metrics
    dump = json.loads(get(sidecar.admin, "/config_dump")[1])
    assert len(dump["configs"]) == 1
    held = json.loads(get(sidecar.admin, "/internals")[1])["workers"]
    assert sorted(held) == sorted(str(pid) for pid in sidecar.workers())
    assert all(worker["uptime"] >= 0 and worker["timers"] for worker in held.values())


def test_a_port_that_another_sidecar_has_is_refused(sidecar: Sidecar, app: int, tmp_path: Path) -> None:
    file = tmp_path / "second.json"
    file.write_text(json.dumps(bootstrap(sidecar.listen, app, free_port())))
    second = Process(tmp_path / "second.log", "proxy", "-c", str(file), "--workers", "2")
    assert second.popen.wait(WAIT) == 1
    assert f"cannot listen on 127.0.0.1:{sidecar.listen}: Address already in use" in second.log()
