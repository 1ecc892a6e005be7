"""Plays HTTP/2 cases against a real Envoy and against Tulle's sidecar.

Each case has a listener, a cluster and a backend of its own, so that its statistics and log lines are its own, too.
What is made equal: dates, request identifiers and times of fields that vary, sizes of frames, and by which of FIN and
RST a connection ends. Nothing else is.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tests.support.h2_backend import HELLO, Backend, Connection
from tests.support.h2_document import H1, Setup, document
from tests.support.h2_frames import PREFACE, settings
from tests.support.h2_script import Board, Plain, Script, perform, status
from tests.support.raw_h2 import WAIT, Event, Peer
from tests.support.raw_http import MASKED, requests, responses
from tests.support.two_proxies import Proxy, envoy_of, tulle_of

LOOPBACK = "127.0.0.1"
SIDES = ("envoy", "tulle")
"""Who plays. With ``tulle`` among them every case is also compared."""
TOGETHER = 60
"""Cases that one pair of proxies is started for."""
START = {"envoy": envoy_of, "tulle": tulle_of}
_VARIES = MASKED | {b"x-envoy-expected-rq-timeout-ms"}
"""What is left of a route's timeout when a request is sent again is chance."""
_COUNTED = re.compile(
    r"^(?P<scope>http2|(?:http|cluster)\.case\d+)\.(?!.*(?:bytes|_time|_ms|update|membership|warming|version|config|"
    r"circuit_breakers|lb_|max_host_weight|_active(?!_overflow)|external|internal|assignment|default\.|zone|pending_send|"
    r"deferred|_length|_rq_completed|_cx_http[12]|nghttp2_|retry_open))"
    r"(?P<name>[^:]+): (?P<value>[1-9]\d*)$"
)
_OF_FLOODS = re.compile(r"http2\.(?!stream_refused)|premature|protocol_error|cx_destroy")


@dataclass(frozen=True, slots=True)
class Case:
    """One client connection.

    ``client``: what it does, by HTTP/2 after the preface and ``hello`` (none of both if that is None); ``backend``:
    what each of the connections to the backend does. ``end``: ``ping`` asks whether the connection goes on (HTTP/1.1
    cannot); ``read`` waits for its end; ``leave`` closes at once. ``without``: what of the outcome is not compared,
    for it is chance in Envoy itself.
    ``flood``: how far it comes before it is ended is chance, so only the manner of the end is compared.
    """

    name: str
    client: Script
    backend: tuple[Script, ...] = ()
    setup: Setup = H1
    end: Literal["ping", "read", "leave"] = "ping"
    hello: Mapping[int, int] | Literal["wide"] | None = "wide"
    backend_hello: Mapping[int, int] | None = None
    without: frozenset[str] = frozenset()
    flood: bool = False


@dataclass
class Outcome:
    """What was seen of one case."""

    client: tuple[object, ...] = ()
    goaway: tuple[object, ...] = ()
    fate: str = ""
    backend: tuple[object, ...] = ()
    log: tuple[str, ...] = ()
    missed: tuple[object, ...] = ()
    counted: dict[str, int] = field(default_factory=dict)
    summary: str = ""

    def shown(self, case: Case) -> dict[str, object]:
        """What is compared."""
        if case.flood:
            named = sorted(name for name in self.counted if _OF_FLOODS.search(name))
            shown = {"lines": self.lines(case), "counted": named}
            return {name: value for name, value in shown.items() if name not in case.without}
        names = ("client", "goaway", "fate", "backend", "log", "missed", "counted")
        return {name: getattr(self, name) for name in names if name not in case.without}

    def lines(self, case: Case) -> tuple[str, ...]:
        """What is expected of Envoy: the client's side, then the log. Of a flood, without numbers and repetition."""
        if not case.flood:
            return (self.summary, *self.log)
        ends = {item for _, *items in self.client for item in items if isinstance(item, str)}  # type: ignore[misc]
        codes = [f"GOAWAY {code}" for code, _ in self.goaway]  # type: ignore[misc]
        logged = {" ".join(line.split(" ")[:-3]) for line in self.log}
        return (" | ".join([*sorted(ends), *codes, self.fate]), *sorted(logged))


