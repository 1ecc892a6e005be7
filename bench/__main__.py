"""``python -m bench``: a pair of sidecars of each kind, loaded in turn by wrk; medians and ratios to Envoy.

wrk -> outbound sidecar -(mutual TLS)-> inbound sidecar -> backend. CPU is read from ``/proc`` for each sidecar alone.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench import configs, pki
from bench.processes import Proxy, free_ports

KINDS = ("tulle", "envoy")


class Pair:
    """An outbound and an inbound sidecar of one kind."""

    def __init__(self, kind: str, directory: Path, backend_port: int) -> None:
        self.kind = kind
        self.port, inbound_port, admin_out, admin_in = free_ports(4)
        logs = [directory / f"{kind}-{side}.access.log" for side in ("outbound", "inbound")]
        inbound = configs.inbound(directory, logs[1], inbound_port, backend_port, admin_in)
        outbound = configs.outbound(directory, logs[0], self.port, inbound_port, admin_out)
        self.inbound = Proxy(kind, inbound, directory, "inbound")
        self.inbound.wait_listening(inbound_port)
        self.outbound = Proxy(kind, outbound, directory, "outbound")
        self.startup = self.outbound.wait_listening(self.port)
        self.idle = [side.memory() for side in (self.outbound, self.inbound)]

    def load(self, connections: int, seconds: int) -> dict[str, float]:
        """One round of wrk; CPU µs per request of each side, throughput and latency (ms)."""
        before = (self.outbound.cpu(), self.inbound.cpu())
        done = subprocess.run(
            [
                *("wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"),
                f"http://127.0.0.1:{self.port}/",
            ],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        after = (self.outbound.cpu(), self.inbound.cpu())
        requests = int(re.findall(r"(\d+) requests in", done)[0])
        if "Non-2xx" in done or "Socket errors" in done:
            raise RuntimeError(f"{self.kind}: failed requests:\n{done}")
        return {
            "outbound_us": (after[0] - before[0]) / requests * 1e6,
            "inbound_us": (after[1] - before[1]) / requests * 1e6,
            "rps": float(re.findall(r"Requests/sec:\s+([\d.]+)", done)[0]),
            "p50_ms": milliseconds(re.findall(r"50%\s+(\S+)", done)[0]),
            "p99_ms": milliseconds(re.findall(r"99%\s+(\S+)", done)[0]),
        }

    def stop(self) -> None:
        """End both."""
        self.outbound.stop()
        self.inbound.stop()


def milliseconds(text: str) -> float:
    """wrk's ``1.23ms``, ``456.00us`` or ``1.00s`` in milliseconds."""
    value, unit = re.fullmatch(r"([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]
    return float(value) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[unit]


def first_200(kind: str, directory: Path, backend_port: int) -> float:
    """Seconds from exec of an outbound sidecar to its first 200 through a running pair's inbound."""
    port, inbound_port, admin_out, admin_in = free_ports(4)
    log = directory / "startup.access.log"
    inbound = Proxy(
        kind, configs.inbound(directory, log, inbound_port, backend_port, admin_in), directory, "startup-in"
    )
    try:
        inbound.wait_listening(inbound_port)
        outbound = Proxy(
            kind, configs.outbound(directory, log, port, inbound_port, admin_out), directory, "startup-out"
        )
        try:
            outbound.wait_listening(port)
            subprocess.run(
                [
                    *(sys.executable, "-S", "-c"),
                    "import http.client,sys;c=http.client.HTTPConnection('127.0.0.1',int(sys.argv[1]));"
                    "c.request('GET','/');sys.exit(c.getresponse().status!=200)",
                    str(port),
                ],
                check=True,
            )
            return time.monotonic() - outbound.started
        finally:
            outbound.stop()
    finally:
        inbound.stop()


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--body", type=int, default=1024, help="bytes of the backend's answer")
    parser.add_argument("--kinds", default=",".join(KINDS))
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        print("bench needs wrk (Debian and Ubuntu: apt-get install wrk)", file=sys.stderr)
        return 2
    kinds = options.kinds.split(",")
    with tempfile.TemporaryDirectory(prefix="tulle-bench-") as name:
        directory = Path(name)
        pki.write(directory)
        backend_port, backend_admin = free_ports(2)
        backend = Proxy(
            "envoy", configs.backend(backend_port, backend_admin, options.body), directory, "backend"
        )
        backend.wait_listening(backend_port)
        pairs: list[Pair] = []
        try:
            starts = {kind: [first_200(kind, directory, backend_port) for _ in range(3)] for kind in kinds}
            pairs = [Pair(kind, directory, backend_port) for kind in kinds]
            for pair in pairs:
                pair.load(options.connections, 1)
            rounds: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
            for _ in range(options.rounds):
                for pair in pairs:
                    rounds[pair.kind].append(pair.load(options.connections, options.seconds))
            rows = summarise(pairs, rounds, starts)
        finally:
            for pair in pairs:
                pair.stop()
            backend.stop()
    show(rows, kinds)
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    path = results / time.strftime("%Y%m%d-%H%M%S.json")
    path.write_text(json.dumps({"options": vars(options), "rows": rows, "rounds": rounds}, indent=2))
    print(f"\nwritten to {path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path}")
    return 0


def summarise(
    pairs: list[Pair], rounds: dict[str, list[dict[str, float]]], starts: dict[str, list[float]]
) -> dict[str, dict[str, float]]:
    """Metric -> kind -> median."""
    rows: dict[str, dict[str, float]] = {}

    def median(metric: str, of: Callable[[str], list[float]]) -> None:
        rows[metric] = {pair.kind: statistics.median(of(pair.kind)) for pair in pairs}

    median("outbound CPU, µs/request", lambda kind: [r["outbound_us"] for r in rounds[kind]])
    median("inbound CPU, µs/request", lambda kind: [r["inbound_us"] for r in rounds[kind]])
    median("requests/s through the pair", lambda kind: [r["rps"] for r in rounds[kind]])
    median("p50, ms", lambda kind: [r["p50_ms"] for r in rounds[kind]])
    median("p99, ms", lambda kind: [r["p99_ms"] for r in rounds[kind]])
    rows["RSS idle, MB (outbound)"] = {pair.kind: pair.idle[0][0] for pair in pairs}
    rows["private idle, MB (outbound)"] = {pair.kind: pair.idle[0][1] for pair in pairs}
    rows["RSS after load, MB (outbound)"] = {pair.kind: pair.outbound.memory()[0] for pair in pairs}
    median("exec to first 200, ms", lambda kind: [s * 1000 for s in starts[kind]])
    return rows


def show(rows: dict[str, dict[str, float]], kinds: list[str]) -> None:
    """A table with the ratio to Envoy."""
    print(f"{'':34}" + "".join(f"{kind:>12}" for kind in kinds) + f"{'ratio':>10}")
    for metric, values in rows.items():
        line = f"{metric:34}" + "".join(f"{values[kind]:12.1f}" for kind in kinds)
        if "tulle" in values and values.get("envoy"):
            line += f"{values['tulle'] / values['envoy']:10.2f}"
        print(line)


if __name__ == "__main__":
    sys.exit(main())
