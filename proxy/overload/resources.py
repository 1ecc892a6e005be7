"""How much of a resource is used, as a share of what there is. It reads files of ``/proc`` and control groups; it
decides nothing.
"""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Final

from proxy.model.overload import CgroupMemory, Descriptors, FixedHeap, InjectedResource, Resource

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_STATM: Final = Path("/proc/self/statm")
_DESCRIPTORS: Final = Path("/proc/self/fd")
_UNLIMITED: Final = 1 << 60
"""Control groups of version 1 write a number near 2**63 for "no limit"."""


class ResourceError(Exception):
    """The usage cannot be read now; the text says why."""


def usage(what: Resource) -> float:
    """The pressure of a resource: 0 for unused, 1 for used up. Raises ``ResourceError``."""
    try:
        match what:
            case FixedHeap(limit):
                return resident_memory() / limit
            case CgroupMemory(limit):
                return _cgroup_memory(limit)
            case Descriptors():
                return open_descriptors() / descriptor_limit()
            case InjectedResource(filename):
                return _injected(filename)
    except (OSError, ValueError) as error:
        raise ResourceError(str(error)) from error


def resident_memory() -> int:
    """Bytes of this process that are in memory. Envoy asks its allocator; Python's does not know."""
    return int(_STATM.read_bytes().split()[1]) * _PAGE


def open_descriptors() -> int:
    """How many file descriptors this process has open."""
    # Since Linux 6.2 the directory's size is their number; before, it is 0.
    return _DESCRIPTORS.stat().st_size or sum(1 for _ in _DESCRIPTORS.iterdir())


def descriptor_limit() -> int:
    """The soft limit of descriptors, at most 2**30 (for "no limit")."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 1 << 30 if limit == resource.RLIM_INFINITY else limit


def raise_descriptor_limit() -> int:
    """Raise the soft limit to the hard one, which needs no privilege; the limit now in force."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return descriptor_limit()


def cgroup_memory_limit() -> int:
    """The memory limit of this process's control group in bytes, 0 if there is none that can be read."""
    found = _cgroup_files()
    if found is None:
        return 0
    try:
        text = found[1].read_text().strip()
    except OSError:
        return 0
    return int(text) if text.isdigit() and int(text) < _UNLIMITED else 0


def _cgroup_memory(limit: int) -> float:
    own = cgroup_memory_limit()
    least = min(own, limit) if own and limit else own or limit
    if not least:
        raise ResourceError("the control group has no memory limit")
    found = _cgroup_files()
    if found is None:
        raise ResourceError("no control group of this process accounts memory")
    return int(found[0].read_text()) / least


def _cgroup_files() -> tuple[Path, Path] | None:
    """The files with usage and limit: version 2 if it accounts memory, else version 1."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            names, root = ("memory.current", "memory.max"), "/sys/fs/cgroup"
        elif "memory" in controllers.split(","):
            names, root = ("memory.usage_in_bytes", "memory.limit_in_bytes"), "/sys/fs/cgroup/memory"
        else:
            continue
        # Inside a container the path is the host's, and what is mounted is the group itself.
        for directory in (Path(root + path), Path(root)):
            used, limit = (directory / name for name in names)
            if used.exists() and limit.exists():
                return used, limit
    return None


def _injected(filename: str) -> float:
    value = float(Path(filename).read_text())
    if not 0 <= value <= 1:
        raise ResourceError(f"{filename}: {value:g} is not from 0 to 1")
    return value
