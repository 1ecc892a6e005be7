"""The server rules of the xDS protocol, one by one, for both variants of a session."""

from __future__ import annotations

import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from envoy.service.discovery.v3 import discovery_pb2

from control_plane.xds.resource_types import CLUSTER, ENDPOINT, LISTENER, ROUTE, SECRET
from control_plane.xds.session import (
    Acked,
    DeltaSession,
    Nacked,
    Response,
    Send,
    SessionLimits,
    SotwSession,
    TooManySubscriptions,
)
from control_plane.xds.snapshot import Encoder, Snapshot

ENCODER = Encoder()
KEPT: list[Snapshot] = []


def snapshot(
    clusters: str = "", endpoints: str = "", listeners: str = "", routes: str = "", secrets: str = ""
) -> Snapshot:
    """Resources by name and content: ``"a1 b2"`` is ``a`` with content 1 and ``b`` with content 2."""
    made = {
        CLUSTER: {
            word[0]: cluster_pb2.Cluster(name=word[0], alt_stat_name=word[1:], type=cluster_pb2.Cluster.EDS)
            for word in clusters.split()
        },
        ENDPOINT: {},
        LISTENER: {w[0]: listener_pb2.Listener(name=w[0], stat_prefix=w[1:]) for w in listeners.split()},
        ROUTE: {
            w[0]: route_pb2.RouteConfiguration(name=w[0], internal_only_headers=[w[1:]])
            for w in routes.split()
        },
        SECRET: {word[0]: secret_pb2.Secret(name=word[0]) for word in secrets.split()},
    }
    for word in endpoints.split():
        message = endpoint_pb2.ClusterLoadAssignment(cluster_name=word[0])
        message.policy.overprovisioning_factor.value = int(word[1:])
        made[ENDPOINT][word[0]] = message
    KEPT.append(ENCODER.snapshot(len(KEPT) + 1, made))
    return KEPT[-1]


class Stream:
    """A session and what a test says to it; ``sent`` are responses in order, ``verdicts`` the rest."""

    def __init__(self, delta: bool, first: Snapshot | None, **limits: int) -> None:
        self.delta = delta
        self.session = (DeltaSession if delta else SotwSession)(SessionLimits(**limits))
        self.verdicts: list[Acked | Nacked] = []
        self.names: dict[str, list[str]] = {}
        if first is not None:
            self.update(first)

    def take(self, actions: list) -> list[Response]:
        self.verdicts += [one for one in actions if not isinstance(one, Send)]
        for one in actions:
            if isinstance(one, Send):
                kind = discovery_pb2.DeltaDiscoveryResponse if self.delta else discovery_pb2.DiscoveryResponse
                frame = kind.FromString(one.frame)
                assert (frame.type_url, frame.nonce) == (one.response.type_url, one.response.nonce)
                assert len(frame.resources) == len(one.response.resources)
        return [one.response for one in actions if isinstance(one, Send)]

    def update(self, new: Snapshot) -> list[Response]:
        return self.take(self.session.update(new))

    def ask(
        self, url: str, names: str = "", nonce: str = "", error: str = "", **more: object
    ) -> list[Response]:
        if self.delta:
            message = discovery_pb2.DeltaDiscoveryRequest(
                type_url=url, resource_names_subscribe=names.split(), response_nonce=nonce, **more
            )
        else:
            self.names[url] = names.split()
            message = discovery_pb2.DiscoveryRequest(
                type_url=url, resource_names=names.split(), response_nonce=nonce, **more
            )
        if error:
            message.error_detail.message = error
        return self.take(self.session.receive(message))

    def ack(self, response: Response, error: str = "") -> list[Response]:
        names = "" if self.delta else " ".join(self.names[response.type_url])
        return self.ask(response.type_url, names, response.nonce, error)


BOTH = pytest.mark.parametrize("delta", [True, False], ids=["delta", "sotw"])


