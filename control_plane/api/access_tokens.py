"""Bearer tokens of the API: a file of names, roles and hashes in the data directory.

Only hashes are kept: a token has 256 random bits, so SHA-256 needs no salt and no stretching. The file is read
again when it changes, so that ``tulle access-token`` works while the control plane runs. It must not decide
what a role may do.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

PREFIX = "tulle_"
ROLES = ("admin", "edit", "view")


class TokenFileError(Exception):
    """The token file cannot be used; the message names the file and the entry."""


@dataclass(frozen=True, slots=True)
class AccessToken:
    """``namespaces``: where the role holds; empty = everywhere. ``expires``: seconds since the epoch, 0 = never."""

    name: str
    role: str
    namespaces: tuple[str, ...]
    sha256: str
    expires: int = 0


class AccessTokens:
    """The tokens in ``path``; a file that does not exist holds none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read_at: tuple[int, int, int] | None = None
        self._tokens: dict[str, AccessToken] = {}

    def find(self, token: str, now: float) -> AccessToken | None:
        """The entry of ``token``, if it is known and not expired. Raises :class:`TokenFileError`."""
        self._refresh()
        found = self._tokens.get(_hash(token))
        return None if found is None or (found.expires and now >= found.expires) else found

    def list(self) -> Sequence[AccessToken]:
        """All entries, by name. Raises :class:`TokenFileError`."""
        self._refresh()
        return sorted(self._tokens.values(), key=lambda token: token.name)

    def create(self, name: str, role: str, namespaces: Sequence[str], expires: int = 0) -> str:
        """Make a token and return its text, which nobody can read again. Raises :class:`TokenFileError`."""
        text = PREFIX + secrets.token_urlsafe(32)
        entry = AccessToken(name, role, tuple(namespaces), _hash(text), expires)
        with self._alone():
            if any(token.name == name for token in self._tokens.values()):
                raise TokenFileError(f"there is an access token named {name!r} already: revoke it first")
            self._write([*self._tokens.values(), entry])
        return text

    def revoke(self, name: str) -> None:
        """Forget a token. Raises :class:`TokenFileError` if there is none of that name."""
        with self._alone():
            kept = [token for token in self._tokens.values() if token.name != name]
            if len(kept) == len(self._tokens):
                raise TokenFileError(f"there is no access token named {name!r}")
            self._write(kept)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock under which the file is changed, with its newest content read."""
        lock = os.open(self.path.with_name(self.path.name + ".lock"), os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._refresh()
            yield
        finally:
            os.close(lock)

    def _refresh(self) -> None:
        try:
            state = self.path.stat()
        except FileNotFoundError:
            self._read_at, self._tokens = None, {}
            return
        read_at = (state.st_mtime_ns, state.st_ino, state.st_size)
        if read_at == self._read_at:
            return
        try:
            entries = [_entry(item) for item in json.loads(self.path.read_text("utf-8"))["tokens"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TokenFileError(f"{self.path}: cannot be read: {error}") from error
        self._tokens = {token.sha256: token for token in entries}
        self._read_at = read_at

    def _write(self, tokens: Sequence[AccessToken]) -> None:
        text = json.dumps({"tokens": [asdict(token) for token in tokens]}, indent=1)
        beside = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        descriptor = os.open(beside, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self.path)


def _entry(item: dict[str, object]) -> AccessToken:
    token = AccessToken(**{**item, "namespaces": tuple(item["namespaces"])})  # type: ignore[arg-type]
    if token.role not in ROLES:
        raise ValueError(f"token {token.name!r}: role {token.role!r} is none of {', '.join(ROLES)}")
    return token


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
