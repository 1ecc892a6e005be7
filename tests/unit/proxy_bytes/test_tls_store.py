"""Secrets by name and the contexts made of them."""

from __future__ import annotations

import ssl
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from proxy.model.config import Config, ConfigError
from proxy.model.tls import (
    CommonTls,
    DataSource,
    DownstreamTls,
    Secret,
    SecretRef,
    TlsCertificate,
    UpstreamTls,
    ValidationContext,
)
from proxy.tls.errors import SecretError
from proxy.tls.store import SecretStore
from tests.fakes import pki
from tests.fakes.sidecar import (
    Mesh,
    chain,
    config,
    direct,
    http,
    listener,
    mesh_tls,
    mutual,
    spiffe,
    strict,
)


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return Mesh()


def inline(pem: bytes | str) -> DataSource:
    return DataSource(inline=pem if isinstance(pem, bytes) else pem.encode())


def take(store: SecretStore, *secrets: Secret) -> None:
    store.prepare(Config(secrets={secret.name: secret for secret in secrets}))()


def test_contexts_are_strict_and_kept(mesh: Mesh) -> None:
    store = mesh.secrets("web")
    server, client = store.server(strict()), store.client(mutual())
    assert store.server(strict()) is server and store.client(mutual()) is client
    assert server.ssl.verify_mode == client.ssl.verify_mode == ssl.CERT_REQUIRED
    for made in (server, client):
        assert made.ssl.verify_flags & ssl.VERIFY_X509_STRICT
        assert made.ssl.minimum_version == ssl.TLSVersion.TLSv1_2
        assert made.local_uri == spiffe("web")


def test_a_change_makes_new_contexts_and_leaves_the_old_ones_alone(mesh: Mesh) -> None:
    store = mesh.secrets("web")
    before = store.server(strict())
    generation = store.generation
    store.set_identity(mesh.pem("web"), mesh.root.pem)
    assert store.generation == generation + 1 and store.server(strict()) is not before
    roots = Secret("ROOTCA", validation=ValidationContext(inline(mesh.root.pem)))
    now = store.server(strict())
    # The same roots from elsewhere change nothing.
    store.prepare(
        replace(config(listener(chain(http(direct("/", 200)), tls=strict()))), secrets={"ROOTCA": roots})
    )()
    assert store.server(strict()) is now


def test_an_identity_may_be_a_file(mesh: Mesh, tmp_path: Path) -> None:
    file = tmp_path / "identity.pem"
    file.write_bytes(mesh.pem("web"))
    store = SecretStore()
    store.set_identity(file, mesh.root.pem)
    assert store.server(strict()).local_uri == spiffe("web")
    with pytest.raises(SecretError, match="missing"):
        store.set_identity(tmp_path / "missing", mesh.root.pem)


def test_what_is_missing_fails_closed_and_is_named(mesh: Mesh) -> None:
    store = SecretStore()
    with pytest.raises(SecretError, match="default"):
        store.server(DownstreamTls(CommonTls(certificate_secrets=(SecretRef("default"),))))
    with pytest.raises(SecretError, match="ROOTCA"):
        store.client(UpstreamTls(CommonTls(validation_secret=SecretRef("ROOTCA", True))))
    store = mesh.secrets("web")
    with pytest.raises(SecretError, match="other"):
        store.client(UpstreamTls(CommonTls(validation_secret=SecretRef("other", True))))
    with pytest.raises(SecretError, match="trusted_ca"):
        store.server(DownstreamTls(CommonTls(certificate_secrets=(SecretRef("default"),)), True))
    with pytest.raises(SecretError, match="default"):
        # Not the workload's own identity, but one that ADS is to bring.
        store.client(UpstreamTls(CommonTls(certificate_secrets=(SecretRef("default", True),))))
    take(store, Secret("other", validation=ValidationContext(inline(mesh.root.pem))))
    store.client(UpstreamTls(CommonTls(validation_secret=SecretRef("other", True))))
    take(store)
    with pytest.raises(SecretError, match="other"):
        store.client(UpstreamTls(CommonTls(validation_secret=SecretRef("other", True))))


def test_unusable_secrets_change_nothing(mesh: Mesh) -> None:
    store = mesh.secrets("web")
    before = (store.generation, store.server(strict()))
    key, other = mesh.pem("web"), mesh.pem("db")
    mixed = key[: key.index(b"-----BEGIN CERT")] + other[other.index(b"-----BEGIN CERT") :]
    for pem, roots in ((mixed, mesh.root.pem), (b"junk", mesh.root.pem), (key, "junk"), (key, "")):
        with pytest.raises(SecretError):
            store.set_identity(pem, roots)
    with pytest.raises(ConfigError):
        take(store, Secret("ROOTCA", validation=ValidationContext(inline("junk"))))
    with pytest.raises(ConfigError):
        take(store, Secret("c", certificate=TlsCertificate(inline(mixed), inline(b"junk"))))
    assert (store.generation, store.server(strict())) == before


def test_names_without_roots_prove_nothing() -> None:
    common = CommonTls(validation=mesh_tls().validation)
    with pytest.raises(SecretError, match="proves nothing"):
        SecretStore().client(UpstreamTls(common))
    assert SecretStore().client(UpstreamTls(CommonTls())).ssl.verify_mode == ssl.CERT_NONE


def test_an_encrypted_key_asks_nobody_for_its_password(mesh: Mesh) -> None:
    leaf = pki.make(signer=mesh.root)
    encrypted = leaf.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    with pytest.raises(SecretError, match="encrypted"):
        SecretStore().set_identity(encrypted + leaf.pem.encode(), mesh.root.pem)
