"""Who asks, and what they may do.

Two ways to be somebody: a client certificate of this mesh's CA, or a bearer token. Three roles: ``admin`` does all,
``edit`` writes and ``view`` reads, both perhaps only in some namespaces. Workloads' certificates (SVIDs) are for
the CA's endpoints alone. It must not read requests; the middleware does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from certs.svid import SvidError, read_leaf
from control_plane.api.access_tokens import AccessTokens, TokenFileError
from control_plane.api.errors import ApiError


class Role(Enum):
    ADMIN = "admin"
    EDIT = "edit"
    VIEW = "view"
    WORKLOAD = "workload"


class Verb(Enum):
    READ = "read"
    WRITE = "write"


@dataclass(frozen=True, slots=True)
class Principal:
    """``name``: the author of what they write. ``namespaces``: where the role holds; empty = everywhere."""

    name: str
    role: Role
    namespaces: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return self.name

    def may(self, verb: Verb, namespace: str | None) -> bool:
        """``namespace`` ``None`` = all namespaces at once."""
        if self.role is Role.ADMIN:
            return True
        if self.role is Role.WORKLOAD or (verb is Verb.WRITE and self.role is not Role.EDIT):
            return False
        return not self.namespaces or namespace in self.namespaces

    def require(self, verb: Verb, namespace: str | None) -> None:
        """Raises :class:`ApiError` (403) if they may not."""
        if self.may(verb, namespace):
            return
        where = "in all namespaces" if namespace is None else f"in namespace {namespace!r}"
        raise ApiError(403, f"{self.name} (role {self.role.value}) may not {verb.value} {where}")


class Authenticator:
    """``clock``: seconds since the epoch; a connection may outlive its certificate, so expiry is checked again."""

    def __init__(self, trust_domain: str, tokens: AccessTokens, clock: Callable[[], float]) -> None:
        self._trust_domain = trust_domain
        self._admin = f"spiffe://{trust_domain}/ns/tulle-system/sa/admin"
        self._tokens = tokens
        self._clock = clock

    def identify(self, certificate: bytes | None, authorization: str | None) -> Principal:
        """``certificate``: the DER that TLS has verified. ``authorization``: the header. Raises 401."""
        if authorization is not None:
            return self._bearer(authorization)
        if certificate is not None:
            return self._certificate(certificate)
        raise ApiError(
            401, "authentication is needed: a client certificate or an Authorization: Bearer token"
        )

    def _bearer(self, authorization: str) -> Principal:
        scheme, _, text = authorization.partition(" ")
        if scheme.lower() != "bearer":
            raise ApiError(401, "the Authorization header must be: Bearer <access token>")
        try:
            token = self._tokens.find(text.strip(), self._clock())
        except TokenFileError as error:
            raise ApiError(503, f"access tokens cannot be checked now: {error}") from error
        if token is None:
            raise ApiError(401, "the bearer token is not known, or expired")
        return Principal(f"token:{token.name}", Role(token.role), frozenset(token.namespaces))

    def _certificate(self, certificate: bytes) -> Principal:
        try:
            leaf = read_leaf(certificate, self._trust_domain)
        except SvidError as error:
            raise ApiError(401, f"the client certificate cannot be used: {error}") from error
        if self._clock() >= leaf.not_after:
            raise ApiError(401, f"the client certificate of {leaf.spiffe_id} has expired")
        name = str(leaf.spiffe_id)
        return Principal(name, Role.ADMIN if name == self._admin else Role.WORKLOAD)
