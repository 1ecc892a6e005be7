"""Secrets in files, as Envoy reads them for ``path_config_source``: a DiscoveryResponse in YAML or JSON.

It reads no files and watches none: ``proxy.tls.store`` is handed ``parse``.
"""

from __future__ import annotations

from typing import Any

from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from google.protobuf import json_format

from proxy.model.config import ConfigError
from proxy.model.tls import Secret
from proxy.xds.decode import tls

_TYPE = secret_pb2.Secret.DESCRIPTOR.full_name
MAX_DEPTH = 100


def parse(content: bytes, name: str) -> Secret:
    """The secret ``name`` from a file's content. Raises ``ConfigError``."""
    for resource in _resources(content):
        if not isinstance(resource, dict) or str(resource.get("@type", "")).rpartition("/")[2] != _TYPE:
            raise ConfigError("resources", f"something in it is no {_TYPE}")
        fields = {key: value for key, value in resource.items() if key != "@type"}
        message = secret_pb2.Secret()
        try:
            json_format.ParseDict(fields, message, max_recursion_depth=MAX_DEPTH)
        except json_format.ParseError as error:
            raise ConfigError("resources", str(error)) from error
        if message.name == name:
            return tls.secret(message)
    raise ConfigError("resources", f"there is no secret {name!r}")


def _resources(content: bytes) -> list[Any]:
    # Most sidecars have no secrets in files: their start does not pay for the parser.
    import yaml

    try:
        text = content.decode("utf-8")
        for token in yaml.scan(text):
            if isinstance(token, yaml.AliasToken):
                raise ConfigError("resources", "YAML aliases are not accepted")
        document = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError("resources", f"neither YAML nor JSON: {error}") from error
    resources = document.get("resources") if isinstance(document, dict) else None
    if not isinstance(resources, list):
        raise ConfigError("resources", "is missing")
    return resources
