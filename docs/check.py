"""Checks the documentation.

Every relative link exists, every module that the life-of pages name is real, and the table and plot of
``performance.md`` are those of the committed run.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench import report  # noqa: E402 - the benchmarks are not installed

LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")
MODULE = re.compile(r"`((?:proxy|control_plane|certs|netns)(?:\.[a-z_0-9]+)+)`")


def problems() -> list[str]:
    """One line for each broken link or unknown module."""
    found = []
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")]
    for page in sorted(pages):
        text = page.read_text(encoding="utf-8")
        name = page.relative_to(ROOT)
        for link in LINK.findall(text):
            if not (page.parent / link).exists():
                found.append(f"{name}: link to {link}, which does not exist")
        for module in MODULE.findall(text):
            if not is_module(module):
                found.append(f"{name}: names {module}, which is no module")
    return found + report.problems()


def is_module(name: str) -> bool:
    """Whether ``name`` is a module or an attribute-free package of this repository."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def main() -> int:
    found = problems()
    sys.stdout.write(
        "".join(f"{line}\n" for line in found)
        or "documentation: links, module names and measured figures are right\n"
    )
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
