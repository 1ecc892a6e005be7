"""Listeners: addresses, original destinations, hand-over, policy on connections, refusals in the log."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.accept import accepted
from proxy.model.access_log import FileAccessLog, TextLogFormat
from proxy.model.address import BindConfig, CidrRange, SocketAddress
from proxy.model.cluster import Cluster
from proxy.model.connection import Address
from proxy.model.listener import FilterChainMatch
from proxy.model.rbac import AnyRule, Policy, Rbac, SourceIpRule
from tests.fakes.sidecar import (
    HOST,
    Peer,
    ask,
    backend,
    chain,
    cluster,
    config,
    direct,
    eventually,
    forward,
    http,
    listener,
    sidecar,
    tcp,
)

CLOSE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@pytest.fixture
def dialled(monkeypatch: pytest.MonkeyPatch) -> list[Address | None]:
    """What the kernel says the next connections were going to."""
    answers: list[Address | None] = []
    monkeypatch.setattr(accepted, "original_destination", lambda sock, local: answers.pop(0))
    return answers


async def test_a_captured_connection_goes_to_the_listener_of_its_destination(
    dialled: list[Address | None],
) -> None:
    virtual = listener(chain(http(direct("/", 200, b"virtual"))), use_original_dst=True)
    exact = replace(
        listener(chain(http(direct("/", 200, b"exact"))), name="exact"),
        address=SocketAddress("10.9.9.9", 80),
        bind_to_port=False,
    )
    wildcard = replace(
        listener(chain(http(direct("/", 200, b"wildcard"))), name="wildcard"),
        address=SocketAddress("0.0.0.0", 80),
        bind_to_port=False,
    )
    async with sidecar(virtual, exact, wildcard) as it:
        for destination, expected in (
            (("10.9.9.9", 80), b"exact"),
            (("10.9.9.8", 80), b"wildcard"),
            (("10.9.9.9", 81), b"virtual"),
        ):
            dialled.append(destination)
            assert (await ask(it.port, CLOSE)).endswith(expected)
        assert it.listener_stats("exact").downstream_cx_total == 1
        for name in ("l", "exact", "wildcard"):
            stats = it.listener_stats(name)
            await eventually(lambda stats=stats: stats.downstream_cx_active == 0)
            assert stats.downstream_pre_cx_active == 0


@pytest.mark.parametrize("use", [{"use_original_dst": True}, {"listener_filters": ("original_dst",)}])
async def test_the_proxy_never_forwards_to_itself(
    dialled: list[Address | None], use: dict[str, object]
) -> None:
    loop = Cluster("loop", "ORIGINAL_DST", "CLUSTER_PROVIDED")
    async with sidecar(listener(chain(tcp("loop")), **use), loop) as it:
        for destination in (None, (HOST, it.port), ("10.9.9.9", it.port)):
            dialled.append(destination)
            assert await ask(it.port, CLOSE) == b""
        assert it.listener_stats().downstream_listener_filter_error == 3
        assert it.cluster_stats("loop").upstream_cx_total == 0


async def test_passing_through_to_where_the_client_was_going(dialled: list[Address | None]) -> None:
    """Also the source address that tells the capture rules to leave the connection alone."""
    sources = []

    async def serve(peer: Peer) -> None:
        sources.append(peer.writer.get_extra_info("peername")[0])
        await peer.until(b"\r\n\r\n")
        peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")

    out = Cluster(
        "out",
        "ORIGINAL_DST",
        "CLUSTER_PROVIDED",
        bind_config=BindConfig(SocketAddress("127.0.0.6", 0), (SocketAddress("::6", 0),)),
    )
    inbound = FilterChainMatch(destination_port=9)
    async with backend(serve) as app:
        for terminal in (http(forward("/", "out")), tcp("out")):
            async with sidecar(
                listener(
                    chain(http(direct("/", 200, b"other")), match=inbound, name="other"),
                    chain(terminal),
                    listener_filters=("original_dst",),
                ),
                out,
            ) as it:
                dialled.append((HOST, app.port))
                assert (await ask(it.port, CLOSE)).endswith(b"ok")
                dialled.append((HOST, 9))
                assert (await ask(it.port, CLOSE)).endswith(b"other")
    assert sources == ["127.0.0.6"] * 2


async def test_all_addresses_of_a_listener_are_bound() -> None:
    six = SocketAddress("::1", 0)
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    both = replace(
        listener(chain(http(direct("/", 200, b"ok"))), additional_addresses=(six,)),
    )
    wild = replace(
        listener(chain(http(direct("/", 200, b"wild"))), name="wild"),
        address=SocketAddress("::", 0),
        ipv4_compat=True,
    )
    only_six = replace(wild, name="six", ipv4_compat=False)
    async with sidecar(both, wild, only_six) as it:
        bound = it.worker.addresses()
        assert [address for address, _ in bound["l"]] == [HOST, "::1"]
        for host, port, expected in (
            (*bound["l"][0], b"ok"),
            (*bound["l"][1], b"ok"),
            ("127.0.0.1", bound["wild"][0][1], b"wild"),
            ("::1", bound["wild"][0][1], b"wild"),
            ("::1", bound["six"][0][1], b"wild"),
        ):
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(CLOSE)
            assert (await Peer(reader, writer).rest()).endswith(expected)
            writer.close()
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", bound["six"][0][1])


async def test_an_address_in_use_is_named_and_harms_no_other_listener() -> None:
    taken = socket.create_server((HOST, 0))
    port = taken.getsockname()[1]
    good = listener(chain(http(direct("/", 200, b"ok"))))
    bad = listener(chain(http(direct("/", 200, b"ok"))), name="bad", port=port)
    with pytest.raises(OSError, match=f"listener 'bad': cannot listen on {HOST}:{port}"):
        async with sidecar(good, bad):
            pass
    async with sidecar(good) as it:
        it.apply(config(good, bad, version="2"))
        await eventually(lambda: "bad" in it.worker.listener_errors())
        assert (await ask(it.port, CLOSE)).endswith(b"ok")
        taken.close()
        it.apply(config(good, replace(bad, stat_prefix="x"), version="3"))
        await eventually(lambda: "bad" in it.worker.addresses())
        assert it.worker.listener_errors() == {}


async def test_policy_on_connections_comes_before_any_byte() -> None:
    nobody = Rbac(
        "ALLOW", (Policy("p", (AnyRule(),), (SourceIpRule(CidrRange("10.0.0.0", 8), "direct_remote_ip"),)),)
    )
    async with (
        backend() as app,
        sidecar(listener(chain(tcp("up"), rbac=(nobody,))), cluster("up", app.port)) as it,
    ):
        assert await ask(it.port, CLOSE) == b""
        assert app.connections == 0
        await eventually(lambda: it.worker.connections == 0)


async def test_refused_connections_are_logged(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    log = FileAccessLog(str(path), TextLogFormat("%RESPONSE_FLAGS% %CONNECTION_TERMINATION_DETAILS%\n"))
    never = FilterChainMatch(destination_port=9)
    async with sidecar(listener(chain(http(direct("/", 200)), match=never), access_log=(log,))) as it:
        assert await ask(it.port, CLOSE) == b""
    assert path.read_text() == "NR filter_chain_not_found\n"


async def test_every_refusal_has_a_line_in_the_log(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    log = FileAccessLog(
        str(path), TextLogFormat("%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %REQ(:PATH)%\n")
    )
    async with backend() as app:
        refusing = app.port
    manager = http(direct("/ok", 200), forward("/gone", "gone"), forward("/none", "none"), access_log=(log,))
    async with sidecar(listener(chain(manager)), cluster("gone", refusing), cluster("none")) as it:
        for line in (b"GET /ok", b"GET /no", b"GET /none", b"GET /gone", b"G@T /", b"GET /#"):
            await ask(it.port, line + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        await ask(it.port, b"GET /ok HTTP/1.1\r\n\r\n")
    assert path.read_text().splitlines() == [
        "200 - direct_response /ok",
        "404 NR route_not_found /no",
        "503 UH no_healthy_upstream /none",
        "503 UF upstream_reset_before_response_started{remote_connection_failure|"
        "delayed_connect_error:_Connection_refused} /gone",
        "400 DPE http1.codec_error -",
        "400 - path_normalization_failed /#",
        "400 - missing_host_header /ok",
    ]
