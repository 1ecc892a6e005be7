"""The HTTP/1.1 head scanner: ``scan_request``, ``scan_response`` and the ``Head`` they give.

There are two scanners: ``_scan`` (Cython, built where there is a compiler) takes the plain heads and leaves everything
else to ``pure``, which alone knows what is wrong with a head. ``TULLE_PURE_PYTHON=1`` leaves ``_scan`` out.
"""

from __future__ import annotations

import os

from proxy.http1.pure import MAX_FIELDS, MAX_HEAD_BYTES, Head
from proxy.http1.pure import scan_request as _pure_request
from proxy.http1.pure import scan_response as _pure_response

scan_request = _pure_request
scan_response = _pure_response
ACCELERATED = False
"""Whether ``_scan`` is in use."""

if not os.environ.get("TULLE_PURE_PYTHON"):
    try:
        from proxy.http1._scan import scan_request, scan_response

        ACCELERATED = True
    except ImportError:
        # Installed without a compiler.
        pass

__all__ = ["ACCELERATED", "MAX_FIELDS", "MAX_HEAD_BYTES", "Head", "scan_request", "scan_response"]
