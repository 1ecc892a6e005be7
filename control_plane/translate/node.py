"""Who asks: an xDS node, parsed. Every metadata field that is there must make sense, or the node is refused.

See ``docs`` for the fields; they are what ``tulle proxy`` sends and what an Envoy's bootstrap must say. This module
must not know the registry.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from google.protobuf import json_format

from control_plane.api.kinds.problem import Problem, Reason

INBOUND_PROTOCOLS = ("HTTP", "HTTP2", "GRPC", "TCP")
INBOUND_LIMIT = 256
EGRESS_LIMIT = 256


class NodeError(ValueError):
    """The node's id or metadata cannot be used; ``problems`` names every field."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(str(problem) for problem in problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class HostPort:
    """An IP address and a port to bind or dial."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class InboundPort:
    """A port of the app, its protocol one of ``INBOUND_PROTOCOLS``. The addresses are set in mode NONE only."""

    name: str
    number: int
    protocol: str
    bind: HostPort | None = None
    default_endpoint: HostPort | None = None


@dataclass(frozen=True, slots=True)
class Egress:
    """A local listener (mode NONE) that leads to one service's port."""

    bind: HostPort
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Node:
    """A sidecar. ``labels`` are its workload's; ``capture_mark`` is the SO_MARK of its own sockets, 0 = none."""

    id: str
    name: str
    namespace: str
    service_account: str
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    addresses: tuple[str, ...] = ()
    mode: Literal["REDIRECT", "NONE"] = "REDIRECT"
    capture_mark: int = 0
    inbound: tuple[InboundPort, ...] = ()
    outbound_bind: HostPort | None = None
    egress: tuple[Egress, ...] = ()
    access_log: str = ""
    agent: str = "tulle"
    cluster: str = ""

    @property
    def ipv6(self) -> bool:
        """Whether to listen on IPv6 too: one of its addresses is, or it names none."""
        return not self.addresses or any(":" in address for address in self.addresses)

    @property
    def workload_domain(self) -> str:
        """``<name>.<namespace>``, for messages."""
        return f"{self.name}.{self.namespace}"


def parse_xds_node(message: Any) -> Node:
    """An ``envoy.config.core.v3.Node`` as a :class:`Node`. Raises :class:`NodeError`."""
    metadata = json_format.MessageToDict(message.metadata)
    return parse_node(message.id, message.cluster, metadata, message.user_agent_name)


def parse_node(node_id: str, cluster: str, metadata: Mapping[str, Any], agent: str) -> Node:
    """A node from its parts, ``metadata`` as plain JSON. Raises :class:`NodeError` naming every bad field."""
    read = _Reader(metadata)
    if not node_id:
        read.problems.append(Problem("node.id", "is required", Reason.REQUIRED))
    mode = read.text("INTERCEPTION_MODE", default="REDIRECT")
    if mode not in ("REDIRECT", "NONE"):
        read.fail("INTERCEPTION_MODE", f"{mode!r} must be REDIRECT or NONE")
    explicit = mode == "NONE"
    node = Node(
        id=node_id,
        name=read.text("NAME"),
        namespace=read.text("NAMESPACE"),
        service_account=read.text("SERVICE_ACCOUNT"),
        labels=read.labels(),
        addresses=read.addresses(),
        mode="NONE" if explicit else "REDIRECT",
        capture_mark=read.number("CAPTURE_MARK", 0, 2**31 - 1, default=0),
        inbound=read.inbound(explicit),
        outbound_bind=read.bind(metadata.get("OUTBOUND_BIND"), "OUTBOUND_BIND"),
        egress=read.egress(),
        access_log=read.text("ACCESS_LOG", default=""),
        agent=agent,
        cluster=cluster,
    )
    if not explicit:
        for field in ("OUTBOUND_BIND", "EGRESS"):
            if metadata.get(field):
                read.fail(field, "needs INTERCEPTION_MODE NONE")
    binds = [p.bind for p in node.inbound if p.bind] + [e.bind for e in node.egress]
    binds += [node.outbound_bind] if node.outbound_bind else []
    for bind in sorted({str(b) for b in binds if binds.count(b) > 1}):
        read.fail("INBOUND", f"{bind} is bound twice (see also EGRESS and OUTBOUND_BIND)")
    if read.problems:
        raise NodeError(read.problems)
    return node


