"""The ``nft`` command: found, fed and asked. It must not know any rule."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import Any

from netns.errors import NetnsError

# Distributions install it where an ordinary user's PATH does not look.
_MORE_DIRECTORIES = ("/usr/sbin", "/sbin", "/usr/local/sbin")


def find() -> str | None:
    """The path of ``nft``, or None."""
    return shutil.which("nft", path=os.pathsep.join((os.environ.get("PATH", ""), *_MORE_DIRECTORIES)))


class Nft:
    """Runs ``nft`` in the network namespace of the calling thread."""

    __slots__ = ("_path",)

    def __init__(self, path: str | None = None) -> None:
        """Raises NetnsError when no path is given and none is found."""
        found = path or find()
        if found is None:
            raise NetnsError(
                "the nft command is missing (looked in PATH, /usr/sbin, /sbin, /usr/local/sbin): "
                "install the package nftables"
            )
        self._path = found

    def load(self, text: str) -> None:
        """Apply the commands, all or none. Raises NetnsError with nft's own words."""
        self._run(["-f", "-"], text)

    def chains(self, table: str) -> tuple[str, ...]:
        """The names of the chains of the inet table; empty when there is no such table."""
        listing: dict[str, Any] = json.loads(self._run(["-j", "list", "chains", "inet"], ""))
        return tuple(
            item["chain"]["name"]
            for item in listing["nftables"]
            if "chain" in item and item["chain"]["table"] == table
        )

    def delete_chain(self, table: str, chain: str) -> None:
        """Delete one chain, and the table with its last chain; nothing happens when it is gone."""
        chains = self.chains(table)
        if chains == (chain,):
            self.load(f"delete table inet {table}\n")
        elif chain in chains:
            self.load(f"flush chain inet {table} {chain}\ndelete chain inet {table} {chain}\n")

    def _run(self, arguments: list[str], text: str) -> str:
        try:
            done = subprocess.run(
                [self._path, *arguments], input=text, capture_output=True, text=True, check=False
            )
        except OSError as error:
            raise NetnsError(f"cannot run {self._path}: {error.strerror}") from error
        if done.returncode != 0:
            message = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
            hint = ""
            if "Operation not permitted" in message:
                hint = "; run as root or inside `tulle unshare`"
            raise NetnsError(f"nft refused the rules: {message}{hint}")
        return done.stdout
