from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.api.service_addresses import ServiceAddresses
from control_plane.store.base import Key, Stored


def key(name: str) -> Key:
    return Key("", "services", "default", name)


def body(**spec: Any) -> dict[str, Any]:
    return {"spec": spec}


def addresses(cidr: str, **held: str) -> ServiceAddresses:
    stored = [Stored(key(name), body(clusterIP=ip), 1, 1, 1) for name, ip in held.items()]
    return ServiceAddresses(ipaddress.ip_network(cidr), stored)


def asked(found: ServiceAddresses, name: str, previous: Any = None, **spec: Any) -> tuple[str | None, str]:
    """The address that ``name`` gets and the message of the problem, if any."""
    assigned, problems = found.assign(key(name), body(**spec), previous)
    return assigned["spec"].get("clusterIP"), "; ".join(problem.message for problem in problems)


@given(st.lists(st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True), unique=True, max_size=20))
@pytest.mark.parametrize("cidr", ["10.0.0.0/28", "fd00::/124"])
def test_addresses_are_in_range_unique_and_given_until_none_is_left(cidr: str, names: list[str]) -> None:
    network = ipaddress.ip_network(cidr)
    usable = set(map(str, network.hosts()))
    found = addresses(cidr)
    given_ = []
    for name in names:
        address, problem = asked(found, name)
        if problem:
            assert "--service-cidr" in problem
            assert len(given_) == len(usable)
        else:
            given_.append(address)
    assert len(set(given_)) == len(given_)
    assert set(given_) <= usable


def test_the_same_name_gets_the_same_address_again() -> None:
    assert asked(addresses("10.96.0.0/16"), "web") == asked(addresses("10.96.0.0/16"), "web")


@pytest.mark.parametrize(
    ("spec", "previous", "result", "problem"),
    [
        ({"clusterIP": "10.96.0.9"}, None, "10.96.0.9", ""),
        ({"clusterIPs": ["10.96.0.9"]}, None, "10.96.0.9", ""),
        ({"clusterIP": "None"}, None, "None", ""),
        ({"clusterIP": "10.97.0.1"}, None, None, "not in the service range"),
        ({"clusterIP": "10.96.0.0"}, None, None, "network or broadcast"),
        ({"clusterIP": "10.96.255.255"}, None, None, "network or broadcast"),
        ({"clusterIP": "fd00::1"}, None, None, "not in the service range"),
        ({"clusterIP": "10.96.0.7"}, None, None, "belongs to Service default/other"),
        ({}, {"clusterIP": "10.96.0.3"}, "10.96.0.3", ""),
        ({}, {"clusterIP": "None"}, "None", ""),
        ({"clusterIP": "10.96.0.3"}, {"clusterIP": "10.96.0.3"}, "10.96.0.3", ""),
        ({"clusterIP": "10.96.0.4"}, {"clusterIP": "10.96.0.3"}, None, "cannot change"),
        ({"clusterIP": "None"}, {"clusterIP": "10.96.0.3"}, None, "cannot change"),
        # The range may have been changed since: what a Service has, it keeps.
        ({}, {"clusterIP": "10.1.0.3"}, "10.1.0.3", ""),
    ],
)
def test_what_may_be_asked_for(
    spec: dict[str, Any], previous: dict[str, Any] | None, result: str | None, problem: str
) -> None:
    found = addresses("10.96.0.0/16", other="10.96.0.7")
    address, message = asked(found, "web", previous and body(**previous), **spec)
    assert problem in message
    if problem:
        assert message
    else:
        assert (address, message) == (result, "")


def test_equal_ipv6_spellings_are_one_address() -> None:
    found = addresses("fd00::/112", other="fd00::7")
    assert "belongs to" in asked(found, "web", clusterIP="fd00:0::0007")[1]
    assert asked(found, "web", clusterIP="fd00:0::0008")[0] == "fd00::8"


def test_a_released_address_can_be_taken() -> None:
    found = addresses("10.96.0.0/16", other="10.96.0.7")
    found.release(key("other"), body(clusterIP="10.96.0.7"))
    assert asked(found, "web", clusterIP="10.96.0.7") == ("10.96.0.7", "")


def test_addresses_outside_a_changed_range_do_not_fill_it() -> None:
    found = addresses("10.96.0.0/30", a="10.1.0.1", b="10.1.0.2", c="10.1.0.3")
    assert asked(found, "web")[0] in ("10.96.0.1", "10.96.0.2")
