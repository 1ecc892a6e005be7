"""The demo's story, chapter by chapter. Each one does something real, measures it, and says what was seen."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence

from control_plane.cli.demo import manifests
from control_plane.cli.demo.processes import DemoFailed, first_line
from control_plane.cli.demo.screen import Screen
from control_plane.cli.demo.traffic import Traffic
from control_plane.cli.demo.worlds import APP_PORT, NAMESPACE, PodWorld, Workload, World, module

WEB = "http://web.shop.mesh.local/"
PAY = "http://pay.legacy.test/"
SECRET = "open-sesame"
LOG_FIELDS: Sequence[str] = (
    "start_time",
    "method",
    "path",
    "authority",
    "response_code",
    "response_flags",
    "response_code_details",
    "duration",
    "request_id",
    "route_name",
    "upstream_cluster",
    "upstream_host",
    "downstream_peer_uri_san",
    "upstream_peer_uri_san",
)


class Story:
    """Tells it on ``screen``, in ``world``."""

    def __init__(self, world: World, screen: Screen) -> None:
        self.world = world
        self.screen = screen
        self.traffics: list[Traffic] = []

    def tell(self) -> None:
        """All chapters. Raises :class:`DemoFailed` where one cannot go on."""
        self.identities()
        self.a_requests_way()
        self.the_wire()
        self.the_split()
        self.srv()
        self.policy()
        self.rotation()
        self.without_control_plane()

    def traffic(self, source: Workload, url: str, rate: float) -> Traffic:
        """Steady requests from ``source``."""
        arguments = ["--url", url, "--rate", str(rate), *self.world.traffic_arguments(source)]
        process = self.world.processes.start(
            f"load-{len(self.traffics)}",
            module("load", *arguments),
            popen=source.popen,
            stdout=subprocess.PIPE,
        )
        traffic = Traffic(process)
        self.traffics.append(traffic)
        return traffic

    @property
    def client(self) -> Workload:
        return self.world.workloads["client"]

    def identities(self) -> None:
        """Control plane, pods, apps, sidecars, and who they are."""
        self.screen.chapter(
            "A mesh starts, and every workload gets an identity",
            "The control plane makes a certificate authority. Each sidecar makes its own key, shows a one-time join "
            "token and gets a certificate that names its service account (SPIFFE). The key never leaves the pod.",
        )
        world = self.world
        began = time.monotonic()
        for name, account, labels in (
            ("client", "client", {"app": "client"}),
            ("web-v1", "web", {"app": "web", "version": "v1"}),
            ("web-v2", "web", {"app": "web", "version": "v2"}),
            ("intruder", "intruder", {"app": "intruder"}),
        ):
            world.add_workload(name, account, labels)
        for name in ("pay-a", "pay-b", "pay-c"):
            world.add_bare(name)
        world.start_control_plane()
        self.screen.command("tulle control-plane --data-dir", str(world.data_dir))
        world.apply(manifests.SERVICES, "services.yaml")
        self.screen.command("tulle apply -f services.yaml")
        self._start_dns()
        for workload in world.workloads.values():
            if workload.account not in ("client", "intruder"):
                world.start_app(workload)
        self.screen.command("tulle token create --namespace shop --service-account web --ttl 5m")
        self.screen.command(
            "tulle proxy --token-file web-v1.token --namespace shop --service-account web ..."
        )
        rows = []
        meshed = [w for w in world.workloads.values() if w.account]
        for workload in meshed:
            world.start_sidecar(workload)
            certificate = own_certificate(world, workload)
            rows.append((workload.name, workload.ip, certificate["uri"], certificate["valid_until"]))
        self.screen.table(("workload", "address", "identity (SPIFFE ID)", "certificate until"), rows)
        right = all(row[2] == workload.spiffe_id for row, workload in zip(rows, meshed, strict=True))
        self.screen.result(
            "identity",
            f"{len(rows)} workloads enrolled, each with a certificate of its own, in "
            f"{time.monotonic() - began:.1f} s from nothing",
            right,
        )

    def _start_dns(self) -> None:
        ip = {name: workload.ip for name, workload in self.world.workloads.items()}
        zone = manifests.zone(
            {"web.shop.mesh.local": "10.96.0.10", "pay.legacy.test": "10.96.200.1"},
            {
                "pay-a": (10, 30, ip["pay-a"], APP_PORT),
                "pay-b": (10, 10, ip["pay-b"], APP_PORT),
                "pay-c": (20, 10, ip["pay-c"], APP_PORT),
            },
        )
        self.world.start_dns(zone)

    def a_requests_way(self) -> None:
        """One request and its two log lines."""
        self.screen.chapter(
            "A request's way",
            "The client's app speaks plain HTTP. Its sidecar takes the connection, finds the service, opens mutual "
            "TLS to the other sidecar; that one checks who is calling and hands the request to its app.",
        )
        self.world.wait_programmed("service", "web")
        status, body = self.world.request(self.client, f"{WEB}hello")
        self.screen.command(f"curl {WEB}hello")
        self.screen.say(body)
        served_by = json.loads(body)["served-by"] if status == 200 else ""
        self._await_record(self.client, "/hello")
        outbound = self._await_record(self.client, "/hello")
        self.screen.log_line("the client's sidecar (outbound)", outbound, LOG_FIELDS)
        inbound = self._await_record(self.world.workloads[served_by], "/hello") if served_by else {}
        self.screen.log_line("the server's sidecar (inbound)", inbound, LOG_FIELDS)
        caller = inbound.get("downstream_peer_uri_san")
        same = bool(outbound.get("request_id")) and outbound.get("request_id") == inbound.get("request_id")
        self.screen.result(
            "a request's way",
            f"one request, two log lines with one request id; the server's sidecar verified the caller: {caller}",
            status == 200 and same and caller == self.client.spiffe_id,
        )

    def _await_record(self, workload: Workload, path: str) -> dict[str, object]:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            for record in reversed(workload.log_records()):
                if record.get("path") == path:
                    return record
            time.sleep(0.02)
        raise DemoFailed(f"no access-log line for {path} in {workload.access_log}")

    def the_wire(self) -> None:
        """What an eavesdropper sees, and what an intruder without a certificate gets."""
        self.screen.chapter(
            "What is on the wire",
            "Someone listens on the bridge between the pods while the client sends a secret; and someone without a "
            "certificate dials the server directly.",
        )
        web = self.world.workloads["web-v1"]
        if isinstance(self.world, PodWorld):
            tap = self.world.processes.start(
                "wiretap",
                module(
                    "wiretap", "--interface", self.world.bridge, "--port", str(APP_PORT), "--needle", SECRET
                ),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            first_line(tap.popen.stdout, tap)
            for _ in range(10):
                self.world.request(self.client, f"{WEB}?secret={SECRET}")
            out, _ = tap.popen.communicate(timeout=20)
            seen = json.loads(out)
            self.screen.say(
                f"  {seen['frames']} segments with {seen['bytes']} bytes on port {APP_PORT}; TLS records: "
                f"{seen['tls_records']}; plain HTTP: {seen['plaintext_http']}; sightings of the secret: "
                f"{seen['needles']}"
            )
            self.screen.say(
                f"  one of them begins: [dim]{seen['sample']} ...[/dim]  (17 03 03 = TLS application data)"
            )
            self.screen.result(
                "the wire carries TLS",
                f"{seen['tls_records'].get('application_data', 0)} TLS records captured on the bridge, the secret "
                f"seen {seen['needles']} times, plain HTTP {seen['plaintext_http']} times",
                seen["tls_records"].get("application_data", 0) > 0
                and not seen["needles"]
                and not seen["plaintext_http"],
            )
            target = f"{web.ip}:{APP_PORT}"
            stranger = self.world.workloads["pay-a"]
        else:
            target = f"{web.ip}:15006"
            stranger = self.world.workloads["pay-a"]
            self.screen.say("  (no packet capture: that needs the pods' namespaces)")
        refused = plaintext_refused(stranger, target)
        self.screen.result(
            "plaintext is refused",
            f"plain HTTP straight to {target} (STRICT): {refused or 'answered!'}",
            bool(refused),
        )

    def the_split(self) -> None:
        """A route shifted while traffic flows."""
        self.screen.chapter(
            "A route shifts under traffic",
            "An HTTPRoute splits web between its two versions. It is changed while 200 requests a second flow.",
        )
        traffic = self.traffic(self.client, WEB, 200)
        failed = 0
        for v1, v2 in ((90, 10), (50, 50)):
            manifest = manifests.route(v1, v2)
            if v1 == 90:
                self.screen.yaml(manifest)
            self.world.apply(manifest, "route.yaml")
            self.screen.command(f"tulle apply -f route.yaml   # {v1}/{v2}")
            self.world.wait_programmed("httproute", "web")
            counts = traffic.collect(600)
            failed += traffic.before.failed + counts.failed
            share = counts.share("web-v1")
            self.screen.result(
                f"split {v1}/{v2}",
                f"measured over {counts.ok} requests: {share:.1%} to v1, {counts.share('web-v2'):.1%} to v2",
                abs(share - v1 / 100) < 0.08,
            )
        traffic.stop()
        self.screen.result("no request failed in the shift", f"{failed} failed", failed == 0)

    def srv(self) -> None:
        """SRV weights, then failover by priority."""
        self.screen.chapter(
            "Discovery by DNS SRV",
            "A service outside the mesh is known only by its SRV records: two targets of priority 10 with weights "
            "30 and 10, and one of priority 20 for bad days.",
        )
        for line in self.world.zone_file.read_text().splitlines():
            if " SRV " in line:
                self.screen.say(f"  [dim]{line}[/dim]")
        self.world.apply(self._srv_manifest(), "pay.yaml")
        self.screen.command("tulle apply -f pay.yaml   # ServiceEntry, resolution: DNS_SRV")
        self.world.wait_programmed("serviceentry", "pay")
        traffic = self.traffic(self.client, PAY, 200)
        self._await_answers(traffic)
        counts = traffic.collect(600)
        share = counts.share("pay-a")
        self.screen.result(
            "SRV weights",
            f"30:10 measured over {counts.ok} requests: {share:.1%} / {counts.share('pay-b'):.1%}, "
            f"priority 20: {counts.by['pay-c']}",
            abs(share - 0.75) < 0.08 and counts.by["pay-c"] == 0 and counts.failed == 0,
        )
        for name in ("pay-a", "pay-b"):
            app = self.world.workloads[name].app
            assert app is not None
            app.kill()
            self.screen.command(f"kill -9 {name}")
        lost = traffic.collect(100)
        lost.errors += traffic.before.errors
        counts = traffic.collect(200)
        self.screen.result(
            "SRV failover by priority",
            f"both targets of priority 10 are dead: {counts.share('pay-c'):.0%} to priority 20; requests lost in the "
            f"failover: {lost.failed + counts.failed}",
            counts.share("pay-c") > 0.99 and counts.failed == 0,
        )
        traffic.stop()
        for name in ("pay-a", "pay-b"):
            self.world.start_app(self.world.workloads[name])

    def _srv_manifest(self) -> str:
        return manifests.SRV_SERVICE

    def _await_answers(self, traffic: Traffic) -> None:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            counts = traffic.collect(20)
            if counts.failed == 0 and not any(name.isdigit() for name in counts.by):
                return
        raise DemoFailed(f"{PAY} does not answer: {counts.by} {counts.errors}")

    def policy(self) -> None:
        """A caller denied."""
        self.screen.chapter(
            "Who may call whom",
            "An AuthorizationPolicy lets only the client's identity GET from web. The intruder has a valid "
            "certificate of the mesh, but the wrong name in it.",
        )
        intruder = self.world.workloads["intruder"]
        before = self.world.request(intruder, f"{WEB}before")[0]
        self.world.apply(manifests.POLICY, "policy.yaml")
        self.screen.yaml(manifests.POLICY)
        self.screen.command("tulle apply -f policy.yaml")
        self.world.wait_programmed("authorizationpolicy", "only-the-client")
        denied, body = self.world.request(intruder, f"{WEB}vault")
        allowed = self.world.request(self.client, f"{WEB}vault")[0]
        posted = self.world.request(self.client, f"{WEB}vault", method="POST")[0]
        self.screen.table(
            ("caller", "request", "answer"),
            (
                ("intruder", "GET, before the policy", str(before)),
                ("intruder", "GET", f"{denied} {body.strip()}"),
                ("client", "GET", str(allowed)),
                ("client", "POST", str(posted)),
            ),
        )
        record = self._denial()
        self.screen.log_line("the server's sidecar", record, LOG_FIELDS)
        self.screen.result(
            "policy on identity",
            f"intruder {before} -> {denied}, client GET {allowed}, client POST {posted}",
            (before, denied, allowed, posted) == (200, 403, 200, 403),
        )

    def _denial(self) -> dict[str, object]:
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            for name in ("web-v1", "web-v2"):
                for record in self.world.workloads[name].log_records():
                    if record.get("response_code") == 403 and record.get("path") == "/vault":
                        return record
            time.sleep(0.02)
        raise DemoFailed("no access-log line of the denied request")

    def rotation(self) -> None:
        """Certificates renewed under traffic."""
        self.screen.chapter(
            "A certificate rotates under traffic",
            "Certificates live 24 hours and are renewed at half-life. Here all are renewed now, while requests flow: "
            "new handshakes use the new one, open connections go on.",
        )
        traffic = self.traffic(self.client, WEB, 200)
        traffic.collect(100)
        rows = []
        changed = True
        for name in ("client", "web-v1", "web-v2"):
            workload = self.world.workloads[name]
            old = own_certificate(self.world, workload)["serial_number"]
            self.world.admin(workload, "/certs/renew", "POST")
            assert workload.sidecar is not None
            workload.sidecar.wait_until(
                lambda w=workload, o=old: own_certificate(self.world, w)["serial_number"] != o,  # type: ignore[misc]
                "renewal",
            )
            new = own_certificate(self.world, workload)["serial_number"]
            changed = changed and new != old
            rows.append((name, old[:16], new[:16]))
        self.screen.command("curl -X POST localhost:15000/certs/renew")
        self.screen.table(("workload", "old serial", "new serial"), rows)
        after = traffic.collect(200)
        before = traffic.before
        traffic.stop()
        self.screen.result(
            "rotation",
            f"{len(rows)} certificates replaced; {before.ok + after.ok} requests meanwhile and after, "
            f"{before.failed + after.failed} failed",
            changed and before.failed + after.failed == 0,
        )

    def without_control_plane(self) -> None:
        """The control plane dies; the data plane does not notice."""
        self.screen.chapter(
            "The control plane dies",
            "It is killed with SIGKILL under traffic. The sidecars go on with what they know; even one that is "
            "restarted meanwhile comes back from its last good configuration on disk.",
        )
        control_plane = self.world.control_plane
        assert control_plane is not None
        traffic = self.traffic(self.client, WEB, 200)
        traffic.collect(50)
        os.kill(control_plane.popen.pid, signal.SIGKILL)
        control_plane.popen.wait()
        self.screen.command("kill -9 <control plane>")
        dead = traffic.collect(400)
        dead.errors += traffic.before.errors
        self.screen.result(
            "no control plane, no problem",
            f"{dead.ok} requests answered without it, {dead.failed} failed",
            dead.ok > 0 and dead.failed == 0,
        )
        web = self.world.workloads["web-v2"]
        assert web.sidecar is not None
        web.sidecar.stop()
        self.world.start_sidecar(web)
        again = traffic.collect(200)
        self.screen.result(
            "a sidecar restarts without it",
            f"web-v2's sidecar restarted from disk ({traffic.before.failed} of its requests failed meanwhile), now "
            f"serves {again.share('web-v2'):.0%} of {again.ok} requests, "
            f"{again.failed} failed",
            again.share("web-v2") > 0.2 and again.failed == 0,
        )
        self.world.start_control_plane()
        self.screen.command("tulle control-plane   # again, with the same data")
        self.world.apply(manifests.route(0, 100), "route.yaml")
        self.screen.command("tulle apply -f route.yaml   # 0/100")
        # Every sidecar comes back by itself, after a pause that grew while nobody answered.
        self.world.wait_programmed("httproute", "web", sidecars=4, timeout=40)
        back = traffic.collect(200)
        traffic.stop()
        self.screen.result(
            "it comes back and rules again",
            f"restarted on its store; a new route 0/100 sends {back.share('web-v2'):.0%} to v2, {back.failed} failed",
            back.share("web-v2") > 0.99 and back.failed == 0,
        )


def own_certificate(world: World, workload: Workload) -> dict[str, str]:
    """The sidecar's own certificate as its ``/certs`` shows it: uri, serial_number, valid_until."""
    chain = json.loads(world.admin(workload, "/certs"))["certificates"][0]["cert_chain"][0]
    return {
        "uri": chain["subject_alt_names"][0]["uri"],
        "serial_number": chain["serial_number"],
        "valid_until": chain["expiration_time"],
    }


def plaintext_refused(stranger: Workload, target: str) -> str:
    """How plain HTTP to ``target`` fails when ``stranger`` tries it; empty if it is answered."""
    child = stranger.popen(
        module("fetch", "--connect", target, f"http://{target}/"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    _, err = child.communicate(timeout=30)
    return "" if child.returncode == 0 else str(err.decode().strip().rpartition(": ")[2])


__all__ = ["NAMESPACE", "Story"]
