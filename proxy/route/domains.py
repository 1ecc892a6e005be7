"""Which virtual host an authority belongs to: exact, the longest ``*suffix``, the longest ``prefix*``, then ``*``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

from proxy.model.config import ConfigError

V = TypeVar("V")


class Domains(Generic[V]):
    """Virtual hosts by domain; case is ignored. A wildcard stands for at least one character, as in Envoy."""

    __slots__ = ("_any", "_exact", "_ignore_port", "_prefixes", "_suffixes")

    def __init__(self, entries: Iterable[tuple[str, V, str]], *, ignore_port: bool = False) -> None:
        """``entries``: (domain, virtual host, field path). Raises ``ConfigError``."""
        self._ignore_port = ignore_port
        self._exact: dict[bytes, V] = {}
        self._any: V | None = None
        suffixes: dict[bytes, V] = {}
        prefixes: dict[bytes, V] = {}
        seen: set[bytes] = set()
        for domain, host, field in entries:
            key = domain.lower().encode()
            if not key:
                raise ConfigError(field, "a domain must not be empty")
            if key in seen:
                raise ConfigError(
                    field, f"domain {domain!r} is already taken; each may appear once in a route table"
                )
            seen.add(key)
            if key.count(b"*") > 1 or 0 < key.find(b"*") < len(key) - 1:
                raise ConfigError(field, f"domain {domain!r}: * may only stand at one end")
            if key == b"*":
                self._any = host
            elif key.startswith(b"*"):
                suffixes[key[1:]] = host
            elif key.endswith(b"*"):
                prefixes[key[:-1]] = host
            else:
                self._exact[key] = host
        self._suffixes = _by_length(suffixes)
        self._prefixes = _by_length(prefixes)

    def find(self, authority: bytes) -> V | None:
        """The virtual host of ``authority`` (with its port, if it was sent)."""
        host = authority.lower()
        if self._ignore_port:
            host = without_port(host)
        found = self._exact.get(host)
        if found is not None:
            return found
        size = len(host)
        for length, suffixes in self._suffixes:
            if length < size:
                found = suffixes.get(host[-length:])
                if found is not None:
                    return found
        for length, prefixes in self._prefixes:
            if length < size:
                found = prefixes.get(host[:length])
                if found is not None:
                    return found
        return self._any


def without_port(host: bytes) -> bytes:
    """An authority without its port; a bracketed IPv6 address keeps its brackets."""
    at = host.rfind(b":")
    if at < 0 or host.find(b"]", at) >= 0:
        return host
    return host[:at]


def _by_length(hosts: dict[bytes, V]) -> tuple[tuple[int, dict[bytes, V]], ...]:
    lengths: dict[int, dict[bytes, V]] = {}
    for key, host in hosts.items():
        lengths.setdefault(len(key), {})[key] = host
    return tuple(sorted(lengths.items(), reverse=True))
