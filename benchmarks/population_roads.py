"""Both roads to the population of one mock, against its truth and each other, with their cost.

    python benchmarks/population_roads.py infer
    python benchmarks/population_roads.py posteriors
    python benchmarks/population_roads.py photometry
    python benchmarks/population_roads.py compare

The mock is Table 2's of benchmarks/population_mocks.py: r < 19.8, S/N > 1 in every band, 0.01 < z <
0.6, which is the range of the shipped model; its S/N lies inside that of the model's training too.
`infer` draws every galaxy's posterior, redshift free, without a catalogue's floor, for the mock's
errors have theirs. `posteriors` and `photometry` each fit their members; each goes on where it was
killed. `compare` writes benchmarks/results/population_roads.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq

from machine import machine
from population_mock import (
    ALSO,
    REDSHIFTS,
    RESULTS,
    TARGETS,
    compare,
    wasserstein_1,
    with_derived,
    world,
)
from population_mocks import SELECT, make_mock, mock_survey, write_mock
from tinsley.catalog.hierarchy import make_posterior_setup, posterior_road
from tinsley.catalog.population import (
    EnsembleSettings,
    describe_ensemble,
    draw_ensemble,
    fit_ensemble,
)
from tinsley.catalog.run import RunSettings, run_catalog
from tinsley.io.catalogs import Catalog, open_catalog
from tinsley.io.models import load_posterior
from tinsley.io.populations import read_whole_rows, save_population
from tinsley.io.results import make_folder, write_json
from tinsley.observe.noise import fit_snr_given_flux
from tinsley.population.config import DISTANCES, HIERARCHY, TINSLEY
from tinsley.population.fit import make_setup
from tinsley.population.reference import uniform_reference
from tinsley.population.synthetic import parse_selection
from tinsley.status import Redshift

LABELS = ("first", "second")
MODEL = "sdss-v1"


def mock_catalog(runs: Path, number: int) -> Catalog:
    """The mock as a table on disk, with its truth beside it, made when it is not there."""
    path = make_folder(runs) / f"mock-{number}.parquet"
    if not path.exists():
        mock = make_mock(world()[1], "table-2", number, REDSHIFTS[1], seed=1)
        write_mock(path, mock, number)
    return open_catalog(path, mock_survey(), needs_redshift=False)


def infer(runs: Path, number: int) -> None:
    """Posteriors of the mock's galaxies, and the seconds that they took."""
    catalog, loaded = mock_catalog(runs, number), load_posterior(MODEL)
    settings = RunSettings(redshift=Redshift.FREE)
    clock, done = Clock(), 0

    def on_chunk(rows: int) -> None:
        nonlocal done
        done += rows
        print(f"{done} galaxies {clock.read()}", flush=True)

    run_catalog(loaded, catalog, None, runs / "posteriors", settings, on_chunk)
    write_json(runs / "infer.json", clock.read())


def posteriors(runs: Path, options: argparse.Namespace) -> None:
    """The second road: members from the posteriors."""
    catalog, loaded = mock_catalog(runs, options.galaxies), load_posterior(MODEL)
    common = dataclasses.replace(HIERARCHY.common, steps=options.steps, validations=10)
    config = dataclasses.replace(HIERARCHY, common=common, draws=options.draws)
    selection = parse_selection(SELECT, catalog.survey.bands)
    clock = Clock()
    setup = make_posterior_setup(runs / "posteriors", loaded, catalog, selection, config, seed=0)
    reading = clock.read()
    print(setup.rows, reading, flush=True)
    about = {"config": config.to_dict(), "galaxies": options.galaxies}
    road = posterior_road(setup)
    tables = loaded.posterior.derived_tables
    fit(setup.photometry, common, options, (runs / "second", tables), about, road)


def photometry(runs: Path, options: argparse.Namespace) -> None:
    """The first road: members from the photometry of the same galaxies."""
    catalog, (space, tables, derived_tables) = mock_catalog(runs, options.galaxies), world()
    selection = parse_selection(SELECT, catalog.survey.bands)
    rows, _ = read_whole_rows(catalog, selection)
    flux, sigma = rows.flux, rows.sigma
    size = {"steps": options.steps, "batch": options.batch, "validations": 10}
    config = dataclasses.replace(TINSLEY, distance=DISTANCES[options.distance], **size)
    noise = fit_snr_given_flux(flux, sigma, np.ones(flux.shape, bool))
    setup = make_setup(
        config, (space, tables), (noise, selection), (flux, sigma),
        uniform_reference(space.n_dim), key=jax.random.key(0),
    )  # fmt: skip
    about = {"config": config.to_dict(), "galaxies": options.galaxies}
    fit(setup, config, options, (runs / "first", derived_tables), about, None)


