"""How much one client may ask of the API, and the reading of request bodies within that.

Every limit counts when it bites, in ``tulle_api_limited_total{limit=...}``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from control_plane.api.errors import ApiError


@dataclass(frozen=True, slots=True)
class Limits:
    """``body``: bytes of a request; ``body_time``: seconds in which they must arrive; ``depth``: nesting of its JSON.

    ``changeset``: objects in one change set. ``watches``: open watches, all clients together.
    ``watch_write``: seconds that a watcher may take to read what was sent. ``bookmark``: seconds between
    bookmarks. ``retries``: how often an admission is repeated because others changed the same objects
    meanwhile. ``history``: revisions in one answer.
    """

    body: int = 4 << 20
    body_time: float = 30.0
    depth: int = 64
    changeset: int = 5_000
    watches: int = 1_000
    watch_write: float = 30.0
    bookmark: float = 30.0
    retries: int = 5
    history: int = 500


def parse_json(data: bytes, depth: int) -> Mapping[str, Any]:
    """A request body as an object. Strict: no duplicate keys, no NaN, no more nesting than ``depth``.

    Raises :class:`ApiError` (400).
    """
    try:
        body = json.loads(data, object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise too_deep(depth) from None
    except ValueError as error:
        raise ApiError(400, f"the request body is not valid JSON: {error}") from None
    if _deeper_than(body, depth):
        raise too_deep(depth)
    if not isinstance(body, dict):
        raise ApiError(400, "the request body must be a JSON object")
    return body


def too_deep(depth: int) -> ApiError:
    return ApiError(
        400, f"the request body is nested more than {depth} levels deep", details={"limit": "depth"}
    )


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"key {key!r} appears twice in one object")
            seen.add(key)
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _deeper_than(value: Any, depth: int) -> bool:
    level: list[Any] = [value]
    for _ in range(depth):
        level = [
            child
            for item in level
            if isinstance(item, dict | list)
            for child in (item.values() if isinstance(item, dict) else item)
        ]
        if not level:
            return False
    return any(isinstance(item, dict | list) for item in level)
