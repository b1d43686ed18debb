"""The one console that all commands write to."""

from rich.console import Console

console = Console(stderr=True)
