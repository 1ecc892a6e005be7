"""The two forms of an object: as the store keeps it, and as the API shows it.

What the server decides (uid, times) is stamped on the way in; what it computes (resourceVersion,
generation, status) is added on the way out and never stored. Pure; clock and uids are the caller's.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from control_plane.api.kinds import KindInfo
from control_plane.store.base import Key, Stored

_COMPUTED = ("resourceVersion", "generation", "managedFields", "selfLink")
_UIDS = uuid.UUID("6f1c1f4e-3f0b-5d0a-9a53-74756c6c6500")


class StatusProvider(Protocol):
    """Tells an object's status from what the sidecars acknowledged."""

    def conditions(self, key: Key, generation: int) -> Mapping[str, Any]:
        """The ``status`` of the object at ``generation``, such as ``{"conditions": [...]}``; {} = none."""
        ...


class NoStatus:
    """A provider for control planes that serve no sidecars."""

    def conditions(self, key: Key, generation: int) -> Mapping[str, Any]:
        return {}


def rfc3339(time: float) -> str:
    """Seconds since the epoch as Kubernetes prints times: UTC, whole seconds."""
    return datetime.fromtimestamp(int(time), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def key_of(info: KindInfo, body: Mapping[str, Any], default_namespace: str = "default") -> Key:
    """The key of a valid document."""
    metadata = body["metadata"]
    return Key(info.group, info.plural, metadata.get("namespace") or default_namespace, metadata["name"])


def without_nulls(value: Any) -> Any:
    """A copy in which absent and ``null`` fields are the same, as the Kubernetes API has it."""
    if isinstance(value, Mapping):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [without_nulls(item) for item in value]
    return value


def to_stored(
    info: KindInfo, key: Key, body: Mapping[str, Any], previous: Stored | None, *, now: float, uid: str
) -> dict[str, Any]:
    """The document to store for ``body``: one version, one order, the server's metadata, no computed fields.

    ``uid`` is used only if there is no ``previous``.
    """
    clean = without_nulls(body)
    metadata = {name: value for name, value in clean["metadata"].items() if name not in _COMPUTED}
    kept = previous.body.get("metadata", {}) if previous else {"uid": uid, "creationTimestamp": rfc3339(now)}
    metadata |= {"name": key.name, "namespace": key.namespace}
    for name in ("uid", "creationTimestamp"):
        metadata.pop(name, None)
        if name in kept:
            metadata[name] = kept[name]
    rest = {
        name: value
        for name, value in clean.items()
        if name not in ("apiVersion", "kind", "metadata", "status")
    }
    return {"apiVersion": info.api_version, "kind": info.kind, "metadata": metadata, **rest}


def to_shown(
    info: KindInfo, stored: Stored, status: Mapping[str, Any], version: str | None = None
) -> dict[str, Any]:
    """The document that clients get. ``version``: the API version of the request's path."""
    metadata = dict(stored.body.get("metadata", {}))
    # Objects that the control plane itself wrote need not carry a uid; clients compare it, so it must be stable.
    metadata.setdefault("uid", str(uuid.uuid5(_UIDS, f"{stored.key}@{stored.created}")))
    metadata |= {"resourceVersion": str(stored.revision), "generation": stored.generation}
    served = version or info.version
    shown = {
        **stored.body,
        "apiVersion": f"{info.group}/{served}" if info.group else served,
        "kind": info.kind,
        "metadata": metadata,
    }
    if status:
        shown["status"] = dict(status)
    return shown


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7396: ``null`` deletes, objects merge, anything else replaces."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge_patch(result.get(name), value)
    return result
