"""Who gets a certificate: tokens, renewals, and the attacks on both."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import stat
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from certs import chain, csr, keys
from certs.bundle import split_pem
from certs.spiffe import SpiffeId
from certs.svid import read_leaf
from control_plane.ca import errors
from control_plane.ca.errors import CertificateRefused
from control_plane.ca.tokens import MAX_ATTEMPTS
from control_plane.store.base import Conflict, Delete, Put
from tests.fakes import mesh_ca, pki
from tests.fakes.mesh_ca import MeshCa, MovableClock
from tests.fakes.store import FakeStore

WEB = SpiffeId.workload("mesh.local", "default", "web")


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def ca(tmp_path: Path, clock: MovableClock) -> MeshCa:
    return mesh_ca.make(tmp_path, clock=clock)


def plain_csr() -> str:
    return csr.build(keys.generate()).decode()


def asking(*names: x509.GeneralName, extra: Sequence[x509.ExtensionType] = ()) -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(pki.name("admin"))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    for extension in extra:
        builder = builder.add_extension(extension, critical=True)
    signed = builder.sign(keys.generate(), hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def uri(value: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(value)


async def refused(ca: MeshCa, csr_pem: str, token: str) -> CertificateRefused:
    with pytest.raises(CertificateRefused) as caught:
        await ca.service.issue_with_token(csr_pem, token)
    assert ca.service.refused[caught.value.reason] >= 1
    return caught.value


async def test_a_token_buys_one_certificate(ca: MeshCa) -> None:
    key = keys.generate()
    issued = await ca.service.issue_with_token(csr.build(key).decode(), await ca.token(), peer="10.0.0.9")
    certificates = split_pem(issued.certificates)
    leaf = chain.verify(certificates, ca.service.bundle, pki.NOW.timestamp(), "mesh.local")
    assert leaf.spiffe_id == issued.spiffe_id == WEB
    assert leaf.public_key == keys.public_der(key.public_key())
    assert len(certificates) == 2
    assert issued.not_after == pki.NOW + timedelta(hours=24)
    assert ca.service.issued == {"token": 1}
    (record,) = ca.log()
    assert record["spiffeId"] == str(WEB)
    assert record["attestation"] == "token"
    assert record["token"].startswith("default-")
    assert record["peer"] == "10.0.0.9"
    assert record["serial"] == f"{leaf.serial_number:x}"


async def test_the_secret_is_not_stored_nor_logged(ca: MeshCa, caplog: pytest.LogCaptureFixture) -> None:
    token = await ca.token()
    secret = token.split(".")[2]
    await ca.service.issue_with_token(plain_csr(), token)
    await refused(ca, plain_csr(), token)
    assert isinstance(ca.store, FakeStore)
    assert secret not in str(ca.store.objects)
    assert secret not in (ca.directory / "issued.jsonl").read_text()
    assert secret not in caplog.text
    assert stat.S_IMODE((ca.directory / "issued.jsonl").stat().st_mode) == 0o600


async def test_a_replayed_token_is_refused(ca: MeshCa) -> None:
    token = await ca.token()
    await ca.service.issue_with_token(plain_csr(), token)
    refusal = await refused(ca, plain_csr(), token)
    assert refusal.reason == errors.REPLAYED_TOKEN
    assert "already used" in refusal.message
    assert len(ca.log()) == 1


async def test_a_replay_is_refused_after_a_restart(ca: MeshCa, tmp_path: Path, clock: MovableClock) -> None:
    token = await ca.token()
    await ca.service.issue_with_token(plain_csr(), token)
    again = mesh_ca.make(tmp_path, clock=clock, store=ca.store)
    assert (await refused(again, plain_csr(), token)).reason == errors.REPLAYED_TOKEN


@pytest.mark.parametrize(("uses", "callers"), [(1, 2), (1, 20), (3, 20)])
async def test_of_concurrent_uses_exactly_as_many_win_as_were_granted(
    ca: MeshCa, uses: int, callers: int
) -> None:
    token = await ca.token(uses=uses)
    outcomes = await asyncio.gather(
        *(ca.service.issue_with_token(plain_csr(), token) for _ in range(callers)), return_exceptions=True
    )
    lost = [outcome for outcome in outcomes if isinstance(outcome, CertificateRefused)]
    assert len(outcomes) - len(lost) == uses
    assert {refusal.reason for refusal in lost} == {errors.REPLAYED_TOKEN}
    assert len(ca.log()) == uses


async def test_endless_conflicts_are_given_up(ca: MeshCa) -> None:
    token = await ca.token()
    assert isinstance(ca.store, FakeStore)
    attempts = 0

    async def contended(changes: Sequence[Put | Delete], *, author: str) -> int:
        nonlocal attempts
        attempts += 1
        raise Conflict(changes[0].key, 1, 2)

    ca.store.commit = contended  # type: ignore[method-assign]
    assert (await refused(ca, plain_csr(), token)).reason == errors.REPLAYED_TOKEN
    assert attempts == MAX_ATTEMPTS
    assert ca.log() == []


async def test_an_expired_token_is_refused(ca: MeshCa, clock: MovableClock) -> None:
    token = await ca.token(ttl=timedelta(minutes=5))
    clock.advance(minutes=5)
    refusal = await refused(ca, plain_csr(), token)
    assert refusal.reason == errors.EXPIRED_TOKEN
    assert "2026-03-01T12:05:00Z" in refusal.message


async def test_a_revoked_token_is_refused(ca: MeshCa) -> None:
    token = await ca.token()
    await ca.tokens.revoke("default", token.split(".")[1], author="test")
    assert (await refused(ca, plain_csr(), token)).reason == errors.UNKNOWN_TOKEN
    with pytest.raises(Conflict):
        await ca.tokens.revoke("default", token.split(".")[1], author="test")


async def test_foreign_and_forged_tokens_are_refused(ca: MeshCa, tmp_path: Path, clock: MovableClock) -> None:
    token = await ca.token()
    prefix, token_id, secret, pin = token.split(".")
    other = mesh_ca.make(tmp_path / "other", clock=clock)
    foreign = await refused(ca, plain_csr(), await other.token())
    assert foreign.reason == errors.FOREIGN_TOKEN
    assert "another mesh" in foreign.message
    unknown = await refused(ca, plain_csr(), f"{prefix}.default-0000.{secret}.{pin}")
    assert unknown.reason == errors.UNKNOWN_TOKEN
    no_namespace = await refused(ca, plain_csr(), f"{prefix}.default.{secret}.{pin}")
    assert no_namespace.reason == errors.UNKNOWN_TOKEN
    guessed = await refused(ca, plain_csr(), f"{prefix}.{token_id}.{'A' * 43}.{pin}")
    assert guessed.reason == errors.UNKNOWN_TOKEN
    assert guessed.message.replace(token_id, "X") == unknown.message.replace("default-0000", "X")
    assert (await refused(ca, plain_csr(), "hello")).reason == errors.MALFORMED_TOKEN
    await ca.service.issue_with_token(plain_csr(), token)


async def test_a_used_token_looks_unknown_to_who_does_not_know_its_secret(ca: MeshCa) -> None:
    token = await ca.token()
    await ca.service.issue_with_token(plain_csr(), token)
    prefix, token_id, _, pin = token.split(".")
    assert (
        await refused(ca, plain_csr(), f"{prefix}.{token_id}.{'A' * 43}.{pin}")
    ).reason == errors.UNKNOWN_TOKEN


ATTACKS = [
    pytest.param(
        asking(uri("spiffe://mesh.local/ns/default/sa/db")), errors.OTHER_IDENTITY, "sa/db", id="other"
    ),
    pytest.param(
        asking(uri("spiffe://other.local/ns/default/sa/web")), errors.OTHER_IDENTITY, "other.local", id="td"
    ),
    pytest.param(
        asking(uri(str(WEB)), uri(str(WEB) + "2")), errors.OTHER_IDENTITY, "sa/web2", id="extra URI"
    ),
    pytest.param(asking(uri(str(WEB)), uri(str(WEB))), errors.OTHER_IDENTITY, "sa/web", id="the URI twice"),
    pytest.param(asking(x509.DNSName("db.default.mesh.local")), errors.OTHER_IDENTITY, "DNS", id="DNS"),
    pytest.param(asking(uri(str(WEB)), x509.DNSName("a")), errors.OTHER_IDENTITY, "DNS", id="DNS beside"),
    pytest.param(
        asking(x509.IPAddress(ipaddress.ip_address("10.0.0.1"))), errors.OTHER_IDENTITY, "IP", id="IP"
    ),
    pytest.param(asking(x509.RFC822Name("a@example.org")), errors.OTHER_IDENTITY, "RFC822Name", id="mail"),
    pytest.param(
        asking(uri(str(WEB)), extra=[x509.BasicConstraints(True, 0)]), errors.WANTS_CA, "leaf only", id="cA"
    ),
    pytest.param(
        asking(
            extra=[x509.KeyUsage(True, False, False, False, False, True, False, False, False)],
        ),
        errors.WANTS_CA,
        "sign certificates",
        id="keyCertSign",
    ),
]


@pytest.mark.parametrize(("csr_pem", "reason", "named"), ATTACKS)
async def test_a_csr_cannot_ask_for_more(ca: MeshCa, csr_pem: str, reason: str, named: str) -> None:
    token = await ca.token()
    refusal = await refused(ca, csr_pem, token)
    assert refusal.reason == reason
    assert named in refusal.message
    assert ca.log() == []
    await ca.service.issue_with_token(plain_csr(), token)  # a refused CSR uses no token up


async def test_weak_keys_are_refused_and_cost_no_token(ca: MeshCa) -> None:
    token = await ca.token()
    weak = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .sign(rsa.generate_private_key(65537, 1024), hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
        .decode()
    )
    refusal = await refused(ca, weak, token)
    assert refusal.reason == csr.WEAK_KEY
    assert "1024 bits" in refusal.message
    await ca.service.issue_with_token(plain_csr(), token)


async def test_the_csrs_subject_is_ignored(ca: MeshCa) -> None:
    issued = await ca.service.issue_with_token(asking(uri(str(WEB))), await ca.token())
    leaf = read_leaf(split_pem(issued.certificates)[0])
    assert leaf.spiffe_id == WEB
    assert leaf.subject == b"\x30\x00"


@pytest.mark.parametrize("account", ["control-plane", "admin"])
async def test_no_token_buys_the_meshs_own_identities(ca: MeshCa, account: str) -> None:
    token = await ca.token(account, "tulle-system")
    assert (await refused(ca, plain_csr(), token)).reason == errors.OTHER_IDENTITY


async def enrolled(ca: MeshCa, service_account: str = "web") -> bytes:
    issued = await ca.service.issue_with_token(plain_csr(), await ca.token(service_account))
    return split_pem(issued.certificates)[0]


async def test_a_current_svid_renews_itself(ca: MeshCa, clock: MovableClock) -> None:
    current = await enrolled(ca)
    clock.advance(hours=12)
    issued = await ca.service.renew(current, csr.build(keys.generate(), WEB).decode())
    assert issued.spiffe_id == WEB
    assert issued.not_after == clock.now + timedelta(hours=24)
    assert [record["attestation"] for record in ca.log()] == ["token", "renewal"]


@pytest.mark.parametrize(("csr_pem", "reason", "named"), ATTACKS)
async def test_a_renewal_cannot_ask_for_more(ca: MeshCa, csr_pem: str, reason: str, named: str) -> None:
    with pytest.raises(CertificateRefused, match=named) as caught:
        await ca.service.renew(await enrolled(ca), csr_pem)
    assert caught.value.reason == reason


async def test_a_workload_cannot_renew_as_another(ca: MeshCa) -> None:
    with pytest.raises(CertificateRefused) as caught:
        await ca.service.renew(await enrolled(ca, "db"), csr.build(keys.generate(), WEB).decode())
    assert caught.value.reason == errors.OTHER_IDENTITY


async def test_an_expired_svid_on_an_old_connection_renews_nothing(ca: MeshCa, clock: MovableClock) -> None:
    current = await enrolled(ca)
    clock.advance(hours=24, seconds=1)
    with pytest.raises(CertificateRefused, match="enrol again") as caught:
        await ca.service.renew(current, plain_csr())
    assert caught.value.reason == errors.EXPIRED_CERTIFICATE


@pytest.mark.parametrize(
    "peer",
    [
        pytest.param(pki.make(ca=True).der, id="cA true"),
        pytest.param(pki.make(uris=()).der, id="no URI"),
        pytest.param(pki.make(uris=("spiffe://other.local/a",)).der, id="another trust domain"),
        pytest.param(b"", id="empty"),
    ],
)
async def test_what_is_no_svid_renews_nothing(ca: MeshCa, peer: bytes) -> None:
    with pytest.raises(CertificateRefused) as caught:
        await ca.service.renew(peer, plain_csr())
    assert caught.value.reason == errors.NOT_AN_SVID


def test_the_server_identity(ca: MeshCa) -> None:
    made = ca.service.issue_server(("localhost", "cp.example"), ("127.0.0.1", "::1"))
    leaf = x509.load_der_x509_certificate(split_pem(made.certificate.certificates)[0])
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost", "cp.example"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    assert str(made.certificate.spiffe_id) == "spiffe://mesh.local/ns/tulle-system/sa/control-plane"


async def test_the_admin_identity_renews_with_its_long_validity(ca: MeshCa, clock: MovableClock) -> None:
    made = ca.service.issue_admin()
    assert str(made.certificate.spiffe_id) == "spiffe://mesh.local/ns/tulle-system/sa/admin"
    renewed = await ca.service.renew(split_pem(made.certificate.certificates)[0], plain_csr())
    assert renewed.not_after - clock.now > timedelta(days=300)


async def test_a_certificate_that_cannot_be_logged_is_withheld(
    ca: MeshCa, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await ca.token()
    monkeypatch.setattr(os, "write", lambda _descriptor, data: len(data) - 1)
    with pytest.raises(CertificateRefused, match="disk full") as caught:
        await ca.service.issue_with_token(plain_csr(), token)
    assert caught.value.reason == errors.CA_UNAVAILABLE


async def test_without_an_issuing_ca_no_token_is_used_up(
    ca: MeshCa, tmp_path: Path, clock: MovableClock
) -> None:
    (tmp_path / "ca" / "root.key").unlink()
    offline = mesh_ca.make(tmp_path, clock=clock, store=ca.store)
    clock.advance(days=366)
    token = await offline.token()
    assert (await refused(offline, plain_csr(), token)).reason == errors.CA_UNAVAILABLE
    stored, _ = await offline.tokens.list("default")
    assert [item.body["status"]["used"] for item in stored] == [0]


async def test_dead_tokens_are_purged_after_a_while(ca: MeshCa, clock: MovableClock) -> None:
    await ca.token(ttl=timedelta(hours=1))
    clock.advance(days=7)
    await ca.token("db")
    assert await ca.tokens.purge() == 0
    clock.advance(hours=1, seconds=1)
    assert await ca.tokens.purge() == 1
    stored, _ = await ca.tokens.list(None)
    assert [item.body["spec"]["serviceAccount"] for item in stored] == ["db"]


@pytest.mark.parametrize("lifetime", [timedelta(seconds=1), timedelta(days=31)])
def test_the_svid_lifetime_has_limits(tmp_path: Path, lifetime: timedelta) -> None:
    with pytest.raises(ValueError, match="SVID lifetime"):
        mesh_ca.make(tmp_path, svid_lifetime=lifetime)
