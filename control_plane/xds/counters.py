"""What the xDS server counts. Plain numbers that only grow; the metrics page reads them."""

from __future__ import annotations

from control_plane.metrics import Metrics

_TEXTS = {
    "streams": "ADS streams that were accepted.",
    "streams_refused": "ADS streams refused because too many were open.",
    "streams_unidentified": "ADS streams refused because certificate and node do not agree.",
    "nodes_refused": "ADS streams refused because the node cannot be used or is too large.",
    "requests_too_large": "Discovery requests above the size limit.",
    "subscriptions_refused": "ADS streams ended because they asked for too many names or types.",
    "requests_malformed": "Discovery requests that are no protobuf message, or name no type.",
    "requests_stale": "Discovery requests that answered an older response than the last.",
    "responses": "Discovery responses sent.",
    "acks": "Discovery responses that clients accepted.",
    "nacks": "Discovery responses that clients refused.",
    "holds_expired": "Times that a change stopped waiting for a subscription that did not come.",
    "pushes": "Rounds in which new configuration was made.",
    "push_failures": "Views or nodes that could not be translated; the old configuration was kept.",
    "store_failures": "Times that reading or watching the store failed.",
    "registration_failures": "Times that a workload entry could not be written.",
}


class XdsCounters:
    """One attribute per key of the texts above."""

    streams: int
    streams_refused: int
    streams_unidentified: int
    nodes_refused: int
    requests_too_large: int
    subscriptions_refused: int
    requests_malformed: int
    requests_stale: int
    responses: int
    acks: int
    nacks: int
    holds_expired: int
    pushes: int
    push_failures: int
    store_failures: int
    registration_failures: int

    __slots__ = tuple(_TEXTS)

    def __init__(self) -> None:
        for name in _TEXTS:
            setattr(self, name, 0)

    def register(self, metrics: Metrics) -> None:
        """Show all as ``tulle_xds_<name>_total``."""
        for name, text in _TEXTS.items():
            metrics.reading(f"tulle_xds_{name}_total", text, lambda name=name: getattr(self, name))  # type: ignore[misc]
