"""``python -m bench``: Tulle's sidecar beside Envoy, HAProxy and nginx, the same work for all, in the same run.

Measures in interleaved rounds, prints the table, and writes what was measured to ``bench/results/``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import bulk, coldstart, grpc, handshakes, http1, latency, memory, pki, report, tcp
from bench.kinds import NAMES, kind
from bench.load import h2load, wrk
from bench.results import Metric, to_json
from bench.site import Placement, Rounds, Site
from proxy.http1.head import ACCELERATED

MEASUREMENTS = {
    "http1": http1.measure,
    "grpc": grpc.measure,
    "latency": latency.measure,
    "bulk": bulk.measure,
    "tcp": tcp.measure,
    "handshakes": handshakes.measure,
    "memory": memory.measure,
    "coldstart": coldstart.measure,
}
NEED_WRK = ("http1",)
NEED_H2LOAD = ("grpc",)
METRICS: tuple[Metric, ...] = (
    *http1.METRICS,
    *http1.METRICS_PURE,
    *grpc.METRICS,
    *latency.METRICS,
    *bulk.METRICS,
    *tcp.METRICS,
    *handshakes.METRICS,
    *memory.METRICS,
    *coldstart.METRICS,
)
"""In the order of the table."""


def machine() -> dict[str, Any]:
    """Facts about this machine, none of which names it."""
    found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "cpu": found[1].strip() if found else platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "kernel": ".".join(platform.release().split("-")[0].split(".")[:2]),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
    }


def describe(placement: Placement) -> str:
    """The placement in words."""
    if placement.load == placement.outbound:
        return "proxies and load share the CPUs"
    if placement.inbound == placement.outbound:
        return "both proxies on one CPU, load and application on the other"
    return "each proxy, the application and the load on CPUs of their own"


def choice(text: str, allowed: tuple[str, ...], what: str) -> list[str]:
    """A comma-separated option."""
    chosen = text.split(",")
    unknown = [name for name in chosen if name not in allowed]
    if unknown:
        raise SystemExit(f"bench: {', '.join(unknown)}: no such {what}; there are {', '.join(allowed)}")
    return chosen


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few, short rounds: to see that it works")
    parser.add_argument("--only", default=",".join(MEASUREMENTS), metavar="NAME,...")
    parser.add_argument("--kinds", default=",".join(NAMES), metavar="KIND,...")
    parser.add_argument("--rounds", type=int, help="of each measurement (5; 2 with --quick)")
    parser.add_argument("--unpinned", action="store_true", help="let the scheduler place proxies and load")
    parser.add_argument("--results", type=Path, default=report.RESULTS, help="where the JSON goes")
    options = parser.parse_args()
    chosen = choice(options.only, tuple(MEASUREMENTS), "measurement")
    kinds = choice(options.kinds, NAMES, "kind")
    rounds = options.rounds or (2 if options.quick else 5)
    if lacking := wrk.missing():
        print(f"without what needs wrk: {lacking}", file=sys.stderr)
        chosen = [name for name in chosen if name not in NEED_WRK]
    if lacking := h2load.missing():
        print(f"without what needs h2load: {lacking}", file=sys.stderr)
        chosen = [name for name in chosen if name not in NEED_H2LOAD]
    if lacking := kind("envoy").missing("inbound"):
        print(f"bench cannot run: {lacking}; it is the application behind the proxies too", file=sys.stderr)
        return 2
    found: dict[str, Rounds] = {}
    failed: list[str] = []
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tulle-bench-") as name:
        directory = Path(name)
        pki.write(directory)
        site = Site(directory, kinds, quick=options.quick, rounds=rounds, pinned=not options.unpinned)
        kinds = site.able("inbound")
        # Asked before this process is bound to fewer CPUs, and before the code can change.
        facts = {
            "machine": machine(),
            "versions": {kind_name: kind(kind_name).version() for kind_name in kinds},
        }
        os.sched_setaffinity(0, site.placement.load)
        for measurement in chosen:
            since = time.monotonic()
            print(f"{measurement} ...", end="", file=sys.stderr, flush=True)
            try:
                found.update(MEASUREMENTS[measurement](site))
            except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
                # The others are not lost with it; but the run is no full one.
                failed.append(measurement)
                print(f" failed: {error}", file=sys.stderr, flush=True)
                continue
            print(f" {time.monotonic() - since:.0f} s", file=sys.stderr, flush=True)
    full = not options.quick and not failed and set(chosen) == set(MEASUREMENTS) and set(kinds) == set(NAMES)
    metrics = {metric: found[metric.key] for metric in METRICS if metric.key in found}
    document = to_json(
        metrics,
        date=time.strftime("%Y-%m-%d", time.gmtime()),
        **facts,
        placement=describe(site.placement),
        rounds=rounds,
        compiled_scanner=ACCELERATED,
        notes=[note for kind_name in kinds for note in kind(kind_name).NOTES],
        generator_lag_ms=found.get("latency.lag", {}),
        seconds=round(time.monotonic() - began),
    )
    print(report.text(document))
    print(f"\nwritten to {write(document, options.results, full)}")
    return 1 if failed else 0


def write(document: dict[str, Any], directory: Path, full: bool) -> Path:
    """The file's name says whether it is a full run; of those only the newest is kept."""
    directory.mkdir(exist_ok=True)
    if full:
        for old in directory.glob("*-full.json"):
            old.unlink()
    path = directory / f"{document['date']}-{'full' if full else 'partial'}.json"
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    return path


if __name__ == "__main__":
    sys.exit(main())