def contents(responses: list[Response]) -> list[tuple[str, str, str]]:
    """Type, names sent, names removed: compact, for comparison."""
    short = {CLUSTER: "C", ENDPOINT: "E", LISTENER: "L", ROUTE: "R", SECRET: "S"}
    return [(short[one.type_url], "".join(sorted(one.resources)), "".join(one.removed)) for one in responses]


@BOTH
def test_nothing_is_sent_before_there_is_a_snapshot(delta: bool) -> None:
    stream = Stream(delta, None)
    assert stream.ask(CLUSTER) == []
    assert contents(stream.update(snapshot("a1"))) == [("C", "a", "")]


@BOTH
def test_the_first_wildcard_is_answered_even_by_nothing(delta: bool) -> None:
    assert contents(Stream(delta, snapshot()).ask(CLUSTER)) == [("C", "", "")]


@BOTH
def test_the_star_is_a_wildcard(delta: bool) -> None:
    assert contents(Stream(delta, snapshot("a1 b1")).ask(CLUSTER, "*")) == [("C", "ab", "")]


@BOTH
@pytest.mark.parametrize("url", [ENDPOINT, ROUTE, SECRET])
def test_no_names_mean_none_for_types_that_are_named(delta: bool, url: str) -> None:
    assert Stream(delta, snapshot("a1", "a1", "a1", "a1", "a1")).ask(url) == []


@BOTH
def test_names_that_exist_are_supplied_and_others_remembered(delta: bool) -> None:
    stream = Stream(delta, snapshot(routes="a1"))
    (first,) = stream.ask(ROUTE, "a b")
    assert contents([first]) == [("R", "a", "b" if delta else "")]
    stream.ack(first)
    assert contents(stream.update(snapshot(routes="a1 b1 c1"))) == [("R", "b", "")]


@BOTH
def test_an_unchanged_snapshot_sends_nothing(delta: bool) -> None:
    stream = Stream(delta, snapshot("a1"))
    stream.ack(stream.ask(CLUSTER)[0])
    assert stream.update(snapshot("a1")) == []


@BOTH
def test_changes_coalesce_while_an_answer_is_awaited(delta: bool) -> None:
    stream = Stream(delta, snapshot("a1 b1"))
    (first,) = stream.ask(CLUSTER)
    assert stream.update(snapshot("a2 b1")) == []
    assert stream.update(snapshot("a3 b1 c1")) == []
    (second,) = stream.ack(first)
    assert contents([second]) == [("C", "ac" if delta else "abc", "")]
    assert second.resources["a"] == KEPT[-1].of(CLUSTER).resources["a"].version
    assert second.nonce != first.nonce
    assert stream.ack(second) == []
    assert stream.verdicts == [Acked(first), Acked(second)]


@BOTH
def test_a_change_that_is_taken_back_is_not_sent(delta: bool) -> None:
    stream = Stream(delta, snapshot("a1"))
    (first,) = stream.ask(CLUSTER)
    stream.update(snapshot("a2"))
    stream.update(snapshot("a1"))
    assert stream.ack(first) == []


@BOTH
def test_a_refusal_is_the_presence_of_error_detail(delta: bool) -> None:
    stream = Stream(delta, snapshot("a1"))
    (first,) = stream.ask(CLUSTER)
    message = discovery_pb2.DeltaDiscoveryRequest() if delta else discovery_pb2.DiscoveryRequest()
    message.type_url, message.response_nonce = CLUSTER, first.nonce
    message.error_detail.SetInParent()
    assert stream.take(stream.session.receive(message)) == []
    assert stream.verdicts == [Nacked(first, 0, "")]


@BOTH
def test_what_was_refused_comes_again_with_the_next_change_only(delta: bool) -> None:
    stream = Stream(delta, snapshot(routes="a1 b1"))
    (first,) = stream.ask(ROUTE, "a b")
    assert stream.ack(first, "no") == [], "at once would loop"
    assert stream.update(snapshot(routes="a1 b1")) == [], "nothing has changed"
    (second,) = stream.update(snapshot(routes="a2 b1"))
    assert contents([second]) == [("R", "ab", "")]
    stream.ack(second)
    assert contents(stream.update(snapshot(routes="a3 b1"))) == [("R", "a", "")]


