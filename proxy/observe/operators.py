"""Envoy's format operators: each name and argument becomes an expression that reads one value.

https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage
"""

from __future__ import annotations

import os
from collections.abc import Callable

from proxy.model.config import ConfigError
from proxy.model.connection import PeerCertificate
from proxy.model.exchange import Exchange
from proxy.observe import message_operators
from proxy.observe.expressions import Constants, Expression, milliseconds, number, text, text_of
from proxy.observe.start_time import compile_time

_LONG_FLAGS = {
    "DC": "DownstreamConnectionTermination",
    "DR": "DownstreamRemoteReset",
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


FLAGS = frozenset(_LONG_FLAGS)
"""The response flags that can happen here."""


def compile_operator(
    name: str, argument: str | None, field: str, constants: Constants, hostname: str = ""
) -> Expression:
    """The expression of ``%name(argument)%``. Raises ``ConfigError`` for ``field`` if there is no such operator."""
    plain = _PLAIN.get(name)
    if plain is not None:
        if argument:
            raise ConfigError(field, f"%{name}% takes no argument")
        return plain
    called = _CALLED.get(name)
    if called is not None:
        if argument:
            raise ConfigError(field, f"%{name}% takes no argument")
        return Expression(f"{constants.add(called)}(x)", "text")
    if name == "HOSTNAME":
        return Expression(constants.add(hostname or None), "text")
    factory = _WITH_ARGUMENT.get(name)
    if factory is None:
        raise ConfigError(field, f"unknown operator %{name}%")
    return factory(argument or "", field, constants)


_RESPONSE_DURATION = milliseconds("start", "first_upstream_rx", happened="first_upstream_rx")
_HOST = text_of("host", "v.label")
_CLUSTER = text_of("target", "v.cluster_name")

_PLAIN: dict[str, Expression] = {
    "PROTOCOL": text("x.protocol or None"),
    "RESPONSE_CODE": number("x.status"),
    "RESPONSE_CODE_DETAILS": text("None if x.head is None else x.details or None"),
    "CONNECTION_TERMINATION_DETAILS": text("x.details or None if x.head is None else None"),
    "RESPONSE_FLAGS": text("x.flags or '-'"),
    "BYTES_RECEIVED": number("x.bytes_received"),
    "BYTES_SENT": number("x.bytes_sent"),
    "DURATION": number("int((x.end - x.start) * 1000.0)"),
    "REQUEST_DURATION": milliseconds("start", "request_end", happened="request_end"),
    "RESPONSE_DURATION": _RESPONSE_DURATION,
    "RESPONSE_TX_DURATION": milliseconds("first_upstream_rx", "end", happened="first_upstream_rx"),
    "UPSTREAM_HOST": _HOST,
    "UPSTREAM_REMOTE_ADDRESS": _HOST,
    "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": text_of("host", "v.label.rpartition(':')[0].strip('[]')"),
    "UPSTREAM_REMOTE_PORT": text_of("host", "int(v.label.rpartition(':')[2])", "any"),
    "UPSTREAM_CLUSTER": _CLUSTER,
    "UPSTREAM_CLUSTER_RAW": _CLUSTER,
    "UPSTREAM_LOCAL_ADDRESS": text_of("upstream_local", "label(v)"),
    "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT": text_of("upstream_local", "v[0]"),
    "UPSTREAM_LOCAL_PORT": text_of("upstream_local", "v[1]", "any"),
    "UPSTREAM_TRANSPORT_FAILURE_REASON": text("x.upstream_failure_reason or None"),
    "UPSTREAM_REQUEST_ATTEMPT_COUNT": number("x.attempts"),
    "UPSTREAM_PEER_URI_SAN": text("x.upstream_principal or None"),
    "DOWNSTREAM_LOCAL_ADDRESS": text("label(x.connection.local)"),
    "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT": text("x.connection.local[0]"),
    "DOWNSTREAM_LOCAL_PORT": number("x.connection.local[1]"),
    "DOWNSTREAM_REMOTE_ADDRESS": text("label(x.remote)"),
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": text("x.remote[0]"),
    "DOWNSTREAM_REMOTE_PORT": number("x.remote[1]"),
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS": text("label(x.connection.direct_remote)"),
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT": text("x.connection.direct_remote[0]"),
    "DOWNSTREAM_DIRECT_REMOTE_PORT": number("x.connection.direct_remote[1]"),
    "DOWNSTREAM_LOCAL_URI_SAN": text("x.connection.local_uri or None"),
    "DOWNSTREAM_TLS_VERSION": text("x.connection.tls_version or None"),
    "DOWNSTREAM_TLS_CIPHER": text("x.connection.cipher or None"),
    "REQUESTED_SERVER_NAME": text("x.connection.sni or None"),
    "ROUTE_NAME": text_of("route", "v.name or None"),
    "CONNECTION_ID": number("x.connection.id"),
    "LOCAL_REPLY_BODY": Expression("x.local_body", "wire"),
    "STREAM_ID": Expression("x.request_id or None", "wire"),
}


def _of_peer(read: Callable[[PeerCertificate], str]) -> Callable[[Exchange], str | None]:
    def get(x: Exchange) -> str | None:
        peer = x.connection.peer
        return None if peer is None else read(peer) or None

    return get


def _flags_long(x: Exchange) -> str:
    return ",".join(_LONG_FLAGS.get(flag, flag) for flag in x.flags.split(",")) if x.flags else "-"


def _log_type(x: Exchange) -> str:
    return x.log_type


# Rare ones, as functions.
_CALLED: dict[str, Callable[[Exchange], str | None]] = {
    "RESPONSE_FLAGS_LONG": _flags_long,
    "ACCESS_LOG_TYPE": _log_type,
    "DOWNSTREAM_PEER_URI_SAN": _of_peer(lambda peer: ",".join(peer.uris)),
    "DOWNSTREAM_PEER_DNS_SAN": _of_peer(lambda peer: ",".join(peer.dns)),
    "DOWNSTREAM_PEER_SUBJECT": _of_peer(lambda peer: peer.subject),
    "DOWNSTREAM_PEER_ISSUER": _of_peer(lambda peer: peer.issuer),
    "DOWNSTREAM_PEER_SERIAL": _of_peer(lambda peer: peer.serial),
    "DOWNSTREAM_PEER_FINGERPRINT_256": _of_peer(lambda peer: peer.sha256),
}


def _start_time(argument: str, field: str, constants: Constants) -> Expression:
    return Expression(f"{constants.add(compile_time(argument, field))}(x.start_wall)", "text")


def _environment(argument: str, field: str, constants: Constants) -> Expression:
    return Expression(constants.add(os.environ.get(argument) or None), "text")


_WITH_ARGUMENT: dict[str, Callable[[str, str, Constants], Expression]] = {
    "START_TIME": _start_time,
    "ENVIRONMENT": _environment,
    **message_operators.OPERATORS,
}
