"""The parts that only a sidecar with a control plane has: identity, the xDS session, the configuration on disk.

They are joined here to the parts that every sidecar has (``proxy.app``), and loaded only by a sidecar that has them.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.app import Sidecar
from proxy.model.address import SocketAddress
from proxy.model.config import ConfigError
from proxy.tls.identity import CaClient, Identity, IdentityManager
from proxy.xds import node
from proxy.xds.cache import ConfigCache
from proxy.xds.session import DeltaSession

if TYPE_CHECKING:
    from proxy.xds.client import AdsClient

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Managed:
    """A sidecar whose control plane is at ``xds``, its CA at ``ca`` (``host:port``). ``token()`` gives a join token."""

    xds: SocketAddress
    ca: str
    node: node.NodeOptions
    state_dir: Path
    token: Callable[[], str | None]
    control_plane_account: str = "ns/tulle-system/sa/control-plane"


async def run_managed(sidecar: Sidecar, managed: Managed) -> None:
    """Serve what the control plane says until told to stop. Raises ``IdentityError``, ``OSError``."""
    identities = IdentityManager(
        managed.state_dir,
        CaClient(managed.ca, sidecar.common.mark),
        token=managed.token,
        namespace=managed.node.namespace,
        service_account=managed.node.service_account,
    )

    def new_identity(identity: Identity) -> None:
        pem = identity.key_pem + identity.chain_pem.encode("ascii")
        sidecar.new_identity(pem, "".join(_pem(der) for der in identity.bundle.roots))

    identities.subscribe(new_identity)
    sidecar.admin.identities = identities
    session = DeltaSession(
        node.build(managed.node), sidecar.hub.apply, check=sidecar.hub.check, clock=sidecar.loop.time
    )
    sidecar.admin.session = session
    cache = ConfigCache(managed.state_dir)
    sidecar.on_settled = lambda: _save(cache, session)

    async def start(stack: AsyncExitStack) -> AdsClient:
        identity = await identities.start()
        stack.push_async_callback(identities.close)
        new_identity(identity)
        await sidecar.serve_data(stack)
        # gRPC and HTTP/2 for Python: with a configuration from disk there are requests to serve before this.
        from proxy.xds.client import AdsClient

        ads = AdsClient(
            session,
            managed.xds,
            lambda: client_context(identities.current),
            server_id=f"spiffe://{identity.spiffe_id.trust_domain}/{managed.control_plane_account}",
            mark=sidecar.common.mark,
        )
        ads.start()
        stack.push_async_callback(ads.stop)
        sidecar.admin.ads = ads
        sidecar.serves = lambda: session.complete() and sidecar.warmed()
        return ads

    async with AsyncExitStack() as stack:
        sidecar.handle_signals()
        _restore(cache, session)
        started = asyncio.create_task(start(stack))
        await sidecar.serve_admin(stack)
        stopping = asyncio.create_task(sidecar.stopping.wait())
        await asyncio.wait((started, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not started.done():
            started.cancel()
            await asyncio.gather(started, return_exceptions=True)
            return
        ads = started.result()
        await stopping
        sidecar.draining = True
        await ads.stop()
        await sidecar.drain()


def client_context(identity: Identity) -> ssl.SSLContext:
    """TLS towards the control plane: our SVID, the mesh's roots, HTTP/2. Its name is checked as a SPIFFE ID."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_verify_locations(cadata="".join(_pem(der) for der in identity.bundle.roots))
    context.load_cert_chain(identity.path)
    context.set_alpn_protocols(["h2"])
    return context


def _restore(cache: ConfigCache, session: DeltaSession) -> None:
    resources = cache.load()
    if resources is None:
        return
    try:
        session.restore(resources)
    except ConfigError as error:
        cache.set_aside(str(error))
        return
    log.info("configuration restored from %s: %d resources", cache.path, len(resources))


def _save(cache: ConfigCache, session: DeltaSession) -> None:
    # An incomplete set would leave out what a restart needs; the one before is better.
    if not session.complete():
        return
    try:
        cache.save(session.saved())
    except OSError as error:
        log.warning("the configuration could not be kept in %s: %s", cache.path, error)


def _pem(der: bytes) -> str:
    return ssl.DER_cert_to_PEM_cert(der)
