"""TLS settings in Envoy's JSON, and Tulle's data path on a thread of its own beside a test that blocks."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from certs.bundle import split_pem
from proxy.accept.worker import Worker
from proxy.bootstrap import parse
from proxy.runtime.compile import CompileEnv
from proxy.runtime.hub import Hub
from proxy.tls.store import SecretStore
from proxy.xds import secret_file

Json = dict[str, Any]
HOST = "127.0.0.1"
WAIT = 20.0
"""Seconds after which something is given up; never how long it takes."""
TYPE = "type.googleapis.com/envoy.extensions."


def inline(pem: bytes | str) -> Json:
    return {"inline_string": pem if isinstance(pem, str) else pem.decode()}


def pair(pem: bytes) -> Json:
    at = pem.index(b"-----BEGIN CERT")
    return {"private_key": inline(pem[:at]), "certificate_chain": inline(pem[at:])}


def san(kind: str, value: str, match: str = "exact") -> Json:
    matcher = {"safe_regex": {"regex": value}} if match == "safe_regex" else {match: value}
    return {"match_typed_subject_alt_names": [{"san_type": kind, "matcher": matcher}]}


def der(pem: bytes) -> bytes:
    return split_pem(pem.decode())[0]


def socket_of(kind: str, common: Json, **options: Any) -> Json:
    config = {"@type": f"{TYPE}transport_sockets.tls.v3.{kind}", "common_tls_context": common, **options}
    return {"name": "envoy.transport_sockets.tls", "typed_config": config}


def listener(name: str, tls: Json, routes: list[Json]) -> Json:
    hcm = {
        "@type": f"{TYPE}filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{TYPE}filters.http.router.v3.Router"}}
        ],
    }
    chain: Json = {"filters": [{"name": "http", "typed_config": hcm}]}
    if tls:
        chain["transport_socket"] = tls
    return {
        "name": name,
        "stat_prefix": name,
        "address": {"socket_address": {"address": HOST, "port_value": 0}},
        "filter_chains": [chain],
    }


class Tulle:
    """The same bootstrap in Tulle's data path, on a loop in a thread of its own."""

    def __init__(self, document: Json) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(document), self.loop).result(WAIT)

    async def _start(self, document: Json) -> None:
        env = CompileEnv()
        self.hub = Hub(env)
        store = SecretStore(secret_file.parse)
        self.hub.join(store.prepare)
        self.hub.apply(parse(document).config)
        self.worker = Worker(self.hub, store, env.log_files)
        await self.worker.start()
        self.ports = {name: bound[0][1] for name, bound in self.worker.addresses().items()}

    def stats(self, name: str, wanted: tuple[str, ...]) -> dict[str, int]:
        """``ssl.*`` of a listener or cluster, asked in the loop: what it was about to count is counted by then."""

        async def ask() -> dict[str, int]:
            await asyncio.sleep(0)
            runtime = self.hub.current
            stats: Any = (
                runtime.listeners[name].stats if name in runtime.listeners else runtime.clusters[name].stats
            )
            return {one: getattr(stats, f"ssl_{one}", 0) for one in wanted}

        return asyncio.run_coroutine_threadsafe(ask(), self.loop).result(WAIT)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self.worker.stop(), self.loop).result(WAIT)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(WAIT)
        self.loop.close()
