"""What admission has to say about one field of an object: where, what and which sort.

Reasons are the cause types of the Kubernetes API (``Status.details.causes[].reason``), so that clients which
know those need to learn nothing. This module holds data only; it must not know any kind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Kubernetes' cause types, as far as admission uses them."""

    REQUIRED = "FieldValueRequired"
    INVALID = "FieldValueInvalid"
    TYPE_INVALID = "FieldValueTypeInvalid"
    DUPLICATE = "FieldValueDuplicate"
    NOT_SUPPORTED = "FieldValueNotSupported"
    FORBIDDEN = "FieldValueForbidden"
    TOO_LONG = "FieldValueTooLong"
    TOO_MANY = "FieldValueTooMany"


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong. ``field`` is a path like ``spec.rules[0].matches[1].path.value`` ("" = the object)."""

    field: str
    message: str
    reason: Reason

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


def field_path(loc: Sequence[str | int]) -> str:
    """Join the steps to a field as Kubernetes writes them: ``spec.ports[0].name``, ``metadata.labels[a.b/c]``."""
    path = ""
    for step in loc:
        if isinstance(step, int) or not step.isidentifier():
            path += f"[{step}]"
        else:
            path += f".{step}" if path else step
    return path
