"""Objects over HTTP: list, get, create, replace, patch, delete, as the Kubernetes API has them.

It must not judge objects (``admission`` does) nor follow them (``watching`` does).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from control_plane.api.admission import Apply, Outcome, Refusal, Remove, Verdict
from control_plane.api.context import (
    ApiContext,
    answer,
    context_of,
    dry_run,
    principal_of,
    read_body,
    read_bytes,
)
from control_plane.api.errors import ApiError, invalid, status_body
from control_plane.api.kinds import KindInfo, by_plural
from control_plane.api.limits import parse_json
from control_plane.api.objects import merge_patch, to_shown
from control_plane.api.selectors import selector
from control_plane.api.watching import watch
from control_plane.store.base import Key, Stored

MERGE_PATCH = "application/merge-patch+json"


def setup_routes(router: web.UrlDispatcher) -> None:
    for root in ("/api/{version}", "/apis/{group}/{version}"):
        namespaced = f"{root}/namespaces/{{namespace}}/{{plural}}"
        router.add_get(f"{root}/{{plural}}", list_or_watch, allow_head=False)
        router.add_get(namespaced, list_or_watch, allow_head=False)
        router.add_post(namespaced, create)
        router.add_get(f"{namespaced}/{{name}}", get, allow_head=False)
        router.add_put(f"{namespaced}/{{name}}", replace)
        router.add_patch(f"{namespaced}/{{name}}", patch)
        router.add_delete(f"{namespaced}/{{name}}", delete)


async def list_or_watch(request: web.Request) -> web.StreamResponse:
    info, namespace = _kind(request), request.match_info.get("namespace")
    selects = selector(request.query.get("labelSelector", ""), request.query.get("fieldSelector", ""))
    version = request.match_info["version"]
    if request.query.get("watch", "").lower() in ("1", "true"):
        return await watch(request, info, namespace, selects)
    context = context_of(request)
    found, revision = await context.store.list(info.group, info.plural, namespace)
    return answer(
        {
            "kind": f"{info.kind}List",
            "apiVersion": f"{info.group}/{version}" if info.group else version,
            "metadata": {"resourceVersion": str(revision)},
            "items": [_shown(context, info, stored, version) for stored in found if selects(stored)],
        }
    )


async def get(request: web.Request) -> web.Response:
    info = _kind(request)
    context = context_of(request)
    stored = await context.store.get(_key(request, info))
    if stored is None:
        raise _missing(info, request.match_info["name"])
    return answer(_shown(context, info, stored, request.match_info["version"]))


async def create(request: web.Request) -> web.Response:
    info = _kind(request)
    body = _of_path(request, info, await read_body(request))
    return await _write(request, info, Apply(body, must_exist=False), code=201)


async def replace(request: web.Request) -> web.Response:
    info = _kind(request)
    body = _of_path(request, info, await read_body(request))
    return await _write(request, info, Apply(body, must_exist=True))


async def patch(request: web.Request) -> web.Response:
    info = _kind(request)
    if request.content_type != MERGE_PATCH:
        raise ApiError(415, f"patches must be {MERGE_PATCH} (RFC 7396), not {request.content_type}")
    change = await read_body(request)
    context = context_of(request)
    for _ in range(context.limits.retries + 1):
        stored = await context.store.get(_key(request, info))
        if stored is None:
            raise _missing(info, request.match_info["name"])
        body = _of_path(request, info, merge_patch(stored.body, change))
        asked = body["metadata"].get("resourceVersion")
        try:
            return await _write(request, info, Apply(body, must_exist=True, expect=stored.revision))
        except ApiError as error:
            # Only if the client named no revision may its patch be put on top of somebody else's change.
            if error.code != 409 or asked:
                raise
    raise ApiError(409, f"{info.plural} {request.match_info['name']!r} keeps changing: try again in a moment")


async def delete(request: web.Request) -> web.Response:
    info = _kind(request)
    key = _key(request, info)
    body = {"apiVersion": info.api_version, "kind": info.kind}
    named = {**body, "metadata": {"name": key.name, "namespace": key.namespace}}
    written = await context_of(request).writer.write(
        [Remove(named, expect=await _delete_precondition(request))],
        author=principal_of(request).name,
        dry_run=dry_run(request),
    )
    if written.verdict.problems:
        raise _refused(info, key.name, written.verdict)
    details = {"name": key.name, "group": info.group, "kind": info.plural}
    return answer(status_body(200, f"{info.plural} {key.name!r} deleted", details=details))


async def _delete_precondition(request: web.Request) -> int | None:
    """``preconditions.resourceVersion`` of a ``DeleteOptions`` body; its other fields mean nothing here."""
    data = await read_bytes(request)
    if not data:
        return None
    options = parse_json(data, context_of(request).limits.depth)
    preconditions = options.get("preconditions")
    version = preconditions.get("resourceVersion") if isinstance(preconditions, Mapping) else None
    if version is None:
        return None
    if not isinstance(version, str) or not version.isascii() or not version.isdigit():
        raise ApiError(400, f"preconditions.resourceVersion: {version!r} is not a resource version")
    return int(version)


async def _write(request: web.Request, info: KindInfo, apply: Apply, *, code: int = 200) -> web.Response:
    context = context_of(request)
    dry = dry_run(request)
    written = await context.writer.write([apply], author=principal_of(request).name, dry_run=dry)
    if written.verdict.problems:
        metadata = apply.body.get("metadata")
        name = metadata.get("name") if isinstance(metadata, Mapping) else None
        raise _refused(info, str(name or ""), written.verdict)
    (outcome,) = written.verdict.outcomes
    version = request.match_info["version"]
    stored = None if dry else await context.store.get(outcome.key)
    if stored is None:
        # A dry run, or somebody deleted it right after: show what was decided.
        stored = _as_if_stored(outcome, written.revision)
    return answer(_shown(context, info, stored, version), code=code)


def _as_if_stored(outcome: Outcome, revision: int) -> Stored:
    previous = outcome.previous
    if previous is None:
        return Stored(outcome.key, outcome.body, revision, created=revision, generation=1)
    return Stored(outcome.key, outcome.body, previous.revision, previous.created, previous.generation)


def _shown(context: ApiContext, info: KindInfo, stored: Stored, version: str) -> dict[str, Any]:
    return to_shown(info, stored, context.status.conditions(stored.key, stored.generation), version)


def _kind(request: web.Request) -> KindInfo:
    where = request.match_info
    info = by_plural(where.get("group", ""), where["version"], where["plural"])
    if info is None:
        raise ApiError(
            404, f"there is no resource {where['plural']!r} at {request.path}: see /api/v1 and /apis"
        )
    return info


def _key(request: web.Request, info: KindInfo) -> Key:
    return Key(info.group, info.plural, request.match_info["namespace"], request.match_info["name"])


def _of_path(request: web.Request, info: KindInfo, body: Mapping[str, Any]) -> dict[str, Any]:
    """``body`` with what the path says, which it may leave out but not contradict. Raises 400."""
    where = request.match_info
    version = f"{info.group}/{where['version']}" if info.group else where["version"]
    completed = {"apiVersion": version, "kind": info.kind, **body}
    if completed["kind"] != info.kind or not isinstance(completed["apiVersion"], str):
        raise ApiError(400, f"kind: the path is for {info.kind}, but the body is {completed['kind']!r}")
    if completed["apiVersion"].rpartition("/")[0] != info.group:
        raise ApiError(400, f"apiVersion: {completed['apiVersion']!r} does not belong to this path")
    metadata = body.get("metadata")
    if not isinstance(metadata, Mapping):
        # Only metadata can say otherwise; if it is no object, admission says what is wrong.
        return completed if metadata is not None else {**completed, "metadata": _placed(request, {})}
    return {**completed, "metadata": _placed(request, metadata)}


def _placed(request: web.Request, metadata: Mapping[str, Any]) -> dict[str, Any]:
    placed = dict(metadata)
    for field in ("namespace", "name"):
        wanted = request.match_info.get(field)
        if wanted is not None and placed.setdefault(field, wanted) != wanted:
            raise ApiError(400, f"metadata.{field}: the path says {wanted!r}, the body {metadata[field]!r}")
    return placed


def _missing(info: KindInfo, name: str) -> ApiError:
    label = f"{info.plural}.{info.group}" if info.group else info.plural
    details = {"name": name, "group": info.group, "kind": info.plural}
    return ApiError(404, f"{label} {name!r} not found", details=details)


def _refused(info: KindInfo, name: str, verdict: Verdict) -> ApiError:
    details = {"name": name, "group": info.group, "kind": info.kind}
    match verdict.refusal:
        case Refusal.MISSING:
            return _missing(info, name)
        case Refusal.CONFLICT:
            exists = verdict.problems[0].field == "metadata.name"
            text = "; ".join(str(problem) for problem in verdict.problems)
            return ApiError(
                409,
                f"{info.kind} {name!r}: {text}",
                reason="AlreadyExists" if exists else "Conflict",
                causes=verdict.problems,
                details=details,
            )
    return invalid(f"{info.kind} {name!r}", verdict.problems, **details)
