"""``proxy.filters.client_cert``: ``x-forwarded-client-cert`` by mode, and names that try to forge an element."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.filters.client_cert import forwarded_client_cert
from proxy.model.connection import ConnectionInfo, PeerCertificate
from proxy.model.listener import SetClientCertDetails

DETAILS = SetClientCertDetails(subject=True, uri=True)
PEER = PeerCertificate("CN=a", ("spiffe://mesh.local/ns/d/sa/a",), ("a.d",), "ab" * 32)
OWN = (
    b"By=spiffe://mesh.local/ns/d/sa/b;Hash="
    + b"ab" * 32
    + b';Subject="CN=a";URI=spiffe://mesh.local/ns/d/sa/a'
)


def _conn(peer: PeerCertificate | None) -> ConnectionInfo:
    conn = ConnectionInfo(("192.0.2.1", 1), ("10.0.0.1", 80), transport_protocol="tls")
    conn.local_uri = "spiffe://mesh.local/ns/d/sa/b"
    conn.peer = peer
    return conn


@pytest.mark.parametrize(
    ("mode", "mtls", "plain"),
    [
        ("SANITIZE", None, None),
        ("FORWARD_ONLY", b"in", None),
        ("APPEND_FORWARD", b"in," + OWN, None),
        ("SANITIZE_SET", OWN, None),
        ("ALWAYS_FORWARD_ONLY", b"in", b"in"),
    ],
)
def test_modes(mode: Any, mtls: bytes | None, plain: bytes | None) -> None:
    forward = forwarded_client_cert(mode, DETAILS)
    assert forward(_conn(PEER), b"in") == mtls
    assert forward(_conn(None), b"in") == plain


def test_append_without_a_received_header_is_our_own_element() -> None:
    assert forwarded_client_cert("APPEND_FORWARD", DETAILS)(_conn(PEER), None) == OWN


def test_all_details_in_envoys_order() -> None:
    details = SetClientCertDetails(subject=True, uri=True, dns=True, cert=True, chain=True)
    peer = PeerCertificate("CN=a", ("u:1", "u:2"), ("d",), "00", pem="-----BEGIN\nA+/=")
    value = forwarded_client_cert("SANITIZE_SET", details)(_conn(peer), None)
    assert value == (
        b'By=spiffe://mesh.local/ns/d/sa/b;Hash=00;Cert="-----BEGIN%0AA%2B%2F%3D";Chain="-----BEGIN%0AA%2B%2F%3D";'
        b'Subject="CN=a";URI=u:1;URI=u:2;DNS=d'
    )


@pytest.mark.parametrize(
    "evil", ["u\r\nx: y", 'u";URI=spiffe://x', "u,By=z", "u;URI=z", "u\\", "u\u2028\x7f", 'u="']
)
def test_no_name_forges_an_element(evil: str) -> None:
    peer = PeerCertificate(evil, (evil,), (evil,), "00")
    details = SetClientCertDetails(subject=True, uri=True, dns=True)
    value = forwarded_client_cert("SANITIZE_SET", details)(_conn(peer), None)
    assert value is not None
    assert all(0x20 <= byte < 0x7F for byte in value)
    outside, quoted, escaped = "", False, False
    for char in value.decode():
        if escaped:
            escaped = False
        elif quoted and char == "\\":
            escaped = True
        elif char == '"':
            quoted = not quoted
        elif not quoted:
            outside += char
    assert not quoted
    assert "," not in outside
    assert [part.partition("=")[0] for part in outside.split(";")] == ["By", "Hash", "Subject", "URI", "DNS"]
