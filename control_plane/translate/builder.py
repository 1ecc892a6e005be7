"""The whole translation, and what is kept between one view and the next.

Whatever does not depend on the node is built once for a view; whatever did not change from one view to the next
is the same message object, so that it is encoded once and not sent again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from control_plane.registry.service import MeshService
from control_plane.registry.view import View
from control_plane.store.base import Key
from control_plane.translate import names
from control_plane.translate.bindings import bind
from control_plane.translate.cache import Cache
from control_plane.translate.client import Client, client_of
from control_plane.translate.conditions import node_conditions, view_conditions
from control_plane.translate.explicit import ExplicitOutbound
from control_plane.translate.inbound import Inbound
from control_plane.translate.mtls import MtlsPolicies
from control_plane.translate.node import Node
from control_plane.translate.outbound import CapturedOutbound
from control_plane.translate.places import Places, ordered_services, sort_out
from control_plane.translate.resources import Condition, Ordered, Part, Resources
from control_plane.translate.settings import MeshSettings
from control_plane.translate.tls import root_secret
from control_plane.translate.upstreams import add_upstreams
from control_plane.translate.virtual_hosts import VirtualHosts
from control_plane.translate.workload import Selectors, workload_of


def translate(
    view: View, node: Node, settings: MeshSettings | None = None, trust_bundle: bytes | None = None
) -> Resources:
    """The resources of ``node`` in ``view``. ``trust_bundle``: PEM roots, given out as the secret ``ROOTCA``."""
    return Builder(settings or MeshSettings()).translate(view, node, trust_bundle)


@dataclass(frozen=True, slots=True, eq=False)
class _Joined:
    """What one view says to every node."""

    view: View
    services: tuple[MeshService, ...]
    places: Places
    mtls: MtlsPolicies
    hosts: VirtualHosts
    conditions: Mapping[Key, tuple[Condition, ...]]
    selectors: Selectors


class Builder:
    """Translates for many nodes and many views, one view after the other, keeping what they share."""

    __slots__ = ("_cache", "_joined", "_settings", "_shared")

    def __init__(self, settings: MeshSettings) -> None:
        self._settings = settings
        self._cache = Cache()
        self._joined: _Joined | None = None
        self._shared: dict[Client, Ordered] = {}

    @property
    def built(self) -> int:
        """How many resources (and parts of them) had to be built so far."""
        return self._cache.built

    def translate(self, view: View, node: Node, trust_bundle: bytes | None = None) -> Resources:
        """See :func:`translate`. Never raises for what a view or a parsed node can hold."""
        joined = self._join(view)
        client = client_of(node, self._settings)
        part = Part()
        if node.mode == "NONE":
            explicit = ExplicitOutbound(client, joined.places, joined.hosts, self._cache)
            explicit.add_to(part, node, view.services)
        part.include(self._inbound(joined, node))
        if trust_bundle is not None:
            secret = self._cache.get("root secret", (trust_bundle,), lambda: root_secret(trust_bundle))
            part.add(names.SECRET, names.ROOT_SECRET, secret)
        conditions = joined.conditions
        if own := node_conditions(node, joined.services, client.srv):
            conditions = dict(conditions)
            for key, extra in own.items():
                conditions[key] = (*conditions.get(key, ()), *extra)
        return self._upstreams(joined, client).with_own(part, conditions)

    def conditions(self, view: View) -> Mapping[Key, tuple[Condition, ...]]:
        """What can be said of all objects of a view without any node."""
        return self._join(view).conditions

    def _join(self, view: View) -> _Joined:
        joined = self._joined
        if joined is not None and joined.view is view:
            return joined
        self._cache.turn()
        self._shared = {}
        settings = self._settings
        services = ordered_services(view)
        places = sort_out(services)
        bindings = bind(view)
        self._joined = joined = _Joined(
            view,
            services,
            places,
            MtlsPolicies(view.peer_authentications, settings.root_namespace),
            VirtualHosts(bindings, settings, self._cache),
            view_conditions(view, bindings, places),
            Selectors(view),
        )
        return joined

    def _upstreams(self, joined: _Joined, client: Client) -> Ordered:
        """What all nodes of a class share: clusters, endpoints and, with capture, listeners and routes."""
        shared = self._shared.get(client)
        if shared is None:
            part = Part()
            add_upstreams(part, client, joined.services, joined.mtls, self._settings, self._cache)
            if client.captured:
                captured = CapturedOutbound(client, joined.places, joined.hosts, self._settings, self._cache)
                captured.add_to(part)
            shared = self._shared[client] = part.ordered()
        return shared

    def _inbound(self, joined: _Joined, node: Node) -> Part:
        workload = workload_of(joined.view, node, joined.selectors, joined.mtls, self._settings)
        server = (node.mode, node.capture_mark, node.ipv6, node.access_log)
        part: Any = self._cache.get(
            ("inbound", node.namespace, tuple(node.labels.items()), server, workload.ports),
            (workload,),
            lambda: Inbound(node, workload, self._settings).build(),
        )
        made: Part = part
        return made
