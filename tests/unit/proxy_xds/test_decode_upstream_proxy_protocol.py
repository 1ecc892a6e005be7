"""The PROXY protocol around a cluster's transport socket."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.model.config import ConfigError
from proxy.xds.decode.resources import CLUSTER
from tests.support.xds_messages import decoded

_E = "type.googleapis.com/envoy.extensions.transport_sockets."
RAW = {"name": "raw", "typed_config": {"@type": f"{_E}raw_buffer.v3.RawBuffer"}}
TLS = {"name": "tls", "typed_config": {"@type": f"{_E}tls.v3.UpstreamTlsContext", "sni": "a"}}
AT = "cluster[c].transport_socket.typed_config"


def decode(inner: dict[str, Any] | None = RAW, **config: Any) -> Any:
    outer: dict[str, Any] = {"@type": f"{_E}proxy_protocol.v3.ProxyProtocolUpstreamTransport"}
    if inner is not None:
        outer["transport_socket"] = inner
    if "config" in config:
        outer["config"] = config.pop("config")
    outer |= config.pop("outer", {})
    load = {"cluster_name": "c", "endpoints": []}
    return decoded(
        CLUSTER,
        {
            "name": "c",
            "type": "STATIC",
            "load_assignment": load,
            "transport_socket": {"name": "p", "typed_config": outer},
            **config,
        },
    )


def test_versions_and_what_is_inside() -> None:
    assert decode().proxy_protocol == 1
    found = decode(TLS, config={"version": "V2"})
    assert found.proxy_protocol == 2
    assert found.tls.sni == "a"
    assert decode().tls is None


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"inner": None}, f"{AT}.transport_socket"),
        ({"config": {"pass_through_tlvs": {}}}, f"{AT}.config.pass_through_tlvs"),
        ({"config": {"added_tlvs": [{"type": 1}]}}, f"{AT}.config.added_tlvs"),
        ({"outer": {"allow_unspecified_address": True}}, f"{AT}.allow_unspecified_address"),
        ({"outer": {"tlv_as_pool_key": True}}, f"{AT}.tlv_as_pool_key"),
        (
            {"transport_socket_matches": [{"name": "m", "transport_socket": RAW}]},
            "cluster[c].transport_socket_matches",
        ),
    ],
)
def test_refusals(options: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        decode(**options)
    assert caught.value.path == path
