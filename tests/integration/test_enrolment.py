"""Enrolment and renewal over real TLS sockets: the sidecar's client against the CA's routes on aiohttp."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from certs import csr, keys
from certs.bundle import TrustBundle, join_pem, split_pem
from certs.spiffe import SpiffeId
from certs.svid import check_leaf
from control_plane.ca import held
from control_plane.ca.http import setup_routes
from control_plane.store.sqlite import SqliteStore
from proxy.tls import enrolment
from proxy.tls.enrolment import EnrolmentError
from proxy.tls.identity import CaClient, Identity, IdentityManager
from tests.fakes import mesh_ca, pki
from tests.fakes.mesh_ca import MeshCa

WEB = SpiffeId.workload("mesh.local", "default", "web")


def now() -> datetime:
    return datetime.now(UTC)


class Server:
    """A control plane's CA on a loopback port; ``port`` stays the same over restarts."""

    def __init__(self, directory: Path, **options: Any) -> None:
        self.ca: MeshCa = mesh_ca.make(directory, clock=now, **options)
        self.port = 0
        self.identity = held.server_identity(
            self.ca.service,
            directory / "server.pem",
            dns_names=("localhost",),
            addresses=("127.0.0.1",),
            clock=now,
        )
        self.context = held.server_context(self.identity, self.ca.service.bundle)
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        setup_routes(app, self.ca.service)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(
            self._runner, "127.0.0.1", self.port, ssl_context=self.context, reuse_address=True
        ).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


Start = Callable[..., Any]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    servers: list[Server] = []

    async def make(name: str = "cp", **options: Any) -> Server:
        server = Server(tmp_path / name, **options)
        servers.append(server)
        await server.start()
        return server

    yield make
    for server in servers:
        await server.stop()


def request() -> str:
    return csr.build(keys.generate()).decode()


async def enrol(server: Server, token: str, csr_pem: str | None = None, **options: Any) -> enrolment.Issued:
    return await asyncio.to_thread(enrolment.enrol, server.address, token, csr_pem or request(), **options)


async def test_a_workload_enrols_and_renews(start: Start, tmp_path: Path) -> None:
    server = await start()
    token = await server.ca.token()
    manager = IdentityManager(tmp_path / "state", CaClient(server.address), token=lambda: token)
    first = await manager.start()
    assert first.spiffe_id == WEB
    assert first.bundle == server.ca.service.bundle
    second = await manager.renew_now()
    await manager.close()
    assert second.serial_number != first.serial_number
    assert [record["attestation"] for record in server.ca.log()[1:]] == ["token", "renewal"]


async def test_it_renews_by_itself_at_half_life(start: Start, tmp_path: Path) -> None:
    server = await start(svid_lifetime=timedelta(seconds=2))
    token = await server.ca.token()
    manager = IdentityManager(tmp_path / "state", CaClient(server.address), token=lambda: token)
    renewals: asyncio.Queue[Identity] = asyncio.Queue()
    manager.subscribe(renewals.put_nowait)
    first = await manager.start()
    assert (await renewals.get()) == first
    async with asyncio.timeout(20):
        second, third = await renewals.get(), await renewals.get()
    await manager.close()
    assert first.not_before <= second.not_before <= third.not_before
    assert len({first.serial_number, second.serial_number, third.serial_number}) == 3


async def test_a_control_plane_that_is_down_is_waited_for(start: Start, tmp_path: Path) -> None:
    server = await start()
    token = await server.ca.token()
    manager = IdentityManager(
        tmp_path / "state", CaClient(server.address), token=lambda: token, retry_base=0.01
    )
    first = await manager.start()
    await server.stop()
    with pytest.raises(EnrolmentError) as caught:
        await manager.renew_now()
    assert (caught.value.reason, caught.value.retryable) == (enrolment.UNREACHABLE, True)
    assert manager.current == first
    await manager.close()
    restarted = IdentityManager(tmp_path / "state", CaClient(server.address))
    assert await restarted.start() == first, "from disk, without control plane and token"
    await server.start()
    assert (await restarted.renew_now()).serial_number != first.serial_number
    await restarted.close()


