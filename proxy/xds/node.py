"""How a sidecar introduces itself: ``core.v3.Node`` with the metadata that the control plane reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from envoy.config.core.v3 import base_pb2


@dataclass(frozen=True, slots=True)
class InboundListener:
    """An explicit inbound listener (mode NONE): where others call, and where the app is; both ``ip:port``."""

    bind: str
    default_endpoint: str
    name: str = "http"
    protocol: str = "HTTP"

    @property
    def port(self) -> int:
        """The app's port."""
        return int(self.default_endpoint.rpartition(":")[2])


@dataclass(frozen=True, slots=True)
class EgressListener:
    """An explicit outbound listener (mode NONE) for one service. ``bind`` is ``ip:port``."""

    bind: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """Who this sidecar is and how it gets its traffic. ``capture_mark`` 0: no socket mark."""

    name: str
    namespace: str
    service_account: str
    ips: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    interception_mode: Literal["REDIRECT", "NONE"] = "NONE"
    capture_mark: int = 0
    inbound: tuple[InboundListener, ...] = ()
    outbound_bind: str = ""
    egress: tuple[EgressListener, ...] = ()
    access_log: str = "/dev/stdout"
    mesh_domain: str = "mesh.local"
    user_agent: str = "tulle"
    version: str = ""


def build(options: NodeOptions) -> Any:
    """The ``Node`` message."""
    node = base_pb2.Node(
        id=node_id(options),
        cluster=node_cluster(options),
        user_agent_name=options.user_agent,
        user_agent_version=options.version,
    )
    node.metadata.update(metadata(options))
    return node


def node_id(options: NodeOptions) -> str:
    """In Istio's form ``sidecar~<ip>~<name>.<namespace>~<domain>``."""
    ip = options.ips[0] if options.ips else "127.0.0.1"
    namespace = options.namespace
    return f"sidecar~{ip}~{options.name}.{namespace}~{namespace}.svc.{options.mesh_domain}"


def node_cluster(options: NodeOptions) -> str:
    """``<service account>.<namespace>``."""
    return f"{options.service_account}.{options.namespace}"


def metadata(options: NodeOptions) -> dict[str, Any]:
    """The node's metadata as plain JSON."""
    metadata: dict[str, Any] = {
        "NAME": options.name,
        "NAMESPACE": options.namespace,
        "SERVICE_ACCOUNT": options.service_account,
        "LABELS": dict(options.labels),
        "INSTANCE_IPS": ",".join(options.ips),
        "INTERCEPTION_MODE": options.interception_mode,
        "ACCESS_LOG": options.access_log,
    }
    if options.capture_mark:
        metadata["CAPTURE_MARK"] = options.capture_mark
    if options.inbound:
        metadata["INBOUND"] = [
            {
                "bind": listener.bind,
                "defaultEndpoint": listener.default_endpoint,
                "port": {"name": listener.name, "number": listener.port, "protocol": listener.protocol},
            }
            for listener in options.inbound
        ]
    if options.outbound_bind:
        metadata["OUTBOUND_BIND"] = options.outbound_bind
    if options.egress:
        metadata["EGRESS"] = [{"bind": e.bind, "host": e.host, "port": e.port} for e in options.egress]
    return metadata
