"""Where the demo runs: pods with captured traffic in private namespaces, or plain processes on loopback.

Both start the same real programs with ``tulle``'s own commands. They tell no story and check nothing.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from control_plane.cli.demo.processes import DemoFailed, Popen, Process, Processes, first_line
from netns import namespace
from netns.pods import NetworkSpec, Pod, PodManager, PodSpec
from netns.spec import parse_address

NAMESPACE = "shop"
APP_PORT = 8080
MARK = 1337


def module(name: str, *arguments: str) -> list[str]:
    """The command line of one of the demo's own programs."""
    return [sys.executable, "-m", f"control_plane.cli.demo.{name}", *arguments]


def tulle(*arguments: str) -> list[str]:
    """The command line of ``tulle``."""
    return [sys.executable, "-m", "control_plane.cli.main", *arguments]


def http_get(url: str, *, method: str = "GET", timeout: float = 5.0) -> tuple[int, str]:
    """Status and body; never a proxy from the environment. Raises OSError."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, method=method), timeout=timeout) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@dataclass
class Workload:
    """One app, its sidecar, and where they live."""

    name: str
    account: str
    ip: str
    labels: Mapping[str, str]
    popen: Popen
    access_log: Path
    state_dir: Path
    pod: Pod | None = None
    app: Process | None = None
    sidecar: Process | None = None
    proxy_arguments: list[str] = field(default_factory=list)

    @property
    def spiffe_id(self) -> str:
        """What its certificate should say."""
        return f"spiffe://mesh.local/ns/{NAMESPACE}/sa/{self.account}"

    def log_records(self) -> list[dict[str, object]]:
        """The sidecar's access log so far, one dict a line."""
        try:
            lines = self.access_log.read_text().splitlines()
        except FileNotFoundError:
            return []
        return [dict(json.loads(line)) for line in lines if line.startswith("{")]


