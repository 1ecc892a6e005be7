from __future__ import annotations

import stat
from datetime import timedelta
from pathlib import Path

import pytest

from certs import chain, files
from certs.bundle import split_pem
from control_plane.ca import bootstrap
from control_plane.ca.bootstrap import BootstrapError, MeshAuthority
from tests.fakes import pki
from tests.fakes.mesh_ca import MovableClock


def load(directory: Path, clock: MovableClock | None = None, **options: object) -> MeshAuthority:
    return bootstrap.load_or_create(directory, clock=clock or MovableClock(), **options)  # type: ignore[arg-type]


def test_the_first_start_makes_a_ca_and_the_next_loads_it(tmp_path: Path) -> None:
    made = load(tmp_path / "ca")
    again = load(tmp_path / "ca")
    assert again.bundle == made.bundle
    assert again.root_pin == made.root_pin
    assert again.issuing().der == made.issuing().der
    assert made.trust_domain == "mesh.local"


def test_keys_are_for_their_owner_only(tmp_path: Path) -> None:
    load(tmp_path / "ca")
    modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in (tmp_path / "ca").iterdir()}
    assert modes == {"root.key": 0o600, "root.crt": 0o644, "issuing.pem": 0o600}
    assert stat.S_IMODE((tmp_path / "ca").stat().st_mode) == 0o700
    assert [entry.name for entry in tmp_path.iterdir()] == ["ca"]


def test_a_passphrase_seals_both_keys(tmp_path: Path) -> None:
    load(tmp_path / "ca", passphrase=b"correct horse")
    for name in ("root.key", "issuing.pem"):
        text = (tmp_path / "ca" / name).read_bytes()
        assert b"ENCRYPTED PRIVATE KEY" in text
        assert b"BEGIN PRIVATE KEY" not in text
    load(tmp_path / "ca", passphrase=b"correct horse")
    with pytest.raises(BootstrapError, match="TULLE_CA_PASSPHRASE"):
        load(tmp_path / "ca")
    with pytest.raises(BootstrapError, match="wrong passphrase"):
        load(tmp_path / "ca", passphrase=b"wrong")


def test_the_passphrase_comes_from_a_file_or_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "passphrase"
    files.write_private(path, b"from file\n")
    variables = {"TULLE_CA_PASSPHRASE": "from environment"}
    assert bootstrap.read_passphrase(path, variables) == b"from file"
    assert bootstrap.read_passphrase(None, variables) == b"from environment"
    assert bootstrap.read_passphrase(None, {}) is None
    path.chmod(0o644)
    with pytest.raises(BootstrapError, match="chmod 600"):
        bootstrap.read_passphrase(path)
    files.write_private(path, b"\n")
    with pytest.raises(BootstrapError, match="first line is empty"):
        bootstrap.read_passphrase(path)
    with pytest.raises(BootstrapError, match="No such file"):
        bootstrap.read_passphrase(tmp_path / "absent")


def test_a_mesh_cannot_be_renamed(tmp_path: Path) -> None:
    load(tmp_path / "ca")
    with pytest.raises(BootstrapError, match=r"root of trust domain 'mesh\.local', but 'other\.local'"):
        load(tmp_path / "ca", trust_domain="other.local")


def test_a_bad_trust_domain_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(BootstrapError, match="--trust-domain"):
        load(tmp_path / "ca", trust_domain="Mesh")
    assert not (tmp_path / "ca").exists()


def test_a_crash_while_making_leaves_no_half_ca(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(_path: Path, _data: bytes) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(files, "write_public", crash)
        with pytest.raises(KeyboardInterrupt):
            load(tmp_path / "ca")
    assert not (tmp_path / "ca").exists()
    load(tmp_path / "ca")


def test_a_crash_before_the_issuing_ca_keeps_the_root(tmp_path: Path) -> None:
    made = load(tmp_path / "ca")
    (tmp_path / "ca" / "issuing.pem").unlink()
    again = load(tmp_path / "ca")
    assert again.root_pin == made.root_pin
    assert again.issuing().der != made.issuing().der


def test_the_loser_of_a_race_uses_the_winners_ca(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = files.write_public
    winner: list[MeshAuthority] = []

    def slow(path: Path, data: bytes) -> None:
        monkeypatch.setattr(files, "write_public", honest)
        monkeypatch.setattr(bootstrap.os, "getpid", lambda: 1)
        winner.append(load(tmp_path / "ca"))
        honest(path, data)

    monkeypatch.setattr(files, "write_public", slow)
    loser = load(tmp_path / "ca")
    assert loser.root_pin == winner[0].root_pin
    assert [entry.name for entry in tmp_path.iterdir()] == ["ca"]


def test_the_issuing_ca_is_rotated_at_half_life(tmp_path: Path) -> None:
    clock = MovableClock()
    made = load(tmp_path / "ca", clock)
    first = made.issuing()
    clock.advance(days=182)
    assert made.issuing() is first
    clock.advance(days=1)
    second = made.issuing()
    assert second.der != first.der
    assert second.certificate.subject != first.certificate.subject
    assert load(tmp_path / "ca", clock).issuing().der == second.der
    leaf = pki.make(
        signer=pki.Pair(first.key, first.certificate),
        not_before=clock.now,
        not_after=clock.now + timedelta(1),
    )
    chain.verify([leaf.der, first.der], made.bundle, clock.now.timestamp() + 1)


def test_the_root_key_may_be_taken_away(tmp_path: Path) -> None:
    clock = MovableClock()
    load(tmp_path / "ca", clock)
    (tmp_path / "ca" / "root.key").unlink()
    offline = load(tmp_path / "ca", clock)
    first = offline.issuing()
    clock.advance(days=300)
    assert offline.issuing() is first, "past half-life it goes on with what it has"
    clock.advance(days=66)
    with pytest.raises(BootstrapError, match="issuing CA has expired"):
        offline.issuing()


def test_damaged_files_are_named(tmp_path: Path) -> None:
    directory = tmp_path / "ca"
    load(directory)
    issuing = (directory / "issuing.pem").read_bytes()
    root = (directory / "root.crt").read_text()

    (directory / "root.key").chmod(0o644)
    with pytest.raises(BootstrapError, match="chmod 600"):
        load(directory)
    (directory / "root.key").chmod(0o600)

    files.write_private(directory / "issuing.pem", issuing[:50])
    with pytest.raises(BootstrapError, match=r"issuing\.pem"):
        load(directory)

    stranger = pki.make_ca()
    files.write_private(directory / "issuing.pem", stranger.key_pem + stranger.pem.encode())
    with pytest.raises(BootstrapError, match="not signed by"):
        load(directory)
    files.write_private(directory / "issuing.pem", issuing)

    files.write_public(directory / "root.crt", stranger.pem.encode())
    with pytest.raises(BootstrapError, match="do not belong together"):
        load(directory)
    files.write_public(directory / "root.crt", (root + root).encode())
    with pytest.raises(BootstrapError, match="2 certificates; expected one"):
        load(directory)
    files.write_public(directory / "root.crt", "é".encode())
    with pytest.raises(BootstrapError, match="CA in"):
        load(directory)
    files.write_public(directory / "root.crt", root.encode())
    assert split_pem(root) == load(directory).bundle.roots
