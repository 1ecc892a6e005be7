"""What commands do before they reach a control plane, and how they print."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from control_plane.addresses import HostPort, parse
from control_plane.cli import sources, table
from control_plane.cli.connection import CommandFailed, load_settings
from control_plane.cli.main import main

SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: %s}\n"


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, arguments, catch_exceptions=False)
    return result.exit_code, result.output


def test_the_command_starts_without_the_heavy_parts() -> None:
    code = (
        "import sys, control_plane.cli.main as m; m.main(['--help'], standalone_mode=False);"
        "print([n for n in ('aiohttp','grpc','pydantic','cryptography','yaml','asyncio','google') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "command",
    ["access-token", "apply", "control-plane", "delete", "get", "history", "token", "version"],
)
def test_every_command_has_help(command: str) -> None:
    code, output = run(command, "--help")
    assert code == 0
    assert output.startswith("Usage: ")


def test_an_unknown_command_is_an_error() -> None:
    code, output = run("aply")
    assert code == 2
    assert "No such command 'aply'" in output


class TestSources:
    def test_directories_are_read_in_order_and_not_deeply_unless_told(self, tmp_path: Path) -> None:
        (tmp_path / "deep").mkdir()
        for name in ("b.yaml", "a.yml", "c.json", "deep/d.yaml", "notes.txt"):
            (tmp_path / name).write_text(SERVICE % Path(name).stem)
        flat, problems = sources.load([str(tmp_path)], recursive=False, namespace=None)
        assert not problems
        assert [d.body["metadata"]["name"] for d in flat] == ["a", "b", "c"]
        deep, _ = sources.load([str(tmp_path)], recursive=True, namespace=None)
        assert len(deep) == 4

    def test_the_namespace_is_for_those_that_name_none(self, tmp_path: Path) -> None:
        file = tmp_path / "a.yaml"
        file.write_text(
            f"{SERVICE % 'a'}---\n{SERVICE % '{name}'}".replace("{name: {name}}", "{name: b, namespace: x}")
        )
        documents, _ = sources.load([str(file)], recursive=False, namespace="y")
        assert [d.body["metadata"]["namespace"] for d in documents] == ["y", "x"]

    def test_one_object_twice_names_both_places(self, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_text(SERVICE % "x")
        (tmp_path / "b.yaml").write_text("\n" + SERVICE % "y" + "---\n" + SERVICE % "x")
        _, problems = sources.load([str(tmp_path)], recursive=False, namespace=None)
        (problem,) = map(str, problems)
        a, b = tmp_path / "a.yaml", tmp_path / "b.yaml"
        assert problem == f"{b}:8: Service default/x: metadata.name: is defined already at {a}:3"

    def test_what_cannot_be_read_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        names = [str(tmp_path / "empty"), str(tmp_path / "absent.yaml")]
        _, problems = sources.load(names, recursive=False, namespace=None)
        assert list(map(str, problems)) == [
            f"{names[0]}: has no .yaml, .yml or .json files",
            f"{names[1]}: cannot be read: No such file or directory",
        ]


def test_apply_tells_yaml_problems_even_without_a_control_plane(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(SERVICE % "x" + "---\na: [\n")
    code, output = run("apply", "-f", str(file), "--config", str(tmp_path / "none"))
    assert code == 1
    assert f"{file}:6: is not YAML" in output
    assert output.endswith("1 problem: nothing was applied\n")


def test_without_a_configuration_the_user_is_told_what_to_do(tmp_path: Path) -> None:
    code, output = run("get", "svc", "--config", str(tmp_path / "admin.conf"))
    assert code == 1
    assert "start 'tulle control-plane', or name its admin.conf" in output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "is not a kubeconfig"),
        ("current-context: a\ncontexts: []\n", "contexts: a"),
        (
            "current-context: a\ncontexts: [{name: a, context: {cluster: c, user: u}}]\n"
            "clusters: [{name: c, cluster: {server: 'http://x'}}]\nusers: [{name: u, user: {}}]\n",
            "must be an https:// address",
        ),
        (
            "current-context: a\ncontexts: [{name: a, context: {cluster: c, user: u}}]\n"
            "clusters: [{name: c, cluster: {server: 'https://x', certificate-authority: no.crt}}]\n"
            "users: [{name: u, user: {}}]\n",
            "cannot be used",
        ),
    ],
)
def test_a_configuration_that_is_wrong_says_how(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "conf"
    path.write_text(text)
    with pytest.raises(CommandFailed, match=message) as failed:
        load_settings(path)
    assert str(path) in failed.value.message


class TestTable:
    @pytest.mark.parametrize(
        ("seconds", "text"),
        [
            (0, "0s"),
            (-5, "0s"),
            (119, "119s"),
            (120, "2m"),
            (200, "3m20s"),
            (3600, "60m"),
            (7200, "2h"),
            (10**6, "11d"),
        ],
    )
    def test_ages(self, seconds: int, text: str) -> None:
        now = datetime.fromtimestamp(1_700_000_000 + seconds, UTC)
        assert table.age("2023-11-14T22:13:20Z", now) == text
        assert table.age(None, now) == "<unknown>"

    @pytest.mark.parametrize(
        ("conditions", "text"),
        [
            ([], "-"),
            ([("Programmed", "True", "Programmed", "3/3 sidecars")], "3/3"),
            ([("Programmed", "Unknown", "Pending", "1/3 sidecars")], "1/3"),
            ([("Programmed", "False", "Invalid", "2/3 sidecars: node a: bad")], "2/3 Invalid"),
            ([("Programmed", "True", "NoSidecars", "")], "NoSidecars"),
            (
                [("ResolvedRefs", "False", "BackendNotFound", "x"), ("Programmed", "True", "", "3/3")],
                "BackendNotFound",
            ),
            ([("Accepted", "True", "Accepted", "")], "-"),
        ],
    )
    def test_programmed_of_objects_and_routes(self, conditions: list[tuple[str, ...]], text: str) -> None:
        listed = [dict(zip(("type", "status", "reason", "message"), c, strict=True)) for c in conditions]
        assert table.programmed({"status": {"conditions": listed}}) == text
        assert table.programmed({"status": {"parents": [{"conditions": listed}]}}) == text

    def test_columns_align_and_control_characters_are_shown(self) -> None:
        assert table.render(["A", "B"], [["long", "x"], ["\x1b[2J", ""]]) == (
            "A         B\nlong      x\n\\x1b[2J"
        )

    @pytest.mark.parametrize("kind", ["Service", "HTTPRoute", "Other"])
    def test_an_object_that_says_little_has_a_row(self, kind: str) -> None:
        for _, cell in table.columns(kind, namespaces=True):
            assert isinstance(cell({"metadata": {"name": "x"}}), str)


class TestAddresses:
    @pytest.mark.parametrize(
        ("text", "host", "port"),
        [
            ("127.0.0.1:80", "127.0.0.1", 80),
            ("[::1]:0", "::1", 0),
            (":80", "0.0.0.0", 80),
            ("name.example:65535", "name.example", 65535),
        ],
    )
    def test_read_and_written(self, text: str, host: str, port: int) -> None:
        assert parse(text) == HostPort(host, port)
        assert parse(str(parse(text))) == HostPort(host, port)

    @pytest.mark.parametrize("text", ["", "80", "a:", "a:x", "a:65536", "::1:80", "[::1:80", "a:-1", "a:١"])
    def test_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"host:port|brackets"):
            parse(text)
