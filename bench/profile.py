"""``python -m bench.profile``: where a sidecar's CPU time goes under load, by Python function, library and kernel.

The sidecar is a real process under a real load; it samples itself with a timer of its own CPU time (``ITIMER_PROF``),
which needs no rights and no other program. What a function's C code takes (a write, a regular expression, TLS) counts
for that function (an operator's time, such as joining bytes, for what is called next); what passes between two
callbacks (polling, reading, accepting) is "loop". The kernel's timer ticks bound the rate: some hundred samples a
CPU second. Where ``perf`` is installed and allowed, the same run is split by
library as well.
"""

from __future__ import annotations

import argparse
import atexit
import collections
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType

from bench import messages, pki
from bench.http1 import CONNECTIONS
from bench.kinds import Duty, Role, kind
from bench.load import bulk, tls, wrk
from bench.processes import Process, free_ports
from bench.site import Site

WORKS = ("http1", "bulk-down", "bulk-up", "tcp-down", "tcp-up", "handshakes")
_LOOP = "loop: poll, read, accept"
Counts = collections.Counter[str]


def sample_here(path: Path, arguments: list[str]) -> None:
    """Be the sidecar: run ``tulle`` with ``arguments``, sample from SIGUSR2 on, write the samples at exit."""
    alone: Counts = collections.Counter()
    inclusive: Counts = collections.Counter()
    lines: Counts = collections.Counter()
    own = os.getpid()

    def tick(number: int, frame: FrameType | None) -> None:
        if frame is None:
            return
        names = stack(frame)
        alone[names[0]] += 1
        inclusive.update(set(names))
        if names[0] != _LOOP:
            lines[f"{names[0]}:{frame.f_lineno}"] += 1

    def begin(number: int, frame: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)

    def end() -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        if os.getpid() == own:
            path.write_text(json.dumps([alone, inclusive, lines]))

    signal.signal(signal.SIGPROF, tick)
    signal.signal(signal.SIGUSR2, begin)
    atexit.register(end)
    from control_plane.cli.main import main as tulle

    sys.argv = ["tulle", *arguments]
    tulle()


def stack(frame: FrameType) -> list[str]:
    """The functions of ``frame``, innermost first, up to the loop's callback.

    A signal that came while no Python code ran is seen at the first instruction of the next callback.
    """
    names = []
    at: FrameType | None = frame
    while at is not None and not _is_loop(at):
        names.append(_name(at.f_code))
        at = at.f_back
    if not names or (len(names) == 1 and frame.f_lineno == frame.f_code.co_firstlineno):
        return [_LOOP]
    return names


@functools.cache
def _name(code: CodeType) -> str:
    return f"{Path(code.co_filename).stem}.{code.co_qualname}"


def _is_loop(frame: FrameType) -> bool:
    """Whether this frame is outside the loop's callbacks."""
    return frame.f_code.co_name in ("run", "run_until_complete", "wrapper", "_static", "<module>")


def load(work: str, port: int, seconds: float, directory: Path) -> None:
    """One piece of load."""
    if work == "http1":
        wrk.run(port, CONNECTIONS, seconds)
    elif work == "handshakes":
        tls.Caller(port, directory).handshakes(seconds, resume=False)
    else:
        bulk.transfer(port, work.partition("-")[2], int(seconds * 400e6))


def run(work: str, side: Role, seconds: float, directory: Path) -> tuple[list[Counts], str]:
    """The sidecar's counts (alone, inclusive, lines), and what ``perf`` says, "" without it."""
    pki.write(directory)
    site = Site(directory, ["tulle"], quick=False, rounds=1)
    os.sched_setaffinity(0, site.placement.load)
    with site.scope():
        small = work in ("http1", "handshakes")
        backend = site.backend(messages.BODY) if small else site.helper("bulk_server")[0]
        port, admin = free_ports(2)
        samples = directory / "samples.json"

        def start(role: Role, upstream: int) -> Process:
            duty = Duty(role, port, upstream, admin, directory / "access.log")
            argv = kind("tulle").command(duty, directory)
            argv = [sys.executable, "-m", "bench.profile", "--child", str(samples), *argv[1:]]
            made = Process(argv, site.placement.outbound, directory / "sampled.out")
            site.stack.callback(made.stop)
            made.wait_listening(port)
            return made

        entry = port
        if work == "handshakes":
            process = start("inbound", backend)
        elif side == "inbound":
            process = start("inbound", backend)
            before, entry = site.proxy("tulle", "outbound", port)
            before.wait_listening(entry)
        elif side == "outbound":
            behind, upstream = site.proxy("tulle", "inbound", backend)
            behind.wait_listening(upstream)
            process = start("outbound", upstream)
        else:
            process = start("relay", backend)
        load(work, entry, 1, directory)
        spent = process.cpu()
        os.kill(process.pid, signal.SIGUSR2)
        load(work, entry, seconds, directory)
        spent = process.cpu() - spent
        print(f"{work}, {side}: {spent:.1f} s of CPU")
        libraries = by_library(process.pid, lambda: load(work, entry, seconds, directory))
        process.stop()
        counts = [collections.Counter(part) for part in json.loads(samples.read_text())]
    return counts, libraries


def by_library(pid: int, work: Callable[[], None]) -> str:
    """What ``perf`` says of a process during ``work``; "" if it is not there or not allowed."""
    if shutil.which("perf") is None:
        return ""
    with tempfile.TemporaryDirectory(prefix="tulle-perf-") as name:
        data = f"{name}/data"
        argv = ["perf", "record", "-q", "-e", "cpu-clock", "-F", "997", "-o", data, "-p", str(pid)]
        recording = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        work()
        recording.send_signal(signal.SIGINT)
        recording.wait()
        if not Path(data).exists():
            return ""
        parts = []
        for title, sort in (("library", "dso"), ("symbol", "dso,symbol")):
            argv = ["perf", "report", "-i", data, "--stdio", "--sort", sort, "--percent-limit", "0.8"]
            told = subprocess.run(argv, capture_output=True, text=True, check=False).stdout
            lines = [line for line in told.splitlines() if line.strip() and not line.startswith("#")]
            parts.append("\n".join([f"by {title}", *lines[:30]]))
        return "\n\n".join(parts)


def table(title: str, counts: Counts, total: int, rows: int) -> str:
    """The most frequent ones and their share."""
    lines = [f"{100 * count / total:6.1f} %  {name}" for name, count in counts.most_common(rows)]
    return "\n".join([title, *lines])


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        sample_here(Path(sys.argv[2]), sys.argv[3:])
        return 0
    parser = argparse.ArgumentParser(prog="bench.profile", description=__doc__.partition("\n")[0])
    parser.add_argument("--work", choices=WORKS, default="http1")
    parser.add_argument("--side", choices=("outbound", "inbound"), default="outbound")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rows", type=int, default=30)
    options = parser.parse_args()
    side: Role = "relay" if options.work.startswith("tcp") else options.side
    if options.work == "handshakes":
        side = "inbound"
    with tempfile.TemporaryDirectory(prefix="tulle-profile-") as name:
        (alone, inclusive, lines), libraries = run(options.work, side, options.seconds, Path(name))
    total = alone.total()
    print(f"\n{total} samples")
    print(table("\nfunctions alone, with the C code that they call", alone, total, options.rows))
    print(table("\nfunctions with the functions that they call", inclusive, total, options.rows))
    print(table("\nlines", lines, total, options.rows))
    print(f"\n{libraries}" if libraries else "\nwithout libraries: perf is not installed or not allowed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
