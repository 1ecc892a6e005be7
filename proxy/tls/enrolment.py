"""The sidecar's client of the certificate authority: enrol with a join token, renew with the current SVID.

Blocking, on the standard library alone; its caller runs it in a thread. It must not make or keep keys
(:mod:`proxy.tls.identity` does). Whom it trusts: before enrolment only the root whose SHA-256 the join token
carries, afterwards the bundle at hand; and of what they signed only the control plane's own SPIFFE ID, so that no
other workload of the mesh can play the CA.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certs.bundle import BundleError, TrustBundle
from certs.join_token import JoinToken, JoinTokenError
from certs.spiffe import SpiffeId, SpiffeIdError
from certs.svid import SvidError, check_signer, read_leaf

DEFAULT_PORT = 15017
TIMEOUT = 10.0
"""Seconds for one whole exchange, connecting included."""
RESPONSE_LIMIT = 1024 * 1024
SO_MARK = 36

BUNDLE_PATH = "/ca/v1/bundle"
CERTIFICATES_PATH = "/ca/v1/certificates"
CONTROL_PLANE_PATH = "/ns/tulle-system/sa/control-plane"

UNREACHABLE = "unreachable"
UNTRUSTED = "untrusted"
REFUSED = "refused"
PROTOCOL = "protocol"
BAD_TOKEN = "bad-token"


class EnrolmentError(Exception):
    """No certificate was obtained. ``reason`` is one of this module's codes; ``retryable``: the same request may
    succeed later without anybody's help."""

    def __init__(self, reason: str, message: str, *, retryable: bool) -> None:
        super().__init__(message)
        self.reason = reason
        self.retryable = retryable


@dataclass(frozen=True, slots=True)
class Issued:
    """What the CA answered, not yet verified: PEM chain (leaf first), PEM roots, and the ID that it names."""

    certificates: str
    bundle: str
    spiffe_id: SpiffeId


def enrol(server: str, token: str, csr_pem: str, *, mark: int = 0, timeout: float = TIMEOUT) -> Issued:
    """Get a first certificate. Raises :class:`EnrolmentError`.

    ``server`` is ``host:port`` or ``https://host:port``; ``mark`` is set as ``SO_MARK`` before connecting (0: none).
    """
    try:
        parsed = JoinToken.parse(token)
    except JoinTokenError as error:
        raise EnrolmentError(BAD_TOKEN, str(error), retryable=False) from error
    deadline = time.monotonic() + timeout
    root = _pinned_root(server, parsed, mark, deadline)
    context = control_plane_context(TrustBundle((root,)))
    trust_domain = _trust_domain(root)
    body = {"csr": csr_pem, "token": parsed.text()}
    return _issued(_exchange(server, "POST", CERTIFICATES_PATH, context, trust_domain, mark, deadline, body))


def renew(
    server: str,
    csr_pem: str,
    *,
    identity_file: Path,
    bundle: TrustBundle,
    trust_domain: str,
    mark: int = 0,
    timeout: float = TIMEOUT,
) -> Issued:
    """Get the next certificate with the current one (``identity_file``: PEM, key and chain).

    Raises :class:`EnrolmentError`.
    """
    deadline = time.monotonic() + timeout
    try:
        context = control_plane_context(bundle, identity_file)
    except (OSError, ssl.SSLError) as error:
        raise EnrolmentError(PROTOCOL, f"{identity_file}: {error}", retryable=False) from error
    body = {"csr": csr_pem}
    try:
        answer = _exchange(server, "POST", CERTIFICATES_PATH, context, trust_domain, mark, deadline, body)
    except EnrolmentError as error:
        if isinstance(error.__cause__, ssl.SSLEOFError | ConnectionResetError | BrokenPipeError):
            # asyncio servers close on a failed handshake without sending the alert that would say why.
            raise EnrolmentError(
                UNTRUSTED,
                f"{error}; the server may have refused the client certificate in {identity_file}: "
                "expired by its clock, or of another mesh",
                retryable=True,
            ) from error
        raise
    return _issued(answer)


