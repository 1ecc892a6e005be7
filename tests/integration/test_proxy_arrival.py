"""What routes, policy and the upstream see of fields that a client may not set, over real sockets."""

from __future__ import annotations

import pytest

from proxy.model.address import CidrRange
from proxy.model.matcher import HeaderMatcher, PathMatcher
from proxy.model.rbac import AnyRule, HeaderRule, Policy, Rbac
from proxy.model.route import DirectResponseAction, Route, RouteMatch
from tests.fakes.sidecar import ask, backend, chain, cluster, direct, forward, http, listener, sidecar

LOOPBACK = (CidrRange("127.0.0.0", 8),)


def with_header(name: str, status: int) -> Route:
    match = RouteMatch(PathMatcher("prefix", "/"), (HeaderMatcher(name),))
    return Route(name, match, DirectResponseAction(status))


def denying(name: str) -> Rbac:
    return Rbac("DENY", (Policy("p", (HeaderRule(HeaderMatcher(name)),), (AnyRule(),)),))


@pytest.mark.parametrize(
    "name", ["x-envoy-internal", "x-envoy-retry-on", "x-tulle-peer", "X-Envoy-Peer-Metadata"]
)
async def test_routes_and_policy_do_not_see_what_only_the_mesh_may_say(name: str) -> None:
    request = b"GET / HTTP/1.1\r\nhost: a\r\n%b: true\r\nconnection: close\r\n\r\n" % name.encode()
    routes = (with_header(name, 201), direct("/", 200))
    async with sidecar(listener(chain(http(*routes)))) as it:
        assert (await ask(it.port, request)).startswith(b"HTTP/1.1 200 ")
    async with sidecar(listener(chain(http(*routes, rbac=(denying(name),))))) as it:
        assert (await ask(it.port, request)).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("x-forwarded-proto", {}),
        ("x-forwarded-for", {"use_remote_address": True}),
        ("x-envoy-external-address", {"use_remote_address": True}),
        ("x-envoy-internal", {"use_remote_address": True, "internal_cidr_ranges": LOOPBACK}),
        ("x-forwarded-port", {"append_x_forwarded_port": True}),
        ("via", {"via": "1.1 tulle"}),
    ],
)
async def test_routes_see_what_the_connection_manager_sets(name: str, options: dict[str, object]) -> None:
    request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"
    routes = (with_header(name, 201), direct("/", 200))
    async with sidecar(listener(chain(http(*routes, **options)))) as it:
        assert (await ask(it.port, request)).startswith(b"HTTP/1.1 201 ")


async def test_an_internal_request_speaks_for_the_mesh_but_not_for_tulle() -> None:
    options = {"use_remote_address": True, "internal_cidr_ranges": LOOPBACK}
    async with (
        backend() as app,
        sidecar(listener(chain(http(forward("/", "up"), **options))), cluster("up", app.port)) as it,
    ):
        await ask(
            it.port,
            b"GET / HTTP/1.1\r\nhost: a\r\nx-tulle-peer: root\r\nx-envoy-original-path: /o\r\nx-envoy-internal: no\r\n"
            b"x-envoy-upstream-rq-timeout-ms: 700\r\nconnection: close\r\n\r\n",
        )
        fields = app.all.split(b"\r\n")
        assert b"x-envoy-original-path: /o" in fields and b"x-envoy-internal: true" in fields
        assert b"x-envoy-expected-rq-timeout-ms: 700" in fields
        assert b"tulle" not in app.all and b"x-envoy-internal: no" not in fields
