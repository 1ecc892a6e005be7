"""``tulle``: the one command. It only finds the subcommands; each is imported when it is called.

The sidecar starts through here, so this module must import nothing but click.
"""

from __future__ import annotations

import importlib
from typing import NamedTuple

import click


class _Lazy(NamedTuple):
    target: str
    help: str


_COMMANDS = {
    "access-token": _Lazy(
        "control_plane.cli.access_token_cmd:access_token", "Bearer tokens for people and programs."
    ),
    "apply": _Lazy("control_plane.cli.apply_cmd:apply", "Create or change objects from manifests."),
    "control-plane": _Lazy("control_plane.cli.control_plane_cmd:control_plane", "Run the control plane."),
    "delete": _Lazy("control_plane.cli.delete_cmd:delete", "Delete objects."),
    "demo": _Lazy("control_plane.cli.demo.command:demo", "Watch a whole mesh at work on this machine."),
    "envoy-bootstrap": _Lazy(
        "control_plane.cli.envoy_cmd:envoy_bootstrap", "Let a real Envoy take a sidecar's place."
    ),
    "get": _Lazy("control_plane.cli.get_cmd:get", "Show objects."),
    "history": _Lazy("control_plane.cli.history_cmd:history", "Show who changed what and when."),
    "pod": _Lazy("control_plane.cli.pod:pod", "Make and remove pods (network namespaces)."),
    "proxy": _Lazy("control_plane.cli.proxy_cmd:proxy", "Run the sidecar."),
    "token": _Lazy("control_plane.cli.token_cmd:token", "Join tokens, with which workloads enrol."),
    "unshare": _Lazy(
        "control_plane.cli.pod:unshare", "Run a command in its own user and network namespaces."
    ),
    "version": _Lazy("control_plane.cli.version_cmd:version", "Print the version."),
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        lazy = _COMMANDS.get(cmd_name)
        if lazy is None:
            return None
        module, _, name = lazy.target.partition(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, lazy.help) for name, lazy in sorted(_COMMANDS.items())])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Tulle, a service mesh."""


if __name__ == "__main__":
    main()
