"""Tulle's sidecar, from a static bootstrap in Envoy's format."""

from __future__ import annotations

import json
import platform
import ssl
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from bench import configs
from bench.kinds import Duty, Role

NOTES = ()
LOGS_TO_STDOUT = False


def missing(role: Role) -> str | None:
    return None


def version() -> str:
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return (
        f"{metadata.version('tulle')} ({commit or 'no commit'}), Python {platform.python_version()}, "
        f"uvloop {metadata.version('uvloop')}, {' '.join(ssl.OPENSSL_VERSION.split()[:2])}"
    )


def command(duty: Duty, directory: Path) -> list[str]:
    path = write_bootstrap(duty, directory, "tulle")
    argv = [str(Path(sys.executable).parent / "tulle"), "proxy", "-c", str(path)]
    if duty.workers > 1:
        argv += ["--workers", str(duty.workers)]
    return ["env", "TULLE_PURE_PYTHON=1", *argv] if duty.pure else argv


def write_bootstrap(duty: Duty, directory: Path, name: str) -> Path:
    """The bootstrap for ``duty``, the same for Tulle and Envoy."""
    if duty.role == "outbound":
        config = configs.outbound(
            directory, duty.log, duty.port, duty.upstream, duty.admin, pooled=duty.pooled, http2=duty.http2
        )
    elif duty.role == "inbound":
        config = configs.inbound(directory, duty.log, duty.port, duty.upstream, duty.admin, http2=duty.http2)
    else:
        config = configs.relay(duty.log, duty.port, duty.upstream, duty.admin)
    path = directory / f"{name}-{duty.port}.json"
    path.write_text(json.dumps(config))
    return path
