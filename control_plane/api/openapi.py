"""``/openapi/v3``: the API as an OpenAPI 3.1 document, made from the kinds' models and the served paths."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from aiohttp import web
from pydantic.json_schema import models_json_schema

from control_plane.api.context import answer
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
    router.add_get("/openapi/v3", _serve, allow_head=False)


async def _serve(_request: web.Request) -> web.Response:
    return answer(document())


@cache
def document() -> Mapping[str, Any]:
    _, definitions = models_json_schema(
        [(info.model, "validation") for info in KINDS],
        by_alias=True,
        ref_template="#/components/schemas/{model}",
    )
    schemas = {"Status": _STATUS, **definitions["$defs"]}
    paths: dict[str, Any] = {}
    for info in KINDS:
        for version in (info.version, *info.also_served):
            paths |= _paths(info, version)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Tulle", "version": "v1"},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "certificate": {"type": "mutualTLS"},
            },
        },
        "security": [{"bearer": []}, {"certificate": []}],
    }


def _paths(info: KindInfo, version: str) -> dict[str, Any]:
    root = f"/apis/{info.group}/{version}" if info.group else f"/api/{version}"
    one = {"$ref": f"#/components/schemas/{info.model.__name__}"}
    many = {
        "type": "object",
        "properties": {"kind": {"const": f"{info.kind}List"}, "items": {"type": "array", "items": one}},
    }
    namespace, name, dry = _parameter("namespace"), _parameter("name"), _query("dryRun", {"const": "All"})
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
        f"{root}/{info.plural}": {"parameters": queries, "get": _operation("list", info, many)},
        collection: {
            "parameters": [namespace],
            "get": {**_operation("list", info, many), "parameters": queries},
            "post": {**_operation("create", info, one, body=one, code="201"), "parameters": [dry]},
        },
        collection + item: {
            "parameters": [namespace, name],
            "get": _operation("read", info, one),
            "put": {**_operation("replace", info, one, body=one), "parameters": [dry]},
            "patch": {
                **_operation(
                    "patch", info, one, body={"type": "object"}, media="application/merge-patch+json"
                ),
                "parameters": [dry],
            },
            "delete": {
                **_operation("delete", info, {"$ref": "#/components/schemas/Status"}),
                "parameters": [dry],
            },
        },
    }


def _operation(
    verb: str,
    info: KindInfo,
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
        "x-kubernetes-group-version-kind": {
            "group": info.group,
            "version": info.version,
            "kind": info.kind,
        },
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
