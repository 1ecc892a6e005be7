"""``x-forwarded-client-cert``: what upstream is told of the downstream's certificate (Envoy's XFCC format).

Only verified certificates are reported, and nothing in one can look like a second element.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

from proxy.model.connection import ConnectionInfo
from proxy.model.listener import ClientCertDetails, SetClientCertDetails

ForwardedClientCert = Callable[[ConnectionInfo, bytes | None], bytes | None]

_SPECIAL = frozenset(',;="\\ ')


def forwarded_client_cert(mode: ClientCertDetails, details: SetClientCertDetails) -> ForwardedClientCert:
    """A function from (connection, received value) to the value to send, ``None`` = no such header."""

    def own(conn: ConnectionInfo) -> bytes:
        return element(conn, details).encode()

    def sanitize(conn: ConnectionInfo, received: bytes | None) -> bytes | None:
        return None

    def always_forward(conn: ConnectionInfo, received: bytes | None) -> bytes | None:
        return received

    def forward(conn: ConnectionInfo, received: bytes | None) -> bytes | None:
        return None if conn.peer is None else received

    def append(conn: ConnectionInfo, received: bytes | None) -> bytes | None:
        if conn.peer is None:
            return None
        return received + b"," + own(conn) if received else own(conn)

    def replace(conn: ConnectionInfo, received: bytes | None) -> bytes | None:
        return None if conn.peer is None else own(conn)

    return {
        "SANITIZE": sanitize,
        "FORWARD_ONLY": forward,
        "APPEND_FORWARD": append,
        "SANITIZE_SET": replace,
        "ALWAYS_FORWARD_ONLY": always_forward,
    }[mode]


def element(conn: ConnectionInfo, details: SetClientCertDetails) -> str:
    """One XFCC element for the connection, which has a verified peer certificate."""
    peer = conn.peer
    assert peer is not None
    parts = []
    if conn.local_uri:
        parts.append(f"By={_value(conn.local_uri)}")
    if peer.sha256:
        parts.append(f"Hash={peer.sha256}")
    if details.cert and peer.pem:
        parts.append(f'Cert="{quote(peer.pem, safe="")}"')
    if details.chain and peer.pem:
        parts.append(f'Chain="{quote(peer.pem, safe="")}"')
    if details.subject:
        parts.append(f'Subject="{_escaped(peer.subject)}"')
    if details.uri:
        parts += [f"URI={_value(uri)}" for uri in peer.uris] or ["URI="]
    if details.dns:
        parts += [f"DNS={_value(name)}" for name in peer.dns]
    return ";".join(parts)


def _value(text: str) -> str:
    return f'"{_escaped(text)}"' if not _SPECIAL.isdisjoint(text) else _escaped(text)


def _escaped(text: str) -> str:
    """Quotes and backslashes escaped; what is no visible ASCII is percent-encoded, so that it cannot end the line."""
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    return "".join(c if " " <= c <= "~" else quote(c, safe="") for c in text)
