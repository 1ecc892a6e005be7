"""Discovery responses put together from bytes that are encoded already, by the protobuf wire format.

A resource is serialised once; each subscriber's response is a ``join``. It must not know sessions, nor
messages. Field numbers are those of ``envoy/service/discovery/v3/discovery.proto``:

- ``DiscoveryResponse``: version_info 1, resources 2 (Any), type_url 4, nonce 5
- ``DeltaDiscoveryResponse``: system_version_info 1, resources 2 (Resource), type_url 4, nonce 5, removed_resources 6
- ``Resource``: version 1, resource 2 (Any), name 3
- ``google.protobuf.Any``: type_url 1, value 2

Every field used is length-delimited (wire type 2) and every number below 16, so that a tag is one byte.
Parsers accept fields in any order; these are written in ascending order all the same.
"""

from __future__ import annotations

from collections.abc import Iterable


def varint(number: int) -> bytes:
    """Base 128, least significant group first."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def field(number: int, value: bytes) -> bytes:
    """A length-delimited field with its tag; ``number`` is 1 to 15."""
    return bytes((number << 3 | 2,)) + varint(len(value)) + value


def any_message(type_url: str, value: bytes) -> bytes:
    """The content of a ``google.protobuf.Any``."""
    return field(1, type_url.encode()) + field(2, value)


def sotw_resource(any_bytes: bytes) -> bytes:
    """One ``resources`` entry of a ``DiscoveryResponse``, tag included."""
    return field(2, any_bytes)


def delta_resource(name: str, version: str, any_bytes: bytes) -> bytes:
    """One ``resources`` entry of a ``DeltaDiscoveryResponse``, tag included."""
    return field(2, field(1, version.encode()) + field(2, any_bytes) + field(3, name.encode()))


def discovery_response(type_url: str, version: str, nonce: str, resources: Iterable[bytes]) -> bytes:
    """A ``DiscoveryResponse`` of entries made by :func:`sotw_resource`."""
    tail = field(4, type_url.encode()) + field(5, nonce.encode())
    return b"".join((field(1, version.encode()), *resources, tail))


def delta_discovery_response(
    type_url: str, version: str, nonce: str, resources: Iterable[bytes], removed: Iterable[str]
) -> bytes:
    """A ``DeltaDiscoveryResponse`` of entries made by :func:`delta_resource` and names that are gone."""
    tail = field(4, type_url.encode()) + field(5, nonce.encode())
    gone = [field(6, name.encode()) for name in removed]
    return b"".join((field(1, version.encode()), *resources, tail, *gone))
