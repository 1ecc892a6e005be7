"""mTLS between two sidecars and with clients of every wrong sort, with real certificates."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.model.listener import SetClientCertDetails, TlsInspector
from proxy.model.tls import DataSource, Secret, ValidationContext
from proxy.tls.store import SecretStore
from tests.fakes import pki
from tests.fakes.sidecar import (
    HOST,
    TLS_ONLY,
    WAIT,
    Backend,
    Mesh,
    Peer,
    Sidecar,
    ask,
    backend,
    chain,
    cluster,
    config,
    dial,
    direct,
    eventually,
    forward,
    http,
    listener,
    mutual,
    sidecar,
    spiffe,
    strict,
    tcp,
)

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
CLOSE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
XFCC = {
    "forward_client_cert_details": "SANITIZE_SET",
    "set_current_client_cert_details": SetClientCertDetails(uri=True, subject=True),
}


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return Mesh()


def client_context(mesh: Mesh, pem: bytes | None, tmp_path: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=mesh.root.pem)
    context.check_hostname = False
    if pem is not None:
        file = tmp_path / "client.pem"
        file.write_bytes(pem)
        context.load_cert_chain(file)
    return context


async def dial_tls(port: int, context: ssl.SSLContext) -> Peer:
    reader, writer = await asyncio.wait_for(asyncio.open_connection(HOST, port, ssl=context), WAIT)
    return Peer(reader, writer)


def inbound(app: Backend, *names: str, **options: object) -> tuple[object, object]:
    return (
        listener(
            chain(http(forward("/", "app"), **XFCC), tls=strict(*names), match=TLS_ONLY),
            listener_filters=("tls_inspector",),
            **options,
        ),
        cluster("app", app.port),
    )


async def refused(port: int, context: ssl.SSLContext) -> bool:
    """Whether nothing comes back from a TLS server, at the handshake or (TLS 1.3) after it."""
    try:
        peer = await dial_tls(port, context)
        peer.send(GET)
        return await peer.rest() == b""
    except (ssl.SSLError, ConnectionError):
        return True


async def test_two_sidecars_speak_mutual_tls_and_tell_who_calls(mesh: Mesh) -> None:
    async with (
        backend() as app,
        sidecar(*inbound(app, spiffe("web")), secrets=mesh.secrets("app")) as server,
        sidecar(
            listener(chain(http(forward("/", "out")))),
            cluster("out", server.port, tls=mutual(spiffe("app"))),
            secrets=mesh.secrets("web"),
        ) as client,
    ):
        peer = await dial(client.port)
        for _ in range(3):
            peer.send(b"GET / HTTP/1.1\r\nHost: a\r\nx-forwarded-client-cert: By=evil\r\n\r\n")
            assert (await peer.response())[2] == b"ok"
        peer.close()
        seen = bytes(app.received[0])
        assert b"evil" not in seen
        expected = b"x-forwarded-client-cert: By=%b;Hash=" % spiffe("app").encode()
        assert seen.count(expected) == 3
        assert seen.count(b';Subject="CN=web";URI=' + spiffe("web").encode() + b"\r\n") == 3
        assert server.listener_stats().ssl_handshake == client.cluster_stats("out").ssl_handshake == 1


async def test_who_may_not_come_in(mesh: Mesh, tmp_path: Path) -> None:
    other = Mesh()
    async with backend() as app, sidecar(*inbound(app, spiffe("web")), secrets=mesh.secrets("app")) as server:
        stats = server.listener_stats()
        # Plaintext finds no chain.
        assert await ask(server.port, GET) == b""
        assert stats.no_filter_chain_match == 1
        assert await refused(server.port, client_context(mesh, None, tmp_path))
        assert stats.ssl_fail_verify_no_cert == 1
        assert await refused(server.port, client_context(mesh, other.pem("web"), tmp_path))
        assert stats.ssl_fail_verify_error == 1
        assert await refused(server.port, client_context(mesh, mesh.pem("db"), tmp_path))
        assert stats.ssl_fail_verify_san == 1
        # OpenSSL takes these; the SVID rules do not.
        for options in (
            {"uris": (spiffe("web"), spiffe("db"))},
            {"usage": frozenset({"digital_signature", "key_cert_sign"})},
            {"usage": None},
            {"uris": ("spiffe://mesh.local",)},
            {"ekus": (pki.ExtendedKeyUsageOID.CLIENT_AUTH,)},
        ):
            before = stats.ssl_fail_verify_error + stats.ssl_fail_verify_san
            assert await refused(server.port, client_context(mesh, mesh.pem("web", **options), tmp_path))
            assert stats.ssl_fail_verify_error + stats.ssl_fail_verify_san == before + 1, options
        assert app.connections == 0
        peer = await dial_tls(server.port, client_context(mesh, mesh.pem("web"), tmp_path))
        peer.send(CLOSE)
        assert (await peer.response())[2] == b"ok"
        peer.close()
        await eventually(lambda: server.worker.connections == 0)


async def test_a_client_checks_its_server(mesh: Mesh) -> None:
    async with (
        backend() as app,
        sidecar(*inbound(app), secrets=mesh.secrets("impostor")) as server,
        sidecar(
            listener(chain(http(forward("/", "out")))),
            cluster("out", server.port, tls=mutual(spiffe("app"))),
            secrets=mesh.secrets("web"),
        ) as client,
    ):
        peer = await dial(client.port)
        peer.send(GET)
        status, _, body = await peer.response()
        assert status == 503 and b"remote connection failure" in body
        assert client.cluster_stats("out").ssl_fail_verify_san == 1
        assert app.connections == 0
        peer.close()


async def test_without_its_secrets_nothing_is_served(mesh: Mesh) -> None:
    async with backend() as app, sidecar(*inbound(app), secrets=SecretStore()) as server:
        context = ssl.create_default_context(cadata=mesh.root.pem)
        context.check_hostname = False
        assert await refused(server.port, context)
        async with sidecar(
            listener(chain(http(forward("/", "out")))), cluster("out", server.port, tls=mutual())
        ) as client:
            peer = await dial(client.port)
            peer.send(GET)
            status, _, body = await peer.response()
            assert status == 503 and b"local connection failure" in body
            peer.close()
        assert app.connections == 0


async def test_permissive_takes_both_and_strict_ends_plaintext(mesh: Mesh) -> None:
    async with backend() as app:
        secure = chain(http(forward("/", "app")), tls=strict(), match=TLS_ONLY, name="tls")
        plain = chain(http(forward("/", "app")), name="plain")
        filters = {"listener_filters": ("tls_inspector",)}
        up = cluster("app", app.port)
        async with (
            sidecar(listener(secure, plain, **filters), up, secrets=mesh.secrets("app")) as server,
            sidecar(
                listener(chain(http(forward("/", "out")))),
                cluster("out", server.port, tls=mutual()),
                secrets=mesh.secrets("web"),
            ) as client,
        ):
            direct_peer, mesh_peer = await dial(server.port), await dial(client.port)
            for peer in (direct_peer, mesh_peer):
                peer.send(GET)
                assert (await peer.response())[0] == 200
            server.apply(config(listener(secure, **filters), up, version="2"))
            direct_peer.send(GET)
            assert await direct_peer.rest() == b""
            mesh_peer.send(GET)
            assert (await mesh_peer.response())[0] == 200
            assert app.all.count(b"GET / ") == 3
            mesh_peer.close()


async def test_rotation_keeps_connections_and_new_ones_use_the_new_certificate(
    mesh: Mesh, tmp_path: Path
) -> None:
    async with backend() as app:
        store = mesh.secrets("app")
        async with sidecar(*inbound(app), secrets=store) as server:
            context = client_context(mesh, mesh.pem("web"), tmp_path)
            old = await dial_tls(server.port, context)
            old.send(GET)
            assert (await old.response())[0] == 200
            first = old.writer.get_extra_info("ssl_object").getpeercert(True)
            store.set_identity(mesh.pem("app"), mesh.root.pem)
            new = await dial_tls(server.port, context)
            assert new.writer.get_extra_info("ssl_object").getpeercert(True) != first
            for peer in (old, new):
                peer.send(GET)
                assert (await peer.response())[0] == 200
            # A root that is no longer trusted ends no connection and admits no new one, resumed or not.
            other = Mesh()
            roots = Secret("ROOTCA", validation=ValidationContext(DataSource(inline=other.root.pem.encode())))
            server.apply(replace(server.hub.current.config, version="2", secrets={"ROOTCA": roots}))
            assert await refused(server.port, context)
            old.send(CLOSE)
            assert (await old.response())[0] == 200
            new.close()


async def test_sessions_are_resumed_and_judged_again(mesh: Mesh) -> None:
    async def once(client: Sidecar) -> int:
        peer = await dial(client.port)
        peer.send(CLOSE)
        status = (await peer.response())[0]
        peer.close()
        return status

    async with backend() as app:
        store = mesh.secrets("app")
        out = cluster("out", 1, tls=mutual(), max_requests_per_connection=1)
        async with sidecar(*inbound(app), secrets=store) as server:
            out = replace(cluster("out", server.port, tls=mutual()), max_requests_per_connection=1)
            async with sidecar(
                listener(chain(http(forward("/", "out")))), out, secrets=mesh.secrets("web")
            ) as client:
                for _ in range(3):
                    assert await once(client) == 200
                assert server.listener_stats().ssl_handshake == 3
                assert server.listener_stats().ssl_session_reused == 2
                assert client.cluster_stats("out").ssl_session_reused == 2
                # The same ticket, other rules: nobody of this name may come in.
                server.apply(config(*inbound(app, spiffe("db")), version="2"))
                assert await once(client) == 503
                assert server.listener_stats().ssl_fail_verify_san == 1


async def test_large_bodies_and_half_closes_pass_through_tls(mesh: Mesh) -> None:
    size = 8 << 20

    async def serve(peer: Peer) -> None:
        got = await peer.rest()
        peer.send(bytes(reversed(got)))
        await peer.writer.drain()

    async with (
        backend(serve) as app,
        sidecar(
            listener(chain(tcp("app"), tls=strict(), match=TLS_ONLY), listener_filters=("tls_inspector",)),
            cluster("app", app.port),
            secrets=mesh.secrets("app"),
        ) as server,
        sidecar(
            listener(chain(tcp("out"))),
            cluster("out", server.port, tls=mutual()),
            secrets=mesh.secrets("web"),
        ) as client,
    ):
        peer = await dial(client.port)
        data = bytes(range(256)) * (size // 256)
        peer.send(data)
        peer.writer.write_eof()
        assert await peer.rest() == bytes(reversed(data))
        await eventually(lambda: server.worker.connections == client.worker.connections == 0)


async def test_server_name_chooses_the_chain(mesh: Mesh, tmp_path: Path) -> None:
    chains = [
        chain(
            http(direct("/", 200, name)),
            tls=strict(),
            name=name.decode(),
            match=replace(TLS_ONLY, server_names=names),
        )
        for name, names in ((b"exact", ("a.example",)), (b"wild", ("*.example",)), (b"any", ()))
    ]
    async with sidecar(
        listener(*chains, listener_filters=("tls_inspector",)), secrets=mesh.secrets("app")
    ) as server:
        context = client_context(mesh, mesh.pem("web"), tmp_path)
        for name, expected in (("a.example", b"exact"), ("b.example", b"wild"), ("c.test", b"any")):
            reader, writer = await asyncio.open_connection(
                HOST, server.port, ssl=context, server_hostname=name
            )
            peer = Peer(reader, writer)
            peer.send(CLOSE)
            assert (await peer.response())[2] == expected
            peer.close()


async def test_a_client_hello_may_come_in_any_pieces(mesh: Mesh, tmp_path: Path) -> None:
    """Every byte of the handshake's first flight is its own packet."""
    async with backend() as app, sidecar(*inbound(app), secrets=mesh.secrets("app")) as server:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        engine = client_context(mesh, mesh.pem("web"), tmp_path).wrap_bio(incoming, outgoing)
        peer = await dial(server.port)
        first = True
        while True:
            try:
                engine.do_handshake()
                break
            except ssl.SSLWantReadError:
                data = outgoing.read()
                for at in range(0, len(data), 1 if first else len(data)):
                    peer.send(data[at : at + (1 if first else len(data))])
                    await peer.writer.drain()
                    await asyncio.sleep(0)
                first = False
                incoming.write(await peer.reader.read(1 << 16))
        engine.write(CLOSE)
        peer.send(outgoing.read())
        answer = b""
        while not answer.endswith(b"ok"):
            try:
                answer += engine.read(1 << 16)
            except ssl.SSLWantReadError:
                incoming.write(await peer.reader.read(1 << 16))
        assert answer.startswith(b"HTTP/1.1 200")
        peer.close()


