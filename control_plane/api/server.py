"""Puts the API together as one aiohttp application. It opens no socket; :mod:`control_plane.app` does."""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib.metadata import version

from aiohttp import web

from control_plane.api import changesets, discovery, history, openapi, resources
from control_plane.api.context import CONTEXT, ApiContext, answer, context_of
from control_plane.api.errors import ApiError
from control_plane.api.middleware import answer_errors, authorize


def build(
    context: ApiContext, extra_routes: Callable[[web.Application], None] | None = None
) -> web.Application:
    """The application. ``extra_routes`` adds other parts' endpoints (the CA's) behind the same middleware."""
    app = web.Application(middlewares=[answer_errors, authorize], client_max_size=context.limits.body)
    app[CONTEXT] = context
    router = app.router
    router.add_get("/healthz", _healthy)
    router.add_get("/livez", _healthy)
    router.add_get("/readyz", _ready)
    router.add_get("/version", _version)
    openapi.setup_routes(router)
    changesets.setup_routes(router)
    history.setup_routes(router)
    if extra_routes is not None:
        extra_routes(app)
    discovery.setup_routes(router)
    resources.setup_routes(router)
    app.on_shutdown.append(_stop)
    return app


async def _stop(app: web.Application) -> None:
    app[CONTEXT].stopping.set()


async def _healthy(_request: web.Request) -> web.Response:
    return web.Response(text="ok")


async def _ready(request: web.Request) -> web.Response:
    problem = context_of(request).ready()
    if problem is not None:
        raise ApiError(503, f"not ready: {problem}")
    return web.Response(text="ok")


async def _version(_request: web.Request) -> web.Response:
    number = version("tulle")
    major, minor, *_ = number.split(".")
    return answer(
        {
            "major": major,
            "minor": minor,
            "gitVersion": f"v{number}",
            "platform": f"linux/{platform.machine()}",
            "pythonVersion": platform.python_version(),
        }
    )
