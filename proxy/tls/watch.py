"""Look whether the files that TLS contexts were made of have changed, and have them read again.

By polling: it sees replaced files, renamed directories and edits in place alike, on every file system. The interval is
its caller's.
"""

from __future__ import annotations

import logging
import os

from proxy.tls.errors import SecretError
from proxy.tls.store import SecretStore

log = logging.getLogger(__name__)

_Signature = dict[str, tuple[int, int, int, int] | None]


class FileWatch:
    """The files of one store. ``update_success`` and ``update_failure`` count attempts to take changed ones."""

    __slots__ = ("_complaint", "_seen", "_store", "update_failure", "update_success")

    def __init__(self, store: SecretStore) -> None:
        self._store = store
        self._seen: _Signature = {}
        self._complaint = ""
        self.update_success = 0
        self.update_failure = 0

    def poll(self) -> None:
        """Take what changed since the last time; until it can be used, it is tried again and the old one serves."""
        files = self._store.files()
        if not files:
            return
        # Signatures first: what changes while it is read is seen the next time.
        now = {path: _signature(path) for path in files}
        if now == self._seen:
            return
        try:
            changed = self._store.reload()
        except SecretError as error:
            self.update_failure += 1
            if str(error) != self._complaint:
                self._complaint = str(error)
                log.warning("changed TLS files are not used yet: %s", error)
            return
        self._seen = now
        self._complaint = ""
        if changed:
            self.update_success += 1
            log.info("TLS contexts renewed from changed files")


def _signature(path: str) -> tuple[int, int, int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - follows links, as reading does
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
