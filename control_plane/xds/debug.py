"""``/debug/syncz``: who is connected, and what each has been given and has accepted, as JSON."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from control_plane.api.objects import rfc3339
from control_plane.xds.push import Pusher
from control_plane.xds.resource_types import PUSH_ORDER, short_name
from control_plane.xds.status import NodeStatus


def setup_routes(app: web.Application, pusher: Pusher) -> None:
    """Add ``GET /debug/syncz``. Who may ask is the application's matter."""

    async def syncz(_request: web.Request) -> web.Response:
        nodes = sorted(pusher.board.nodes.values(), key=lambda node: (node.node_id, node.connected_at))
        return web.json_response({"revision": pusher.revision, "nodes": [describe(node) for node in nodes]})

    app.router.add_get("/debug/syncz", syncz)


def describe(node: NodeStatus) -> dict[str, Any]:
    """One stream. A type's state is as ``istioctl proxy-status`` has it: SYNCED, STALE, NOT SENT, or NACKED."""
    return {
        "node": node.node_id,
        "identity": node.identity,
        "variant": node.variant,
        "userAgent": node.user_agent,
        "connectedAt": rfc3339(node.connected_at),
        "types": {short_name(url): _type(node, url) for url in PUSH_ORDER},
    }


def _type(node: NodeStatus, type_url: str) -> dict[str, Any]:
    current = node.snapshot.of(type_url) if node.snapshot is not None else None
    resources = current.resources if current is not None else {}
    accepted = sum(node.state_of((type_url, name)) is True for name in resources)
    error = node.last_error.get(type_url)
    if error is not None:
        state = "NACKED"
    elif type_url not in node.acked_versions:
        state = "STALE" if accepted < len(resources) else "NOT SENT"
    else:
        state = "SYNCED" if accepted == len(resources) else "STALE"
    found = {
        "state": state,
        "version": current.version if current is not None else "",
        "acked": node.acked_versions.get(type_url, ""),
        "resources": len(resources),
        "accepted": accepted,
    }
    return found | {"error": error} if error is not None else found
