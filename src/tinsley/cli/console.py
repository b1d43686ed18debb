"""The one console that all commands write to."""

from pathlib import Path

from rich.console import Console
from rich.markup import escape

console = Console(stderr=True)


def announce(out: Path, words: str) -> None:
    """Say what was written; the path is shown as it is, brackets and all."""
    console.print(f"[bold]{escape(str(out))}[/]: {words}", highlight=False, soft_wrap=True)
