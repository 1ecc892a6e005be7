"""What a session tells its shell to do or to know."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Response:
    """What one discovery response holds. ``resources``: name -> version; ``removed``: only in delta."""

    type_url: str
    nonce: str
    version: str
    resources: Mapping[str, str]
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Send:
    """Write ``frame``, a serialised (Delta)DiscoveryResponse, to the stream."""

    response: Response
    frame: bytes


@dataclass(frozen=True, slots=True)
class Acked:
    """The client uses ``response``."""

    response: Response


@dataclass(frozen=True, slots=True)
class Nacked:
    """The client refused ``response``, perhaps only in part. ``code`` is a google.rpc code, ``error`` its words."""

    response: Response
    code: int
    error: str


Action = Send | Acked | Nacked
