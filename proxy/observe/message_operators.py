"""The operators that read heads and trailers: header fields, paths and queries, the gRPC status.

https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from proxy.grpc import status as grpc_status
from proxy.grpc.message import is_grpc_request
from proxy.model.config import ConfigError
from proxy.model.exchange import Exchange, Head
from proxy.observe.expressions import Constants, Expression, Kind, milliseconds, number, text_of

# What x-envoy-upstream-service-time says; the proxy adds that header, so no received head has it.
_SERVICE_TIME = milliseconds("first_upstream_tx", "first_upstream_rx", happened="first_upstream_rx")
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
    return text_of("head", "v.target.partition(b'?')[2] or None", "wire")


_HEADER_NAMES = re.compile(r":?[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?:\?:?[!#$%&'*+\-.^_`|~0-9A-Za-z]+)?").fullmatch


def _header(argument: str, operator: str, field: str, constants: Constants) -> Expression:
    """A header, or with ``A?B`` the second where the first is missing."""
    if not _HEADER_NAMES(argument):
        raise ConfigError(
            field, f"%{operator}({argument})%: expected a header name, or two with ? between them"
        )
    head, known = _SOURCES[operator]
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
    if head == "trailers":
        return text_of(head, f"{constants.add(_first_trailer)}(v, {wanted})", "wire")
    first = constants.add(_first_line)
    code = f"{first}(v, {wanted}) if v.repeated else v.get({wanted})"
    return text_of(head, f"({code})", "wire")


def _first_line(head: Head, name: bytes) -> bytes | None:
    values = head.values(name)
    return values[0] if values else None


def _first_trailer(trailers: Sequence[tuple[bytes, bytes]], wanted: bytes) -> bytes | None:
    for name, value in trailers:
        if name == wanted:
            return value
    return None


def _request_header(argument: str, field: str, constants: Constants) -> Expression:
    return _header(argument, "REQ", field, constants)


def _response_header(argument: str, field: str, constants: Constants) -> Expression:
    return _header(argument, "RESP", field, constants)


def _response_trailer(argument: str, field: str, constants: Constants) -> Expression:
    return _header(argument, "TRAILER", field, constants)


def _grpc_status(argument: str, field: str, constants: Constants) -> Expression:
    """As in Envoy, nothing for requests that are not gRPC, and any number that the upstream sent."""
    if argument not in _GRPC_NAMES:
        raise ConfigError(field, f"%GRPC_STATUS({argument})%: expected CAMEL_STRING, SNAKE_STRING or NUMBER")
    names = _GRPC_NAMES[argument]

    def get(x: Exchange) -> str | int | None:
        if x.head is None or not is_grpc_request(x.head):
            return None
        found = grpc_status.of_response(x.trailers, x.response, x.status, user_defined=True)
        if found is None or names is None:
            return found
        return names[found] if 0 <= found < len(names) else str(found)

    return Expression(f"{constants.add(get)}(x)", "any")


def _grpc_status_number(argument: str, field: str, constants: Constants) -> Expression:
    if argument:
        raise ConfigError(field, "%GRPC_STATUS_NUMBER% takes no argument")
    return _grpc_status("NUMBER", field, constants)


_GRPC_NAMES: dict[str, Sequence[str] | None] = {
    "": grpc_status.CAMEL,
    "CAMEL_STRING": grpc_status.CAMEL,
    "SNAKE_STRING": grpc_status.SNAKE,
    "NUMBER": None,
}
_AUTHORITY = text_of("head", "v.host", "wire")
_REQUEST: dict[str, Expression] = {
    ":method": text_of("head", "v.method or None", "wire"),
    ":path": text_of(
        "head", "(x.path + v.target[v.target.find(b'?') :] if b'?' in v.target else x.path) or None", "wire"
    ),
    ":authority": _AUTHORITY,
    "host": _AUTHORITY,
    ":scheme": text_of("head", "'https' if x.connection.transport_protocol == 'tls' else 'http'"),
    # Set by the proxy, unless the client's is kept.
    "x-request-id": Expression("x.request_id or None", "wire"),
    # Never a header of a client: the proxy strips it, and says with it what the path was before a rewrite.
    "x-envoy-original-path": Expression("None", "wire"),
}
_RESPONSE: dict[str, Expression] = {
    ":status": number("x.status"),
    "x-envoy-upstream-service-time": _SERVICE_TIME,
}

_SOURCES = {"REQ": ("head", _REQUEST), "RESP": ("response", _RESPONSE), "TRAILER": ("trailers", {})}

OPERATORS: dict[str, Callable[[str, str, Constants], Expression]] = {
    "REQ": _request_header,
    "REQUEST_HEADER": _request_header,
    "RESP": _response_header,
    "RESPONSE_HEADER": _response_header,
    "TRAILER": _response_trailer,
    "RESPONSE_TRAILER": _response_trailer,
    "GRPC_STATUS": _grpc_status,
    "GRPC_STATUS_NUMBER": _grpc_status_number,
    "PATH": _path,
    "QUERY_PARAM": _query_parameter,
    "QUERY_PARAMS": _query,
}
"""By their names: from argument and field (for errors) to expression."""
