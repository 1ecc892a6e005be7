"""The heap's part in latency and memory: what is to stay is out of the collector's way, what is free goes back."""

from __future__ import annotations

import gc
import logging

log = logging.getLogger(__name__)

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGE = 1024 * 1024
_KEPT = 8 * 1024 * 1024


def keep_read_buffers() -> None:
    """Have the allocator keep freed blocks of up to 1 MiB, and 8 MiB in all.

    The loop reads up to 250 kB at a time. Without this each such block is mapped and unmapped, which takes half of
    the time of a bulk transfer. Without glibc nothing is done.
    """
    # Not needed to serve: it would only make the start slower.
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        log.debug("the C library has no mallopt")
        return
    mallopt(_M_MMAP_THRESHOLD, _LARGE)
    mallopt(_M_TRIM_THRESHOLD, _KEPT)


def freeze_heap() -> None:
    """Take all there is now for permanent, and collect seldom from now on; keep memory for reading.

    A large configuration makes each full collection cost milliseconds in the middle of requests; frozen, it costs
    nothing. Requests leave few cycles behind: looking for them at every 700 allocations costs more than it frees.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    gc.enable()
    keep_read_buffers()


def shrink_heap() -> None:
    """Collect cycles, then have the allocator return free pages. Without glibc only the first.

    It takes tens of milliseconds.
    """
    import ctypes

    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        log.debug("the C library has no malloc_trim: free memory stays with the process")
        return
    trim(0)
