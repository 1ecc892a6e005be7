"""Which mutual TLS mode holds for a workload's port: PeerAuthentication, the more specific over the more general.

Port of a workload's policy, then workload, namespace, mesh; ``UNSET`` inherits; where nothing is said it is
PERMISSIVE. Of several on one level the oldest counts. This module must not make resources.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from control_plane.api.kinds import PeerAuthentication
from control_plane.api.kinds.meta import selects
from control_plane.registry.entry import Entry
from control_plane.store.base import Key


class MtlsMode(Enum):
    STRICT = "STRICT"
    PERMISSIVE = "PERMISSIVE"
    DISABLE = "DISABLE"


@dataclass(frozen=True, slots=True)
class WorkloadMtls:
    """The modes of one workload. ``keys`` are the PeerAuthentications that decided."""

    default: MtlsMode = MtlsMode.PERMISSIVE
    ports: tuple[tuple[int, MtlsMode], ...] = ()
    keys: frozenset[Key] = frozenset()

    def mode(self, port: int) -> MtlsMode:
        """The mode of the workload's port of that number."""
        return next((mode for number, mode in self.ports if number == port), self.default)


class MtlsPolicies:
    """All PeerAuthentications, indexed. ``entries`` must be ordered oldest first."""

    __slots__ = ("_by_namespace", "_root", "entries", "may_disable")

    def __init__(self, entries: Iterable[Entry], root_namespace: str) -> None:
        self.entries = tuple(entries)
        self._root = root_namespace
        self._by_namespace: dict[str, list[Entry]] = {}
        for entry in self.entries:
            self._by_namespace.setdefault(entry.key.namespace, []).append(entry)
        self.may_disable = any(_says_disable(entry) for entry in self.entries)

    def relevant(self, namespace: str) -> tuple[Entry, ...]:
        """The policies that can matter in a namespace: what a cached result depends on."""
        names = dict.fromkeys((self._root, namespace))
        return tuple(entry for name in names for entry in self._by_namespace.get(name, ()))

    def workload(self, namespace: str, labels: Mapping[str, str]) -> WorkloadMtls:
        """The modes of a workload with these labels."""
        keys: set[Key] = set()
        default = MtlsMode.PERMISSIVE
        for name in dict.fromkeys((self._root, namespace)):
            wide = next((e for e in self._by_namespace.get(name, ()) if not _selector(e)), None)
            if wide is not None and (mode := _mode(wide.model.spec.mtls)) is not None:
                default = mode
                keys.add(wide.key)
        own = next(
            (
                e
                for e in self._by_namespace.get(namespace, ())
                if _selector(e) and selects(_selector(e), labels)
            ),
            None,
        )
        if own is None:
            return WorkloadMtls(default, (), frozenset(keys))
        keys.add(own.key)
        default = _mode(own.model.spec.mtls) or default
        ports = [
            (int(port), _mode(mtls) or default)
            for port, mtls in (own.model.spec.port_level_mtls or {}).items()
        ]
        return WorkloadMtls(default, tuple(sorted(ports, key=lambda item: item[0])), frozenset(keys))


def _selector(entry: Entry) -> Mapping[str, str]:
    model: PeerAuthentication = entry.model
    return model.spec.selector.match_labels if model.spec.selector else {}


def _mode(mtls: object) -> MtlsMode | None:
    mode = getattr(mtls, "mode", "UNSET")
    return None if mode == "UNSET" else MtlsMode(mode)


def _says_disable(entry: Entry) -> bool:
    spec = entry.model.spec
    return any(
        _mode(mtls) is MtlsMode.DISABLE for mtls in (spec.mtls, *(spec.port_level_mtls or {}).values())
    )