class World:
    """A control plane, a DNS server and workloads; everything ends with :meth:`close`."""

    captures = False

    def __init__(self, directory: Path, gateway: str, dns_port: int) -> None:
        self.directory = directory
        self.gateway = gateway
        self.dns_port = dns_port
        self.processes = Processes(directory / "logs")
        (directory / "logs").mkdir(parents=True)
        self.data_dir = directory / "control-plane"
        self.zone_file = directory / "legacy.test.zone"
        self.control_plane: Process | None = None
        self.dns: Process | None = None
        self.workloads: dict[str, Workload] = {}

    def close(self) -> None:
        """End every process and take the network down."""
        self.processes.stop_all()

    # The servers

    def start_control_plane(self, *options: str) -> None:
        """Start, or start again with the same data, and wait until the API answers."""
        self.control_plane = self.processes.start(
            "control-plane",
            tulle(
                "control-plane",
                *("--data-dir", str(self.data_dir)),
                *("--api-address", f"{self.gateway}:15017"),
                *("--xds-address", f"{self.gateway}:15012"),
                *("--monitoring", f"{self.gateway}:15014"),
                *("--dns-resolver", f"{self.gateway}:{self.dns_port}"),
                *options,
            ),
        )
        admin = self.data_dir / "admin.conf"
        self.control_plane.wait_until(
            lambda: admin.exists() and self._try_cli("get", "services"), "readiness"
        )

    def start_dns(self, zone: str) -> None:
        """Serve ``zone``."""
        self.zone_file.write_text(zone)
        self.dns = self.processes.start(
            "dns",
            [
                sys.executable,
                *("-m", "control_plane.dns", "--zone", str(self.zone_file)),
                *("--listen", f"{self.gateway}:{self.dns_port}"),
            ],
            stdout=subprocess.PIPE,
        )
        first_line(self.dns.popen.stdout, self.dns)

    # The user's hand

    def cli(self, *arguments: str, stdin: str | None = None) -> str:
        """Run ``tulle`` as the administrator; its output. Raises :class:`DemoFailed` with its error."""
        done = self._run_cli(*arguments, stdin=stdin)
        if done.returncode != 0:
            raise DemoFailed(f"tulle {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def apply(self, manifest: str, name: str) -> str:
        """``tulle apply`` of ``manifest``, written to a file of that name first."""
        path = self.directory / name
        path.write_text(manifest)
        return self.cli("apply", "-f", str(path))

    def wait_programmed(self, kind: str, name: str, *, sidecars: int = 1, timeout: float = 15.0) -> None:
        """Wait until every connected sidecar that got the object, at least so many, has acknowledged it."""
        assert self.control_plane is not None
        self.control_plane.wait_until(
            lambda: self._programmed(kind, name) >= sidecars, f"{kind}/{name} being programmed", timeout
        )

    def _programmed(self, kind: str, name: str) -> int:
        """How many sidecars have the object in force; -1 while some that got it have not."""
        status = json.loads(self.cli("get", kind, name, "-n", NAMESPACE, "-o", "json")).get("status", {})
        conditions = list(status.get("conditions", ()))
        for parent in status.get("parents", ()):
            conditions += parent.get("conditions", ())
        programmed = [c for c in conditions if c["type"] == "Programmed"]
        if not programmed or any(c["status"] != "True" for c in programmed):
            return -1
        return min(int(c["message"].partition("/")[0]) for c in programmed)

    def _run_cli(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            tulle(*arguments, "--config", str(self.data_dir / "admin.conf")),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )

    def _try_cli(self, *arguments: str) -> bool:
        return self._run_cli(*arguments).returncode == 0

    # Workloads

    def add_workload(self, name: str, account: str, labels: Mapping[str, str]) -> Workload:
        """A place for an app and its sidecar, not yet started."""
        raise NotImplementedError

    def add_bare(self, name: str) -> Workload:
        """A place for an app without a sidecar."""
        raise NotImplementedError

    def app_address(self, workload: Workload) -> str:
        """Where the app listens."""
        raise NotImplementedError

    def start_app(self, workload: Workload) -> None:
        """Start the demo's app there and wait until it listens."""
        workload.app = self.processes.start(
            f"{workload.name}.app",
            module("app", "--name", workload.name, "--listen", self.app_address(workload)),
            popen=workload.popen,
            stdout=subprocess.PIPE,
        )
        first_line(workload.app.popen.stdout, workload.app)

    def start_sidecar(self, workload: Workload) -> None:
        """Give it a join token the first time, start ``tulle proxy`` and wait until it is ready."""
        token_file = self.directory / f"{workload.name}.token"
        if not token_file.exists():
            token = self.cli(
                "token",
                "create",
                "--namespace",
                NAMESPACE,
                "--service-account",
                workload.account,
                "--ttl",
                "5m",
            )
            token_file.touch(mode=0o600)
            token_file.write_text(token.strip() + "\n")
        labels = [word for key, value in workload.labels.items() for word in ("--label", f"{key}={value}")]
        workload.sidecar = self.processes.start(
            f"{workload.name}.sidecar",
            tulle(
                "proxy",
                *("--control-plane", f"{self.gateway}:15012"),
                *("--token-file", str(token_file)),
                *("--namespace", NAMESPACE, "--service-account", workload.account, "--name", workload.name),
                *("--ip", workload.ip, "--state-dir", str(workload.state_dir)),
                *("--access-log", str(workload.access_log)),
                *("--readiness-address", f"{workload.ip}:15021", "--drain-time", "1"),
                *labels,
                *workload.proxy_arguments,
            ),
            popen=workload.popen,
        )
        workload.sidecar.wait_until(lambda: is_ready(workload), "readiness")

    def admin(self, workload: Workload, path: str, method: str = "GET") -> str:
        """Ask the sidecar's admin endpoint, which listens on the workload's own loopback."""
        raise NotImplementedError

    def request(self, workload: Workload, url: str, method: str = "GET") -> tuple[int, str]:
        """One HTTP request as the app of ``workload`` would send it."""
        raise NotImplementedError

    def traffic_arguments(self, workload: Workload) -> list[str]:
        """What the load generator needs beside the URL to send from ``workload``."""
        return []


def is_ready(workload: Workload) -> bool:
    """Whether its sidecar says so."""
    try:
        return http_get(f"http://{workload.ip}:15021/healthz/ready", timeout=1.0)[0] == 200
    except OSError:
        return False


class PodWorld(World):
    """Pods on a bridge in this process's own network namespace; their TCP is captured into the sidecars."""

    captures = True
    bridge = "tulle0"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, "10.42.0.1", 53)
        self.pods = PodManager(directory / "pods", NetworkSpec.of("10.42.0.0/24", bridge=self.bridge))

    def close(self) -> None:
        super().close()
        self.pods.delete_all()

    def add_workload(self, name: str, account: str, labels: Mapping[str, str]) -> Workload:
        pod = self.pods.add(PodSpec(name, dns=(parse_address(self.gateway, "gateway"),)))
        return self._register(name, account, labels, pod)

    def add_bare(self, name: str) -> Workload:
        return self._register(name, "", {}, self.pods.add(PodSpec(name, capture=None)))

    def _register(self, name: str, account: str, labels: Mapping[str, str], pod: Pod) -> Workload:
        workload = Workload(
            name=name,
            account=account,
            ip=pod.ips[0],
            labels=labels,
            popen=pod.popen,
            access_log=self.directory / "logs" / f"{name}.access.log",
            state_dir=self.directory / "state" / name,
            pod=pod,
            proxy_arguments=["--interception-mode", "REDIRECT", "--capture-mark", str(MARK)],
        )
        self.workloads[name] = workload
        return workload

    def app_address(self, workload: Workload) -> str:
        return f"0.0.0.0:{APP_PORT}"

    def admin(self, workload: Workload, path: str, method: str = "GET") -> str:
        assert workload.pod is not None
        status, body = namespace.run_in(
            workload.pod.netns_path, lambda: http_get(f"http://127.0.0.1:15000{path}", method=method)
        )
        if status >= 400:
            raise DemoFailed(f"{workload.name}: admin {method} {path} answered {status}: {body}")
        return body

    def request(self, workload: Workload, url: str, method: str = "GET") -> tuple[int, str]:
        return self._request(workload, module("fetch", "--method", method, url))

    def _request(self, workload: Workload, argv: Sequence[str]) -> tuple[int, str]:
        return run_fetch(workload.popen, argv)


