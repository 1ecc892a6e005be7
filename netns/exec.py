"""The small program that enters a pod and becomes the command: namespace, mount view, then exec.

Exec, so that the command has the caller's child's process id: signals and the exit status need no passing on. And
a program of its own, because running Python between fork and exec is unsafe in a process with threads. Standard
library only; it must not write to stdout.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from netns import namespace
from netns.errors import NetnsError

# Isolated and without site: neither the user's environment nor .pth files change or slow it. The package's
# directory goes last, so that it shadows nothing of the standard library.
_BOOT = (
    "import sys; sys.path.append(sys.argv.pop(1)); import runpy; runpy.run_module({!r}, run_name='__main__')"
)


def isolated_python(module: str) -> list[str]:
    """The start of an argv that runs a module of this package in an isolated interpreter."""
    root = str(Path(__file__).resolve().parent.parent)
    return [sys.executable, "-I", "-S", "-c", _BOOT.format(module), root]


def command_line(netns_path: Path, binds: Sequence[tuple[Path, str]], argv: Sequence[str]) -> list[str]:
    """The argv that runs ``argv`` in the namespace, with each (source, target) file bound in its mount view."""
    options = [word for source, target in binds for word in ("--bind", str(source), target)]
    return [*isolated_python("netns.exec"), str(netns_path), *options, "--", *argv]


def enter_and_exec(netns_path: str, binds: Sequence[tuple[str, str]], argv: Sequence[str]) -> NoReturn:
    """Become ``argv`` inside the pod. Raises NetnsError when it cannot enter, OSError when it cannot exec."""
    namespace.enter(Path(netns_path))
    if binds:
        namespace.private_mounts(list(binds))
    become(argv, os.environ)


def become(argv: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Replace the process by ``argv``, with the signal dispositions that Python changed put back. Raises OSError."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvpe(argv[0], list(argv), dict(environment))
    except PermissionError:
        # One unreadable directory in PATH turns "not found" into this; shells say "not found" (127) nevertheless.
        if "/" in argv[0] or shutil.which(argv[0], path=environment.get("PATH")) is not None:
            raise
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), argv[0]) from None


def exit_status(error: OSError) -> int:
    """The shell's exit status for a command that could not be executed."""
    return 127 if isinstance(error, FileNotFoundError) else 126


def _main(words: list[str]) -> int:
    netns_path, *rest = words
    binds = []
    while rest[0] == "--bind":
        binds.append((rest[1], rest[2]))
        rest = rest[3:]
    argv = rest[1:]
    try:
        enter_and_exec(netns_path, binds, argv)
    except NetnsError as error:
        sys.stderr.write(f"tulle: {error}\n")
        return 125
    except OSError as error:
        sys.stderr.write(f"tulle: cannot run {argv[0]}: {error.strerror}\n")
        return exit_status(error)


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
