"""Talks to the control plane's API: finds the configuration, opens one verified TLS connection, sends requests.

Standard library only, so that commands start fast. It must not print.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import ssl
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click

F = TypeVar("F", bound=Callable[..., Any])
TIMEOUT = 30.0
"""Seconds that the server may be silent, but for watches."""


class CommandFailed(click.ClickException):
    """Printed as it is, exit code 1."""

    def show(self, file: Any = None) -> None:
        click.echo(self.message, err=True)


class Refused(Exception):
    """The API said no; ``status`` is its Kubernetes ``Status``."""

    def __init__(self, status: Mapping[str, Any]) -> None:
        super().__init__(str(status.get("message", "refused without a message")))
        self.status = status
        self.code = int(status.get("code", 0))

    @property
    def causes(self) -> list[Mapping[str, str]]:
        details = self.status.get("details") or {}
        return list(details.get("causes") or [])


def default_data_dir() -> Path:
    """Where a control plane keeps its data unless told otherwise."""
    if found := os.environ.get("TULLE_DATA_DIR"):
        return Path(found)
    if os.geteuid() == 0:
        return Path("/var/lib/tulle")
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser() / "tulle"


def config_option(command: F) -> F:
    """``--config``: which control plane to talk to."""
    return click.option(
        "--config",
        "config",
        envvar="TULLE_CONFIG",
        type=click.Path(path_type=Path),
        default=lambda: default_data_dir() / "admin.conf",
        help="How to reach the control plane: a kubeconfig file, such as the admin.conf that the control "
        "plane writes. Also TULLE_CONFIG. Default: admin.conf in the data directory.",
    )(command)


@dataclass(frozen=True, slots=True)
class Settings:
    """What a kubeconfig says; paths are absolute."""

    host: str
    port: int
    context: ssl.SSLContext
    token: str | None


def load_settings(path: Path) -> Settings:
    """Read the current context of a kubeconfig. Raises :class:`CommandFailed`."""
    import yaml  # commands that fail earlier need not wait for it

    try:
        document = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        raise CommandFailed(
            f"{path} is not there: start 'tulle control-plane', or name its admin.conf by --config or TULLE_CONFIG"
        ) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CommandFailed(f"{path}: cannot be read: {error}") from None
    try:
        current = _named(document, "contexts", document["current-context"])["context"]
        cluster = _named(document, "clusters", current["cluster"])["cluster"]
        user = _named(document, "users", current["user"])["user"]
        url = urlsplit(cluster["server"])
        if url.scheme != "https" or not url.hostname:
            raise CommandFailed(f"{path}: server must be an https:// address, not {cluster['server']!r}")
        context = _tls(path.parent, cluster, user)
        token = user.get("token")
        if token is None and "tokenFile" in user:
            token = (path.parent / user["tokenFile"]).read_text("utf-8").strip()
        return Settings(url.hostname, url.port or 443, context, token)
    except (KeyError, TypeError, AttributeError) as error:
        raise CommandFailed(f"{path}: is not a kubeconfig: {error} is missing or wrong") from None
    except (OSError, ssl.SSLError, ValueError) as error:
        raise CommandFailed(f"{path}: a file that it names cannot be used: {error}") from None


def _named(document: Any, section: str, name: str) -> Any:
    for entry in document[section]:
        if entry["name"] == name:
            return entry
    raise KeyError(f"{section}: {name}")


def _tls(directory: Path, cluster: Mapping[str, Any], user: Mapping[str, Any]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if "certificate-authority-data" in cluster:
        context.load_verify_locations(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    else:
        context.load_verify_locations(cafile=directory / cluster["certificate-authority"])
    if "client-certificate" in user:
        context.load_cert_chain(directory / user["client-certificate"], directory / user["client-key"])
    return context


class Connection:
    """One keep-alive connection to the API. Not for several threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._http: http.client.HTTPSConnection | None = None

    @classmethod
    def open(cls, config: Path) -> Connection:
        """Raises :class:`CommandFailed`."""
        return cls(load_settings(config))

    def request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """The answer's JSON. Raises :class:`Refused`, or :class:`CommandFailed` if there is no answer."""
        response = self._send(method, path, body, headers or {}, TIMEOUT)
        try:
            answer = json.loads(response.read())
        except (ValueError, OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from None
        if response.status >= 400:
            raise Refused(answer)
        assert isinstance(answer, dict)
        return answer

    def lines(self, path: str) -> Iterator[dict[str, Any]]:
        """The JSON lines of a watch, until the server ends it or the connection breaks. Raises as ``request``."""
        self.close()
        response = self._send("GET", path, None, {}, None)
        if response.status >= 400:
            raise Refused(json.loads(response.read()))
        try:
            while line := response.readline():
                yield json.loads(line)
        except (OSError, ValueError, http.client.HTTPException):
            return
        finally:
            self.close()

    def close(self) -> None:
        if self._http is not None:
            self._http.close()
            self._http = None

    def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        headers: Mapping[str, str],
        timeout: float | None,
    ) -> http.client.HTTPResponse:
        sent = {"Accept": "application/json", "User-Agent": "tulle", **headers}
        if self._settings.token is not None:
            sent["Authorization"] = f"Bearer {self._settings.token}"
        data = None
        if body is not None:
            data = json.dumps(body, separators=(",", ":")).encode()
            sent["Content-Type"] = "application/json"
        try:
            if self._http is None:
                self._http = http.client.HTTPSConnection(
                    self._settings.host, self._settings.port, context=self._settings.context, timeout=TIMEOUT
                )
                self._http.connect()
            self._http.sock.settimeout(timeout)
            self._http.request(method, path, data, sent)
            return self._http.getresponse()
        except ssl.SSLCertVerificationError as error:
            raise CommandFailed(
                f"{self._where()} is not the control plane of this configuration: {error.verify_message}"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from None

    def _unreachable(self, error: Exception) -> CommandFailed:
        self.close()
        return CommandFailed(
            f"no answer from the control plane at {self._where()} ({error or type(error).__name__}): is it running?"
        )

    def _where(self) -> str:
        return f"{self._settings.host}:{self._settings.port}"


def fail(refused: Refused) -> CommandFailed:
    """A refusal as the user reads it: each cause on its own line, or the message."""
    if refused.code == 401:
        return CommandFailed(f"the control plane does not know you: {refused}")
    lines = [f"{cause.get('field') or 'request'}: {cause['message']}" for cause in refused.causes]
    return CommandFailed("\n".join(lines) or str(refused))


def warn(text: str) -> None:
    print(text, file=sys.stderr)
