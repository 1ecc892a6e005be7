"""The text form of a join token: ``tulle1.<token id>.<secret>.<sha256 of the root certificate's DER, hex>``.

It must not know who issues or checks tokens. The secret never appears in an error message or in ``repr``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

PREFIX = "tulle1"

_TOKEN = re.compile(
    r"tulle1\.(?P<id>[a-z0-9](?:[a-z0-9-]{0,251}[a-z0-9])?)"
    r"\.(?P<secret>[A-Za-z0-9_-]{32,128})"
    r"\.(?P<pin>[0-9a-f]{64})",
    re.ASCII,
)


class JoinTokenError(ValueError):
    """A string is not a join token."""


@dataclass(frozen=True, slots=True)
class JoinToken:
    """A join token's parts. ``root_pin`` is the lower-case hex SHA-256 of the mesh's root certificate (DER)."""

    id: str
    secret: str = field(repr=False)
    root_pin: str

    @classmethod
    def parse(cls, text: str) -> JoinToken:
        """Read a token; white space around it is ignored. Raises :class:`JoinTokenError`."""
        match = _TOKEN.fullmatch(text.strip())
        if match is None:
            raise JoinTokenError(
                f"not a join token: expected '{PREFIX}.<id>.<secret>.<sha256 of the root certificate>'; "
                "copy the whole line that the control plane printed"
            )
        return cls(match["id"], match["secret"], match["pin"])

    def text(self) -> str:
        """The token as it is handed to a workload. It is a secret."""
        return f"{PREFIX}.{self.id}.{self.secret}.{self.root_pin}"
