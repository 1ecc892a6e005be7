"""Writing and reading secret files: whole or not at all, and readable by their owner only.

It must not know what is in the files.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path


class SecretFileError(OSError):
    """A secret file can be read by others than its owner."""


def write_private(path: Path, data: bytes) -> None:
    """Replace ``path`` by ``data`` atomically, mode 0600, durable on return. Raises :class:`OSError`."""
    _write(path, data, 0o600)


def write_public(path: Path, data: bytes) -> None:
    """As :func:`write_private`, mode 0644."""
    _write(path, data, 0o644)


def read_private(path: Path) -> bytes:
    """Read a secret. Raises :class:`SecretFileError` when group or others may read it, :class:`OSError`."""
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & 0o077:
            raise SecretFileError(f"{path}: mode {mode:04o} lets others read a secret; run: chmod 600 {path}")
        return file.read()


def make_private_directory(path: Path) -> None:
    """Make ``path`` and its parents; ``path`` itself gets mode 0700 when it is new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)


def _write(path: Path, data: bytes, mode: int) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)  # whatever the umask took away
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make a rename inside ``path`` durable."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