async def test_starting_before_the_control_plane(start: Start, tmp_path: Path) -> None:
    server = await start()
    token = await server.ca.token()
    await server.stop()
    attempts = 0
    refused_twice = asyncio.Event()
    loop = asyncio.get_running_loop()

    def ask() -> str:
        nonlocal attempts
        attempts += 1
        if attempts == 3:
            loop.call_soon_threadsafe(refused_twice.set)
        return token

    manager = IdentityManager(
        tmp_path / "state", CaClient(server.address), token=ask, retry_base=0.01, retry_cap=0.05
    )
    starting = asyncio.create_task(manager.start())
    async with asyncio.timeout(20):
        await refused_twice.wait()
    await server.start()
    assert (await starting).spiffe_id == WEB
    await manager.close()


async def test_existing_connections_stay_and_new_handshakes_use_the_new_identity(
    start: Start, tmp_path: Path
) -> None:
    """The renewed file serves new handshakes through the same context; the old connection does not notice."""
    server = await start()
    token = await server.ca.token()
    manager = IdentityManager(tmp_path / "state", CaClient(server.address), token=lambda: token)
    first = await manager.start()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(first.path)
    manager.subscribe(lambda fresh: context.load_cert_chain(fresh.path))

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    listener = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=context)
    port = listener.sockets[0].getsockname()[1]
    client = enrolment.control_plane_context(first.bundle)

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
        return reader, writer, writer.get_extra_info("ssl_object").getpeercert(True)

    reader, writer, before = await connect()
    await manager.renew_now()
    writer.write(b"still here\n")
    assert await reader.readline() == b"still here\n"
    _, other, after = await connect()
    assert (check_leaf(before), check_leaf(after)) == (WEB, WEB)
    assert before != after == manager.current.chain[0]
    for open_one in (writer, other):
        open_one.close()
    listener.close()
    await manager.close()


async def test_two_at_once_with_one_token(start: Start) -> None:
    """Over real sockets and the real store: exactly one wins."""
    server = await start()
    token = await server.ca.token()
    outcomes = await asyncio.gather(*(enrol(server, token) for _ in range(4)), return_exceptions=True)
    lost = [outcome for outcome in outcomes if isinstance(outcome, EnrolmentError)]
    assert len(outcomes) - len(lost) == 1
    assert all("already used" in str(error) and not error.retryable for error in lost)


async def test_a_used_token_stays_used_in_the_real_store_after_a_restart(
    start: Start, tmp_path: Path
) -> None:
    path = tmp_path / "store.db"
    store = await open_store(path)
    server = await start(store=store)
    token = await server.ca.token()
    outcomes = await asyncio.gather(*(enrol(server, token) for _ in range(4)), return_exceptions=True)
    assert sum(isinstance(outcome, enrolment.Issued) for outcome in outcomes) == 1
    await server.stop()
    await store.close()
    store = await open_store(path)
    again = await start(store=store)
    with pytest.raises(EnrolmentError, match="already used"):
        await enrol(again, token)
    await again.stop()
    await store.close()


async def open_store(path: Path) -> SqliteStore:
    return await SqliteStore.open(path)


async def test_a_token_of_another_mesh_is_refused_before_it_is_sent(start: Start) -> None:
    server, other = await start("one"), await start("other")
    token = await other.ca.token()
    with pytest.raises(EnrolmentError, match="token of another mesh") as caught:
        await enrol(server, token)
    assert (caught.value.reason, caught.value.retryable) == (enrolment.UNTRUSTED, False)
    assert server.ca.service.refused == {}, "the secret went nowhere"
    await enrol(other, token)


async def test_a_greedy_csr_is_refused_and_the_token_stays_good(start: Start) -> None:
    server = await start()
    token = await server.ca.token()
    greedy = csr.build(keys.generate(), SpiffeId.workload("mesh.local", "default", "db")).decode()
    with pytest.raises(EnrolmentError, match=r"asks for URI .*/sa/db") as caught:
        await enrol(server, token, greedy)
    assert caught.value.retryable is False
    await enrol(server, token)


