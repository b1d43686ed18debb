"""`tinsley simulate`: galaxies whose truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinsley.cli.console import announce
from tinsley.cli.options import Nebular

FLOOR_SHARE = 0.8
"""The error floor is at most this share of a simulated error, so that a part is left to quote."""


def simulate(
    out: Annotated[Path, typer.Option(help="File to write: .parquet or .csv.")],
    survey: Annotated[str, typer.Option(help="Survey name or TOML file.")] = "sdss",
    number: Annotated[int, typer.Option(min=1, help="Galaxies.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed.")] = 0,
    redshift_min: Annotated[float, typer.Option(min=0.003, max=1.9)] = 0.01,
    redshift_max: Annotated[float, typer.Option(min=0.004, max=2.0)] = 0.6,
    nebular: Nebular = None,
) -> None:
    """Draw galaxies from the prior and observe them.

    Writes the layout `native` (object_id, redshift, flux_*, flux_err_* in nanomaggies, without the
    survey's error floor, which `tinsley infer` adds) and true_<name> for every parameter and
    derived property. Total S/N is log-uniform up to what the floor allows, and errors follow from
    the observed flux as they do for real data: posteriors of these galaxies can be calibrated.
    """
    import jax
    import numpy as np

    from tinsley.errors import InputError
    from tinsley.infer.simulator import Simulator
    from tinsley.io.models import build_model, build_tables
    from tinsley.io.results import write_table
    from tinsley.io.surveys import load_survey
    from tinsley.observe.noise import BroadNoise
    from tinsley.observe.survey import FLUX_PER_MAG
    from tinsley.parameters import default_space
    from tinsley.sps.derived import derived

    if redshift_min >= redshift_max:
        raise InputError(
            f"expected --redshift-min below --redshift-max; got {redshift_min} and {redshift_max}."
        )
    survey_ = load_survey(survey)
    redshift_range = (redshift_min, redshift_max)
    model = build_model(nebular=nebular)
    tables, derived_tables = build_tables(survey_.filters, redshift_range, model)
    floor = np.maximum(FLUX_PER_MAG * survey_.error_floor_mag, 1e-6)
    snr_max = np.minimum(survey_.noise["snr_max"], FLOOR_SHARE / floor)
    noise = BroadNoise(survey_.noise["snr_min"], tuple(snr_max.tolist()))
    simulator = Simulator(default_space(), tables, noise, redshift_range, complete=1.0)
    made = simulator.sample(number, key=jax.random.key(seed))
    flux = np.asarray(made.seen.flux, float)
    error = survey_.measured_sigma(flux, np.asarray(made.seen.sigma, float))
    columns = {
        "object_id": np.arange(number),
        "redshift": np.asarray(made.theta["redshift"], float),
    }
    for b, band in enumerate(survey_.bands):
        columns |= {f"flux_{band}": flux[:, b], f"flux_err_{band}": error[:, b]}
    truth = made.theta | derived(derived_tables, made.theta)
    columns |= {f"true_{k}": np.asarray(v) for k, v in truth.items() if k != "redshift"}
    write_table(out, columns)
    announce(out, f"{number:,} galaxies")