def control_plane_context(bundle: TrustBundle, identity_file: Path | None = None) -> ssl.SSLContext:
    """A TLS client that trusts ``bundle``. Host names are not looked at: call :func:`check_control_plane` after
    the handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_verify_locations(cadata=bundle.to_pem())
    if identity_file is not None:
        context.load_cert_chain(identity_file)
    return context


def check_control_plane(der: bytes | None, trust_domain: str) -> None:
    """Whether a validated leaf is the control plane's. Raises :class:`EnrolmentError`."""
    wanted = SpiffeId(trust_domain, CONTROL_PLANE_PATH)
    try:
        if der is None:
            raise EnrolmentError(UNTRUSTED, "the server sent no certificate", retryable=True)
        found = read_leaf(der, trust_domain).spiffe_id
    except SvidError as error:
        raise EnrolmentError(UNTRUSTED, f"the server's certificate: {error}", retryable=True) from error
    if found != wanted:
        raise EnrolmentError(UNTRUSTED, f"the server is {found}, not {wanted}", retryable=True)


def parse_server(server: str) -> tuple[str, int]:
    """Host and port of ``host``, ``host:port``, ``[v6]:port``, with or without ``https://``.

    Raises :class:`ValueError`.
    """
    rest = server.removeprefix("https://").removesuffix("/")
    if "://" in rest or "/" in rest:
        raise ValueError(f"control plane address {server!r}: expected host:port or https://host:port")
    host, port = rest, str(DEFAULT_PORT)
    if rest.startswith("["):
        host, bracket, port_part = rest[1:].partition("]")
        if not bracket or (port_part and not port_part.startswith(":")):
            raise ValueError(f"control plane address {server!r}: unbalanced brackets")
        port = port_part[1:] or port
    elif rest.count(":") == 1:
        host, _, port = rest.partition(":")
    if not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        raise ValueError(f"control plane address {server!r}: expected host:port with a port from 1 to 65535")
    return host, int(port)


