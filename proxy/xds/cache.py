"""The last good configuration on disk, so that a restarted sidecar serves without the control plane.

One file, readable by its owner alone, replaced whole: a digest, then the resources as they came. What cannot be read
is set aside and said; it never stops the sidecar.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import DecodeError

from certs.files import make_private_directory, write_private

log = logging.getLogger(__name__)

FILE_NAME = "config.pb"
_MAGIC = b"tulle-config-1\n"


class ConfigCache:
    """``<state dir>/config.pb``."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / FILE_NAME
        self._last = b""

    def save(self, resources: Iterable[Any]) -> None:
        """Replace the file if anything differs. Raises OSError."""
        message = discovery_pb2.DeltaDiscoveryResponse(resources=list(resources))
        body: bytes = message.SerializeToString(deterministic=True)
        digest = hashlib.sha256(body).digest()
        if digest == self._last:
            return
        make_private_directory(self.path.parent)
        write_private(self.path, _MAGIC + digest + body)
        self._last = digest

    def load(self) -> list[Any] | None:
        """The resources, ``None`` if there is no file or no good one (which is then renamed to ``*.bad``)."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("stored configuration not used: %s", error)
            return None
        start = len(_MAGIC) + hashlib.sha256().digest_size
        digest, body = data[len(_MAGIC) : start], data[start:]
        if not data.startswith(_MAGIC) or hashlib.sha256(body).digest() != digest:
            self.set_aside("its digest is wrong")
            return None
        try:
            message = discovery_pb2.DeltaDiscoveryResponse.FromString(body)
        except DecodeError as error:
            self.set_aside(str(error))
            return None
        self._last = digest
        return list(message.resources)

    def set_aside(self, reason: str) -> None:
        """Rename a file that cannot be used, so that somebody can look at it."""
        aside = self.path.with_suffix(".bad")
        log.warning("stored configuration %s not used (%s); it is now %s", self.path, reason, aside)
        try:
            self.path.replace(aside)
        except OSError as error:
            log.warning("%s could not be renamed: %s", self.path, error)
