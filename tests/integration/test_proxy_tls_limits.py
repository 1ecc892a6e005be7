"""Handshakes in a real worker: silent, slow and many clients, renegotiation, changed files; with real sockets."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.accept.worker import WorkerOptions
from proxy.model.tls import CommonTls, DataSource, DownstreamTls, TlsCertificate, ValidationContext
from proxy.tls.store import SecretStore
from tests.fakes.sidecar import (
    HOST,
    WAIT,
    Mesh,
    Peer,
    chain,
    config,
    dial,
    direct,
    eventually,
    http,
    listener,
    sidecar,
    spiffe,
    strict,
)

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = direct("/", 200, b"ok")


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return Mesh()


@pytest.fixture
def context(mesh: Mesh, tmp_path: Path) -> ssl.SSLContext:
    made = ssl.create_default_context(cadata=mesh.root.pem)
    made.check_hostname = False
    file = tmp_path / "client.pem"
    file.write_bytes(mesh.pem("web"))
    made.load_cert_chain(file)
    return made


async def dial_tls(port: int, context: ssl.SSLContext) -> Peer:
    reader, writer = await asyncio.wait_for(asyncio.open_connection(HOST, port, ssl=context), WAIT)
    return Peer(reader, writer)


async def served(peer: Peer) -> bool:
    peer.send(GET)
    return (await peer.response())[2] == b"ok"


async def client_hello(port: int, context: ssl.SSLContext) -> Peer:
    """A connection that says who it is and then nothing more."""
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
    peer = await dial(port)
    peer.send(outgoing.read())
    return peer


async def test_silent_clients_hold_no_slot(mesh: Mesh, context: ssl.SSLContext) -> None:
    limits = WorkerOptions(max_handshakes=4)
    async with sidecar(
        listener(chain(http(OK), tls=strict())), secrets=mesh.secrets("app"), options=limits
    ) as it:
        silent = [await dial(it.port) for _ in range(5)]
        await eventually(lambda: it.listener_stats().downstream_pre_cx_active == 5)
        peer = await dial_tls(it.port, context)
        assert await served(peer)
        assert it.listener_stats().ssl_handshake_queued == 0
        for one in (*silent, peer):
            one.close()
        await eventually(lambda: it.worker.connections == 0)
        assert it.listener_stats().downstream_pre_cx_active == 0


async def test_more_handshakes_than_slots_wait_and_are_served(mesh: Mesh, context: ssl.SSLContext) -> None:
    limits = WorkerOptions(max_handshakes=4)
    async with sidecar(
        listener(chain(http(OK), tls=strict())), secrets=mesh.secrets("app"), options=limits
    ) as it:
        peers = await asyncio.gather(*(dial_tls(it.port, context) for _ in range(20)))
        assert all([await served(peer) for peer in peers])
        stats = it.listener_stats()
        assert stats.ssl_handshake == 20 and stats.ssl_handshake_evicted == 0
        # Half-open ones keep both slots until they have had their time; then they make way.
        half = [await client_hello(it.port, context) for _ in range(2)]
        await eventually(lambda: it.worker._state.slots.active == 2)
        late = await dial_tls(it.port, context)
        assert await served(late)
        assert stats.ssl_handshake_queued >= 1 and stats.ssl_handshake_evicted >= 1
        assert (await half[0].rest())[:1] == b"\x16"
        for one in (*peers, *half, late):
            one.close()
        await eventually(lambda: it.worker.connections == 0)
        assert (it.worker._state.slots.active, it.worker._state.slots.waiting) == (0, 0)


async def test_one_listener_leaves_slots_for_another(mesh: Mesh, context: ssl.SSLContext) -> None:
    limits = WorkerOptions(max_handshakes=4)
    parts = [listener(chain(http(OK), tls=strict()), name=name, stat_prefix=name) for name in ("l", "other")]
    async with sidecar(*parts, secrets=mesh.secrets("app"), options=limits) as it:
        half = [await client_hello(it.port, context) for _ in range(4)]
        await eventually(lambda: it.worker._state.slots.waiting == 2)
        peer = await dial_tls(it.extra["other"], context)
        assert await served(peer)
        assert it.listener_stats("other").ssl_handshake_queued == 0
        for one in (*half, peer):
            one.close()
        await eventually(lambda: it.worker.connections == 0)


@pytest.mark.parametrize("begin", ["nothing", "hello"])
async def test_a_handshake_that_does_not_end_is_ended(
    mesh: Mesh, context: ssl.SSLContext, begin: str
) -> None:
    secured = replace(chain(http(OK), tls=strict()), transport_socket_connect_timeout=0.2)
    async with sidecar(listener(secured), secrets=mesh.secrets("app")) as it:
        peer = await (dial(it.port) if begin == "nothing" else client_hello(it.port, context))
        assert bool(await peer.rest()) is (begin == "hello")
        assert it.listener_stats().downstream_cx_transport_socket_connect_timeout == 1
        await eventually(lambda: it.worker.connections == 0)


async def test_endless_fragments_are_ended(mesh: Mesh) -> None:
    async with sidecar(listener(chain(http(OK), tls=strict())), secrets=mesh.secrets("app")) as it:
        peer = await dial(it.port)
        peer.send(b"\x16\x03\x01\x40\x00\x01\x02\xff\xff\x03\x03" + b"\0" * (16384 - 6))
        for _ in range(40):
            peer.send(b"\x16\x03\x01\x40\x00" + b"\0" * 16384)
        await peer.rest()
        await eventually(lambda: it.worker.connections == 0)
        assert it.listener_stats().ssl_connection_error == 1


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the openssl command asks for renegotiation")
async def test_renegotiation_is_refused(mesh: Mesh, tmp_path: Path) -> None:
    file = tmp_path / "client.pem"
    file.write_bytes(mesh.pem("web"))
    async with sidecar(listener(chain(http(OK), tls=strict())), secrets=mesh.secrets("app")) as it:
        client = await asyncio.create_subprocess_exec(
            *("openssl", "s_client", "-connect", f"{HOST}:{it.port}", "-tls1_2", "-cert", str(file)),
            *("-key", str(file)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        assert client.stdin is not None and client.stdout is not None
        await asyncio.wait_for(client.stdout.readuntil(b"Verify return code"), WAIT)
        client.stdin.write(b"R\n")
        said = await asyncio.wait_for(client.stdout.read(), WAIT)
        assert b"no renegotiation" in said
        client.stdin.close()
        await asyncio.wait_for(client.wait(), WAIT)
        assert it.listener_stats().ssl_handshake == 1
        await eventually(lambda: it.worker.connections == 0)


async def test_changed_files_serve_new_connections_and_keep_old_ones(
    mesh: Mesh, context: ssl.SSLContext, tmp_path: Path
) -> None:
    certificate, roots = tmp_path / "app.pem", tmp_path / "roots.pem"
    certificate.write_bytes(mesh.pem("one"))
    roots.write_text(mesh.root.pem)
    source = DataSource(str(certificate))
    common = CommonTls(
        (TlsCertificate(source, source),), validation=ValidationContext(DataSource(str(roots)))
    )
    async with sidecar(
        listener(chain(http(OK), tls=DownstreamTls(common, True))), secrets=SecretStore()
    ) as it:
        old = await dial_tls(it.port, context)
        assert await served(old)
        generation = it.secrets.generation
        new = tmp_path / "new.pem"
        new.write_bytes(mesh.pem("two"))
        new.rename(certificate)
        await eventually(lambda: it.secrets.generation > generation)
        peer = await dial_tls(it.port, context)
        names = peer.writer.get_extra_info("peercert")["subjectAltName"]
        assert ("URI", spiffe("two")) in names
        # The address was bound all the time, and the first connection knows of nothing.
        assert await served(old) and await served(peer)
        for one in (old, peer):
            one.close()


async def test_a_certificate_is_exchanged_with_the_configuration(mesh: Mesh, context: ssl.SSLContext) -> None:
    """Inline this time: another certificate is another filter chain, on the same socket."""

    def secured(account: str) -> DownstreamTls:
        source = DataSource(inline=mesh.pem(account))
        roots = ValidationContext(DataSource(inline=mesh.root.pem.encode()))
        return DownstreamTls(CommonTls((TlsCertificate(source, source),), validation=roots), True)

    async with sidecar(listener(chain(http(OK), tls=secured("one")))) as it:
        for version, account in (("2", "two"), ("3", "three")):
            it.apply(config(listener(chain(http(OK), tls=secured(account))), version=version))
            peer = await dial_tls(it.port, context)
            names = peer.writer.get_extra_info("peercert")["subjectAltName"]
            assert ("URI", spiffe(account)) in names and await served(peer)
            peer.close()
