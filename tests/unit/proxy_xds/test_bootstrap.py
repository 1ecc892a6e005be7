"""Envoy's bootstrap format: what is read, and how what cannot be used is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench import configs
from proxy import bootstrap
from proxy.model.config import ConfigError
from proxy.model.listener import HttpConnectionManager


@pytest.fixture
def document(tmp_path: Path) -> dict[str, Any]:
    return json.loads(json.dumps(configs.inbound(tmp_path, tmp_path / "log", 15006, 8080, 15000)))


@pytest.mark.parametrize("dump", [json.dumps, yaml.safe_dump], ids=["json", "yaml"])
def test_the_bench_configuration_is_read_whole(document: dict[str, Any], tmp_path: Path, dump: Any) -> None:
    path = tmp_path / "envoy.yaml"
    path.write_text(dump(document))
    loaded = bootstrap.load(path)
    listener = loaded.config.listeners["inbound"]
    assert str(listener.address) == "127.0.0.1:15006"
    chain = listener.filter_chains[0]
    assert chain.tls is not None
    assert chain.tls.require_client_certificate
    assert isinstance(chain.terminal, HttpConnectionManager)
    assert chain.terminal.rbac[0].policies[0].name == "client"
    assert loaded.config.clusters["app"].type == "STATIC"
    assert loaded.admin is not None
    assert str(loaded.admin.address) == "127.0.0.1:15000"


def test_unknown_fields_are_refused_by_name(document: dict[str, Any]) -> None:
    document["static_resources"]["clusters"][0]["load_assignmnt"] = {}
    with pytest.raises(ConfigError, match="load_assignmnt"):
        bootstrap.parse(document)


def test_unsupported_fields_are_refused_with_their_path(document: dict[str, Any]) -> None:
    document["static_resources"]["clusters"][0]["track_cluster_stats"] = {"request_response_sizes": True}
    with pytest.raises(ConfigError, match=r"cluster\[app\].track_cluster_stats: is not supported"):
        bootstrap.parse(document)


def test_names_that_are_there_twice_are_refused(document: dict[str, Any]) -> None:
    document["static_resources"]["clusters"] *= 2
    with pytest.raises(ConfigError, match=r"static_resources.clusters\[1\]: the name 'app' is there twice"):
        bootstrap.parse(document)


def test_listeners_without_a_name_get_one(document: dict[str, Any]) -> None:
    del document["static_resources"]["listeners"][0]["name"]
    assert list(bootstrap.parse(document).config.listeners) == ["listener_0"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x [1]\nb: *x\n", "aliases"),
        ("admin: {}\nadmin: {}\n", "'admin' is there twice"),
        ('{"admin": {},\n "admin": {}}', "line 2: 'admin' is there twice"),
        ('{"static_resources": {"clusters": [{"name": NaN}]}}', "NaN"),
        ("[" * 500_000 + "]" * 500_000, "is nested more than 100 levels deep"),
        ("a: [1", "neither YAML nor JSON"),
        ("[]", "is not an object"),
        ("dynamic_resources: {ads_config: {api_type: GRPC}}", "bootstrap.dynamic_resources"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "envoy.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        bootstrap.load(path)


def test_files_above_the_limit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "MAX_BYTES", 10)
    path = tmp_path / "envoy.yaml"
    path.write_text("{}" + " " * 10)
    with pytest.raises(ConfigError, match="larger than 10 bytes"):
        bootstrap.load(path)
