from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest

from certs.bundle import split_pem
from certs.svid import check_leaf
from control_plane.ca import held
from control_plane.ca.held import HeldIdentity
from tests.fakes import mesh_ca
from tests.fakes.mesh_ca import MeshCa, MovableClock


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
def ca(tmp_path: Path, clock: MovableClock) -> MeshCa:
    return mesh_ca.make(tmp_path / "cp", clock=clock)


def test_the_admin_file_is_written_once_and_kept(ca: MeshCa, tmp_path: Path, clock: MovableClock) -> None:
    path = tmp_path / "admin.pem"
    first = held.admin_identity(ca.service, path, clock=clock)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes() == first.key_pem + first.chain_pem
    assert check_leaf(split_pem(first.chain_pem.decode())[0]) == ca.service.admin_id
    assert held.admin_identity(ca.service, path, clock=clock).chain_pem == first.chain_pem
    clock.advance(days=183)
    assert held.admin_identity(ca.service, path, clock=clock).chain_pem != first.chain_pem


@pytest.mark.parametrize("damage", ["cut", "foreign", "readable", "mixed"])
def test_a_file_that_cannot_be_used_is_made_anew(
    ca: MeshCa, tmp_path: Path, clock: MovableClock, damage: str
) -> None:
    path = tmp_path / "admin.pem"
    first = held.admin_identity(ca.service, path, clock=clock)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:300])
    elif damage == "foreign":
        other = mesh_ca.make(tmp_path / "other", clock=clock)
        held.admin_identity(other.service, tmp_path / "foreign.pem", clock=clock)
        path.write_bytes((tmp_path / "foreign.pem").read_bytes())
    elif damage == "readable":
        path.chmod(0o644)
    else:
        path.write_bytes(ca.service.issue_admin().key_pem + first.chain_pem)
    second = held.admin_identity(ca.service, path, clock=clock)
    assert second.chain_pem != first.chain_pem
    assert path.read_bytes() == second.key_pem + second.chain_pem
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_identities_are_kept_fresh(ca: MeshCa, tmp_path: Path, clock: MovableClock) -> None:
    server = held.server_identity(
        ca.service, tmp_path / "server.pem", dns_names=("localhost",), addresses=(), clock=clock
    )
    held.server_context(server, ca.service.bundle)
    before = server.chain_pem
    rotated: asyncio.Future[HeldIdentity] = asyncio.get_running_loop().create_future()
    server.subscribe(rotated.set_result)
    assert server.renew_if_due() is False
    clock.advance(hours=13)
    stop = asyncio.Event()
    task = asyncio.create_task(held.keep_fresh([server], interval=0.01, stop=stop))
    async with asyncio.timeout(10):
        assert (await rotated).chain_pem != before
    stop.set()
    await task


async def test_a_failed_rotation_is_tried_again(
    ca: MeshCa, tmp_path: Path, clock: MovableClock, caplog: pytest.LogCaptureFixture
) -> None:
    failures = 0
    stop = asyncio.Event()

    def issue() -> held.IssuedIdentity:
        nonlocal failures
        if clock.now == mesh_ca.NOW:
            return ca.service.issue_admin()
        failures += 1
        if failures == 3:
            stop.set()
        raise OSError("disk full")

    identity = HeldIdentity(tmp_path / "x.pem", issue, ca.service.bundle, clock)
    identity.ensure()
    before = identity.chain_pem
    clock.advance(days=200)
    async with asyncio.timeout(10):
        await held.keep_fresh([identity], interval=0.001, stop=stop)
    assert failures == 3
    assert identity.chain_pem == before
    assert "not renewed, tried again" in caplog.text
