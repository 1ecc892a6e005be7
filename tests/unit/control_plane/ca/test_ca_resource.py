from __future__ import annotations

from datetime import timedelta

import pytest

from control_plane.ca import resource
from control_plane.ca.resource import InvalidResource
from control_plane.ca.tokens import TokenRequest


def test_the_smallest_token() -> None:
    assert resource.parse({"spec": {"serviceAccount": "web"}}, "default") == TokenRequest(
        "default", "web", timedelta(hours=1), 1
    )


def test_a_whole_token() -> None:
    body = {
        "apiVersion": "mesh.tulle.io/v1",
        "kind": "JoinToken",
        "metadata": {"namespace": "shop", "labels": {"a": "b"}},
        "spec": {"serviceAccount": "web.front", "ttl": "1h30m", "uses": 3},
    }
    assert resource.parse(body, "shop") == TokenRequest("shop", "web.front", timedelta(minutes=90), 3)


@pytest.mark.parametrize(
    ("body", "namespace", "fields"),
    [
        ([], "default", [""]),
        ({}, "default", ["spec"]),
        ({"spec": []}, "default", ["spec"]),
        ({"spec": {}}, "default", ["spec.serviceAccount"]),
        ({"spec": {"serviceAccount": 5}}, "default", ["spec.serviceAccount"]),
        ({"spec": {"serviceAccount": "a/b"}}, "default", ["spec.serviceAccount"]),
        ({"spec": {"serviceAccount": "Web"}}, "default", ["spec.serviceAccount"]),
        ({"spec": {"serviceAccount": "a" * 254}}, "default", ["spec.serviceAccount"]),
        ({"spec": {"serviceAccount": "web", "ttl": "0s"}}, "default", ["spec.ttl"]),
        ({"spec": {"serviceAccount": "web", "ttl": "721h"}}, "default", ["spec.ttl"]),
        ({"spec": {"serviceAccount": "web", "ttl": "soon"}}, "default", ["spec.ttl"]),
        ({"spec": {"serviceAccount": "web", "ttl": 60}}, "default", ["spec.ttl"]),
        ({"spec": {"serviceAccount": "web", "uses": 0}}, "default", ["spec.uses"]),
        ({"spec": {"serviceAccount": "web", "uses": True}}, "default", ["spec.uses"]),
        ({"spec": {"serviceAccount": "web", "uses": 1001}}, "default", ["spec.uses"]),
        ({"spec": {"serviceAccount": "web"}}, "No/Namespace", ["metadata.namespace"]),
        ({"spec": {"serviceAccount": "web"}, "metadata": {"namespace": "x"}}, "y", ["metadata.namespace"]),
        ({"spec": {"serviceAccount": "web"}, "metadata": {"name": "x"}}, "y", ["metadata.name"]),
        ({"spec": {"serviceAccount": "web"}, "metadata": 1}, "y", ["metadata"]),
        (
            {"apiVersion": "v1", "kind": "Token", "sepc": 1, "spec": {"ttl": "x", "uses": -1, "use": 1}},
            "default",
            ["sepc", "apiVersion", "kind", "spec.use", "spec.serviceAccount", "spec.ttl", "spec.uses"],
        ),
    ],
)
def test_every_problem_is_reported_with_its_field(body: object, namespace: str, fields: list[str]) -> None:
    with pytest.raises(InvalidResource) as caught:
        resource.parse(body, namespace)
    assert [cause.field for cause in caught.value.causes] == fields
    assert all(cause.message and cause.reason for cause in caught.value.causes)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1h", timedelta(hours=1)),
        ("90m", timedelta(minutes=90)),
        ("1h2m3s4ms", timedelta(hours=1, minutes=2, seconds=3, milliseconds=4)),
        ("15ms", timedelta(milliseconds=15)),
        ("0s", timedelta(0)),
        ("", None),
        ("1", None),
        ("1d", None),
        ("-1h", None),
        ("1.5h", None),
        ("1h ", None),
        ("1h1h1h1h1h", None),
        (None, None),
    ],
)
def test_durations(text: object, expected: timedelta | None) -> None:
    assert resource.duration(text) == expected
