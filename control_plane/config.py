"""What the control plane is told at its start: the options of ``tulle control-plane`` as one value."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from control_plane.addresses import HostPort
from control_plane.api.limits import Limits
from control_plane.translate.settings import H2UpgradePolicy

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

API = HostPort("0.0.0.0", 15017)
XDS = HostPort("0.0.0.0", 15012)
MONITORING = HostPort("127.0.0.1", 15014)
SERVICE_CIDR = ipaddress.ip_network("10.96.0.0/16")


@dataclass(frozen=True, slots=True)
class ControlPlaneConfig:
    """``xds`` and ``monitoring`` ``None`` = not served; ``xds_plaintext`` must be a loopback address.

    ``advertise``: names and addresses by which clients reach this host, for its certificate; the first one
    is written into ``admin.conf``. ``dns_resolvers`` (``ip:port``): whom sidecars ask for SRV records, empty = their
    host's. ``keep_revisions``: how far back watches and the history reach.
    """

    data_dir: Path
    trust_domain: str = "mesh.local"
    mesh_domain: str = "mesh.local"
    api: HostPort = API
    xds: HostPort | None = XDS
    xds_plaintext: HostPort | None = None
    monitoring: HostPort | None = MONITORING
    advertise: tuple[str, ...] = ()
    service_cidr: Network = SERVICE_CIDR
    dns_resolvers: tuple[str, ...] = ()
    h2_upgrade_policy: H2UpgradePolicy = "DO_NOT_UPGRADE"
    svid_lifetime: timedelta = timedelta(hours=24)
    ca_passphrase_file: Path | None = None
    keep_revisions: int = 10_000
    limits: Limits = field(default_factory=Limits)
