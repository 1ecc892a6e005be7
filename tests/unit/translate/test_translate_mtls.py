"""PeerAuthentication: the more specific over the more general."""

from __future__ import annotations

from typing import Any

import pytest

from control_plane.translate.mtls import MtlsMode, MtlsPolicies
from tests.support.mesh_objects import document, view_of

ROOT = "tulle-system"
WEB = {"matchLabels": {"app": "web"}}
S, P, D = MtlsMode.STRICT, MtlsMode.PERMISSIVE, MtlsMode.DISABLE


def peer(name: str, mode: str | None, namespace: str = "shop", **spec: Any) -> dict[str, Any]:
    body = {**spec, **({"mtls": {"mode": mode}} if mode else {})}
    return document("PeerAuthentication", name, body, namespace)


def ports(**modes: str) -> dict[str, Any]:
    return {"selector": WEB, "portLevelMtls": {port[1:]: {"mode": mode} for port, mode in modes.items()}}


CASES = [
    ([], P, P),
    ([peer("m", "STRICT", ROOT)], S, S),
    ([peer("m", "STRICT", ROOT), peer("n", "DISABLE")], D, D),
    ([peer("m", "STRICT", ROOT), peer("n", "UNSET")], S, S),
    ([peer("n", "STRICT", "else")], P, P),
    ([peer("n", "STRICT"), peer("w", "PERMISSIVE", selector=WEB)], P, P),
    ([peer("n", "STRICT"), peer("w", None, selector=WEB)], S, S),
    ([peer("w", "STRICT", selector={"matchLabels": {"app": "db"}})], P, P),
    ([peer("w", "STRICT", ROOT, selector=WEB)], P, P),
    ([peer("n", "STRICT"), peer("w", None, **ports(p8080="DISABLE"))], S, D),
    ([peer("n", "STRICT"), peer("w", "DISABLE", **ports(p8080="UNSET", p9="STRICT"))], D, D),
    ([peer("old", "STRICT"), peer("young", "DISABLE")], S, S),
    ([peer("old", "STRICT", selector=WEB), peer("young", "DISABLE", selector=WEB)], S, S),
]


@pytest.mark.parametrize(("documents", "default", "on_8080"), CASES)
def test_modes(documents: list[dict[str, Any]], default: MtlsMode, on_8080: MtlsMode) -> None:
    policies = MtlsPolicies(view_of(documents).peer_authentications, ROOT)
    found = policies.workload("shop", {"app": "web"})
    assert (found.mode(1), found.mode(8080)) == (default, on_8080)


def test_what_decided_is_named() -> None:
    documents = [
        peer("m", "STRICT", ROOT),
        peer("w", None, **ports(p1="DISABLE")),
        peer("x", "STRICT", "else"),
    ]
    found = MtlsPolicies(view_of(documents).peer_authentications, ROOT).workload("shop", {"app": "web"})
    assert {key.name for key in found.keys} == {"m", "w"}
