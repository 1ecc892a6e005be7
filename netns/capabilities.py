"""What this process may do about namespaces and capture, found by trying in a child. It must not change the machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from netns import exec as netns_exec
from netns import namespace, nft, render
from netns.capture import capture_table
from netns.errors import NetnsError
from netns.spec import CaptureSpec

# <linux/capability.h>
_CAP_NET_ADMIN = 12
_CAP_SYS_ADMIN = 21


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The result of ``probe``.

    ``root``: effective user id 0 (perhaps of a user namespace). ``net_admin`` and ``sys_admin``: the process has
    CAP_NET_ADMIN, CAP_SYS_ADMIN now. ``userns``: a child could make user, network and mount namespaces and be root
    in them. ``nft``: the path of the command. ``redirect``: a child could load the capture rules in a namespace of
    its own. ``reasons``: a line for each of these that is missing, saying how to get it.
    """

    root: bool
    userns: bool
    nft: str | None
    net_admin: bool
    sys_admin: bool
    redirect: bool
    reasons: tuple[str, ...]

    @property
    def pods_here(self) -> bool:
        """Whether pods can be made in the current network namespace, without another user namespace."""
        return self.net_admin and self.sys_admin and self.nft is not None

    @property
    def capture(self) -> bool:
        """Whether pods with traffic capture are possible, here or under ``enter_user_namespace``."""
        return self.redirect and (self.pods_here or self.userns)


def probe() -> Capabilities:
    """Find out, in at most two short-lived child processes (about 0.1 s each)."""
    command = nft.find()
    net_admin, sys_admin = effective(_CAP_NET_ADMIN), effective(_CAP_SYS_ADMIN)
    reasons: list[str] = []
    userns, redirect, reason = _try("user", command)
    if not userns:
        reasons.append(reason)
        if net_admin and sys_admin:
            _, redirect, reason = _try("private", command)
    if command is None:
        reasons.append(missing_nft())
    elif not redirect and (userns or (net_admin and sys_admin)):
        reasons.append(reason)
    if not (net_admin and sys_admin):
        reasons.append(missing_privilege())
    return Capabilities(os.geteuid() == 0, userns, command, net_admin, sys_admin, redirect, tuple(reasons))


def effective(capability: int) -> bool:
    """Whether the capability is in the process's effective set (capabilities(7))."""
    for line in Path("/proc/thread-self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> capability & 1)
    return False


def require() -> None:
    """Raise NetnsError, one line, unless pods can be made in the current namespaces. Starts no process."""
    if not (effective(_CAP_NET_ADMIN) and effective(_CAP_SYS_ADMIN)):
        raise NetnsError(missing_privilege())
    if nft.find() is None:
        raise NetnsError(missing_nft())


def missing_privilege() -> str:
    """The line for a process that lacks capabilities."""
    return "pods need CAP_NET_ADMIN and CAP_SYS_ADMIN: run as root, or without root inside `tulle unshare`"


def missing_nft() -> str:
    """The line for a machine without nft."""
    try:
        nft.Nft()
    except NetnsError as error:
        return str(error)
    return ""


def _try(kind: str, command: str | None) -> tuple[bool, bool, str]:
    """Whether a child got its namespaces, whether it could load the rules there, and why not."""
    done = subprocess.run(
        [*netns_exec.isolated_python("netns.capabilities"), kind, command or ""],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        return False, False, f"the probe of user namespaces failed: {last}"
    answer = json.loads(done.stdout)
    return bool(answer["entered"]), bool(answer["redirect"]), str(answer["reason"])


def _main(kind: str, command: str) -> dict[str, object]:
    try:
        if kind == "user":
            namespace.enter_user_namespace()
        else:
            namespace.enter_private_namespace()
    except NetnsError as error:
        return {"entered": False, "redirect": False, "reason": str(error)}
    if not command:
        return {"entered": True, "redirect": False, "reason": ""}
    try:
        nft.Nft(command).load(render.replace_table(capture_table(CaptureSpec())))
    except NetnsError as error:
        return {
            "entered": True,
            "redirect": False,
            "reason": f"this kernel cannot redirect connections: {error}",
        }
    return {"entered": True, "redirect": True, "reason": ""}


if __name__ == "__main__":
    json.dump(_main(sys.argv[1], sys.argv[2]), sys.stdout)
