"""Private keys: making, reading and writing them; and which public keys are strong enough.

It must not write files (:mod:`certs.files` does). A key read from a sealed PEM needs its passphrase.
"""

from __future__ import annotations

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

PrivateKey = ec.EllipticCurvePrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey
MIN_RSA_BITS = 2048
MAX_RSA_BITS = 8192
"""Checking a signature by a larger key costs an attacker nothing and us a lot."""


class UnreadableKey(ValueError):
    """A private key cannot be read."""


class WeakKey(ValueError):
    """A public key is of a kind or size that is not accepted."""


def generate() -> PrivateKey:
    """A new ECDSA P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def dump(key: PrivateKey, passphrase: bytes | None = None) -> bytes:
    """PKCS #8 PEM; sealed (PBES2) when there is a passphrase."""
    seal: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase:
        seal = serialization.BestAvailableEncryption(passphrase)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, seal)


def load(pem: bytes, passphrase: bytes | None = None, *, where: str = "private key") -> PrivateKey:
    """Read a key that :func:`dump` wrote. ``where`` names it in messages. Raises :class:`UnreadableKey`."""
    sealed = b"-----BEGIN ENCRYPTED PRIVATE KEY-----" in pem
    if sealed and not passphrase:
        raise UnreadableKey(f"{where}: sealed; its passphrase is needed")
    try:
        key = serialization.load_pem_private_key(pem, passphrase if sealed else None)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UnreadableKey(
            f"{where}: wrong passphrase or damaged file" if sealed else f"{where}: not a private key in PEM"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise UnreadableKey(f"{where}: not an ECDSA P-256 key")
    return key


def public_der(key: PublicKey) -> bytes:
    """SubjectPublicKeyInfo (DER) of a public key."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def check_strength(key: object) -> PublicKey:
    """Accept EC P-256/P-384/P-521, RSA of 2048 … 8192 bits with exponent 65537, Ed25519.

    Raises :class:`WeakKey`.
    """
    if isinstance(key, ec.EllipticCurvePublicKey):
        if not isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1 | ec.SECP521R1):
            raise WeakKey(f"EC curve {key.curve.name} is not accepted; use P-256, P-384 or P-521")
    elif isinstance(key, rsa.RSAPublicKey):
        if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
            raise WeakKey(
                f"RSA key of {key.key_size} bits is not accepted; use {MIN_RSA_BITS} to {MAX_RSA_BITS} bits"
            )
        if key.public_numbers().e != 65537:
            raise WeakKey(f"RSA public exponent {key.public_numbers().e} is not accepted; use 65537")
    elif not isinstance(key, ed25519.Ed25519PublicKey):
        raise WeakKey(
            f"{type(key).__name__} is not accepted; use EC P-256/P-384/P-521, RSA ≥ {MIN_RSA_BITS} or Ed25519"
        )
    return key
