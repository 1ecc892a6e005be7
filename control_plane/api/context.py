"""What the API's handlers share, and how they answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from control_plane.api.access import Authenticator, Principal
from control_plane.api.errors import ApiError
from control_plane.api.limits import Limits, parse_json
from control_plane.api.objects import StatusProvider
from control_plane.api.writer import Writer
from control_plane.metrics import Counter, Metrics
from control_plane.store.base import History, Store


@dataclass(frozen=True, slots=True)
class Counters:
    """``limited`` has the label ``limit``, ``requests`` ``verb`` and ``code``."""

    limited: Counter
    requests: Counter

    @classmethod
    def register(cls, metrics: Metrics) -> Counters:
        return cls(
            metrics.counter("tulle_api_limited_total", "Requests refused by a limit.", ["limit"]),
            metrics.counter("tulle_api_requests_total", "Answered requests.", ["verb", "code"]),
        )


@dataclass(slots=True)
class ApiContext:
    """``stopping`` is set when the server goes down, so that watches end. ``ready``: why not, or ``None``."""

    store: Store
    history: History | None
    writer: Writer
    status: StatusProvider
    authenticator: Authenticator
    limits: Limits
    counters: Counters
    ready: Callable[[], str | None] = lambda: None
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    watches: int = 0


CONTEXT: web.AppKey[ApiContext] = web.AppKey("context", ApiContext)
PRINCIPAL: web.RequestKey[Principal] = web.RequestKey("principal", Principal)
"""Key of the request's principal; absent on open endpoints."""


def context_of(request: web.Request) -> ApiContext:
    return request.config_dict[CONTEXT]


def principal_of(request: web.Request) -> Principal:
    return request[PRINCIPAL]


def answer(body: Any, *, code: int = 200) -> web.Response:
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return web.Response(text=text, status=code, content_type="application/json")


async def read_body(request: web.Request) -> Mapping[str, Any]:
    """The request's JSON object. Raises :class:`ApiError` (400, 413, 415); counts the limits."""
    context = context_of(request)
    # What has no Content-Type is taken as JSON, so that a bare `curl -d @file` fails on its content only.
    given = request.headers.get("Content-Type", "application/json").partition(";")[0].strip().lower()
    if given not in ("application/json", "application/merge-patch+json"):
        raise ApiError(415, f"Content-Type {given!r} is not supported: send application/json")
    data = await read_bytes(request)
    try:
        return parse_json(data, context.limits.depth)
    except ApiError as error:
        if error.details.get("limit") == "depth":
            context.counters.limited.inc("depth")
        raise


async def read_bytes(request: web.Request) -> bytes:
    """The request's body within ``limits.body`` and ``limits.body_time``. Raises :class:`ApiError` (408, 413)."""
    context = context_of(request)
    try:
        async with asyncio.timeout(context.limits.body_time):
            return await request.read()
    except TimeoutError:
        context.counters.limited.inc("body_time")
        raise ApiError(
            408, f"the request body did not arrive within {context.limits.body_time:g} seconds"
        ) from None
    except web.HTTPRequestEntityTooLarge:
        context.counters.limited.inc("body")
        raise ApiError(
            413, f"the request body is larger than {context.limits.body} bytes: send fewer objects at a time"
        ) from None


def dry_run(request: web.Request) -> bool:
    """Whether ``?dryRun=All`` was asked for. Raises :class:`ApiError` (400) for anything else."""
    values = request.query.getall("dryRun", [])
    if any(value != "All" for value in values):
        raise ApiError(400, f"dryRun: {values[0]!r} is not supported: use dryRun=All")
    return bool(values)
