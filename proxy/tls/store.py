"""The TLS contexts in force, made of the configuration's settings and of secrets, identity and files.

A change makes new contexts of what it touches, for handshakes from then on; connections that exist are left as they
are. It takes effect whole or not at all. It fetches nothing: ``proxy.xds`` and ``proxy.tls.identity`` bring the
secrets.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Generic, TypeVar
from weakref import WeakValueDictionary

from proxy.model.config import Config, ConfigError
from proxy.model.tls import CommonTls, DownstreamTls, Secret, UpstreamTls
from proxy.tls.context import Material, TlsContext, client_context, client_engine, server_context
from proxy.tls.errors import MissingSecretError, SecretError
from proxy.tls.material import Materials, ParseSecret, read_file

T = TypeVar("T", bound=DownstreamTls | UpstreamTls)

Offers = dict[UpstreamTls, dict[tuple[str, ...], UpstreamTls]]
"""Settings without ``alpn_protocols``, by what is offered all the same: the settings that say so."""


class _Contexts(Generic[T]):
    """Contexts by their settings, each with the material that it was made of."""

    __slots__ = ("_build", "made")

    def __init__(
        self,
        build: Callable[[T, Material], TlsContext],
        made: dict[T, tuple[Material, TlsContext]] | None = None,
    ) -> None:
        self._build = build
        self.made = made or {}

    def get(self, tls: T, materials: Materials) -> TlsContext:
        """The context for ``tls``, made if there is none or if its time has come. Raises ``SecretError``."""
        found = self.made.get(tls)
        if found is None or found[1].renew_at <= time.time():
            material = materials.resolve(tls.common)
            found = self.made[tls] = (material, self._build(tls, material))
        return found[1]

    def following(self, settings: Iterator[tuple[str, T]], materials: Materials) -> _Contexts[T]:
        """Those for ``settings`` (with field paths); what is made of the same material stays the same object.

        Settings whose secrets have not come are left out. Raises ``ConfigError``.
        """
        made: dict[T, tuple[Material, TlsContext]] = {}
        for path, tls in settings:
            if tls in made:
                continue
            try:
                material = materials.resolve(tls.common)
                before = self.made.get(tls)
                if before is not None and before[0] == material:
                    made[tls] = before
                else:
                    made[tls] = (material, self._build(tls, material))
            except MissingSecretError:
                continue
            except SecretError as error:
                raise ConfigError(path, str(error)) from error
        return _Contexts(self._build, made)

    def rebuilt(self, materials: Materials) -> _Contexts[T]:
        """The same settings, all made of ``materials``. Raises ``SecretError``."""
        made = dict(self.made)
        for tls, (before, _) in self.made.items():
            material = materials.resolve(tls.common)
            if material != before:
                made[tls] = (material, self._build(tls, material))
        return _Contexts(self._build, made)

    def drop_changed(self, materials: Materials) -> None:
        """Forget those that are no longer right; they are made again when they are needed."""
        for tls, (before, _) in list(self.made.items()):
            try:
                if materials.resolve(tls.common) == before:
                    continue
            except SecretError:
                pass  # It fails, with this reason, when somebody asks for it.
            del self.made[tls]


def _no_files(content: bytes, name: str) -> Secret:
    raise ValueError("secrets in files are not read here")


class SecretStore:
    """The contexts of one process. ``generation`` grows with each change.

    ``parse`` reads a secret from the content of a file (``path_config_source``).
    """

    __slots__ = ("_clients", "_engines", "_materials", "_offers", "_servers", "generation")

    def __init__(self, parse: ParseSecret = _no_files) -> None:
        self._materials = Materials({}, {}, None, None, parse)
        self._engines: WeakValueDictionary[object, ssl.SSLContext] = WeakValueDictionary()
        self._servers: _Contexts[DownstreamTls] = _Contexts(server_context)
        self._clients: _Contexts[UpstreamTls] = _Contexts(self._client)
        self._offers: Offers = {}
        self.generation = 0

    # What the data path asks for.

    def server(self, tls: DownstreamTls) -> TlsContext:
        """The context for a filter chain. Raises ``SecretError`` while a secret is missing: fail closed."""
        return self._servers.get(tls, self._materials)

    def client(self, tls: UpstreamTls, offer: tuple[str, ...] = ()) -> TlsContext:
        """The context for a cluster's connections. ``offer``: ALPN protocols to offer if the settings name none.

        Raises ``SecretError`` while a secret is missing.
        """
        if offer and not tls.common.alpn_protocols:
            tls = self._offering(tls, offer)
        return self._clients.get(tls, self._materials)

    def _offering(self, tls: UpstreamTls, offer: tuple[str, ...]) -> UpstreamTls:
        variants = self._offers.setdefault(tls, {})
        found = variants.get(offer)
        if found is None:
            found = variants[offer] = replace(tls, common=replace(tls.common, alpn_protocols=offer))
        return found

    # How it changes.

    def prepare(self, config: Config) -> Callable[[], None]:
        """Try what ``config`` asks for; calling what is returned, at once, puts it into force and cannot fail.

        Settings whose secrets have not come yet are passed over. Raises ``ConfigError`` with the field path.
        """
        materials = self._materials.with_secrets(config.secrets)
        for name, secret in config.secrets.items():
            if self._materials.secrets.get(name) != secret:
                try:
                    _check_secret(materials.of_secret(secret))
                except SecretError as error:
                    raise ConfigError(f"secret[{name}]", str(error)) from error
        servers = self._servers.following(_of_listeners(config), materials)
        clients = self._clients.following(_of_clusters(config, self._offers), materials)
        offers = {tls: self._offers[tls] for _, tls in _of_clusters(config, {}) if tls in self._offers}

        def commit() -> None:
            self._servers, self._clients = servers, clients
            self._offers = offers
            self._materials = materials
            self.generation += 1

        return commit

    def set_identity(self, key_and_chain: bytes | Path, bundle: bytes | str) -> None:
        """Take the workload's identity: PEM of key and chain (leaf first), or a file of it, and PEM of the roots.

        Raises ``SecretError``; then nothing has changed.
        """
        pem = read_file(str(key_and_chain)) if isinstance(key_and_chain, Path) else key_and_chain
        roots = bundle.encode("ascii") if isinstance(bundle, str) else bundle
        server_context(DownstreamTls(CommonTls(), True), Material((pem,), roots))
        self._materials = self._materials.with_identity(pem, roots)
        self._servers.drop_changed(self._materials)
        self._clients.drop_changed(self._materials)
        self.generation += 1

    def files(self) -> tuple[str, ...]:
        """The files that what is in force was made of."""
        return tuple(self._materials.files)

    def reload(self) -> bool:
        """Read the files again; whether anything changed.

        Raises ``SecretError`` if one is missing or what is made of them cannot be used (perhaps because certificate and
        key are replaced one after the other); then nothing has changed.
        """
        before = self._materials
        files = {path: read_file(path) for path in before.files}
        if files == before.files:
            return False
        materials = before.with_files(files)
        servers = self._servers.rebuilt(materials)
        self._clients = self._clients.rebuilt(materials)
        self._servers = servers
        self._materials = materials
        self.generation += 1
        return True

    def _client(self, tls: UpstreamTls, material: Material) -> TlsContext:
        """Clusters of one mesh differ in the names they ask for; the costly part is the same for all of them."""
        common, rules = tls.common, material.rules
        key = (
            (common.tls_minimum, common.tls_maximum, common.cipher_suites, common.ecdh_curve),
            (common.alpn_protocols, tls.allow_renegotiation),
            (rules.allow_expired_certificate, rules.only_verify_leaf_cert_crl),
            (material.certificates, material.trusted, material.crl),
        )
        engine = self._engines.get(key)
        if engine is None:
            engine = self._engines[key] = client_engine(tls, material)
        return client_context(tls, material, engine)


def _check_secret(material: Material) -> None:
    """Raises ``SecretError`` for a secret that no context could use."""
    if material.certificates:
        server_context(DownstreamTls(CommonTls()), material)
    elif material.trusted is not None:
        client_context(UpstreamTls(CommonTls()), material)


def _of_listeners(config: Config) -> Iterator[tuple[str, DownstreamTls]]:
    for name, listener in config.listeners.items():
        chains = [(f"filter_chains[{n}]", chain) for n, chain in enumerate(listener.filter_chains)]
        if listener.default_filter_chain is not None:
            chains.append(("default_filter_chain", listener.default_filter_chain))
        for where, chain in chains:
            if chain.tls is not None:
                yield f"listener[{name}].{where}.transport_socket", chain.tls


def _of_clusters(config: Config, offers: Offers) -> Iterator[tuple[str, UpstreamTls]]:
    """The settings of all clusters, and those that were made of them for what is offered."""
    for name, cluster in config.clusters.items():
        sockets = [("transport_socket", cluster.tls)]
        for n, match in enumerate(cluster.transport_socket_matches):
            sockets.append((f"transport_socket_matches[{n}].transport_socket", match.tls))
        for where, tls in sockets:
            if tls is not None:
                path = f"cluster[{name}].{where}"
                yield path, tls
                for offering in offers.get(tls, {}).values():
                    yield path, offering
