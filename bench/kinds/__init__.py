"""The proxies that are measured, one module each: how to start it for a duty, its version, what it cannot do.

``KINDS`` is in the order of the tables. What a kind lacks of the common work is in its ``NOTES``; the tables quote it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Final, Literal, Protocol, cast

Role = Literal["outbound", "inbound", "relay"]
"""Plain HTTP in and mutual TLS out; mutual TLS in and plain HTTP out; TCP both sides."""

NAMES: Final = ("tulle", "envoy", "haproxy", "nginx")


@dataclass(frozen=True, slots=True)
class Duty:
    """What one process has to do: listen on ``port`` and forward to ``upstream``, both on loopback.

    ``pooled``: upstream connections are kept for further requests. ``workers``: processes or threads that serve.
    ``pure`` (Tulle): without compiled modules. ``http2`` (Tulle and Envoy): on all connections.
    """

    role: Role
    port: int
    upstream: int
    admin: int
    log: Path
    pooled: bool = True
    workers: int = 1
    pure: bool = False
    http2: bool = False


class Kind(Protocol):
    """A module of this package."""

    NOTES: tuple[str, ...]

    def missing(self, role: Role) -> str | None:
        """What has to be installed for it, ``None`` if nothing."""

    def version(self) -> str:
        """Its version and that of its TLS library."""

    def command(self, duty: Duty, directory: Path) -> list[str]:
        """Write its configuration to ``directory``, where the certificates are; the command that runs it.

        It stays in the foreground; what it prints goes to ``duty.log`` if ``LOGS_TO_STDOUT``.
        """

    LOGS_TO_STDOUT: bool


def kind(name: str) -> Kind:
    """The module of ``name``."""
    return cast(Kind, import_module(f"bench.kinds.{name}"))


def absent(program: str, package: str) -> str | None:
    """What to install if ``program`` is not there."""
    return None if shutil.which(program) else f"{program} is not installed (apt-get install {package})"


def first_match(pattern: str, argv: list[str]) -> str:
    """The first group of ``pattern`` in what ``argv`` prints, "?" if there is none."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    found = re.search(pattern, done.stdout + done.stderr)
    return found[1] if found else "?"


def json_line(fields: Mapping[str, str]) -> str:
    """A JSON object as a format string: the values are the proxy's own placeholders."""
    return "{" + ",".join(f'"{name}":"{value}"' for name, value in fields.items()) + "}"
