"""The small pure parts of the API: body limits, object forms, selectors, discovery, OpenAPI, metrics."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.api.discovery import aggregated, group_document, groups, resource_list
from control_plane.api.errors import ApiError, invalid, status_body
from control_plane.api.kinds import KINDS, Problem, Reason, by_plural
from control_plane.api.limits import parse_json
from control_plane.api.objects import merge_patch, rfc3339, to_shown
from control_plane.api.openapi import document, index
from control_plane.api.selectors import selector
from control_plane.metrics import Metrics
from control_plane.store.base import Key, Stored


class TestBodies:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (b"", "not valid JSON"),
            (b"[]", "must be a JSON object"),
            (b'{"a":1,"a":2}', "'a' appears twice"),
            (b'{"a":NaN}', "NaN is not JSON"),
            (b'{"a":-Infinity}', "Infinity is not JSON"),
            (b'{"a":"\xff"}', "not valid JSON"),
            (b'{"a":' + b"9" * 5000 + b"}", "not valid JSON"),
            (b"[" * 500_000, "more than 8 levels"),
            (b'{"a":' * 9 + b"1" + b"}" * 9, "more than 8 levels"),
        ],
    )
    def test_refused(self, text: bytes, message: str) -> None:
        with pytest.raises(ApiError, match=message) as refused:
            parse_json(text, 8)
        assert refused.value.code == 400

    def test_the_deepest_allowed(self) -> None:
        assert parse_json(b'{"a":' * 8 + b"1" + b"}" * 8, 8)


class TestMergePatch:
    @pytest.mark.parametrize(
        ("target", "patch", "result"),
        # RFC 7396, appendix A.
        [
            ({"a": "b"}, {"a": "c"}, {"a": "c"}),
            ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
            ({"a": "b"}, {"a": None}, {}),
            ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
            ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
            ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
            ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
            ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
            (["a", "b"], ["c", "d"], ["c", "d"]),
            ({"a": "b"}, ["c"], ["c"]),
            ({"a": "foo"}, None, None),
            ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
            ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
            ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
        ],
    )
    def test_rfc_7396(self, target: Any, patch: Any, result: Any) -> None:
        assert merge_patch(target, patch) == result

    @given(st.dictionaries(st.text(), st.dictionaries(st.text(), st.integers())))
    def test_a_document_patched_with_itself_stays(self, value: Any) -> None:
        assert merge_patch(value, value) == value


def test_an_object_is_shown_with_its_revision_version_and_status() -> None:
    info = by_plural("gateway.networking.k8s.io", "v1beta1", "httproutes")
    assert info is not None
    body = {"apiVersion": "gateway.networking.k8s.io/v1", "metadata": {"name": "a"}, "spec": {}}
    stored = Stored(Key(info.group, info.plural, "default", "a"), body, 12, 3, 4)
    shown = to_shown(info, stored, {"conditions": []}, "v1beta1")
    assert shown["apiVersion"] == "gateway.networking.k8s.io/v1beta1"
    assert (shown["metadata"]["resourceVersion"], shown["metadata"]["generation"]) == ("12", 4)
    assert shown["status"] == {"conditions": []}
    assert shown["metadata"]["uid"] == to_shown(info, stored, {})["metadata"]["uid"]
    assert "status" not in to_shown(info, stored, {})
    assert body["metadata"] == {"name": "a"}


def test_times_are_utc_whole_seconds() -> None:
    assert rfc3339(0.999) == "1970-01-01T00:00:00Z"


class TestSelectors:
    @pytest.mark.parametrize(
        ("labels", "fields", "names"),
        [
            ("", "", "abc"),
            ("app=web", "", "ab"),
            ("app==web,tier=front", "", "a"),
            ("app!=web", "", "c"),
            ("tier", "", "ab"),
            ("!tier", "", "c"),
            ("tier in (front, back)", "", "ab"),
            ("app notin (web),!tier", "", "c"),
            ("tier in (front),app=web", "", "a"),
            ("", "metadata.name=b", "b"),
            ("app=web", "metadata.name!=b", "a"),
            ("", "metadata.namespace=other", ""),
        ],
    )
    def test_selecting(self, labels: str, fields: str, names: str) -> None:
        have: dict[str, Any] = {
            "a": {"app": "web", "tier": "front"},
            "b": {"app": "web", "tier": "back"},
            "c": None,
        }
        selects = selector(labels, fields)
        found = [
            name
            for name, own in have.items()
            if selects(Stored(Key("", "services", "default", name), {"metadata": {"labels": own}}, 1, 1, 1))
        ]
        assert found == list(names)

    @pytest.mark.parametrize(
        ("labels", "fields"), [("a=b=c", ""), ("a in b", ""), ("", "spec.x=1"), ("", "a")]
    )
    def test_what_cannot_be_read_is_refused(self, labels: str, fields: str) -> None:
        with pytest.raises(ApiError) as refused:
            selector(labels, fields)
        assert refused.value.code == 400


class TestStatus:
    def test_a_failure_has_every_cause(self) -> None:
        error = invalid(
            "HTTPRoute 'x'", [Problem("a", "b", Reason.INVALID), Problem("c", "d", Reason.REQUIRED)]
        )
        body = error.body()
        assert (body["status"], body["reason"], body["code"]) == ("Failure", "Invalid", 422)
        assert body["details"]["causes"] == [
            {"field": "a", "message": "b", "reason": "FieldValueInvalid"},
            {"field": "c", "message": "d", "reason": "FieldValueRequired"},
        ]
        assert body["message"] == "HTTPRoute 'x' is invalid: a: b; c: d"

    def test_a_success_has_no_reason(self) -> None:
        assert "reason" not in status_body(200, "deleted")


class TestDiscovery:
    def test_every_kind_is_listed_in_every_served_version(self) -> None:
        for info in KINDS:
            for version in (info.version, *info.also_served):
                listed = resource_list(info.group, version)["resources"]
                (found,) = (entry for entry in listed if entry["name"] == info.plural)
                assert (found["kind"], found["namespaced"]) == (info.kind, True)
                assert "watch" in found["verbs"]

    def test_the_preferred_version_is_the_stored_one(self) -> None:
        for info in KINDS:
            if info.group:
                assert group_document(info.group)["preferredVersion"]["version"] == info.version
        assert "" not in groups()

    def test_the_aggregated_form_has_the_same_resources(self) -> None:
        for item in aggregated(["", *groups()])["items"]:
            group = item["metadata"].get("name", "")
            for version in item["versions"]:
                names = [resource["resource"] for resource in version["resources"]]
                listed = resource_list(group, version["version"])["resources"]
                assert names == [entry["name"] for entry in listed]

    def test_an_unknown_version_is_not_found(self) -> None:
        with pytest.raises(ApiError, match="no API version 'apps/v1'"):
            resource_list("apps", "v1")


@pytest.mark.parametrize("root", index()["paths"])
def test_openapi_describes_the_kinds_and_resolves_every_reference(root: str) -> None:
    group, version = (
        root.rpartition("/")[0].removeprefix("apis/").removeprefix("api"),
        root.rpartition("/")[2],
    )
    found = document(group, version)
    assert found is not None
    kinds = {info for info in KINDS if info.group == group and version in (info.version, *info.also_served)}
    schemas = found["components"]["schemas"]
    references: list[str] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            references.extend(v for k, v in value.items() if k == "$ref" and isinstance(v, str))
            for child in value.values():
                walk(child)
        elif isinstance(value, list):
            for child in value:
                walk(child)

    walk(found)
    assert references
    assert {reference.removeprefix("#/components/schemas/") for reference in references} <= schemas.keys()
    for info in kinds:
        expected = {"group": group, "version": version, "kind": info.kind}
        assert schemas[info.kind]["x-kubernetes-group-version-kind"] == [expected]
        item = found["paths"][f"/{root}/namespaces/{{namespace}}/{info.plural}/{{name}}"]
        assert item["patch"]["x-kubernetes-group-version-kind"] == expected
        # By this kubectl knows that the server validates fields.
        assert "fieldValidation" in [parameter["name"] for parameter in item["patch"]["parameters"]]


def test_openapi_has_every_kind_and_only_what_is_served() -> None:
    assert {info.group for info in KINDS} == {
        root.rpartition("/")[0].removeprefix("apis/").removeprefix("api") for root in index()["paths"]
    }
    assert document("apps", "v1") is None
    core = document("", "v1")
    assert core is not None
    assert "clusterIP" in core["components"]["schemas"]["ServiceSpec"]["properties"]


class TestMetrics:
    def test_the_text_format(self) -> None:
        metrics = Metrics()
        counter = metrics.counter("b_total", "Things.", ["limit"])
        counter.inc('a"\n\\')
        counter.inc("z", by=2)
        metrics.gauge("a", "A level.", lambda: 1.5)
        metrics.counter("c_total", "None yet.")
        assert metrics.render() == (
            "# HELP a A level.\n# TYPE a gauge\na 1.5\n"
            "# HELP b_total Things.\n# TYPE b_total counter\n"
            'b_total{limit="a\\"\\n\\\\"} 1\nb_total{limit="z"} 2\n'
            "# HELP c_total None yet.\n# TYPE c_total counter\nc_total 0\n"
        )

    def test_misuse_is_an_error(self) -> None:
        metrics = Metrics()
        counter = metrics.counter("a", "A.", ["x"])
        with pytest.raises(ValueError, match="twice"):
            metrics.counter("a", "A.")
        with pytest.raises(ValueError, match="need 1 values"):
            counter.inc()