@BOTH
def test_a_refusal_of_what_has_changed_already_is_followed_at_once(delta: bool) -> None:
    stream = Stream(delta, snapshot(routes="a1 b1"))
    (first,) = stream.ask(ROUTE, "a b")
    stream.update(snapshot(routes="a2 b1"))
    assert contents(stream.ack(first, "no")) == [("R", "ab", "")]


def test_a_refused_removal_is_made_again() -> None:
    stream = Stream(True, snapshot(listeners="a1 b1"))
    stream.ack(stream.ask(LISTENER)[0])
    (removal,) = stream.update(snapshot(listeners="a1"))
    assert contents([removal]) == [("L", "", "b")]
    assert stream.ack(removal, "no") == []
    assert contents(stream.update(snapshot(listeners="a2"))) == [("L", "a", "b")]


@BOTH
def test_a_newly_subscribed_name_is_sent_though_it_was_before(delta: bool) -> None:
    stream = Stream(delta, snapshot(routes="a1 b1"))
    (first,) = stream.ask(ROUTE, "a b")
    stream.ack(first)
    if delta:
        stream.ask(ROUTE, resource_names_unsubscribe=["a"])
        (again,) = stream.ask(ROUTE, "a")
    else:
        stream.ask(ROUTE, "b", first.nonce)
        (again,) = stream.ask(ROUTE, "a b", first.nonce)
    assert contents([again]) == [("R", "a", "")]


def test_a_stale_request_of_state_of_the_world_is_not_answered() -> None:
    stream = Stream(False, snapshot(routes="a1 b1"))
    (first,) = stream.ask(ROUTE, "a")
    stream.ack(first)
    (second,) = stream.update(snapshot(routes="a2 b1"))
    assert stream.ask(ROUTE, "a b", first.nonce) == []
    assert stream.session.stale_requests == 1
    assert stream.session.types[ROUTE].in_flight == second
    assert contents(stream.ask(ROUTE, "a b", second.nonce)) == [("R", "b", "")]


def test_a_request_without_nonce_is_kept_while_a_response_is_on_its_way() -> None:
    """As gRPC's clients do, which subscribe to more before they have seen any response."""
    stream = Stream(False, snapshot(routes="a1 b1"))
    (first,) = stream.ask(ROUTE, "a")
    assert stream.ask(ROUTE, "a b") == []
    assert contents(stream.ask(ROUTE, "a b", first.nonce)) == [("R", "b", "")]


def test_a_nonce_of_an_older_stream_means_nothing() -> None:
    assert contents(Stream(False, snapshot("a1")).ask(CLUSTER, nonce="77")) == [("C", "a", "")]


def test_named_clusters_once_and_then_none() -> None:
    stream = Stream(False, snapshot("a1 b1"))
    (first,) = stream.ask(CLUSTER, "a")
    assert contents([first]) == [("C", "a", "")]
    assert stream.ask(CLUSTER, "", first.nonce) == [], "no names no longer mean all"
    assert stream.update(snapshot("a2 b2")) == []


def test_other_types_than_clusters_and_listeners_come_in_part() -> None:
    stream = Stream(False, snapshot("a1 b1", "a1 b1"))
    stream.ack(stream.ask(CLUSTER)[0])
    stream.ack(stream.ask(ENDPOINT, "a b")[0])
    assert contents(stream.update(snapshot("a1 b1", "a2 b1"))) == [("E", "a", "")]


# -- delta's own


def test_a_resubscription_is_answered() -> None:
    stream = Stream(True, snapshot(routes="a1"))
    stream.ack(stream.ask(ROUTE, "a")[0])
    assert contents(stream.ask(ROUTE, "a")) == [("R", "a", "")]


