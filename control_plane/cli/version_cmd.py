"""``tulle version``."""

from __future__ import annotations

import click


@click.command()
def version() -> None:
    """Print the version of this program."""
    from importlib.metadata import version as installed

    click.echo(f"tulle {installed('tulle')}")
