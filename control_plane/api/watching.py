"""``?watch=1``: changes of one kind as JSON lines, from a revision on, with bookmarks.

Source: Kubernetes API concepts, "Efficient detection of changes". It must not keep a queue of its own: the
store knows where each watch is, and a client that does not read is dropped.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from aiohttp import web

from control_plane.api.context import ApiContext, context_of
from control_plane.api.errors import ApiError, status_body
from control_plane.api.kinds import KindInfo
from control_plane.api.objects import to_shown
from control_plane.store.base import Compacted, Event, EventType, StoreClosed, Stored

Selects = Callable[[Stored], bool]


async def watch(
    request: web.Request, info: KindInfo, namespace: str | None, selects: Selects
) -> web.StreamResponse:
    """Answer a watch request. Raises :class:`ApiError` (400, 410, 429) before the first byte."""
    context = context_of(request)
    if context.watches >= context.limits.watches:
        context.counters.limited.inc("watches")
        raise ApiError(429, f"{context.limits.watches} watches are open already: try again later")
    context.watches += 1
    try:
        stream = _Watch(request, context, info, namespace, selects)
        return await stream.run()
    finally:
        context.watches -= 1


class _Watch:
    def __init__(
        self,
        request: web.Request,
        context: ApiContext,
        info: KindInfo,
        namespace: str | None,
        selects: Selects,
    ) -> None:
        self._request = request
        self._context = context
        self._info = info
        self._namespace = namespace
        self._selects = selects
        self._version = request.match_info["version"]
        self._bookmarks = request.query.get("allowWatchBookmarks", "").lower() in ("1", "true")
        self._deadline = _deadline(request)
        self._response = web.StreamResponse(headers={"Content-Type": "application/json"})

    async def run(self) -> web.StreamResponse:
        after, initial = await self._start()
        events = self._context.store.watch(after)
        # Asked for before the answer begins, so that a revision that is gone can be an HTTP status.
        first = asyncio.ensure_future(anext(events))
        try:
            await asyncio.sleep(0)
            if after < (await self._context.store.snapshot()).revision:
                await asyncio.wait({first})
            if first.done() and isinstance(first.exception(), Compacted):
                raise ApiError(410, f"{first.exception()}: list again and watch from there")
            await self._response.prepare(self._request)
            try:
                await self._send([self._line("ADDED", stored) for stored in initial])
                await self._follow(after, events, first)
            except (ConnectionError, TimeoutError):
                # The client went away or does not read; it resumes from the revision that it has.
                if self._request.transport is not None:
                    self._request.transport.abort()
        finally:
            first.cancel()
        return self._response

    async def _start(self) -> tuple[int, Sequence[Stored]]:
        """The revision to follow from, and the objects to send first."""
        asked = self._request.query.get("resourceVersion", "")
        store = self._context.store
        if asked in ("", "0"):
            found, revision = await store.list(self._info.group, self._info.plural, self._namespace)
            return revision, [stored for stored in found if self._selects(stored)]
        if not asked.isascii() or not asked.isdigit() or len(asked) > 18:
            raise ApiError(400, f"resourceVersion: {asked!r} is not a resource version")
        if int(asked) > (await store.snapshot()).revision:
            # Of another store's life: waiting until it is reached would hide every change till then.
            raise ApiError(410, f"resourceVersion {asked} is not known here: list again and watch from there")
        return int(asked), ()

    async def _follow(
        self, position: int, events: AsyncIterator[Sequence[Event]], pending: asyncio.Future[Sequence[Event]]
    ) -> None:
        stopping = asyncio.ensure_future(self._context.stopping.wait())
        try:
            while True:
                timeout = min(self._context.limits.bookmark, max(self._deadline - time.monotonic(), 0))
                either: set[asyncio.Future[Any]] = {pending, stopping}
                await asyncio.wait(either, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                if pending.done():
                    try:
                        group = pending.result()
                    except Compacted as error:
                        await self._send([_event_line("ERROR", status_body(410, str(error)))])
                        break
                    except StoreClosed:
                        break
                    position = group[0].revision
                    await self._send([line for event in group if (line := self._told(event))])
                    pending = asyncio.ensure_future(anext(events))
                elif self._request.transport is None or self._request.transport.is_closing():
                    raise ConnectionResetError
                elif self._bookmarks:
                    await self._send([self._bookmark(position)])
                if stopping.done() or time.monotonic() >= self._deadline:
                    break
            await self._response.write_eof()
        finally:
            pending.cancel()
            stopping.cancel()

    def _told(self, event: Event) -> bytes | None:
        """What this watcher is told of ``event``: nothing, if it is not of its kind or not selected."""
        key = event.object.key
        if (key.group, key.plural) != (self._info.group, self._info.plural):
            return None
        if self._namespace is not None and key.namespace != self._namespace:
            return None
        if not self._selects(event.object):
            # It may have been selected before its labels changed; to this watcher that is its end.
            return self._line("DELETED", event.object) if event.type is EventType.MODIFIED else None
        shown = event.object
        if event.type is EventType.DELETED:
            # The revision to resume from is that of the deletion, not of the object's last change.
            shown = Stored(key, shown.body, event.revision, shown.created, shown.generation)
        return self._line(event.type.value, shown)

    def _line(self, event: str, stored: Stored) -> bytes:
        status: Mapping[str, Any] = {}
        if event != "DELETED":
            status = self._context.status.conditions(stored.key, stored.generation)
        return _event_line(event, to_shown(self._info, stored, status, self._version))

    def _bookmark(self, position: int) -> bytes:
        version = f"{self._info.group}/{self._version}" if self._info.group else self._version
        metadata = {"resourceVersion": str(position)}
        return _event_line("BOOKMARK", {"kind": self._info.kind, "apiVersion": version, "metadata": metadata})

    async def _send(self, lines: Sequence[bytes]) -> None:
        if lines:
            async with asyncio.timeout(self._context.limits.watch_write):
                await self._response.write(b"".join(lines))


def _event_line(event: str, body: Mapping[str, Any]) -> bytes:
    return json.dumps({"type": event, "object": body}, separators=(",", ":")).encode() + b"\n"


def _deadline(request: web.Request) -> float:
    asked = request.query.get("timeoutSeconds", "")
    if not asked:
        return float("inf")
    if not asked.isascii() or not asked.isdigit():
        raise ApiError(400, f"timeoutSeconds: {asked!r} is not a number of seconds")
    return time.monotonic() + int(asked[:9])
