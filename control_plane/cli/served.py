"""Finds the kind that a user means (``svc``, ``HTTPRoute``, ``services``) by asking the API."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

from control_plane.cli.connection import CommandFailed, Connection

_ACCEPT = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"


@dataclass(frozen=True, slots=True)
class Served:
    """One resource as the server lists it."""

    group: str
    version: str
    kind: str
    plural: str
    short_names: tuple[str, ...]
    namespaced: bool
    verbs: tuple[str, ...]

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None, name: str | None = None) -> str:
        """The URL path; ``namespace`` ``None`` = all namespaces."""
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        if self.namespaced and namespace is not None:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        if name is not None:
            parts.append(quote(name, safe=""))
        return "/" + "/".join(parts)


def find(connection: Connection, text: str) -> Served:
    """The resource that ``text`` names. Raises :class:`CommandFailed` with a suggestion."""
    served = list(_all(connection))
    wanted = text.lower()
    for resource in served:
        names = {resource.plural, resource.kind.lower(), *resource.short_names}
        if wanted in names or wanted == f"{resource.plural}.{resource.group}":
            return resource
    known = {name: r.plural for r in served for name in (r.plural, r.kind.lower(), *r.short_names)}
    near = difflib.get_close_matches(wanted, known, n=1)
    if near:
        raise CommandFailed(f"there is no kind {text!r}; did you mean {known[near[0]]!r}?")
    kinds = sorted({resource.plural for resource in served})
    raise CommandFailed(f"there is no kind {text!r}; there are {', '.join(kinds)}")


def _all(connection: Connection) -> Iterator[Served]:
    """Every resource in its group's preferred version."""
    for root in ("/api", "/apis"):
        answer = connection.request("GET", root, headers={"Accept": _ACCEPT})
        for group in answer["items"]:
            preferred = group["versions"][0]
            for resource in preferred["resources"]:
                kind = resource["responseKind"]
                yield Served(
                    kind["group"],
                    preferred["version"],
                    kind["kind"],
                    resource["resource"],
                    tuple(resource["shortNames"]),
                    resource["scope"] == "Namespaced",
                    tuple(resource["verbs"]),
                )
