"""One TLS connection between a fake transport and a fake application: floods, limits, deferral."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from proxy.model.tls import CommonTls, DownstreamTls, UpstreamTls
from proxy.tls.conn import MAX_BARREN_BYTES, Buffers, TlsConn
from proxy.tls.context import Material, client_context, server_context
from proxy.tls.errors import FloodError, HandshakeError
from proxy.tls.handshakes import MAX_HANDSHAKE_BYTES, Budget
from tests.fakes.handshake import ca, leaf

ROOT = ca()
CERTIFICATE = leaf(ROOT)


class Raw:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.reading = True
        self.closed = False

    def write(self, data: bytes) -> None:
        self.sent += data

    def take(self) -> bytes:
        sent, self.sent = bytes(self.sent), bytearray()
        return sent

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class App:
    def __init__(self) -> None:
        self.got = bytearray()
        self.calls = 0
        self.lost: list[Exception | None] = []

    def connection_made(self, transport: Any) -> None: ...
    def data_received(self, data: bytes) -> None:
        self.got += data
        self.calls += 1

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)


class Loop:
    """Turns by hand; every look at the clock takes ``cost``."""

    def __init__(self, cost: float = 0.0) -> None:
        self.due: list[Callable[[], object]] = []
        self.now = 0.0
        self.cost = cost

    def clock(self) -> float:
        self.now += self.cost
        return self.now

    def call_soon(self, call: Callable[[], object]) -> None:
        self.due.append(call)

    def turn(self) -> None:
        due, self.due = self.due, []
        for call in due:
            call()


class Side:
    """A server's connection, and the client's engine on the other end."""

    def __init__(self, loop: Loop | None = None, budget: Budget | None = None, **limits: Any) -> None:
        self.loop = loop or Loop()
        self.app = App()
        self.failed: list[Exception] = []
        common = CommonTls(**limits)
        context = server_context(DownstreamTls(common), Material((CERTIFICATE,)))
        self.conn = TlsConn(
            context,
            Buffers(),
            budget or Budget(self.loop.call_soon, self.loop.clock),
            server_side=True,
            on_secured=lambda conn: self.app,
            on_failed=self.failed.append,
        )
        self.raw = Raw()
        self.conn.connection_made(self.raw)  # type: ignore[arg-type]
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        theirs = client_context(UpstreamTls(common), Material((), ROOT.pem.encode())).ssl
        self.context = theirs

    def client(self) -> ssl.SSLObject:
        self.engine = self.context.wrap_bio(self.incoming, self.outgoing)
        return self.engine

    def pump(self) -> None:
        self.conn.feed(self.outgoing.read())
        self.incoming.write(self.raw.take())

    def shake(self) -> ssl.SSLObject:
        engine = self.client()
        for _ in range(4):
            try:
                engine.do_handshake()
            except ssl.SSLWantReadError:
                pass
            self.pump()
        return engine

    def write(self, data: bytes) -> None:
        self.engine.write(data)


def label(secret: bytes, name: str, size: int) -> bytes:
    """HKDF-Expand-Label (RFC 8446 section 7.1) with SHA-384 and no context."""
    full = b"tls13 " + name.encode()
    info = size.to_bytes(2, "big") + bytes([len(full)]) + full + b"\0"
    return HKDFExpand(hashes.SHA384(), size, info).derive(secret)


class Forger:
    """Records of TLS 1.3 under a client's own traffic secret, as no library would send them."""

    def __init__(self, secret: bytes) -> None:
        self._use(secret)

    def _use(self, secret: bytes) -> None:
        self.secret = secret
        self.key, self.iv, self.number = AESGCM(label(secret, "key", 32)), label(secret, "iv", 12), 0

    def record(self, kind: int, content: bytes) -> bytes:
        inner = content + bytes([kind])
        header = b"\x17\x03\x03" + (len(inner) + 16).to_bytes(2, "big")
        nonce = (int.from_bytes(self.iv, "big") ^ self.number).to_bytes(12, "big")
        self.number += 1
        return header + self.key.encrypt(nonce, inner, header)

    def key_update(self, *, request: bool) -> bytes:
        made = self.record(22, b"\x18\0\0\x01" + bytes([request]))
        self._use(label(self.secret, "traffic upd", 48))
        return made


def forge(side: Side, directory: Path) -> Forger:
    file = directory / "keys"
    side.context.keylog_filename = str(file)
    engine = side.shake()
    assert engine.cipher()[0] == "TLS_AES_256_GCM_SHA384"  # type: ignore[index]
    for line in file.read_text().splitlines():
        if line.startswith("CLIENT_TRAFFIC_SECRET_0 "):
            return Forger(bytes.fromhex(line.split()[2]))
    raise AssertionError("no traffic secret")


