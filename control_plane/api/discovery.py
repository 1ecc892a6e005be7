"""What the API serves, told as Kubernetes does: ``/api``, ``/apis``, resource lists, and their aggregated form.

Source: Kubernetes API concepts, "API discovery"; the aggregated form is ``apidiscovery.k8s.io/v2``. Pure but for the
handlers' shells.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from control_plane.api.context import answer
from control_plane.api.errors import ApiError
from control_plane.api.kinds import KINDS

_ALL_VERBS = ("create", "delete", "get", "list", "patch", "update", "watch")
_AGGREGATED = "as=APIGroupDiscoveryList"


@dataclass(frozen=True, slots=True)
class ServedResource:
    group: str
    version: str
    kind: str
    plural: str
    short_names: tuple[str, ...] = ()
    verbs: tuple[str, ...] = _ALL_VERBS
    namespaced: bool = True


SERVED: Sequence[ServedResource] = (
    *(
        ServedResource(info.group, version, info.kind, info.plural, info.short_names)
        for info in KINDS
        for version in (info.version, *info.also_served)
    ),
    ServedResource("mesh.tulle.io", "v1", "JoinToken", "jointokens", (), ("create", "delete", "get", "list")),
    ServedResource("mesh.tulle.io", "v1", "ChangeSet", "changesets", (), ("create",), namespaced=False),
    ServedResource("mesh.tulle.io", "v1", "Revision", "revisions", (), ("get", "list"), namespaced=False),
)


def setup_routes(router: web.UrlDispatcher) -> None:
    router.add_get("/api", _core, allow_head=False)
    router.add_get("/api/{version}", _core_resources, allow_head=False)
    router.add_get("/apis", _groups, allow_head=False)
    router.add_get("/apis/{group}", _group, allow_head=False)
    router.add_get("/apis/{group}/{version}", _group_resources, allow_head=False)


async def _core(request: web.Request) -> web.Response:
    if _AGGREGATED in request.headers.get("Accept", ""):
        return _aggregated([""])
    return answer({"kind": "APIVersions", "versions": versions("")})


async def _groups(request: web.Request) -> web.Response:
    if _AGGREGATED in request.headers.get("Accept", ""):
        return _aggregated(groups())
    listed = [group_document(group) for group in groups()]
    return answer({"kind": "APIGroupList", "apiVersion": "v1", "groups": listed})


async def _group(request: web.Request) -> web.Response:
    group = request.match_info["group"]
    if group not in groups():
        raise ApiError(404, f"there is no API group {group!r}: see /apis")
    return answer({"kind": "APIGroup", "apiVersion": "v1", **group_document(group)})


async def _core_resources(request: web.Request) -> web.Response:
    return answer(resource_list("", request.match_info["version"]))


async def _group_resources(request: web.Request) -> web.Response:
    return answer(resource_list(request.match_info["group"], request.match_info["version"]))


def _aggregated(of: Sequence[str]) -> web.Response:
    response = answer(aggregated(of))
    response.headers["Content-Type"] = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    return response


def groups() -> list[str]:
    """All groups but the core's."""
    return sorted({resource.group for resource in SERVED if resource.group})


def versions(group: str) -> list[str]:
    """The versions of a group, the preferred one first."""
    return list(dict.fromkeys(resource.version for resource in SERVED if resource.group == group))


def group_document(group: str) -> Mapping[str, Any]:
    listed = [{"groupVersion": f"{group}/{version}", "version": version} for version in versions(group)]
    return {"name": group, "versions": listed, "preferredVersion": listed[0]}


def resource_list(group: str, version: str) -> Mapping[str, Any]:
    """Raises :class:`ApiError` (404)."""
    found = [resource for resource in SERVED if (resource.group, resource.version) == (group, version)]
    if not found:
        where = f"{group}/{version}" if group else version
        raise ApiError(404, f"there is no API version {where!r}: see /api and /apis")
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": [
            {
                "name": resource.plural,
                "singularName": resource.kind.lower(),
                "namespaced": resource.namespaced,
                "kind": resource.kind,
                "verbs": list(resource.verbs),
                "shortNames": list(resource.short_names),
            }
            for resource in found
        ],
    }


def aggregated(of: Sequence[str]) -> Mapping[str, Any]:
    """``APIGroupDiscoveryList`` of ``apidiscovery.k8s.io/v2``: everything in one answer."""
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": [
            {
                "metadata": {"name": group} if group else {},
                "versions": [
                    {
                        "version": version,
                        "freshness": "Current",
                        "resources": [
                            {
                                "resource": resource.plural,
                                "responseKind": {
                                    "group": resource.group,
                                    "version": resource.version,
                                    "kind": resource.kind,
                                },
                                "scope": "Namespaced" if resource.namespaced else "Cluster",
                                "singularResource": resource.kind.lower(),
                                "verbs": list(resource.verbs),
                                "shortNames": list(resource.short_names),
                            }
                            for resource in SERVED
                            if (resource.group, resource.version) == (group, version)
                        ],
                    }
                    for version in versions(group)
                ],
            }
            for group in of
        ],
    }
