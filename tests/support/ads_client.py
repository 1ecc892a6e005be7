"""An ADS client for tests, over grpc.aio: it sends what it is told and shows what it gets, and no more."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Mapping
from typing import Any

import grpc
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import json_format

_SERVICE = "/envoy.service.discovery.v3.AggregatedDiscoveryService/"
TIMEOUT = 10.0


def node(
    name: str = "web-1",
    namespace: str = "default",
    service_account: str = "web",
    ip: str = "10.1.0.5",
    *,
    agent: str = "tulle",
    **metadata: Any,
) -> base_pb2.Node:
    """A node as ``tulle proxy`` sends it; further metadata by keyword."""
    message = base_pb2.Node(
        id=f"sidecar~{ip}~{name}.{namespace}~{namespace}.svc.mesh.local",
        cluster=f"{service_account}.{namespace}",
        user_agent_name=agent,
    )
    values = {
        "NAME": name,
        "NAMESPACE": namespace,
        "SERVICE_ACCOUNT": service_account,
        "INSTANCE_IPS": ip,
        "LABELS": {"app": service_account},
    }
    json_format.ParseDict({**values, **metadata}, message.metadata)
    return message


class AdsStream:
    """One stream of either variant. Use as an async context manager, which ends it cleanly."""

    def __init__(self, channel: grpc.aio.Channel, *, delta: bool, node: base_pb2.Node | None) -> None:
        self.delta = delta
        self._node = node
        method = "DeltaAggregatedResources" if delta else "StreamAggregatedResources"
        self.call = channel.stream_stream(_SERVICE + method)()

    async def __aenter__(self) -> AdsStream:
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self.call.done():
            await self.call.done_writing()
            async with asyncio.timeout(TIMEOUT):
                while await self.call.read() is not grpc.aio.EOF:
                    pass

    async def ask(
        self,
        type_url: str,
        names: Iterable[str] = (),
        *,
        unsubscribe: Iterable[str] = (),
        nonce: str = "",
        error: str = "",
        initial: Mapping[str, str] | None = None,
    ) -> None:
        if self.delta:
            message: Any = discovery_pb2.DeltaDiscoveryRequest(
                type_url=type_url,
                resource_names_subscribe=names,
                resource_names_unsubscribe=unsubscribe,
                response_nonce=nonce,
                initial_resource_versions=initial or {},
            )
        else:
            message = discovery_pb2.DiscoveryRequest(
                type_url=type_url, resource_names=names, response_nonce=nonce
            )
        if error:
            message.error_detail.code = 3
            message.error_detail.message = error
        if self._node is not None:
            message.node.CopyFrom(self._node)
            self._node = None
        await self.call.write(message.SerializeToString())

    async def response(self) -> Any:
        """The next response. Raises ``TimeoutError``, and ``grpc.aio.AioRpcError`` if the server ended it badly."""
        async with asyncio.timeout(TIMEOUT):
            raw = await self.call.read()
        if raw is grpc.aio.EOF:
            raise EOFError("the server ended the stream")
        kind = discovery_pb2.DeltaDiscoveryResponse if self.delta else discovery_pb2.DiscoveryResponse
        return kind.FromString(raw)

    async def ack(self, response: Any, names: Iterable[str] = ()) -> None:
        await self.ask(response.type_url, () if self.delta else names, nonce=response.nonce)

    async def nack(self, response: Any, error: str, names: Iterable[str] = ()) -> None:
        await self.ask(response.type_url, () if self.delta else names, nonce=response.nonce, error=error)

    async def status(self) -> tuple[grpc.StatusCode, str]:
        """How the server ended the stream; waits for it, and drops responses that come before."""
        async with asyncio.timeout(TIMEOUT):
            with contextlib.suppress(grpc.aio.AioRpcError):
                while await self.call.read() is not grpc.aio.EOF:
                    pass
            return await self.call.code(), await self.call.details()


def names_of(response: Any) -> list[str]:
    """The resource names in a delta response."""
    return [one.name for one in response.resources]
