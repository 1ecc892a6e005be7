"""Network namespaces bound to files, as ``ip netns`` binds them, and private user namespaces to work in.

With the directory /run/netns, iproute2 sees the same namespaces. It must not configure what is inside them,
beyond what a fresh namespace needs to be of use (``lo`` up, forwarding on). Standard library only and quick to
import: every process that enters a pod passes here.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from netns import sysctl
from netns.errors import NetnsError
from netns.syscalls import (
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWUSER,
    MNT_DETACH,
    MS_BIND,
    MS_NODEV,
    MS_NOSUID,
    MS_PRIVATE,
    MS_REC,
    MS_SHARED,
    MS_SLAVE,
    mount,
    setns,
    umount,
    unshare,
)

T = TypeVar("T")

# <linux/sockios.h>, <linux/if.h>
_SIOCGIFFLAGS = 0x8913
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 0x1

# What stops unprivileged user namespaces, by the errno of unshare or of the writes that follow it.
_USERNS_ADVICE = (
    "user namespaces are forbidden here; as root, allow them (sysctl kernel.unprivileged_userns_clone=1, "
    "kernel.apparmor_restrict_unprivileged_userns=0, user.max_user_namespaces=15000, or a container seccomp "
    "profile that permits unshare), or run the command as root"
)


def create(path: Path) -> None:
    """Make a network namespace and bind it to the new file ``path``. Raises NetnsError and leaves nothing."""
    _make_shared(path.parent)
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
    except FileExistsError:
        raise NetnsError(f"{path} exists already; remove it or choose another name") from None

    def bind() -> None:
        unshare(CLONE_NEWNET)
        mount("/proc/thread-self/ns/net", str(path), flags=MS_BIND)

    try:
        # A thread's namespace is its own, so the process stays where it is, without a fork.
        in_thread(bind)
    except OSError as error:
        path.unlink()
        raise NetnsError(
            f"cannot create network namespace {path}: {error.strerror}{_privilege(error)}"
        ) from error


def delete(path: Path) -> None:
    """Unbind and remove; nothing happens when it is gone. The namespace lives on while processes are in it."""
    try:
        umount(str(path), MNT_DETACH)
    except OSError as error:
        # EINVAL: a plain file, left by a crash between creating and binding it.
        if error.errno not in (errno.EINVAL, errno.ENOENT):
            raise NetnsError(f"cannot unmount {path}: {error.strerror}{_privilege(error)}") from error
    path.unlink(missing_ok=True)


def is_bound(path: Path) -> bool:
    """Whether a namespace is bound there (a file on another file system than its directory's)."""
    try:
        return path.stat().st_dev != path.parent.stat().st_dev
    except FileNotFoundError:
        return False


def enter(path: Path) -> None:
    """Move the calling thread into the network namespace. Raises NetnsError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(fd, CLONE_NEWNET)
        finally:
            os.close(fd)
    except OSError as error:
        raise NetnsError(
            f"cannot enter network namespace {path}: {error.strerror}{_privilege(error)}"
        ) from error


def run_in(path: Path, function: Callable[[], T]) -> T:
    """Call the function in a thread that is inside the network namespace; its result or exception is handed on.

    Sockets and processes that it makes stay in that namespace.
    """

    def run() -> T:
        enter(path)
        return function()

    return in_thread(run)


def in_thread(function: Callable[[], T]) -> T:
    """Call the function in a thread of its own, wait, and hand on its result or exception."""
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:  # noqa: BLE001 - raised again by the caller's thread
            failures.append(error)

    thread = threading.Thread(target=run, name="netns")
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


def private_mounts(binds: list[tuple[str, str]]) -> None:
    """Give the calling process its own view of the mounts, with each (source, target) file bound in it.

    A target that is a symbolic link to nowhere (/etc/resolv.conf into a /run that a tmpfs hides) gets its file.
    Unmounts made outside still reach the view, so it keeps no deleted namespace alive.
    """
    try:
        unshare(CLONE_NEWNS)
        mount("none", "/", flags=MS_REC | MS_SLAVE)
        for source, target in binds:
            real = Path(os.path.realpath(target))
            if not real.exists():
                real.parent.mkdir(parents=True, exist_ok=True)
                real.touch()
            mount(source, str(real), flags=MS_BIND)
    except OSError as error:
        raise NetnsError(
            f"cannot set up the pod's own view of {', '.join(target for _, target in binds) or '/'}: "
            f"{error.filename}: {error.strerror}{_privilege(error)}"
        ) from error


def enter_user_namespace() -> None:
    """Move the process into fresh user, network and mount namespaces, as root of them, as ``unshare -Urnm`` does.

    Only the current user and group are mapped (to 0). /run is an empty tmpfs, ``lo`` is up, IPv4 and IPv6 are
    forwarded and duplicate address detection is off. The process must have one thread only: call this early.
    Raises NetnsError, which says how to allow user namespaces when they are forbidden.
    """
    uid, gid = os.geteuid(), os.getegid()
    try:
        unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWNS)
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise NetnsError(
                "cannot create a user namespace: the process has more than one thread, or the kernel has no "
                "user namespaces"
            ) from error
        raise NetnsError(f"cannot create a user namespace: {error.strerror}: {_USERNS_ADVICE}") from error
    try:
        # user_namespaces(7): gid_map may be written by an unprivileged process only after this "deny".
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
        _furnish()
    except OSError as error:
        raise NetnsError(
            f"cannot set up the user namespace: {error.filename}: {error.strerror}: {_USERNS_ADVICE}"
        ) from error


def enter_private_namespace() -> None:
    """As ``enter_user_namespace``, for root and without a new user namespace, so that all user ids stay usable."""
    try:
        unshare(CLONE_NEWNET | CLONE_NEWNS)
        _furnish()
    except OSError as error:
        raise NetnsError(
            f"cannot set up network and mount namespaces: {error.filename}: {error.strerror}{_privilege(error)}"
        ) from error


def _furnish() -> None:
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    _set_loopback_up()
    sysctl.disable_dad()
    sysctl.enable_forwarding(4)
    if sysctl.has_ipv6():
        sysctl.enable_forwarding(6)


def _set_loopback_up() -> None:
    # struct ifreq: 16 bytes of name, then the flags.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack("16sH14x", b"lo", 0))
        _, flags = struct.unpack("16sH14x", request)
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | _IFF_UP))


def _make_shared(directory: Path) -> None:
    """Make the directory a shared mount, so that unmounts reach private mount namespaces made in between."""
    directory.mkdir(parents=True, exist_ok=True)
    try:
        try:
            mount("none", str(directory), flags=MS_SHARED | MS_REC)
        except OSError as error:
            if error.errno != errno.EINVAL:  # EINVAL: not a mount point yet
                raise
            mount(str(directory), str(directory), flags=MS_BIND | MS_REC)
            mount("none", str(directory), flags=MS_SHARED | MS_REC)
    except OSError as error:
        raise NetnsError(
            f"cannot make {directory} a shared mount: {error.strerror}{_privilege(error)}"
        ) from error


def _privilege(error: OSError) -> str:
    if error.errno in (errno.EPERM, errno.EACCES):
        return "; run as root or inside `tulle unshare`"
    return ""
