"""One-time join tokens: made, listed, revoked, and consumed so that no race or restart lets one be used twice.

A token is stored without its secret (SHA-256 over id and secret: the secret has 256 random bits, so no slow hash
is needed). It must not issue certificates.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from certs.join_token import JoinToken, JoinTokenError
from control_plane.ca import errors
from control_plane.ca.errors import CertificateRefused
from control_plane.store.base import Conflict, Delete, Key, Put, Store, Stored

GROUP = "mesh.tulle.io"
VERSION = "v1"
PLURAL = "jointokens"
KIND = "JoinToken"

CONSUMER = "system:ca"
"""The author of the revisions in which tokens are used up."""

MAX_ATTEMPTS = 64
"""How often one use is tried again because another use of the same token came first."""

Clock = Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """What a token shall be good for. ``ttl`` counts from now; ``uses`` is how many certificates it may buy."""

    namespace: str
    service_account: str
    ttl: timedelta
    uses: int = 1


@dataclass(frozen=True, slots=True)
class CreatedToken:
    """A new token. ``text`` is the secret string; it can never be read again."""

    text: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Grant:
    """A token that is good now. Nothing is used up until :meth:`JoinTokens.consume`."""

    namespace: str
    service_account: str
    token_id: str
    token: JoinToken
    stored: Stored


class JoinTokens:
    """The join tokens of one mesh. ``root_pin``: hex SHA-256 of its root certificate (:mod:`certs.bundle`)."""

    __slots__ = ("_clock", "_random", "_root_pin", "_store")

    def __init__(
        self,
        store: Store,
        root_pin: str,
        *,
        clock: Clock,
        random: Callable[[int], str] = secrets.token_urlsafe,
    ) -> None:
        self._store = store
        self._root_pin = root_pin
        self._clock = clock
        self._random = random

    async def create(self, request: TokenRequest, *, author: str) -> CreatedToken:
        """Make a token. The request is taken as valid (:mod:`control_plane.ca.resource` checks)."""
        now = self._clock().replace(microsecond=0)
        # The namespace in the id makes a look-up possible without a scan; it is no secret.
        token_id = f"{request.namespace}-{secrets.token_hex(8)}"
        token = JoinToken(token_id, self._random(32), self._root_pin)
        body = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": KIND,
            "metadata": {
                "name": token_id,
                "namespace": request.namespace,
                "creationTimestamp": timestamp(now),
            },
            "spec": {
                "serviceAccount": request.service_account,
                "expirationTimestamp": timestamp(now + request.ttl),
                "uses": request.uses,
            },
            "status": {"secretHash": _hash(token), "used": 0},
        }
        await self._store.commit([Put(_key(request.namespace, token_id), body, expect=0)], author=author)
        return CreatedToken(token.text(), body)

    async def list(self, namespace: str | None) -> tuple[Sequence[Stored], int]:
        """Tokens of a namespace (``None``: of all) and the revision at which they were read."""
        return await self._store.list(GROUP, PLURAL, namespace)

    async def get(self, namespace: str, name: str) -> Stored | None:
        return await self._store.get(_key(namespace, name))

    async def revoke(self, namespace: str, name: str, *, author: str) -> None:
        """Delete a token. Raises :class:`~control_plane.store.base.Conflict` when there is none."""
        await self._store.commit([Delete(_key(namespace, name))], author=author)

    async def purge(self, older_than: timedelta = timedelta(days=7)) -> int:
        """Delete tokens that expired that long ago; until then a replay is told apart from an unknown token."""
        stored, _ = await self.list(None)
        limit = self._clock() - older_than
        dead = [item for item in stored if _expiry(item) < limit]
        if dead:
            changes = [Delete(item.key, missing_ok=True) for item in dead]
            await self._store.commit(changes, author=CONSUMER)
        return len(dead)

    async def check(self, text: str) -> Grant:
        """What a token is good for now. Raises :class:`CertificateRefused`; uses nothing up.

        Whoever does not know the secret learns nothing about a token, not even that it exists.
        """
        try:
            token = JoinToken.parse(text)
        except JoinTokenError as error:
            raise CertificateRefused(errors.MALFORMED_TOKEN, str(error)) from error
        if not hmac.compare_digest(token.root_pin, self._root_pin):
            raise CertificateRefused(
                errors.FOREIGN_TOKEN,
                f"join token {token.id}: made by another mesh (its root pin is {token.root_pin[:16]}…, "
                f"this mesh's is {self._root_pin[:16]}…)",
            )
        return await self._check(token)

    async def consume(self, grant: Grant) -> None:
        """Use a token up, once, durably. Raises :class:`CertificateRefused` when another use came first."""
        for _ in range(MAX_ATTEMPTS):
            stored = grant.stored
            status = {
                **stored.body["status"],
                "used": stored.body["status"]["used"] + 1,
                "lastUsed": timestamp(self._clock()),
            }
            change = Put(stored.key, {**stored.body, "status": status}, expect=stored.revision)
            try:
                await self._store.commit([change], author=CONSUMER)
            except Conflict:
                grant = await self._check(grant.token)
            else:
                return
        raise CertificateRefused(
            errors.REPLAYED_TOKEN, f"join token {grant.token_id}: used by too many at once; try again"
        )

    async def _check(self, token: JoinToken) -> Grant:
        namespace = token.id.rpartition("-")[0]
        stored = await self._store.get(_key(namespace, token.id)) if namespace else None
        if stored is None or not hmac.compare_digest(stored.body["status"]["secretHash"], _hash(token)):
            raise CertificateRefused(
                errors.UNKNOWN_TOKEN, f"join token {token.id}: not known here; it was revoked or never made"
            )
        spec = stored.body["spec"]
        if stored.body["status"]["used"] >= spec["uses"]:
            raise CertificateRefused(
                errors.REPLAYED_TOKEN,
                f"join token {token.id}: already used; make a new one for each workload",
            )
        if self._clock() >= _expiry(stored):
            raise CertificateRefused(
                errors.EXPIRED_TOKEN, f"join token {token.id}: expired at {spec['expirationTimestamp']}"
            )
        return Grant(namespace, spec["serviceAccount"], token.id, token, stored)


def timestamp(moment: datetime) -> str:
    """RFC 3339, UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _expiry(stored: Stored) -> datetime:
    return datetime.fromisoformat(stored.body["spec"]["expirationTimestamp"])


def _key(namespace: str, name: str) -> Key:
    return Key(GROUP, PLURAL, namespace, name)


def _hash(token: JoinToken) -> str:
    return hashlib.sha256(f"{token.id}.{token.secret}".encode("ascii")).hexdigest()