def _pinned_root(server: str, token: JoinToken, mark: int, deadline: float) -> bytes:
    """Fetch the bundle from a server nobody vouches for, and keep of it only the root that the token pins."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    pem = _exchange(server, "GET", BUNDLE_PATH, context, None, mark, deadline)
    try:
        root = TrustBundle.parse(pem.decode("ascii")).find(token.root_pin)
    except (BundleError, UnicodeDecodeError) as error:
        raise EnrolmentError(PROTOCOL, f"{server}{BUNDLE_PATH}: {error}", retryable=True) from error
    if root is None:
        raise EnrolmentError(
            UNTRUSTED,
            f"{server} does not have the root certificate that the join token names "
            f"(sha256 {token.root_pin[:16]}…): wrong address, or a token of another mesh",
            retryable=False,
        )
    return root


def _trust_domain(root: bytes) -> str:
    try:
        found = check_signer(root)
    except SvidError as error:
        raise EnrolmentError(UNTRUSTED, f"the mesh's root certificate: {error}", retryable=False) from error
    if found is None:
        raise EnrolmentError(UNTRUSTED, "the mesh's root certificate has no SPIFFE ID", retryable=False)
    return found.trust_domain


class _Connection(http.client.HTTPConnection):
    """HTTP over a marked, TLS-wrapped socket, within a deadline."""

    def __init__(
        self,
        host: str,
        port: int,
        context: ssl.SSLContext,
        trust_domain: str | None,
        mark: int,
        deadline: float,
    ) -> None:
        super().__init__(host, port)
        self._context = context
        self._trust_domain = trust_domain
        self._mark = mark
        self._deadline = deadline

    def connect(self) -> None:
        plain = _connect(self.host, self.port, self._mark, self._deadline)
        try:
            tls = self._context.wrap_socket(plain)
            if self._trust_domain is not None:
                check_control_plane(tls.getpeercert(True), self._trust_domain)
        except BaseException:
            plain.close()
            raise
        self.sock = tls


def _connect(host: str, port: int, mark: int, deadline: float) -> socket.socket:
    """Connect to the first address that answers; the mark is set before the first packet."""
    failure: OSError = OSError(f"no address for {host}")
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        connection = socket.socket(family, kind, protocol)
        try:
            if mark:
                connection.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)
            connection.settimeout(_remaining(deadline))
            connection.connect(address)
        except OSError as error:
            connection.close()
            failure = error
        else:
            return connection
    raise failure


def _remaining(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    return left


def _exchange(
    server: str,
    method: str,
    path: str,
    context: ssl.SSLContext,
    trust_domain: str | None,
    mark: int,
    deadline: float,
    body: dict[str, str] | None = None,
) -> bytes:
    """One request and its successful answer's body; ``trust_domain``: check whose server it is."""
    try:
        host, port = parse_server(server)
    except ValueError as error:
        raise EnrolmentError(UNREACHABLE, str(error), retryable=False) from error
    connection = _Connection(host, port, context, trust_domain, mark, deadline)
    try:
        payload = None if body is None else json.dumps(body)
        headers = {"User-Agent": "tulle", "Connection": "close"}
        if payload is not None:
            headers["Content-Type"] = "application/json"
        connection.request(method, path, payload, headers)
        response = connection.getresponse()
        answer = _read(connection, response, deadline)
    except ssl.SSLError as error:
        raise EnrolmentError(UNTRUSTED, f"{server}: TLS: {error}", retryable=True) from error
    except PermissionError as error:
        raise EnrolmentError(
            UNREACHABLE, f"{server}: {error} (SO_MARK {mark} needs CAP_NET_ADMIN)", retryable=True
        ) from error
    except OSError as error:
        raise EnrolmentError(UNREACHABLE, f"{server}: {error}", retryable=True) from error
    except http.client.HTTPException as error:
        raise EnrolmentError(PROTOCOL, f"{server}: not an HTTP answer: {error!r}", retryable=True) from error
    finally:
        connection.close()
    if not 200 <= response.status < 300:
        raise _refusal(server, response.status, answer)
    return answer


def _read(
    connection: http.client.HTTPConnection, response: http.client.HTTPResponse, deadline: float
) -> bytes:
    answer = bytearray()
    while True:
        if connection.sock is not None:
            connection.sock.settimeout(_remaining(deadline))
        chunk = response.read1(65536)
        if not chunk:
            return bytes(answer)
        answer += chunk
        if len(answer) > RESPONSE_LIMIT:
            raise http.client.HTTPException(f"answer larger than {RESPONSE_LIMIT} bytes")


def _refusal(server: str, status: int, answer: bytes) -> EnrolmentError:
    """The error that a Kubernetes ``Status`` body describes, or the bare status code."""
    message = f"HTTP status {status}"
    try:
        body: Any = json.loads(answer)
        if isinstance(body, dict) and isinstance(body.get("message"), str):
            message = body["message"][:1000]
    except (ValueError, RecursionError):
        pass  # the status code alone must do
    retryable = status >= 500 or status in (408, 429)
    return EnrolmentError(REFUSED, f"{server} refused: {message}", retryable=retryable)


def _issued(answer: bytes) -> Issued:
    try:
        body: Any = json.loads(answer)
        certificates, bundle = body["certificates"], body["bundle"]
        if not isinstance(certificates, str) or not isinstance(bundle, str):
            raise ValueError("certificates and bundle must be strings")
        return Issued(certificates, bundle, SpiffeId.parse(body["spiffeId"]))
    except (KeyError, TypeError, ValueError, RecursionError, SpiffeIdError) as error:
        raise EnrolmentError(
            PROTOCOL, f"the CA's answer cannot be read: {error!r}", retryable=True
        ) from error
