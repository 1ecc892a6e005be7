"""Admits requests and commits them, one at a time, so that what was judged is what is written.

It must not know HTTP. All writes of users go through here; the store's own preconditions guard against the
control plane's other writers and, with a shared store, against other replicas.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from control_plane.api.admission import Apply, Remove, Verdict, admit
from control_plane.api.errors import ApiError
from control_plane.api.service_addresses import Network
from control_plane.store.base import Conflict, Store

DEFAULT_SERVICE_CIDR = ipaddress.ip_network("10.96.0.0/16")


@dataclass(frozen=True, slots=True)
class Written:
    """``verdict`` without problems was committed as ``revision`` (or would be, in a dry run: the current one)."""

    verdict: Verdict
    revision: int


class Writer:
    """``retries``: how often a request is judged anew because its objects changed before it was committed."""

    def __init__(
        self,
        store: Store,
        *,
        service_cidr: Network = DEFAULT_SERVICE_CIDR,
        retries: int = 5,
        clock: Callable[[], float] = time.time,
        new_uid: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self._store = store
        self._cidr = service_cidr
        self._retries = retries
        self._clock = clock
        self._new_uid = new_uid
        self._one_at_a_time = asyncio.Lock()

    async def write(self, requests: Sequence[Apply | Remove], *, author: str, dry_run: bool) -> Written:
        """Judge and commit. A verdict with problems was not committed. Raises :class:`ApiError` (409)."""
        async with self._one_at_a_time:
            for _ in range(self._retries + 1):
                snapshot = await self._store.snapshot()
                verdict = admit(
                    requests,
                    snapshot.objects,
                    service_cidr=self._cidr,
                    now=self._clock(),
                    new_uid=self._new_uid,
                )
                if verdict.problems or dry_run:
                    return Written(verdict, snapshot.revision)
                try:
                    return Written(verdict, await self._store.commit(verdict.changes, author=author))
                except Conflict as conflict:
                    last = conflict
        raise ApiError(
            409, f"{last.key} keeps changing while this request is being written: try again in a moment"
        )
