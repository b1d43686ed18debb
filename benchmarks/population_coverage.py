"""Do the members' 90 % bands cover? Small mocks whose truths come from the stated hyperprior.

    python benchmarks/population_coverage.py [--mocks 100] [--members 5] [--runs runs/coverage]

Of each mock the true population is a reference drawn anew from the hyperprior
(`tinsley.population.reference`), observed with SDSS-like noise through a cut, r < 19.8, by plain
rejection. An ensemble is fitted to its photometry alone. Counted is how often the 90 % band
(`Band.outer`) holds the truth, of the galaxies as observed: mean redshift, n(z) in bins, mean mass,
the mass function in bins, and the slope of the main sequence. Widths are given over those of the
hyperprior itself seen through the cut: a method that learns nothing would have these, and cover.

In characteristic distance a step of 256 galaxies is too noisy: `--batch 1024` is nearer to what
`tinsley population` does.

With `--off told` or `--off untold` the fluxes of each mock are off by a draw of SDSS's shared
errors (`tinsley.population.synthetic.recalibrated`), which no population can make, and the fit is
told of the survey's error floor, or it is not.

Fits go on where they were killed. Writes benchmarks/results/population_coverage-*.json. Two
processes can share the work, one with `--mocks 50 --out half.json`, the other with `--first 50`
too; when both are done, the same command without these counts all.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from machine import machine
from population_mock import RESULTS, world
from population_mocks import R_LIMIT_MAG, gama_like_noise
from tinsley.catalog.population import EnsembleSettings, draw_ensemble, fit_ensemble
from tinsley.cli.console import progress
from tinsley.errors import InputError
from tinsley.io.results import write_json
from tinsley.io.surveys import load_survey
from tinsley.observe.photometry import BandTables, photometry
from tinsley.population.config import DISTANCES, TINSLEY, PopulationConfig
from tinsley.population.fit import make_setup
from tinsley.population.reference import Reference, draw_reference, uniform_reference
from tinsley.population.sequence import MASS as SURVIVING
from tinsley.population.sequence import star_forming_sequence
from tinsley.population.space import REDSHIFT, PopulationSpace
from tinsley.population.summaries import MEMBER, SELECTED, Band, over_members
from tinsley.population.synthetic import (
    Recorded,
    Selection,
    make_view,
    parse_selection,
    recalibrated,
    record,
)
from tinsley.sps.derived import DerivedTables, derived

SELECT = f"r < {R_LIMIT_MAG}"
EDGES = {
    REDSHIFT: np.array([0.01, 0.1, 0.2, 0.3, 0.4, 0.6]),
    "log10_mstar_msun": np.array([7.0, 9.0, 9.75, 10.5, 11.25, 12.5]),
}
SEQUENCE = {REDSHIFT: (0.0, 0.6), SURVIVING: (8.5, 11.5)}
ROUND = 20_000
MOST_ROUNDS = 50
"""A reference of which fewer galaxies pass than 1 in 500 is drawn anew."""
TRUE_GALAXIES = 40_000
"""Of a true population, or as many as the rounds bring: its own noise is not to count as a miss."""
PRIOR_POPULATIONS = 200
DRAWS = 4_000
"""Of each member, and of each reference."""
FLOOR_MAG = load_survey("sdss").error_floor_mag
SHARES = (0.84, 0.96)
"""Of all bands together that share is to hold the truth."""

Columns = dict[str, np.ndarray]


class World(NamedTuple):
    """The forward model, and how galaxies are observed."""

    space: PopulationSpace
    tables: BandTables
    derived_tables: DerivedTables
    selection: Selection


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mocks", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="number of the first mock")
    parser.add_argument("--galaxies", type=int, default=2_000, help="of each mock")
    parser.add_argument("--members", type=int, default=5)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--runs", type=Path, default=Path("runs/coverage"))
    parser.add_argument("--distance", choices=tuple(DISTANCES), default="sliced")
    parser.add_argument("--off", choices=("told", "untold"), help="fluxes with shared errors")
    parser.add_argument("--out", type=Path, help="default: results/population_coverage-*.json")
    options = parser.parse_args()
    size = {"steps": options.steps, "batch": options.batch, "validations": 10, "patience": 10}
    config = dataclasses.replace(TINSLEY, distance=DISTANCES[options.distance], **size)
    name = "-".join(filter(None, ("population_coverage", options.distance, options.off)))
    out = options.out or RESULTS / f"{name}.json"
    there = World(*world(), parse_selection(SELECT, load_survey("sdss").bands))
    prior = bands(prior_populations(there))
    found = []
    with progress("{task.description}", "{task.completed}/{task.total}") as bar:
        task = bar.add_task("mocks", total=options.mocks)
        for number in range(options.first, options.first + options.mocks):
            truth, catalog = make_mock(there, options.galaxies, number)
            observed = off(catalog, number) if options.off else catalog
            fitted = fit(there, config, observed, options, number)
            found.append((bands(truth), bands(fitted)))
            bar.advance(task)
            report = {"machine": machine(), "mocks": len(found), "config": config.to_dict()}
            report |= {name: getattr(options, name) for name in ("galaxies", "members", "off")}
            write_json(out, report | coverage(found, prior))


def bands(columns: Columns) -> dict[str, Band]:
    """Every summary that is judged, of each member of some populations, as observed."""

    def shares(one: Columns, weight: np.ndarray) -> np.ndarray:
        return np.concatenate(
            [np.histogram(one[n], e, weights=weight)[0] / weight.sum() for n, e in EDGES.items()]
        )

    def means(one: Columns, weight: np.ndarray) -> np.ndarray:
        return np.array([np.average(one[name], weights=weight) for name in EDGES])

    binned, mean = (over_members(columns, each, SELECTED).each for each in (shares, means))
    words = ("n_of_z", "mass_function")
    bins = np.split(binned, np.cumsum([len(e) - 1 for e in EDGES.values()])[:-1], axis=1)
    out = {f"mean_{name}": mean[:, [i]] for i, name in enumerate(EDGES)}
    out |= dict(zip(words, bins, strict=True)) | {"sequence_slope": slopes(columns)[:, None]}
    return {name: Band(each) for name, each in out.items()}


def slopes(columns: Columns) -> np.ndarray:
    """Of the main sequence, of each member; NaN where a population has no galaxy to tell it."""
    try:
        return star_forming_sequence(columns, SEQUENCE, weight=SELECTED).slope.each
    except InputError:
        return np.full(len(np.unique(columns[MEMBER])), np.nan)


# --- truths ---


@eqx.filter_jit
def observe(
    there: World, reference: Reference, selection: Selection, number: int, key: jax.Array
) -> tuple[dict[str, jax.Array], Recorded]:
    """Galaxies of a reference, and what a survey records of them."""
    key_draw, key_record = jax.random.split(key)
    theta = there.space.theta(reference.sample(number, key=key_draw))
    flux = photometry(there.tables, theta)
    made = record(flux, gama_like_noise(), selection, key=key_record)
    return theta | derived(there.derived_tables, theta), made


def prior_populations(there: World) -> Columns:
    """The hyperprior: members that are references, weighted as observed."""
    parts = []
    for key in jax.random.split(jax.random.key(5), PRIOR_POPULATIONS):
        reference = draw_reference(uniform_reference(there.space.n_dim), key=key)
        theta, made = observe(there, reference, there.selection, DRAWS, key)
        parts.append({**theta, SELECTED: made.pass_probability})
    return as_members(parts)


def as_members(parts: list[dict[str, Any]]) -> Columns:
    """Populations as the members of one table."""
    columns = {n: np.concatenate([np.asarray(p[n], float) for p in parts]) for n in parts[0]}
    return columns | {MEMBER: np.repeat(np.arange(len(parts)), [len(p[SELECTED]) for p in parts])}


def make_mock(
    there: World, galaxies: int, number: int
) -> tuple[Columns, tuple[np.ndarray, np.ndarray]]:
    """The true population as observed, and a catalogue of so many of its galaxies."""
    everything, key = Selection((-np.inf,) * 5), jax.random.fold_in(jax.random.key(7), number)
    while True:
        key, key_reference = jax.random.split(key)
        reference = draw_reference(uniform_reference(there.space.n_dim), key=key_reference)
        parts: list[Columns] = []
        found = 0
        for key_round in jax.random.split(key_reference, MOST_ROUNDS):
            if found >= max(galaxies, TRUE_GALAXIES):
                break
            theta, made = observe(there, reference, everything, ROUND, key_round)
            flux, sigma = np.asarray(made.flux, float), np.asarray(made.sigma, float)
            kept = there.selection.passes(flux, sigma)
            columns = {name: np.asarray(values)[kept] for name, values in theta.items()}
            parts.append(columns | {"flux": flux[kept], "sigma": sigma[kept]})
            found += int(kept.sum())
        if found >= galaxies:
            every = {n: np.concatenate([p[n] for p in parts]) for n in parts[0]}
            flux, sigma = every.pop("flux"), every.pop("sigma")
            truth = as_members([every | {SELECTED: np.ones(len(flux))}])
            return truth, (flux[:galaxies], sigma[:galaxies])


def off(catalog: tuple[np.ndarray, np.ndarray], number: int) -> tuple[np.ndarray, np.ndarray]:
    """The catalogue with the errors of a calibration of its own."""
    flux, sigma = catalog
    view, key = make_view(flux, sigma), jax.random.fold_in(jax.random.key(8), number)
    moved = recalibrated(jnp.asarray(flux), view, jnp.asarray(FLOOR_MAG), key=key)
    return np.asarray(moved, float), sigma


# --- fits ---


def fit(
    there: World,
    config: PopulationConfig,
    catalog: tuple[np.ndarray, np.ndarray],
    options: argparse.Namespace,
    number: int,
) -> Columns:
    """Draws of the ensemble of one mock."""
    setup = make_setup(
        config,
        (there.space, there.tables),
        (gama_like_noise(), there.selection),
        catalog,
        uniform_reference(there.space.n_dim),
        key=jax.random.key(number),
        floor_mag=FLOOR_MAG if options.off == "told" else None,
    )
    settings = EnsembleSettings(options.members, options.members * DRAWS, 1000 + number)
    about = {"config": config.to_dict(), "mock": number}
    about |= {name: getattr(options, name) for name in ("galaxies", "off")}
    members = fit_ensemble(setup, config, settings, options.runs / f"mock-{number:03d}", about)
    return draw_ensemble(members, there.derived_tables, settings)


def coverage(
    found: list[tuple[dict[str, Band], dict[str, Band]]], prior: dict[str, Band]
) -> dict[str, Any]:
    """How often the bands hold the truths, and how wide they are."""
    out: dict[str, Any] = {}
    every = []
    for name, of_prior in prior.items():
        truth = np.stack([true[name].each[0] for true, _ in found])
        low, high = np.stack([band[name].outer for _, band in found], axis=1)
        judged = np.isfinite(truth) & np.isfinite(low)
        held = np.where(judged, (low <= truth) & (truth <= high), np.nan)
        width = np.nanmedian(np.where(judged, high - low, np.nan), axis=0)
        every.append(held)
        out[name] = {
            "judged": int(judged.sum()),
            "covered": round(float(np.nanmean(held)), 3),
            "median_width": [round(float(w), 4) for w in width],
            "over_prior": [round(float(w), 3) for w in width / np.ptp(of_prior.outer, axis=0)],
        }
    of_all = np.concatenate(every, axis=1)
    pooled = float(np.nanmean(of_all))
    error = float(np.std(np.nanmean(of_all, axis=1)) / np.sqrt(len(found)))
    met = bool(SHARES[0] <= pooled <= SHARES[1])
    return {"pooled": {"covered": pooled, "error": error, "met": met}, "summaries": out}


if __name__ == "__main__":
    main()
