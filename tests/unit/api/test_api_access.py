from __future__ import annotations

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from control_plane.api.access import Authenticator, Principal, Role, Verb
from control_plane.api.access_tokens import AccessTokens, TokenFileError
from control_plane.api.errors import ApiError


@pytest.fixture
def tokens(tmp_path: Path) -> AccessTokens:
    return AccessTokens(tmp_path / "access-tokens.json")


@pytest.mark.parametrize(
    ("role", "namespaces", "allowed"),
    [
        (Role.ADMIN, (), {"read a", "write a", "read *", "write *"}),
        (Role.EDIT, (), {"read a", "write a", "read *", "write *"}),
        (Role.EDIT, ("a",), {"read a", "write a"}),
        (Role.EDIT, ("b",), set()),
        (Role.VIEW, (), {"read a", "read *"}),
        (Role.VIEW, ("a", "b"), {"read a"}),
        (Role.WORKLOAD, (), set()),
    ],
)
def test_what_each_role_may(role: Role, namespaces: tuple[str, ...], allowed: set[str]) -> None:
    principal = Principal("x", role, frozenset(namespaces))
    found = {
        f"{verb.value} {namespace or '*'}"
        for verb in Verb
        for namespace in ("a", None)
        if principal.may(verb, namespace)
    }
    assert found == allowed


def test_require_says_who_what_and_where() -> None:
    with pytest.raises(ApiError, match=r"token:bob \(role view\) may not write in namespace 'a'") as refused:
        Principal("token:bob", Role.VIEW).require(Verb.WRITE, "a")
    assert refused.value.code == 403


class TestTokens:
    def test_a_token_is_found_by_its_text_alone(self, tokens: AccessTokens) -> None:
        text = tokens.create("ci", "edit", ["a", "b"])
        other = tokens.create("ann", "view", [])
        found = tokens.find(text, 0)
        assert found is not None
        assert (found.name, found.role, found.namespaces) == ("ci", "edit", ("a", "b"))
        assert tokens.find(text[:-1], 0) is None
        assert tokens.find("", 0) is None
        assert [token.name for token in tokens.list()] == ["ann", "ci"]
        assert text != other

    def test_the_file_holds_no_token_and_is_private(self, tokens: AccessTokens) -> None:
        text = tokens.create("ci", "edit", [])
        assert text not in tokens.path.read_text()
        assert text.removeprefix("tulle_") not in tokens.path.read_text()
        assert stat.S_IMODE(tokens.path.stat().st_mode) == 0o600

    def test_another_process_sees_creation_and_revocation(self, tokens: AccessTokens) -> None:
        server = AccessTokens(tokens.path)
        assert server.find("x", 0) is None
        text = tokens.create("ci", "edit", [])
        assert server.find(text, 0) is not None
        tokens.revoke("ci")
        assert server.find(text, 0) is None

    def test_concurrent_creations_lose_none(self, tokens: AccessTokens) -> None:
        with ThreadPoolExecutor(8) as pool:
            texts = list(pool.map(lambda n: AccessTokens(tokens.path).create(f"t{n}", "view", []), range(16)))
        assert all(tokens.find(text, 0) for text in texts)

    def test_expiry(self, tokens: AccessTokens) -> None:
        text = tokens.create("ci", "edit", [], expires=100)
        assert tokens.find(text, 99.9) is not None
        assert tokens.find(text, 100) is None

    def test_mistakes_are_named(self, tokens: AccessTokens) -> None:
        tokens.create("ci", "edit", [])
        with pytest.raises(TokenFileError, match="'ci' already"):
            tokens.create("ci", "view", [])
        with pytest.raises(TokenFileError, match="no access token named 'x'"):
            tokens.revoke("x")

    @pytest.mark.parametrize(
        "content",
        [
            "",
            "{}",
            "[]",
            '{"tokens":[{"name":"x"}]}',
            json.dumps({"tokens": [{"name": "x", "role": "root", "namespaces": [], "sha256": "0"}]}),
        ],
    )
    def test_a_damaged_file_is_an_error_and_lets_nobody_in(self, tokens: AccessTokens, content: str) -> None:
        text = tokens.create("ci", "edit", [])
        assert tokens.find(text, 0) is not None
        tokens.path.write_text(content)
        os.utime(tokens.path, ns=(1, 1))
        with pytest.raises(TokenFileError, match=r"access-tokens\.json"):
            tokens.find(text, 0)


class TestAuthenticator:
    @pytest.fixture
    def authenticator(self, tokens: AccessTokens) -> Authenticator:
        return Authenticator("mesh.test", tokens, lambda: 50.0)

    def test_a_bearer_token_makes_its_principal(
        self, authenticator: Authenticator, tokens: AccessTokens
    ) -> None:
        text = tokens.create("ci", "edit", ["a"])
        principal = authenticator.identify(None, f"bearer  {text}")
        assert principal == Principal("token:ci", Role.EDIT, frozenset({"a"}))

    @pytest.mark.parametrize("header", [None, "", "Basic eDp5", "Bearer", "Bearer tulle_x", "tulle_x"])
    def test_anything_else_is_nobody(self, authenticator: Authenticator, header: str | None) -> None:
        with pytest.raises(ApiError) as refused:
            authenticator.identify(None, header)
        assert refused.value.code == 401

    def test_a_bad_token_is_not_excused_by_a_certificate(self, authenticator: Authenticator) -> None:
        with pytest.raises(ApiError, match="not known"):
            authenticator.identify(b"whatever", "Bearer tulle_x")

    def test_a_damaged_token_file_is_our_fault(
        self, authenticator: Authenticator, tokens: AccessTokens
    ) -> None:
        tokens.path.write_text("x")
        with pytest.raises(ApiError) as refused:
            authenticator.identify(None, "Bearer tulle_x")
        assert refused.value.code == 503

    def test_a_certificate_that_is_no_svid_is_nobody(self, authenticator: Authenticator) -> None:
        with pytest.raises(ApiError, match="client certificate cannot be used"):
            authenticator.identify(b"\x30\x00", None)
