"""``POST /apis/mesh.tulle.io/v1/changesets``: many objects applied and deleted as one revision, or none.

Kubernetes has no transactions; this is the one verb that Tulle adds. Every problem of every object is
reported, its field beginning with ``objects[i]`` or ``delete[i]``. It must not judge objects itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from control_plane.api.access import Verb
from control_plane.api.admission import Apply, Outcome, Refusal, Remove
from control_plane.api.context import answer, context_of, dry_run, principal_of, read_body
from control_plane.api.errors import ApiError, invalid
from control_plane.api.kinds import Problem, Reason

PATH = "/apis/mesh.tulle.io/v1/changesets"
_FIELDS = {"apiVersion", "kind", "objects", "delete", "dryRun", "ignoreNotFound"}


def setup_routes(router: web.UrlDispatcher) -> None:
    router.add_post(PATH, apply)


async def apply(request: web.Request) -> web.Response:
    context, principal = context_of(request), principal_of(request)
    body = await read_body(request)
    _check_shape(body)
    objects, deletes = body.get("objects") or [], body.get("delete") or []
    if len(objects) + len(deletes) > context.limits.changeset:
        context.counters.limited.inc("changeset")
        raise ApiError(413, f"a change set may have {context.limits.changeset} objects: send fewer at a time")
    for item in (*objects, *deletes):
        principal.require(Verb.WRITE, _namespace(item))
    missing_ok = body.get("ignoreNotFound", False)
    requests: list[Apply | Remove] = [Apply(item, f"objects[{i}]") for i, item in enumerate(objects)]
    requests += [Remove(item, f"delete[{i}]", missing_ok=missing_ok) for i, item in enumerate(deletes)]
    dry = dry_run(request) or body.get("dryRun", False)
    written = await context.writer.write(requests, author=principal.name, dry_run=dry)
    if written.verdict.problems:
        problems = written.verdict.problems
        if written.verdict.refusal is Refusal.INVALID:
            raise invalid("the change set", problems)
        text = "; ".join(str(problem) for problem in problems)
        raise ApiError(written.verdict.refusal.value, f"the change set: {text}", causes=problems)
    return answer(
        {
            "kind": "ChangeSet",
            "apiVersion": "mesh.tulle.io/v1",
            "revision": written.revision,
            "dryRun": dry,
            "results": [_result(outcome) for outcome in written.verdict.outcomes],
        }
    )


def _result(outcome: Outcome) -> dict[str, Any]:
    return {
        "apiVersion": outcome.info.api_version,
        "kind": outcome.info.kind,
        "namespace": outcome.key.namespace,
        "name": outcome.key.name,
        "action": outcome.action.value,
    }


def _check_shape(body: Mapping[str, Any]) -> None:
    problems = [
        Problem(field, f"unknown field: a change set has {', '.join(sorted(_FIELDS))}", Reason.INVALID)
        for field in sorted(body.keys() - _FIELDS)
    ]
    problems += [
        Problem(field, "must be a list of objects", Reason.TYPE_INVALID)
        for field in ("objects", "delete")
        if body.get(field) is not None and not isinstance(body[field], list)
    ]
    problems += [
        Problem(field, "must be true or false", Reason.TYPE_INVALID)
        for field in ("dryRun", "ignoreNotFound")
        if not isinstance(body.get(field, False), bool)
    ]
    if problems:
        raise invalid("the change set", problems)


def _namespace(item: Any) -> str | None:
    """The namespace that ``item`` is for. What names none readably is for admission to refuse."""
    metadata = item.get("metadata") if isinstance(item, Mapping) else None
    namespace = metadata.get("namespace") if isinstance(metadata, Mapping) else None
    return namespace if isinstance(namespace, str) and namespace else "default"
