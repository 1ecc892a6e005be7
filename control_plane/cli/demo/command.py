"""The ``tulle demo`` command: choose a world, tell the story, leave nothing behind."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from types import FrameType

import click

from control_plane.cli.demo.processes import DemoFailed
from control_plane.cli.demo.screen import Screen
from control_plane.cli.demo.story import Story
from control_plane.cli.demo.worlds import LoopbackWorld, PodWorld, World
from netns import namespace
from netns.capabilities import probe
from netns.errors import NetnsError


@click.command("demo")
@click.option(
    "--keep", is_flag=True, help="Leave the mesh running at the end until Ctrl-C, and say what to try."
)
@click.option(
    "--no-capture", is_flag=True, help="Use explicit listeners on loopback, as if pods were impossible here."
)
def demo(*, keep: bool, no_capture: bool) -> None:
    """Run a whole mesh in its own namespaces and show what it does. Needs no root."""
    screen = Screen()
    reasons = enter_namespaces(no_capture=no_capture)
    directory = Path(tempfile.mkdtemp(prefix="tulle-demo-"))
    signal.signal(signal.SIGTERM, _interrupt)
    world: World | None = None
    kept = False
    try:
        if reasons:
            screen.say(f"[yellow]No pods here: {'; '.join(reasons)}.[/yellow]")
            screen.say("[yellow]Going on with plain processes and explicit listeners on loopback.[/yellow]")
            world = LoopbackWorld(directory)
        else:
            world = PodWorld(directory)
        Story(world, screen).tell()
        right = screen.summary()
        if keep:
            kept = True
            show_what_to_try(world, screen)
            signal.pause()
    except KeyboardInterrupt:
        screen.say("\nstopping" if kept else "\ninterrupted")
        right = kept
    except (DemoFailed, NetnsError) as error:
        screen.say(f"[bold red]The demo cannot go on:[/bold red] {error}")
        right = False
    finally:
        # A second Ctrl-C must not cut the clean-up short.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if world is not None:
            world.close()
        shutil.rmtree(directory, ignore_errors=True)
    screen.say("[dim]Everything is stopped and removed.[/dim]")
    sys.exit(0 if right else 1)


def enter_namespaces(*, no_capture: bool) -> tuple[str, ...]:
    """Move into private namespaces; if that cannot be, why (the demo then uses explicit listeners)."""
    if no_capture:
        return ("--no-capture was given",)
    can = probe()
    if can.capture:
        if can.userns:
            namespace.enter_user_namespace()
        else:
            namespace.enter_private_namespace()
        return ()
    return can.reasons[:1] or ("traffic cannot be captured",)


def show_what_to_try(world: World, screen: Screen) -> None:
    """What a curious user can do with a mesh that was left running."""
    conf = world.data_dir / "admin.conf"
    tulle = shlex.quote(str(Path(sys.argv[0]).resolve()))
    screen.say("\n[bold]The mesh is still running; Ctrl-C ends it.[/bold] From another terminal:")
    if isinstance(world, PodWorld):
        enter = f"nsenter -t {os.getpid()} -U --preserve-credentials -n -m"
        pod = world.workloads["client"].pod
        path = pod.netns_path if pod is not None else ""
        lines = [
            f"{enter} {tulle} get httproutes -A --config {conf}",
            f"{enter} nsenter --net={path} curl -s -H 'host: web.shop.mesh.local' http://10.96.0.10/",
            f"{enter} nsenter --net={path} curl -s http://127.0.0.1:15000/clusters",
        ]
    else:
        client = world.workloads["client"]
        lines = [
            f"{tulle} get httproutes -A --config {conf}",
            f"http_proxy=http://{client.ip}:15001 curl -s http://web.shop.mesh.local/",
            f"curl -s http://{client.ip}:15000/clusters",
        ]
    for line in [*lines, f"tail -f {world.directory}/logs/*.access.log"]:
        screen.console.print(f"  {line}", soft_wrap=True, markup=False)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
