"""Which endpoints a Service has: those of its EndpointSlices and the WorkloadEntries that its selector finds. Pure.

Where both name the same address and port, the WorkloadEntry wins, as it knows the workload's identity; a slice's
endpoint that has the address of some WorkloadEntry of its namespace takes that one's identity.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence

from control_plane.api.kinds.discovery import EndpointSlice
from control_plane.api.kinds.istio_networking import WorkloadEntry, WorkloadEntrySpec
from control_plane.registry.service import MeshEndpoint, MeshPort

TLS_MODE_LABEL = "security.istio.io/tlsMode"
"""The label with which a workload says that it speaks mutual TLS (Istio's name for it)."""
TLS_MODE = "tulle"
_TLS_MODES = frozenset({TLS_MODE, "istio"})

DEFAULT_ACCOUNT = "default"


def has_sidecar(labels: Mapping[str, str]) -> bool:
    """Whether a workload with these labels speaks the mesh's mutual TLS."""
    return labels.get(TLS_MODE_LABEL) in _TLS_MODES


def canonical(address: str) -> str:
    """An IP address in its shortest form, so that equal addresses are equal strings."""
    return str(ipaddress.ip_address(address))


def workload_port(spec: WorkloadEntrySpec, port: MeshPort) -> tuple[int, int] | None:
    """Where ``port`` is on that workload: (port to dial, port that its policies speak of), or ``None``.

    ``spec.ports`` overrides, by the target's name or number, or by the service port's name. A named target that the
    workload does not list is nowhere.
    """
    named = isinstance(port.target, str)
    declared = spec.ports.get(str(port.target))
    if declared is None and port.name:
        declared = spec.ports.get(port.name)
    if declared is None:
        return None if named else (int(port.target), int(port.target))
    return declared, (declared if named else int(port.target))


def workload_endpoint(entry: WorkloadEntry, port: MeshPort) -> MeshEndpoint | None:
    """The endpoint of ``port`` on that workload, or ``None`` when it does not have the port."""
    place = workload_port(entry.spec, port)
    if place is None:
        return None
    dial, target = place
    return endpoint(entry.spec, entry.metadata.namespace, canonical(entry.spec.address), dial, target)


def endpoint(
    spec: WorkloadEntrySpec, namespace: str, address: str, port: int, target_port: int
) -> MeshEndpoint:
    """An endpoint with that workload's identity, labels, weight and locality."""
    sidecar = has_sidecar(spec.labels)
    return MeshEndpoint(
        address=address,
        port=port,
        target_port=target_port,
        namespace=namespace,
        service_account=(spec.service_account or DEFAULT_ACCOUNT) if sidecar else spec.service_account,
        sidecar=sidecar,
        weight=spec.weight or 1,
        locality=spec.locality,
        labels=tuple(sorted(spec.labels.items())),
    )


def service_endpoints(
    port: MeshPort,
    slices: Sequence[EndpointSlice],
    selected: Iterable[WorkloadEntry],
    by_address: Mapping[str, WorkloadEntry],
    *,
    not_ready: bool,
) -> tuple[MeshEndpoint, ...]:
    """All endpoints of one port, ordered by address and port; ``not_ready`` includes those that are not ready."""
    found: dict[tuple[str, int], MeshEndpoint] = {}
    for entry in selected:
        if (one := workload_endpoint(entry, port)) is not None:
            found.setdefault((one.address, one.port), one)
    for piece in slices:
        number = next((p.port for p in piece.ports if p.name == port.name and p.protocol == "TCP"), None)
        if number is None:
            continue
        for item in piece.endpoints:
            if item.conditions.ready is False and not not_ready:
                continue
            address = canonical(item.addresses[0])
            known = by_address.get(address)
            if known is not None:
                one = endpoint(known.spec, known.metadata.namespace, address, number, number)
            else:
                one = MeshEndpoint(
                    address, number, number, piece.metadata.namespace, locality=item.zone or ""
                )
            found.setdefault((address, number), one)
    return tuple(found[place] for place in sorted(found))
