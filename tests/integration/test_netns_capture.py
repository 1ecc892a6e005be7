"""Capture in real pods: who is turned where, who is not, and that nobody gets in by dialling the ports."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from netns import namespace
from netns.pods import CaptureSpec, NetworkSpec, Pod, PodManager, PodSpec
from tests.support.pods import Endpoint, accept, dial, listen, original_destination

pytestmark = pytest.mark.netns
BOTH = pytest.mark.parametrize("version", [0, 1], ids=["ipv4", "ipv6"])
MARK = 1337


@pytest.fixture
def manager() -> PodManager:
    return PodManager(Path("/run/tulle"), NetworkSpec.of("10.1.0.0/24", "fd00:1::/64"))


@pytest.fixture
def plain(manager: PodManager) -> Pod:
    return manager.add(PodSpec("plain", capture=None))


@pytest.fixture
def captured(manager: PodManager) -> Pod:
    return manager.add(PodSpec("captured"))


@BOTH
def test_outbound_connection_goes_to_15001_and_keeps_its_destination(
    captured: Pod, plain: Pod, version: int
) -> None:
    with listen(captured, 15001) as sidecar, dial(captured, plain.ips[version], 8080) as client:
        connection, peer = accept(sidecar)
        with connection:
            assert original_destination(connection) == Endpoint(plain.addresses[version], 8080)
            assert peer.port == client.getsockname()[1]


@BOTH
def test_inbound_connection_goes_to_15006_and_keeps_both_ends(
    captured: Pod, plain: Pod, version: int
) -> None:
    with listen(captured, 15006) as sidecar, dial(plain, captured.ips[version], 8080) as client:
        connection, peer = accept(sidecar)
        with connection:
            assert original_destination(connection) == Endpoint(captured.addresses[version], 8080)
            assert peer == Endpoint(plain.addresses[version], client.getsockname()[1])


@BOTH
def test_inbound_connection_from_the_host_is_captured_too(captured: Pod, version: int) -> None:
    with listen(captured, 15006) as sidecar, dial(None, captured.ips[version], 9000):
        connection, _ = accept(sidecar)
        with connection:
            assert original_destination(connection) == Endpoint(captured.addresses[version], 9000)


@BOTH
def test_marked_connection_leaves_uncaptured(captured: Pod, plain: Pod, version: int) -> None:
    with (
        listen(captured, 15001),
        listen(plain, 8080) as app,
        dial(captured, plain.ips[version], 8080, mark=MARK),
    ):
        connection, peer = accept(app)
        connection.close()
        assert peer.address == captured.addresses[version]


@BOTH
def test_other_mark_does_not_help(captured: Pod, plain: Pod, version: int) -> None:
    with (
        listen(captured, 15001) as sidecar,
        listen(plain, 8080),
        dial(captured, plain.ips[version], 8080, mark=MARK + 1),
    ):
        accept(sidecar)[0].close()


@BOTH
@pytest.mark.parametrize("port", [15001, 15006])
def test_guard_refuses_a_direct_dial_from_another_pod(
    captured: Pod, plain: Pod, version: int, port: int
) -> None:
    # Both listen: a dial of one that is redirected to the other would get in too.
    with listen(captured, 15001) as outbound, listen(captured, 15006) as inbound:
        with pytest.raises(ConnectionRefusedError):
            dial(plain, captured.ips[version], port)
        for sidecar in (outbound, inbound):
            sidecar.setblocking(False)
            with pytest.raises(BlockingIOError):
                sidecar.accept()


@BOTH
@pytest.mark.parametrize("port", [15001, 15006])
@pytest.mark.parametrize("mark", [None, MARK], ids=["app", "sidecar"])
def test_guard_refuses_a_direct_dial_from_within(
    captured: Pod, version: int, port: int, mark: int | None
) -> None:
    with listen(captured, 15001), listen(captured, 15006):
        for address in (("127.0.0.1", "::1")[version], captured.ips[version]):
            with pytest.raises(ConnectionRefusedError):
                dial(captured, address, port, mark=mark)


@BOTH
def test_sidecar_that_dials_its_own_pod_reaches_15006(captured: Pod, version: int) -> None:
    with listen(captured, 15006) as sidecar, dial(captured, captured.ips[version], 8080, mark=MARK):
        connection, _ = accept(sidecar)
        with connection:
            assert original_destination(connection) == Endpoint(captured.addresses[version], 8080)


@BOTH
def test_sidecar_reaches_its_app_from_the_inbound_source(captured: Pod, version: int) -> None:
    source = ("127.0.0.6", "::6")[version]
    with listen(captured, 15006), listen(captured, 8080) as app:
        for mark in (None, MARK):
            with dial(captured, captured.ips[version], 8080, source=source, mark=mark):
                connection, peer = accept(app)
                connection.close()
                assert peer.address == ip_address(source)


@BOTH
@pytest.mark.parametrize("mark", [None, MARK], ids=["app", "sidecar"])
def test_localhost_is_left_alone(captured: Pod, version: int, mark: int | None) -> None:
    with (
        listen(captured, 15001),
        listen(captured, 15006),
        listen(captured, 8080) as app,
        dial(captured, ("127.0.0.1", "::1")[version], 8080, mark=mark),
    ):
        accept(app)[0].close()


@BOTH
def test_readiness_and_prometheus_are_reached_directly(captured: Pod, plain: Pod, version: int) -> None:
    with listen(captured, 15006):
        for port in (15021, 15090):
            with listen(captured, port) as direct, dial(plain, captured.ips[version], port):
                accept(direct)[0].close()


@BOTH
def test_exclusions_hold(manager: PodManager, plain: Pod, version: int) -> None:
    capture = CaptureSpec(
        exclude_inbound_ports=(22,),
        exclude_outbound_ports=(5432,),
        exclude_outbound_cidrs=(ip_network("10.1.0.1/32"), ip_network("fd00:1::1/128")),
        exclude_inbound_cidrs=(ip_network("10.1.0.1/32"), ip_network("fd00:1::1/128")),
    )
    pod = manager.add(PodSpec("special", capture=capture))
    with listen(pod, 15001), listen(pod, 15006):
        with listen(pod, 22) as ssh, dial(plain, pod.ips[version], 22):
            accept(ssh)[0].close()
        with listen(plain, 5432) as database, dial(pod, plain.ips[version], 5432):
            accept(database)[0].close()
        with listen(None) as host, dial(pod, ("10.1.0.1", "fd00:1::1")[version], host.getsockname()[1]):
            accept(host)[0].close()
        with listen(pod, 8080) as app, dial(None, pod.ips[version], 8080):
            accept(app)[0].close()


@BOTH
def test_captured_to_captured(manager: PodManager, captured: Pod, version: int) -> None:
    other = manager.add(PodSpec("other"))
    with (
        listen(captured, 15001) as outbound,
        listen(other, 15006) as inbound,
        dial(captured, other.ips[version], 8080) as client,
    ):
        first, _ = accept(outbound)
        target = original_destination(first)
        with first, dial(captured, str(target.address), target.port, mark=MARK) as second:
            third, peer = accept(inbound)
            with third:
                assert original_destination(third) == target
                assert peer.address == captured.addresses[version]
                client.sendall(b"through")
                second.sendall(first.recv(7))
                assert third.recv(7) == b"through"


@pytest.fixture
def udp_dns(manager: PodManager) -> Iterator[tuple[Pod, list[socket.socket]]]:
    pod = manager.add(PodSpec("dns", capture=CaptureSpec(dns_port=15053)))

    def make() -> list[socket.socket]:
        sockets = [socket.socket(family, socket.SOCK_DGRAM) for family in (socket.AF_INET, socket.AF_INET6)]
        for each, address in zip(sockets, ("127.0.0.1", "::1"), strict=True):
            each.bind((address, 15053))
            each.settimeout(5)
        return sockets

    sockets = namespace.run_in(pod.netns_path, make)
    yield pod, sockets
    for each in sockets:
        each.close()


@BOTH
def test_dns_query_is_answered_by_the_sidecar(udp_dns: tuple[Pod, list[socket.socket]], version: int) -> None:
    pod, servers = udp_dns
    nameserver = ("10.1.0.1", "fd00:1::1")[version]

    def ask() -> socket.socket:
        client = socket.socket((socket.AF_INET, socket.AF_INET6)[version], socket.SOCK_DGRAM)
        client.settimeout(5)
        client.connect((nameserver, 53))
        client.send(b"who?")
        return client

    with namespace.run_in(pod.netns_path, ask) as client:
        query, peer = servers[version].recvfrom(100)
        servers[version].sendto(b"me", peer)
        # A connected socket takes datagrams of its peer only: the answer came back as the nameserver's.
        assert (query, client.recv(100)) == (b"who?", b"me")


def test_udp_is_left_alone_without_dns_capture(captured: Pod) -> None:
    def host_socket() -> socket.socket:
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.bind(("10.1.0.1", 53))
        server.settimeout(5)
        return server

    with host_socket() as server:

        def send() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.sendto(b"who?", ("10.1.0.1", 53))

        namespace.run_in(captured.netns_path, send)
        assert server.recvfrom(100)[1][0] == captured.ips[0]


@pytest.mark.netns(user=False)
@BOTH
@pytest.mark.parametrize("kind", ["uid", "gid"])
def test_the_sidecars_user_leaves_uncaptured(
    manager: PodManager, plain: Pod, version: int, kind: str
) -> None:
    pod = manager.add(PodSpec("by-user", capture=CaptureSpec(mark=None, **{kind: 1337})))
    program = f"import socket; socket.create_connection(({plain.ips[version]!r}, 8080), 5)"
    with listen(pod, 15001) as sidecar, listen(plain, 8080) as app:
        for number, listener in ((1337, app), (0, sidecar)):
            argv = ["setpriv", f"--re{kind}={number}", "--clear-groups", "/usr/bin/python3", "-c", program]
            with pod.popen(argv) as client:
                accept(listener)[0].close()
                assert client.wait(10) == 0


def test_table_of_others_in_the_pod_survives_a_second_add(manager: PodManager, captured: Pod) -> None:
    nft = ["env", f"PATH={os.environ['PATH']}:/usr/sbin", "nft"]
    assert captured.popen([*nft, "add", "table", "inet", "other"]).wait() == 0
    assert manager.add(PodSpec("captured")) == captured
    listing = captured.popen([*nft, "list", "tables"], stdout=subprocess.PIPE, text=True)
    assert listing.communicate()[0].split("\n")[:-1] == ["table inet tulle", "table inet other"]
