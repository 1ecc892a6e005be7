"""What happens around every request: who asks, whether they may, and how refusals and failures are answered.

It must not know any resource.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Awaitable, Callable

from aiohttp import web

from control_plane.api.access import Role, Verb
from control_plane.api.context import PRINCIPAL, answer, context_of
from control_plane.api.errors import ApiError, status_body
from control_plane.store.base import Compacted, StoreClosed, StoreUnavailable

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

OPEN_PATHS = frozenset({"/healthz", "/livez", "/readyz", "/ca/v1/bundle", "/ca/v1/certificates"})
"""What needs no principal. The CA's two endpoints check tokens and certificates themselves."""

FOR_EVERY_ROLE = frozenset(
    {
        "/api",
        "/api/{version}",
        "/apis",
        "/apis/{group}",
        "/apis/{group}/{version}",
        "/apis/mesh.tulle.io/v1/changesets",
        "/openapi/v3",
        "/openapi/v3/api/{openapi_version}",
        "/openapi/v3/apis/{openapi_group}/{openapi_version}",
        "/version",
    }
)
"""Routes that tell nothing of the mesh, and the change sets, which check the namespace of each of their objects.

Every other route needs the role for its ``{namespace}``, or for all namespaces if it has none.
"""

_READING = frozenset({"GET", "HEAD"})


@web.middleware
async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn every refusal into a ``Status``, and every bug into a 500 that tells the client nothing."""
    try:
        response = await handler(request)
    except ApiError as error:
        response = answer(error.body(), code=error.code)
        if error.code == 401:
            response.headers["WWW-Authenticate"] = 'Bearer realm="tulle"'
        if error.code in (429, 503):
            response.headers["Retry-After"] = "1"
        if error.code in (408, 413):
            response.force_close()
    except web.HTTPException as error:
        response = error if error.status < 400 else _plain(request, error)
    except (StoreUnavailable, StoreClosed) as error:
        log.error("%s %s: %s", request.method, request.path, error)
        response = answer(status_body(503, f"the store cannot be used now: {error}"), code=503)
    except Compacted as error:
        response = answer(status_body(410, str(error)), code=410)
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        response = answer(status_body(500, "internal error: see the control plane's log"), code=500)
    context_of(request).counters.requests.inc(_verb(request.method), str(response.status))
    return response


@web.middleware
async def authorize(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Find the principal and check its role. Raises 401, 403."""
    if request.path in OPEN_PATHS:
        return await handler(request)
    authenticator = context_of(request).authenticator
    principal = authenticator.identify(peer_certificate(request), request.headers.get("Authorization"))
    request[PRINCIPAL] = principal
    if principal.role is Role.WORKLOAD:
        raise ApiError(
            403, f"{principal.name} is a workload: its certificate is good for /ca/v1/certificates only"
        )
    resource = request.match_info.route.resource
    if resource is not None and resource.canonical not in FOR_EVERY_ROLE:
        verb = Verb.READ if request.method in _READING else Verb.WRITE
        principal.require(verb, request.match_info.get("namespace"))
    return await handler(request)


def peer_certificate(request: web.Request) -> bytes | None:
    """The DER of the certificate that TLS verified, or ``None``."""
    tls = request.transport.get_extra_info("ssl_object") if request.transport else None
    if not isinstance(tls, ssl.SSLObject | ssl.SSLSocket):
        return None
    return tls.getpeercert(binary_form=True)


def _verb(method: str) -> str:
    return method if method in ("GET", "POST", "PUT", "PATCH", "DELETE") else "other"


def _plain(request: web.Request, error: web.HTTPException) -> web.Response:
    """The router's own refusals, in our form."""
    messages = {
        404: f"there is nothing at {request.path}",
        405: f"{request.method} is not possible at {request.path}",
    }
    response = answer(status_body(error.status, messages.get(error.status, error.reason)), code=error.status)
    if "Allow" in error.headers:
        response.headers["Allow"] = error.headers["Allow"]
    return response
