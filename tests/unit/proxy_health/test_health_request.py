"""The requests of health checks, as Envoy writes them."""

from __future__ import annotations

from proxy.health.request import Request, grpc_request, http_request
from proxy.model.health_check import GrpcCheck, HealthCheck, HttpCheck
from proxy.model.route import HeaderValueOption
from proxy.runtime.compile.health_check import request_edits
from tests.fakes.checked import health_check


def http(check: HttpCheck, host: str = "h", *, tls: bool = False) -> Request:
    return http_request(check, request_edits(health_check(check), "f"), host, tls=tls)


def test_a_get_has_nothing_but_whom_it_is_for_and_from() -> None:
    made = http(HttpCheck("/a?b"), tls=True)
    assert made.http1() == b"GET /a?b HTTP/1.1\r\nhost: h\r\nuser-agent: Envoy/HC\r\n\r\n"
    assert made.fields == [
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":authority", b"h"),
        (b":path", b"/a?b"),
        (b"user-agent", b"Envoy/HC"),
    ]
    assert not made.is_head and http(HttpCheck("/", method="HEAD")).is_head


def test_bodies_have_a_length_even_if_there_is_none() -> None:
    assert http(HttpCheck("/", method="POST", send=b"x")).http1().endswith(b"content-length: 1\r\n\r\nx")
    assert http(HttpCheck("/", method="PUT")).http1().endswith(b"content-length: 0\r\n\r\n")
    assert b"content-length" not in http(HttpCheck("/", method="DELETE")).http1()


def test_headers_are_removed_added_and_replaced() -> None:
    edited = http(
        HttpCheck(
            "/",
            headers_to_add=(
                HeaderValueOption("x-a", "100%%"),
                HeaderValueOption("user-agent", "mine", "OVERWRITE_IF_EXISTS"),
                HeaderValueOption("x-b", "no", "OVERWRITE_IF_EXISTS"),
            ),
        )
    )
    assert edited.fields[4:] == [(b"user-agent", b"mine"), (b"x-a", b"100%")]
    assert http(HttpCheck("/", headers_to_remove=("user-agent",))).fields[4:] == []


def test_grpc_says_how_long_it_waits() -> None:
    check = GrpcCheck("s", initial_metadata=(HeaderValueOption("grpc-timeout", "1H"),))
    config: HealthCheck = health_check(check, timeout=1.5)
    made = grpc_request(config, check, request_edits(config, "f"), "h", tls=False)
    assert made.fields[-1] == (b"grpc-timeout", b"1500m")
    assert made.body == b"\0\0\0\0\3\x0a\1s"
