"""Tools that tests build or install for themselves, pinned, in a cache outside the tree.

What is missing skips the tests that need it, with the reason; under TULLE_REQUIRE_TOOLS, which CI sets, it fails them.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tulle-tests"
H2SPEC = "github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible"
GRPC_JS = "@grpc/grpc-js@1.14.7"
INSTALL = 600.0
"""Seconds that an installation may take."""


def lacking(reason: str) -> None:
    """Skip, or fail where nothing may be missing."""
    if "TULLE_REQUIRE_TOOLS" in os.environ:
        pytest.fail(reason)
    pytest.skip(reason)


def program(name: str, *places: str) -> str:
    """The path of a program of the system."""
    found = shutil.which(name) or next((place for place in places if Path(place).exists()), None)
    if found is None:
        lacking(f"{name} is not installed")
    assert found is not None
    return found


def h2spec() -> Path:
    """h2spec, from its Go module."""
    place = CACHE / H2SPEC.rpartition("@")[2]
    built = place / "h2spec"
    with _once(place, built) as missing:
        if missing:
            go = program("go", "/usr/local/go/bin/go")
            there = os.environ | {"GOBIN": str(place), "GOPATH": str(CACHE / "go"), "GOFLAGS": "-modcacherw"}
            _run([go, "install", H2SPEC], there, place)
    return built


def grpc_js() -> Path:
    """A directory with ``node_modules`` that has ``@grpc/grpc-js``."""
    place = CACHE / GRPC_JS.strip("@").replace("/", "-")
    with _once(place, place / "node_modules" / "@grpc" / "grpc-js" / "package.json") as missing:
        if missing:
            program("node")
            npm = program("npm")
            arguments = ["--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(place)]
            _run([npm, "install", *arguments, GRPC_JS], os.environ, place)
    return place


@contextmanager
def _once(place: Path, wanted: Path) -> Iterator[bool]:
    """Whether ``wanted`` is missing; no two processes make it at a time."""
    place.mkdir(parents=True, exist_ok=True)
    with (place / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield not wanted.exists()
        assert wanted.exists(), f"{wanted} was not made"


def _run(command: list[str], environment: Mapping[str, str], place: Path) -> None:
    done = subprocess.run(
        command, env=environment, cwd=place, capture_output=True, text=True, timeout=INSTALL
    )
    if done.returncode:
        lacking(f"{' '.join(command)}: {done.stderr[-1000:]}")
