"""Envoy's ``/config_dump``: what was received, as it was received, private keys left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxy.admin.state import AdminState

_ADMIN = "type.googleapis.com/envoy.admin.v3."
REDACTED = "[redacted]"


def config_dump(state: AdminState) -> dict[str, Any]:
    """``ConfigDump`` as JSON-ready data: one section for each type of resource."""
    if state.dump_static is not None:
        section = {"@type": f"{_ADMIN}BootstrapConfigDump", "bootstrap": state.dump_static()}
        return {"configs": [section]}
    session = state.session
    if session is None:
        return {"configs": []}
    # Who has a session has loaded these; the others must not.
    from proxy.xds.decode import resources as kinds

    sections = (
        (kinds.CLUSTER, "ClustersConfigDump", "dynamic_active_clusters", "cluster"),
        (kinds.ENDPOINT, "EndpointsConfigDump", "dynamic_endpoint_configs", "endpoint_config"),
        (kinds.LISTENER, "ListenersConfigDump", "dynamic_listeners", "listener"),
        (kinds.ROUTE, "RoutesConfigDump", "dynamic_route_configs", "route_config"),
        (kinds.SECRET, "SecretsConfigDump", "dynamic_active_secrets", "secret"),
    )
    configs = []
    for url, kind, field, inner in sections:
        entries: list[dict[str, Any]] = []
        for name, held in sorted(session.held[url].items()):
            body = {"@type": url, **redact(_as_json(kinds.KINDS[url].message, held.any))}
            entry: dict[str, Any] = {"version_info": held.version, inner: body}
            if url == kinds.LISTENER:
                entry = {"name": name, "active_state": entry}
            entries.append(entry)
        configs.append({"@type": f"{_ADMIN}{kind}", field: entries})
    return {"configs": configs}


def static_dump(bootstrap: Any) -> Any:
    """The content of a ``Bootstrap`` message."""
    return redact(_json(bootstrap))


def _as_json(cls: Any, any_message: Any) -> dict[str, Any]:
    return _json(cls.FromString(any_message.value))


def _json(message: Any) -> dict[str, Any]:
    from google.protobuf import json_format

    return dict(json_format.MessageToDict(message, preserving_proto_field_name=True))


def redact(value: Any) -> Any:
    """``value`` with every private key's content replaced."""
    if isinstance(value, Mapping):
        return {k: _redacted(v) if k == "private_key" else redact(v) for k, v in value.items()}
    if isinstance(value, list):
        return [redact(item) for item in value]
    return value


def _redacted(source: Any) -> Any:
    """A data source that still says which file it names, but not what is in it."""
    if isinstance(source, Mapping) and "filename" in source:
        return source
    return {"inline_bytes": REDACTED}
