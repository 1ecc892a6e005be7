"""A throw-away CA and two workloads' X.509-SVIDs.

Beside the SPIFFE ID each has a common name and a DNS name, for the kinds of proxy that read nothing else.
"""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bench.configs import CLIENT_ID, SERVER_ID


def write(directory: Path) -> None:
    """Write ``ca.crt``, ``client.crt/.key/.pem`` and ``server.crt/.key/.pem`` (ECDSA P-256; ``.pem`` has both)."""
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "bench")])
    now = datetime.datetime.now(datetime.UTC)

    def certificate(
        subject: x509.Name,
        public_key: ec.EllipticCurvePublicKey,
        extensions: list[tuple[x509.ExtensionType, bool]],
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(ca_name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), False)
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(ca_key, hashes.SHA256())

    ca = certificate(
        ca_name,
        ca_key.public_key(),
        [
            (x509.BasicConstraints(ca=True, path_length=None), True),
            (_usage(sign_certificates=True), True),
            (x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://mesh.local")]), False),
        ],
    )
    (directory / "ca.crt").write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    for who, uri in (("client", CLIENT_ID), ("server", SERVER_ID)):
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = certificate(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, who)]),
            key.public_key(),
            [
                (x509.BasicConstraints(ca=False, path_length=None), True),
                (_usage(sign_certificates=False), True),
                (
                    x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                    False,
                ),
                (
                    x509.SubjectAlternativeName(
                        [x509.UniformResourceIdentifier(uri), x509.DNSName(dns(who))]
                    ),
                    False,
                ),
            ],
        )
        certificate_pem = leaf.public_bytes(serialization.Encoding.PEM)
        (directory / f"{who}.crt").write_bytes(certificate_pem)
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        for name, content in ((f"{who}.key", pem), (f"{who}.pem", certificate_pem + pem)):
            path = directory / name
            path.touch(mode=0o600)
            path.write_bytes(content)


def dns(who: str) -> str:
    """The DNS name in a workload's certificate."""
    return f"{who}.mesh.local"


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
