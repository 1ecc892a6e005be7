"""What one event loop has one of: listeners, buffers, the sweeper, the connections, and their common end."""

from __future__ import annotations

from dataclasses import dataclass

from proxy.model.connection import Address
from proxy.observe.log_file import LogFiles
from proxy.runtime.hub import Hub
from proxy.tls.store import SecretStore


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """``max_connections``: open at one time over all listeners; more are closed (``downstream_cx_overflow``)."""

    max_connections: int = 10_000
    reuse_port: bool = False
    bind_any_port: bool = False


class Worker:
    """One loop's data path: it opens the listeners of ``hub.current`` and follows its swaps.

    Every method runs in the worker's loop.
    """

    def __init__(
        self, hub: Hub, secrets: SecretStore, log_files: LogFiles, options: WorkerOptions | None = None
    ) -> None:
        self.hub = hub
        self.secrets = secrets
        self.log_files = log_files
        self.options = options or WorkerOptions()

    async def start(self) -> None:
        """Bind and listen. Raises ``OSError`` naming the listener if an address cannot be bound."""
        raise NotImplementedError

    async def drain(self, timeout: float) -> None:
        """Stop accepting, answer with ``connection: close``, return when all is idle or after ``timeout`` seconds."""
        raise NotImplementedError

    async def stop(self) -> None:
        """Close everything at once and flush the logs."""
        raise NotImplementedError

    def addresses(self) -> dict[str, tuple[Address, ...]]:
        """Where each listener is bound, by its name."""
        raise NotImplementedError