class Impostor:
    """A TLS server that answers every request with ``answers[path]``."""

    def __init__(self, path: Path, pair: pki.Pair, *chain: pki.Pair, answers: dict[str, bytes]) -> None:
        path.write_bytes(pair.key_pem + join_pem([pair.der, *(each.der for each in chain)]).encode())
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(path)
        self.answers = answers
        self.requests: list[bytes] = []
        self.port = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            head = await reader.readuntil(b"\r\n\r\n")
            self.requests.append(head)
            body = self.answers.get(head.split()[1].decode(), b"")
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body)
            await writer.drain()
        writer.close()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.context)
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        server.close()


async def test_a_man_in_the_middle_gets_no_token(start: Start, tmp_path: Path) -> None:
    """It shows the true root beside its own, but only the pinned root is trusted for the second step."""
    server = await start()
    token = await server.ca.token()
    evil = pki.make_ca(not_after=now() + timedelta(days=1))
    fake = pki.make(
        signer=evil,
        uris=("spiffe://mesh.local/ns/tulle-system/sa/control-plane",),
        not_after=now() + timedelta(hours=1),
    )
    bundle = (server.ca.service.bundle.to_pem() + evil.pem).encode()
    impostor = Impostor(tmp_path / "fake.pem", fake, answers={"/ca/v1/bundle": bundle})
    async with impostor.running() as address:
        with pytest.raises(EnrolmentError, match="certificate verify failed") as caught:
            await asyncio.to_thread(enrolment.enrol, address, token, request())
    assert caught.value.reason == enrolment.UNTRUSTED
    assert len(impostor.requests) == 1, "the bundle was asked for, the token was not sent"
    await enrol(server, token)


async def test_another_workload_cannot_play_the_ca(start: Start, tmp_path: Path) -> None:
    server = await start()
    issued_key = keys.generate()
    issued = await server.ca.service.issue_with_token(
        csr.build(issued_key).decode(), await server.ca.token("evil")
    )
    path = tmp_path / "evil.pem"
    path.write_bytes(keys.dump(issued_key) + issued.certificates.encode())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    impostor = Impostor(
        tmp_path / "unused.pem",
        pki.make(),
        answers={"/ca/v1/bundle": server.ca.service.bundle.to_pem().encode()},
    )
    impostor.context = context
    async with impostor.running() as address:
        with pytest.raises(EnrolmentError, match=r"sa/evil, not spiffe://mesh\.local/ns/tulle-system"):
            await asyncio.to_thread(enrolment.enrol, address, await server.ca.token(), request())
    assert len(impostor.requests) == 1


async def identity_file(server: Server, path: Path, account: str = "web") -> Path:
    key = keys.generate()
    issued = await server.ca.service.issue_with_token(csr.build(key).decode(), await server.ca.token(account))
    path.write_bytes(keys.dump(key) + issued.certificates.encode())
    return path


async def renew(server: Server, path: Path, csr_pem: str | None = None) -> enrolment.Issued:
    return await asyncio.to_thread(
        enrolment.renew,
        server.address,
        csr_pem or request(),
        identity_file=path,
        bundle=server.ca.service.bundle,
        trust_domain="mesh.local",
    )


async def test_a_cannot_obtain_bs_certificate(start: Start, tmp_path: Path) -> None:
    server = await start()
    path = await identity_file(server, tmp_path / "db.pem", "db")
    with pytest.raises(EnrolmentError, match=r"its sender is spiffe://.*/sa/db"):
        await renew(server, path, csr.build(keys.generate(), WEB).decode())
    issued = await renew(server, path)
    assert check_leaf(split_pem(issued.certificates)[0]) == SpiffeId.workload("mesh.local", "default", "db")


