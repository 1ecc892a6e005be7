"""What the demo shows: chapters, commands, evidence and the closing table. It decides nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.panel import Panel
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True, slots=True)
class Result:
    """One row of the closing table."""

    claim: str
    evidence: str
    ok: bool


class Screen:
    """Prints the story as it happens."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, soft_wrap=False)
        self.results: list[Result] = []
        self._chapter = 0

    def chapter(self, title: str, text: str) -> None:
        """Begin a chapter: a title and what is about to be seen."""
        self._chapter += 1
        self.console.print()
        self.console.rule(f"[bold cyan]{self._chapter}. {title}", align="left")
        self.console.print(Text(text, style="dim"))

    def say(self, text: str) -> None:
        """One line of the story; rich markup is allowed."""
        self.console.print(text)

    def command(self, *words: str) -> None:
        """A command as a user would type it."""
        self.console.print(Text("$ " + " ".join(words), style="bold yellow"))

    def yaml(self, text: str) -> None:
        """A manifest."""
        self.console.print(Syntax(text.rstrip(), "yaml", background_color="default"))

    def log_line(self, who: str, record: Mapping[str, object], fields: Sequence[str]) -> None:
        """The named fields of one JSON access-log line."""
        shown = {name: record.get(name) for name in fields if record.get(name) not in (None, "", "-")}
        self.console.print(
            Panel(
                Syntax(json.dumps(shown, indent=2), "json", background_color="default", word_wrap=True),
                title=f"access log of {who}",
                title_align="left",
                border_style="dim",
            )
        )

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """A plain table."""
        table = Table(*columns, box=None, header_style="bold")
        for row in rows:
            table.add_row(*row)
        self.console.print(table)

    def result(self, claim: str, evidence: str, ok: bool) -> None:
        """State what was shown, now and in the closing table."""
        self.results.append(Result(claim, evidence, ok))
        self.console.print(
            Text.assemble((" ✓ " if ok else " ✗ ", "bold green" if ok else "bold red"), evidence)
        )

    def summary(self) -> bool:
        """The closing table; true if everything came out as told."""
        table = Table("", "shown", "evidence", title="What you have just seen", title_justify="left")
        for result in self.results:
            mark = Text("✓", style="green") if result.ok else Text("✗", style="red")
            table.add_row(mark, result.claim, result.evidence)
        self.console.print()
        self.console.print(table)
        return all(result.ok for result in self.results)
