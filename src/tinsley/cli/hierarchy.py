"""`tinsley hierarchy`: what galaxies are there, from the posteriors of each."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from tinsley.cli.console import console
from tinsley.cli.population import fit_with_bar, manifest_head, save_ensemble


def hierarchy(
    run: Annotated[Path, typer.Argument(help="Folder of a finished `tinsley infer`.")],
    out: Annotated[Path, typer.Option(help="Folder of results; a begun run goes on.")] = Path(
        "population"
    ),
    members: Annotated[int, typer.Option(min=1, max=99, help="Populations to fit.")] = 10,
    select: Annotated[
        str, typer.Option(help="The cut that the catalogue has passed: 'r < 17.77', 'snr > 1'.")
    ] = "",
    catalog: Annotated[
        Path | None, typer.Option(help="The catalogue of RUN, if it was moved.")
    ] = None,
    survey: Annotated[
        str | None, typer.Option(help="Survey name or TOML file (default: the name in RUN).")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Model name or file of RUN (default: the name in RUN).")
    ] = None,
    draws: Annotated[int, typer.Option(min=100, help="Galaxies to draw.")] = 100_000,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Seed of the run.")] = 0,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimiser steps a member (default: 1500).")
    ] = None,
    batch: Annotated[int | None, typer.Option(min=2, help="Galaxies a step (default: 64).")] = None,
) -> None:
    """Infer the population behind the galaxies of RUN from their posteriors: the second road.

    RUN is a folder of `tinsley infer`, with its draws, redshifts given or free, without --prior.
    Writes what `tinsley population` writes, to be read in the same way. manifest.json says how many
    effective draws each member leaves (ess_q50): where they are few, trust the first road.
    """
    from tinsley.catalog.hierarchy import make_posterior_setup, posterior_road
    from tinsley.catalog.population import EnsembleSettings
    from tinsley.errors import InputError
    from tinsley.io.catalogs import open_catalog
    from tinsley.io.models import load_posterior
    from tinsley.io.runs import load_manifest
    from tinsley.io.surveys import load_survey
    from tinsley.population.config import HIERARCHY
    from tinsley.population.synthetic import parse_selection

    manifest = load_manifest(run)
    loaded = load_posterior(model or manifest["model"])
    table = open_catalog(
        catalog or manifest["input"],
        load_survey(survey or manifest["survey"]),
        manifest["layout"],
        needs_redshift=manifest["redshift"] == "given",
    )
    try:
        selection = parse_selection(select, table.survey.bands)
    except ValueError as problem:
        raise InputError(str(problem)) from problem
    common = dataclasses.replace(
        HIERARCHY.common,
        steps=steps or HIERARCHY.common.steps,
        batch=batch or HIERARCHY.common.batch,
    )
    config = dataclasses.replace(HIERARCHY, common=common)
    setup = make_posterior_setup(run, loaded, table, selection, config, seed=seed)
    console.print(f"{setup.rows['used']:,} galaxies, {config.draws} draws of each")
    settings = EnsembleSettings(members, draws, seed)
    head = manifest_head(table, setup.photometry, setup.rows, loaded.spec.nebular)
    head |= {"select": select, "prior": "uniform", "config": config.to_dict(), "seed": seed}
    head |= {"road": "posteriors", "model": manifest["model"], "redshift": manifest["redshift"]}
    road = posterior_road(setup)
    fitted = fit_with_bar(setup.photometry, common, settings, out, head, road)
    save_ensemble(fitted, setup.photometry, loaded.posterior.derived_tables, settings, out, head)
