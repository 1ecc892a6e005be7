"""What the admin pages look at. It is light: it is made at the start, when the pages are not yet loaded."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from proxy.plane import DataPlane
from proxy.runtime.hub import Hub

if TYPE_CHECKING:
    from proxy.tls.identity import IdentityManager
    from proxy.xds.client import AdsClient
    from proxy.xds.session import DeltaSession


class AdminState:
    """The parts of a sidecar; those of a control plane are ``None`` without one."""

    def __init__(self, hub: Hub, plane: DataPlane, drain_listeners: Callable[[], None]) -> None:
        self.hub = hub
        self.plane = plane
        self.drain_listeners = drain_listeners
        self.ready: Callable[[], bool] = lambda: False
        self.identities: IdentityManager | None = None
        self.session: DeltaSession | None = None
        self.ads: AdsClient | None = None
        self.dump_static: Callable[[], Mapping[str, Any]] | None = None
        self.started = time.monotonic()
        self.tasks: set[asyncio.Task[Any]] = set()
