"""Handshakes between two TLS contexts in memory, with the verdicts of both sides."""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from proxy.tls.context import TlsContext
from tests.fakes import pki

NOW = datetime.datetime.now(datetime.UTC)
HOUR = datetime.timedelta(hours=1)
# Long enough for the slowest machine to come to its last test.
VALID: dict[str, Any] = {"not_before": NOW - HOUR, "not_after": NOW + 24 * HOUR}


@dataclass
class Shaken:
    """How it ended. ``refusal`` of a side: what its engine or its judge raised, "" if it agreed."""

    server: ssl.SSLObject
    client: ssl.SSLObject
    server_refusal: str
    client_refusal: str
    session: ssl.SSLSession | None = None

    @property
    def agreed(self) -> bool:
        return not self.server_refusal and not self.client_refusal


def shake(
    server: TlsContext | ssl.SSLContext,
    client: TlsContext | ssl.SSLContext,
    *,
    sni: str | None = None,
    session: ssl.SSLSession | None = None,
    server_name: str = "",
) -> Shaken:
    """One handshake; each side that is a ``TlsContext`` judges the other afterwards."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = (server.ssl if isinstance(server, TlsContext) else server).wrap_bio(to_server, to_client, True)
    theirs = (client.ssl if isinstance(client, TlsContext) else client).wrap_bio(
        to_client, to_server, False, sni, session=session
    )
    done: dict[ssl.SSLObject, str] = {}
    for _ in range(8):
        for engine in (theirs, ours):
            if engine in done:
                continue
            try:
                engine.do_handshake()
                done[engine] = ""
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError as error:
                done[engine] = str(error)
    result = Shaken(ours, theirs, done.get(ours, "no end"), done.get(theirs, "no end"))
    if not result.server_refusal and isinstance(server, TlsContext):
        result.server_refusal = judged(server, ours)
    if not result.client_refusal:
        if isinstance(client, TlsContext):
            result.client_refusal = judged(client, theirs, server_name)
        if result.agreed:
            ours.write(b"x")
            result.client_refusal = "" if theirs.read(1) == b"x" else "no data"
            result.session = theirs.session
    return result


def judged(context: TlsContext, engine: ssl.SSLObject, server_name: str = "") -> str:
    try:
        context.judge(engine, server_name)
    except Exception as refusal:  # noqa: BLE001
        return f"{getattr(refusal, 'kind', 'other')}: {refusal}"
    return ""


def ca(name: str = "root", signer: pki.Pair | None = None, **options: Any) -> pki.Pair:
    return pki.make(
        **{
            "signer": signer,
            "ca": True,
            "usage": pki.CA_USAGE,
            "uris": ("spiffe://mesh.local",),
            "ekus": None,
            "subject": name,
            **VALID,
            **options,
        }
    )


def leaf(signer: pki.Pair, *chain: pki.Pair, **options: Any) -> bytes:
    """Key, certificate and intermediates as PEM."""
    made = pki.make(**{"signer": signer, **VALID, **options})
    return made.key_pem + b"".join(one.pem.encode() for one in (made, *chain))


def crl(
    signer: pki.Pair,
    revoked: Sequence[bytes] = (),
    *,
    last: datetime.datetime = NOW - HOUR,
    until: datetime.datetime = NOW + 24 * HOUR,
) -> bytes:
    """A revocation list (PEM) of ``signer`` with the leaves of ``revoked`` (PEM) on it."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(signer.certificate.subject)
        .last_update(last)
        .next_update(until)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key()), critical=False
        )
        .add_extension(x509.CRLNumber(1), critical=False)
    )
    for pem in revoked:
        one = x509.load_pem_x509_certificate(pem[pem.index(b"-----BEGIN CERT") :])
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder()
            .serial_number(one.serial_number)
            .revocation_date(NOW - HOUR)
            .build()
        )
    return builder.sign(signer.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
