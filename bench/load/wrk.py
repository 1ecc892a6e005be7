"""wrk, which loads as fast as it can: for CPU per request and for throughput."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass

from bench import messages


@dataclass(frozen=True, slots=True)
class Done:
    """What a run of wrk did."""

    requests: int
    per_second: float


def missing() -> str | None:
    """What to install, if it is not there."""
    return None if shutil.which("wrk") else "wrk is not installed (apt-get install wrk)"


def run(port: int, connections: int, seconds: float) -> Done:
    """Load a port with small requests. Raises ``RuntimeError`` if one of them fails."""
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s"]
    for name, value in messages.HEADERS.items():
        argv += ["-H", f"{name}: {value}"]
    argv.append(f"http://127.0.0.1:{port}{messages.PATH}")
    return parse(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)


def parse(text: str) -> Done:
    """Read what wrk prints. Raises ``RuntimeError`` if a request failed."""
    requests = re.search(r"(\d+) requests in", text)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    if requests is None or rate is None or "Non-2xx" in text or "Socket errors" in text:
        raise RuntimeError(f"failed requests:\n{text}")
    return Done(int(requests[1]), float(rate[1]))