@pytest.mark.parametrize(
    ("case", "refusal"),
    [
        ("another CA", "alert unknown ca|reset|EOF|closed"),
        ("expired", "alert certificate expired|reset|EOF|closed"),
        ("keyCertSign", "keyCertSign|alert|reset|EOF|closed"),
        ("DNS only", "refused: client certificate: .* no URI"),
        ("another trust domain", r"refused: client certificate: .*not of trust domain 'mesh\.local'"),
        ("none", "refused: neither a join token"),
    ],
)
async def test_who_has_no_svid_of_this_mesh_renews_nothing(
    start: Start, tmp_path: Path, case: str, refusal: str
) -> None:
    server = await start()
    issuing = server.ca.authority.issuing()
    signer = pki.Pair(issuing.key, issuing.certificate)
    times: dict[str, Any] = {
        "not_before": now() - timedelta(hours=1),
        "not_after": now() + timedelta(hours=1),
    }
    if case == "another CA":
        pair = pki.make(signer=pki.make_ca(not_after=now() + timedelta(days=1)), **times)
    elif case == "expired":
        pair = pki.make(signer=signer, not_before=now() - timedelta(2), not_after=now() - timedelta(hours=1))
    elif case == "keyCertSign":
        pair = pki.make(signer=signer, usage=pki.LEAF_USAGE | {"key_cert_sign"}, **times)
    elif case == "DNS only":
        pair = pki.make(signer=signer, uris=(), **times)
    elif case == "another trust domain":
        pair = pki.make(signer=signer, uris=("spiffe://other.local/ns/default/sa/web",), **times)
    context = enrolment.control_plane_context(server.ca.service.bundle)
    if case != "none":
        path = tmp_path / "client.pem"
        path.write_bytes(pair.key_pem + join_pem([pair.der, issuing.der]).encode())
        context.load_cert_chain(path)
    with pytest.raises(EnrolmentError, match=refusal):
        await asyncio.to_thread(
            enrolment._exchange,
            server.address,
            "POST",
            enrolment.CERTIFICATES_PATH,
            context,
            "mesh.local",
            0,
            asyncio.get_running_loop().time() + 10,
            {"csr": request()},
        )
    assert not [record for record in server.ca.log() if record["attestation"] == "renewal"]


async def test_a_handshake_refused_without_a_word_is_explained(start: Start, tmp_path: Path) -> None:
    server = await start()
    pair = pki.make(
        signer=pki.make_ca(not_after=now() + timedelta(days=1)), not_after=now() + timedelta(hours=1)
    )
    path = tmp_path / "foreign.pem"
    path.write_bytes(pair.key_pem + pair.pem.encode())
    with pytest.raises(
        EnrolmentError, match=r"may have refused the client certificate in .*foreign\.pem"
    ) as caught:
        await renew(server, path)
    assert (caught.value.reason, caught.value.retryable) == (enrolment.UNTRUSTED, True)


async def test_the_server_certificate_rotates_under_its_clients(start: Start, tmp_path: Path) -> None:
    server = await start()
    path = await identity_file(server, tmp_path / "web.pem")
    await renew(server, path)
    before = server.identity.chain_pem
    server.identity.renew()
    assert server.identity.chain_pem != before
    await renew(server, path)
    pem = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", server.port))
    assert split_pem(pem)[0] == split_pem(server.identity.chain_pem.decode())[0]


async def test_an_svid_of_the_former_issuing_ca_still_renews(start: Start, tmp_path: Path) -> None:
    server = await start()
    path = await identity_file(server, tmp_path / "web.pem")
    former = server.ca.authority.issuing().der
    (server.ca.directory / "ca" / "issuing.pem").unlink()
    again = await start("cp")
    assert again.ca.authority.issuing().der != former
    issued = await renew(again, path)
    assert former not in split_pem(issued.certificates)


async def test_a_curl_like_client_verifies_the_server_by_name(start: Start) -> None:
    server = await start()
    context = ssl.create_default_context(cadata=server.ca.service.bundle.to_pem())
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    for name in ("localhost", "127.0.0.1"):
        _, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context, server_hostname=name)
        writer.close()
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        await asyncio.open_connection("127.0.0.1", server.port, ssl=context, server_hostname="other.example")


