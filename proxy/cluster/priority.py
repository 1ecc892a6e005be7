"""How load is spread over priorities: Envoy's overprovisioning and panic arithmetic as a pure function.

https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/priority, in whole percents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PriorityHosts:
    """How many hosts a priority has, and how many of them are healthy and degraded (the rest is unhealthy).

    Hosts that do not count, as they have yet to be checked, are in none of these.
    """

    total: int
    healthy: int
    degraded: int = 0


@dataclass(frozen=True, slots=True)
class PriorityLoad:
    """Percent of the requests for the healthy and for the degraded hosts of each priority, and which are in panic.

    All percents together are 100. A priority in panic sends its ``healthy`` share to all of its hosts.
    """

    healthy: tuple[int, ...]
    degraded: tuple[int, ...]
    panic: tuple[bool, ...]


def spread(
    priorities: Sequence[PriorityHosts], *, overprovisioning_factor: int = 140, panic_threshold: float = 50.0
) -> PriorityLoad:
    """The load of each priority. ``overprovisioning_factor`` and ``panic_threshold`` are percents; 0 = no panic."""
    health = [_availability(p.healthy, p.total, overprovisioning_factor) for p in priorities]
    degradation = [_availability(p.degraded, p.total, overprovisioning_factor) for p in priorities]
    available = min(100, sum(health) + sum(degradation))

    healthy, left = _distribute(health, 100, available)
    degraded, left = _distribute(degradation, left, available)
    if available and left:  # rounding goes to the first that can take anything
        share, room = (healthy, health) if any(health) else (degraded, degradation)
        share[next(i for i, a in enumerate(room) if a)] += left

    none = (False,) * len(priorities)
    if not available and not panic_threshold:
        # Envoy: the sum must be 100, so it is given to priority 0, whose (empty) healthy hosts then give no host.
        return PriorityLoad((100,) + (0,) * (len(priorities) - 1), (0,) * len(priorities), none)
    panic = none if available == 100 else tuple(_in_panic(p, panic_threshold) for p in priorities)
    if all(panic):
        healthy, degraded = _total_panic(priorities), [0] * len(priorities)
    return PriorityLoad(tuple(healthy), tuple(degraded), panic)


def _availability(count: int, total: int, factor: int) -> int:
    return min(100, factor * count // total) if total else 0


def _distribute(availability: Sequence[int], load: int, available: int) -> tuple[list[int], int]:
    shares = []
    for a in availability:
        share = min(load, a * 100 // available) if available else 0
        load -= share
        shares.append(share)
    return shares, load


def _in_panic(hosts: PriorityHosts, threshold: float) -> bool:
    percent = 100.0 * (hosts.healthy + hosts.degraded) / hosts.total if hosts.total else 0.0
    return percent < threshold


def _total_panic(priorities: Sequence[PriorityHosts]) -> list[int]:
    total = sum(p.total for p in priorities)
    if not total:
        return [100] + [0] * (len(priorities) - 1)
    shares = [100 * p.total // total for p in priorities]
    shares[next(i for i, p in enumerate(priorities) if p.total)] += 100 - sum(shares)
    return shares
