from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from control_plane.api.admission import Action, Apply, Refusal, Remove, Verdict, admit
from control_plane.store.base import Delete, Key, Put, Stored

NOW = 1_700_000_000.0
SERVICE = Key("", "services", "default", "web")
ROUTE = Key("gateway.networking.k8s.io", "httproutes", "default", "web")


def service(name: str = "web", namespace: str | None = "default", **spec: Any) -> dict[str, Any]:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"ports": [{"name": "http", "port": 80}], **spec},
    }


def route(name: str = "web", path: str = "/") -> dict[str, Any]:
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "web", "port": 80}],
            "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": path}}]}],
        },
    }


def judge(
    requests: Sequence[Apply | Remove], stored: Sequence[Stored] = (), cidr: str = "10.96.0.0/16"
) -> Verdict:
    uids = (f"uid-{n}" for n in itertools.count(1))
    return admit(
        requests,
        {item.key: item for item in stored},
        service_cidr=ipaddress.ip_network(cidr),
        now=NOW,
        new_uid=lambda: next(uids),
    )


def kept(verdict: Verdict, revision: int) -> list[Stored]:
    """What the store holds after ``verdict``'s puts."""
    puts = [change for change in verdict.changes if isinstance(change, Put)]
    return [Stored(put.key, put.body, revision, revision, 1) for put in puts]


def causes(verdict: Verdict) -> list[tuple[str, str]]:
    return [(problem.field, str(problem.reason)) for problem in verdict.problems]


def body_of(verdict: Verdict, key: Key) -> Mapping[str, Any]:
    (found,) = (change for change in verdict.changes if change.key == key)
    assert isinstance(found, Put)
    return found.body


def test_a_new_object_gets_the_servers_metadata() -> None:
    given = service(namespace=None)
    given["metadata"] |= {"uid": "mine", "resourceVersion": "0", "generation": 9, "labels": {"a": "b"}}
    given["status"] = {"x": 1}
    verdict = judge([Apply(given)])
    assert not verdict.problems
    body = body_of(verdict, SERVICE)
    assert body["metadata"] == {
        "name": "web",
        "namespace": "default",
        "labels": {"a": "b"},
        "uid": "uid-1",
        "creationTimestamp": "2023-11-14T22:13:20Z",
    }
    assert "status" not in body
    assert [change.expect for change in verdict.changes] == [0]
    assert [outcome.action for outcome in verdict.outcomes] == [Action.CREATED]


def test_applying_the_same_again_changes_nothing() -> None:
    stored = kept(judge([Apply(service()), Apply(route(), at="objects[1]")]), 7)
    nulls = service()
    nulls["spec"]["sessionAffinity"] = None
    verdict = judge([Apply(nulls, "objects[0]"), Apply(route(), "objects[1]")], stored)
    assert [outcome.action for outcome in verdict.outcomes] == [Action.UNCHANGED] * 2
    assert [(change.key, change.expect) for change in verdict.changes] == [(SERVICE, 7), (ROUTE, 7)]
    assert [body_of(verdict, item.key) for item in stored] == [item.body for item in stored]


def test_an_update_keeps_uid_and_address() -> None:
    first = judge([Apply(service())])
    (stored,) = kept(first, 3)
    verdict = judge([Apply(service(selector={"app": "web"}))], [stored])
    (outcome,) = verdict.outcomes
    assert outcome.action is Action.CONFIGURED
    for path in (("metadata", "uid"), ("metadata", "creationTimestamp"), ("spec", "clusterIP")):
        assert outcome.body[path[0]][path[1]] == stored.body[path[0]][path[1]]


def test_older_versions_are_stored_as_the_preferred_one() -> None:
    older = route() | {"apiVersion": "gateway.networking.k8s.io/v1beta1"}
    assert body_of(judge([Apply(older)]), ROUTE)["apiVersion"] == "gateway.networking.k8s.io/v1"


def test_every_problem_of_every_object_is_told_in_order() -> None:
    broken = route(path="nope")
    broken["spec"]["bogus"] = 1
    verdict = judge(
        [
            Apply(service(clusterIP="192.0.2.1"), "objects[0]"),
            Apply({"apiVersion": "v1", "kind": "Sevrice", "metadata": {"name": "x"}}, "objects[1]"),
            Apply(broken, "objects[2]"),
            Apply([], "objects[3]"),
            Apply(route("fine"), "objects[4]"),
            Remove({"kind": "Service"}, "delete[0]"),
        ]
    )
    assert sorted(causes(verdict)) == sorted(
        [
            ("objects[0].spec.clusterIP", "FieldValueInvalid"),
            ("objects[1].kind", "FieldValueNotSupported"),
            ("objects[2].spec.rules[0].matches[0].path.value", "FieldValueInvalid"),
            ("objects[2].spec.bogus", "FieldValueInvalid"),
            ("objects[3]", "FieldValueTypeInvalid"),
            ("delete[0].apiVersion", "FieldValueRequired"),
            ("delete[0].metadata.name", "FieldValueRequired"),
        ]
    )
    places = [field.split(".")[0] for field, _ in causes(verdict)]
    assert places == sorted(
        places, key=["objects[0]", "objects[1]", "objects[2]", "objects[3]", "delete[0]"].index
    )
    assert verdict.changes == ()
    assert verdict.refusal is Refusal.INVALID


