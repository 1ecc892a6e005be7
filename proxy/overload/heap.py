"""Give memory back to the system. Slow (tens of milliseconds): for ``shrink_heap`` alone."""

from __future__ import annotations

import gc
import logging

log = logging.getLogger(__name__)


def shrink_heap() -> None:
    """Collect cycles, then have the allocator return free pages. Without glibc only the first."""
    # Not needed to serve: it would only make the start slower.
    import ctypes

    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None:
        log.debug("the C library has no malloc_trim: free memory stays with the process")
        return
    trim(0)
