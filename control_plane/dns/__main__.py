"""``python -m control_plane.dns --zone FILE --listen HOST:PORT``: serve a zone file; SIGHUP reads it again."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

import dns.exception

from control_plane.dns.server import DnsServer
from control_plane.dns.zone import Authority


def load(path: Path) -> Authority:
    """Raises SystemExit with what is wrong with the file."""
    try:
        return Authority.from_text(path.read_text("utf-8"))
    except (OSError, dns.exception.DNSException, ValueError) as error:
        raise SystemExit(f"{path}: {error}") from error


async def serve(path: Path, host: str, port: int) -> None:
    """Until SIGTERM or SIGINT."""
    server = DnsServer(load(path))
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def reload() -> None:
        try:
            server.authority = load(path)
        except SystemExit as error:
            sys.stderr.write(f"zone not reloaded: {error}\n")

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, reload)
    bound = await server.start(host, port)
    sys.stdout.write(f"listening {bound[0]}:{bound[1]}\n")
    sys.stdout.flush()
    await stop.wait()
    await server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="control_plane.dns")
    parser.add_argument("--zone", type=Path, required=True)
    parser.add_argument("--listen", default="127.0.0.1:0", help="HOST:PORT")
    options = parser.parse_args()
    host, _, port = options.listen.rpartition(":")
    asyncio.run(serve(options.zone, host.strip("[]"), int(port)))


if __name__ == "__main__":
    main()
