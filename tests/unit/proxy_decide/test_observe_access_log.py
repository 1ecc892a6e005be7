"""Access log lines: operators, text and JSON formats as Envoy 1.40 prints them, and escaping."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.model.access_log import FileAccessLog, JsonLogFormat, TextLogFormat
from proxy.model.config import ConfigError
from proxy.model.connection import ConnectionInfo, PeerCertificate
from proxy.model.exchange import Exchange
from proxy.observe.access_log import compile_access_log
from proxy.observe.format import DEFAULT_FORMAT, compile_json, compile_text
from proxy.observe.log_file import LogFiles
from tests.fakes.exchange import FakeExchange, FakeHead


def _full() -> FakeExchange:
    """What Envoy was asked in the reference run, with rounder numbers."""
    conn = ConnectionInfo(("192.0.2.7", 40000), ("10.1.0.5", 8080), connection_id=7, sni="b.mesh.local")
    conn.principal = "spiffe://td/a"
    conn.peer = PeerCertificate("CN=a", ("spiffe://td/a",), ("a", "b"), "ff", "0a", "CN=ca")
    conn.local_uri = "spiffe://td/b"
    conn.tls_version, conn.cipher = "TLSv1.3", "TLS_AES_128_GCM_SHA256"
    conn.transport_protocol = "tls"
    head = FakeHead("/a/../b?a=1&b=2", ("x-q", "v1"), ("x-q", "v2"), ("user-agent", "ua"), host="svc:80")
    return FakeExchange(
        head,
        path=b"/b",
        connection=conn,
        response=FakeHead("", ("x-r", "1"), status=200),
        route=SimpleNamespace(name="r", virtual_host="v"),
        target=SimpleNamespace(cluster_name="c"),
        host=SimpleNamespace(label="10.2.0.1:9000"),
        upstream_local=("10.1.0.5", 3333),
        upstream_principal="spiffe://td/u",
        request_end=100.001,
        first_upstream_tx=100.002,
        first_upstream_rx=100.0105,
        end=100.0205,
        bytes_received=5,
        bytes_sent=206,
        details="via_upstream",
        request_id=b"rid",
        attempts=2,
    )


def _empty() -> FakeExchange:
    """A TCP connection of which nothing came."""
    return FakeExchange(None, protocol="", status=0, details="no_chain", flags="NR,UF")


@pytest.mark.parametrize(
    ("operator", "full", "empty"),
    [
        ("PROTOCOL", "HTTP/1.1", None),
        ("RESPONSE_CODE", 200, 0),
        ("RESPONSE_CODE_DETAILS", "via_upstream", None),
        ("CONNECTION_TERMINATION_DETAILS", None, "no_chain"),
        ("RESPONSE_FLAGS", "-", "NR,UF"),
        ("RESPONSE_FLAGS_LONG", "-", "NoRouteFound,UpstreamConnectionFailure"),
        ("BYTES_RECEIVED", 5, 0),
        ("BYTES_SENT", 206, 0),
        ("DURATION", 20, 0),
        ("REQUEST_DURATION", 1, None),
        ("RESPONSE_DURATION", 10, None),
        ("RESPONSE_TX_DURATION", 10, None),
        ("UPSTREAM_HOST", "10.2.0.1:9000", None),
        ("UPSTREAM_REMOTE_ADDRESS", "10.2.0.1:9000", None),
        ("UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", "10.2.0.1", None),
        ("UPSTREAM_REMOTE_PORT", 9000, None),
        ("UPSTREAM_CLUSTER", "c", None),
        ("UPSTREAM_LOCAL_ADDRESS", "10.1.0.5:3333", None),
        ("UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", "10.1.0.5", None),
        ("UPSTREAM_LOCAL_PORT", 3333, None),
        ("UPSTREAM_TRANSPORT_FAILURE_REASON", None, None),
        ("UPSTREAM_REQUEST_ATTEMPT_COUNT", 2, 0),
        ("UPSTREAM_PEER_URI_SAN", "spiffe://td/u", None),
        ("DOWNSTREAM_LOCAL_ADDRESS", "10.1.0.5:8080", "10.1.0.5:8080"),
        ("DOWNSTREAM_LOCAL_PORT", 8080, 8080),
        ("DOWNSTREAM_REMOTE_ADDRESS", "192.0.2.7:40000", "192.0.2.7:40000"),
        ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", "192.0.2.7", "192.0.2.7"),
        ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS", "192.0.2.7:40000", "192.0.2.7:40000"),
        ("DOWNSTREAM_PEER_URI_SAN", "spiffe://td/a", None),
        ("DOWNSTREAM_PEER_DNS_SAN", "a,b", None),
        ("DOWNSTREAM_PEER_SUBJECT", "CN=a", None),
        ("DOWNSTREAM_PEER_ISSUER", "CN=ca", None),
        ("DOWNSTREAM_PEER_SERIAL", "0a", None),
        ("DOWNSTREAM_PEER_FINGERPRINT_256", "ff", None),
        ("DOWNSTREAM_LOCAL_URI_SAN", "spiffe://td/b", None),
        ("DOWNSTREAM_TLS_VERSION", "TLSv1.3", None),
        ("DOWNSTREAM_TLS_CIPHER", "TLS_AES_128_GCM_SHA256", None),
        ("REQUESTED_SERVER_NAME", "b.mesh.local", None),
        ("ROUTE_NAME", "r", None),
        ("CONNECTION_ID", 7, 7),
        ("STREAM_ID", "rid", None),
        ("HOSTNAME", "node-1", "node-1"),
        ("REQ(:METHOD)", "GET", None),
        ("REQ(:PATH)", "/b?a=1&b=2", None),
        ("REQ(X-ENVOY-ORIGINAL-PATH?:PATH)", "/b?a=1&b=2", None),
        ("REQ(:AUTHORITY)", "svc:80", None),
        ("REQ(:SCHEME)", "https", None),
        ("REQ(X-REQUEST-ID)", "rid", None),
        ("REQ(x-q)", "v1", None),
        ("REQUEST_HEADER(x-q):1", "v", None),
        ("REQ(nope)", None, None),
        ("REQ(nope?user-agent)", "ua", None),
        ("RESP(x-r)", "1", None),
        ("RESP(nope)", None, None),
        ("RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)", 8, None),
        ("RESPONSE_HEADER(:STATUS)", 200, 0),
        ("PATH", "/b?a=1&b=2", None),
        ("PATH(NQ)", "/b", None),
        ("PATH(WQ:ORIG_OR_PATH)", "/b?a=1&b=2", None),
        ("QUERY_PARAM(b)", "2", None),
        ("QUERY_PARAM(z)", None, None),
        ("QUERY_PARAMS", "a=1&b=2", None),
        ("START_TIME", "2026-11-24T01:24:21.366Z", "2026-11-24T01:24:21.366Z"),
        ("START_TIME(%s)", "1795483461", "1795483461"),
        ("START_TIME(%Y/%m/%dT%H:%M:%S%z)", "2026/11/24T01:24:21+0000", "2026/11/24T01:24:21+0000"),
        ("START_TIME(%s.%3f)", "1795483461.366", "1795483461.366"),
        ("START_TIME(%H:%M,%e,%j,%a,%b,%p)", "01:24,24,328,Tue,Nov,AM", "01:24,24,328,Tue,Nov,AM"),
    ],
)
def test_operators(operator: str, full: str | int | None, empty: str | int | None) -> None:
    for exchange, value in ((_full(), full), (_empty(), empty)):
        fields = JsonLogFormat((("k", f"%{operator}%"), ("m", f"<%{operator}%>")))
        shown = "-" if value is None else str(value)
        assert json.loads(compile_json(fields, "f", hostname="node-1")(exchange)) == {
            "k": value,
            "m": f"<{shown}>",
        }
        assert compile_text(f"%{operator}%\n", "f", hostname="node-1")(exchange) == shown + "\n"
        sparse = json.loads(compile_json(fields, "f", hostname="node-1", omit_empty=True)(exchange))
        inner = "" if value is None else value
        assert sparse == ({"m": f"<{inner}>"} if value is None else {"k": value, "m": f"<{inner}>"})
        assert compile_text(f"%{operator}%", "f", hostname="node-1", omit_empty=True)(exchange) == str(inner)


def test_the_default_format_is_envoys() -> None:
    assert compile_text(DEFAULT_FORMAT, "f")(_full()) == (
        '[2026-11-24T01:24:21.366Z] "GET /b?a=1&b=2 HTTP/1.1" 200 - 5 206 20 8 "-" "ua" "rid" "svc:80" '
        '"10.2.0.1:9000"\n'
    )


def test_json_keys_are_sorted_and_constants_typed() -> None:
    spec = JsonLogFormat(
        (
            ("z", "100%%"),
            ("nest", JsonLogFormat((("b", "%PROTOCOL%"), ("a", ("%BYTES_SENT%", "x", 1))))),
            ("n", 1.5),
            ("t", True),
            ("o", None),
            ("%", 'say "%s"'.replace("%", "%%")),
        )
    )
    line = compile_json(spec, "f")(_full())
    assert line == (
        '{"%":"say \\"%s\\"","n":1.5,"nest":{"a":[206,"x",1],"b":"HTTP/1.1"},"o":null,"t":true,"z":"100%"}\n'
    )
    assert json.loads(compile_json(spec, "f", omit_empty=True)(_full())) == json.loads(line)


def test_an_empty_object_is_left_out_when_empty_values_are() -> None:
    spec = JsonLogFormat((("nest", JsonLogFormat((("a", "%ROUTE_NAME%"),))),))
    assert compile_json(spec, "f", omit_empty=True)(_empty()) == "{}\n"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("%NOPE%", "unknown operator %NOPE%"),
        ("%METHOD%", "unknown operator"),
        ("100% sure", "no operator at position 3"),
        ("%START_TIME", "no operator"),
        ("%START_TIME(%Q)%", "unknown time specifier '%Q'"),
        ("%PROTOCOL(x)%", "takes no argument"),
        ("%REQ()%", "header name"),
        ("%REQ(a?b?c)%", "header name"),
        ("%RESP(a b)%", "header name"),
        ("%PATH(XX)%", "expected WQ or NQ"),
        ("%DYNAMIC_METADATA(a:b)%", "unknown operator"),
    ],
)
def test_formats_that_cannot_be_used(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why.replace("(", r"\(")):
        compile_text(text, "f")
    with pytest.raises(ConfigError, match=why.replace("(", r"\(")) as caught:
        compile_json(JsonLogFormat((("a", JsonLogFormat((("b", (text,)),))),)), "f")
    assert caught.value.path == "f.a.b[0]"


NASTY = ["a\nb", "a\x1b[31mb", "a\x9bb", "\u2028", "\x00\x7f", 'quo"te\\', "ä", "\udcff"]


@pytest.mark.parametrize("value", NASTY)
@pytest.mark.parametrize("omit", [False, True])
def test_nothing_that_was_sent_ends_a_line_or_reaches_a_terminal(value: str, omit: bool) -> None:
    exchange = FakeExchange(FakeHead("/", ("x", value)), upstream_failure_reason=value)
    form = "%REQ(x)%|%UPSTREAM_TRANSPORT_FAILURE_REASON%|%REQ(x):9%"
    text = compile_text(form + "\n", "f", omit_empty=omit)(exchange)
    assert text.endswith("\n")
    assert text[:-1].isprintable()
    spec = JsonLogFormat((("a", "%REQ(x)%"), ("b", f"x{form}"), ("c", "%UPSTREAM_TRANSPORT_FAILURE_REASON%")))
    line = compile_json(spec, "f", omit_empty=omit)(exchange)
    assert line[:-1].isascii()
    assert "\n" not in line[:-1]
    assert "\x1b" not in line
    json.loads(line)


@given(st.binary(max_size=30), st.booleans())
def test_any_bytes_make_one_valid_line(raw: bytes, omit: bool) -> None:
    exchange = FakeExchange(FakeHead("/"), request_id=raw, path=raw)
    spec = JsonLogFormat((("a", "%STREAM_ID%"), ("b", "%PATH(NQ)% %STREAM_ID%")))
    line = compile_json(spec, "f", omit_empty=omit)(exchange)
    assert line.count("\n") == 1
    json.loads(line)
    assert compile_text("%STREAM_ID%\n", "f")(exchange).count("\n") == 1


@pytest.mark.parametrize(
    "log_format", [None, TextLogFormat("%RESPONSE_CODE%\n"), JsonLogFormat((("code", "%RESPONSE_CODE%"),))]
)
def test_a_writer_buffers_until_the_flush(tmp_path: Path, log_format: Any) -> None:
    files = LogFiles()
    path = tmp_path / "access.log"
    writer = compile_access_log(FileAccessLog(str(path), log_format), files.open, "f")
    exchange: Exchange = _full()
    writer.log(exchange)
    writer.log(exchange)
    assert not path.exists()
    files.flush()
    assert path.read_text() == writer.render(exchange) * 2


def test_a_format_that_cannot_be_used_names_its_field() -> None:
    with pytest.raises(ConfigError) as caught:
        compile_access_log(FileAccessLog("/x", TextLogFormat("%NO%")), LogFiles().open, "hcm.access_log[0]")
    assert caught.value.path == "hcm.access_log[0].text_format"