class _Playing:
    def __init__(self, case: Case) -> None:
        self.case = case
        self.board = Board()
        self.backend = Backend(case.setup.upstream, case.backend, self.board, case.backend_hello)
        self.outcome = Outcome()
        self.peer: Peer | None = None

    def play(self, port: int) -> None:
        """What goes wrong is this case's alone: the others of its proxy are not concerned."""
        try:
            self._play(port)
        except (AssertionError, OSError) as error:
            self.outcome.missed += (repr(error),)

    def _play(self, port: int) -> None:
        if self.case.setup.downstream == "h1":
            self._play_plain(port)
            return
        case, outcome = self.case, self.outcome
        self.peer = peer = Peer.dial(port)
        if case.hello is not None:
            wide = case.hello == "wide"
            peer.write(PREFACE + (HELLO if wide else settings(case.hello)))  # type: ignore[arg-type]
        outcome.missed = tuple(perform(case.client, peer, self.board))
        if case.end == "read" or (
            case.end == "ping"
            and not peer.fate
            # GOAWAY may come with the answer.
            and (_given_up(peer) or not peer.alive() or _given_up(peer))
        ):
            peer.to_the_end()
        outcome.fate = peer.fate or "open"
        outcome.client = seen(peer.events)
        outcome.goaway = tuple(event.value for event in peer.events if event.kind == "goaway")
        outcome.summary = summary(outcome)
        if peer.fate != "left":
            peer.close()

    def _play_plain(self, port: int) -> None:
        case, outcome = self.case, self.outcome
        assert case.end != "ping", case.name
        peer = Plain(socket.create_connection((LOOPBACK, port), timeout=WAIT))
        outcome.missed = tuple(perform(case.client, peer, self.board))
        if case.end == "read" and not peer.fate:
            peer.over()
        outcome.fate = peer.fate or "open"
        messages, rest = responses(bytes(peer.data), ended=peer.fate == "closed")
        outcome.client = (*(message.shown() for message in messages), rest)
        parts = [f"{message.status} {message.body.decode()}".strip() for message in messages]
        outcome.summary = " | ".join([*parts, *([rest.decode()] if rest else []), outcome.fate])
        if peer.fate != "left":
            peer.socket.close()

    def finish(self) -> None:
        connections = self.backend.finish()
        self.outcome.missed += tuple(step for one in connections for step in one.missed)
        self.outcome.missed += tuple(repr(one.error) for one in connections if one.error is not None)
        self.outcome.backend = received(connections)


def received(connections: Iterable[Connection]) -> tuple[object, ...]:
    """What came on each connection of a backend, and how it ended."""
    found = []
    for connection in connections:
        peer = connection.peer
        if isinstance(peer, Plain):
            messages, rest = requests(bytes(peer.data))
            found.append((tuple(message.shown() for message in messages), rest, peer.fate or "open"))
        else:
            ended = tuple(event.value for event in peer.events if event.kind == "goaway")
            found.append((seen(peer.events), ended, peer.fate or "open"))
    return tuple(found)


def _given_up(peer: Peer) -> bool:
    return any(event.kind == "goaway" and event.value[0] != "NO_ERROR" for event in peer.events)  # type: ignore[index]


def seen(events: list[Event]) -> tuple[object, ...]:
    """By stream, in the order of their first frames: field blocks, body, and how it ended."""
    streams: dict[int, list[Any]] = {}
    for event in events:
        own = streams.setdefault(event.stream, []) if event.stream else []
        if event.kind == "headers":
            own.append(_fields(event.value))
        elif event.kind == "data":
            if own and isinstance(own[-1], bytes):
                own[-1] += event.value
            elif event.value:
                own.append(event.value)
        elif event.kind == "rst":
            own.append(event.value)
        if event.end:
            own.append("end")
    return tuple((number, *map(_short, own)) for number, own in sorted(streams.items()) if own)


def _short(value: Any) -> Any:
    return f"{len(value)} bytes" if isinstance(value, bytes) and len(value) > 200 else value


def _fields(fields: object) -> tuple[tuple[bytes, bytes], ...]:
    """Sorted by name, those of one name in their order; pseudo-fields must come first."""
    assert isinstance(fields, tuple)
    kinds = [name.startswith(b":") for name, _ in fields]
    assert kinds == sorted(kinds, reverse=True), fields
    shown = ((name, b"*" if name in _VARIES else _long(value)) for name, value in fields)
    return tuple(sorted(shown, key=lambda item: item[0]))


def _long(value: bytes) -> bytes:
    return value if len(value) < 200 else b"%d bytes" % len(value)


def summary(outcome: Outcome) -> str:
    """The client's side in one line: what came on each stream, GOAWAY, and the connection's fate."""
    parts = []
    for number, *items in outcome.client:  # type: ignore[misc]
        words = []
        for item in items:
            if isinstance(item, tuple):
                words.append(status(item).decode() or "trailers")
            elif isinstance(item, bytes):
                words.append(repr(item)[2:-1] if len(item) < 40 else f"{len(item)} bytes")
            else:
                words.append(str(item))
        parts.append(f"{number}: {' '.join(words)}")
    parts += [f"GOAWAY {code} {last}" for code, last in outcome.goaway]  # type: ignore[misc]
    return " | ".join([*parts, outcome.fate])


