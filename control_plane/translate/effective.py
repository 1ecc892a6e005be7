"""Endpoints as clients must treat them: one whose workload has mutual TLS disabled is called in plaintext.

This module must not make resources.
"""

from __future__ import annotations

from dataclasses import replace

from control_plane.registry.service import MeshEndpoint
from control_plane.translate.mtls import MtlsMode, MtlsPolicies


def effective_endpoints(
    endpoints: tuple[MeshEndpoint, ...], policies: MtlsPolicies
) -> tuple[MeshEndpoint, ...]:
    """``endpoints``, those of disabled ports without their sidecar; the same tuple if nothing differs."""
    if not policies.may_disable:
        return endpoints
    found = tuple(
        replace(endpoint, sidecar=False) if endpoint.sidecar and _disabled(endpoint, policies) else endpoint
        for endpoint in endpoints
    )
    return endpoints if found == endpoints else found


def _disabled(endpoint: MeshEndpoint, policies: MtlsPolicies) -> bool:
    mtls = policies.workload(endpoint.namespace, dict(endpoint.labels))
    return mtls.mode(endpoint.target_port) is MtlsMode.DISABLE


def identities(endpoints: tuple[MeshEndpoint, ...]) -> tuple[tuple[str, str], ...]:
    """The (namespace, service account) pairs of endpoints with a sidecar, sorted."""
    return tuple(sorted({(e.namespace, e.service_account) for e in endpoints if e.sidecar}))
