"""SPIFFE IDs: parse, check, print. A leaf: it imports nothing heavy and knows no certificate.

Source: the SPIFFE-ID standard of the SPIFFE project. It accepts only the canonical spelling (lower-case
scheme and trust domain), so that two IDs are equal exactly when their strings are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

SCHEME = "spiffe://"
MAX_ID_BYTES = 2048
"""The longest ID that an implementation must support, and the longest that it may make."""
MAX_TRUST_DOMAIN_BYTES = 255

_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]+", re.ASCII)
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)
_WELL_FORMED = re.compile(
    r"spiffe://([a-z0-9._-]{1,255})((?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]+)*)", re.ASCII
)


class SpiffeIdError(ValueError):
    """A string is not a SPIFFE ID; the message names the part that is wrong."""


@dataclass(frozen=True, slots=True)
class SpiffeId:
    """``spiffe://<trust_domain><path>``.

    ``path`` is empty (a trust domain's own ID) or begins with ``/``. The constructor checks nothing:
    use :meth:`parse`, :meth:`workload` or :meth:`of_trust_domain` for anything that comes from outside.
    """

    trust_domain: str
    path: str

    @classmethod
    def parse(cls, text: str) -> SpiffeId:
        """Read an ID. Raises :class:`SpiffeIdError`."""
        if len(text) <= MAX_ID_BYTES:
            match = _WELL_FORMED.fullmatch(text)
            if match is not None:
                return cls(match[1], match[2])
        raise SpiffeIdError(_what_is_wrong(text))

    @classmethod
    def workload(cls, trust_domain: str, namespace: str, service_account: str) -> SpiffeId:
        """The ID of a workload, ``spiffe://<td>/ns/<namespace>/sa/<service account>``.

        Raises :class:`SpiffeIdError`.
        """
        return cls.parse(f"{SCHEME}{trust_domain}/ns/{namespace}/sa/{service_account}")._of_workload(
            namespace, service_account
        )

    @classmethod
    def of_trust_domain(cls, trust_domain: str) -> SpiffeId:
        """The ID of the trust domain itself, which signing certificates carry.

        Raises :class:`SpiffeIdError`.
        """
        found = cls.parse(f"{SCHEME}{trust_domain}")
        if found.path:
            raise SpiffeIdError(f"trust domain {trust_domain!r}: '/' is not allowed in it")
        return found

    @property
    def namespace(self) -> str | None:
        """``x`` when the path is ``/ns/x/sa/y``, else ``None``."""
        parts = self.path.split("/")
        return parts[2] if _is_workload(parts) else None

    @property
    def service_account(self) -> str | None:
        """``y`` when the path is ``/ns/x/sa/y``, else ``None``."""
        parts = self.path.split("/")
        return parts[4] if _is_workload(parts) else None

    def __str__(self) -> str:
        return f"{SCHEME}{self.trust_domain}{self.path}"

    def _of_workload(self, namespace: str, service_account: str) -> SpiffeId:
        """Itself, unless a slash in one of the two names moved the border between them."""
        if self.namespace != namespace or self.service_account != service_account:
            raise SpiffeIdError(
                f"namespace {namespace!r} and service account {service_account!r} "
                "must each be one path segment"
            )
        return self


def _is_workload(parts: list[str]) -> bool:
    return len(parts) == 5 and parts[1] == "ns" and parts[3] == "sa"


def _what_is_wrong(text: str) -> str:
    """Say which rule ``text`` breaks. Only called for text that breaks one."""
    shown = text if len(text) <= 120 else text[:120] + "…"
    prefix = f"SPIFFE ID {shown!r}: "
    if len(text.encode("utf-8", "surrogatepass")) > MAX_ID_BYTES:
        return f"{prefix}longer than {MAX_ID_BYTES} bytes"
    if not text.startswith(SCHEME):
        return f"{prefix}must begin with {SCHEME!r} in lower case"
    for mark, name in (("?", "query"), ("#", "fragment"), ("%", "percent-encoding")):
        if mark in text:
            return f"{prefix}a {name} ({mark!r}) is not allowed"
    trust_domain, slash, rest = text[len(SCHEME) :].partition("/")
    if not trust_domain:
        return f"{prefix}the trust domain is empty"
    if "@" in trust_domain:
        return f"{prefix}user information ('@') is not allowed before the trust domain"
    if ":" in trust_domain:
        return f"{prefix}a port (':') is not allowed after the trust domain"
    if _TRUST_DOMAIN.fullmatch(trust_domain) is None:
        return f"{prefix}the trust domain may hold only a-z, 0-9, '.', '-' and '_'"
    if len(trust_domain) > MAX_TRUST_DOMAIN_BYTES:
        return f"{prefix}the trust domain is longer than {MAX_TRUST_DOMAIN_BYTES} bytes"
    segments = rest.split("/") if slash else []
    if segments and not segments[-1]:
        return f"{prefix}a trailing '/' is not allowed"
    for segment in segments:
        if not segment:
            return f"{prefix}the path has an empty segment ('//')"
        if segment in (".", ".."):
            return f"{prefix}path segment {segment!r} is not allowed"
        if _SEGMENT.fullmatch(segment) is None:
            return f"{prefix}path segment {segment!r} may hold only letters, digits, '.', '-' and '_'"
    raise AssertionError(f"{text!r} breaks no rule")
