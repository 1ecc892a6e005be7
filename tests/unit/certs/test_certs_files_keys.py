"""Bundles, keys, files, join tokens, schedules."""

from __future__ import annotations

import os
import ssl
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from certs import bundle, files, keys, schedule
from certs.bundle import BundleError, TrustBundle
from certs.files import SecretFileError
from certs.join_token import JoinToken, JoinTokenError
from certs.keys import UnreadableKey
from tests.fakes import pki

ROOT = pki.make_ca()
OTHER = pki.make_ca(subject="other")


def test_a_bundle_reads_back() -> None:
    made = TrustBundle.of([ROOT.der, OTHER.der, ROOT.der], "mesh.local")
    assert made.roots == (ROOT.der, OTHER.der)
    assert TrustBundle.parse(made.to_pem()) == made
    assert TrustBundle.parse("comment\n" + ROOT.pem.replace("\n", "\r\n") + OTHER.pem) == made


def test_a_root_is_found_by_its_pin() -> None:
    made = TrustBundle.of([ROOT.der, OTHER.der])
    assert made.find(bundle.pin(OTHER.der)) == OTHER.der
    assert made.find(bundle.pin(OTHER.der).upper()) == OTHER.der
    assert made.find("0" * 64) is None


@pytest.mark.parametrize(
    ("pem", "wrong"),
    [
        ("", "no certificate"),
        (pki.make().pem, "certificate 1: the certificate is not a CA"),
        (ROOT.pem + pki.make_ca("other.local").pem, "certificate 2: .* not of trust domain"),
        (ROOT.pem.replace("-----END CERTIFICATE-----", ""), "no end line"),
        (ROOT.pem.replace("M", "!", 1), "certificate 1"),
        (ROOT.pem * (bundle.MAX_CERTIFICATES + 1), "more than 100"),
    ],
)
def test_bad_bundles_are_refused(pem: str, wrong: str) -> None:
    with pytest.raises(BundleError, match=wrong):
        TrustBundle.parse(pem, "mesh.local")


def test_blocks_of_other_labels_are_passed_over_and_tls_does_not_send_them(tmp_path: Path) -> None:
    leaf = pki.make(signer=ROOT)
    text = leaf.key_pem.decode() + leaf.pem + bundle.join_pem([ROOT.der], "TULLE TRUST ROOT")
    assert bundle.split_pem(text) == (leaf.der,)
    assert bundle.split_pem(text, "TULLE TRUST ROOT") == (ROOT.der,)
    path = tmp_path / "identity.pem"
    path.write_text(text)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)


def test_keys_are_sealed_by_a_passphrase() -> None:
    key = keys.generate()
    sealed = keys.dump(key, b"correct horse")
    assert b"ENCRYPTED" in sealed
    assert keys.public_der(keys.load(sealed, b"correct horse").public_key()) == keys.public_der(
        key.public_key()
    )
    with pytest.raises(UnreadableKey, match="its passphrase is needed"):
        keys.load(sealed)
    with pytest.raises(UnreadableKey, match=r"root\.key: wrong passphrase"):
        keys.load(sealed, b"wrong", where="root.key")


def test_an_unsealed_key_needs_no_passphrase() -> None:
    key = keys.generate()
    assert keys.load(keys.dump(key), b"unused").private_numbers() == key.private_numbers()


def test_only_p256_keys_are_loaded() -> None:
    pem = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(UnreadableKey, match="not an ECDSA P-256 key"):
        keys.load(pem)
    with pytest.raises(UnreadableKey, match="not a private key in PEM"):
        keys.load(b"hello")


def test_secrets_are_written_whole_and_0600(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    old = os.umask(0o777)
    try:
        files.write_private(path, b"one")
    finally:
        os.umask(old)
    files.write_private(path, b"two")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert files.read_private(path) == b"two"
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret"], "no temporary file stays"


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret"
    files.write_private(path, b"old")

    def full(_: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write_private(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_secret_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "secret"
    files.write_private(path, b"x")
    path.chmod(mode)
    with pytest.raises(SecretFileError, match="chmod 600"):
        files.read_private(path)


def test_private_directories(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    files.make_private_directory(path)
    files.make_private_directory(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700


PIN = "ab" * 32


def test_a_join_token_reads_back_and_hides_its_secret() -> None:
    token = JoinToken("default-0123456789abcdef", "s" * 43, PIN)
    assert JoinToken.parse(f" {token.text()}\n") == token
    assert "sss" not in repr(token)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tulle1",
        f"tulle2.default-1.{'s' * 43}.{PIN}",
        f"tulle1.default-1.{'s' * 10}.{PIN}",
        f"tulle1.default-1.{'s' * 43}.{PIN[:-1]}",
        f"tulle1.default-1.{'s' * 43}.{PIN.upper()}",
        f"tulle1.Default.{'s' * 43}.{PIN}",
        f"tulle1..{'s' * 43}.{PIN}",
        f"tulle1.default-1.{'s' * 42}é.{PIN}",
        f"tulle1.default-1.{'s' * 43}.{PIN}.x",
    ],
)
def test_what_is_no_join_token(text: str) -> None:
    with pytest.raises(JoinTokenError) as caught:
        JoinToken.parse(text)
    assert "sss" not in str(caught.value)


UNIT = st.floats(0, 1, exclude_max=True)


@given(UNIT, st.floats(2, 1e9))
def test_renewal_is_around_the_half_life(random: float, lifetime: float) -> None:
    share = (schedule.renew_at(1000, 1000 + lifetime, random) - 1000) / lifetime
    assert 0.449 <= share <= 0.551


def test_the_jitter_spreads_renewals() -> None:
    moments = [schedule.renew_at(0, 1000, random) for random in (0, 0.25, 0.5, 0.75)]
    assert moments == pytest.approx([450, 475, 500, 525])


@given(st.integers(1, 10_000), UNIT)
def test_retries_are_capped(failures: int, random: float) -> None:
    delay = schedule.retry_delay(failures, random, base=1, cap=60)
    assert 0.5 <= delay <= 60


def test_retries_grow() -> None:
    assert [schedule.retry_delay(n, 0.999999999) for n in range(1, 9)] == pytest.approx(
        [1, 2, 4, 8, 16, 32, 60, 60]
    )


def test_near_the_end_retries_come_closer_together() -> None:
    assert schedule.retry_delay(20, 0.999999999, remaining=100) == pytest.approx(10)
    assert schedule.retry_delay(20, 0.999999999, remaining=2) == pytest.approx(1)
    assert schedule.retry_delay(20, 0.999999999, remaining=-5) == pytest.approx(60)