async def test_nobody_answers() -> None:
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{placeholder.getsockname()[1]}"
        token = f"tulle1.default-1.{'s' * 43}.{'0' * 64}"
        with pytest.raises(EnrolmentError, match=f"{address}: .*refused") as caught:
            await asyncio.to_thread(enrolment.enrol, address, token, request())
    assert caught.value.retryable


@pytest.mark.parametrize("silent_after", ["accept", "handshake"])
async def test_a_silent_server_is_given_up(tmp_path: Path, silent_after: str) -> None:
    pair = pki.make()
    path = tmp_path / "x.pem"
    path.write_bytes(pair.key_pem + pair.pem.encode())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    done = asyncio.Event()

    async def silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await done.wait()
        writer.close()

    server = await asyncio.start_server(
        silent, "127.0.0.1", 0, ssl=context if silent_after == "handshake" else None
    )
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    token = f"tulle1.default-1.{'s' * 43}.{'0' * 64}"
    with pytest.raises(EnrolmentError, match="timed out") as caught:
        await asyncio.to_thread(enrolment.enrol, address, token, request(), timeout=0.3)
    assert caught.value.retryable
    done.set()
    server.close()


@pytest.mark.parametrize(
    ("answer", "wrong"),
    [
        (b"", "no certificate"),
        (b"\xff", "ascii"),
        (b"x" * (enrolment.RESPONSE_LIMIT + 1), "larger than"),
    ],
)
async def test_answers_that_are_no_bundle(tmp_path: Path, answer: bytes, wrong: str) -> None:
    impostor = Impostor(tmp_path / "x.pem", pki.make(), answers={"/ca/v1/bundle": answer})
    token = f"tulle1.default-1.{'s' * 43}.{'0' * 64}"
    async with impostor.running() as address:
        with pytest.raises(EnrolmentError, match=wrong):
            await asyncio.to_thread(enrolment.enrol, address, token, request())


async def test_sockets_are_marked_before_they_connect(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recorded, not looked up: setting a mark needs CAP_NET_ADMIN, which the test may lack."""
    server = await start()
    steps: list[Any] = []
    honest = socket.socket

    class Recording(honest):  # type: ignore[valid-type,misc]
        def setsockopt(self, *arguments: Any) -> None:
            if arguments[:2] == (socket.SOL_SOCKET, 36):
                steps.append(("mark", arguments[2]))
                return
            super().setsockopt(*arguments)

        def connect(self, address: Any) -> None:
            if threading.current_thread() is not threading.main_thread():
                steps.append(("connect", address[1]))
            super().connect(address)

    token = await server.ca.token()
    monkeypatch.setattr(enrolment.socket, "socket", Recording)
    await enrol(server, token, mark=1337)
    assert steps == [("mark", 1337), ("connect", server.port)] * 2
    steps.clear()
    await enrol(server, await server.ca.token())
    assert [step for step, _ in steps] == ["connect", "connect"]


async def test_a_mark_that_may_not_be_set_is_explained(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    server = await start()
    honest = socket.socket

    class Forbidding(honest):  # type: ignore[valid-type,misc]
        def setsockopt(self, *arguments: Any) -> None:
            raise PermissionError(1, os.strerror(1))

    token = await server.ca.token()
    monkeypatch.setattr(enrolment.socket, "socket", Forbidding)
    with pytest.raises(EnrolmentError, match="SO_MARK 7 needs CAP_NET_ADMIN"):
        await enrol(server, token, mark=7)


async def test_a_broken_answer_is_no_certificate(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    for answer in (
        b"hello",
        b"[]",
        b"{}",
        json.dumps({"certificates": 1, "bundle": "", "spiffeId": ""}).encode(),
    ):
        with pytest.raises(EnrolmentError, match="cannot be read"):
            enrolment._issued(answer)


def test_a_bundle_of_roots_only_is_trusted() -> None:
    root = pki.make_ca()
    assert TrustBundle.parse(root.pem).roots == (root.der,)