async def test_a_swap_during_the_handshake_is_seen_by_the_first_request(mesh: Mesh, tmp_path: Path) -> None:
    def parts(text: bytes) -> tuple[object, ...]:
        return (listener(chain(http(direct("/", 200, text)), tls=strict())),)

    async with sidecar(*parts(b"old"), secrets=mesh.secrets("app")) as server:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        engine = client_context(mesh, mesh.pem("web"), tmp_path).wrap_bio(incoming, outgoing)
        peer = await dial(server.port)
        with pytest.raises(ssl.SSLWantReadError):
            engine.do_handshake()
        peer.send(outgoing.read())
        while True:
            incoming.write(await peer.reader.read(1 << 16))
            try:
                engine.do_handshake()
                break
            except ssl.SSLWantReadError:
                pass
        # The server answered, so that it has chosen a chain; it waits for the end of the handshake.
        server.apply(config(*parts(b"new"), version="2"))
        engine.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        peer.send(outgoing.read())
        answer = b""
        while not answer.endswith((b"old", b"new")):
            try:
                answer += engine.read(1 << 16)
            except ssl.SSLWantReadError:
                incoming.write(await peer.reader.read(1 << 16))
        assert answer.endswith(b"\r\n\r\nnew")
        peer.close()


async def test_inspection_ends_after_its_time() -> None:
    inspector = TlsInspector(close_connection_on_client_hello_parsing_errors=True)
    quick = {"listener_filters": (inspector,), "listener_filters_timeout": 0.05}
    async with sidecar(listener(chain(http(direct("/", 200, b"ok")), match=TLS_ONLY), **quick)) as it:
        peer = await dial(it.port)
        assert await peer.rest() == b""
        assert it.listener_stats().downstream_pre_cx_timeout == 1
        peer = await dial(it.port)
        peer.send(b"\x16\x03\x01\x00\x05\x02\x00\x00\x01\x00")
        assert await peer.rest() == b""
        assert it.listener_stats().downstream_listener_filter_error == 1
        await eventually(lambda: it.worker.connections == 0)
        assert it.listener_stats().downstream_pre_cx_active == 0