@pytest.mark.parametrize("request_one", [True, False])
def test_a_flood_of_key_updates_ends_the_connection(tmp_path: Path, request_one: bool) -> None:
    side = Side()
    forger = forge(side, tmp_path)
    # A few are anybody's right.
    side.conn.feed(forger.key_update(request=request_one) + forger.record(23, b"data"))
    assert side.app.got == b"data" and not side.app.lost
    sent = 0
    while not side.app.lost:
        flood = b"".join(forger.key_update(request=request_one) for _ in range(40))
        side.conn.feed(flood)
        sent += len(flood)
        assert sent <= MAX_BARREN_BYTES + len(flood)
    assert isinstance(side.app.lost[0], FloodError) and side.raw.closed
    # Answers to them are bounded as well.
    assert len(side.raw.sent) < 2 * MAX_BARREN_BYTES
    side.conn.feed(b"x" * 100)
    assert len(side.app.lost) == 1


def test_data_between_key_updates_is_no_flood(tmp_path: Path) -> None:
    side = Side()
    forger = forge(side, tmp_path)
    for _ in range(3 * MAX_BARREN_BYTES // 400):
        side.conn.feed(b"".join(forger.key_update(request=False) for _ in range(16)))
        side.conn.feed(forger.record(23, b"x"))
    assert not side.app.lost


def test_empty_records_end_the_connection(tmp_path: Path) -> None:
    side = Side()
    forger = forge(side, tmp_path)
    for _ in range(200):
        side.conn.feed(forger.record(23, b""))
    assert side.app.lost and side.raw.closed


def test_a_large_record_may_come_byte_by_byte(tmp_path: Path) -> None:
    side = Side()
    side.shake()
    side.write(b"y" * 16384)
    for byte in side.outgoing.read():
        side.conn.feed(bytes([byte]))
    assert side.app.got == b"y" * 16384 and side.app.calls == 1 and not side.app.lost


def test_renegotiation_is_refused() -> None:
    """TLS 1.2; the client's engine is OpenSSL's own command, which can ask for it (see the integration tests)."""
    side = Side(tls_maximum="TLSv1_2")
    side.shake()
    assert side.conn.context.ssl.options & ssl.OP_NO_RENEGOTIATION


def test_endless_fragments_of_a_handshake_end_it() -> None:
    """A ClientHello that claims 128 KB and more, in records of any size."""
    for size in (1, 512, 16384):
        side = Side()
        body = b"\x01" + (200_000).to_bytes(3, "big") + b"\x03\x03" + b"\0" * 200_000
        sent = 0
        while not side.failed and sent < 3 * MAX_HANDSHAKE_BYTES:
            part = body[sent : sent + size] or b"\0" * size
            side.conn.feed(b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part)
            sent += len(part)
            if size == 1 and sent > 4096:
                break  # OpenSSL has looked at its length long before.
        assert side.failed and side.raw.closed and not side.app.calls
        assert isinstance(side.failed[0], HandshakeError | ssl.SSLError)
        assert len(side.failed) == 1


def test_a_burst_of_handshakes_is_deferred_and_all_end_well() -> None:
    """With a clock on which a step takes 1 ms and a turn has 2: two steps to a turn, the others unread meanwhile."""
    loop = Loop(cost=0.001)
    budget = Budget(loop.call_soon, loop.clock, 0.0019)
    sides = [Side(loop, budget) for _ in range(10)]
    served = Side()
    served.shake()
    for side in sides:
        with pytest.raises(ssl.SSLWantReadError):
            side.client().do_handshake()
        side.conn.feed(side.outgoing.read())
    assert [side.raw.reading for side in sides] == [True] * 2 + [False] * 8
    turns = 0
    while not all(side.raw.sent for side in sides):
        answered = sum(bool(side.raw.sent) for side in sides)
        loop.turn()
        turns += 1
        assert sum(bool(side.raw.sent) for side in sides) - answered <= 2
        # Between any two turns an established connection is served.
        served.write(b"x")
        served.pump()
        assert len(served.app.got) == turns
    assert turns >= 4 and all(side.raw.reading for side in sides)
    for side in sides:
        side.incoming.write(side.raw.take())
        side.engine.do_handshake()
        side.write(b"hello")
        side.conn.feed(side.outgoing.read())
    for _ in range(10):
        loop.turn()
    assert all(side.app.got == b"hello" for side in sides)


def test_a_deferred_handshake_may_be_ended() -> None:
    loop = Loop(cost=1.0)
    budget = Budget(loop.call_soon, loop.clock)
    first, second = Side(loop, budget), Side(loop, budget)
    for side in (first, second):
        with pytest.raises(ssl.SSLWantReadError):
            side.client().do_handshake()
        side.conn.feed(side.outgoing.read())
    assert not second.raw.reading
    # What comes although reading is paused counts against the limit.
    while not second.failed:
        second.conn.feed(b"\x16\x03\x01\x40\x00" + b"\0" * 16384)
    assert isinstance(second.failed[0], HandshakeError)
    loop.turn()
    assert not second.raw.sent and len(second.failed) == 1