@pytest.mark.parametrize(
    ("api_version", "kind", "hint"),
    [
        ("v1", "Services", "kind Service with apiVersion v1"),
        ("gateway.networking.k8s.io/v1alpha2", "HTTPRoute", "apiVersion gateway.networking.k8s.io/v1"),
        ("gateway.networking.k8s.io/v1", "HttpRoute", "kind HTTPRoute"),
        ("security.istio.io/v1", "AuthorisationPolicy", "kind AuthorizationPolicy"),
    ],
)
def test_an_unknown_kind_comes_with_the_one_that_was_meant(api_version: str, kind: str, hint: str) -> None:
    document = {"apiVersion": api_version, "kind": kind, "metadata": {"name": "x"}}
    for request in (Apply(document), Remove(document)):
        (problem,) = judge([request]).problems
        assert problem.field == "kind"
        assert "did you mean" in problem.message
        assert hint in problem.message


def test_a_kind_like_no_other_is_answered_with_all() -> None:
    (problem,) = judge([Apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {}})]).problems
    assert "HTTPRoute" in problem.message


def test_one_object_twice_is_refused_with_the_place_of_the_first() -> None:
    verdict = judge([Apply(service(), "objects[0]"), Apply(service(), "objects[1]")])
    assert causes(verdict) == [("objects[1].metadata.name", "FieldValueDuplicate")]
    assert "objects[0]" in verdict.problems[0].message
    both = judge(
        [Apply(service(), "objects[0]"), Remove(service(), "delete[0]")], kept(judge([Apply(service())]), 1)
    )
    assert len(both.problems) == 1


STORED = kept(judge([Apply(service())]), 5)


@pytest.mark.parametrize(
    ("request_", "stored", "refusal", "field"),
    [
        (Apply(service(), must_exist=False), STORED, Refusal.CONFLICT, "metadata.name"),
        (Apply(service(), must_exist=True), [], Refusal.MISSING, "metadata.name"),
        (Apply(service(), expect=4), STORED, Refusal.CONFLICT, "metadata.resourceVersion"),
        (Apply(service(), expect=4), [], Refusal.CONFLICT, "metadata.resourceVersion"),
        (Remove(service()), [], Refusal.MISSING, "metadata.name"),
        (Remove(service(), expect=4), STORED, Refusal.CONFLICT, "metadata.resourceVersion"),
    ],
    ids=["create-existing", "replace-absent", "stale", "expect-absent", "delete-absent", "delete-stale"],
)
def test_preconditions(
    request_: Apply | Remove, stored: Sequence[Stored], refusal: Refusal, field: str
) -> None:
    verdict = judge([request_], stored)
    assert (verdict.refusal, [problem.field for problem in verdict.problems]) == (refusal, [field])


@pytest.mark.parametrize(
    ("metadata", "refusal", "field"),
    [
        ({"resourceVersion": "4"}, Refusal.CONFLICT, "metadata.resourceVersion"),
        ({"resourceVersion": "x"}, Refusal.INVALID, "metadata.resourceVersion"),
        ({"resourceVersion": "٤"}, Refusal.INVALID, "metadata.resourceVersion"),
        ({"uid": "another"}, Refusal.CONFLICT, "metadata.uid"),
    ],
)
def test_the_bodys_own_preconditions(metadata: Mapping[str, str], refusal: Refusal, field: str) -> None:
    given = service()
    given["metadata"] |= metadata
    verdict = judge([Apply(given)], STORED)
    assert (verdict.refusal, [problem.field for problem in verdict.problems]) == (refusal, [field])


def test_the_right_revision_and_uid_are_taken() -> None:
    given = service(selector={"a": "b"})
    given["metadata"] |= {"resourceVersion": "5", "uid": STORED[0].body["metadata"]["uid"]}
    assert judge([Apply(given)], STORED).changes[0].expect == 5


def test_deleting() -> None:
    verdict = judge([Remove(service())], STORED)
    assert list(verdict.changes) == [Delete(SERVICE, expect=5)]
    assert verdict.outcomes[0].action is Action.DELETED
    absent = judge([Remove(service("other"), missing_ok=True)], STORED)
    assert (absent.changes, absent.outcomes[0].action) == ([], Action.ABSENT)
