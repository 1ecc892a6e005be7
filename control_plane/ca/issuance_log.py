"""The record of every certificate issued: one JSON object per line, appended, never rewritten."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class IssuanceLog:
    """Appends to one file (0600). A line is written by one ``write`` so that lines of two processes do not mix."""

    __slots__ = ("_descriptor",)

    def __init__(self, path: Path) -> None:
        """Open or make the file; its directory exists. Raises :class:`OSError`."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(path, flags, 0o600)

    def append(self, record: dict[str, Any]) -> None:
        """Write one record. Raises :class:`OSError`: then the certificate must not be handed out."""
        line = (json.dumps(record, ensure_ascii=True) + "\n").encode("ascii")
        if os.write(self._descriptor, line) != len(line):
            raise OSError("issuance log: a record was written only in part; is the disk full?")

    def close(self) -> None:
        os.close(self._descriptor)
