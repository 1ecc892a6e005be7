"""The CA over HTTPS: the trust bundle, certificates, and join tokens as a Kubernetes-shaped resource.

``GET /ca/v1/bundle`` and ``POST /ca/v1/certificates`` need no principal (the second brings a join token or a
client certificate). The join-token routes do: the API's middleware authorises and sets ``request[PRINCIPAL]``;
without it they answer 401. It must not decide anything that :mod:`control_plane.ca.service` decides.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from certs import csr
from control_plane.api.access import Principal
from control_plane.api.context import PRINCIPAL
from control_plane.ca import errors, resource
from control_plane.ca.errors import CertificateRefused
from control_plane.ca.resource import Cause, InvalidResource
from control_plane.ca.service import CertificateService, IssuedCertificate
from control_plane.ca.tokens import GROUP, PLURAL, VERSION, timestamp
from control_plane.store.base import Conflict

BODY_LIMIT = 64 * 1024
BODY_TIMEOUT = 10.0
"""Seconds in which a body must have arrived."""

BUNDLE_PATH = "/ca/v1/bundle"
CERTIFICATES_PATH = "/ca/v1/certificates"
ALL_TOKENS_PATH = f"/apis/{GROUP}/{VERSION}/{PLURAL}"
TOKENS_PATH = f"/apis/{GROUP}/{VERSION}/namespaces/{{namespace}}/{PLURAL}"

UNAUTHENTICATED_PATHS = frozenset({BUNDLE_PATH, CERTIFICATES_PATH})
"""The paths that the API's authentication must let pass."""

_STATUS: dict[str, tuple[int, str]] = {
    errors.MALFORMED_TOKEN: (401, "Unauthorized"),
    errors.FOREIGN_TOKEN: (401, "Unauthorized"),
    errors.UNKNOWN_TOKEN: (401, "Unauthorized"),
    errors.EXPIRED_TOKEN: (401, "Unauthorized"),
    errors.REPLAYED_TOKEN: (401, "Unauthorized"),
    errors.NO_CREDENTIAL: (401, "Unauthorized"),
    errors.NOT_AN_SVID: (401, "Unauthorized"),
    errors.EXPIRED_CERTIFICATE: (401, "Unauthorized"),
    errors.OTHER_IDENTITY: (403, "Forbidden"),
    errors.WANTS_CA: (403, "Forbidden"),
    errors.CA_UNAVAILABLE: (503, "ServiceUnavailable"),
    csr.MALFORMED: (422, "Invalid"),
    csr.WEAK_KEY: (422, "Invalid"),
    csr.WEAK_SIGNATURE: (422, "Invalid"),
    csr.BAD_SIGNATURE: (422, "Invalid"),
}

_TOKEN_REASONS = frozenset(reason for reason in _STATUS if reason.endswith("-token"))

Handler = Callable[[web.Request], Awaitable[web.Response]]