def test_subscriptions_are_honoured_whatever_the_nonce() -> None:
    stream = Stream(True, snapshot(routes="a1 b1"))
    (first,) = stream.ask(ROUTE, "a")
    assert stream.ask(ROUTE, "b", "nonsense") == []
    assert contents(stream.ack(first)) == [("R", "b", "")]


def test_unsubscribing_a_name_under_the_wildcard_is_answered() -> None:
    stream = Stream(True, snapshot("a1 b1"))
    stream.ack(stream.ask(CLUSTER, "* a z")[0])
    (answer,) = stream.ask(CLUSTER, resource_names_unsubscribe=["a", "z"])
    assert contents([answer]) == [("C", "a", "z")]


def test_unsubscribing_the_wildcard_leaves_the_names() -> None:
    stream = Stream(True, snapshot("a1 b1"))
    stream.ack(stream.ask(CLUSTER, "* a")[0])
    assert stream.ask(CLUSTER, resource_names_unsubscribe=["*"]) == []
    assert contents(stream.update(snapshot("a2 b2"))) == [("C", "a", "")]


def test_a_client_that_comes_back_gets_what_differs() -> None:
    before = snapshot("a1 b1 c1", routes="r1 s1")
    versions = {name: one.version for name, one in before.of(CLUSTER).resources.items()}
    stream = Stream(True, snapshot("a1 b2 d1"))
    (first,) = stream.ask(CLUSTER, initial_resource_versions=versions)
    assert contents([first]) == [("C", "bd", "")]
    assert contents(stream.ack(first)) == [("C", "", "c")]


def test_a_client_that_comes_back_unchanged_gets_an_empty_answer() -> None:
    before = snapshot("a1", routes="r1")
    stream = Stream(True, before)
    versions = {name: one.version for name, one in before.of(CLUSTER).resources.items()}
    assert contents(stream.ask(CLUSTER, "*", initial_resource_versions=versions)) == [("C", "", "")]
    versions = {name: one.version for name, one in before.of(ROUTE).resources.items()}
    assert stream.ask(ROUTE, "r", initial_resource_versions=versions) == []


def test_large_responses_are_split() -> None:
    stream = Stream(True, snapshot("a1 b1 c1 d1"), max_response_bytes=250)
    seen, waiting = [], stream.ask(CLUSTER)
    while waiting:
        (response,) = waiting
        seen.append("".join(response.resources))
        waiting = stream.ack(response)
    assert "".join(seen) == "abcd"
    assert len(seen) == 2


# -- order


def connected(delta: bool, first: Snapshot) -> Stream:
    """A client that has everything of ``first``."""
    stream = Stream(delta, first)
    for url in (CLUSTER, ENDPOINT, LISTENER, ROUTE):
        names = "" if url in (CLUSTER, LISTENER) else " ".join(first.of(url).resources)
        for response in stream.ask(url, names):
            assert stream.ack(response) == []
    return stream


@BOTH
def test_make_before_break(delta: bool) -> None:
    stream = connected(delta, snapshot("a1", "a1", "l1", "r1"))
    (clusters,) = stream.update(snapshot("b1", "b1", "l2", "r2"))
    assert contents([clusters]) == [("C", "b" if delta else "ab", "")]
    stream.names[ENDPOINT] = ["a", "b"]
    (endpoints,) = stream.ask(ENDPOINT, "b" if delta else "a b", "" if delta else "2")
    assert contents([endpoints]) == [("E", "b", "")]
    assert stream.ack(clusters) == [], "the new cluster's endpoints are not accepted yet"
    (listeners,) = stream.ack(endpoints)
    assert contents([listeners]) == [("L", "l", "")]
    (routes,) = stream.ack(listeners)
    assert contents([routes]) == [("R", "r", "")]
    (removal,) = stream.ack(routes)
    assert contents([removal]) == [("C", "" if delta else "b", "a" if delta else "")]
    assert contents(stream.ack(removal)) == ([("E", "", "a")] if delta else [])


