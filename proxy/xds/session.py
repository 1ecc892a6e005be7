"""The delta xDS client as a pure state machine: responses in, requests and configurations out.

It follows the incremental variant of the xDS protocol (xds_protocol, "Incremental xDS"): every response is ACKed or
NACKed with its nonce, the last good resources are kept, and a reconnect says which versions are held already. It
does no input or output and does not know how a configuration takes effect: that is ``apply``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from envoy.service.discovery.v3 import discovery_pb2

from proxy.model.cluster import Cluster, LoadAssignment
from proxy.model.config import Config, ConfigError
from proxy.model.listener import Listener
from proxy.model.route import RouteConfiguration
from proxy.model.tls import Secret
from proxy.xds.decode.resources import (
    CLUSTER,
    ENDPOINT,
    KINDS,
    LISTENER,
    ROUTE,
    SECRET,
    Reference,
    Resource,
    decode,
    references,
)

Request = Any  # discovery_pb2.DeltaDiscoveryRequest
Response = Any  # discovery_pb2.DeltaDiscoveryResponse

#: Asked for whole; the others by the names that these refer to.
WILDCARD = (CLUSTER, LISTENER)
BY_NAME = (ENDPOINT, SECRET, ROUTE)
#: The order of first requests: what must be there before what refers to it is used.
ORDER = (CLUSTER, ENDPOINT, SECRET, LISTENER, ROUTE)
#: Seconds after which a resource that was asked for and did not come is taken not to exist (xDS protocol).
DOES_NOT_EXIST_AFTER = 15.0
#: gRPC INVALID_ARGUMENT, the code of a NACK.
INVALID_ARGUMENT = 3
#: A NACK's text is cut here: it travels in one message with everything else.
MAX_ERROR = 8192


@dataclass(frozen=True, slots=True)
class Held:
    """One accepted resource: its version, the ``Any`` it came in, and what it decodes to."""

    version: str
    any: Any
    resource: Resource


class SessionStats:
    """``control_plane``-side view of one sidecar's updates, under Envoy's ``*.update_*`` names."""

    __slots__ = ("update_attempt", "update_rejected", "update_success")

    def __init__(self) -> None:
        self.update_attempt = 0
        self.update_success = 0
        self.update_rejected = 0


class DeltaSession:
    """All that one sidecar holds and asks for; it outlives the streams that it is spoken over.

    ``node`` is the ``core.v3.Node`` sent with the first request of each stream. ``apply`` puts a configuration into
    force or raises :class:`ConfigError`; then the response that brought it is NACKed and nothing has changed.
    ``check`` only tries: what is ACKed while the routes it refers to are under way must not turn out to be unusable
    when they come. ``clock`` gives seconds that only grow.
    """

    def __init__(
        self,
        node: Any,
        apply: Callable[[Config], object],
        *,
        check: Callable[[Config], object] = lambda config: None,
        clock: Callable[[], float] = lambda: 0.0,
        does_not_exist_after: float = DOES_NOT_EXIST_AFTER,
    ) -> None:
        self._node = node
        self._apply = apply
        self._check = check
        self._clock = clock
        self._does_not_exist_after = does_not_exist_after
        self._absent: set[Reference] = set()
        self._deadlines: dict[Reference, float] = {}
        self._held: dict[str, dict[str, Held]] = {url: {} for url in ORDER}
        self._subscribed: dict[str, set[str]] = {url: set() for url in BY_NAME}
        self.stats: dict[str, SessionStats] = {url: SessionStats() for url in ORDER}
        self.version = ""
        self.last_error = ""

    @property
    def held(self) -> Mapping[str, Mapping[str, Held]]:
        """Accepted resources by type URL and name."""
        return self._held

    def complete(self) -> bool:
        """Whether listeners and clusters have come, and everything that they refer to."""
        if not all(self.stats[url].update_success for url in WILDCARD):
            return False
        return not self._missing()

    def connected(self) -> list[Request]:
        """The first requests of a new stream."""
        requests: list[Request] = []
        for url in ORDER:
            if url in BY_NAME and not self._subscribed[url]:
                continue
            request = discovery_pb2.DeltaDiscoveryRequest(type_url=url)
            if not requests:
                request.node.CopyFrom(self._node)
            request.resource_names_subscribe.extend(
                ("*",) if url in WILDCARD else sorted(self._subscribed[url])
            )
            for name, held in self._held[url].items():
                request.initial_resource_versions[name] = held.version
            requests.append(request)
        self._deadlines = {}
        self._set_deadlines()
        return requests

    def disconnected(self) -> None:
        """The stream is gone: what is held stays, and nothing is taken not to exist until there is another one."""
        self._deadlines = {}

    def deadline(self) -> float | None:
        """When :meth:`expire` is due, on ``clock``."""
        return min(self._deadlines.values(), default=None)

    def expire(self) -> list[str]:
        """Go on without what has not come in time; which resources that are. Raises :class:`ConfigError`."""
        now = self._clock()
        due = {ref for ref, deadline in self._deadlines.items() if deadline <= now}
        if not due:
            return []
        for ref in due:
            del self._deadlines[ref]
        self._apply(self._config(self._held, self.version, self._absent | due))
        self._absent |= due
        return [f"{KINDS[url].label}[{name}]" for url, name in sorted(due)]

    def received(self, response: Response) -> list[Request]:
        """Take one response: the ACK or NACK, and changed subscriptions."""
        url: str = response.type_url
        if url not in KINDS:
            # Nobody asked for it. An ACK would promise something, so it is refused.
            return [self._nack(response, f"{url}: was not subscribed to")]
        stats = self.stats[url]
        stats.update_attempt += 1
        try:
            staged = self._stage(url, response)
            absent = self._absent_after(url, response)
            if staged is not None or absent != self._absent:
                everything = self._held if staged is None else {**self._held, url: staged}
                version = response.system_version_info
                if url in WILDCARD:
                    self._check_warming(everything, version, absent)
                self._apply(self._config(everything, version, absent))
                self._held = everything
                self._absent = absent
        except ConfigError as error:
            stats.update_rejected += 1
            self.last_error = str(error)
            return [self._nack(response, str(error))]
        stats.update_success += 1
        self.version = response.system_version_info
        ack = discovery_pb2.DeltaDiscoveryRequest(type_url=url, response_nonce=response.nonce)
        requests = [ack, *self._resubscribe()]
        self._set_deadlines()
        return requests

    def restore(self, resources: Iterable[Any]) -> None:
        """Put resources that were :meth:`saved <saved>` earlier into force. Raises :class:`ConfigError`."""
        everything: dict[str, dict[str, Held]] = {url: {} for url in ORDER}
        for saved in resources:
            any_message = saved.resource
            kind = KINDS.get(any_message.type_url)
            if kind is None:
                raise ConfigError(saved.name, f"{any_message.type_url} is not a type that is kept")
            resource = decode(kind, saved.name, any_message.type_url, any_message.value)
            everything[kind.type_url][saved.name] = Held(saved.version, any_message, resource)
        self._apply(self._config(everything, "restored", ()))
        self._held = everything
        for url in WILDCARD:
            self.stats[url].update_success += 1
        self._resubscribe()

    def saved(self) -> list[Any]:
        """Everything held, as ``discovery.v3.Resource`` messages."""
        return [
            discovery_pb2.Resource(name=name, version=held.version, resource=held.any)
            for url in ORDER
            for name, held in self._held[url].items()
        ]

    def _stage(self, url: str, response: Response) -> dict[str, Held] | None:
        """The resources of one type as they would be; ``None`` = nothing differs. Raises for all bad ones at once."""
        kind = KINDS[url]
        staged = dict(self._held[url])
        errors: list[ConfigError] = []
        seen: set[str] = set()
        changed = False
        for item in response.resources:
            if item.name in seen:
                errors.append(ConfigError(f"{kind.label}[{item.name}]", "is in the response twice"))
                continue
            seen.add(item.name)
            if url in BY_NAME and item.name not in self._subscribed[url]:
                continue  # unsubscribed while this was under way
            before = staged.get(item.name)
            if before is not None and before.any.value == item.resource.value:
                staged[item.name] = Held(item.version, before.any, before.resource)
                changed |= before.version != item.version
                continue
            try:
                resource = decode(kind, item.name, item.resource.type_url, item.resource.value)
            except ConfigError as error:
                errors.append(error)
                continue
            staged[item.name] = Held(item.version, item.resource, resource)
            changed = True
        if url in WILDCARD:
            for name in response.removed_resources:
                changed |= staged.pop(name, None) is not None
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise ConfigError(errors[0].path, "; ".join([errors[0].message, *map(str, errors[1:])]))
        return staged if changed else None

    def _absent_after(self, url: str, response: Response) -> set[Reference]:
        """What is known not to exist once ``response`` is taken.

        As in Envoy, endpoints, secrets and routes that are held outlive their removal: they go when nothing refers to
        them any more.
        """
        if url in WILDCARD:
            return self._absent
        gone = {
            (url, name)
            for name in response.removed_resources
            if name in self._subscribed[url] and name not in self._held[url]
        }
        return (self._absent | gone) - {(url, item.name) for item in response.resources}

    def _missing(self) -> set[Reference]:
        """What was asked for, has not come and is not known not to exist."""
        asked = {
            (url, name) for url in BY_NAME for name in self._subscribed[url] if name not in self._held[url]
        }
        return asked - self._absent

    def _set_deadlines(self) -> None:
        until = self._clock() + self._does_not_exist_after
        self._deadlines = {ref: self._deadlines.get(ref, until) for ref in self._missing()}

    def _check_warming(
        self, held: Mapping[str, Mapping[str, Held]], version: str, absent: Collection[Reference]
    ) -> None:
        """Try listeners whose routes have not come as if they had. Raises :class:`ConfigError`."""
        waiting = {(ROUTE, name) for name in _wanted(held)[ROUTE] if name not in held[ROUTE]}
        if not waiting.issubset(absent):
            self._check(self._config(held, version, waiting | set(absent)))

    def _resubscribe(self) -> list[Request]:
        """Ask for what listeners and clusters now refer to, and give up what they no longer do."""
        wanted = _wanted(self._held)
        self._absent = {(url, name) for url, name in self._absent if name in wanted[url]}
        requests = []
        for url in BY_NAME:
            more = wanted[url] - self._subscribed[url]
            less = self._subscribed[url] - wanted[url]
            if not more and not less:
                continue
            self._subscribed[url] = wanted[url]
            for name in less:
                self._held[url].pop(name, None)
            requests.append(
                discovery_pb2.DeltaDiscoveryRequest(
                    type_url=url,
                    resource_names_subscribe=sorted(more),
                    resource_names_unsubscribe=sorted(less),
                )
            )
        return requests

    def _nack(self, response: Response, message: str) -> Request:
        request = discovery_pb2.DeltaDiscoveryRequest(
            type_url=response.type_url, response_nonce=response.nonce
        )
        request.error_detail.code = INVALID_ARGUMENT
        request.error_detail.message = message if len(message) <= MAX_ERROR else message[:MAX_ERROR] + "..."
        return request

    @staticmethod
    def _config(
        held: Mapping[str, Mapping[str, Held]], version: str, absent: Collection[Reference]
    ) -> Config:
        listeners: dict[str, Listener] = {}
        # A route configuration that does not exist answers 404; without it its listener would wait for ever.
        routes = {name: RouteConfiguration(name, ()) for url, name in absent if url == ROUTE}
        clusters: dict[str, Cluster] = {}
        assignments: dict[str, LoadAssignment] = {}
        secrets: dict[str, Secret] = {}
        for by_name in held.values():
            for name, one in by_name.items():
                resource = one.resource
                if isinstance(resource, Listener):
                    listeners[name] = resource
                elif isinstance(resource, RouteConfiguration):
                    routes[name] = resource
                elif isinstance(resource, Cluster):
                    clusters[name] = resource
                elif isinstance(resource, LoadAssignment):
                    assignments[name] = resource
                else:
                    secrets[name] = resource
        return Config(version, listeners, routes, clusters, assignments, secrets)


def _wanted(held: Mapping[str, Mapping[str, Held]]) -> dict[str, set[str]]:
    """Names that listeners and clusters refer to, by type URL."""
    wanted: dict[str, set[str]] = {url: set() for url in BY_NAME}
    for url in WILDCARD:
        for one in held[url].values():
            for needed, name in references(one.resource):
                wanted[needed].add(name)
    return wanted
