"""Tulle's own cluster type ``tulle.clusters.dns_srv``: a ``TypedStruct``, so that no message has to be compiled."""

from __future__ import annotations

import re
from typing import Any

from xds.type.v3 import typed_struct_pb2

from proxy.model.address import SocketAddress
from proxy.model.cluster import DnsSrv
from proxy.model.config import ConfigError
from proxy.xds.decode.address import is_ip
from proxy.xds.decode.fields import MAX_SECONDS, UNSUPPORTED, check, forbid, known, unpack

NAME = "tulle.clusters.dns_srv"
TYPE_URL = "type.googleapis.com/tulle.clusters.dns_srv.v1.DnsSrvCluster"

_CLUSTER_TYPE = known("name", "typed_config")
_TYPED_STRUCT = known("type_url", "value")
_FIELDS = ("srv_name", "resolvers", "min_ttl", "max_ttl")
_SECONDS = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)s")
_RESOLVER = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+)):([0-9]{1,5})")


def dns_srv(message: Any, path: str) -> DnsSrv:
    """A ``CustomClusterType``, which must be this one."""
    check(message, path, _CLUSTER_TYPE)
    forbid(message.name != NAME, f"{path}.name", f"{message.name!r} {UNSUPPORTED}; supported: {NAME}")
    path = f"{path}.typed_config"
    typed = unpack(message.typed_config, path, (typed_struct_pb2.TypedStruct,))
    check(typed, path, _TYPED_STRUCT)
    forbid(typed.type_url != TYPE_URL, f"{path}.type_url", f"must be {TYPE_URL}")
    fields = typed.value.fields
    path = f"{path}.value"
    for name in sorted(fields):
        forbid(name not in _FIELDS, f"{path}.{name}", f"{UNSUPPORTED}; supported: {', '.join(_FIELDS)}")
    srv_name = _text(fields, "srv_name", path)
    forbid(not srv_name, f"{path}.srv_name", "is required")
    min_ttl = _seconds(fields, "min_ttl", path, 1.0)
    max_ttl = _seconds(fields, "max_ttl", path, 300.0)
    forbid(min_ttl > max_ttl, f"{path}.min_ttl", f"{min_ttl:g} s is above max_ttl, {max_ttl:g} s")
    return DnsSrv(srv_name, _resolvers(fields, path), min_ttl, max_ttl)


def _text(fields: Any, name: str, path: str) -> str:
    if name not in fields:
        return ""
    forbid(fields[name].WhichOneof("kind") != "string_value", f"{path}.{name}", "must be a string")
    text: str = fields[name].string_value
    return text


def _seconds(fields: Any, name: str, path: str, default: float) -> float:
    text = _text(fields, name, path)
    if not text:
        return default
    match = _SECONDS.fullmatch(text)
    if match is None or not 0 < float(match[1]) <= MAX_SECONDS:
        raise ConfigError(f"{path}.{name}", f'{text!r} is not a duration above 0 such as "1.5s"')
    return float(match[1])


def _resolvers(fields: Any, path: str) -> tuple[SocketAddress, ...]:
    if "resolvers" not in fields:
        return ()
    path = f"{path}.resolvers"
    forbid(fields["resolvers"].WhichOneof("kind") != "list_value", path, "must be a list of strings")
    found = []
    for index, item in enumerate(fields["resolvers"].list_value.values):
        at = f"{path}[{index}]"
        match = _RESOLVER.fullmatch(item.string_value)
        host = (match[1] or match[2]) if match is not None else ""
        if match is None or not is_ip(host) or not 0 < int(match[3]) < 65536:
            raise ConfigError(at, f"{item.string_value!r} is not an address and port such as 10.0.0.1:53")
        found.append(SocketAddress(host, int(match[3])))
    return tuple(found)
