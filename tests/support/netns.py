"""Tests that run in network namespaces of their own: the ``netns`` marker.

    @pytest.mark.netns              # fresh user, network and mount namespaces, as root of them
    @pytest.mark.netns(user=False)  # network and mount namespaces only, as the real root; skipped when not root

``tests/conftest.py`` takes the hook below from here, and nothing more is needed. The marked tests of a module run in
a pytest process of their own, each in a fork of it that has first entered fresh namespaces
(``netns.namespace.enter_user_namespace``: empty tmpfs on /run, ``lo`` up, forwarding on, no duplicate address
detection). Fixtures of any scope are made in that fork; parameters, asyncio and assertions work as usual, and
``netns.pods.PodManager`` with its default directories is at the test's disposal. The report, its output included,
appears as if the test had run here. Nothing can touch the machine's own namespaces, and the kernel removes everything
with the last process. Works for root and for ordinary users; where the machine lacks something the test is skipped
with the reason, or fails when TULLE_REQUIRE_NETNS is set.

A test that takes longer than 120 s (``netns(timeout=300)`` for more) is killed, and processes of its session that it
leaves behind are killed in any case.

It must not know what the tests do.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

import pytest
from _pytest.runner import runtestprotocol

from netns import capabilities, namespace
from netns.errors import NetnsError

_REPORTS = "TULLE_TEST_REPORTS"
_ROOT = Path(__file__).resolve().parents[2]
_RESULTS = pytest.StashKey[dict[str, list[pytest.TestReport]]]()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Run a marked item in namespaces of its own and log its reports here."""
    if item.get_closest_marker("netns") is None:
        return None
    reports_file = os.environ.get(_REPORTS)
    if reports_file is not None:
        _run_forked(item, Path(reports_file))
        return True
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in _reports(item):
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    # An unmarked item before this one left its collectors set up for it; the next one may have others.
    item.session._setupstate.teardown_exact(nextitem)
    return True


@functools.cache
def unavailable(user: bool) -> str:
    """Why tests cannot have such namespaces here; empty when they can."""
    can = capabilities.probe()
    if user and not can.userns:
        return "no user namespaces: " + "; ".join(can.reasons)
    if not user and not (can.root and can.net_admin and can.sys_admin):
        return "only for root with CAP_NET_ADMIN and CAP_SYS_ADMIN"
    return "" if can.redirect else "; ".join(can.reasons)


def _is_user(item: pytest.Item) -> bool:
    marker = item.get_closest_marker("netns")
    assert marker is not None
    return bool(marker.kwargs.get("user", True))


def _reports(item: pytest.Item) -> list[pytest.TestReport]:
    user = _is_user(item)
    reason = unavailable(user)
    if reason and user and "TULLE_REQUIRE_NETNS" in os.environ:
        return [_outcome(item, "failed", reason)]
    if reason:
        return [_outcome(item, "skipped", (str(item.path), 0, f"Skipped: {reason}"))]
    results = item.session.stash.setdefault(_RESULTS, {})
    if item.nodeid not in results:
        results.update(_run_module(item))
    return results[item.nodeid]


def _run_module(item: pytest.Item) -> dict[str, list[pytest.TestReport]]:
    """Reports of all marked items of the item's module, by node id."""
    items = [
        each
        for each in item.session.items
        if each.path == item.path
        and each.get_closest_marker("netns") is not None
        and not unavailable(_is_user(each))
    ]
    with tempfile.TemporaryDirectory(prefix="tulle-netns-") as directory:
        reports = Path(directory, "reports")
        reports.touch()
        arguments = ["-q", "--color=no", f"--basetemp={directory}/tmp", f"--rootdir={_ROOT}"]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *arguments, *(each.nodeid for each in items)],
            cwd=_ROOT,
            env=os.environ | {_REPORTS: str(reports)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        results: dict[str, list[pytest.TestReport]] = {}
        for line in reports.read_text().splitlines():
            report = pytest.TestReport._from_json(json.loads(line))
            results.setdefault(report.nodeid, []).append(report)
        problem = f"pytest ended with status {done.returncode}\n{done.stdout.decode(errors='replace')}"
        return {
            each.nodeid: results.get(each.nodeid) or [_outcome(each, "failed", problem)] for each in items
        }


def _run_forked(item: pytest.Item, reports_file: Path) -> None:
    marker = item.get_closest_marker("netns")
    assert marker is not None
    timeout = float(marker.kwargs.get("timeout", 120))
    before = reports_file.stat().st_size
    pid = os.fork()
    if pid == 0:
        _run_in_namespace(item, reports_file)
    pidfd = os.pidfd_open(pid)
    ended, _, _ = select.select([pidfd], [], [], timeout)
    os.close(pidfd)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if reports_file.stat().st_size == before:
        code = os.waitstatus_to_exitcode(status)
        problem = f"the test's process ended with status {code}" if ended else f"killed after {timeout:g} s"
        _write(reports_file, [_outcome(item, "failed", problem)])


def _run_in_namespace(item: pytest.Item, reports_file: Path) -> NoReturn:
    status = 1
    try:
        os.setsid()
        try:
            if _is_user(item):
                namespace.enter_user_namespace()
            else:
                namespace.enter_private_namespace()
        except NetnsError as error:
            reports = [_outcome(item, "failed", str(error))]
        else:
            reports = runtestprotocol(item, log=False, nextitem=None)
        _write(reports_file, reports)
        status = 0
    finally:
        # The forked pytest must not go on with the session, whatever happened.
        os._exit(status)


def _write(path: Path, reports: list[pytest.TestReport]) -> None:
    with path.open("a") as file:
        for report in reports:
            file.write(json.dumps(report._to_json()) + "\n")


def _outcome(item: pytest.Item, outcome: str, text: object) -> pytest.TestReport:
    keywords = dict.fromkeys(item.keywords, 1)
    return pytest.TestReport(item.nodeid, item.location, keywords, outcome, text, "call")  # type: ignore[arg-type]
