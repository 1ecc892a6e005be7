"""Keys, certificates, roots and secrets in files, and what happens when they change."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from proxy.model.config import ConfigError
from proxy.model.tls import (
    CommonTls,
    DataSource,
    DownstreamTls,
    SecretRef,
    TlsCertificate,
    UpstreamTls,
    ValidationContext,
)
from proxy.runtime.compile import CompileEnv
from proxy.runtime.hub import Hub
from proxy.tls.errors import SecretError
from proxy.tls.store import SecretStore
from proxy.tls.watch import FileWatch
from proxy.xds import secret_file
from tests.fakes.sidecar import Mesh, chain, cluster, config, direct, http, listener, spiffe

SECRET = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    return Mesh()


def split(pem: bytes) -> tuple[bytes, bytes]:
    at = pem.index(b"-----BEGIN CERT")
    return pem[:at], pem[at:]


def in_place(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    # Two writes within the clock's grain must differ as well.
    found = path.stat()
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + 1))


def moved(path: Path, content: bytes) -> None:
    other = path.with_name(path.name + ".new")
    other.write_bytes(content)
    other.rename(path)


class Files:
    """A directory with key, chain and roots, and settings that name them."""

    def __init__(self, directory: Path, mesh: Mesh) -> None:
        self.key, self.chain, self.roots = (directory / name for name in ("key", "chain", "roots"))
        self.put(mesh.pem("one"), in_place)
        self.roots.write_text(mesh.root.pem)
        one = TlsCertificate(DataSource(str(self.chain)), DataSource(str(self.key)))
        common = CommonTls((one,), validation=ValidationContext(DataSource(str(self.roots))))
        self.server = DownstreamTls(common, True)
        self.client = UpstreamTls(common)
        self.store = SecretStore(secret_file.parse)
        self.hub = Hub(CompileEnv())
        self.hub.join(self.store.prepare)
        self.watch = FileWatch(self.store)

    def put(self, pem: bytes, write: Callable[[Path, bytes], None]) -> None:
        for path, part in zip((self.key, self.chain), split(pem), strict=True):
            write(path, part)

    def serve(self) -> None:
        self.hub.apply(
            config(listener(chain(http(direct("/", 200)), tls=self.server)), cluster("c", 1, tls=self.client))
        )
        self.watch.poll()


@pytest.mark.parametrize("write", [in_place, moved])
def test_changed_files_make_new_contexts(
    tmp_path: Path, mesh: Mesh, write: Callable[[Path, bytes], None]
) -> None:
    files = Files(tmp_path, mesh)
    files.serve()
    server, client = files.store.server(files.server), files.store.client(files.client)
    assert server.local_uri == client.local_uri == spiffe("one")
    files.watch.poll()
    assert files.store.server(files.server) is server
    files.put(mesh.pem("two"), write)
    files.watch.poll()
    assert files.store.server(files.server).local_uri == spiffe("two")
    assert files.store.client(files.client).local_uri == spiffe("two")
    assert files.watch.update_success == 1
    write(files.roots, Mesh().root.pem.encode())
    before = files.store.server(files.server)
    files.watch.poll()
    assert files.store.server(files.server) is not before


def test_a_directory_that_is_a_link_may_be_exchanged(tmp_path: Path, mesh: Mesh) -> None:
    """How Kubernetes replaces mounted secrets."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    (tmp_path / "now").symlink_to("one")
    files = Files(tmp_path / "now", mesh)
    files.serve()
    new = tmp_path / "two"
    for name, part in zip(("key", "chain"), split(mesh.pem("two")), strict=True):
        (new / name).write_bytes(part)
    (new / "roots").write_text(mesh.root.pem)
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").rename(tmp_path / "now")
    files.watch.poll()
    assert files.store.server(files.server).local_uri == spiffe("two")


