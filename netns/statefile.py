"""JSON files that survive a crash, and locks between processes. It must not know what is in them."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from netns.errors import NetnsError


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file (made when absent, never removed), between processes and threads."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise NetnsError(f"cannot lock {path}: {error.strerror}; choose another --state-dir") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def read(path: Path) -> dict[str, Any] | None:
    """The object in the file, or None when there is no file. Raises NetnsError when it is not a JSON object."""
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise NetnsError(f"{path} is damaged ({error}); remove it once its pods are gone") from error
    if not isinstance(value, dict):
        raise NetnsError(f"{path} is damaged (not an object); remove it once its pods are gone")
    return value


def write(path: Path, value: dict[str, Any]) -> None:
    """Put the object in place of the old one: after a crash at any moment, one of the two is there, whole.

    Values that JSON lacks (addresses, networks) are written as their text.
    """
    write_text(path, json.dumps(value, default=str, indent=1, sort_keys=True) + "\n")


def write_text(path: Path, text: str) -> None:
    """As ``write``, for text that other programs read (mode 0644)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fchmod(file.fileno(), 0o644)
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_directory(path.parent)


def remove(path: Path) -> None:
    """Remove the file for good; nothing happens when it is gone."""
    if not path.exists():
        return
    path.unlink()
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
