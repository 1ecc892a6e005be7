from __future__ import annotations

import ipaddress

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa

from certs import csr, keys
from certs.csr import CsrError
from certs.spiffe import SpiffeId

WEB = SpiffeId.workload("mesh.local", "default", "web")
SHA256 = hashes.SHA256()


def request(
    key: object, *extensions: x509.ExtensionType, digest: hashes.HashAlgorithm | None = SHA256
) -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, digest).public_bytes(serialization.Encoding.PEM).decode()  # type: ignore[arg-type]


def test_what_we_build_reads_back() -> None:
    key = keys.generate()
    read = csr.read(csr.build(key, WEB).decode())
    assert read.names == (("URI", str(WEB)),)
    assert read.wants_ca is False
    assert keys.public_der(read.public_key) == keys.public_der(key.public_key())


def test_without_an_id_nothing_is_asked_for() -> None:
    assert csr.read(csr.build(keys.generate()).decode()).names == ()


@pytest.mark.parametrize(
    ("key", "digest"),
    [
        (ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()),
        (ec.generate_private_key(ec.SECP384R1()), hashes.SHA384()),
        (ec.generate_private_key(ec.SECP521R1()), hashes.SHA512()),
        (rsa.generate_private_key(65537, 2048), hashes.SHA256()),
        (ed25519.Ed25519PrivateKey.generate(), None),
    ],
)
def test_strong_keys_are_accepted(key: object, digest: hashes.HashAlgorithm | None) -> None:
    assert csr.read(request(key, digest=digest)).names == ()


@pytest.mark.parametrize(
    ("key", "digest", "wrong"),
    [
        (rsa.generate_private_key(65537, 1024), hashes.SHA256(), "RSA key of 1024 bits"),
        (rsa.generate_private_key(3, 2048), hashes.SHA256(), "exponent 3"),
        (ec.generate_private_key(ec.SECP256K1()), hashes.SHA256(), "secp256k1"),
        (ed448.Ed448PrivateKey.generate(), None, "not accepted"),
        (dsa.generate_private_key(2048), hashes.SHA256(), "not accepted"),
    ],
)
def test_weak_keys_are_refused(key: object, digest: hashes.HashAlgorithm | None, wrong: str) -> None:
    with pytest.raises(CsrError, match=wrong) as caught:
        csr.read(request(key, digest=digest))
    assert caught.value.reason == csr.WEAK_KEY


def test_an_rsa_key_that_is_costly_to_check_is_refused() -> None:
    numbers = rsa.RSAPublicNumbers(65537, (1 << 8192) + 1)
    with pytest.raises(keys.WeakKey, match="8193 bits"):
        keys.check_strength(numbers.public_key())


def test_a_request_signed_by_another_key_is_refused() -> None:
    """The sender must hold the key: here the signature is another request's."""
    victim = x509.load_pem_x509_csr(request(keys.generate()).encode()).public_bytes(
        serialization.Encoding.DER
    )
    forged = bytearray(victim)
    forged[-4] ^= 0x01
    pem = x509.load_der_x509_csr(bytes(forged)).public_bytes(serialization.Encoding.PEM).decode()
    with pytest.raises(CsrError, match="does not hold the key") as caught:
        csr.read(pem)
    assert caught.value.reason == csr.BAD_SIGNATURE


def test_sha1_is_refused() -> None:
    """``cryptography`` no longer signs with SHA-1, so the signature algorithm is altered in the bytes."""
    key = rsa.generate_private_key(65537, 2048)
    raw = x509.load_pem_x509_csr(request(key).encode()).public_bytes(serialization.Encoding.DER)
    sha256, sha1 = bytes.fromhex("06092a864886f70d01010b"), bytes.fromhex("06092a864886f70d010105")
    assert raw.count(sha256) == 1
    pem = x509.load_der_x509_csr(raw.replace(sha256, sha1)).public_bytes(serialization.Encoding.PEM).decode()
    with pytest.raises(CsrError, match="sha1") as caught:
        csr.read(pem)
    assert caught.value.reason == csr.WEAK_SIGNATURE


@pytest.mark.parametrize(
    "pem",
    [
        "",
        "hello",
        "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
        "é" + csr.build(keys.generate()).decode(),
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ],
)
def test_what_is_no_request_is_malformed(pem: str) -> None:
    with pytest.raises(CsrError) as caught:
        csr.read(pem)
    assert caught.value.reason == csr.MALFORMED


def test_the_size_limit() -> None:
    good = csr.build(keys.generate()).decode()
    csr.read(good + " " * (csr.MAX_PEM_BYTES - len(good)))
    with pytest.raises(CsrError, match="longer than"):
        csr.read(good + " " * (csr.MAX_PEM_BYTES - len(good) + 1))


def usage(**set_flags: bool) -> x509.KeyUsage:
    flags = dict.fromkeys(
        (
            "digital_signature",
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "key_cert_sign",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return x509.KeyUsage(**{**flags, **set_flags})


@pytest.mark.parametrize(
    ("extension", "wants"),
    [
        (x509.BasicConstraints(True, None), True),
        (x509.BasicConstraints(False, None), False),
        (usage(key_cert_sign=True), True),
        (usage(crl_sign=True), True),
        (usage(digital_signature=True), False),
    ],
)
def test_a_wish_to_sign_is_seen(extension: x509.ExtensionType, wants: bool) -> None:
    assert csr.read(request(keys.generate(), extension)).wants_ca is wants


def test_every_sort_of_name_is_seen() -> None:
    names = x509.SubjectAlternativeName(
        [
            x509.UniformResourceIdentifier("spiffe://mesh.local/a"),
            x509.DNSName("a.example"),
            x509.IPAddress(ipaddress.ip_address("10.0.0.1")),
            x509.RFC822Name("a@example.org"),
            x509.RegisteredID(x509.ObjectIdentifier("1.2.3")),
        ]
    )
    read = csr.read(request(keys.generate(), names))
    assert [kind for kind, _ in read.names] == ["URI", "DNS", "IP", "RFC822Name", "RegisteredID"]