def test_until_all_files_fit_together_the_old_ones_serve(tmp_path: Path, mesh: Mesh) -> None:
    files = Files(tmp_path, mesh)
    files.serve()
    before = files.store.server(files.server)
    key, certificate = split(mesh.pem("two"))
    moved(files.key, key)
    for _ in range(2):
        files.watch.poll()
        assert files.store.server(files.server) is before
    assert files.watch.update_failure == 2
    files.chain.unlink()
    files.watch.poll()
    assert files.store.server(files.server) is before
    moved(files.chain, certificate)
    files.watch.poll()
    assert files.store.server(files.server).local_uri == spiffe("two")
    assert files.store.client(files.client).local_uri == spiffe("two")


def test_an_unrelated_change_of_configuration_does_not_read_half_written_files(
    tmp_path: Path, mesh: Mesh
) -> None:
    files = Files(tmp_path, mesh)
    files.serve()
    before = files.store.server(files.server)
    in_place(files.key, b"")
    files.hub.apply(config(*files.hub.current.config.listeners.values(), version="2"))
    assert files.store.server(files.server) is before


def test_a_file_that_is_not_there_refuses_the_configuration(tmp_path: Path, mesh: Mesh) -> None:
    files = Files(tmp_path, mesh)
    files.roots.unlink()
    with pytest.raises(ConfigError) as caught:
        files.serve()
    assert caught.value.path == "listener[l].filter_chains[0].transport_socket"


# Secrets in files.


def document(pem: bytes, mesh: Mesh) -> str:
    def indented(text: bytes) -> str:
        return text.decode().replace("\n", "\n          ").strip()

    key, certificate = map(indented, split(pem))
    roots = indented(mesh.root.pem.encode())
    return f"""
resources:
  - "@type": {SECRET}
    name: mine
    tls_certificate:
      private_key:
        inline_string: |
          {key}
      certificate_chain:
        inline_string: |
          {certificate}
  - "@type": {SECRET}
    name: theirs
    validation_context:
      trusted_ca:
        inline_string: |
          {roots}
"""


def test_secrets_in_files_are_read_and_read_again(tmp_path: Path, mesh: Mesh) -> None:
    file = tmp_path / "sds.yaml"
    file.write_text(document(mesh.pem("one"), mesh))
    tls = DownstreamTls(
        CommonTls(
            certificate_secrets=(SecretRef("mine", path=str(file)),),
            validation_secret=SecretRef("theirs", path=str(file)),
        ),
        True,
    )
    store = SecretStore(secret_file.parse)
    hub = Hub(CompileEnv())
    hub.join(store.prepare)
    hub.apply(config(listener(chain(http(direct("/", 200)), tls=tls))))
    watch = FileWatch(store)
    watch.poll()
    assert store.server(tls).local_uri == spiffe("one")
    for content in ("", "junk: [", "resources: 1", "resources: []", "a: &a 1\nresources: [*a]"):
        moved(file, content.encode())
        watch.poll()
        assert store.server(tls).local_uri == spiffe("one")
    moved(file, document(mesh.pem("two"), mesh).encode())
    watch.poll()
    assert store.server(tls).local_uri == spiffe("two")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff", "YAML"),
        (b"resources: [1]", "no envoy"),
        (b'resources: [{"@type": "x/y"}]', "no envoy"),
        (f'resources: [{{"@type": "{SECRET}", name: other}}]'.encode(), "no secret 'mine'"),
        (f'resources: [{{"@type": "{SECRET}", name: mine}}]'.encode(), "empty"),
        (f'resources: [{{"@type": "{SECRET}", what: mine}}]'.encode(), "what"),
        (
            f'resources: [{{"@type": "{SECRET}", name: mine, generic_secret: {{}}}}]'.encode(),
            "generic_secret",
        ),
    ],
)
def test_files_that_hold_no_such_secret(content: bytes, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        secret_file.parse(content, "mine")


def test_large_files_are_not_read(tmp_path: Path) -> None:
    file = tmp_path / "large"
    with file.open("wb") as sparse:
        sparse.truncate(5 << 20)
    store = SecretStore()
    roots = DataSource(str(file))
    with pytest.raises(SecretError, match="larger"):
        store.client(UpstreamTls(CommonTls(validation=ValidationContext(roots))))
