"""Secrets take effect with the configuration that brought them, or not at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from proxy.model.config import Config, ConfigError
from proxy.model.tls import (
    ALPN_OFFERS,
    CommonTls,
    DataSource,
    DownstreamTls,
    Secret,
    SecretRef,
    TlsCertificate,
    UpstreamTls,
    ValidationContext,
)
from proxy.runtime.compile import CompileEnv
from proxy.runtime.hub import Hub
from proxy.tls.errors import SecretError
from proxy.tls.store import SecretStore
from tests.fakes.handshake import shake
from tests.fakes.sidecar import Mesh, chain, cluster, config, direct, forward, http, listener

ROOTS = SecretRef("roots", from_ads=True)
CERTIFICATE = SecretRef("cert", from_ads=True)
TLS = DownstreamTls(CommonTls(certificate_secrets=(CERTIFICATE,), validation_secret=ROOTS), True)


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return Mesh()


def inline(pem: bytes | str) -> DataSource:
    return DataSource(inline=pem if isinstance(pem, bytes) else pem.encode())


def certificate(pem: bytes, name: str = "cert") -> Secret:
    return Secret(name, certificate=TlsCertificate(inline(pem), inline(pem)))


def roots(mesh: Mesh) -> Secret:
    return Secret("roots", validation=ValidationContext(inline(mesh.root.pem)))


def secured(tls: DownstreamTls, *secrets: Secret, version: str = "1") -> Config:
    made = config(listener(chain(http(direct("/", 200)), tls=tls)), version=version)
    return replace(made, secrets={secret.name: secret for secret in secrets})


def joined() -> tuple[Hub, SecretStore]:
    hub, store = Hub(CompileEnv()), SecretStore()
    hub.join(store.prepare)
    return hub, store


def test_a_configuration_that_does_not_compile_leaves_the_secrets_as_they_are(mesh: Mesh) -> None:
    hub, store = joined()
    hub.apply(secured(TLS, certificate(mesh.pem("one")), roots(mesh)))
    before = store.server(TLS)
    bad = replace(
        secured(TLS, certificate(mesh.pem("two")), roots(mesh), version="2"),
        clusters={"c": replace(cluster("c"), choice_count=1)},
    )
    with pytest.raises(ConfigError, match="choice_count"):
        hub.apply(bad)
    assert store.server(TLS) is before and hub.current.version == "1"
    hub.apply(replace(bad, clusters={}))
    assert store.server(TLS) is not before


def test_a_secret_that_is_gone_is_forgotten(mesh: Mesh) -> None:
    hub, store = joined()
    hub.apply(secured(TLS, certificate(mesh.pem("one")), roots(mesh)))
    store.server(TLS)
    hub.apply(config(version="2"))
    with pytest.raises(SecretError, match="roots"):
        store.server(TLS)


def test_an_unusable_secret_refuses_the_configuration_whole(mesh: Mesh) -> None:
    hub, store = joined()
    good = secured(TLS, certificate(mesh.pem("one")), roots(mesh))
    hub.apply(good)
    before = store.server(TLS)
    for secret, path in (
        (certificate(b"junk"), "secret[cert]"),
        (Secret("roots", validation=ValidationContext(inline("junk"))), "secret[roots]"),
    ):
        with pytest.raises(ConfigError) as caught:
            hub.apply(replace(good, version="2", secrets={**good.secrets, secret.name: secret}))
        assert caught.value.path == path
        with pytest.raises(ConfigError):
            hub.check(replace(good, version="2", secrets={**good.secrets, secret.name: secret}))
        assert store.server(TLS) is before and hub.current.version == "1"


def test_an_unusable_context_refuses_the_configuration_with_its_path(mesh: Mesh) -> None:
    hub, _ = joined()
    mixed = TlsCertificate(inline(mesh.pem("a")), inline(mesh.pem("b").split(b"-----BEGIN CERT")[0]))
    tls = DownstreamTls(CommonTls(certificates=(mixed,)))
    with pytest.raises(ConfigError) as caught:
        hub.apply(secured(tls))
    assert caught.value.path == "listener[l].filter_chains[0].transport_socket"
    # Roots without which client certificates cannot be required.
    with pytest.raises(ConfigError, match="trusted_ca"):
        hub.apply(
            secured(
                replace(TLS, common=replace(TLS.common, validation_secret=None)),
                certificate(mesh.pem("one")),
            )
        )


def test_what_a_change_does_not_touch_keeps_its_context(mesh: Mesh) -> None:
    """Sessions can be resumed across it, and nothing is built twice."""
    hub, store = joined()
    mine, theirs = certificate(mesh.pem("one")), certificate(mesh.pem("two"), "other")
    hub.apply(secured(TLS, mine, theirs, roots(mesh)))
    before = store.server(TLS)
    hub.apply(secured(TLS, mine, certificate(mesh.pem("three"), "other"), roots(mesh), version="2"))
    assert store.server(TLS) is before
    store.set_identity(mesh.pem("app"), mesh.root.pem)
    assert store.server(TLS) is before
    hub.apply(secured(TLS, certificate(mesh.pem("one")), roots(mesh), version="3"))
    assert store.server(TLS) is not before


def test_waiting_for_a_secret_is_no_error(mesh: Mesh) -> None:
    hub, store = joined()
    parts = (
        listener(chain(http(forward("/", "c")), tls=TLS)),
        cluster("c", 1),
    )
    hub.apply(config(*parts))
    with pytest.raises(SecretError, match="not received yet"):
        store.server(TLS)
    hub.apply(
        replace(
            config(*parts, version="2"), secrets={"cert": certificate(mesh.pem("one")), "roots": roots(mesh)}
        )
    )
    assert store.server(TLS).ssl.verify_mode


def test_no_session_outlives_a_change_of_bundle_or_rules(mesh: Mesh) -> None:
    """CVE-2022-21654, both sides: what was verified under other roots or rules is verified anew, in full."""
    hub, store = joined()
    other = Mesh()
    up = UpstreamTls(TLS.common)
    mine = certificate(mesh.pem("one"))

    def under(roots_now: Secret, version: str) -> None:
        parts = listener(chain(http(direct("/", 200)), tls=TLS)), cluster("c", 1, tls=up)
        secrets = {"cert": mine, "roots": roots_now}
        hub.apply(replace(config(*parts, version=version), secrets=secrets))

    under(roots(mesh), "1")
    server, client = store.server(TLS), store.client(up)
    first = shake(server, client)
    assert first.agreed and first.session is not None
    client.remember("host", first.session)
    assert shake(server, client, session=client.resumable("host")).server.session_reused
    # The peer's root goes: each side refuses the other, whoever still trusts whom.
    under(roots(other), "2")
    assert store.client(up).resumable("host") is None
    refused = shake(store.server(TLS), client, session=first.session)
    assert not refused.agreed and not refused.server.session_reused
    assert not shake(server, store.client(up)).agreed
    # And back again: nothing of before is resumed.
    under(roots(mesh), "3")
    assert store.client(up).resumable("host") is None
    again = shake(store.server(TLS), client, session=first.session)
    assert again.agreed and not again.server.session_reused
    # Other rules are another context of the same secrets.
    stricter = replace(TLS, common=replace(TLS.common, validation=ValidationContext(max_verify_depth=3)))
    hub.apply(secured(stricter, mine, roots(mesh), version="4"))
    anew = shake(store.server(stricter), client, session=again.session)
    assert anew.agreed and not anew.server.session_reused


def offering(
    mesh: Mesh, *, configured: tuple[str, ...] = ()
) -> tuple[Hub, SecretStore, UpstreamTls, list[Any]]:
    """A cluster whose settings name ``configured``, and what a configuration of it is made of."""
    hub, store = joined()
    up = UpstreamTls(replace(TLS.common, alpn_protocols=configured))
    parts = [
        listener(
            chain(
                http(direct("/", 200)),
                tls=replace(TLS, common=replace(TLS.common, alpn_protocols=("h2", "http/1.1"))),
            )
        ),
        cluster("c", 1, tls=up),
    ]
    secrets = {"cert": certificate(mesh.pem("one")), "roots": roots(mesh)}
    hub.apply(replace(config(*parts), secrets=secrets))
    return hub, store, up, parts


@pytest.mark.parametrize(
    ("configured", "offer", "agreed"),
    [
        ((), (), None),
        ((), ALPN_OFFERS["HTTP1"], "http/1.1"),
        ((), ALPN_OFFERS["HTTP2"], "h2"),
        ((), ALPN_OFFERS["AUTO"], "h2"),
        (("http/1.1",), ALPN_OFFERS["AUTO"], "http/1.1"),
        (("h2",), ALPN_OFFERS["HTTP1"], "h2"),
        (("h2",), (), "h2"),
    ],
)
def test_what_is_configured_is_offered_and_else_what_the_protocol_needs(
    mesh: Mesh, configured: tuple[str, ...], offer: tuple[str, ...], agreed: str | None
) -> None:
    _, store, up, parts = offering(mesh, configured=configured)
    server = store.server(parts[0].filter_chains[0].tls)
    shaken = shake(server, store.client(up, offer))
    assert shaken.agreed
    assert shaken.server.selected_alpn_protocol() == shaken.client.selected_alpn_protocol() == agreed


def test_contexts_for_an_offer_live_as_long_as_their_cluster(mesh: Mesh) -> None:
    hub, store, up, parts = offering(mesh)
    secrets = dict(hub.current.config.secrets)
    first = store.client(up, ALPN_OFFERS["HTTP2"])
    assert store.client(up, ALPN_OFFERS["HTTP2"]) is first is not store.client(up)
    hub.apply(replace(config(*parts, cluster("d", 1), version="2"), secrets=secrets))
    assert store.client(up, ALPN_OFFERS["HTTP2"]) is first
    # Other roots: other contexts, for every offer.
    secrets["roots"] = roots(Mesh())
    hub.apply(replace(config(*parts, version="3"), secrets=secrets))
    second = store.client(up, ALPN_OFFERS["HTTP2"])
    assert second is not first
    # Without the cluster nothing is kept.
    hub.apply(replace(config(parts[0], version="4"), secrets=secrets))
    assert store.client(up, ALPN_OFFERS["HTTP2"]) is not second
