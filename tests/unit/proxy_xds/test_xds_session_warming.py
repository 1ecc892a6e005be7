"""What the delta client does while something that was asked for has not come, or is taken away."""

from __future__ import annotations

from typing import Any

import pytest
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2

from proxy.model.config import ConfigError
from proxy.model.route import RouteConfiguration
from proxy.runtime.compile import CompileEnv
from proxy.runtime.hub import Hub
from proxy.xds.decode.resources import CLUSTER, KINDS, LISTENER, ROUTE, SECRET
from proxy.xds.session import DeltaSession
from tests.support.xds_messages import Steps, change, message

REGEX: Steps = (
    *("filter_chains", 0, "filters", 1, "typed_config", "http_filters", 0, "typed_config", "rules"),
    *("policies", "p", "permissions", 0, "and_rules", "rules", 0, "url_path", "path"),
)
ROUTES = {"name": "80", "virtual_hosts": []}
ROOTS = {"name": "ROOTCA", "validation_context": {"trusted_ca": {"inline_string": "roots"}}}


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def hub() -> Hub:
    return Hub(CompileEnv())


@pytest.fixture
def session(hub: Hub, clock: Clock) -> DeltaSession:
    made = DeltaSession(base_pb2.Node(id="sidecar"), hub.apply, check=hub.check, clock=clock)
    made.connected()
    made.received(response(CLUSTER, static("c")))
    return made


def static(name: str) -> Any:
    return message(CLUSTER, {"name": name, "type": "STATIC", "load_assignment": {"cluster_name": name}})


def response(url: str, *messages: Any, removed: tuple[str, ...] = ()) -> Any:
    made = discovery_pb2.DeltaDiscoveryResponse(type_url=url, nonce="n", removed_resources=removed)
    for one in messages:
        resource = made.resources.add(name=getattr(one, KINDS[url].name_field), version="1")
        resource.resource.Pack(one)
    return made


def test_a_listener_that_waits_for_its_routes_is_tried_before_it_is_acked(
    session: DeltaSession, hub: Hub
) -> None:
    listener = message(LISTENER)
    change(listener, REGEX, lambda path: (path.ClearField("prefix"), setattr(path.safe_regex, "regex", "(")))
    (nack,) = session.received(response(LISTENER, listener))
    assert nack.type_url == LISTENER
    assert nack.error_detail.message.startswith("listener[l].filter_chains[0].filters[1]")
    assert not session.held[LISTENER]
    (ack,) = session.received(response(CLUSTER, static("d")))
    assert not ack.HasField("error_detail")
    assert set(hub.current.clusters) == {"c", "d"}


def test_routes_that_do_not_come_are_taken_not_to_exist(
    session: DeltaSession, hub: Hub, clock: Clock
) -> None:
    session.received(response(LISTENER, message(LISTENER)))
    assert hub.current.warming == {"l"}
    assert session.deadline() == 115.0
    clock.now = 114.9
    assert session.expire() == []
    assert not session.complete()
    clock.now = 115.0
    assert set(session.expire()) == {"secret[ROOTCA]", "route_config[80]"}
    assert set(hub.current.listeners) == {"l"}
    assert hub.current.config.routes == {"80": RouteConfiguration("80", ())}
    assert session.complete()
    assert session.deadline() is None
    session.received(response(ROUTE, message(ROUTE, {**ROUTES, "ignore_port_in_host_matching": True})))
    assert hub.current.config.routes["80"].ignore_port_in_host_matching


def test_nothing_expires_without_a_stream(session: DeltaSession, clock: Clock) -> None:
    session.received(response(LISTENER, message(LISTENER)))
    session.disconnected()
    clock.now = 1000.0
    assert session.deadline() is None
    assert session.expire() == []
    session.connected()
    assert session.deadline() == 1015.0


def test_what_never_existed_is_known_at_once(session: DeltaSession, hub: Hub) -> None:
    session.received(response(LISTENER, message(LISTENER)))
    session.received(response(ROUTE, removed=("80",)))
    assert set(hub.current.listeners) == {"l"}
    assert not session.complete()
    session.received(response(SECRET, removed=("ROOTCA",)))
    assert session.complete()


def test_routes_in_use_outlive_their_removal(session: DeltaSession, hub: Hub) -> None:
    session.received(response(LISTENER, message(LISTENER)))
    session.received(response(ROUTE, message(ROUTE, ROUTES)))
    session.received(response(SECRET, message(SECRET, ROOTS)))
    assert session.complete()
    (ack,) = session.received(response(ROUTE, removed=("80",)))
    assert not ack.HasField("error_detail")
    assert set(session.held[ROUTE]) == {"80"}
    assert hub.current.warming == frozenset()
    assert session.complete()
    _, *unsubscribed = session.received(response(LISTENER, removed=("l",)))
    assert {name for r in unsubscribed for name in r.resource_names_unsubscribe} == {"80", "ROOTCA"}
    assert not session.held[ROUTE]


def test_waiting_ends_once_even_if_the_rest_cannot_be_used(clock: Clock) -> None:
    refuse = False

    def apply(config: object) -> None:
        if refuse:
            raise ConfigError("listener[l]", "conflicts")

    session = DeltaSession(base_pb2.Node(), apply, clock=clock)
    session.connected()
    session.received(response(CLUSTER))
    session.received(response(LISTENER, message(LISTENER)))
    refuse = True
    clock.now = 200.0
    with pytest.raises(ConfigError, match="conflicts"):
        session.expire()
    assert session.deadline() is None
    assert not session.complete()
