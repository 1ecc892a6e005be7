"""gRPC over HTTP/2: CPU and calls a second, many streams at a time and one; CPU and GB a second of large messages.

h2load -> outbound -(mutual TLS)-> inbound -> server, on one connection each. On: mutual TLS, JSON log to a file,
statistics, RBAC on the caller, retries, request ids. Only Tulle and Envoy are compared.
"""

from __future__ import annotations

from pathlib import Path

from bench.load import h2load
from bench.results import Metric
from bench.site import Pair, Rounds, Site, interleave

KINDS = ("tulle", "envoy")
STREAMS = 100
MESSAGE = 256
"""Bytes of a small message."""
LARGE = 100_000_000

METRICS = (
    Metric("grpc.outbound", "gRPC unary, 100 streams, outbound CPU", "µs/call", ratio=0.7),
    Metric("grpc.inbound", "gRPC unary, 100 streams, inbound CPU", "µs/call", ratio=0.7),
    Metric("grpc.rate", "gRPC unary through the pair, 100 streams", "calls/s", better="higher"),
    Metric("grpc.outbound_single", "gRPC unary, one stream, outbound CPU", "µs/call", ratio=1.0),
    Metric("grpc.inbound_single", "gRPC unary, one stream, inbound CPU", "µs/call", ratio=1.0),
    Metric("grpc.rate_single", "gRPC unary through the pair, one stream", "calls/s", better="higher"),
    Metric("grpc.down", "100 MB response over HTTP/2 through the pair, CPU", "s/GB", ratio=1.2),
    Metric("grpc.up", "100 MB request over HTTP/2 through the pair, CPU", "s/GB", ratio=1.2),
    Metric("grpc.down_rate", "100 MB response over HTTP/2 through the pair", "GB/s", better="higher"),
    Metric("grpc.up_rate", "100 MB request over HTTP/2 through the pair", "GB/s", better="higher"),
)


def measure(site: Site) -> dict[str, Rounds]:
    """Small calls, then large ones, all kinds in turn."""
    return {**_small(site), **_large(site)}


def _kinds(site: Site) -> list[str]:
    return [name for name in site.able("inbound") if name in KINDS]


def _message(site: Site, size: int) -> Path:
    """A gRPC message of so many bytes in all, as h2load posts it."""
    path = site.directory / f"message-{size}"
    path.write_bytes(b"\0" + (size - 5).to_bytes(4, "big") + bytes(size - 5))
    return path


def _small(site: Site) -> dict[str, Rounds]:
    with site.scope():
        backend, _ = site.helper("grpc_server", str(MESSAGE))
        pairs = {name: Pair(site, name, backend, http2=True) for name in _kinds(site)}
        message = _message(site, MESSAGE)

        def load(pair: Pair) -> dict[str, float]:
            found = {}
            for streams, suffix in ((STREAMS, ""), (1, "_single")):
                before = pair.cpu()
                done = h2load.run(
                    pair.port, message, answer=MESSAGE, streams=streams, seconds=site.seconds(4, 1)
                )
                after = pair.cpu()
                found[f"grpc.outbound{suffix}"] = (after[0] - before[0]) / done.requests * 1e6
                found[f"grpc.inbound{suffix}"] = (after[1] - before[1]) / done.requests * 1e6
                found[f"grpc.rate{suffix}"] = done.per_second
            return found

        for pair in pairs.values():
            h2load.run(pair.port, message, answer=MESSAGE, streams=STREAMS, seconds=1)
        return interleave(site.rounds, pairs, load)


def _large(site: Site) -> dict[str, Rounds]:
    with site.scope():
        small, large = _message(site, MESSAGE), _message(site, LARGE)
        giver, _ = site.helper("grpc_server", str(LARGE))
        taker, _ = site.helper("grpc_server", str(MESSAGE))
        ways = {"down": (giver, small, LARGE), "up": (taker, large, MESSAGE)}
        pairs = {
            name: {way: Pair(site, name, backend, http2=True) for way, (backend, _, _) in ways.items()}
            for name in _kinds(site)
        }
        times = int(site.seconds(3, 1))

        def load(own: dict[str, Pair]) -> dict[str, float]:
            found = {}
            for way, pair in own.items():
                _, message, answer = ways[way]
                before = pair.cpu()
                done = h2load.run(pair.port, message, answer=answer, streams=1, requests=times)
                found[f"grpc.{way}"] = (sum(pair.cpu()) - sum(before)) / (times * LARGE) * 1e9
                found[f"grpc.{way}_rate"] = done.per_second * LARGE / 1e9
            return found

        return interleave(site.few, pairs, load)
