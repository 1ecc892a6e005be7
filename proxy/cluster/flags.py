"""What may be wrong with a host, as bits (Envoy's ``Host::HealthFlag``). It decides nothing but what they come to.

``UNREACHABLE`` is Tulle's own: a target of a DNS_SRV cluster that could not be connected to.
"""

from __future__ import annotations

from typing import Final

FAILED_ACTIVE_HC: Final = 0x1
FAILED_EDS_HEALTH: Final = 0x4
DEGRADED_ACTIVE_HC: Final = 0x8
DEGRADED_EDS_HEALTH: Final = 0x10
PENDING_DYNAMIC_REMOVAL: Final = 0x20
PENDING_ACTIVE_HC: Final = 0x40
EXCLUDED_VIA_IMMEDIATE_HC_FAIL: Final = 0x80
ACTIVE_HC_TIMEOUT: Final = 0x100
UNREACHABLE: Final = 0x10000

UNHEALTHY: Final = FAILED_ACTIVE_HC | FAILED_EDS_HEALTH | UNREACHABLE
DEGRADED: Final = DEGRADED_ACTIVE_HC | DEGRADED_EDS_HEALTH
EXCLUDED: Final = PENDING_ACTIVE_HC | EXCLUDED_VIA_IMMEDIATE_HC_FAIL
"""Such a host does not count among those of its priority."""
ACTIVE: Final = (
    FAILED_ACTIVE_HC
    | DEGRADED_ACTIVE_HC
    | PENDING_ACTIVE_HC
    | EXCLUDED_VIA_IMMEDIATE_HC_FAIL
    | ACTIVE_HC_TIMEOUT
)
"""What active health checks say."""

NAMES: Final = (
    (FAILED_ACTIVE_HC, "failed_active_hc"),
    (FAILED_EDS_HEALTH, "failed_eds_health"),
    (DEGRADED_ACTIVE_HC, "degraded_active_hc"),
    (DEGRADED_EDS_HEALTH, "degraded_eds_health"),
    (PENDING_DYNAMIC_REMOVAL, "pending_dynamic_removal"),
    (PENDING_ACTIVE_HC, "pending_active_hc"),
    (EXCLUDED_VIA_IMMEDIATE_HC_FAIL, "excluded_via_immediate_hc_fail"),
    (ACTIVE_HC_TIMEOUT, "active_hc_timeout"),
    (UNREACHABLE, "unreachable"),
)
"""As ``/clusters`` shows them, in this order."""


def text(flags: int) -> str:
    """``healthy``, or what is wrong, each after a slash."""
    return "".join(f"/{name}" for flag, name in NAMES if flags & flag) or "healthy"
