"""The one console that all commands write to."""

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

console = Console(stderr=True)


def progress(description: str, count: str) -> Progress:
    """A bar between two texts, which may name fields of the task, and the time that is left."""
    columns = (TextColumn(description), BarColumn(), TextColumn(count), TimeRemainingColumn())
    return Progress(*columns, console=console)


def announce(out: Path, words: str) -> None:
    """Say what was written; the path is shown as it is, brackets and all."""
    console.print(f"[bold]{escape(str(out))}[/]: {words}", highlight=False, soft_wrap=True)
