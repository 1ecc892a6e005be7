"""``metadata`` as every object has it, and selectors over labels.

Fields that a server writes (uid, resourceVersion, ...) are accepted, so that what ``get`` printed can be applied.
This module must not know any kind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field

from control_plane.api.kinds.problem import Reason
from control_plane.api.kinds.schema import (
    Breach,
    DnsLabel,
    DnsSubdomain,
    Int,
    Model,
    is_qualified_name,
    label_breaches,
    not_yet,
)

ANNOTATIONS_LIMIT = 256 * 1024
"""Bytes of all annotation keys and values together, as in Kubernetes."""


class ObjectMeta(Model):
    """Kubernetes ``ObjectMeta``, without what this mesh does not do (finalizers, owner references)."""

    name: DnsSubdomain
    namespace: DnsLabel = "default"
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}
    uid: str | None = None
    resource_version: str | None = None
    generation: Int | None = None
    creation_timestamp: str | None = None
    managed_fields: tuple[Mapping[str, Any], ...] | None = None
    self_link: str | None = None
    generate_name: Annotated[Any, not_yet("give the object a name")] = None
    finalizers: Annotated[Any, not_yet("deletion is immediate")] = None
    owner_references: Annotated[Any, not_yet("objects are not deleted with their owner")] = None

    def rules(self) -> Iterator[Breach]:
        yield from label_breaches(("labels",), self.labels)
        for key in self.annotations:
            if not is_qualified_name(key):
                yield Breach(("annotations", key), f"{key!r} is not a valid annotation key")
        size = sum(len(k.encode()) + len(v.encode()) for k, v in self.annotations.items())
        if size > ANNOTATIONS_LIMIT:
            yield Breach(
                ("annotations",),
                f"annotations have {size} bytes, more than {ANNOTATIONS_LIMIT}",
                Reason.TOO_LONG,
            )


class Resource(Model):
    """Base of every kind: type, metadata and an ignored ``status`` (status is computed, never applied)."""

    api_version: str
    kind: str
    metadata: ObjectMeta
    status: Mapping[str, Any] | None = None


class WorkloadSelector(Model):
    """Istio's selector of security policies: all of ``matchLabels`` must be on the workload."""

    match_labels: Annotated[Mapping[str, str], Field(max_length=4096)] = {}

    def rules(self) -> Iterator[Breach]:
        for key, value in self.match_labels.items():
            if not key:
                yield Breach(("matchLabels", key), "a label key must not be empty")
            elif "*" in key or "*" in value:
                yield Breach(("matchLabels", key), "wildcards are not allowed in labels to match")
            else:
                yield from label_breaches(("matchLabels",), {key: value})


def selects(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether every pair of ``selector`` is among ``labels`` (an empty selector selects everything)."""
    return all(labels.get(key) == value for key, value in selector.items())
