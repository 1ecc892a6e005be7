"""From the exec of an outbound sidecar to its first 200 through a running inbound one."""

from __future__ import annotations

import socket
import time

from bench import messages
from bench.processes import Process
from bench.results import Metric
from bench.site import Rounds, Site, interleave

METRICS = (Metric("coldstart.first_200", "exec to the first 200", "s", limit=0.3),)
_TIMEOUT = 30.0


def measure(site: Site) -> dict[str, Rounds]:
    """One start of each kind a round; files are in the page cache after an uncounted one."""
    with site.scope():
        backend = site.backend(messages.BODY)
        inbound = {}
        for name in site.able("inbound"):
            process, port = site.proxy(name, "inbound", backend)
            process.wait_listening(port)
            inbound[name] = (name, port)

        def start(which: tuple[str, int]) -> dict[str, float]:
            name, upstream = which
            with site.scope():
                process, port = site.proxy(name, "outbound", upstream)
                return {"coldstart.first_200": first_200(process, port)}

        for which in inbound.values():
            start(which)
        return interleave(site.rounds, inbound, start)


def first_200(process: Process, port: int) -> float:
    """Seconds from exec to the end of a good answer's head; asks again until there is one."""
    request = messages.request("server.default:8080")
    while time.monotonic() - process.started < _TIMEOUT:
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as sock:
                sock.sendall(request)
                if sock.recv(4096).startswith(b"HTTP/1.1 200"):
                    return time.monotonic() - process.started
        except OSError:
            process.check()
        time.sleep(0.001)
    raise RuntimeError(f"no 200 within {_TIMEOUT:.0f} s\n{process.printed()}")
