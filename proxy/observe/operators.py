"""Envoy's format operators: each name and argument becomes an expression that reads one value.

https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from proxy.model.config import ConfigError
from proxy.model.connection import PeerCertificate
from proxy.model.exchange import Exchange, Head
from proxy.observe.expressions import Constants, Expression, Kind
from proxy.observe.start_time import compile_time

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


def _milliseconds(start: str, end: str, *, happened: str) -> Expression:
    return Expression(f"int((x.{end} - x.{start}) * 1000.0) if x.{happened} else None", "any")


def _number(code: str) -> Expression:
    return Expression(code, "number")


def _text(code: str) -> Expression:
    return Expression(code, "text")


def _text_of(thing: str, code: str, kind: Kind = "text") -> Expression:
    """An expression for ``v``, the attribute ``thing`` of the exchange; missing without one."""
    return Expression(f"None if (v := x.{thing}) is None else {code}", kind)


_RESPONSE_DURATION = _milliseconds("start", "first_upstream_rx", happened="first_upstream_rx")
# What x-envoy-upstream-service-time says; the proxy adds that header, so no received head has it.
_SERVICE_TIME = _milliseconds("first_upstream_tx", "first_upstream_rx", happened="first_upstream_rx")
_HOST = _text_of("host", "v.label")
_CLUSTER = _text_of("target", "v.cluster_name")

_PLAIN: dict[str, Expression] = {
    "PROTOCOL": _text("x.protocol or None"),
    "RESPONSE_CODE": _number("x.status"),
    "RESPONSE_CODE_DETAILS": _text("None if x.head is None else x.details or None"),
    "CONNECTION_TERMINATION_DETAILS": _text("x.details or None if x.head is None else None"),
    "RESPONSE_FLAGS": _text("x.flags or '-'"),
    "BYTES_RECEIVED": _number("x.bytes_received"),
    "BYTES_SENT": _number("x.bytes_sent"),
    "DURATION": _number("int((x.end - x.start) * 1000.0)"),
    "REQUEST_DURATION": _milliseconds("start", "request_end", happened="request_end"),
    "RESPONSE_DURATION": _RESPONSE_DURATION,
    "RESPONSE_TX_DURATION": _milliseconds("first_upstream_rx", "end", happened="first_upstream_rx"),
    "UPSTREAM_HOST": _HOST,
    "UPSTREAM_REMOTE_ADDRESS": _HOST,
    "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": _text_of("host", "v.label.rpartition(':')[0].strip('[]')"),
    "UPSTREAM_REMOTE_PORT": _text_of("host", "int(v.label.rpartition(':')[2])", "any"),
    "UPSTREAM_CLUSTER": _CLUSTER,
    "UPSTREAM_CLUSTER_RAW": _CLUSTER,
    "UPSTREAM_LOCAL_ADDRESS": _text_of("upstream_local", "label(v)"),
    "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT": _text_of("upstream_local", "v[0]"),
    "UPSTREAM_LOCAL_PORT": _text_of("upstream_local", "v[1]", "any"),
    "UPSTREAM_TRANSPORT_FAILURE_REASON": _text("x.upstream_failure_reason or None"),
    "UPSTREAM_REQUEST_ATTEMPT_COUNT": _number("x.attempts"),
    "UPSTREAM_PEER_URI_SAN": _text("x.upstream_principal or None"),
    "DOWNSTREAM_LOCAL_ADDRESS": _text("label(x.connection.local)"),
    "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT": _text("x.connection.local[0]"),
    "DOWNSTREAM_LOCAL_PORT": _number("x.connection.local[1]"),
    "DOWNSTREAM_REMOTE_ADDRESS": _text("label(x.remote)"),
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT": _text("x.remote[0]"),
    "DOWNSTREAM_REMOTE_PORT": _number("x.remote[1]"),
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS": _text("label(x.connection.direct_remote)"),
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT": _text("x.connection.direct_remote[0]"),
    "DOWNSTREAM_DIRECT_REMOTE_PORT": _number("x.connection.direct_remote[1]"),
    "DOWNSTREAM_LOCAL_URI_SAN": _text("x.connection.local_uri or None"),
    "DOWNSTREAM_TLS_VERSION": _text("x.connection.tls_version or None"),
    "DOWNSTREAM_TLS_CIPHER": _text("x.connection.cipher or None"),
    "REQUESTED_SERVER_NAME": _text("x.connection.sni or None"),
    "ROUTE_NAME": _text_of("route", "v.name or None"),
    "CONNECTION_ID": _number("x.connection.id"),
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


_PATH_OPTIONS = {"": True, "WQ": True, "NQ": False}


def _path(argument: str, field: str, constants: Constants) -> Expression:
    """The path as it was matched; ``PATH`` and ``ORIG`` are the same, for rewrites are not written back."""
    query, _, which = argument.partition(":")
    if query not in _PATH_OPTIONS or which not in ("", "PATH", "ORIG", "ORIG_OR_PATH"):
        raise ConfigError(field, f"%PATH({argument})%: expected WQ or NQ, then :PATH, :ORIG or :ORIG_OR_PATH")
    if not _PATH_OPTIONS[query]:
        return Expression("x.path or None", "wire")
    return _REQUEST[":path"]


def _query_parameter(argument: str, field: str, constants: Constants) -> Expression:
    name = argument.encode()

    def get(x: Exchange) -> bytes | None:
        if x.head is not None:
            for part in x.head.target.partition(b"?")[2].split(b"&"):
                key, _, value = part.partition(b"=")
                if key == name:
                    return value or None
        return None

    return Expression(f"{constants.add(get)}(x)", "wire")


def _query(argument: str, field: str, constants: Constants) -> Expression:
    return _text_of("head", "v.target.partition(b'?')[2] or None", "wire")


_HEADER_NAMES = re.compile(r":?[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?:\?:?[!#$%&'*+\-.^_`|~0-9A-Za-z]+)?").fullmatch


def _header(argument: str, operator: str, field: str, constants: Constants) -> Expression:
    """A header, or with ``A?B`` the second where the first is missing."""
    if not _HEADER_NAMES(argument):
        raise ConfigError(
            field, f"%{operator}({argument})%: expected a header name, or two with ? between them"
        )
    head, known = ("head", _REQUEST) if operator == "REQ" else ("response", _RESPONSE)
    read = [known.get(name) or _field(head, name, constants) for name in argument.lower().split("?")]
    # What the proxy itself strips is never there.
    read = [one for one in read if one.code != "None"] or read[:1]
    if len(read) == 1:
        return read[0]
    first, second = read
    kind: Kind = first.kind if first.kind == second.kind else "any"
    return Expression(f"(({second.code}) if (w := ({first.code})) is None else w)", kind)


def _field(head: str, name: str, constants: Constants) -> Expression:
    """As in Envoy, of several lines the first."""
    wanted = constants.add(name.encode())
    first = constants.add(_first_line)
    code = f"{first}(v, {wanted}) if v.repeated else v.get({wanted})"
    return _text_of(head, f"({code})", "wire")


def _first_line(head: Head, name: bytes) -> bytes | None:
    values = head.values(name)
    return values[0] if values else None


def _request_header(argument: str, field: str, constants: Constants) -> Expression:
    return _header(argument, "REQ", field, constants)


def _response_header(argument: str, field: str, constants: Constants) -> Expression:
    return _header(argument, "RESP", field, constants)


_AUTHORITY = _text_of("head", "v.host", "wire")
_REQUEST: dict[str, Expression] = {
    ":method": _text_of("head", "v.method or None", "wire"),
    ":path": _text_of(
        "head", "(x.path + v.target[v.target.find(b'?') :] if b'?' in v.target else x.path) or None", "wire"
    ),
    ":authority": _AUTHORITY,
    "host": _AUTHORITY,
    ":scheme": _text_of("head", "'https' if x.connection.transport_protocol == 'tls' else 'http'"),
    # Set by the proxy, unless the client's is kept.
    "x-request-id": Expression("x.request_id or None", "wire"),
    # Never a header of a client: the proxy strips it, and says with it what the path was before a rewrite.
    "x-envoy-original-path": Expression("None", "wire"),
}
_RESPONSE: dict[str, Expression] = {
    ":status": _number("x.status"),
    "x-envoy-upstream-service-time": _SERVICE_TIME,
}

_WITH_ARGUMENT: dict[str, Callable[[str, str, Constants], Expression]] = {
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
