"""The `tinsley` command. Each command is a short recipe: load, build, run, save."""

from __future__ import annotations

import sys

import typer

from tinsley.cli import download, train
from tinsley.cli.check import check
from tinsley.cli.console import console
from tinsley.cli.demo import demo
from tinsley.cli.galspec import galspec
from tinsley.cli.hierarchy import hierarchy
from tinsley.cli.infer import infer
from tinsley.cli.photometry import photometry
from tinsley.cli.population import population
from tinsley.cli.prior import prior
from tinsley.cli.simulate import simulate
from tinsley.cli.simulate_images import simulate_images
from tinsley.cli.train_properties import properties

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    add_completion=False,
    help="Physical properties of galaxies from their photometry.",
)
app.command()(infer)
app.command()(check)
app.command()(demo)
app.command()(galspec)
app.command()(photometry)
app.command()(population)
app.command()(hierarchy)
app.command()(prior)
app.command()(simulate)
app.command()(simulate_images)
train.app.command()(properties)
app.add_typer(train.app, name="train")
app.add_typer(download.app, name="download")


def run() -> None:
    """Run the command line; what a user did wrong becomes one sentence and exit code 2."""
    from rich.markup import escape

    from tinsley.errors import InputError

    try:
        app()
    except InputError as problem:
        console.print(f"[red]tinsley:[/] {escape(str(problem))}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        console.print("tinsley: stopped; the same command goes on where it was.")
        sys.exit(130)
