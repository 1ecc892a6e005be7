"""The last good configuration on disk."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from envoy.service.discovery.v3 import discovery_pb2

from proxy.xds.cache import ConfigCache


def resources() -> list[object]:
    return [discovery_pb2.Resource(name="a", version="1"), discovery_pb2.Resource(name="b", version="2")]


def test_what_was_saved_is_loaded_and_private(tmp_path: Path) -> None:
    cache = ConfigCache(tmp_path / "state")
    assert cache.load() is None
    cache.save(resources())
    assert stat.S_IMODE(cache.path.stat().st_mode) == 0o600
    assert ConfigCache(tmp_path / "state").load() == resources()


def test_an_unchanged_set_is_not_written_again(tmp_path: Path) -> None:
    cache = ConfigCache(tmp_path)
    cache.save(resources())
    before = cache.path.stat().st_ino
    cache.save(resources())
    assert cache.path.stat().st_ino == before
    cache.save(resources()[:1])
    assert cache.path.stat().st_ino != before


@pytest.mark.parametrize("damage", ["cut", "flipped", "foreign", "empty"])
def test_a_damaged_file_is_set_aside_and_said(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    cache = ConfigCache(tmp_path)
    cache.save(resources())
    data = bytearray(cache.path.read_bytes())
    if damage == "cut":
        data = data[:-1]
    elif damage == "flipped":
        data[-1] ^= 1
    else:
        data = bytearray(b"{}" if damage == "foreign" else b"")
    cache.path.write_bytes(data)
    assert cache.load() is None
    assert not cache.path.exists()
    assert cache.path.with_suffix(".bad").read_bytes() == data
    assert "not used" in caplog.text
