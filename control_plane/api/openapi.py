"""``/openapi/v3``: an index of OpenAPI documents, one per group and version, made from the kinds' models.

Source: Kubernetes API concepts, "OpenAPI V3". ``kubectl`` reads from it that it may leave validation to the server.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from aiohttp import web
from pydantic.json_schema import models_json_schema

from control_plane.api.context import answer
from control_plane.api.errors import ApiError
from control_plane.api.kinds import KINDS, KindInfo

_JSON = "application/json"
_STATUS: Mapping[str, Any] = {
    "type": "object",
    "description": "Kubernetes Status: why a request was refused; details.causes has every problem",
    "properties": {
        "kind": {"const": "Status"},
        "status": {"enum": ["Success", "Failure"]},
        "reason": {"type": "string"},
        "message": {"type": "string"},
        "code": {"type": "integer"},
        "details": {
            "type": "object",
            "properties": {
                "causes": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": {name: {"type": "string"} for name in ("field", "message", "reason")},
                    },
                }
            },
        },
    },
}


def setup_routes(router: web.UrlDispatcher) -> None:
    router.add_get("/openapi/v3", _index, allow_head=False)
    router.add_get("/openapi/v3/api/{openapi_version}", _serve, allow_head=False)
    router.add_get("/openapi/v3/apis/{openapi_group}/{openapi_version}", _serve, allow_head=False)


async def _index(_request: web.Request) -> web.Response:
    return answer(index())


async def _serve(request: web.Request) -> web.Response:
    group, version = request.match_info.get("openapi_group", ""), request.match_info["openapi_version"]
    found = document(group, version)
    if found is None:
        raise ApiError(404, f"there is no document {request.path}: see /openapi/v3")
    return answer(found)


def index() -> Mapping[str, Any]:
    """Where each group and version is described."""
    roots = {_root(info.group, version) for info in KINDS for version in (info.version, *info.also_served)}
    return {"paths": {root: {"serverRelativeURL": f"/openapi/v3/{root}"} for root in sorted(roots)}}


@cache
def document(group: str, version: str) -> Mapping[str, Any] | None:
    """OpenAPI 3.1 of one group ("" = core) and version; ``None`` if it is not served."""
    kinds = [info for info in KINDS if info.group == group and version in (info.version, *info.also_served)]
    if not kinds:
        return None
    _, definitions = models_json_schema(
        [(info.model, "validation") for info in kinds],
        by_alias=True,
        ref_template="#/components/schemas/{model}",
    )
    schemas = {"Status": _STATUS, **definitions["$defs"]}
    for info in kinds:
        name = info.model.__name__
        schemas[name] = {**schemas[name], "x-kubernetes-group-version-kind": [_type(info, version)]}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Tulle", "version": version},
        "paths": {path: item for info in kinds for path, item in _paths(info, version).items()},
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "certificate": {"type": "mutualTLS"},
            },
        },
        "security": [{"bearer": []}, {"certificate": []}],
    }


def _root(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else f"api/{version}"


def _type(info: KindInfo, version: str) -> dict[str, str]:
    return {"group": info.group, "version": version, "kind": info.kind}


def _paths(info: KindInfo, version: str) -> dict[str, Any]:
    root = f"/{_root(info.group, version)}"
    one = {"$ref": f"#/components/schemas/{info.model.__name__}"}
    many = {
        "type": "object",
        "properties": {"kind": {"const": f"{info.kind}List"}, "items": {"type": "array", "items": one}},
    }
    namespace, name, dry = _parameter("namespace"), _parameter("name"), _query("dryRun", {"const": "All"})
    # Whatever is asked for, unknown and duplicate fields are refused ("Strict").
    writing = [dry, _query("fieldValidation", {"enum": ["Ignore", "Warn", "Strict"]})]

    def operation(verb: str, result: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        return _operation(verb, info, version, result, **more)

    queries = [
        _query("watch", {"type": "boolean"}),
        _query("resourceVersion", {"type": "string"}),
        _query("labelSelector", {"type": "string"}),
        _query("fieldSelector", {"type": "string"}),
        _query("allowWatchBookmarks", {"type": "boolean"}),
        _query("timeoutSeconds", {"type": "integer"}),
    ]
    collection, item = f"{root}/namespaces/{{namespace}}/{info.plural}", "/{name}"
    return {
        f"{root}/{info.plural}": {"parameters": queries, "get": operation("list", many)},
        collection: {
            "parameters": [namespace],
            "get": {**operation("list", many), "parameters": queries},
            "post": {**operation("create", one, body=one, code="201"), "parameters": writing},
        },
        collection + item: {
            "parameters": [namespace, name],
            "get": operation("read", one),
            "put": {**operation("replace", one, body=one), "parameters": writing},
            "patch": {
                **operation("patch", one, body={"type": "object"}, media="application/merge-patch+json"),
                "parameters": writing,
            },
            "delete": {
                **operation("delete", {"$ref": "#/components/schemas/Status"}),
                "parameters": [dry],
            },
        },
    }


def _operation(
    verb: str,
    info: KindInfo,
    version: str,
    result: Mapping[str, Any],
    *,
    body: Mapping[str, Any] | None = None,
    media: str = _JSON,
    code: str = "200",
) -> dict[str, Any]:
    refused = {
        "description": "refused",
        "content": {_JSON: {"schema": {"$ref": "#/components/schemas/Status"}}},
    }
    operation: dict[str, Any] = {
        "summary": f"{verb} {info.kind}",
        "x-kubernetes-group-version-kind": _type(info, version),
        "responses": {
            code: {"description": "OK", "content": {_JSON: {"schema": result}}},
            "default": refused,
        },
    }
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {media: {"schema": body}}}
    return operation


def _parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _query(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema}
