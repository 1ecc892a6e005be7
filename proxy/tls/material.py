"""What TLS settings refer to by name or by file, resolved: secrets, the workload's identity, the content of files.

It builds no contexts (``proxy.tls.context``) and watches nothing (``proxy.tls.store``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from proxy.model.tls import (
    CommonTls,
    DataSource,
    Secret,
    SecretRef,
    TlsCertificate,
    ValidationContext,
)
from proxy.tls.context import Material
from proxy.tls.errors import MissingSecretError, SecretError

IDENTITY: Final = "default"
"""The secret that is the workload's own identity (a ``SecretRef`` with neither ``from_ads`` nor a path)."""
ROOTS: Final = "ROOTCA"
"""The secret that is the mesh's trust bundle; until ADS brings it, the bundle that came with the identity serves."""
MAX_FILE: Final = 4 * 1024 * 1024

_NO_FILES: Final[Mapping[str, bytes]] = {}

ParseSecret = Callable[[bytes, str], Secret]
"""The secret of a name from the content of a file. Raises ``ValueError``."""


def read_file(path: str) -> bytes:
    """The content of a file. Raises ``SecretError``."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise SecretError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > MAX_FILE:
        raise SecretError(f"{path} is larger than {MAX_FILE} bytes")
    return data


class Materials:
    """One state of everything that can be referred to; a changed state is another object.

    ``files`` has the content of every file that was asked for, as it was when it was first asked for.
    """

    __slots__ = ("_bundle", "_identity", "_known", "_parse", "files", "secrets")

    def __init__(
        self,
        secrets: Mapping[str, Secret],
        files: dict[str, bytes],
        identity: bytes | None,
        bundle: bytes | None,
        parse: ParseSecret,
        known: Mapping[str, bytes] = _NO_FILES,
    ) -> None:
        """``known``: content of files that is not to be read anew, should one of them be asked for."""
        self.secrets = secrets
        self.files = files
        self._identity = identity
        self._bundle = bundle
        self._parse = parse
        self._known = known

    def with_secrets(self, secrets: Mapping[str, Secret]) -> Materials:
        """Files count from now on if they are asked for, with the content that is known here."""
        return Materials(dict(secrets), {}, self._identity, self._bundle, self._parse, self.files)

    def with_identity(self, identity: bytes, bundle: bytes) -> Materials:
        return Materials(self.secrets, self.files, identity, bundle, self._parse, self._known)

    def with_files(self, files: dict[str, bytes]) -> Materials:
        return Materials(self.secrets, files, self._identity, self._bundle, self._parse)

    def resolve(self, common: CommonTls) -> Material:
        """What a context for ``common`` is made of. Raises ``SecretError``, ``MissingSecretError``."""
        rules = common.validation or ValidationContext()
        if common.validation_secret is not None:
            found = self._validation(common.validation_secret)
            rules = rules if found is None else _merged(rules, found)
            if rules.trusted_ca is None and common.validation_secret.name == ROOTS:
                if self._bundle is None:
                    raise _missing(common.validation_secret, "validation context")
                rules = replace(rules, trusted_ca=DataSource(inline=self._bundle))
        return Material(
            tuple(self._join(one) for one in common.certificates)
            + tuple(self._certificate(reference) for reference in common.certificate_secrets),
            None if rules.trusted_ca is None else self.read(rules.trusted_ca),
            None if rules.crl is None else self.read(rules.crl),
            # The PEM is beside it; what remains are the rules, and whether there is a list at all.
            replace(rules, trusted_ca=None, crl=None if rules.crl is None else DataSource()),
        )

    def of_secret(self, secret: Secret) -> Material:
        """What a secret alone holds."""
        if secret.certificate is not None:
            return Material((self._join(secret.certificate),))
        rules = secret.validation or ValidationContext()
        return Material(
            (),
            None if rules.trusted_ca is None else self.read(rules.trusted_ca),
            None if rules.crl is None else self.read(rules.crl),
        )

    def read(self, source: DataSource) -> bytes:
        """The bytes of a ``DataSource``. Raises ``SecretError``."""
        if source.inline is not None:
            return source.inline
        if source.filename is None:
            raise SecretError("data source: neither filename nor inline bytes")
        return self._file(source.filename)

    def _file(self, path: str) -> bytes:
        found = self.files.get(path)
        if found is None:
            found = self._known.get(path)
            self.files[path] = found = read_file(path) if found is None else found
        return found

    def _secret(self, reference: SecretRef) -> Secret | None:
        if not reference.path:
            return self.secrets.get(reference.name)
        try:
            return self._parse(self._file(reference.path), reference.name)
        except SecretError:
            raise
        except ValueError as error:
            raise SecretError(f"{reference.path}: {error}") from error

    def _certificate(self, reference: SecretRef) -> bytes:
        secret = self._secret(reference)
        if secret is not None and secret.certificate is not None:
            return self._join(secret.certificate)
        if reference == SecretRef(IDENTITY) and self._identity is not None:
            return self._identity
        raise _missing(reference, "certificate")

    def _validation(self, reference: SecretRef) -> ValidationContext | None:
        secret = self._secret(reference)
        if secret is not None and secret.validation is not None:
            return secret.validation
        if reference.name == ROOTS and not reference.path:
            return None
        raise _missing(reference, "validation context")

    def _join(self, certificate: TlsCertificate) -> bytes:
        return self.read(certificate.private_key) + b"\n" + self.read(certificate.certificate_chain)


def _missing(reference: SecretRef, what: str) -> MissingSecretError:
    return MissingSecretError(f"secret {reference.name!r} ({what}): not received yet")


def _merged(default: ValidationContext, dynamic: ValidationContext) -> ValidationContext:
    """A ``combined_validation_context``: lists are joined, of single values the dynamic one counts if it is set."""
    return ValidationContext(
        trusted_ca=dynamic.trusted_ca or default.trusted_ca,
        match_typed_subject_alt_names=default.match_typed_subject_alt_names
        + dynamic.match_typed_subject_alt_names,
        verify_certificate_spki=default.verify_certificate_spki + dynamic.verify_certificate_spki,
        verify_certificate_hash=default.verify_certificate_hash + dynamic.verify_certificate_hash,
        crl=dynamic.crl or default.crl,
        only_verify_leaf_cert_crl=default.only_verify_leaf_cert_crl or dynamic.only_verify_leaf_cert_crl,
        allow_expired_certificate=default.allow_expired_certificate or dynamic.allow_expired_certificate,
        max_verify_depth=default.max_verify_depth
        if dynamic.max_verify_depth is None
        else dynamic.max_verify_depth,
    )
