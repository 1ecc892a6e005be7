"""The pair of sidecars that is put under load, and what they hold.

app <- inbound sidecar <-(mutual TLS)- outbound sidecar <- clients.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import configs, pki
from bench.processes import Process, cpu_of, free_ports, memory_of

CENSUS = (
    "total_connections", "open_descriptors", "tasks", "timers", "exchanges", "upstream_connections",
    "upstream_waiting",
)  # fmt: skip
"""What must be back at the start. Memory is compared apart, since allocators keep some."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a sidecar holds at one moment. ``resident`` in bytes; ``objects`` of its own classes."""

    counts: dict[str, int]
    objects: dict[str, int]
    resident: int
    blocks: int


class Sidecar:
    """One of the two processes."""

    def __init__(self, name: str, config: configs.Json, directory: Path, port: int, admin: int) -> None:
        self.name = name
        self._admin = admin
        file = directory / f"{name}.json"
        file.write_text(json.dumps(config))
        argv = [sys.executable, "-m", "control_plane.cli.main", "proxy", "-c", str(file)]
        self.process = Process(argv, frozenset(os.sched_getaffinity(0)), directory / f"{name}.out")
        self.process.wait_listening(port, 60.0)

    def resident(self) -> int:
        """Bytes of it in memory. Its children end by themselves, at some time or other: they are left out."""
        return memory_of(Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()).rss

    def cpu(self) -> float:
        """Seconds of CPU so far, without its children."""
        return cpu_of(self.process.pid)

    def page(self, path: str) -> str:
        """A page of its admin endpoint."""
        connection = http.client.HTTPConnection("127.0.0.1", self._admin, timeout=60)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            text = answer.read().decode()
            if answer.status != 200:
                raise RuntimeError(
                    f"{self.name} answers {path} with {answer.status}: {text}\n{self.process.printed()}"
                )
            return text
        finally:
            connection.close()

    def held(self) -> Held:
        """What it holds now."""
        found: dict[str, Any] = json.loads(self.page("/internals"))
        counts = {name: found[name] for name in CENSUS}
        return Held(counts, found["objects"], found["memory_physical_size"], found["allocated_blocks"])

    def stats(self) -> dict[str, int]:
        """Its counters and gauges."""
        lines = (line.partition(": ") for line in self.page("/stats").splitlines())
        return {name: int(value) for name, _, value in lines if value.isdigit()}


class Sidecars:
    """The pair. ``port``: where clients connect."""

    def __init__(self, directory: Path, app_port: int, stream_idle: float = 10.0) -> None:
        """``stream_idle``: seconds after which a stream on which nothing moves is given up."""
        pki.write(directory)
        self.port, inside, admin_out, admin_in = free_ports(4)
        logs = [directory / f"{side}.log" for side in ("outbound", "inbound")]
        self.inbound = Sidecar(
            "inbound",
            _for_endurance(configs.inbound(directory, logs[1], inside, app_port, admin_in), stream_idle),
            directory,
            inside,
            admin_in,
        )
        self.outbound = Sidecar(
            "outbound",
            _for_endurance(configs.outbound(directory, logs[0], self.port, inside, admin_out), stream_idle),
            directory,
            self.port,
            admin_out,
        )
        self.both = (self.outbound, self.inbound)

    async def quiet(self, wanted: list[Held] | None = None, within: float = 60.0) -> list[Held]:
        """Wait until both hold nothing that traffic needs (or what is ``wanted``) and return what they hold.

        After ``within`` seconds it is returned as it is.
        """
        deadline = asyncio.get_running_loop().time() + within
        while True:
            found = [await asyncio.to_thread(sidecar.held) for sidecar in self.both]
            idle = not any(
                held.counts[name]
                for held in found
                for name in ("total_connections", "exchanges", "upstream_connections", "upstream_waiting")
            )
            same = wanted is None or [held.counts for held in found] == [held.counts for held in wanted]
            if (idle and same) or asyncio.get_running_loop().time() > deadline:
                return found
            await asyncio.sleep(0.3)

    def stop(self) -> None:
        """End both."""
        for sidecar in self.both:
            sidecar.process.stop()


def _for_endurance(config: configs.Json, stream_idle: float) -> configs.Json:
    """Short timeouts, so that what is left behind is seen to go; no limit on how long a transfer may take."""
    for listener in config["static_resources"]["listeners"]:
        manager = listener["filter_chains"][0]["filters"][-1]["typed_config"]
        manager["common_http_protocol_options"] = {"idle_timeout": "2s"}
        manager["request_headers_timeout"] = "2s"
        manager["stream_idle_timeout"] = f"{stream_idle:g}s"
        manager["upgrade_configs"] = [{"upgrade_type": "websocket"}]
        for host in manager["route_config"]["virtual_hosts"]:
            for route in host["routes"]:
                route["route"]["timeout"] = "0s"
    for cluster in config["static_resources"]["clusters"]:
        cluster["typed_extension_protocol_options"] = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "common_http_protocol_options": {"idle_timeout": "1s"},
                "explicit_http_config": {"http_protocol_options": {}},
            }
        }
    return config
