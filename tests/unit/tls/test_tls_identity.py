"""The sidecar's identity agent against a fake CA: start, renewal, failures, what is kept on disk."""

from __future__ import annotations

import asyncio
import logging
import ssl
import stat
import threading
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from certs import csr, keys
from certs.bundle import join_pem, split_pem
from certs.spiffe import SpiffeId
from certs.svid import check_leaf
from proxy.tls import enrolment
from proxy.tls.enrolment import EnrolmentError, Issued
from proxy.tls.identity import Identity, IdentityError, IdentityManager, token_from_file
from tests.fakes import pki

WEB = SpiffeId.workload("mesh.local", "default", "web")
DB = SpiffeId.workload("mesh.local", "default", "db")


class Clock:
    def __init__(self) -> None:
        self.now = pki.NOW

    def __call__(self) -> float:
        return self.now.timestamp()


class FakeCa:
    """Signs in memory. ``outage`` is raised instead while it is set; ``answer`` alters what is answered."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.root = pki.make_ca(not_after=pki.NOW + timedelta(days=3650))
        self.calls: list[str] = []
        self.outage: EnrolmentError | None = None
        self.renew_outage: EnrolmentError | None = None
        self.identity = WEB
        self.answer: Callable[[Issued], Issued] = lambda issued: issued
        self.called = asyncio.Event()
        self.loop = asyncio.get_running_loop()

    def enrol(self, token: str, csr_pem: str) -> Issued:
        self._note(f"enrol {token}")
        return self._issue(csr_pem)

    def renew(self, csr_pem: str, current: Identity) -> Issued:
        self._note("renew")
        if self.renew_outage is not None:
            raise self.renew_outage
        assert csr.read(csr_pem).names == (("URI", str(current.spiffe_id)),)
        return self._issue(csr_pem)

    def _note(self, call: str) -> None:
        assert threading.current_thread() is not threading.main_thread(), "must not block the event loop"
        self.calls.append(call)
        self.loop.call_soon_threadsafe(self.called.set)
        if self.outage is not None:
            raise self.outage

    def _issue(self, csr_pem: str) -> Issued:
        now = self.clock.now
        request = x509.load_pem_x509_csr(csr_pem.encode())
        leaf = pki.make(
            signer=self.root,
            uris=(str(self.identity),),
            not_before=now,
            not_after=now + timedelta(hours=24),
            public_key=request.public_key(),
        )
        return self.answer(Issued(leaf.pem, self.root.pem, self.identity))


UNREACHABLE = EnrolmentError(enrolment.UNREACHABLE, "connection refused", retryable=True)
REFUSED = EnrolmentError(enrolment.REFUSED, "token already used", retryable=False)


class Setup:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = Clock()
        self.ca = FakeCa(self.clock)
        self.managers: list[IdentityManager] = []

    async def stored(self) -> None:
        """An earlier life of the sidecar left its identity on disk."""
        earlier = self.manager()
        await earlier.start()
        await earlier.close()

    def manager(
        self, token: Callable[[], str | None] | str | None = "token", **options: object
    ) -> IdentityManager:
        settings: dict[str, object] = {
            "token": token if callable(token) else lambda: token,
            "clock": self.clock,
            "random": lambda: 0.5,
            "retry_base": 0.001,
            "retry_cap": 0.002,
        }
        made = IdentityManager(self.directory, self.ca, **{**settings, **options})  # type: ignore[arg-type]
        self.managers.append(made)
        return made

    @property
    def path(self) -> Path:
        return self.directory / "identity.pem"


@pytest.fixture
async def setup(tmp_path: Path) -> AsyncIterator[Setup]:
    made = Setup(tmp_path / "state")
    yield made
    for manager in made.managers:
        await manager.close()


async def test_the_first_start_enrols_and_the_next_uses_the_disk(setup: Setup) -> None:
    identity = await setup.manager().start()
    assert identity.spiffe_id == WEB
    assert identity.not_after == (pki.NOW + timedelta(hours=24)).timestamp()
    assert stat.S_IMODE(setup.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(setup.directory.stat().st_mode) == 0o700
    assert setup.ca.calls == ["enrol token"]
    setup.ca.outage = UNREACHABLE
    again = await setup.manager(None).start()
    assert again == identity
    assert setup.ca.calls == ["enrol token"], "a restart needs neither control plane nor token"


async def test_the_file_serves_tls_and_sends_no_root(setup: Setup) -> None:
    identity = await setup.manager().start()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.path)
    assert check_leaf(identity.chain[0]) == WEB
    assert (
        identity.chain_pem.count("BEGIN CERTIFICATE")
        == setup.path.read_text().count("BEGIN CERTIFICATE")
        == 1
    )
    assert identity.bundle.roots == (setup.ca.root.der,)
    assert b"PRIVATE" not in repr(identity).encode()


async def test_the_key_stays_here_and_is_new_each_time(setup: Setup) -> None:
    manager = setup.manager()
    first = await manager.start()
    second = await manager.renew_now()
    assert first.key_pem != second.key_pem
    assert setup.path.read_bytes().startswith(second.key_pem)


async def test_at_half_life_it_is_renewed_and_subscribers_hear(setup: Setup) -> None:
    manager = setup.manager()
    await manager.start()
    heard: asyncio.Future[Identity] = asyncio.get_running_loop().create_future()
    manager.subscribe(heard.set_result)
    await manager.close()
    setup.clock.now += timedelta(hours=12)
    restarted = setup.manager()
    restarted.subscribe(heard.set_result)
    before = await restarted.start()
    after = await heard
    assert setup.ca.calls == ["enrol token", "renew"]
    assert after.not_after == before.not_after + 12 * 3600
    assert restarted.current == after
    assert restarted.renewals == 1


async def test_just_before_half_life_it_is_not(setup: Setup) -> None:
    await setup.stored()
    setup.clock.now += timedelta(hours=12, seconds=-1)
    manager = setup.manager()
    await manager.start()
    assert manager._due() - setup.clock() == 1
    assert setup.ca.calls == ["enrol token"]


async def test_an_outage_at_the_start_is_waited_out(setup: Setup, caplog: pytest.LogCaptureFixture) -> None:
    setup.ca.outage = UNREACHABLE
    manager = setup.manager()
    starting = asyncio.create_task(manager.start())
    while len(setup.ca.calls) < 3:
        setup.ca.called.clear()
        await setup.ca.called.wait()
    assert not starting.done()
    setup.ca.outage = None
    assert (await starting).spiffe_id == WEB
    assert "cannot enrol yet, next attempt" in caplog.text
    assert manager.last_error is None
    assert manager.failures >= 2


async def test_a_refused_token_ends_the_start(setup: Setup) -> None:
    setup.ca.outage = REFUSED
    with pytest.raises(IdentityError, match="token already used"):
        await setup.manager().start()
    assert setup.ca.calls == ["enrol token"]


async def test_without_disk_and_token_there_is_no_start(setup: Setup) -> None:
    with pytest.raises(IdentityError, match="no join token"):
        await setup.manager(None).start()
    with pytest.raises(IdentityError, match="no identity yet"):
        _ = setup.managers[0].current
    assert setup.ca.calls == []


async def test_an_outage_at_renewal_keeps_the_identity(
    setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    await setup.stored()
    setup.clock.now += timedelta(hours=20)
    setup.ca.outage = UNREACHABLE
    manager = setup.manager(None)
    heard: asyncio.Future[Identity] = asyncio.get_running_loop().create_future()
    manager.subscribe(heard.set_result)
    before = await manager.start()
    while manager.failures < 3:
        setup.ca.called.clear()
        await setup.ca.called.wait()
    assert manager.current == before
    assert manager.last_error == "connection refused"
    assert "not renewed, still valid for 14400 s" in caplog.text
    setup.ca.outage = None
    assert (await heard).not_after > before.not_after
    assert manager.last_error is None


async def test_after_expiry_it_says_so_and_enrols_again_with_a_token(
    setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    tokens: list[str] = []
    await setup.stored()
    setup.clock.now += timedelta(hours=20)
    setup.ca.renew_outage = UNREACHABLE
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()

    def token() -> str | None:
        loop.call_soon_threadsafe(asked.set)
        return tokens[-1] if tokens else None

    manager = setup.manager(token)
    heard: asyncio.Future[Identity] = asyncio.get_running_loop().create_future()
    manager.subscribe(heard.set_result)
    before = await manager.start()
    setup.clock.now += timedelta(hours=5)
    failures = manager.failures
    while manager.failures < failures + 2:
        asked.clear()
        await asked.wait()
    assert manager.current == before
    assert "EXPIRED 3600 s ago, peers refuse it" in caplog.text
    tokens.append("second")
    assert (await heard).not_after > setup.clock()
    assert setup.ca.calls[-1] == "enrol second"


async def test_an_unforeseen_fault_does_not_end_renewals(
    setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    await setup.stored()
    setup.clock.now += timedelta(hours=20)

    def broken(_: Issued) -> Issued:
        setup.ca.answer = lambda issued: issued
        raise ZeroDivisionError("boom")

    setup.ca.answer = broken
    manager = setup.manager(None)
    heard: asyncio.Future[Identity] = asyncio.get_running_loop().create_future()
    manager.subscribe(heard.set_result)
    await manager.start()
    await heard
    assert manager.failures == 1
    assert "nobody foresaw" in caplog.text


async def test_an_expired_disk_identity_enrols_again(setup: Setup) -> None:
    await setup.stored()
    setup.clock.now += timedelta(hours=24)
    with pytest.raises(IdentityError, match="no join token"):
        await setup.manager(None).start()
    assert (await setup.manager("second").start()).spiffe_id == WEB
    assert setup.ca.calls == ["enrol token", "enrol second"]


async def test_a_refused_renewal_falls_back_to_the_token(setup: Setup) -> None:
    manager = setup.manager()
    await manager.start()
    setup.ca.renew_outage = REFUSED
    await manager.renew_now()
    assert setup.ca.calls == ["enrol token", "renew", "enrol token"]


async def test_a_refused_renewal_without_token_keeps_the_identity(setup: Setup) -> None:
    await setup.manager().start()
    manager = setup.manager(None)
    before = await manager.start()
    setup.ca.outage = REFUSED
    with pytest.raises(EnrolmentError, match="already used"):
        await manager.renew_now()
    assert manager.current == before
    assert (manager.failures, manager.renewals) == (1, 0)


async def test_concurrent_forced_renewals_follow_one_another(setup: Setup) -> None:
    manager = setup.manager()
    await manager.start()
    first, second = await asyncio.gather(manager.renew_now(), manager.renew_now())
    assert first.serial_number != second.serial_number
    assert Identity.load(setup.path) == manager.current == second


async def test_a_subscriber_can_leave_and_may_fail(setup: Setup, caplog: pytest.LogCaptureFixture) -> None:
    manager = setup.manager()
    await manager.start()
    heard: list[Identity] = []
    leave = manager.subscribe(heard.append)

    def broken(_: Identity) -> None:
        raise RuntimeError("boom")

    manager.subscribe(broken)
    manager.subscribe(heard.append)
    await manager.renew_now()
    assert len(heard) == 2
    leave()
    await manager.renew_now()
    assert len(heard) == 3
    assert "boom" in caplog.text


def foreign_root(issued: Issued) -> Issued:
    return Issued(issued.certificates, pki.make_ca(subject="foreign").pem, issued.spiffe_id)


def other_key(ca: FakeCa) -> Callable[[Issued], Issued]:
    other = csr.build(keys.generate()).decode()

    def answer(issued: Issued) -> Issued:
        ca.answer = lambda same: same
        return ca._issue(other)

    return answer


async def test_answers_that_are_wrong_change_nothing(setup: Setup) -> None:
    manager = setup.manager()
    before = await manager.start()
    stored = setup.path.read_bytes()
    for answer, wrong in (
        (foreign_root, "does not lead to a root"),
        (other_key(setup.ca), "another key"),
        (lambda issued: Issued("", issued.bundle, WEB), "a chain of 0"),
        (lambda issued: Issued(issued.certificates, "", WEB), "no certificate"),
        (lambda issued: Issued(issued.certificates, pki.make_ca("other.local").pem, WEB), "trust domain"),
    ):
        setup.ca.answer = answer
        with pytest.raises(EnrolmentError, match=wrong):
            await manager.renew_now()
    setup.ca.answer = lambda issued: issued
    setup.ca.identity = DB
    with pytest.raises(EnrolmentError, match=r"is of spiffe://.*/sa/db, not of"):
        await manager.renew_now()
    assert manager.current == before
    assert setup.path.read_bytes() == stored


async def test_a_token_of_another_workload_is_noticed(setup: Setup) -> None:
    setup.ca.identity = DB
    with pytest.raises(IdentityError, match="service account is 'web'"):
        await setup.manager(namespace="default", service_account="web").start()
    assert not setup.path.exists()


async def test_a_state_directory_of_another_workload_is_not_used(
    setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    setup.ca.identity = DB
    await setup.manager().start()
    setup.ca.identity = WEB
    identity = await setup.manager(namespace="default", service_account="web").start()
    assert identity.spiffe_id == WEB
    assert "this workload's service account is 'web'" in caplog.text


@pytest.mark.parametrize("damage", ["cut", "empty", "readable", "other key", "no roots", "not ascii"])
async def test_a_damaged_file_is_not_used(
    setup: Setup, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    await setup.manager().start()
    good = setup.path.read_bytes()
    if damage == "cut":
        setup.path.write_bytes(good[:400])
    elif damage == "empty":
        setup.path.write_bytes(b"")
    elif damage == "readable":
        setup.path.chmod(0o644)
    elif damage == "other key":
        setup.path.write_bytes(keys.dump(keys.generate()) + good[good.index(b"-----BEGIN CERT") :])
    elif damage == "no roots":
        setup.path.write_bytes(good[: good.index(b"-----BEGIN TULLE")])
    else:
        setup.path.write_bytes(good + b"\xff")
    with caplog.at_level(logging.WARNING):
        await setup.manager("second").start()
    assert "stored identity not used" in caplog.text
    assert setup.ca.calls == ["enrol token", "enrol second"]
    Identity.load(setup.path)


async def test_a_state_directory_that_cannot_be_written_is_an_error(setup: Setup) -> None:
    setup.directory.parent.mkdir(exist_ok=True)
    setup.directory.write_text("a file where the directory belongs")
    with pytest.raises(IdentityError, match="cannot be written"):
        await setup.manager().start()
    assert setup.ca.calls == [], "the token must not be used up for nothing"


def test_the_token_file(tmp_path: Path) -> None:
    path = tmp_path / "token"
    read = token_from_file(path)
    assert read() is None
    path.write_text("\n")
    assert read() is None
    path.write_text(" tulle1.x \n")
    assert read() == "tulle1.x"
    path.write_bytes(b"\xff")
    with pytest.raises(IdentityError, match="join token file"):
        read()


def test_a_chain_is_split_in_order() -> None:
    one, two = pki.make_ca(subject="one"), pki.make_ca(subject="two")
    assert split_pem(join_pem([one.der, two.der])) == (one.der, two.der)


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ("cp.example", ("cp.example", 15017)),
        ("cp.example:443", ("cp.example", 443)),
        ("https://10.0.0.1:15017/", ("10.0.0.1", 15017)),
        ("[fd00::1]:99", ("fd00::1", 99)),
        ("[fd00::1]", ("fd00::1", 15017)),
        ("fd00::1", ("fd00::1", 15017)),
    ],
)
def test_server_addresses(server: str, expected: tuple[str, int]) -> None:
    assert enrolment.parse_server(server) == expected


@pytest.mark.parametrize(
    "server", ["", ":1", "a:", "a:0", "a:65536", "a:x", "http://a", "https://a/b", "[::1", "[::1]1", "a:²"]
)
def test_bad_server_addresses(server: str) -> None:
    with pytest.raises(ValueError, match="control plane address"):
        enrolment.parse_server(server)
