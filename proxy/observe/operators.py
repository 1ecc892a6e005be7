"""Envoy's format operators: each name and argument is turned once into a function that reads one value.

https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from proxy.model.config import ConfigError
from proxy.model.connection import Address, PeerCertificate
from proxy.model.exchange import Exchange
from proxy.observe.start_time import compile_time

# ``None`` is a missing value. ``bytes`` came over the wire and are not trusted.
Value = str | int | bytes | None
Getter = Callable[[Exchange], Value]

_LONG_FLAGS = {
    "DC": "DownstreamConnectionTermination",
    "DPE": "DownstreamProtocolError",
    "DT": "DurationTimeout",
    "NC": "NoClusterFound",
    "NR": "NoRouteFound",
    "SI": "StreamIdleTimeout",
    "UAEX": "UnauthorizedExternalService",
    "UC": "UpstreamConnectionTermination",
    "UF": "UpstreamConnectionFailure",
    "UH": "NoHealthyUpstream",
    "UO": "UpstreamOverflow",
    "UPE": "UpstreamProtocolError",
    "UR": "UpstreamRemoteReset",
    "URX": "UpstreamRetryLimitExceeded",
    "UT": "UpstreamRequestTimeout",
    "LR": "LocalReset",
    "LH": "FailedLocalHealthCheck",
    "OM": "OverloadManagerTerminated",
}


def compile_operator(name: str, argument: str | None, field: str, hostname: str = "") -> Getter:
    """The getter of ``%name(argument)%``. Raises ``ConfigError`` for ``field`` if there is no such operator."""
    plain = _PLAIN.get(name)
    if plain is not None:
        if argument:
            raise ConfigError(field, f"%{name}% takes no argument")
        return plain
    if name == "HOSTNAME":
        return lambda x: hostname or None
    factory = _WITH_ARGUMENT.get(name)
    if factory is None:
        raise ConfigError(field, f"unknown operator %{name}%")
    return factory(argument or "", field)


def label(address: Address) -> str:
    """``ip:port``, with brackets around IPv6."""
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000.0)


def _response_duration(x: Exchange) -> Value:
    return _milliseconds(x.first_upstream_rx - x.start) if x.first_upstream_rx else None


def _response_tx_duration(x: Exchange) -> Value:
    return _milliseconds(x.end - x.first_upstream_rx) if x.first_upstream_rx else None


def _request_duration(x: Exchange) -> Value:
    return _milliseconds(x.request_end - x.start) if x.request_end else None


def _service_time(x: Exchange) -> Value:
    """What ``x-envoy-upstream-service-time`` says; the proxy adds that header, so no received head has it."""
    return _milliseconds(x.first_upstream_rx - x.first_upstream_tx) if x.first_upstream_rx else None


def _host(x: Exchange) -> Value:
    return None if x.host is None else x.host.label


def _host_ip(x: Exchange) -> Value:
    return None if x.host is None else x.host.label.rpartition(":")[0].strip("[]")


def _host_port(x: Exchange) -> Value:
    return None if x.host is None else int(x.host.label.rpartition(":")[2])


def _cluster(x: Exchange) -> Value:
    return None if x.target is None else x.target.cluster_name


def _route(x: Exchange) -> Value:
    return None if x.route is None else x.route.name or None


def _upstream_local(x: Exchange) -> Value:
    return None if x.upstream_local is None else label(x.upstream_local)


def _upstream_local_ip(x: Exchange) -> Value:
    return None if x.upstream_local is None else x.upstream_local[0]


def _upstream_local_port(x: Exchange) -> Value:
    return None if x.upstream_local is None else x.upstream_local[1]


def _of_peer(read: Callable[[PeerCertificate], str]) -> Getter:
    def get(x: Exchange) -> Value:
        peer = x.connection.peer
        return None if peer is None else read(peer) or None

    return get


def _flags_long(x: Exchange) -> Value:
    return ",".join(_LONG_FLAGS.get(flag, flag) for flag in x.flags.split(",")) if x.flags else "-"


_PLAIN: dict[str, Getter] = {
    "PROTOCOL": lambda x: x.protocol or None,
    "RESPONSE_CODE": lambda x: x.status,
    "RESPONSE_CODE_DETAILS": lambda x: x.details or None if x.head is not None else None,
    "CONNECTION_TERMINATION_DETAILS": lambda x: x.details or None if x.head is None else None,
    "RESPONSE_FLAGS": lambda x: x.flags or "-",
    "RESPONSE_FLAGS_LONG": _flags_long,
    "BYTES_RECEIVED": lambda x: x.bytes_received,
    "BYTES_SENT": lambda x: x.bytes_sent,
    "DURATION": lambda x: int((x.end - x.start) * 1000.0),
    "REQUEST_DURATION": _request_duration,
    "RESPONSE_DURATION": _response_duration,
    "RESPONSE_TX_DURATION": _response_tx_duration,
    "UPSTREAM_HOST": _host,
    "UPSTREAM_REMOTE_ADDRESS": _host,
    "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": _host_ip,
    "UPSTREAM_REMOTE_PORT": _host_port,
    "UPSTREAM_CLUSTER": _cluster,
    "UPSTREAM_CLUSTER_RAW": _cluster,
    "UPSTREAM_LOCAL_ADDRESS": _upstream_local,
    "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT": _upstream_local_ip,
    "UPSTREAM_LOCAL_PORT": _upstream_local_port,
    "UPSTREAM_TRANSPORT_FAILURE_REASON": lambda x: x.upstream_failure_reason or None,
    "UPSTREAM_REQUEST_ATTEMPT_COUNT": lambda x: x.attempts,
    "UPSTREAM_PEER_URI_SAN": lambda x: x.upstream_principal or None,
    "DOWNSTREAM_LOCAL_ADDRESS": lambda x: label(x.connection.local),
    "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT": lambda x: x.connection.local[0],
    "DOWNSTREAM_LOCAL_PORT": lambda x: x.connection.local[1],
    "DOWNSTREAM_REMOTE_ADDRESS": lambda x: label(x.connection.remote),
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": lambda x: x.connection.remote[0],
    "DOWNSTREAM_REMOTE_PORT": lambda x: x.connection.remote[1],
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS": lambda x: label(x.connection.remote),
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT": lambda x: x.connection.remote[0],
    "DOWNSTREAM_DIRECT_REMOTE_PORT": lambda x: x.connection.remote[1],
    "DOWNSTREAM_PEER_URI_SAN": _of_peer(lambda peer: ",".join(peer.uris)),
    "DOWNSTREAM_PEER_DNS_SAN": _of_peer(lambda peer: ",".join(peer.dns)),
    "DOWNSTREAM_PEER_SUBJECT": _of_peer(lambda peer: peer.subject),
    "DOWNSTREAM_PEER_ISSUER": _of_peer(lambda peer: peer.issuer),
    "DOWNSTREAM_PEER_SERIAL": _of_peer(lambda peer: peer.serial),
    "DOWNSTREAM_PEER_FINGERPRINT_256": _of_peer(lambda peer: peer.sha256),
    "DOWNSTREAM_LOCAL_URI_SAN": lambda x: x.connection.local_uri or None,
    "DOWNSTREAM_TLS_VERSION": lambda x: x.connection.tls_version or None,
    "DOWNSTREAM_TLS_CIPHER": lambda x: x.connection.cipher or None,
    "REQUESTED_SERVER_NAME": lambda x: x.connection.sni or None,
    "ROUTE_NAME": _route,
    "CONNECTION_ID": lambda x: x.connection.id,
    "STREAM_ID": lambda x: x.request_id or None,
}


_NUMBERS = frozenset(
    _PLAIN[name]
    for name in (
        "BYTES_RECEIVED",
        "BYTES_SENT",
        "CONNECTION_ID",
        "DOWNSTREAM_LOCAL_PORT",
        "DOWNSTREAM_REMOTE_PORT",
        "DURATION",
        "RESPONSE_CODE",
        "UPSTREAM_REQUEST_ATTEMPT_COUNT",
    )
)


def is_number(getter: Getter) -> bool:
    """Whether the getter always gives an integer."""
    return getter in _NUMBERS


def _start_time(argument: str, field: str) -> Getter:
    render = compile_time(argument, field)
    return lambda x: render(x.start_wall)


def _environment(argument: str, field: str) -> Getter:
    value = os.environ.get(argument)
    return lambda x: value or None


_PATH_OPTIONS = {"": True, "WQ": True, "NQ": False}


def _path(argument: str, field: str) -> Getter:
    """The path as it was matched; ``PATH`` and ``ORIG`` are the same, for rewrites are not written back."""
    query, _, which = argument.partition(":")
    if query not in _PATH_OPTIONS or which not in ("", "PATH", "ORIG", "ORIG_OR_PATH"):
        raise ConfigError(field, f"%PATH({argument})%: expected WQ or NQ, then :PATH, :ORIG or :ORIG_OR_PATH")
    return _path_and_query if _PATH_OPTIONS[query] else lambda x: x.path or None


def _path_and_query(x: Exchange) -> Value:
    head = x.head
    if head is None:
        return None
    at = head.target.find(b"?")
    return (x.path if at < 0 else x.path + head.target[at:]) or None


def _query_parameter(argument: str, field: str) -> Getter:
    name = argument.encode()

    def get(x: Exchange) -> Value:
        if x.head is not None:
            for part in x.head.target.partition(b"?")[2].split(b"&"):
                key, _, value = part.partition(b"=")
                if key == name:
                    return value or None
        return None

    return get


def _query(argument: str, field: str) -> Getter:
    return lambda x: None if x.head is None else x.head.target.partition(b"?")[2] or None


_HEADER_NAMES = re.compile(r":?[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?:\?:?[!#$%&'*+\-.^_`|~0-9A-Za-z]+)?").fullmatch


def _names(argument: str, operator: str, field: str) -> list[str]:
    if not _HEADER_NAMES(argument):
        raise ConfigError(
            field, f"%{operator}({argument})%: expected a header name, or two with ? between them"
        )
    return argument.lower().split("?")


def _request_header(argument: str, field: str) -> Getter:
    getters = [_REQUEST.get(name) or _of_request(name.encode()) for name in _names(argument, "REQ", field)]
    return _first_of(getters)


def _response_header(argument: str, field: str) -> Getter:
    getters = [_RESPONSE.get(name) or _of_response(name.encode()) for name in _names(argument, "RESP", field)]
    return _first_of(getters)


def _of_request(name: bytes) -> Getter:
    def get(x: Exchange) -> Value:
        head = x.head
        if head is None:
            return None
        # As in Envoy, of several lines the first.
        return head.values(name)[0] if head.repeated and head.get(name) is not None else head.get(name)

    return get


def _of_response(name: bytes) -> Getter:
    def get(x: Exchange) -> Value:
        head = x.response
        if head is None:
            return None
        return head.values(name)[0] if head.repeated and head.get(name) is not None else head.get(name)

    return get


def _first_of(getters: list[Getter]) -> Getter:
    if len(getters) == 1:
        return getters[0]
    first, second = getters

    def get(x: Exchange) -> Value:
        value = first(x)
        return second(x) if value is None else value

    return get


_REQUEST: dict[str, Getter] = {
    ":method": lambda x: None if x.head is None else x.head.method,
    ":path": _path_and_query,
    ":authority": lambda x: None if x.head is None else x.head.host,
    "host": lambda x: None if x.head is None else x.head.host,
    ":scheme": lambda x: (
        None if x.head is None else "https" if x.connection.transport_protocol == "tls" else "http"
    ),
    # Set by the proxy, unless the client's is kept.
    "x-request-id": lambda x: x.request_id or None,
    # Never a header of a client: the proxy strips it, and says with it what the path was before a rewrite.
    "x-envoy-original-path": lambda x: None,
}
_RESPONSE: dict[str, Getter] = {
    ":status": lambda x: x.status,
    "x-envoy-upstream-service-time": _service_time,
}

_WITH_ARGUMENT: dict[str, Callable[[str, str], Getter]] = {
    "START_TIME": _start_time,
    "REQ": _request_header,
    "REQUEST_HEADER": _request_header,
    "RESP": _response_header,
    "RESPONSE_HEADER": _response_header,
    "PATH": _path,
    "QUERY_PARAM": _query_parameter,
    "QUERY_PARAMS": _query,
    "ENVIRONMENT": _environment,
}
