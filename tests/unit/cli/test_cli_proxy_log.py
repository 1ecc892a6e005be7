"""The sidecar's application log: one line a record, whatever is quoted in it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator

import pytest

from control_plane.cli.proxy_cmd import set_up_logging


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_what_is_quoted_cannot_forge_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("info")
    logging.getLogger("proxy.xds").warning("refused: %s", "listener[a\n2026 ERROR forged\x1b[2J\r]")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(r"WARNING proxy.xds: refused: listener[a\n2026 ERROR forged\x1b[2J\r]")


def test_tracebacks_are_indented(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("info")
    try:
        raise ValueError("x\n2026 ERROR forged\x1b")
    except ValueError:
        logging.getLogger("proxy").error("failed", exc_info=sys.exc_info())
    first, *rest = capsys.readouterr().err.splitlines()
    assert first.endswith("ERROR proxy: failed")
    assert rest
    assert all(line.startswith("  ") and "\x1b" not in line for line in rest)
