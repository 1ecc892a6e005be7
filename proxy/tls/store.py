"""Secrets by name, and the TLS contexts made of them.

A change of a secret makes new contexts, for handshakes from then on; connections that exist are left as they are. It
fetches nothing: ``proxy.xds`` and ``proxy.tls.identity`` bring the secrets.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

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
from proxy.tls.context import Material, TlsContext, client_context, read_source, server_context
from proxy.tls.errors import SecretError

IDENTITY: Final = "default"
"""The secret that is the workload's own identity (a ``SecretRef`` without ``from_ads``)."""
ROOTS: Final = "ROOTCA"
"""The secret that is the mesh's trust bundle; until ADS brings it, the bundle that came with the identity serves."""


class SecretStore:
    """The secrets of one process. ``generation`` grows with each change."""

    __slots__ = ("_bundle", "_clients", "_identity", "_secrets", "_servers", "generation")

    def __init__(self) -> None:
        self._identity: bytes | None = None
        self._bundle: bytes | None = None
        self._secrets: dict[str, Secret] = {}
        self._servers: dict[DownstreamTls, TlsContext] = {}
        self._clients: dict[UpstreamTls, TlsContext] = {}
        self.generation = 0

    def set_identity(self, key_and_chain: bytes | Path, bundle: bytes | str) -> None:
        """Take the workload's identity: PEM of key and chain (leaf first), or a file of it, and PEM of the roots.

        Raises ``SecretError``; then nothing has changed.
        """
        pem = (
            read_source(DataSource(str(key_and_chain))) if isinstance(key_and_chain, Path) else key_and_chain
        )
        roots = bundle.encode("ascii") if isinstance(bundle, str) else bundle
        server_context(CommonTls(), Material(pem, roots), require_client_certificate=True)
        self._identity = pem
        self._bundle = roots
        self._changed()

    def set_secret(self, secret: Secret) -> None:
        """Take a secret from ADS or the bootstrap. Raises ``SecretError``; then nothing has changed."""
        if self._secrets.get(secret.name) == secret:
            return
        if secret.certificate is not None:
            server_context(
                CommonTls(), Material(_join(secret.certificate), None), require_client_certificate=False
            )
        if secret.validation is not None and secret.validation.trusted_ca is not None:
            client_context(CommonTls(), Material(None, read_source(secret.validation.trusted_ca)), "")
        self._secrets[secret.name] = secret
        self._changed()

    def remove_secret(self, name: str) -> None:
        """Forget a secret; TLS settings that name it cannot be used any more."""
        if self._secrets.pop(name, None) is not None:
            self._changed()

    def server(self, tls: DownstreamTls) -> TlsContext:
        """The context for a filter chain. Raises ``SecretError`` while a secret is missing: fail closed."""
        made = self._servers.get(tls)
        if made is None:
            common, material = self._resolve(tls.common)
            made = server_context(common, material, require_client_certificate=tls.require_client_certificate)
            self._servers[tls] = made
        return made

    def client(self, tls: UpstreamTls) -> TlsContext:
        """The context for a cluster's connections. Raises ``SecretError`` while a secret is missing."""
        made = self._clients.get(tls)
        if made is None:
            common, material = self._resolve(tls.common)
            made = client_context(common, material, tls.sni)
            self._clients[tls] = made
        return made

    def _changed(self) -> None:
        self.generation += 1
        self._servers.clear()
        self._clients.clear()

    def _resolve(self, common: CommonTls) -> tuple[CommonTls, Material]:
        """The configuration with its validation context resolved, and the PEM it needs."""
        validation = common.validation
        trusted = (
            read_source(validation.trusted_ca) if validation is not None and validation.trusted_ca else None
        )
        if common.validation_secret is not None:
            found, roots = self._validation(common.validation_secret)
            matchers = found.match_typed_subject_alt_names
            if validation is not None:
                matchers = validation.match_typed_subject_alt_names + matchers
            validation = ValidationContext(None, matchers)
            trusted = roots
        return replace(common, validation=validation), Material(self._certificate(common), trusted)

    def _certificate(self, common: CommonTls) -> bytes | None:
        if common.certificates:
            return _join(common.certificates[0])
        if not common.certificate_secrets:
            return None
        reference = common.certificate_secrets[0]
        secret = self._secrets.get(reference.name)
        if secret is not None and secret.certificate is not None:
            return _join(secret.certificate)
        if reference.name == IDENTITY and not reference.from_ads and self._identity is not None:
            return self._identity
        raise SecretError(f"secret {reference.name!r} (certificate): not received yet")

    def _validation(self, reference: SecretRef) -> tuple[ValidationContext, bytes]:
        secret = self._secrets.get(reference.name)
        if secret is not None and secret.validation is not None and secret.validation.trusted_ca is not None:
            return secret.validation, read_source(secret.validation.trusted_ca)
        if reference.name == ROOTS and self._bundle is not None:
            return ValidationContext(), self._bundle
        raise SecretError(f"secret {reference.name!r} (validation context): not received yet")


def _join(certificate: TlsCertificate) -> bytes:
    return read_source(certificate.private_key) + b"\n" + read_source(certificate.certificate_chain)
