"""The JoinToken resource of ``mesh.tulle.io/v1``: checking what a user sent, showing what is stored. Pure.

``spec.serviceAccount`` (required), ``spec.ttl`` (a duration such as ``1h30m``; default 1h), ``spec.uses``
(default 1). It must not store anything; the secret and its hash never appear in what it shows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from control_plane.ca.tokens import GROUP, KIND, VERSION, TokenRequest
from control_plane.store.base import Stored

API_VERSION = f"{GROUP}/{VERSION}"
DEFAULT_TTL = timedelta(hours=1)
MAX_TTL = timedelta(days=30)
MAX_USES = 1000

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_SUBDOMAIN = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*", re.ASCII)
_DURATION = re.compile(r"([0-9]{1,5}(h|m|s|ms)){1,4}", re.ASCII)
_DURATION_PART = re.compile(r"([0-9]{1,5})(ms|h|m|s)", re.ASCII)
_UNITS = {"h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}


@dataclass(frozen=True, slots=True)
class Cause:
    """One problem: the field's path, what is wrong, and the Kubernetes cause reason."""

    field: str
    message: str
    reason: str = "FieldValueInvalid"


class InvalidResource(ValueError):
    """The resource has problems; ``causes`` holds all of them."""

    def __init__(self, causes: tuple[Cause, ...]) -> None:
        super().__init__("; ".join(f"{cause.field}: {cause.message}" for cause in causes))
        self.causes = causes


def parse(body: object, namespace: str) -> TokenRequest:
    """Read a JoinToken that is to be created in ``namespace``. Raises :class:`InvalidResource` with every problem."""
    causes: list[Cause] = []
    if _LABEL.fullmatch(namespace) is None:
        causes.append(Cause("metadata.namespace", f"{namespace[:80]!r} is not a DNS label (RFC 1123)"))
    if not isinstance(body, dict):
        raise InvalidResource((*causes, Cause("", "expected a JSON object", "FieldValueTypeInvalid")))
    _unknown(body, "", {"apiVersion", "kind", "metadata", "spec", "status"}, causes)
    for name, value in (("apiVersion", API_VERSION), ("kind", KIND)):
        if body.get(name, value) != value:
            causes.append(Cause(name, f"must be {value!r}", "FieldValueNotSupported"))
    metadata = body.get("metadata", {})
    if not isinstance(metadata, dict):
        causes.append(Cause("metadata", "expected an object", "FieldValueTypeInvalid"))
    else:
        if metadata.get("namespace", namespace) != namespace:
            causes.append(Cause("metadata.namespace", f"must be {namespace!r}, the namespace of the request"))
        if "name" in metadata:
            causes.append(Cause("metadata.name", "cannot be chosen: a token's name is made with it"))
    account, ttl, uses = _spec(body.get("spec"), causes)
    if causes:
        raise InvalidResource(tuple(causes))
    return TokenRequest(namespace, account, ttl, uses)


def _spec(spec: object, causes: list[Cause]) -> tuple[str, timedelta, int]:
    ttl, uses = DEFAULT_TTL, 1
    if not isinstance(spec, dict):
        causes.append(Cause("spec", "required: an object with serviceAccount", "FieldValueRequired"))
        return "", ttl, uses
    _unknown(spec, "spec.", {"serviceAccount", "ttl", "uses"}, causes)
    account = spec.get("serviceAccount")
    if account is None:
        causes.append(Cause("spec.serviceAccount", "required", "FieldValueRequired"))
    elif not isinstance(account, str) or len(account) > 253 or _SUBDOMAIN.fullmatch(account) is None:
        causes.append(
            Cause("spec.serviceAccount", f"{str(account)[:80]!r} is not a DNS subdomain (RFC 1123)")
        )
    if "ttl" in spec:
        parsed = duration(spec["ttl"])
        if parsed is None:
            causes.append(Cause("spec.ttl", f"{str(spec['ttl'])[:80]!r} is not a duration such as '1h30m'"))
        elif not timedelta(0) < parsed <= MAX_TTL:
            causes.append(Cause("spec.ttl", f"must be more than 0 and at most {MAX_TTL.days * 24}h"))
        else:
            ttl = parsed
    if "uses" in spec:
        given = spec["uses"]
        if isinstance(given, bool) or not isinstance(given, int) or not 1 <= given <= MAX_USES:
            causes.append(Cause("spec.uses", f"must be a whole number from 1 to {MAX_USES}"))
        else:
            uses = given
    return str(account), ttl, uses


def _unknown(body: Mapping[str, Any], prefix: str, known: set[str], causes: list[Cause]) -> None:
    for name in sorted(body.keys() - known):
        causes.append(Cause(f"{prefix}{name[:80]}", "unknown field", "FieldValueInvalid"))


def duration(text: object) -> timedelta | None:
    """A duration as the Gateway API writes it (GEP-2257: up to four ``<number>h|m|s|ms``), or ``None``."""
    if not isinstance(text, str) or _DURATION.fullmatch(text) is None:
        return None
    total = sum(int(number) * _UNITS[unit] for number, unit in _DURATION_PART.findall(text))
    return timedelta(milliseconds=total)


def show(body: Mapping[str, Any], *, revision: int | None = None, token: str | None = None) -> dict[str, Any]:
    """A token as the API shows it; ``token`` is the secret string, given once, in the answer to its creation."""
    metadata = dict(body["metadata"])
    if revision is not None:
        metadata["resourceVersion"] = str(revision)
    status: dict[str, Any] = {name: value for name, value in body["status"].items() if name != "secretHash"}
    if token is not None:
        status["token"] = token
    return {**body, "metadata": metadata, "spec": dict(body["spec"]), "status": status}


def show_list(stored: list[Stored], revision: int) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSION,
        "kind": f"{KIND}List",
        "metadata": {"resourceVersion": str(revision)},
        "items": [show(item.body, revision=item.revision) for item in stored],
    }
