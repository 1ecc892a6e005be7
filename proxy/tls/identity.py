"""The workload's own identity: key, chain and trust bundle in one file, and the agent that keeps it fresh.

Loading a valid identity imports no ``cryptography``; making a key and a CSR does, late and in a thread.
It must not build the data path's TLS contexts: subscribers do, for new handshakes, and connections that exist
stay as they are. One file holds everything, so that key, chain and bundle never mismatch, whenever a crash comes.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random as _random
import re
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeVar

from certs import files, schedule
from certs.bundle import BundleError, TrustBundle, join_pem, split_pem
from certs.spiffe import SpiffeId
from certs.svid import SvidError, read_leaf
from proxy.tls import enrolment
from proxy.tls.enrolment import EnrolmentError, Issued

log = logging.getLogger(__name__)

FILE_NAME = "identity.pem"
MAX_WAIT = 60.0
"""Seconds between looks at the clock at the most: a clock may jump, a host may sleep."""

_ROOT_LABEL = "TULLE TRUST ROOT"
"""Another label than CERTIFICATE: ``load_cert_chain`` passes it over and does not send the roots to peers."""

_KEY = re.compile(r"-----BEGIN PRIVATE KEY-----.+?-----END PRIVATE KEY-----\n?", re.DOTALL)

_Result = TypeVar("_Result")


class IdentityError(Exception):
    """There is no usable identity; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A workload's identity. ``path`` can be given to ``SSLContext.load_cert_chain``; it always holds the newest
    identity. ``chain`` is DER, leaf first; times are Unix seconds."""

    spiffe_id: SpiffeId
    path: Path
    key_pem: bytes = field(repr=False)
    chain: tuple[bytes, ...] = field(repr=False)
    bundle: TrustBundle = field(repr=False)
    not_before: int
    not_after: int
    serial_number: int

    @classmethod
    def load(cls, path: Path) -> Identity:
        """Read a stored identity and check that its parts fit. Its validity is the caller's to judge.

        Raises :class:`FileNotFoundError`, :class:`IdentityError`.
        """
        try:
            text = files.read_private(path).decode("ascii")
            identity = cls._read(path, text)
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(path)  # the key fits the leaf
        except FileNotFoundError:
            raise
        except (OSError, ValueError) as error:
            raise IdentityError(f"{path}: {error}") from error
        return identity

    @classmethod
    def _read(cls, path: Path, text: str) -> Identity:
        key = _KEY.search(text)
        if key is None:
            raise IdentityError(f"{path}: no private key in it")
        chain = split_pem(text)
        if not chain:
            raise IdentityError(f"{path}: no certificate in it")
        leaf = read_leaf(chain[0])
        bundle = TrustBundle.of(split_pem(text, _ROOT_LABEL), leaf.spiffe_id.trust_domain)
        return cls(
            leaf.spiffe_id,
            path,
            key[0].encode("ascii"),
            chain,
            bundle,
            leaf.not_before,
            leaf.not_after,
            leaf.serial_number,
        )

    @property
    def chain_pem(self) -> str:
        return join_pem(self.chain)

    def expired(self, now: float) -> bool:
        return now >= self.not_after


class CertificateClient(Protocol):
    """What the manager asks of the CA; blocking. :class:`CaClient` is the real one."""

    def enrol(self, token: str, csr_pem: str) -> Issued: ...

    def renew(self, csr_pem: str, current: Identity) -> Issued: ...


@dataclass(frozen=True, slots=True)
class CaClient:
    """The CA at ``server`` (``host:port``), reached with sockets marked ``mark`` (0: unmarked)."""

    server: str
    mark: int = 0
    timeout: float = enrolment.TIMEOUT

    def enrol(self, token: str, csr_pem: str) -> Issued:
        return enrolment.enrol(self.server, token, csr_pem, mark=self.mark, timeout=self.timeout)

    def renew(self, csr_pem: str, current: Identity) -> Issued:
        return enrolment.renew(
            self.server,
            csr_pem,
            identity_file=current.path,
            bundle=current.bundle,
            trust_domain=current.spiffe_id.trust_domain,
            mark=self.mark,
            timeout=self.timeout,
        )


def token_from_file(path: Path) -> Callable[[], str | None]:
    """A source of the join token that reads ``path`` each time; an absent or empty file is no token."""

    def read() -> str | None:
        try:
            return path.read_text("utf-8").strip() or None
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise IdentityError(f"join token file {path}: {error}") from error

    return read


class IdentityManager:
    """Ensures an identity at the start, renews it at half-life, and tells its subscribers of each new one.

    While the CA cannot be reached the current identity stays in use until it expires. ``renewals`` and
    ``failures`` count; ``last_error`` is the newest failure's message, ``None`` after a success.
    """

    def __init__(
        self,
        state_dir: Path,
        client: CertificateClient,
        *,
        token: Callable[[], str | None] = lambda: None,
        namespace: str | None = None,
        service_account: str | None = None,
        clock: Callable[[], float] = time.time,
        random: Callable[[], float] = _random.random,
        retry_base: float = schedule.RETRY_BASE,
        retry_cap: float = schedule.RETRY_CAP,
    ) -> None:
        """``namespace`` and ``service_account``: whose identity it must be (``None``: whosever the token is)."""
        self._path = state_dir / FILE_NAME
        self._client = client
        self._token = token
        self._namespace = namespace
        self._service_account = service_account
        self._clock = clock
        self._random = random
        self._retry_base = retry_base
        self._retry_cap = retry_cap
        self._current: Identity | None = None
        self._subscribers: list[Callable[[Identity], None]] = []
        self._lock = asyncio.Lock()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.renewals = 0
        self.failures = 0
        self.last_error: str | None = None

    @property
    def current(self) -> Identity:
        """The identity in use. Raises :class:`IdentityError` before :meth:`start` has returned."""
        if self._current is None:
            raise IdentityError("no identity yet")
        return self._current

    def subscribe(self, callback: Callable[[Identity], None]) -> Callable[[], None]:
        """Call ``callback`` in the event loop with each new identity; returns the way to stop that."""
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    async def start(self) -> Identity:
        """Take the stored identity, or else enrol, waiting for the CA as long as it takes.

        Raises :class:`IdentityError` when waiting cannot help: no token, or the CA refused it.
        """
        self._current = self._load()
        failures = 0
        while self._current is None:
            try:
                await self._obtain()
            except EnrolmentError as error:
                self._failed(error)
                if not error.retryable:
                    raise IdentityError(f"cannot enrol: {error}") from error
                failures += 1
                delay = schedule.retry_delay(
                    failures, self._random(), base=self._retry_base, cap=self._retry_cap
                )
                log.warning("cannot enrol yet, next attempt in %.1f s: %s", delay, error)
                await asyncio.sleep(delay)
        self._task = asyncio.create_task(self._keep_fresh(), name="identity-renewal")
        return self._current

    async def renew_now(self) -> Identity:
        """Renew at once. Raises :class:`EnrolmentError`, :class:`IdentityError`; the old identity then stays."""
        try:
            return await self._obtain()
        except (EnrolmentError, IdentityError) as error:
            self._failed(error)
            raise

    async def close(self) -> None:
        """Stop renewing. A request that is under way is abandoned."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def _load(self) -> Identity | None:
        """The stored identity, if it can be used now; says in the log why not."""
        try:
            stored = Identity.load(self._path)
        except FileNotFoundError:
            return None
        except IdentityError as error:
            log.warning("stored identity not used: %s", error)
            return None
        wrong = self._not_ours(stored.spiffe_id)
        if wrong is not None:
            log.warning("stored identity not used: %s: %s", self._path, wrong)
            return None
        if stored.expired(self._clock()):
            log.warning(
                "stored identity not used: %s: the certificate of %s has expired",
                self._path,
                stored.spiffe_id,
            )
            return None
        log.info("identity %s loaded from %s", stored.spiffe_id, self._path)
        return stored

    def _not_ours(self, spiffe_id: SpiffeId) -> str | None:
        for kind, wanted, found in (
            ("namespace", self._namespace, spiffe_id.namespace),
            ("service account", self._service_account, spiffe_id.service_account),
        ):
            if wanted is not None and wanted != found:
                return f"it is of {spiffe_id}, but this workload's {kind} is {wanted!r}"
        return None

    async def _keep_fresh(self) -> None:
        failures, due, delay = 0, self._due(), 0.0
        while True:
            if not failures:
                delay = min(max(due - self._clock(), 0.0), MAX_WAIT)
            if await self._changed_within(delay):
                failures, due = 0, self._due()
                continue
            if not failures and self._clock() < due:
                continue
            try:
                await self._obtain()
            except (EnrolmentError, IdentityError) as error:
                self._failed(error)
                failures += 1
                delay = self._after_failure(failures, error)
            except Exception as error:
                # A fault of ours must not end renewals for the life of the process.
                log.exception("renewal failed for a reason that nobody foresaw")
                self._failed(error)
                failures += 1
                delay = self._after_failure(failures, error)

    async def _changed_within(self, seconds: float) -> bool:
        """Wait for a new identity, but not longer than that; says whether there is one."""
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return False
        self._changed.clear()
        return True

    def _due(self) -> float:
        current = self.current
        return schedule.renew_at(current.not_before, current.not_after, self._random())

    def _after_failure(self, failures: int, error: Exception) -> float:
        """Seconds until the next attempt; tells the operator how long the identity still lasts."""
        current = self.current
        remaining = current.not_after - self._clock()
        delay = schedule.retry_delay(
            failures, self._random(), remaining=remaining, base=self._retry_base, cap=self._retry_cap
        )
        if remaining > 0:
            log.warning(
                "certificate of %s not renewed, still valid for %.0f s, next attempt in %.1f s: %s",
                current.spiffe_id,
                remaining,
                delay,
                error,
            )
        else:
            log.error(
                "certificate of %s EXPIRED %.0f s ago, peers refuse it; next attempt in %.1f s: %s",
                current.spiffe_id,
                -remaining,
                delay,
                error,
            )
        return delay

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        self.last_error = str(error)

    async def _obtain(self) -> Identity:
        """Get a new identity, by the current one while it is valid and else by token, and publish it."""
        async with self._lock:
            fresh = await _in_thread(self._request)
            renewed = self._current is not None
            self._current = fresh
            self.last_error = None
            if renewed:
                self.renewals += 1
            log.info(
                "certificate of %s obtained, valid until %d (Unix time)", fresh.spiffe_id, fresh.not_after
            )
            self._changed.set()
            for callback in tuple(self._subscribers):
                try:
                    callback(fresh)
                except Exception:
                    log.exception("a subscriber failed to take the new identity of %s", fresh.spiffe_id)
        return fresh

    def _request(self) -> Identity:
        """Blocking: key, CSR, the CA's answer, its verification, the file."""
        from certs import csr, keys

        self._check_directory()
        key = keys.generate()
        current = self._current
        if current is not None and not current.expired(self._clock()):
            csr_pem = csr.build(key, current.spiffe_id).decode("ascii")
            try:
                issued = self._client.renew(csr_pem, current)
            except EnrolmentError as error:
                token = None if error.retryable else self._token()
                if token is None:
                    raise
                log.warning("renewal refused, enrolling again with the join token: %s", error)
                issued = self._client.enrol(token, csr.build(key).decode("ascii"))
        else:
            token = self._token()
            if token is None:
                raise IdentityError(
                    f"no valid certificate in {self._path} and no join token; "
                    "make one with 'tulle token create' and give it to the sidecar"
                )
            issued = self._client.enrol(token, csr.build(key).decode("ascii"))
        return self._store(issued, keys.dump(key), keys.public_der(key.public_key()))

    def _check_directory(self) -> None:
        """Before a one-time token is used up: the result must have a place."""
        try:
            files.make_private_directory(self._path.parent)
        except OSError as error:
            raise IdentityError(f"{self._path}: cannot be written: {error}") from error
        if not os.access(self._path.parent, os.W_OK | os.X_OK):
            raise IdentityError(f"{self._path}: cannot be written: no permission for {self._path.parent}")

    def _store(self, issued: Issued, key_pem: bytes, public_key: bytes) -> Identity:
        """Verify what the CA answered and replace the file. Nothing is changed when something is wrong."""
        from certs import chain as _chain

        current = self._current
        trust_domain = None if current is None else current.spiffe_id.trust_domain
        try:
            chain = split_pem(issued.certificates)
            bundle = TrustBundle.parse(issued.bundle, trust_domain)
            leaf = _chain.verify(chain, bundle, self._clock(), trust_domain)
        except (BundleError, SvidError, _chain.ChainError) as error:
            raise EnrolmentError(
                enrolment.PROTOCOL, f"the CA's certificate: {error}", retryable=True
            ) from error
        wrong = self._not_ours(leaf.spiffe_id)
        if leaf.public_key != public_key:
            wrong = "it is for another key than the one in the request"
        elif current is not None and leaf.spiffe_id != current.spiffe_id:
            wrong = f"it is of {leaf.spiffe_id}, not of {current.spiffe_id}"
        if wrong is not None:
            raise EnrolmentError(enrolment.PROTOCOL, f"the CA's certificate: {wrong}", retryable=False)
        roots = join_pem(bundle.roots, _ROOT_LABEL)
        try:
            files.write_private(self._path, key_pem + (join_pem(chain) + roots).encode("ascii"))
        except OSError as error:
            raise IdentityError(f"{self._path}: cannot be written: {error}") from error
        return Identity.load(self._path)


async def _in_thread(work: Callable[[], _Result]) -> _Result:
    """Run blocking work in a daemon thread: unlike the loop's executor it never holds up the process's end."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_Result] = loop.create_future()

    def deliver(result: _Result | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # None only where _Result is None

    def run() -> None:
        try:
            outcome: tuple[_Result | None, BaseException | None] = (work(), None)
        except BaseException as error:  # noqa: BLE001 - carried over to the waiting task
            outcome = (None, error)
        try:
            loop.call_soon_threadsafe(deliver, *outcome)
        except RuntimeError:
            log.debug("the event loop ended before the certificate request did")

    threading.Thread(target=run, name="identity-request", daemon=True).start()
    return await future
