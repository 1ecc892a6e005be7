"""The golden rule sets are what the kernel takes, and loading one twice changes nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from netns.nft import Nft

pytestmark = pytest.mark.netns
GOLDEN = sorted((Path(__file__).parents[1] / "unit" / "netns" / "golden").glob("*.nft"))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_kernel_takes_it_again_and_again(path: Path) -> None:
    def rules() -> str:
        return subprocess.run(
            ["/usr/sbin/nft", "list", "ruleset"], capture_output=True, text=True, check=True
        ).stdout

    nft = Nft()
    nft.load(path.read_text())
    first = rules()
    nft.load(path.read_text())
    assert rules() == first
    assert first.count("chain ") == len(nft.chains("tulle")) > 0
