"""What one check came to, and what whoever asks a host is to the one who decides when. No input or output."""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

from proxy.model.health_check import Failure


class Outcome(NamedTuple):
    """``failure`` ``None``: passed. ``retriable``: one such answer is not enough. ``excluded``: the host wants to be
    left out at once (``x-envoy-immediate-health-check-fail``). ``why`` is for people."""

    failure: Failure | None
    why: str = ""
    degraded: bool = False
    retriable: bool = False
    excluded: bool = False


PASSED: Final = Outcome(None)
DEGRADED: Final = Outcome(None, degraded=True)
TIMED_OUT: Final = Outcome("network_timeout", "timeout")


class Prober(Protocol):
    """Asks one host, one question at a time."""

    def ready(self) -> bool:
        """Whether the secrets that it takes have come."""

    async def ask(self) -> Outcome:
        """One check. It may take for ever: whoever asks ends it."""

    def give_up(self) -> None:
        """The check that was asked for took too long."""

    async def rest(self, seconds: float) -> Outcome | None:
        """Wait until the next check; what the host says by itself ends that before its time."""

    def close(self) -> None:
        """End everything at once."""
