"""What Tulle shows otherwise than Envoy in ``test_http2_envoy_diff.py``, and only that.

Three rules hold for all cases, each with its reason; and how often somebody had to wait is chance, so that counters
of flow control are not compared. Whatever else differs is in ``h2_exchanges/differences.json``, by
case: the reason, and exactly what Tulle shows instead. A difference that goes away, or becomes another, fails the test.
``docs/envoy-differences.md`` says for users what is on purpose.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

KNOWN = Path(__file__).with_name("h2_exchanges") / "differences.json"
_CODEC = re.compile(r"codec_error:\S+")

Shown = dict[str, Any]


def known() -> dict[str, tuple[str, list[list[str]]]]:
    """By the case's name: why it differs, and the lines of ``differences``; more than one list where chance decides."""
    return {name: (why, shown) for name, (why, *shown) in json.loads(KNOWN.read_text()).items()}


def differences(envoy: Shown, tulle: Shown) -> list[str]:
    """What Tulle shows otherwise, without what the rules explain: a line for each part of the outcome."""
    first, second = _flat(envoy), _flat(tulle)
    _details(first)
    if "backend" in first:
        first["backend"] = _as_cancel(first["backend"])
    _says_why(first, second)
    names = sorted(first.keys() | second.keys())
    return [
        f"{name}: {first.get(name)} => {second.get(name)}"
        for name in names
        if first.get(name) != second.get(name) and "flow_control" not in name
    ]


def _flat(shown: Shown) -> Shown:
    flat = {name: value for name, value in shown.items() if name != "counted"}
    counted = shown.get("counted", ())
    numbers = counted if isinstance(counted, dict) else dict.fromkeys(counted, "some")
    return flat | {f"counted {name}": number for name, number in numbers.items()}


def _details(envoy: Shown) -> None:
    """The codec does not say which rule a message broke, nor has it Envoy's words for why a connection cannot go on."""
    for part in ("log", "lines"):
        if part in envoy:
            envoy[part] = tuple(
                _CODEC.sub("codec_error", line)
                .replace("http2.violation.of.messaging.rule", "http2.invalid.header.field")
                .replace("http2.unknown.nghttp2.error", "codec_error")
                for line in envoy[part]
            )


def _as_cancel(backend: Any) -> Any:
    """Envoy resets streams that nobody waits for with INTERNAL_ERROR; RFC 9113 section 7 has CANCEL for that."""
    return _replaced(backend, "INTERNAL_ERROR", "CANCEL")


def _replaced(value: Any, old: str, new: str) -> Any:
    if isinstance(value, tuple):
        return tuple(_replaced(item, old, new) for item in value)
    return new if value == old else value


def _says_why(envoy: Shown, tulle: Shown) -> None:
    """Where Envoy closes without a word over a breach of the protocol, Tulle resets the stream and says GOAWAY with
    the reason first (RFC 9113 sections 5.4.1 and 8.1.1)."""
    if not envoy.get("goaway") and envoy.get("fate") == "closed" and _has_reason(tulle.get("goaway")):
        envoy["goaway"] = tulle["goaway"]
        if _without_reset(tulle["client"]) == envoy["client"]:
            envoy["client"] = tulle["client"]
    lines = tulle.get("lines")
    if (
        lines
        and re.fullmatch(r"GOAWAY (?!NO_ERROR)\w+ \| closed", lines[0])
        and envoy["lines"][0] == "closed"
    ):
        envoy["lines"] = (lines[0], *envoy["lines"][1:])
        tulle.pop("counted http2.goaway_sent", None)
    if len(envoy.get("backend", ())) != len(tulle.get("backend", ())):
        return
    for one, other in zip(envoy.get("backend", ()), tulle.get("backend", ()), strict=True):
        streams, goaway, fate = one
        if (
            not goaway
            and fate == other[2] == "closed"
            and _has_reason(other[1])
            and streams in (other[0], _without_reset(other[0]))
        ):
            envoy["backend"] = tuple(other if item is one else item for item in envoy["backend"])
            said = tulle.get("counted cluster.http2.goaway_sent", 0)
            if said == "some":
                tulle.pop("counted cluster.http2.goaway_sent")
            elif said and not envoy.get("counted cluster.http2.goaway_sent"):
                tulle["counted cluster.http2.goaway_sent"] = said - 1
                if said == 1:
                    del tulle["counted cluster.http2.goaway_sent"]


def _has_reason(goaway: Any) -> bool:
    return bool(
        isinstance(goaway, tuple)
        and len(goaway) == 1
        and isinstance(goaway[0], tuple)
        and goaway[0][0] != "NO_ERROR"
    )


def _without_reset(streams: Any) -> Any:
    """``streams`` but for a PROTOCOL_ERROR at the end of one."""
    left = []
    for stream in streams:
        if stream[-1] == "PROTOCOL_ERROR":
            stream = stream[:-1]
        if len(stream) > 1:
            left.append(stream)
    return tuple(left)