def fit(setup, config, options, place, about, road) -> None:
    """Fit members, draw galaxies, and write both with what they cost, earlier starts included."""
    out, derived_tables = place
    settings, clock = EnsembleSettings(options.members, 50_000, 0), Clock()

    def on_steps(member: int, step: int, loss: float) -> None:
        print(f"member {member} step {step} loss {loss:.4f} {clock.read()}", flush=True)

    members = fit_ensemble(setup, config, settings, out, about, on_steps, road)
    columns = draw_ensemble(members, derived_tables, settings)
    cost, before = clock.read(), out / "cost.json"
    if before.exists():
        earlier = json.loads(before.read_text())
        cost = {name: round(cost[name] + earlier[name], 1) for name in cost}
    write_json(before, cost)
    save_population(out, columns, about | describe_ensemble(members, setup, settings) | cost, 0)


class Clock:
    """Wall and processor seconds since it was made."""

    def __init__(self) -> None:
        self.begun = time.monotonic(), time.process_time()

    def read(self) -> dict[str, float]:
        return {
            "seconds": round(time.monotonic() - self.begun[0], 1),
            "cpu_seconds": round(time.process_time() - self.begun[1], 1),
        }


def compare_roads(runs: Path, options: argparse.Namespace) -> None:
    """Each road against the truth and against the other."""
    space, _, derived_tables = world()
    theta = {
        name.removeprefix("true_"): jnp.asarray(column, dtype=float)
        for name, column in read_columns(runs / f"mock-{options.galaxies}.parquet").items()
        if name.startswith("true_")
    }
    truth = with_derived(derived_tables, theta)
    uniform = space.theta(jax.random.normal(jax.random.key(2), (50_000, space.n_dim)))
    prior = with_derived(derived_tables, uniform)
    roads = {label: read_columns(runs / label / "population.parquet") for label in LABELS}
    ended = {k: json.loads((runs / k / "manifest.json").read_text()) for k in LABELS}
    names = (*TARGETS, *ALSO)
    result = {
        "mock": "table-2",
        "galaxies": options.galaxies,
        "infer": json.loads((runs / "infer.json").read_text()),
        "wasserstein_1": {
            k: {n: compare(n, draws, truth, prior) for n in names} for k, draws in roads.items()
        },
        "wasserstein_1_between": {n: between(n, *roads.values()) for n in names},
        "fits": {k: summary(manifest) for k, manifest in ended.items()},
        "machine": machine(),
    }
    write_json(RESULTS / "population_roads.json", json.loads(json.dumps(result)))
    print(json.dumps(result, indent=1))


def read_columns(path: Path) -> dict[str, np.ndarray]:
    table = pq.read_table(path)
    return {name: table[name].to_numpy() for name in table.column_names}


def between(name: str, one: dict, other: dict) -> float:
    weight = other["selected_weight"].astype(float)
    rows = np.random.default_rng(0).choice(len(weight), len(weight), p=weight / weight.sum())
    return round(wasserstein_1(one[name], one["selected_weight"], other[name][rows]), 4)


def summary(manifest: dict) -> dict[str, object]:
    members = manifest["members"]
    return {
        "galaxies": manifest["galaxies"],
        "steps": [m["steps"] for m in members],
        "best": [m["best"] for m in members],
        "photometry_ratio": [round(m["photometry_ratio"], 3) for m in members],
        "config": manifest["config"],
        "seconds": manifest["seconds"],
        "cpu_seconds": manifest["cpu_seconds"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    steps = {"posteriors": posteriors, "photometry": photometry, "compare": compare_roads}
    parser.add_argument("what", choices=("infer", *steps))
    parser.add_argument("--galaxies", type=int, default=10_000)
    parser.add_argument("--members", type=int, default=2)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--distance", choices=tuple(DISTANCES), default="characteristic")
    parser.add_argument("--draws", type=int, default=256)
    parser.add_argument("--runs", type=Path, default=Path("runs/roads"))
    options = parser.parse_args()
    if options.what == "infer":
        infer(options.runs, options.galaxies)
    else:
        steps[options.what](options.runs, options)


if __name__ == "__main__":
    main()