class _Reader:
    """Reads metadata fields and collects what is wrong with them."""

    __slots__ = ("metadata", "problems")

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self.metadata = metadata
        self.problems: list[Problem] = []

    def fail(self, field: str, message: str, reason: Reason = Reason.INVALID) -> None:
        self.problems.append(Problem(f"node.metadata.{field}", message, reason))

    def text(self, field: str, default: str | None = None) -> str:
        value = self.metadata.get(field)
        if value in (None, ""):
            if default is None:
                self.fail(field, "is required", Reason.REQUIRED)
            return default or ""
        if not isinstance(value, str):
            self.fail(field, "must be a string", Reason.TYPE_INVALID)
            return ""
        return value

    def number(self, field: str, low: int, high: int, default: int | None = None) -> int:
        return self._number(self.metadata.get(field), field, low, high, default)

    def labels(self) -> Mapping[str, str]:
        value = self.metadata.get("LABELS", {})
        if not isinstance(value, Mapping) or not all(isinstance(v, str) for v in value.values()):
            self.fail("LABELS", "must map strings to strings", Reason.TYPE_INVALID)
            return MappingProxyType({})
        return MappingProxyType(dict(sorted(value.items())))

    def addresses(self) -> tuple[str, ...]:
        found = []
        for part in filter(None, (p.strip() for p in self.text("INSTANCE_IPS", default="").split(","))):
            try:
                found.append(str(ipaddress.ip_address(part)))
            except ValueError:
                self.fail("INSTANCE_IPS", f"{part!r} must be an IP address (several are joined by ',')")
        return tuple(dict.fromkeys(found))

    def bind(self, value: Any, field: str) -> HostPort | None:
        if value in (None, ""):
            return None
        host, _, port = str(value).rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        try:
            if not isinstance(value, str) or not port.isdecimal() or not 1 <= int(port) <= 65535:
                raise ValueError
            return HostPort(str(ipaddress.ip_address(host)), int(port))
        except ValueError:
            self.fail(field, f"{value!r} must be ADDRESS:PORT with an IP address, like 127.0.0.1:18080")
            return None

    def inbound(self, explicit: bool) -> tuple[InboundPort, ...]:
        def one(item: Mapping[str, Any], field: str) -> InboundPort | None:
            port = item.get("port")
            if not isinstance(port, Mapping):
                self.fail(f"{field}.port", "is required: {name, number, protocol}", Reason.REQUIRED)
                return None
            number = self._number(port.get("number"), f"{field}.port.number", 1, 65535)
            protocol = str(port.get("protocol", "TCP")).upper()
            if protocol not in INBOUND_PROTOCOLS:
                message = f"{protocol!r} must be one of {', '.join(INBOUND_PROTOCOLS)}"
                self.fail(f"{field}.port.protocol", message)
            binds = {}
            for key in ("bind", "defaultEndpoint"):
                binds[key] = self.bind(item.get(key), f"{field}.{key}")
                if explicit and not item.get(key):
                    self.fail(f"{field}.{key}", "is required with INTERCEPTION_MODE NONE", Reason.REQUIRED)
                elif not explicit and item.get(key):
                    self.fail(f"{field}.{key}", "needs INTERCEPTION_MODE NONE")
            name = str(port.get("name", ""))
            return InboundPort(name, number, protocol, binds["bind"], binds["defaultEndpoint"])

        found = self._items("INBOUND", INBOUND_LIMIT, one)
        numbers = [port.number for port in found]
        for number in sorted({n for n in numbers if numbers.count(n) > 1}):
            self.fail("INBOUND", f"port {number} is listed twice")
        return found

    def egress(self) -> tuple[Egress, ...]:
        def one(item: Mapping[str, Any], field: str) -> Egress | None:
            bind = self.bind(item.get("bind"), f"{field}.bind")
            host = item.get("host")
            if not isinstance(host, str) or not host:
                self.fail(f"{field}.host", "is required", Reason.REQUIRED)
            if not item.get("bind"):
                self.fail(f"{field}.bind", "is required", Reason.REQUIRED)
            port = self._number(item.get("port"), f"{field}.port", 1, 65535)
            return Egress(bind, str(host).lower().rstrip("."), port) if bind else None

        return self._items("EGRESS", EGRESS_LIMIT, one)

    def _items(
        self, field: str, limit: int, one: Callable[[Mapping[str, Any], str], Any | None]
    ) -> tuple[Any, ...]:
        value = self.metadata.get(field) or []
        if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
            self.fail(field, "must be a list of objects", Reason.TYPE_INVALID)
            return ()
        if len(value) > limit:
            self.fail(field, f"has {len(value)} items, more than {limit}", Reason.TOO_MANY)
            return ()
        found = (one(item, f"{field}[{index}]") for index, item in enumerate(value))
        return tuple(item for item in found if item is not None)

    def _number(self, value: Any, field: str, low: int, high: int, default: int | None = None) -> int:
        if value is None:
            if default is None:
                self.fail(field, "is required", Reason.REQUIRED)
            return default or 0
        # Struct has only doubles: whole numbers come as 1337.0.
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
            self.fail(field, "must be a whole number", Reason.TYPE_INVALID)
            return 0
        if not low <= value <= high:
            self.fail(field, f"{int(value)} must be between {low} and {high}")
            return 0
        return int(value)
