"""``tulle access-token``: bearer tokens for people and programs that use the API.

Works on the data directory of the control plane on this host, which takes changes up by itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from control_plane.api.access_tokens import AccessTokens, TokenFileError
from control_plane.cli.connection import CommandFailed, default_data_dir, warn

_data_dir = click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    default=default_data_dir,
    help="The control plane's data directory.",
)


@click.group("access-token")
def access_token() -> None:
    """Bearer tokens of the API, each with a role."""


@access_token.command()
@click.argument("name")
@click.option("--role", type=click.Choice(["view", "edit", "admin"]), default="view", show_default=True)
@click.option("-n", "--namespace", "namespaces", multiple=True, help="Only here (default: everywhere).")
@click.option("--days", type=click.IntRange(min=1), help="Expires after so many days (default: never).")
@_data_dir
def create(name: str, role: str, namespaces: tuple[str, ...], days: int | None, data_dir: Path) -> None:
    """Make a token and print it, alone, on standard output. Only its hash is kept."""
    if role == "admin" and namespaces:
        raise click.UsageError("the role admin holds everywhere: leave -n out, or use the role edit")
    expires = int(time.time()) + days * 86_400 if days else 0
    with _tokens(data_dir) as tokens:
        click.echo(tokens.create(name, role, namespaces, expires))
    where = "in " + ", ".join(namespaces) if namespaces else "everywhere"
    warn(f"access token {name}: role {role} {where}")


@access_token.command()
@_data_dir
def ls(data_dir: Path) -> None:
    """List the tokens."""
    from control_plane.cli import table

    with _tokens(data_dir) as tokens:
        rows = [
            [token.name, token.role, ",".join(token.namespaces) or "<all>", _date(token.expires)]
            for token in tokens.list()
        ]
    click.echo(table.render(["NAME", "ROLE", "NAMESPACES", "EXPIRES"], rows))


@access_token.command()
@click.argument("name")
@_data_dir
def revoke(name: str, data_dir: Path) -> None:
    """Make a token useless, at once."""
    with _tokens(data_dir) as tokens:
        tokens.revoke(name)
    click.echo(f"access token {name} revoked")


@contextmanager
def _tokens(data_dir: Path) -> Iterator[AccessTokens]:
    try:
        yield AccessTokens(data_dir / "access-tokens.json")
    except TokenFileError as error:
        raise CommandFailed(str(error)) from None
    except OSError as error:
        raise CommandFailed(
            f"{error.filename}: {error.strerror}: name the control plane's directory with --data-dir"
        ) from None


def _date(expires: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(expires)) if expires else "never"
