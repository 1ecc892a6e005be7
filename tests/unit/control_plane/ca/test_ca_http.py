"""The CA's HTTP routes on a loopback socket without TLS; with TLS: tests/integration/test_enrolment.py."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, web

from certs import csr, keys
from certs.spiffe import SpiffeId
from control_plane.api.access import Principal, Role
from control_plane.api.context import PRINCIPAL
from control_plane.ca.http import BODY_LIMIT, setup_routes
from tests.fakes import mesh_ca
from tests.fakes.mesh_ca import MeshCa

TOKENS = "/apis/mesh.tulle.io/v1/namespaces/default/jointokens"
CERTIFICATES = "/ca/v1/certificates"


@web.middleware
async def trusting(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Stands for the API's authentication: whoever names himself is believed."""
    if "X-Test-Principal" in request.headers:
        request[PRINCIPAL] = Principal(request.headers["X-Test-Principal"], Role.ADMIN)
    return await handler(request)


class Caller:
    def __init__(self, session: ClientSession, ca: MeshCa, port: int) -> None:
        self.session = session
        self.ca = ca
        self.port = port

    async def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        url = f"http://127.0.0.1:{self.port}{path}"
        async with self.session.request(method, url, data=data, headers=headers) as response:
            raw = await response.read()
            is_json = response.content_type == "application/json"
            return response.status, json.loads(raw) if is_json else raw.decode()


ADMIN = {"X-Test-Principal": "admin"}


