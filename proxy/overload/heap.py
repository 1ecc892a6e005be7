"""The heap's part in latency and memory: what is to stay is out of the collector's way, what is free goes back."""

from __future__ import annotations

import gc
import logging

log = logging.getLogger(__name__)


def freeze_heap() -> None:
    """Take all there is now for permanent, and collect seldom from now on.

    A large configuration makes each full collection cost milliseconds in the middle of requests; frozen, it costs
    nothing. Requests leave few cycles behind: looking for them at every 700 allocations costs more than it frees.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    gc.enable()


def shrink_heap() -> None:
    """Collect cycles, then have the allocator return free pages. Without glibc only the first.

    It takes tens of milliseconds.
    """
    # Not needed to serve: it would only make the start slower.
    import ctypes

    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        log.debug("the C library has no malloc_trim: free memory stays with the process")
        return
    trim(0)