@BOTH
def test_clusters_stay_while_the_routes_that_replace_them_are_refused(delta: bool) -> None:
    stream = connected(delta, snapshot("a1 b1", "a1 b1", "l1", "r1"))
    (routes,) = stream.update(snapshot("b1", "b1", "l1", "r2"))
    assert contents([routes]) == [("R", "r", "")]
    assert stream.ack(routes, "no") == []
    (routes,) = stream.update(snapshot("b1", "b1", "l1", "r3"))
    (removal,) = stream.ack(routes)
    assert removal.type_url == CLUSTER


@BOTH
def test_a_changed_cluster_gets_its_assignment_again(delta: bool) -> None:
    stream = connected(delta, snapshot("a1 b1", "a1 b1"))
    sent = stream.update(snapshot("a2 b1", "a1 b1"))
    assert contents(sent) == [("C", "a" if delta else "ab", ""), ("E", "a", "")]


def test_an_assignment_that_is_known_is_sent_again_to_a_cluster_that_changed_meanwhile() -> None:
    before = snapshot("a1", "a1")
    stream = Stream(True, snapshot("a2", "a1"))
    for url in (CLUSTER, ENDPOINT):
        versions = {name: one.version for name, one in before.of(url).resources.items()}
        names = "a" if url == ENDPOINT else ""
        assert len(stream.ask(url, names, initial_resource_versions=versions)) == 1


def test_an_assignment_stays_for_as_long_as_its_cluster() -> None:
    stream = Stream(True, snapshot("a1", "a1"))
    (clusters,) = stream.ask(CLUSTER)
    stream.update(snapshot())
    (late,) = stream.ask(ENDPOINT, "a")
    assert contents([late]) == [("E", "a", "")], "the client warms a cluster that is to go"
    stream.ack(late)
    assert contents(stream.ack(clusters)) == [("C", "", "a")]


@BOTH
def test_a_hold_is_released(delta: bool) -> None:
    stream = connected(delta, snapshot("a1", "a1", "l1", "r1"))
    (clusters,) = stream.update(snapshot("a1 b1", "a1 b1", "l2", "r1"))
    assert stream.ack(clusters) == []
    assert stream.session.holding, "the client has yet to ask for the endpoints of b"
    assert contents(stream.take(stream.session.release())) == [("L", "l", "")]
    assert not stream.session.holding


@BOTH
def test_endpoints_that_change_all_the_time_hold_up_no_routes(delta: bool) -> None:
    stream = connected(delta, snapshot("a1", "a1", "l1", "r1"))
    (endpoints,) = stream.update(snapshot("a1", "a2", "l1", "r1"))
    assert contents(stream.update(snapshot("a1", "a3", "l1", "r2"))) == [("R", "r", "")]
    assert contents(stream.ack(endpoints)) == [("E", "a", "")]


# -- limits


@BOTH
def test_subscriptions_are_limited_over_all_types(delta: bool) -> None:
    stream = Stream(delta, snapshot(), max_subscriptions=3)
    stream.ask(ROUTE, "a b")
    stream.ask(ENDPOINT, "a")
    with pytest.raises(TooManySubscriptions, match="more than 3 resource names"):
        stream.ask(SECRET, "a")


def test_initial_versions_are_limited() -> None:
    stream = Stream(True, snapshot(), max_subscriptions=3)
    with pytest.raises(TooManySubscriptions):
        stream.ask(CLUSTER, initial_resource_versions=dict.fromkeys("abcd", "1"))


@BOTH
def test_types_are_limited(delta: bool) -> None:
    stream = Stream(delta, snapshot(), max_types=1)
    stream.ask(ROUTE, "a")
    with pytest.raises(TooManySubscriptions, match="more than 1 resource types"):
        stream.ask(SECRET, "a")


def test_errors_are_kept_within_bounds() -> None:
    stream = Stream(True, snapshot("a1"))
    stream.ack(stream.ask(CLUSTER)[0], "x" * 100_000)
    (verdict,) = stream.verdicts
    assert len(verdict.error) == 4096
