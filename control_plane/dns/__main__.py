"""``python -m control_plane.dns``: serve zone files until SIGTERM; SIGHUP reads them again."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path

import dns.zone

from control_plane.dns.server import DnsServer, zone_from_text

log = logging.getLogger("control_plane.dns")


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code: 2 for a zone or an address that cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m control_plane.dns", description=__doc__)
    parser.add_argument("--zone", action="append", required=True, type=Path, help="zone file (repeatable)")
    parser.add_argument("--listen", default="127.0.0.1:15053", help="ADDRESS:PORT for UDP and TCP, 0 = any")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    host, _, port = options.listen.rpartition(":")
    if not port.isdecimal():
        parser.error(f"--listen {options.listen!r}: must be ADDRESS:PORT")
    try:
        asyncio.run(_serve(options.zone, host.strip("[]"), int(port)))
    except (OSError, ValueError) as error:
        log.error("%s", error)
        return 2
    return 0


async def _serve(files: list[Path], host: str, port: int) -> None:
    server = DnsServer(_read(files))
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()

    def reload() -> None:
        try:
            server.zones = tuple(_read(files))
        except (OSError, ValueError) as error:
            log.error("%s; the zones from before stay", error)
        else:
            log.info("zones read again")

    loop.add_signal_handler(signal.SIGHUP, reload)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    address, bound = await server.start(host, port)
    # The one line on stdout: whoever starts this with port 0 reads the address from it.
    shown = f"[{address}]" if ":" in address else address
    sys.stdout.write(f"{shown}:{bound}\n")
    sys.stdout.flush()
    try:
        await stopped.wait()
    finally:
        await server.stop()


def _read(files: list[Path]) -> list[dns.zone.Zone]:
    zones = []
    for file in files:
        try:
            zones.append(zone_from_text(file.read_text(encoding="utf-8")))
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
    return zones


if __name__ == "__main__":
    sys.exit(main())