class _Failure(Exception):
    """An answer that is not a success."""

    def __init__(self, code: int, reason: str, message: str, causes: tuple[Cause, ...] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.causes = causes


def setup_routes(
    app: web.Application,
    service: CertificateService,
    *,
    body_limit: int = BODY_LIMIT,
    body_timeout: float = BODY_TIMEOUT,
) -> None:
    """Add the routes of this module to ``app``; register them before any catch-all ``/apis`` route."""
    handlers = _Handlers(service, body_limit, body_timeout)
    route = app.router.add_route
    route("GET", BUNDLE_PATH, _answering(handlers.bundle))
    route("POST", CERTIFICATES_PATH, _answering(handlers.certificates))
    route("GET", TOKENS_PATH, _answering(handlers.list_tokens))
    route("GET", ALL_TOKENS_PATH, _answering(handlers.list_tokens))
    route("POST", TOKENS_PATH, _answering(handlers.create_token))
    route("GET", TOKENS_PATH + "/{name}", _answering(handlers.get_token))
    route("DELETE", TOKENS_PATH + "/{name}", _answering(handlers.revoke_token))


class _Handlers:
    __slots__ = ("_limit", "_service", "_timeout")

    def __init__(self, service: CertificateService, limit: int, timeout: float) -> None:
        self._service = service
        self._limit = limit
        self._timeout = timeout

    async def bundle(self, request: web.Request) -> web.Response:
        return web.Response(
            text=self._service.bundle.to_pem(), content_type="application/pem-certificate-chain"
        )

    async def certificates(self, request: web.Request) -> web.Response:
        body = await self._json(request)
        if not isinstance(body, dict):
            raise _Failure(
                400, "BadRequest", 'expected a JSON object: {"csr": "<PEM>", "token": "<join token>"}'
            )
        csr_pem, token = body.get("csr"), body.get("token")
        if not isinstance(csr_pem, str):
            raise _Failure(
                422, "Invalid", "csr: required, a PEM string", (Cause("csr", "required, a PEM string"),)
            )
        if token is not None:
            if not isinstance(token, str):
                raise _Failure(422, "Invalid", "token: not a string", (Cause("token", "not a string"),))
            issued = await self._service.issue_with_token(csr_pem, token, peer=request.remote)
        else:
            certificate = peer_certificate(request)
            if certificate is None:
                raise CertificateRefused(
                    errors.NO_CREDENTIAL,
                    "neither a join token in the body nor a client certificate on the connection",
                )
            issued = await self._service.renew(certificate, csr_pem, peer=request.remote)
        return web.json_response(_issued(issued), status=201)

    async def list_tokens(self, request: web.Request) -> web.Response:
        _principal(request)
        stored, revision = await self._service.tokens.list(request.match_info.get("namespace"))
        return web.json_response(resource.show_list(list(stored), revision))

    async def create_token(self, request: web.Request) -> web.Response:
        author = _principal(request)
        wanted = resource.parse(await self._json(request), request.match_info["namespace"])
        created = await self._service.tokens.create(wanted, author=author)
        return web.json_response(resource.show(created.body, token=created.text), status=201)

    async def get_token(self, request: web.Request) -> web.Response:
        _principal(request)
        namespace, name = request.match_info["namespace"], request.match_info["name"]
        stored = await self._service.tokens.get(namespace, name)
        if stored is None:
            raise _absent(namespace, name)
        return web.json_response(resource.show(stored.body, revision=stored.revision))

    async def revoke_token(self, request: web.Request) -> web.Response:
        author = _principal(request)
        namespace, name = request.match_info["namespace"], request.match_info["name"]
        try:
            await self._service.tokens.revoke(namespace, name, author=author)
        except Conflict:
            raise _absent(namespace, name) from None
        details = {"name": name, "group": GROUP, "kind": PLURAL}
        return web.json_response(
            {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
        )

    async def _json(self, request: web.Request) -> object:
        """The body as JSON, within the limits of size and time."""
        too_large = _Failure(
            413, "RequestEntityTooLarge", f"the body is larger than the limit of {self._limit} bytes"
        )
        if (request.content_length or 0) > self._limit:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(self._timeout):
                async for chunk in request.content.iter_any():
                    body += chunk
                    if len(body) > self._limit:
                        raise too_large
        except TimeoutError:
            raise _Failure(
                408, "Timeout", f"the body did not arrive within {self._timeout:g} seconds"
            ) from None
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise _Failure(400, "BadRequest", f"the body is not JSON: {error}") from error


def peer_certificate(request: web.Request) -> bytes | None:
    """The DER of the client's certificate, which the TLS library validated, or ``None``."""
    transport = request.transport
    tls = None if transport is None else transport.get_extra_info("ssl_object")
    if not isinstance(tls, ssl.SSLObject | ssl.SSLSocket):
        return None
    return tls.getpeercert(True)


def _principal(request: web.Request) -> str:
    principal: Principal | None = request.get(PRINCIPAL)
    if principal is None:
        raise _Failure(401, "Unauthorized", "give a client certificate or a bearer token")
    return principal.name


def _issued(issued: IssuedCertificate) -> dict[str, str]:
    return {
        "certificates": issued.certificates,
        "bundle": issued.bundle,
        "spiffeId": str(issued.spiffe_id),
        "notAfter": timestamp(issued.not_after),
    }


def _absent(namespace: str, name: str) -> _Failure:
    return _Failure(404, "NotFound", f"{PLURAL}.{GROUP} {name!r} not found in namespace {namespace!r}")


def _answering(handler: Handler) -> Handler:
    """``handler`` with its failures turned into Kubernetes ``Status`` answers."""

    async def answer(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except CertificateRefused as refusal:
            code, reason = _STATUS[refusal.reason]
            field = "token" if refusal.reason in _TOKEN_REASONS else "csr" if code in (403, 422) else ""
            cause = Cause(field, refusal.message, refusal.reason)
            return _status(code, reason, refusal.message, (cause,))
        except InvalidResource as invalid:
            return _status(422, "Invalid", str(invalid), invalid.causes)
        except _Failure as failure:
            return _status(failure.code, failure.reason, str(failure), failure.causes)

    return answer


def _status(code: int, reason: str, message: str, causes: tuple[Cause, ...]) -> web.Response:
    body: dict[str, Any] = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "reason": reason,
        "message": message,
        "code": code,
    }
    if causes:
        body["details"] = {
            "causes": [
                {"field": cause.field, "message": cause.message, "reason": cause.reason} for cause in causes
            ]
        }
    response = web.json_response(body, status=code)
    if code in (408, 413):
        response.force_close()
    return response
