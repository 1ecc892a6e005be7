"""A bootstrap file decoded by a process of its own, which ends when that is done.

protobuf and the xDS messages cost ten megabytes and a tenth of a second; the process that serves a static
configuration never needs them again. So it forks before it has imported anything: the child imports and decodes while
the parent imports the data path. What comes back is the frozen model, pickled, over a pipe that only these two hold.

It must be forked while the process has one thread and no event loop.
"""

from __future__ import annotations

import gc
import logging
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy.model.config import Admin, Config, ConfigError
from proxy.model.overload import OverloadManager

log = logging.getLogger(__name__)

_LENGTH = 8


class DecoderDiedError(Exception):
    """The child ended without an answer; its log says why."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A ``proxy.bootstrap.Bootstrap`` without its message."""

    config: Config
    admin: Admin | None
    overload: OverloadManager | None
    listener_limits: Mapping[str, int]


class BootstrapDecoder:
    """Decodes the file at ``path`` from the moment it is made; :meth:`result` waits for it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # The dump is written where the child need not wait for a reader that may never come.
        self._dump = os.memfd_create("config-dump", os.MFD_CLOEXEC)
        self._pipe, write_end = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            _run(path, write_end, self._dump)
        os.close(write_end)

    @property
    def pipe(self) -> int:
        """Readable when the child has ended; then call :meth:`finish`. -1 after that."""
        return self._pipe

    def result(self) -> Decoded:
        """The configuration. Raises ``ConfigError`` with the field path, ``OSError``, ``DecoderDiedError``."""
        length = int.from_bytes(self._read(_LENGTH))
        data = self._read(length)
        if not data or len(data) < length:
            self.finish()
            raise DecoderDiedError(f"{self._path}: the process that decodes it ended without an answer")
        kind, *values = pickle.loads(data)
        if kind == "config":
            return Decoded(*values)
        self.finish()
        if kind == "refused":
            raise ConfigError(values[0], values[1])
        error: OSError = values[0]
        raise error

    def finish(self) -> None:
        """Wait until the child has ended."""
        if self._pipe >= 0:
            while os.read(self._pipe, 4096):
                pass
            os.close(self._pipe)
            self._pipe = -1
            os.waitpid(self._pid, 0)

    def dump(self) -> Mapping[str, Any]:
        """The file's content as ``/config_dump`` shows it, private keys left out."""
        import json

        self.finish()
        data = os.pread(self._dump, os.fstat(self._dump).st_size, 0)
        content: Mapping[str, Any] = json.loads(data)
        return content

    def _read(self, size: int) -> bytes:
        parts: list[bytes] = []
        while size and (part := os.read(self._pipe, size)):
            parts.append(part)
            size -= len(part)
        return b"".join(parts)


def _run(path: Path, pipe: int, dump: int) -> None:
    """The child; it never returns into its copy of the caller."""
    status = 1
    try:
        # It lives too briefly for collecting cycles to pay.
        gc.disable()
        _decode(path, pipe, dump)
        status = 0
    except BaseException:
        log.exception("%s could not be decoded", path)
    finally:
        os._exit(status)


def _decode(path: Path, pipe: int, dump: int) -> None:
    from proxy import bootstrap

    try:
        loaded = bootstrap.load(path)
    except ConfigError as error:
        _send(pipe, ("refused", error.path, error.message))
        return
    except OSError as error:
        _send(pipe, ("failed", error))
        return
    _send(pipe, ("config", loaded.config, loaded.admin, loaded.overload, loaded.listener_limits))
    import json

    from proxy.admin.config_dump import static_dump

    with os.fdopen(os.dup(dump), "w") as file:
        json.dump(static_dump(loaded.message), file)


def _send(pipe: int, answer: tuple[object, ...]) -> None:
    data = pickle.dumps(answer, pickle.HIGHEST_PROTOCOL)
    with os.fdopen(os.dup(pipe), "wb") as file:
        file.write(len(data).to_bytes(_LENGTH) + data)
