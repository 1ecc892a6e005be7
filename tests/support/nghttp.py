"""Runs nghttp and h2load, and reads what they print.

It judges nothing. What is left out is what time decides: the times themselves, WINDOW_UPDATE and PING, how a body is
cut into frames, in which order streams go on, and the NO_ERROR (RFC 9113 section 8.1) after a response, for which
nghttp does not wait.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

from tests.support import built_tools

PATIENCE = 60.0
"""Seconds after which a run counts as hung."""
_FIELD = re.compile(r"recv \(stream_id=(\d+)(?:, sensitive)?\) (:?[^:]+): (.*)")
_FRAME = re.compile(
    r"(?P<way>recv|send) (?P<kind>[A-Z_]+) frame "
    r"<length=(?P<length>\d+), flags=0x(?P<flags>..), stream_id=(?P<stream>\d+)>"
)
_SETTING = re.compile(r"\[SETTINGS_(\w+)\(0x..\):(\d+)\]")
_CODE = re.compile(r"error_code=(\w+)\(")
_VARIES = frozenset({"date", "x-envoy-upstream-service-time"})
_END = 0x1

Item = str | int | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Conversation:
    """What nghttp saw.

    ``streams``: of each the field blocks, sorted; how many bytes of DATA came between them; ``end``, or the code of
    RST_STREAM. ``goaway``: the codes of those that came. ``said``: its complaints. ``status``: its own.
    """

    settings: tuple[tuple[str, int], ...]
    streams: tuple[tuple[int, tuple[Item, ...]], ...]
    goaway: tuple[str, ...]
    said: tuple[str, ...]
    status: int


@dataclass(frozen=True, slots=True)
class Load:
    """What h2load counted. ``codes``: 2xx to 5xx; ``body``: the bytes of all of them."""

    protocol: str
    requests: int
    started: int
    done: int
    succeeded: int
    failed: int
    errored: int
    timeout: int
    codes: tuple[int, ...]
    body: int


def converse(url: str, arguments: Iterable[str]) -> Conversation:
    """Ask once, and tell what was said."""
    done = _run("nghttp", ["-y", "-v", "-n", "-t", "20", *arguments, url])
    return conversation(done.stdout.decode("latin-1"), done.stderr.decode("latin-1"), done.returncode)


def bodies(url: str, arguments: Iterable[str]) -> bytes:
    """Ask once; the bodies of all responses, one after the other."""
    return _run("nghttp", ["-y", "-t", "20", *arguments, url]).stdout


def load(url: str, arguments: Iterable[str]) -> Load:
    """Ask many times."""
    done = _run("h2load", [*arguments, url])
    text = done.stdout.decode("latin-1")
    assert done.returncode == 0, text + done.stderr.decode("latin-1")
    return counts(text)


def _run(name: str, arguments: list[str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [built_tools.program(name), *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
    )


def conversation(text: str, errors: str, status: int) -> Conversation:
    """Read what ``nghttp -v -n`` printed."""
    settings: list[tuple[str, int]] = []
    streams: dict[int, list[Item]] = {}
    blocks: dict[int, list[str]] = {}
    goaway: list[str] = []
    said = [line for line in errors.splitlines() if line]
    frame: re.Match[str] | None = None
    for line in text.splitlines():
        if found := _FIELD.search(line):
            number, name, value = found.groups()
            blocks.setdefault(int(number), []).append(_shown(name, value))
        elif line.startswith("["):
            frame = _FRAME.search(line)
            if frame is not None and frame["way"] == "recv":
                _take(frame, streams.setdefault(int(frame["stream"]), []), blocks)
            elif "ERROR" in line or "INVALID" in line:
                said.append(line.partition("] ")[2])
        elif frame is not None and frame["way"] == "recv":
            settings += [(setting, int(size)) for setting, size in _SETTING.findall(line)]
            if code := _CODE.search(line):
                if frame["kind"] == "RST_STREAM":
                    own = streams[int(frame["stream"])]
                    if (code[1], own[-1:]) != ("NO_ERROR", ["end"]):
                        own.append(code[1])
                elif frame["kind"] == "GOAWAY":
                    goaway.append(code[1])
    assert not blocks, "fields without a frame"
    told = tuple((number, tuple(items)) for number, items in sorted(streams.items()) if number)
    return Conversation(tuple(sorted(settings)), told, tuple(goaway), tuple(sorted(said)), status)


def _take(frame: re.Match[str], stream: list[Item], blocks: dict[int, list[str]]) -> None:
    if frame["kind"] == "HEADERS":
        stream.append(tuple(sorted(blocks.pop(int(frame["stream"]), ()))))
    elif frame["kind"] == "DATA":
        size = int(frame["length"])
        if stream and isinstance(stream[-1], int):
            stream[-1] += size
        elif size:
            stream.append(size)
    if frame["kind"] in ("HEADERS", "DATA") and int(frame["flags"], 16) & _END:
        stream.append("end")


def _shown(name: str, value: str) -> str:
    return f"{name}: *" if name in _VARIES else f"{name}: {value}"


def counts(text: str) -> Load:
    """Read what h2load printed."""
    protocol = re.search(r"^Application protocol: (\S+)$", text, re.M)
    numbers = re.search(
        r"(\d+) total, (\d+) started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout",
        text,
    )
    codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text)
    body = re.search(r"\((\d+)\) data$", text, re.M)
    assert protocol and numbers and codes and body, text
    return Load(protocol[1], *map(int, numbers.groups()), tuple(map(int, codes.groups())), int(body[1]))  # type: ignore[arg-type]
