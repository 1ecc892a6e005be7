"""Every kind's configuration is one that the kind itself accepts, for every duty."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import get_args

import pytest

from bench import kinds, pki
from bench.kinds import Duty, Role
from bench.processes import free_ports
from proxy import bootstrap

CHECK = {
    "envoy": lambda argv: [*argv, "--mode", "validate"],
    "haproxy": lambda argv: [*argv, "-c"],
    "nginx": lambda argv: [*argv, "-t"],
}


def duty(role: Role, directory: Path, **options: bool) -> Duty:
    port, upstream, admin = free_ports(3)
    return Duty(role, port, upstream, admin, directory / "log", **options)


@pytest.mark.parametrize("pooled", [True, False])
@pytest.mark.parametrize("role", get_args(Role))
@pytest.mark.parametrize("name", kinds.NAMES)
def test_accepts_its_configuration(name: str, role: Role, pooled: bool, tmp_path: Path) -> None:
    kind = kinds.kind(name)
    lacking = kind.missing(role)
    if lacking is not None:
        # These two are no dependencies of Tulle; the message is what the benchmark would say.
        assert name in ("haproxy", "nginx") and "apt-get install" in lacking
        return
    pki.write(tmp_path)
    for _ in range(20):
        argv = kind.command(duty(role, tmp_path, pooled=pooled), tmp_path)
        if name == "tulle":
            bootstrap.load(Path(argv[argv.index("-c") + 1]))
            return
        done = subprocess.run(CHECK[name](argv), capture_output=True, text=True, check=False)
        # nginx binds its ports even in a check; another process may have taken one meanwhile.
        if "Address already in use" not in done.stderr:
            break
    assert done.returncode == 0, done.stdout + done.stderr


def test_pure_python_is_asked_for_by_its_variable(tmp_path: Path) -> None:
    argv = kinds.kind("tulle").command(duty("outbound", tmp_path, pure=True), tmp_path)
    assert argv[:2] == ["env", "TULLE_PURE_PYTHON=1"]


def test_says_what_to_install() -> None:
    assert kinds.absent("no-such-program", "a-package") == (
        "no-such-program is not installed (apt-get install a-package)"
    )
