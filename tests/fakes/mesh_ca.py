"""A certificate authority in a directory, with a clock that the test moves."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from control_plane.ca import bootstrap
from control_plane.ca.bootstrap import MeshAuthority
from control_plane.ca.issuance_log import IssuanceLog
from control_plane.ca.service import CertificateService
from control_plane.ca.tokens import JoinTokens, TokenRequest
from control_plane.store.base import Store
from tests.fakes.pki import NOW
from tests.fakes.store import FakeStore


class MovableClock:
    def __init__(self, now: datetime = NOW) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **delta: float) -> None:
        self.now += timedelta(**delta)


@dataclass
class MeshCa:
    directory: Path
    clock: Callable[[], datetime]
    store: Store
    authority: MeshAuthority
    tokens: JoinTokens
    service: CertificateService

    async def token(
        self,
        service_account: str = "web",
        namespace: str = "default",
        *,
        ttl: timedelta = timedelta(hours=1),
        uses: int = 1,
    ) -> str:
        request = TokenRequest(namespace, service_account, ttl, uses)
        return (await self.tokens.create(request, author="test")).text

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.directory / "issued.jsonl").read_text().splitlines()]


def make(
    directory: Path,
    *,
    clock: Callable[[], datetime] | None = None,
    store: Store | None = None,
    trust_domain: str = "mesh.local",
    svid_lifetime: timedelta = timedelta(hours=24),
) -> MeshCa:
    """Starts or restarts: the same directory and store give the same mesh."""
    clock = clock or MovableClock()
    store = store if store is not None else FakeStore()
    directory.mkdir(exist_ok=True)
    authority = bootstrap.load_or_create(directory / "ca", trust_domain, clock=clock)
    tokens = JoinTokens(store, authority.root_pin, clock=clock)
    service = CertificateService(
        authority, tokens, IssuanceLog(directory / "issued.jsonl"), clock=clock, svid_lifetime=svid_lifetime
    )
    return MeshCa(directory, clock, store, authority, tokens, service)
