"""The bootstrap file decoded by a process of its own: the same answers as decoding it here, and no trace afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from bench import configs

HEADER = """
    import os, sys
    from pathlib import Path
    from proxy.decoder import BootstrapDecoder, DecoderDiedError
    from proxy.model.config import ConfigError
"""


def run(code: str, *arguments: str) -> str:
    """``code`` in a process of its own: a fork wants one thread, which the test's process need not have."""
    script = textwrap.dedent(HEADER) + textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def document(tmp_path: Path) -> dict[str, Any]:
    return json.loads(json.dumps(configs.outbound(tmp_path, tmp_path / "log", 15001, 15006, 15000)))


def test_the_answer_equals_decoding_it_here(document: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "envoy.json"
    path.write_text(json.dumps(document))
    code = """
    made = BootstrapDecoder(Path(sys.argv[1]))
    decoded = made.result()
    assert "google.protobuf" not in sys.modules
    made.finish()
    from proxy import bootstrap
    loaded = bootstrap.load(Path(sys.argv[1]))
    for name in ("config", "admin", "overload", "listener_limits"):
        assert getattr(decoded, name) == getattr(loaded, name)
    print("same")
    """
    assert run(code, str(path)) == "same\n"


def test_the_dump_has_the_file_and_no_private_key(document: dict[str, Any], tmp_path: Path) -> None:
    pem = configs_pem()
    document["static_resources"]["secrets"] = [
        {
            "name": "s",
            "tls_certificate": {
                "private_key": {"inline_string": pem},
                "certificate_chain": {"inline_string": "CHAIN"},
            },
        }
    ]
    path = tmp_path / "envoy.json"
    path.write_text(json.dumps(document))
    code = """
    import json
    made = BootstrapDecoder(Path(sys.argv[1]))
    made.result()
    print(json.dumps(made.dump()))
    assert made.pipe == -1
    try:
        os.waitpid(-1, 0)
    except ChildProcessError:
        pass
    else:
        raise SystemExit("a child was left")
    """
    shown = run(code, str(path))
    secret = json.loads(shown)["static_resources"]["secrets"][0]["tls_certificate"]
    assert secret["private_key"] == {"inline_bytes": "[redacted]"}
    assert "SECRET-OF-THE-KEY" not in shown


def configs_pem() -> str:
    return "-----BEGIN PRIVATE KEY-----\nSECRET-OF-THE-KEY\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ("{", "ConfigError None is neither YAML nor JSON"),
        ('{"static_resources": {"clusters": [{"name": "a", "outlier_detection": {}}]}}',
         "ConfigError cluster[a].outlier_detection is not supported"),
        (None, "FileNotFoundError"),
    ],
)  # fmt: skip
def test_refusals_come_over_as_they_are(content: str | None, wanted: str, tmp_path: Path) -> None:
    path = tmp_path / "envoy.json"
    if content is not None:
        path.write_text(content)
    code = """
    path = sys.argv[1]
    try:
        BootstrapDecoder(Path(path)).result()
    except ConfigError as error:
        print("ConfigError", error.path if error.path != path else None, error.message)
    except OSError as error:
        print(type(error).__name__)
    """
    assert run(code, str(path)).startswith(wanted)


def test_a_decoder_that_dies_is_an_error_and_not_a_wait_for_ever(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    code = """
    import signal
    made = BootstrapDecoder(Path(sys.argv[1]))
    os.kill(made._pid, signal.SIGKILL)
    try:
        made.result()
    except DecoderDiedError as error:
        print(error)
    """
    # Opening a pipe without a writer blocks: the child cannot have answered before the signal reaches it.
    assert "ended without an answer" in run(code, str(tmp_path / "fifo"))
