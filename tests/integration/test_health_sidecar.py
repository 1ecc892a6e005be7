"""Health checks in a whole sidecar: when it begins to serve, whom discovery finds, how it ends."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import threading
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from proxy.app import Common, Sidecar
from proxy.model.address import SocketAddress
from proxy.model.cluster import Cluster, Endpoint, LoadAssignment, LocalityEndpoints
from proxy.model.health_check import HttpCheck
from tests.fakes.checked import health_check
from tests.fakes.sidecar import HOST, Backend, backend, config, eventually
from tests.support.sidecar_process import Process, bootstrap, free_port, get, until


async def test_whom_discovery_finds_is_asked_from_then_on() -> None:
    async with backend() as first, backend() as second, AsyncExitStack() as stack:
        sidecar = Sidecar(Common())
        sidecar.hub.apply(config(Cluster("up", "EDS", health_check=health_check(HttpCheck("/")))))
        await sidecar.serve_data(stack)
        live = sidecar.hub.current.clusters["up"]

        def found(*servers: Backend) -> None:
            endpoints = tuple(Endpoint(SocketAddress(HOST, server.port)) for server in servers)
            sidecar._found(live, LoadAssignment("up", (LocalityEndpoints(endpoints),)))

        found(first)
        assert [host.healthy for host in live.hosts] == [False]
        await eventually(lambda: [host.healthy for host in live.hosts] == [True])
        found(first, second)
        await eventually(lambda: [host.healthy for host in live.hosts] == [True, True])
        assert second.all.startswith(b"GET / HTTP/1.1\r\nhost: up\r\n")
        assert sidecar.health is not None and sidecar.health.sessions == 2
    assert sidecar.health.sessions == 0
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("health check")]


async def test_checks_may_come_when_the_sidecar_serves_already() -> None:
    async with backend() as server, AsyncExitStack() as stack:
        sidecar = Sidecar(Common())
        await sidecar.serve_data(stack)
        assert sidecar.health is None
        listed = LoadAssignment("up", (LocalityEndpoints((Endpoint(SocketAddress(HOST, server.port)),)),))
        sidecar.hub.apply(
            config(Cluster("up", "STATIC", load_assignment=listed, health_check=health_check(HttpCheck("/"))))
        )
        live = sidecar.hub.current.clusters["up"]
        assert not sidecar.warmed()
        await eventually(lambda: live.hosts[0].healthy)
        assert sidecar.warmed()
        # What comes later does not make the sidecar unready.
        later = replace(live.config, name="later")
        sidecar.hub.apply(config(live.config, later, version="2"))
        assert sidecar.health is not None and not sidecar.health.warm
        assert sidecar.warmed()


def checked(app: int, path: Path, listen: int, admin: int) -> Path:
    document = bootstrap(listen, app, admin)
    (cluster,) = document["static_resources"]["clusters"]
    cluster["health_checks"] = [
        {
            "timeout": "60s",
            "interval": "60s",
            "unhealthy_threshold": 1,
            "healthy_threshold": 1,
            "http_health_check": {"path": "/health"},
        }
    ]
    path.write_text(json.dumps(document))
    return path


def test_it_serves_when_everybody_was_asked(tmp_path: Path) -> None:
    listen, admin = free_port(), free_port()
    with socket.create_server((HOST, 0)) as app:
        file = checked(app.getsockname()[1], tmp_path / "c.json", listen, admin)
        sidecar = Process(tmp_path / "log", "proxy", "-c", str(file))
        connection, _ = app.accept()
        with connection:
            assert connection.recv(1000).startswith(b"GET /health HTTP/1.1\r\nhost: app\r\n")
            assert get(listen, "/direct")[0] == 0
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            until(lambda: get(listen, "/direct") == (200, "hi"), "the listener serves", sidecar)
            until(lambda: get(admin, "/ready")[0] == 200, "ready", sidecar)
            assert "app::" in get(admin, "/clusters")[1]
            assert "cluster.app.health_check.success: 1\n" in get(admin, "/stats")[1]
            prometheus = get(admin, "/stats/prometheus")[1]
            assert 'envoy_cluster_health_check_attempt{envoy_cluster_name="app"} 1\n' in prometheus
            assert "# TYPE envoy_cluster_health_check_healthy gauge\n" in prometheus
            assert sidecar.end() == 0


def test_it_can_be_told_to_stop_while_somebody_is_asked(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as app:
        file = checked(app.getsockname()[1], tmp_path / "c.json", free_port(), free_port())
        sidecar = Process(tmp_path / "log", "proxy", "-c", str(file), "--drain-time", "1")
        connection, _ = app.accept()
        with connection:
            connection.recv(1000)
            # The answer would be waited for for a minute.
            ended: list[int] = []
            waiting = threading.Thread(target=lambda: ended.append(sidecar.end(signal.SIGTERM)))
            waiting.start()
            waiting.join(30)
            assert ended == [0]
