"""``tulle envoy-bootstrap``: what a real Envoy needs to take a sidecar's place.

It enrols as a sidecar does and writes certificate, key and an Envoy bootstrap whose ADS goes to the control plane.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from control_plane.cli.proxy_cmd import address, inbound, labels

if TYPE_CHECKING:
    from proxy.tls.identity import Identity
    from proxy.xds.node import NodeOptions

SO_MARK = 36
_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
_HTTP = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


@click.command("envoy-bootstrap")
@click.option("--control-plane", required=True, metavar="HOST:PORT", help="The control plane's xDS address.")
@click.option("--ca-address", metavar="HOST:PORT", help="Its API and CA.  [default: same host, port 15017]")
@click.option("--token-file", type=click.Path(path_type=Path), help="A file with the join token.")
@click.option("--namespace", default="default", show_default=True)
@click.option("--service-account", default="default", show_default=True)
@click.option("--name", required=True, help="Of the workload.")
@click.option("--label", "label", multiple=True, metavar="KEY=VALUE")
@click.option("--ip", multiple=True, required=True)
@click.option(
    "--interception-mode", type=click.Choice(["REDIRECT", "NONE"]), default="REDIRECT", show_default=True
)
@click.option("--capture-mark", type=click.IntRange(0), default=0, help="SO_MARK of Envoy's own sockets.")
@click.option("--inbound", "inbounds", multiple=True, metavar="LISTEN=APP[,name=http][,protocol=HTTP]")
@click.option("--outbound-bind", default="", metavar="HOST:PORT")
@click.option("--admin-address", default="127.0.0.1:15000", show_default=True, metavar="HOST:PORT")
@click.option("--access-log", default="/dev/stdout", show_default=True)
@click.option(
    "--out", "directory", type=click.Path(path_type=Path), required=True, help="Where the files go (0700)."
)
def envoy_bootstrap(**options: Any) -> None:
    """Write a bootstrap with which a real Envoy takes a sidecar's place."""
    from certs.bundle import join_pem
    from certs.files import make_private_directory, write_private
    from proxy.tls.identity import IdentityError
    from proxy.xds.node import NodeOptions

    xds = address(options["control_plane"], "--control-plane")
    directory: Path = options["directory"].absolute()
    try:
        make_private_directory(directory)
        identity = asyncio.run(_enrol(options, xds.host, directory))
        write_private(directory / "key.pem", identity.key_pem)
        write_private(directory / "chain.pem", identity.chain_pem.encode())
        write_private(directory / "roots.pem", join_pem(identity.bundle.roots).encode())
        node = NodeOptions(
            name=options["name"],
            namespace=options["namespace"],
            service_account=options["service_account"],
            ips=tuple(options["ip"]),
            labels=labels(options["label"]),
            interception_mode=options["interception_mode"],
            capture_mark=options["capture_mark"],
            inbound=tuple(inbound(text) for text in options["inbounds"]),
            outbound_bind=options["outbound_bind"],
            access_log=options["access_log"],
            user_agent="envoy",
        )
        admin = address(options["admin_address"], "--admin-address")
        config = bootstrap(node, (xds.host, xds.port), (admin.host, admin.port), identity, directory)
        import yaml

        path = directory / "envoy.yaml"
        write_private(path, yaml.safe_dump(config, sort_keys=False).encode())
    except (IdentityError, OSError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"envoy -c {path}")


async def _enrol(options: dict[str, Any], host: str, directory: Path) -> Identity:
    from proxy.tls.identity import CaClient, IdentityManager, token_from_file

    ca = options["ca_address"] or f"{f'[{host}]' if ':' in host else host}:15017"
    token_file = options["token_file"]
    manager = IdentityManager(
        directory,
        CaClient(ca, options["capture_mark"]),
        token=(lambda: None) if token_file is None else token_from_file(token_file),
        namespace=options["namespace"],
        service_account=options["service_account"],
    )
    try:
        return await manager.start()
    finally:
        await manager.close()


def bootstrap(
    node: NodeOptions,
    control_plane: tuple[str, int],
    admin: tuple[str, int],
    identity: Identity,
    directory: Path,
) -> dict[str, Any]:
    """An Envoy v3 bootstrap: admin, node, delta ADS over mutual TLS, and the identity as static secret ``default``."""
    from proxy.xds import node as xds_node

    files = {
        "certificate_chain": {"filename": str(directory / "chain.pem")},
        "private_key": {"filename": str(directory / "key.pem")},
    }
    server = f"spiffe://{identity.spiffe_id.trust_domain}/ns/tulle-system/sa/control-plane"
    cluster: dict[str, Any] = {
        "name": "xds",
        "type": "STRICT_DNS",
        "connect_timeout": "5s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": _HTTP,
                "explicit_http_config": {
                    "http2_protocol_options": {"connection_keepalive": {"interval": "30s", "timeout": "10s"}}
                },
            }
        },
        "load_assignment": {
            "cluster_name": "xds",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(control_plane)}}]}],
        },
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": f"{_TLS}UpstreamTlsContext",
                "common_tls_context": {
                    # Envoy's client offers no more than TLS 1.2 unless it is told to.
                    "tls_params": {
                        "tls_minimum_protocol_version": "TLSv1_2",
                        "tls_maximum_protocol_version": "TLSv1_3",
                    },
                    "alpn_protocols": ["h2"],
                    "tls_certificates": [files],
                    "validation_context": {
                        "trusted_ca": {"filename": str(directory / "roots.pem")},
                        "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": server}}],
                    },
                },
            },
        },
    }
    if node.capture_mark:
        option = {"level": 1, "name": SO_MARK, "int_value": node.capture_mark, "state": "STATE_PREBIND"}
        cluster["upstream_bind_config"] = {"socket_options": [option]}
    return {
        "node": {
            "id": xds_node.node_id(node),
            "cluster": xds_node.node_cluster(node),
            "metadata": xds_node.metadata(node),
        },
        "admin": {"address": _address(admin)},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
            },
            "lds_config": {"ads": {}, "resource_api_version": "V3"},
            "cds_config": {"ads": {}, "resource_api_version": "V3"},
        },
        "static_resources": {
            "clusters": [cluster],
            "secrets": [{"name": "default", "tls_certificate": files}],
        },
    }


def _address(address: tuple[str, int]) -> dict[str, Any]:
    return {"socket_address": {"address": address[0], "port_value": address[1]}}
