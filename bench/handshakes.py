"""Mutual-TLS handshakes per second of CPU: as a server (inbound) and as a client (outbound), full and resumed.

Each connection carries one small request, whose cost is in the figure. Inbound: a client of ours opens connections
and offers no session, or always the same. Outbound: the proxy keeps no upstream connection; the server is ours and
gives no tickets, or does.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench import messages
from bench.load import tls, wrk
from bench.processes import Process
from bench.results import Metric
from bench.site import Rounds, Site, interleave

METRICS = (
    Metric("handshake.inbound", "full handshakes as a server, with a request", "/CPU s", "higher", ratio=0.5),
    Metric(
        "handshake.outbound", "full handshakes as a client, with a request", "/CPU s", "higher", ratio=0.5
    ),
    Metric("handshake.inbound_resumed", "resumed handshakes as a server, with a request", "/CPU s", "higher"),
    Metric(
        "handshake.outbound_resumed", "resumed handshakes as a client, with a request", "/CPU s", "higher"
    ),
)


@dataclass(frozen=True, slots=True)
class Sides:
    """A kind's inbound proxy, and its outbound ones before a server without and one with tickets."""

    kind: str
    inbound: tuple[Process, int]
    outbound: dict[bool, tuple[Process, int]]


def measure(site: Site) -> dict[str, Rounds]:
    """All four a round; the outbound ones need wrk."""
    with site.scope():
        backend = site.backend(messages.BODY)
        servers = {
            resume: site.helper("tls", str(site.directory), "resume" if resume else "full")
            for resume in (() if wrk.missing() else (False, True))
        }
        sides = {}
        for name in site.able("inbound"):
            made = Sides(
                name,
                site.proxy(name, "inbound", backend),
                {
                    resume: site.proxy(name, "outbound", server, pooled=False)
                    for resume, (server, _) in servers.items()
                },
            )
            for process, port in (made.inbound, *made.outbound.values()):
                process.wait_listening(port)
            sides[name] = made
        seconds = site.seconds(2.5, 1)

        def load(made: Sides) -> dict[str, float]:
            found = {}
            process, port = made.inbound
            caller = tls.Caller(port, site.directory)
            for resume in (False, True):
                before = process.cpu()
                count = caller.handshakes(seconds, resume=resume)
                found[_key("inbound", resume)] = count / (process.cpu() - before)
            for resume, (process, port) in made.outbound.items():
                log = servers[resume][1]
                told = log.stat().st_size
                before = process.cpu()
                # One at a time: Envoy uses a ticket once, and with several at a time would run out of them.
                wrk.run(port, 1, seconds)
                spent = process.cpu() - before
                found[_key("outbound", resume)] = wanted(log.read_text()[told:], resume) / spent
            return found

        return interleave(site.few, sides, load)


def _key(side: str, resume: bool) -> str:
    return f"handshake.{side}_resumed" if resume else f"handshake.{side}"


def wanted(told: str, resume: bool) -> int:
    """How many handshakes the server says there were. Raises ``RuntimeError`` if they were not of the sort wanted."""
    sorts = told.split()
    right = sorts.count("resumed" if resume else "full")
    if right < 0.9 * len(sorts) or not right:
        raise RuntimeError(f"{right} of {len(sorts)} handshakes were {'resumed' if resume else 'full'}")
    return right
