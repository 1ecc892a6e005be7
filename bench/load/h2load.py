"""h2load, which posts over HTTP/2 as fast as it can: for CPU per gRPC call, and for large bodies."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

HEADERS = (
    "content-type: application/grpc",
    "te: trailers",
    "user-agent: grpc-bench/1",
    "grpc-timeout: 10S",
    "authorization: Bearer eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.c2lnbmF0dXJl",
    "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
)
PATH = "/bench.Items/List"


@dataclass(frozen=True, slots=True)
class Done:
    """What a run of h2load did."""

    requests: int
    per_second: float


def missing() -> str | None:
    """What to install, if it is not there."""
    return None if shutil.which("h2load") else "h2load is not installed (apt-get install nghttp2-client)"


def run(port: int, body: Path, *, answer: int, streams: int, seconds: float = 0, requests: int = 0) -> Done:
    """Post ``body`` on one connection with so many streams at a time, for ``seconds`` or so many times.

    Raises ``RuntimeError`` if a call fails, or if one has no message of ``answer`` bytes.
    """
    amount = [f"-n{requests}"] if requests else [f"-D{max(1, round(seconds))}"]
    argv = ["h2load", "-c1", "-t1", f"-m{streams}", *amount, "-d", str(body)]
    for header in HEADERS:
        argv += ["-H", header]
    argv.append(f"http://127.0.0.1:{port}{PATH}")
    return parse(subprocess.run(argv, capture_output=True, text=True, check=True).stdout, answer)


def parse(text: str, answer: int) -> Done:
    """Read what h2load prints. Raises ``RuntimeError`` if a call failed.

    To h2load a gRPC call that failed is a success without a body: its status is 200.
    """
    rate = re.search(r"finished in .*, ([\d.]+) req/s", text)
    counts = re.search(r"(\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", text)
    codes = re.search(r"status codes: (\d+) 2xx, 0 3xx, 0 4xx, 0 5xx", text)
    data = re.search(r"\((\d+)\) data$", text, re.M)
    if rate is None or counts is None or codes is None or data is None:
        raise RuntimeError(f"failed calls:\n{text}")
    done, succeeded, *wrong = (int(count) for count in counts.groups())
    if not done or done != succeeded or any(wrong) or int(data[1]) < done * answer:
        raise RuntimeError(f"failed calls:\n{text}")
    return Done(done, float(rate[1]))
