"""`tinsley prior`: what a prior implies for the properties that people ask of a galaxy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tinsley.cli.console import announce, console

NUMBER = 50_000
LEVELS = (0.025, 0.16, 0.5, 0.84, 0.975)


def prior(
    source: Annotated[
        str | None,
        typer.Argument(metavar="[FILE]", help="A .toml file or a name (default: MODEL's own)."),
    ] = None,
    model: Annotated[str, typer.Option(help="Model whose prior it changes, name or file.")] = (
        "sdss"
    ),
    out: Annotated[Path, typer.Option(help="Figure to write.")] = Path("prior.png"),
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed.")] = 0,
) -> None:
    """Draw what the prior FILE implies for mass, star formation, age and metallicity.

    Uniform priors on parameters are not uniform on what follows from them. The figure shows the
    implied densities beside those of MODEL's own prior, over MODEL's redshifts; a table, quantiles.
    """
    import jax
    import numpy as np

    from tinsley.io.models import load_posterior
    from tinsley.io.priors import load_prior, sample_prior
    from tinsley.io.results import new_file
    from tinsley.plot.prior import SHOWN, implied

    asked = None if source is None else load_prior(source)
    loaded = load_posterior(model)
    key = jax.random.key(seed)
    drawn = {loaded.spec.name: sample_prior(loaded, None, NUMBER, key)}
    if asked is not None:
        drawn[asked.name] = sample_prior(loaded, asked, NUMBER, key)
    with new_file(out) as file:
        implied(drawn).savefig(file, format="png")
    console.print(_table(drawn, SHOWN))
    effective = 1 / float(np.sum(drawn[asked.name if asked else loaded.spec.name][1] ** 2))
    announce(out, f"{NUMBER:,} galaxies of the prior, as good as {effective:,.0f}")


def _table(drawn: dict[str, Any], names: tuple[str, ...]) -> Any:
    """Quantiles of each property under each prior."""
    import corner
    from rich import box
    from rich.table import Column, Table

    words = (Column("property", no_wrap=True), "prior")
    table = Table(*words, *(f"{level:.1%}" for level in LEVELS), box=box.SIMPLE, padding=0)
    for name in names:
        for label, (values, weight) in drawn.items():
            quantiles = corner.quantile(values[name], LEVELS, weight)
            table.add_row(name, label, *(f"{value:.2f}" for value in quantiles))
    return table
