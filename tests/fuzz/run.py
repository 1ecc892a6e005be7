"""``python -m tests.fuzz.run request [options of libFuzzer]``: look for new inputs, guided by coverage (``make fuzz``).

What is found and is worth keeping goes to ``tests/fuzz/corpus/<target>``; CI replays that without atheris.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]

with atheris.instrument_imports(include=["proxy.http1", "proxy.http2", "h2", "hpack", "hyperframe"]):
    from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).with_name("corpus")


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in TARGETS:
        sys.exit(f"usage: python -m tests.fuzz.run {'|'.join(TARGETS)} [options of libFuzzer]")
    options = [sys.argv[0], "-max_len=4500", *sys.argv[2:], str(CORPUS / name)]
    atheris.Setup(options, TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
