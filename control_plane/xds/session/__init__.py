"""ADS sessions as pure state machines: requests and snapshots go in, responses and verdicts come out.

One session is one stream. It must not do input or output, read a clock or know which node it serves.
Source: Envoy's "xDS REST and gRPC protocol" document, and what real clients do (see the tests).
"""

from __future__ import annotations

from control_plane.xds.session.actions import Acked, Action, Nacked, Response, Send
from control_plane.xds.session.base import Session, SessionLimits, TooManySubscriptions
from control_plane.xds.session.delta import DeltaSession
from control_plane.xds.session.sotw import SotwSession

__all__ = [
    "Acked",
    "Action",
    "DeltaSession",
    "Nacked",
    "Response",
    "Send",
    "Session",
    "SessionLimits",
    "SotwSession",
    "TooManySubscriptions",
]
