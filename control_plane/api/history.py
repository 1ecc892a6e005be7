"""``/apis/mesh.tulle.io/v1/revisions``: who changed what and when. Read-only.

A revision may touch every namespace, so a role in some of them does not do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from control_plane.api.context import ApiContext, answer, context_of
from control_plane.api.errors import ApiError
from control_plane.api.objects import rfc3339
from control_plane.store.base import Change, History, Key, Revision

PATH = "/apis/mesh.tulle.io/v1/revisions"


def setup_routes(router: web.UrlDispatcher) -> None:
    router.add_get(PATH, list_revisions, allow_head=False)
    router.add_get(PATH + "/{number:[0-9]{1,18}}", get_revision, allow_head=False)


async def list_revisions(request: web.Request) -> web.Response:
    """``?limit=`` (default 50) revisions below ``?before=``, newest first, without the objects' bodies."""
    context = context_of(request)
    limit = min(_number(request, "limit", 50), context.limits.history)
    before = _number(request, "before", 0) or None
    found = await _history(context).history(before=before, limit=limit)
    items = [_shown(revision, bodies=False) for revision in found]
    return answer({"kind": "RevisionList", "apiVersion": "mesh.tulle.io/v1", "metadata": {}, "items": items})


async def get_revision(request: web.Request) -> web.Response:
    """One revision with each object before and after."""
    context = context_of(request)
    number = int(request.match_info["number"])
    found = await _history(context).revision_at(number) if number else None
    if found is None:
        raise ApiError(404, f"there is no revision {number} yet")
    return answer(_shown(found, bodies=True))


def _history(context: ApiContext) -> History:
    if context.history is None:
        raise ApiError(404, "this store keeps no history")
    return context.history


def _shown(revision: Revision, *, bodies: bool) -> dict[str, Any]:
    return {
        "kind": "Revision",
        "apiVersion": "mesh.tulle.io/v1",
        "metadata": {"name": str(revision.number), "creationTimestamp": rfc3339(revision.time)},
        "author": revision.author,
        "changes": [_change(change, bodies) for change in revision.changes],
    }


def _change(change: Change, bodies: bool) -> dict[str, Any]:
    if change.before is None:
        action = "created"
    else:
        action = "deleted" if change.after is None else "configured"
    shown: dict[str, Any] = {
        "group": change.key.group,
        "plural": change.key.plural,
        "namespace": change.key.namespace,
        "name": change.key.name,
        "action": action,
    }
    if bodies:
        shown |= {"before": _body(change.key, change.before), "after": _body(change.key, change.after)}
    return shown


def _body(key: Key, body: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """A join token's status holds the hash of its secret, which is nobody's to read."""
    if body is None or key.plural != "jointokens":
        return body
    return {name: value for name, value in body.items() if name != "status"}


def _number(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, str(default))
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ApiError(400, f"{name}: {text!r} is not a number")
    return int(text)
