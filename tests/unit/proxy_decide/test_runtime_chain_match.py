"""``proxy.runtime.compile.chain_match``: Envoy's documented order, without a way back."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.model.address import CidrRange
from proxy.model.config import ConfigError
from proxy.model.connection import ConnectionInfo
from proxy.model.listener import FilterChainMatch
from proxy.runtime.compile.chain_match import compile_chain_match

M = FilterChainMatch


def _cidr(*texts: str) -> tuple[CidrRange, ...]:
    return tuple(CidrRange(t.split("/")[0], int(t.split("/")[1])) for t in texts)


def _find(chains: list[FilterChainMatch], default: str | None = None, **conn: Any) -> Any:
    find = compile_chain_match([(m, n, f"fc[{n}]") for n, m in enumerate(chains)], default)
    info = ConnectionInfo(
        (conn.pop("source", "192.0.2.7"), conn.pop("source_port", 40000)),
        (conn.pop("ip", "10.1.0.5"), conn.pop("port", 80)),
        **conn,
    )
    return find(info)


@pytest.mark.parametrize(
    ("chains", "conn", "index"),
    [
        ([M()], {}, 0),
        ([], {}, "default"),
        ([M(destination_port=80), M()], {"port": 80}, 0),
        ([M(destination_port=80), M()], {"port": 81}, 1),
        # a port that matches leaves no way back to chains without one
        ([M(destination_port=80, server_names=("a",)), M()], {"port": 80, "sni": "b"}, "default"),
        ([M(prefix_ranges=_cidr("10.0.0.0/8")), M(prefix_ranges=_cidr("10.1.0.0/16")), M()], {}, 1),
        ([M(prefix_ranges=_cidr("10.0.0.0/8")), M(prefix_ranges=_cidr("10.2.0.0/16")), M()], {}, 0),
        ([M(prefix_ranges=_cidr("11.0.0.0/8")), M()], {}, 1),
        ([M(prefix_ranges=_cidr("fd00::/8")), M()], {"ip": "fd00::1"}, 0),
        ([M(prefix_ranges=_cidr("10.0.0.0/8"))], {"ip": "::ffff:10.0.0.1"}, 0),
        # server names: exact, then the longest wildcard, then none
        ([M(server_names=("www.a.com",)), M(server_names=("*.a.com",)), M()], {"sni": "www.a.com"}, 0),
        ([M(server_names=("www.a.com",)), M(server_names=("*.a.com",)), M()], {"sni": "WWW.A.com"}, 0),
        ([M(server_names=("*.com",)), M(server_names=("*.a.com",)), M()], {"sni": "x.y.a.com"}, 1),
        ([M(server_names=("*.com",)), M(server_names=("*.a.com",)), M()], {"sni": "a.com"}, 0),
        ([M(server_names=("*.a.com",)), M()], {"sni": "b.org"}, 1),
        ([M(server_names=("a.com",)), M()], {"sni": ""}, 1),
        ([M(transport_protocol="tls"), M(transport_protocol="raw_buffer")], {"transport_protocol": "tls"}, 0),
        ([M(transport_protocol="tls"), M(transport_protocol="raw_buffer")], {}, 1),
        ([M(transport_protocol="tls"), M()], {}, 1),
        # the client's first protocol that some chain names
        ([M(application_protocols=("h2",)), M(application_protocols=("tulle",))], {"alpn_offered": ("tulle", "h2")}, 1),
        ([M(application_protocols=("h2", "http/1.1")), M()], {"alpn_offered": ("http/1.1",)}, 0),
        ([M(application_protocols=("h2",)), M()], {"alpn_offered": ("x",)}, 1),
        ([M(source_prefix_ranges=_cidr("192.0.2.0/24")), M(source_prefix_ranges=_cidr("192.0.0.0/8"))], {}, 0),
        ([M(direct_source_prefix_ranges=_cidr("192.0.2.0/24")), M()], {}, 0),
        ([M(direct_source_prefix_ranges=_cidr("10.0.0.0/8")), M()], {}, 1),
        ([M(source_ports=(1, 40000)), M()], {}, 0),
        ([M(source_ports=(1, 2)), M()], {}, 1),
        ([M(source_ports=(1, 2))], {}, "default"),
        # order: server name before transport protocol before ALPN
        ([M(server_names=("a",)), M(transport_protocol="tls")], {"sni": "a", "transport_protocol": "tls"}, 0),
        ([M(transport_protocol="tls"), M(application_protocols=("h2",))],
         {"transport_protocol": "tls", "alpn_offered": ("h2",)}, 0),
        ([M(prefix_ranges=_cidr("10.0.0.0/8")), M(server_names=("a",))], {"sni": "a"}, 0),
    ],
)  # fmt: skip
def test_order_of_criteria(chains: list[FilterChainMatch], conn: dict[str, Any], index: object) -> None:
    assert _find(chains, "default", **conn) == index


def test_no_chain_and_no_default_is_none() -> None:
    assert _find([M(destination_port=1)]) is None


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (M(), M()),
        (M(destination_port=80), M(destination_port=80)),
        (M(server_names=("a", "b")), M(server_names=("b", "c"))),
        (M(server_names=("A",)), M(server_names=("a",))),
        (M(prefix_ranges=_cidr("10.0.0.0/8")), M(prefix_ranges=_cidr("10.9.9.9/8"))),
    ],
)
def test_chains_that_match_the_same_are_an_error(one: FilterChainMatch, two: FilterChainMatch) -> None:
    with pytest.raises(ConfigError, match=r"same connections as fc\[0\]") as caught:
        _find([one, two])
    assert caught.value.path == "fc[1].filter_chain_match"


@pytest.mark.parametrize("name", ["*", "*a.com", "a.*", "*.", "*.*.com"])
def test_server_name_wildcards_are_whole_labels(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        _find([M(server_names=("ok", name))])
    assert caught.value.path == "fc[0].filter_chain_match.server_names[1]"


def test_a_chain_may_name_a_value_twice() -> None:
    assert _find([M(server_names=("a", "a"))], sni="a") == 0
