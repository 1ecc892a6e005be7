"""The kinds of objects: their names, their models, and the one way to check a document against them.

:func:`validate` is pure and reports every problem it can know of; references between objects are not its
matter (``translate`` resolves them and reports conditions). Models are frozen, have snake_case attributes and read
the published camelCase names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from control_plane.api.kinds.core import Service
from control_plane.api.kinds.discovery import EndpointSlice
from control_plane.api.kinds.grpc_route import GRPCRoute
from control_plane.api.kinds.http_route import HTTPRoute
from control_plane.api.kinds.istio_networking import ServiceEntry, WorkloadEntry
from control_plane.api.kinds.istio_security import AuthorizationPolicy, PeerAuthentication
from control_plane.api.kinds.meta import ObjectMeta, Resource
from control_plane.api.kinds.problem import Problem, Reason, field_path
from control_plane.api.kinds.schema import problems_of

__all__ = [
    "KINDS",
    "AuthorizationPolicy",
    "EndpointSlice",
    "GRPCRoute",
    "HTTPRoute",
    "KindInfo",
    "ObjectMeta",
    "PeerAuthentication",
    "Problem",
    "Reason",
    "Resource",
    "Service",
    "ServiceEntry",
    "WorkloadEntry",
    "by_plural",
    "by_type",
    "field_path",
    "validate",
]


@dataclass(frozen=True, slots=True)
class KindInfo:
    """One kind. ``version`` is the one stored and listed; ``also_served`` name older ones of the same shape."""

    group: str
    version: str
    kind: str
    plural: str
    short_names: tuple[str, ...]
    model: type[Resource]
    also_served: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        """``v1`` for the core group, else ``<group>/<version>``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def singular(self) -> str:
        return self.kind.lower()


KINDS: tuple[KindInfo, ...] = (
    KindInfo("", "v1", "Service", "services", ("svc",), Service),
    KindInfo("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", (), EndpointSlice),
    KindInfo(
        "networking.istio.io",
        "v1",
        "WorkloadEntry",
        "workloadentries",
        ("we",),
        WorkloadEntry,
        ("v1beta1", "v1alpha3"),
    ),
    KindInfo(
        "networking.istio.io",
        "v1",
        "ServiceEntry",
        "serviceentries",
        ("se",),
        ServiceEntry,
        ("v1beta1", "v1alpha3"),
    ),
    KindInfo("gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes", (), HTTPRoute, ("v1beta1",)),
    KindInfo("gateway.networking.k8s.io", "v1", "GRPCRoute", "grpcroutes", (), GRPCRoute),
    KindInfo(
        "security.istio.io",
        "v1",
        "PeerAuthentication",
        "peerauthentications",
        ("pa",),
        PeerAuthentication,
        ("v1beta1",),
    ),
    KindInfo(
        "security.istio.io",
        "v1",
        "AuthorizationPolicy",
        "authorizationpolicies",
        ("ap",),
        AuthorizationPolicy,
        ("v1beta1",),
    ),
)

_BY_TYPE = {
    (f"{info.group}/{version}" if info.group else version, info.kind): info
    for info in KINDS
    for version in (info.version, *info.also_served)
}
_BY_PLURAL = {
    (info.group, version, info.plural): info
    for info in KINDS
    for version in (info.version, *info.also_served)
}


def by_type(api_version: str, kind: str) -> KindInfo | None:
    """The kind of a document's ``apiVersion`` and ``kind``, or ``None``."""
    return _BY_TYPE.get((api_version, kind))


def by_plural(group: str, version: str, plural: str) -> KindInfo | None:
    """The kind of a REST path's group ("" = core), version and plural, or ``None``."""
    return _BY_PLURAL.get((group, version, plural))


def validate(body: Any) -> tuple[Resource | None, list[Problem]]:
    """Check a whole document. Gives the model and no problems, or ``None`` and all problems.

    A ``null`` value counts as an absent field, as in the Kubernetes API.
    """
    if not isinstance(body, Mapping):
        return None, [
            Problem("", "must be an object with apiVersion, kind and metadata", Reason.TYPE_INVALID)
        ]
    problems = [
        Problem(field, "is required", Reason.REQUIRED)
        if body.get(field) is None
        else Problem(field, "must be a string", Reason.TYPE_INVALID)
        for field in ("apiVersion", "kind")
        if not isinstance(body.get(field), str)
    ]
    if problems:
        return None, problems
    info = by_type(body["apiVersion"], body["kind"])
    if info is None:
        served = ", ".join(f"{i.kind} ({i.api_version})" for i in KINDS)
        message = f"no kind {body['kind']!r} in {body['apiVersion']!r}; this mesh knows {served}"
        return None, [Problem("kind", message, Reason.NOT_SUPPORTED)]
    try:
        return info.model.model_validate(_without_nulls(body)), []
    except ValidationError as error:
        return None, problems_of(error)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_nulls(item) for item in value]
    return value
