"""What becomes of hosts, their connections and their checks when something changes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.cluster import flags
from proxy.model.address import SocketAddress
from proxy.model.cluster import Cluster, Endpoint, EndpointHealthCheck
from proxy.model.config import ConfigError
from proxy.model.health_check import GrpcCheck, HttpCheck
from proxy.model.matcher import StringMatcher
from proxy.model.route import HeaderValueOption
from tests.fakes.checked import checked, health_check
from tests.fakes.health import FRONT, HTTP, Page, eds, says
from tests.fakes.sidecar import (
    HOST,
    backend,
    chain,
    changed,
    cluster,
    config,
    dial,
    eventually,
    listener,
    tcp,
)


async def test_nobody_healthy_and_no_panic_is_an_answer_of_the_sidecar() -> None:
    served = Page()
    served.answer = says(500)
    async with backend(served) as server:
        up = cluster("up", server.port, panic_threshold=0.0, health_check=health_check(HTTP))
        async with checked(FRONT, up) as sidecar:
            peer = await dial(sidecar.running.port)
            peer.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
            assert (await peer.response())[::2] == (503, b"no healthy upstream")
            served.answer = says(200)
            await eventually(lambda: sidecar.healthy() == [True])
            peer.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
            assert (await peer.response())[0] == 200
            peer.close()


async def test_connections_to_a_host_that_fails_are_not_kept() -> None:
    served = Page()
    async with backend(served) as server:
        up = cluster("up", server.port, health_check=health_check(HTTP))
        async with checked(FRONT, up) as sidecar:
            peer = await dial(sidecar.running.port)
            peer.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
            await peer.response()
            stats = sidecar.running.cluster_stats("up")
            assert (stats.upstream_cx_active, stats.upstream_cx_total) == (1, 1)
            served.answer = says(500)
            await eventually(lambda: stats.upstream_cx_active == 0)
            assert sidecar.healthy() == [False]
            assert stats.upstream_cx_destroy_local == 1
            # Panic: whoever is there is asked; that connection is as good as the host is.
            for _ in range(2):
                peer.send(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
                assert (await peer.response())[0] == 500
            assert stats.upstream_cx_total == 2
            peer.close()


@pytest.mark.parametrize("close", [True, False])
async def test_relayed_connections_end_with_the_health_of_their_host_if_so_configured(close: bool) -> None:
    served, other = Page(), Page()
    async with backend(served) as server, backend(other) as health:
        endpoint = Endpoint(
            SocketAddress(HOST, server.port), health_check=EndpointHealthCheck(port=health.port)
        )
        up = Cluster(
            "up",
            "STATIC",
            load_assignment=eds(endpoint),
            health_check=health_check(HTTP),
            close_connections_on_host_health_failure=close,
        )
        async with checked(listener(chain(tcp("up"))), up) as sidecar:
            peer = await dial(sidecar.running.port)
            peer.send(b"GET / HTTP/1.1\r\n\r\n")
            assert (await peer.response())[0] == 200
            other.answer = says(500)
            await eventually(lambda: sidecar.healthy() == [False])
            if close:
                assert await peer.rest() == b""
            else:
                before = sidecar.stats().attempt
                await eventually(lambda: sidecar.stats().attempt > before + 15)
                peer.send(b"GET / HTTP/1.1\r\n\r\n")
                assert (await peer.response())[0] == 200
            peer.close()


async def test_a_host_that_is_listed_no_more_stays_while_it_passes() -> None:
    one, other = Page(), Page()
    async with backend(one) as first, backend(other) as second:
        hosts = [Endpoint(SocketAddress(HOST, server.port)) for server in (first, second)]
        up = Cluster("up", "EDS", health_check=health_check(HTTP))
        async with checked(up) as sidecar:
            live = sidecar.running.hub.current.clusters["up"]
            live.set_endpoints(eds(*hosts))
            sidecar.checker.follow(live)
            await eventually(lambda: sidecar.healthy() == [True, True])
            live.set_endpoints(eds(hosts[1]))
            sidecar.checker.follow(live)
            assert {host.address[1]: host.flags for host in live.hosts} == {
                second.port: 0,
                first.port: flags.PENDING_DYNAMIC_REMOVAL,
            }
            assert sidecar.checker.sessions == 2
            one.answer = says(500)
            await eventually(lambda: len(live.hosts) == 1)
            assert live.hosts[0].address[1] == second.port
            assert sidecar.checker.sessions == 1
            assert sidecar.stats().healthy == 1


async def test_an_unchanged_cluster_goes_on_and_one_that_is_gone_is_asked_no_more() -> None:
    served = Page()
    async with backend(served) as server:
        up = cluster("up", server.port, health_check=health_check(HTTP, interval=0.05))
        async with checked(up) as sidecar:
            base = config(up)
            other = cluster("other", server.port)
            sidecar.running.apply(changed(base, other, version="2"))
            # Limits have nothing to do with health either.
            limited = replace(up, circuit_breakers=replace(up.circuit_breakers, max_requests=7))
            sidecar.running.apply(changed(base, limited, version="3"))
            before = sidecar.stats().attempt
            await eventually(lambda: sidecar.stats().attempt > before + 2)
            assert server.connections == 1 and sidecar.healthy() == [True]
            # Another check begins anew; meanwhile the host is what it was.
            served.answer = says(500)
            asks = replace(up, health_check=health_check(HttpCheck("/other")))
            sidecar.running.apply(changed(base, asks, version="4"))
            assert sidecar.healthy() == [True]
            await eventually(lambda: sidecar.healthy() == [False])
            assert served.asked[-1].startswith(b"GET /other ")
            # Without one, whoever is listed is good enough.
            sidecar.running.apply(changed(base, replace(up, health_check=None), version="5"))
            assert sidecar.healthy() == [True]
            assert sidecar.checker.sessions == 0
            assert sidecar.running.cluster_stats("up").health_check is None
            sidecar.running.apply(config(version="6"))


async def test_many_changes_leave_nothing_behind() -> None:
    served = Page()
    async with backend(served) as server:
        up = cluster("up", server.port, health_check=health_check(HTTP, interval=0.001))
        async with checked(up) as sidecar:
            before = len(list(Path("/proc/self/fd").iterdir()))
            for number in range(100):
                asks = replace(up, health_check=health_check(HttpCheck(f"/{number}"), interval=0.001))
                more = [replace(asks, name=f"c{number % 7}"), asks]
                sidecar.running.apply(config(*more, version=str(number)))
                await asyncio.sleep(0)
                if not number % 10:
                    path = b"GET /%d " % number
                    await eventually(lambda path=path: any(head.startswith(path) for head in served.asked))
            sidecar.running.apply(config(up, version="last"))
            await eventually(lambda: served.asked[-1].startswith(b"GET /healthz "))
            await eventually(lambda: len(list(Path("/proc/self/fd").iterdir())) <= before)
            tasks = [task for task in asyncio.all_tasks() if task.get_name().startswith("health check")]
            assert len(tasks) == sidecar.checker.sessions == 1
            assert sidecar.stats().healthy == 1


async def test_an_endpoint_says_where_and_whether_it_is_checked() -> None:
    served, app = Page(), Page()
    async with backend(served) as health, backend(app) as serving, backend(Page()) as unchecked:
        endpoints = (
            Endpoint(
                SocketAddress(HOST, serving.port),
                health_check=EndpointHealthCheck(port=health.port, hostname="me.test"),
            ),
            Endpoint(SocketAddress(HOST, unchecked.port), health_check=EndpointHealthCheck(disabled=True)),
        )
        up = Cluster("up", "STATIC", load_assignment=eds(*endpoints), health_check=health_check(HTTP))
        async with checked(up) as sidecar:
            assert sidecar.healthy() == [True, True]
            assert sidecar.checker.sessions == 1
            assert b"host: me.test\r\n" in served.asked[0]
            assert not serving.received and not unchecked.received


async def test_new_hosts_do_not_count_until_they_were_checked_if_so_configured() -> None:
    up = Cluster(
        "up",
        "EDS",
        health_check=health_check(HTTP),
        ignore_new_hosts_until_first_hc=True,
        panic_threshold=0.0,
    )
    async with backend(Page()) as server, checked(up) as sidecar:
        live = sidecar.running.hub.current.clusters["up"]
        live.set_endpoints(eds(Endpoint(SocketAddress(HOST, server.port))))
        assert live.hosts[0].excluded
        sidecar.checker.follow(live)
        await eventually(lambda: sidecar.healthy() == [True])
        assert not live.hosts[0].excluded


@pytest.mark.parametrize(
    ("check", "path"),
    [
        (
            HttpCheck("/", headers_to_add=(HeaderValueOption("x", "%REQ(y)%"),)),
            "http_health_check.request_headers_to_add[0].header.value",
        ),
        (
            GrpcCheck(initial_metadata=(HeaderValueOption("te", "x"),)),
            "grpc_health_check.initial_metadata[0].header.key",
        ),
        (
            HttpCheck("/", service_name=StringMatcher("safe_regex", "(")),
            "http_health_check.service_name_matcher",
        ),
    ],
)
async def test_what_cannot_be_asked_is_refused(check: HttpCheck | GrpcCheck, path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        async with checked(cluster("up", 1, health_check=health_check(check))):
            pass
    assert caught.value.path.startswith(f"cluster[up].health_checks[0].{path}")
