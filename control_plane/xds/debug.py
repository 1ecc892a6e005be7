"""``/debug/syncz`` (skeleton)."""

from __future__ import annotations

from aiohttp import web

from control_plane.xds.push import Pusher


def setup_routes(app: web.Application, pusher: Pusher) -> None:
    """Add ``GET /debug/syncz``: connected nodes and, per type, what was sent, ACKed and NACKed."""
