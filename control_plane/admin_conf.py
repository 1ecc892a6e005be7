"""The files that tell others where this control plane is: ``admin.conf`` and ``run.json``.

``admin.conf`` is a kubeconfig, so ``kubectl --kubeconfig`` reads it as well as ``tulle`` does. It names files and
holds no key itself, and so stays right when certificates are renewed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import yaml

from certs.files import write_private


def write_admin_conf(path: Path, *, server: str, ca: Path, identity: Path) -> None:
    """``identity``: the PEM file with the administrator's key and chain."""
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "tulle", "cluster": {"server": server, "certificate-authority": str(ca.absolute())}}
        ],
        "users": [
            {
                "name": "admin",
                "user": {
                    "client-certificate": str(identity.absolute()),
                    "client-key": str(identity.absolute()),
                },
            }
        ],
        "contexts": [{"name": "admin@tulle", "context": {"cluster": "tulle", "user": "admin"}}],
        "current-context": "admin@tulle",
    }
    write_private(path, yaml.safe_dump(document, sort_keys=False).encode())


def write_run(path: Path, facts: Mapping[str, object]) -> None:
    """Replace ``path`` with ``facts``; written last, so that its presence means that all ports are open."""
    write_private(path, json.dumps(facts, indent=1).encode() + b"\n")