@pytest.fixture
async def call(tmp_path: Path) -> AsyncIterator[Caller]:
    ca = mesh_ca.make(tmp_path)
    app = web.Application(middlewares=[trusting])
    setup_routes(app, ca.service, body_timeout=0.2)
    runner = web.AppRunner(app, lingering_time=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    async with ClientSession() as session:
        yield Caller(session, ca, runner.addresses[0][1])
    await runner.cleanup()


def failure(answer: Any) -> tuple[str, str, int]:
    assert (answer["kind"], answer["status"]) == ("Status", "Failure")
    return answer["reason"], answer["message"], answer["code"]


async def test_anyone_may_have_the_bundle(call: Caller) -> None:
    status, pem = await call("GET", "/ca/v1/bundle")
    assert (status, pem) == (200, call.ca.service.bundle.to_pem())


async def test_a_token_becomes_a_certificate_once(call: Caller) -> None:
    status, created = await call("POST", TOKENS, {"spec": {"serviceAccount": "web"}}, **ADMIN)
    assert status == 201
    token = created["status"]["token"]
    body = {"csr": csr.build(keys.generate()).decode(), "token": token}
    status, issued = await call("POST", CERTIFICATES, body)
    assert status == 201
    assert issued["spiffeId"] == "spiffe://mesh.local/ns/default/sa/web"
    assert issued["notAfter"] == "2026-03-02T12:00:00Z"
    assert issued["certificates"].count("BEGIN CERTIFICATE") == 2
    assert issued["bundle"] == call.ca.service.bundle.to_pem()
    status, answer = await call("POST", CERTIFICATES, body)
    assert status == 401
    assert failure(answer)[0] == "Unauthorized"
    assert answer["details"]["causes"][0]["reason"] == "replayed-token"
    assert answer["details"]["causes"][0]["field"] == "token"


async def test_join_tokens_are_a_resource(call: Caller) -> None:
    _, created = await call("POST", TOKENS, {"spec": {"serviceAccount": "web", "ttl": "10m"}}, **ADMIN)
    assert created["apiVersion"] == "mesh.tulle.io/v1"
    assert created["spec"]["expirationTimestamp"] == "2026-03-01T12:10:00Z"
    name, secret = created["metadata"]["name"], created["status"]["token"].split(".")[2]

    status, shown = await call("GET", f"{TOKENS}/{name}", **ADMIN)
    assert (status, shown["metadata"]["resourceVersion"]) == (200, "1")
    status, listed = await call("GET", TOKENS, **ADMIN)
    assert (status, listed["kind"]) == (200, "JoinTokenList")
    assert listed["items"] == [shown]
    for answer in (shown, listed):
        assert secret not in str(answer)
        assert "secretHash" not in str(answer)
    _, other = await call("GET", TOKENS.replace("default", "other"), **ADMIN)
    assert other["items"] == []

    status, answer = await call("DELETE", f"{TOKENS}/{name}", **ADMIN)
    assert (status, answer["status"]) == (200, "Success")
    for method in ("GET", "DELETE"):
        status, answer = await call(method, f"{TOKENS}/{name}", **ADMIN)
        assert status == 404
        assert name in failure(answer)[1]


async def test_the_author_is_the_principal(call: Caller) -> None:
    await call("POST", TOKENS, {"spec": {"serviceAccount": "web"}}, **{"X-Test-Principal": "alice"})
    assert call.ca.store.authors == ["alice"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("method", "path"), [("GET", TOKENS), ("POST", TOKENS), ("GET", TOKENS + "/x"), ("DELETE", TOKENS + "/x")]
)
async def test_without_a_principal_nothing_is_shown(call: Caller, method: str, path: str) -> None:
    status, answer = await call(
        method, path, {"spec": {"serviceAccount": "web"}} if method == "POST" else None
    )
    assert status == 401
    assert "client certificate or a bearer token" in failure(answer)[1]


async def test_all_problems_of_a_token_are_reported(call: Caller) -> None:
    status, answer = await call("POST", TOKENS, {"spec": {"ttl": "x", "uses": 0}}, **ADMIN)
    assert (status, failure(answer)[0]) == (422, "Invalid")
    causes = {cause["field"] for cause in answer["details"]["causes"]}
    assert causes == {"spec.serviceAccount", "spec.ttl", "spec.uses"}


@pytest.mark.parametrize(
    ("body", "code", "named"),
    [
        (b"hello", 400, "not JSON"),
        (b"\xff", 400, "not JSON"),
        (b"[" * 60_000, 400, "not JSON"),
        (b"[]", 400, "expected a JSON object"),
        (b"{}", 422, "csr: required"),
        (b'{"csr": 5}', 422, "csr: required"),
        (b'{"csr": "x", "token": 5}', 422, "token: not a string"),
        (b'{"csr": "x", "token": "y"}', 401, "not a join token"),
        (b'{"csr": "x"}', 401, "neither a join token"),
    ],
)
async def test_bad_requests_are_answered(call: Caller, body: bytes, code: int, named: str) -> None:
    status, answer = await call("POST", CERTIFICATES, body)
    assert (status, failure(answer)[2]) == (code, code)
    assert named in failure(answer)[1]


async def test_a_greedy_csr_is_forbidden(call: Caller) -> None:
    wanted = csr.build(keys.generate(), SpiffeId.workload("mesh.local", "default", "admin")).decode()
    status, answer = await call("POST", CERTIFICATES, {"csr": wanted, "token": await call.ca.token()})
    assert (status, failure(answer)[0]) == (403, "Forbidden")
    assert answer["details"]["causes"][0]["field"] == "csr"


async def test_the_body_limit(call: Caller) -> None:
    fits = b'{"csr": "' + b"x" * (BODY_LIMIT - 11) + b'"}'
    assert len(fits) == BODY_LIMIT
    assert (await call("POST", CERTIFICATES, fits))[0] == 401
    status, answer = await call("POST", CERTIFICATES, fits + b" ")
    assert (status, failure(answer)[0]) == (413, "RequestEntityTooLarge")


async def test_the_body_limit_holds_without_a_length(call: Caller) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 4096

    url = f"http://127.0.0.1:{call.port}{CERTIFICATES}"
    async with call.session.post(url, data=endless()) as response:
        assert response.status == 413


async def test_a_body_that_does_not_come_is_given_up(call: Caller) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", call.port)
    writer.write(f"POST {CERTIFICATES} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{{".encode())
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"did not arrive within 0.2 seconds" in answer
