"""Kernel settings below /proc/sys, of the calling thread's network namespace. It must not choose them."""

from __future__ import annotations

from pathlib import Path

from netns.errors import NetnsError

_ROOT = Path("/proc/sys")


def read(path: str) -> str:
    """A setting's value, such as ``read("net/ipv4/ip_forward")``. Raises NetnsError."""
    try:
        return (_ROOT / path).read_text().strip()
    except OSError as error:
        raise NetnsError(f"cannot read /proc/sys/{path}: {error.strerror}{_hint(path, error)}") from error


def write(path: str, value: str) -> None:
    """Set it unless it has that value already: /proc/sys is read-only in many containers. Raises NetnsError."""
    if read(path) == value:
        return
    try:
        (_ROOT / path).write_text(value)
    except OSError as error:
        raise NetnsError(f"cannot set /proc/sys/{path} to {value}: {error.strerror}") from error


def has_ipv6() -> bool:
    """Whether this kernel does IPv6 at all."""
    return (_ROOT / "net/ipv6").is_dir()


def enable_forwarding(version: int) -> None:
    """Let this namespace route packets of the IP version (4 or 6).

    With IPv6 forwarding on, the kernel takes router advertisements only on links whose accept_ra is 2
    (Documentation/networking/ip-sysctl): links that took them before go on doing so.
    """
    if version == 4:
        write("net/ipv4/ip_forward", "1")
        return
    if read("net/ipv6/conf/all/forwarding") == "1":
        return
    for conf in sorted((_ROOT / "net/ipv6/conf").iterdir()):
        path = f"net/ipv6/conf/{conf.name}/accept_ra"
        if conf.name not in ("all", "default", "lo") and read(path) == "1":
            write(path, "2")
    write("net/ipv6/conf/all/forwarding", "1")


def disable_dad() -> None:
    """Make IPv6 addresses of this namespace usable at once, instead of after duplicate address detection."""
    if has_ipv6():
        for scope in ("all", "default"):
            write(f"net/ipv6/conf/{scope}/accept_dad", "0")


def _hint(path: str, error: OSError) -> str:
    if isinstance(error, FileNotFoundError) and path.startswith("net/ipv6/"):
        return "; this kernel has no IPv6: use an IPv4 subnet only"
    return ""
