"""``tulle pod`` and ``tulle unshare`` as commands: output, exit statuses, and one clear line on failure."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from netns.pods import PodManager
from tests.support.pods import picture

pytestmark = pytest.mark.netns
TULLE = [sys.executable, "-m", "control_plane.cli.main"]
SUBNETS = ["--subnet", "10.1.0.0/24", "--subnet", "fd00:1::/64"]


def tulle(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TULLE, *words], capture_output=True, text=True, timeout=30, **options)


def test_add_list_delete() -> None:
    tulle("pod", "add", "warm", *SUBNETS)
    tulle("pod", "del", "warm")
    before = picture()
    added = tulle("pod", "add", "web", *SUBNETS)
    assert (added.stdout, added.stderr, added.returncode) == ("10.1.0.2\nfd00:1::2\n", "", 0)
    assert tulle("pod", "add", "web").stdout == added.stdout
    assert tulle("pod", "add", "db", "--no-capture", "--ip", "10.1.0.9").stdout == "10.1.0.9\nfd00:1::3\n"
    assert tulle("pod", "ls").stdout.splitlines() == [
        "NAME   NETWORK   IPS                  CAPTURE   STATE   NAMESPACE",
        "db     default   10.1.0.9,fd00:1::3   no        Ready   /run/netns/db",
        "web    default   10.1.0.2,fd00:1::2   yes       Ready   /run/netns/web",
    ]
    listing = json.loads(tulle("pod", "ls", "-o", "json").stdout)
    assert listing[0] == {
        "name": "db",
        "network": "default",
        "ips": ["10.1.0.9", "fd00:1::3"],
        "netns": "/run/netns/db",
        "interface": listing[0]["interface"],
        "capture": False,
        "state": "Ready",
    }
    assert tulle("pod", "del", "web").stdout == "deleted web\n"
    again = tulle("pod", "del", "web")
    assert (again.stdout, again.stderr, again.returncode) == ("", "no pod web\n", 0)
    assert tulle("pod", "del", "--all").stdout == "deleted db\n"
    assert picture() == before
    assert tulle("pod", "ls", "-o", "json").stdout == "[]\n"


def test_options_reach_the_pod() -> None:
    added = tulle(
        *["pod", "add", "web", "--network", "blue", "--subnet", "10.5.0.0/24", "--gateway", "10.5.0.254"],
        *["--mtu", "1300", "--bridge", "blue0", "--no-masquerade", "--capture-mark", "99"],
        *["--exclude-inbound-ports", "22,2222", "--exclude-outbound-ports", "25", "--exclude-outbound-cidrs"],
        *[
            "192.0.2.0/24,2001:db8::/32",
            "--dns",
            "10.5.0.254",
            "--search",
            "mesh.local",
            "--host",
            "db=10.5.0.3",
        ],
    )
    assert (added.stdout, added.stderr) == ("10.5.0.1\n", "")
    script = (
        "cat /etc/resolv.conf /etc/hosts; cd /usr/sbin; ./ip route; ./ip link show eth0; ./nft list ruleset"
    )
    shown = tulle("pod", "exec", "web", "--", "sh", "-c", script).stdout
    for words in (
        "default via 10.5.0.254 dev eth0",
        "mtu 1300",
        "tcp dport { 22, 2222, 15021, 15090 } return",
        "tcp dport 25 return",
        "ip daddr 192.0.2.0/24 return",
        "ip6 daddr 2001:db8::/32 return",
        "meta mark 0x00000063 return",
        "nameserver 10.5.0.254",
        "search mesh.local",
        "10.5.0.3 db",
    ):
        assert words in shown
    host = subprocess.run(
        ["/usr/sbin/nft", "list", "ruleset"], capture_output=True, text=True, check=True
    ).stdout
    assert "masquerade-blue0" in host
    assert " masquerade\n" not in host


def test_exec_hands_the_exit_status_and_signals_through() -> None:
    tulle("pod", "add", "web", *SUBNETS)
    assert tulle("pod", "exec", "web", "--", "sh", "-c", "exit 7").returncode == 7
    assert tulle("pod", "exec", "web", "cat", "--", "/etc/hostname").returncode == 0
    assert tulle("pod", "exec", "web", "--", "no-such-command").returncode == 127
    process = subprocess.Popen(
        [*TULLE, "pod", "exec", "web", "--", "sh", "-c", "echo up; exec sleep 100"], stdout=-1
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == -signal.SIGTERM


def test_exec_into_no_pod() -> None:
    tulle("pod", "add", "web", *SUBNETS)
    done = tulle("pod", "exec", "wbe", "--", "true")
    assert (done.returncode, done.stderr) == (125, "tulle: no pod wbe (there are: web)\n")


def test_concurrent_commands_get_different_addresses() -> None:
    running = [
        subprocess.Popen([*TULLE, "pod", "add", f"p{number}", *SUBNETS], stdout=-1, text=True)
        for number in range(6)
    ]
    printed = [process.communicate(timeout=60)[0] for process in running]
    assert [process.returncode for process in running] == [0] * 6
    assert len({line for text in printed for line in text.split()}) == 12


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a b"], "pod name 'a b': at most 200 letters"),
        (["a", "--ip", "10.1.0.300"], "--ip: '10.1.0.300' is not an IPv4 or IPv6 address"),
        (["a", *SUBNETS, "--ip", "10.1.0.1"], "address 10.1.0.1 is the gateway of network default"),
        (
            ["a", *SUBNETS, "--ip", "10.2.0.1"],
            "address 10.2.0.1 is not in network default (10.1.0.0/24, fd00:1::/64)",
        ),
        (["a", "--subnet", "10.1.0.1/24"], "subnet: '10.1.0.1/24' is not a CIDR"),
        (["a", "--gateway", "10.1.0.1"], "--gateway needs --subnet"),
        (["a", *SUBNETS, "--gateway", "10.9.0.1"], "--gateway 10.9.0.1 is in no --subnet"),
        (["a", "--network", "blue"], "network blue does not exist yet: give its ranges with --subnet"),
        (
            ["a", "--no-capture", "--capture-mark", "3"],
            "--capture-mark says how to capture, but --no-capture is given",
        ),
        (["a", "--exclude-inbound-ports", "22,ssh"], "--exclude-inbound-ports: 'ssh' is not a port"),
        (
            ["a", "--exclude-outbound-ports", "70000"],
            "excluded outbound ports: 70000 is not a port (1-65535)",
        ),
        (["a", "--host", "db"], "--host 'db': write NAME=ADDRESS"),
        (["a", "--search", "x"], "pod a: search domains need at least one DNS server"),
        (["a", *SUBNETS, "--mtu", "1000"], "network default: MTU 1000 is not in 1280-65535"),
        (["a", "--bridge", "much-too-long-for-linux"], "bridge name 'much-too-long-for-linux'"),
    ],
)
def test_bad_options_are_one_clear_line(words: list[str], message: str) -> None:
    done = tulle("pod", "add", *words)
    assert done.returncode == 1
    assert done.stderr.startswith(f"tulle: {message}")
    assert done.stderr.count("\n") == 1
    assert PodManager().list() == ()


def test_without_privilege() -> None:
    dropped = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *TULLE]
    done = subprocess.run([*dropped, "pod", "add", "web"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert done.stderr == (
        "tulle: pods need CAP_NET_ADMIN and CAP_SYS_ADMIN: run as root, or without root inside `tulle unshare`\n"
    )


def test_without_nft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from netns import capabilities, nft

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(nft, "_MORE_DIRECTORIES", ())
    can = capabilities.probe()
    assert (can.nft, can.redirect, can.capture, can.pods_here) == (None, False, False, False)
    looked = "looked in PATH, /usr/sbin, /sbin, /usr/local/sbin"
    line = f"the nft command is missing ({looked}): install the package nftables"
    assert can.reasons == (line,)
    with pytest.raises(capabilities.NetnsError) as caught:
        capabilities.require()
    assert str(caught.value) == line


def test_user_namespaces_forbidden() -> None:
    from netns.capabilities import probe

    Path("/proc/sys/user/max_user_namespaces").write_text("0")
    done = tulle("unshare", "--", "true")
    assert done.returncode == 125
    assert done.stderr.startswith(
        "tulle: cannot create a user namespace: No space left on device: user namespaces are"
    )
    can = probe()
    assert (can.userns, can.pods_here, can.capture) == (False, True, True)
    assert "user namespaces are forbidden here" in can.reasons[0]


def test_probe_with_everything() -> None:
    from netns.capabilities import probe

    can = probe()
    assert (can.root, can.userns, can.net_admin, can.sys_admin, can.redirect, can.reasons) == (
        *[True] * 5,
        (),
    )
    assert (can.pods_here, can.capture) == (True, True)


def test_kernel_that_cannot_redirect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from netns.capabilities import probe

    broken = tmp_path / "nft"
    broken.write_text("#!/bin/sh\necho 'Could not process rule: No such file or directory' >&2; exit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    can = probe()
    assert (can.userns, can.redirect, can.capture) == (True, False, False)
    assert can.reasons == (
        "this kernel cannot redirect connections: nft refused the rules: "
        "Could not process rule: No such file or directory",
    )


def test_unshare_furnishes_a_namespace() -> None:
    script = "id -u; cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding; ls -A /run"
    done = tulle("unshare", "--", "sh", "-c", f"{script}; /usr/sbin/ip -br link; exit 3")
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout.split()[:6] == ["0", "1", "1", "lo", "UNKNOWN", "00:00:00:00:00:00"]
    assert len(done.stdout.splitlines()) == 4


def test_unshare_runs_pod_commands_and_leaves_nothing_here() -> None:
    before = picture()
    command = " ".join(TULLE)
    script = f"{command} pod add web {' '.join(SUBNETS)} && {command} pod exec web -- /usr/sbin/ip -o -4 addr show eth0"
    done = tulle("unshare", "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    assert "10.1.0.2/24" in done.stdout
    assert picture() == before


def test_unshare_starts_the_users_shell() -> None:
    done = tulle("unshare", env=os.environ | {"SHELL": "/bin/sh"}, input="echo $0; exit 4\n")
    assert (done.stdout, done.returncode) == ("/bin/sh\n", 4)


def test_unwritable_state_directory() -> None:
    done = tulle("pod", "add", "web", "--state-dir", "/proc/tulle")
    assert done.returncode == 1
    assert (
        done.stderr
        == "tulle: cannot lock /proc/tulle/lock: No such file or directory; choose another --state-dir\n"
    )