class LoopbackWorld(World):
    """Plain processes, each workload on a loopback address of its own, its sidecar on explicit listeners."""

    def __init__(self, directory: Path) -> None:
        # Two demos at once must not take each other's ports.
        subnet = f"127.{random.randrange(32, 224)}.{random.randrange(256)}"
        super().__init__(directory, f"{subnet}.1", 15353)
        self.subnet = subnet

    def _register(self, name: str, account: str, labels: Mapping[str, str]) -> Workload:
        ip = f"{self.subnet}.{len(self.workloads) + 2}"
        app = f"{ip}:{APP_PORT}"
        workload = Workload(
            name=name,
            account=account,
            ip=ip,
            labels=labels,
            popen=subprocess.Popen,
            access_log=self.directory / "logs" / f"{name}.access.log",
            state_dir=self.directory / "state" / name,
            proxy_arguments=[
                *("--interception-mode", "NONE", "--admin-address", f"{ip}:15000"),
                *("--outbound-bind", f"{ip}:15001", "--inbound", f"{ip}:15006={app},name=http,protocol=HTTP"),
            ],
        )
        self.workloads[name] = workload
        return workload

    def add_workload(self, name: str, account: str, labels: Mapping[str, str]) -> Workload:
        return self._register(name, account, labels)

    def add_bare(self, name: str) -> Workload:
        return self._register(name, "", {})

    def app_address(self, workload: Workload) -> str:
        return f"{workload.ip}:{APP_PORT}"

    def admin(self, workload: Workload, path: str, method: str = "GET") -> str:
        status, body = http_get(f"http://{workload.ip}:15000{path}", method=method)
        if status >= 400:
            raise DemoFailed(f"{workload.name}: admin {method} {path} answered {status}: {body}")
        return body

    def request(self, workload: Workload, url: str, method: str = "GET") -> tuple[int, str]:
        argv = module("fetch", "--method", method, *self.traffic_arguments(workload), url)
        return run_fetch(workload.popen, argv)

    def traffic_arguments(self, workload: Workload) -> list[str]:
        return ["--connect", f"{workload.ip}:15001"]


def run_fetch(popen: Popen, argv: Sequence[str]) -> tuple[int, str]:
    """Run the ``fetch`` program; the status and body that it prints."""
    child = popen(list(argv), stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
    out, err = child.communicate(timeout=30)
    if child.returncode != 0:
        raise DemoFailed(f"the request failed: {err.decode().strip()}")
    answer = json.loads(out)
    return int(answer["status"]), str(answer["body"])
