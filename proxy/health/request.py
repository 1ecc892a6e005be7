"""The request of a health check over HTTP, made once for each host. Nothing is sent here."""

from __future__ import annotations

from typing import Final

from proxy.grpc import health as grpc_health
from proxy.grpc import timeout as grpc_timeout
from proxy.model.health_check import GrpcCheck, HealthCheck, HttpCheck
from proxy.route.edits import HeaderEdits
from proxy.upstream.stream import Fields

USER_AGENT: Final = b"Envoy/HC"
"""As Envoy's: applications know it, and leave such requests out of their logs."""
_BODILESS: Final = frozenset((b"GET", b"HEAD", b"DELETE", b"TRACE"))


class Request:
    """``fields`` are those of HTTP/2. ``is_head``: the answer has no body."""

    __slots__ = ("body", "fields", "is_head")

    def __init__(self, fields: list[tuple[bytes, bytes]], body: bytes, method: bytes) -> None:
        self.fields: Fields = fields
        self.body = body
        self.is_head = method == b"HEAD"

    def http1(self) -> bytes:
        """Head and body."""
        named = dict(self.fields)
        lines = [b"%b %b HTTP/1.1" % (named[b":method"], named[b":path"]), b"host: " + named[b":authority"]]
        lines += [b"%b: %b" % item for item in self.fields if item[0][:1] != b":"]
        if not self.body and named[b":method"] not in _BODILESS and b"content-length" not in named:
            lines.append(b"content-length: 0")
        return b"\r\n".join(lines) + b"\r\n\r\n" + self.body


def http_request(check: HttpCheck, edits: HeaderEdits | None, host: str, *, tls: bool) -> Request:
    """``host``: the value of ``:authority``."""
    method = check.method.encode()
    fields = _edited([(b"user-agent", USER_AGENT)], edits)
    if check.send:
        fields.append((b"content-length", b"%d" % len(check.send)))
    return Request([*_pseudo(method, check.path.encode(), host, tls), *fields], check.send, method)


def grpc_request(
    config: HealthCheck, check: GrpcCheck, edits: HeaderEdits | None, host: str, *, tls: bool
) -> Request:
    """``host``: the value of ``:authority``."""
    fields = [
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        (b"user-agent", USER_AGENT),
    ]
    fields = _edited(fields, edits)
    fields.append((b"grpc-timeout", grpc_timeout.render(round(config.timeout * 1000))))
    body = grpc_health.request(check.service_name)
    return Request([*_pseudo(b"POST", grpc_health.PATH, host, tls), *fields], body, b"POST")


def _pseudo(method: bytes, path: bytes, host: str, tls: bool) -> list[tuple[bytes, bytes]]:
    return [
        (b":method", method),
        (b":scheme", b"https" if tls else b"http"),
        (b":authority", host.encode()),
        (b":path", path),
    ]


def _edited(fields: list[tuple[bytes, bytes]], edits: HeaderEdits | None) -> list[tuple[bytes, bytes]]:
    if edits is None:
        return fields
    strip, extra = edits.strip, edits.extra
    if edits.render is not None:
        # Only what is there already is asked for, and never of an exchange: there are no operators.
        strip, extra = edits.render(_Fields(fields), None)  # type: ignore[arg-type]
    kept = [item for item in fields if item[0] not in strip]
    for line in extra.splitlines():
        name, _, value = line.partition(b": ")
        kept.append((name, value))
    return kept


class _Fields:
    """The part of a head that edits look at."""

    __slots__ = ("_named",)

    def __init__(self, fields: list[tuple[bytes, bytes]]) -> None:
        self._named = dict(fields)

    def get(self, name: bytes, /) -> bytes | None:
        return self._named.get(name)
