"""Commands as a user would give them, in this process."""

from __future__ import annotations

from tinsley.cli.console import console
from tinsley.cli.main import app


def command(*words: str) -> None:
    """Say a command of `tinsley`, and run it."""
    console.print("tinsley " + " ".join(words), highlight=False)
    app(list(words), standalone_mode=False)
