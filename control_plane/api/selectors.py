"""``labelSelector`` and ``fieldSelector`` of list and watch requests, as Kubernetes writes them. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from control_plane.api.errors import ApiError
from control_plane.store.base import Stored

Predicate = Callable[[Mapping[str, str]], bool]
_SPLIT = re.compile(r",(?![^()]*\))")
_SET = re.compile(r"(?P<key>[^\s!=,()]+)\s+(?P<op>in|notin)\s*\((?P<values>[^()]*)\)")
_PAIR = re.compile(r"(?P<key>[^\s!=,()]+)\s*(?P<op>==|=|!=)\s*(?P<value>[^\s!=,()]*)")
_EXISTS = re.compile(r"(?P<op>!?)\s*(?P<key>[^\s!=,()]+)")


def selector(label_selector: str, field_selector: str) -> Callable[[Stored], bool]:
    """Whether an object is selected by both; empty selects all. Raises :class:`ApiError` (400)."""
    labels = [_label(term.strip()) for term in _SPLIT.split(label_selector) if term.strip()]
    fields = [_field(term.strip()) for term in field_selector.split(",") if term.strip()]

    def selects(stored: Stored) -> bool:
        have = stored.body.get("metadata", {}).get("labels") or {}
        named = {"metadata.name": stored.key.name, "metadata.namespace": stored.key.namespace}
        return all(test(have) for test in labels) and all(test(named) for test in fields)

    return selects


def _label(term: str) -> Predicate:
    if match := _SET.fullmatch(term):
        values = [value.strip() for value in match["values"].split(",")]
        return _among(match["key"], values, match["op"] == "in")
    if match := _PAIR.fullmatch(term):
        return _among(match["key"], [match["value"]], match["op"] != "!=")
    if match := _EXISTS.fullmatch(term):
        key, wanted = match["key"], not match["op"]
        return lambda labels: (key in labels) is wanted
    raise ApiError(
        400, f"labelSelector: cannot read {term!r}: use key=value, key!=value, key in (a,b), key or !key"
    )


def _field(term: str) -> Predicate:
    match = _PAIR.fullmatch(term)
    if match is None or match["key"] not in ("metadata.name", "metadata.namespace"):
        raise ApiError(
            400, f"fieldSelector: {term!r}: only metadata.name and metadata.namespace can be selected"
        )
    return _among(match["key"], [match["value"]], match["op"] != "!=")


def _among(key: str, values: Sequence[str], wanted: bool) -> Predicate:
    # As in Kubernetes, "!=" and "notin" also select objects that lack the key.
    return lambda labels: (labels.get(key) in values) is wanted