def play(
    cases: Sequence[Case], directory: Path, sides: Iterable[str] = SIDES
) -> dict[str, dict[str, Outcome]]:
    """The outcomes by the proxy's name and the case's."""
    names = [case.name for case in cases]
    assert len(set(names)) == len(names), [name for name in names if names.count(name) > 1]
    found: dict[str, dict[str, Outcome]] = {}
    for side in sides:
        found[side] = {}
        # Some at a time, for each needs descriptors.
        for at in range(0, len(cases), TOGETHER):
            place = directory / f"{side}-{at}"
            place.mkdir()
            found[side] |= _side(side, cases[at : at + TOGETHER], place)
    return found


def _side(side: str, cases: Sequence[Case], directory: Path) -> dict[str, Outcome]:
    with ExitStack() as stack:
        playing = [_Playing(case) for case in cases]
        for one in playing:
            stack.callback(one.backend.close)
        log = directory / f"{side}.access"
        setups = [(f"case{number}", one.case.setup, one.backend.port) for number, one in enumerate(playing)]
        proxy = stack.enter_context(START[side](directory, document(setups, log), log))
        ports = {id(one): proxy.ports[name] for one, (name, _, _) in zip(playing, setups, strict=True)}
        calm = [one for one in playing if not one.case.flood]
        with ThreadPoolExecutor(12) as pool:
            for _ in pool.map(lambda one: one.play(ports[id(one)]), calm):
                pass
        _settle(proxy, playing)
        for one in calm:
            one.finish()
        numbers = counted(proxy)
        for one in playing:
            # One after the other, for some counters are one for all listeners.
            if one.case.flood:
                before = numbers.get("http2", {})
                one.play(ports[id(one)])
                _settle(proxy, playing)
                one.finish()
                numbers = counted(proxy)
                after = numbers.get("http2", {})
                one.outcome.counted = {name: after[name] for name in after if after[name] != before.get(name)}
        lines = logged(proxy)
        for number, one in enumerate(playing):
            one.outcome.log = tuple(sorted(lines.get(f"case{number}", ())))
            one.outcome.counted |= numbers.get(f"case{number}", {})
        return {one.case.name: one.outcome for one in playing}


def logged(proxy: Proxy) -> dict[str, list[str]]:
    """The lines of the access log by case. It is written in order: with the line of a last request all others are
    there."""
    peer = Peer.dial(proxy.ports["last"])
    request = b"\x82\x86\x84\x41\x01h"
    peer.write(PREFACE + HELLO + b"\x00\x00\x06\x01\x05\x00\x00\x00\x01" + request)
    peer.until(lambda events: any(event.stream == 1 and event.end for event in events))
    peer.close()
    assert not waited(
        lambda: [] if any(line["case"] == "last" for line in proxy.lines()) else ["the last line"]
    )
    lines: dict[str, list[str]] = {}
    for line in proxy.lines():
        lines.setdefault(line.pop("case"), []).append(" ".join(str(value) for value in line.values()))
    return lines


def busy(proxy: Proxy) -> list[str]:
    """What has not ended yet."""
    found: list[str] = re.findall(
        r"^((?:http\.case\d+\.downstream_(?:cx|rq)_active|cluster\.case\d+\.upstream_rq_active): [1-9]\d*)",
        proxy.statistics(),
        re.M,
    )
    return found


def counted(proxy: Proxy) -> dict[str, dict[str, int]]:
    """The counters that are compared, by case."""
    found: dict[str, dict[str, int]] = {}
    for match in map(_COUNTED.match, proxy.statistics().splitlines()):
        if match:
            kind, _, case = match["scope"].partition(".")
            found.setdefault(case or kind, {})[f"{kind}.{match['name']}"] = int(match["value"])
    return found


def _settle(proxy: Proxy, playing: list[_Playing]) -> None:
    """Wait for all that was begun to end; what does not is missed by the cases that it belongs to."""
    left = waited(lambda: busy(proxy))
    for number, one in enumerate(playing):
        one.outcome.missed += tuple(name for name in left if f".case{number}." in name)


def waited(lacks: Callable[[], list[str]]) -> list[str]:
    """Wait until nothing is lacking; what is lacking in the end."""
    deadline = time.monotonic() + 3 * WAIT
    while (lacking := lacks()) and time.monotonic() < deadline:
        time.sleep(0.05)  # polls another process
    return lacking
