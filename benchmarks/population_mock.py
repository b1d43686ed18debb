"""Populations of mock catalogues against their truth, and the cost of a step.

    python benchmarks/population_mock.py fit --mock table-2 --galaxies 100000 --members 10
    python benchmarks/population_mock.py fit --mock narrow --prior posteriors
    python benchmarks/population_mock.py cost
    python benchmarks/population_mock.py sizes
    python benchmarks/population_mock.py check

`fit` infers the population of a flux-limited mock (benchmarks/population_mocks.py) from its
photometry and its cut alone, and compares it with the truth: Wasserstein-1 distances of the
galaxies as observed, whether the members' 90 % band covers the true means, and the photometry. With
`--floor` it is told of shared errors too, for galaxies that the model can not make. It goes on
where it was killed. `cost` measures a step against the number of galaxies in the catalogue, and
each distance. `sizes` trains the same two members, on the same galaxies and references, with
densities of several sizes. `check` asks whether a fit could succeed: it sends the mock's own true
galaxies through the fit's forward model, and measures how far their photometry is from the
catalogue, in distances of a second sample of it. All write benchmarks/results/population*.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

from machine import machine
from population_mocks import (
    HISTORIES,
    KINDS,
    SELECT,
    Mock,
    gama_like_noise,
    make_mock,
    mock_survey,
    write_mock,
)
from tinsley.catalog.hierarchy import informed
from tinsley.catalog.population import (
    EnsembleSettings,
    Member,
    at_once,
    describe_ensemble,
    draw_ensemble,
    fit_ensemble,
)
from tinsley.catalog.run import RunSettings, run_catalog
from tinsley.density.train import start_training, train_block
from tinsley.io.catalogs import open_catalog
from tinsley.io.models import build_tables, load_posterior
from tinsley.io.results import make_folder, new_file, write_json
from tinsley.io.surveys import load_survey
from tinsley.observe.noise import fit_snr_given_flux
from tinsley.observe.photometry import photometry
from tinsley.parameters import Theta, default_space
from tinsley.plot.population import population_corner
from tinsley.population.config import CONFIGS, DISTANCES, PopulationConfig
from tinsley.population.density import FLOW, MIXTURE, AbstractPopulation, make_population
from tinsley.population.distance import SlicedWasserstein
from tinsley.population.fit import Setup, draw_photometry, make_setup, observed_weight
from tinsley.population.objective import Problem, population_loss
from tinsley.population.reference import uniform_reference
from tinsley.population.space import PopulationSpace
from tinsley.population.summaries import Band
from tinsley.population.synthetic import Selection, parse_selection, record
from tinsley.sps.derived import DerivedTables, derived

RESULTS = Path(__file__).parent / "results"
REDSHIFTS = (0.01, 0.6)
POSTERIORS, SPECTRA = "posteriors", 2000
"""The informative prior, and of how many galaxies with known redshifts it is learned."""
NONE = Selection((-np.inf,) * 5)
TARGETS = {
    "redshift": 0.01,
    "log10_mstar_msun": 0.06,
    "log10_sfr_100myr_msun_yr": 0.12,
}
ALSO = ("log10_mstar_surviving_msun", "age_mw_gyr", "log10_z_zsun", "tau_ism", "f_burst")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("fit", "cost", "sizes", "check"))
    parser.add_argument("--mock", choices=tuple(KINDS), default="table-2")
    parser.add_argument("--config", choices=tuple(CONFIGS), default="tinsley")
    parser.add_argument("--prior", choices=("uniform", POSTERIORS), default="uniform")
    parser.add_argument("--untold", action="store_true", help="leave the cut out")
    parser.add_argument("--floor", action="store_true", help="of SDSS, as on real galaxies")
    parser.add_argument("--galaxies", type=int, default=100_000)
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--steps", type=int, help="the configuration's, if not given")
    parser.add_argument("--batch", type=int, help="the configuration's, if not given")
    parser.add_argument("--distance", choices=tuple(DISTANCES), help="likewise")
    parser.add_argument("--kl-weight", type=float, help="the configuration's, if not given")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    args = parser.parse_args()
    if args.what == "cost":
        cost()
    else:
        {"fit": fit, "sizes": sizes, "check": check}[args.what](args)


def world():
    tables, derived_tables = build_tables(load_survey("sdss").filters, REDSHIFTS)
    space = PopulationSpace(default_space(), tables.history.cosmology, REDSHIFTS)
    return space, tables, derived_tables


def fit(args: argparse.Namespace) -> None:
    model = space, tables, derived_tables = world()
    config = configured(args)
    mock = make_mock(tables, args.mock, args.galaxies, REDSHIFTS[1], seed=1)
    name = f"population-{args.mock}-{args.config}"
    name += "-untold" * args.untold + "-informed" * (args.prior == POSTERIORS)
    name += "-floor" * args.floor
    name += "" if args.kl_weight is None else f"-{args.kl_weight:g}"
    name += "" if args.distance is None else f"-{args.distance}"
    about = {n: getattr(args, n) for n in ("mock", "galaxies", "prior", "floor")}
    about |= {"config": config.to_dict()}
    setup = mock_setup(config, (space, tables), mock, args)
    settings = EnsembleSettings(args.members, 100_000, 0, at_once(args.members))
    out, started, seconds = args.runs / name, time.monotonic(), {}

    def on_steps(member: int, step: int, loss: float) -> None:
        seconds[member] = time.monotonic() - started
        print(f"member {member} step {step} loss {loss:.3f} {seconds[member]:.0f} s", flush=True)

    members = fit_ensemble(setup, config, settings, out, about, on_steps)
    draws = draw_ensemble(members, derived_tables, settings)
    truth = mock.theta if args.mock == HISTORIES else with_derived(derived_tables, as_theta(mock))
    prior = seen_prior(model, setup)
    ended = describe_ensemble(members, setup, settings)
    result = about | {
        "members": args.members,
        "wasserstein_1": {
            n: compare(n, draws, truth, prior) for n in (*TARGETS, *ALSO) if n in truth
        },
        "temperature": ended["temperature"],
        "seconds_a_member": round(max(seconds.values(), default=0.0) / max(1, len(seconds))),
        "members_timed": len(seconds),
        "machine": machine(),
    }
    result |= how_members_ended(ended, members, setup)
    if args.distance == "characteristic" and args.mock != HISTORIES:
        result["nats_behind_truth"] = nats_behind_truth(members, setup.problem, mock)
    write_json(RESULTS / f"{name}.json", json.loads(json.dumps(result)))
    title = f"{args.mock}: {args.galaxies:,} galaxies"
    with new_file(out / "corner.png") as file:
        population_corner(draws, prior, truth, title=title).savefig(file, format="png")
    print(json.dumps(result["wasserstein_1"], indent=1), result["photometry_ratio"])


def how_members_ended(ended: dict, members: list[Member], setup: Setup) -> dict[str, list[float]]:
    """Of each: steps, restarts, KL, and how far its photometry is from what it was fitted to.

    The ratio by sliced distance compares members that were fitted in other distances, and so does
    how well a classifier tells their galaxies from the catalogue's: with an AUC of 0.5 not at all.
    """
    each = ended["members"]
    return {
        "photometry_ratio": [round(m["photometry_ratio"], 3) for m in each],
        "catalog_ratio": [round(m["catalog_ratio"], 3) for m in each],
        "photometry_ratio_sliced": [round(sliced_ratio(m, setup), 3) for m in members],
        "auc": [round(told_apart(m, setup), 4) for m in members],
        "kl_nats": [round(m["best"]["kl"], 2) for m in each],
        "steps_done": [m["steps"] for m in each],
        "best_step": [m["best"]["step"] for m in each],
        "restarts": [m["restarts"] for m in each],
    }


def sliced_ratio(member: Member, setup: Setup) -> float:
    """Sliced distance of synthetic photometry from held-out galaxies, over a second sample's."""
    out, distance, key = setup.held_out, SlicedWasserstein(64), jax.random.key(3)
    made = draw_photometry(member.population, member.problem, len(out), key)
    again = setup.problem.observed[: len(out)]
    far, near = (float(distance(x, out, key=key)) for x in (made, again))
    return far / near


MOST_TOLD = 40_000


def told_apart(member: Member, setup: Setup) -> float:
    """Area under the ROC of a classifier of synthetic and observed photometry, on others."""
    seen = setup.problem.observed[:MOST_TOLD]
    key = jax.random.key(7)
    return auc(draw_photometry(member.population, member.problem, len(seen), key), seen)


def auc(made: jax.Array, seen: jax.Array) -> float:
    points = np.concatenate([np.asarray(made), np.asarray(seen)])
    real = np.repeat([False, True], [len(made), len(seen)])
    parts = train_test_split(points, real, test_size=0.5, random_state=0)
    trees = HistGradientBoostingClassifier(max_iter=80, learning_rate=0.05, max_leaf_nodes=15)
    guess = trees.fit(parts[0], parts[2]).predict_proba(parts[1])[:, 1]
    return float(roc_auc_score(parts[3], guess))


def nats_behind_truth(members: list[Member], problem: Problem, mock: Mock) -> list[float]:
    """How much less likely a member makes its catalogue than the true galaxies do.

    In the sharp distance, from as many synthetic galaxies as there are observed: what a longer or
    better training could still find.
    """
    true, found = truth_as_observed(problem, mock)[: len(problem.observed)], []
    for member in members:
        own, key = member.problem, jax.random.key(11)
        whole = own.distance.bound(own.observed)
        made = draw_photometry(member.population, own, len(true), key)
        far, near = (float(whole(x, own.observed, key=key)) for x in (made, true))
        found.append(round((far - near) / float(own.temperature), 1))
    return found


def truth_as_observed(problem: Problem, mock: Mock) -> jax.Array:
    """The mock's true galaxies through the fit's forward model and noise, in its view."""
    true = problem.space.theta(problem.space.unbounded(as_theta(mock)))
    flux = photometry(problem.tables, true)
    made = record(flux, problem.noise, problem.selection, key=jax.random.key(5))
    return problem.view(made.flux)


def seen_prior(model: tuple, setup: Setup) -> dict[str, np.ndarray]:
    """Draws of the prior, uniform in the box, as far as the survey sees them."""
    space, _, derived_tables = model
    theta = space.theta(jax.random.normal(jax.random.key(2), (100_000, space.n_dim)))
    weight = np.asarray(observed_weight(setup.problem, theta, jax.random.key(4)), float)
    rows = np.random.default_rng(0).choice(len(weight), len(weight), p=weight / weight.sum())
    return {name: v[rows] for name, v in with_derived(derived_tables, theta).items()}


def configured(args: argparse.Namespace) -> PopulationConfig:
    """The configuration with what the options change."""
    changes = {name: getattr(args, name) for name in ("steps", "batch", "kl_weight")}
    changes["distance"] = DISTANCES.get(args.distance)
    given = {name: value for name, value in changes.items() if value is not None}
    return dataclasses.replace(CONFIGS[args.config], **given)


def with_derived(tables: DerivedTables, theta: Theta) -> dict[str, np.ndarray]:
    """Parameters and derived properties."""
    return {k: np.asarray(v) for k, v in (dict(theta) | derived(tables, theta)).items()}


def mock_setup(
    config: PopulationConfig, model: tuple, mock: Mock, args: argparse.Namespace
) -> Setup:
    """Told of the mock's cut or not, about the prior that is asked for; the noise is fitted."""
    selection = parse_selection("" if args.untold else SELECT, mock_survey().bands)
    noise = fit_snr_given_flux(mock.flux, mock.sigma, np.ones(mock.flux.shape, bool))
    setup = make_setup(
        config,
        model,
        (noise, selection),
        (mock.flux, mock.sigma),
        uniform_reference(model[0].n_dim),
        key=jax.random.key(0),
        floor_mag=load_survey("sdss").error_floor_mag if args.floor else None,
    )
    if args.prior != POSTERIORS:
        return setup
    return informed(setup, posteriors(mock, args.runs / f"posteriors-{args.mock}"), seed=0)


def posteriors(mock: Mock, out: Path) -> Path:
    """The run of `tinsley infer` on the mock's first galaxies, their redshifts known."""
    table = make_folder(out) / "galaxies-in.parquet"
    if not table.exists():
        write_mock(table, mock, SPECTRA)
    run_catalog(
        load_posterior("sdss"), open_catalog(table, mock_survey()), None, out / "run", RunSettings()
    )
    return out / "run"


def compare(name: str, draws: dict, truth: dict, prior: dict) -> dict[str, object]:
    """Distance of a marginal from the truth, of the prior from it, and the band of the mean."""
    mine, weight, true = draws[name], draws["selected_weight"], truth[name]
    means = [
        float(np.average(mine[draws["member"] == m], weights=weight[draws["member"] == m]))
        for m in np.unique(draws["member"])
    ]
    found = wasserstein_1(mine, weight, true)
    low, high = (float(end[0]) for end in Band(np.array(means)[:, None]).outer)
    known = bool(np.isfinite(low))  # one member has no band
    return {
        "ensemble": round(found, 4),
        "target": TARGETS.get(name),
        "met": bool(found <= TARGETS[name]) if name in TARGETS else None,
        "prior": round(wasserstein_1(prior[name], np.ones(len(prior[name])), true), 4),
        "true_mean": round(float(true.mean()), 4),
        "mean": round(float(np.mean(means)), 4),
        "means_of_members": [round(m, 4) for m in means],
        "band_90_of_mean": [round(low, 4), round(high, 4)] if known else None,
        "true_mean_in_band": bool(low <= true.mean() <= high) if known else None,
    }


def wasserstein_1(x: np.ndarray, weight: np.ndarray, y: np.ndarray) -> float:
    """Mean distance between the quantiles of weighted and plain values."""
    order = np.argsort(x)
    share = np.cumsum(weight[order].astype(float))
    levels = (np.arange(20_000) + 0.5) / 20_000
    mine = np.interp(levels, (share - 0.5 * weight[order]) / share[-1], x[order])
    return float(np.mean(np.abs(mine - np.quantile(y, levels))))


SPLITS = 6


def check(args: argparse.Namespace) -> None:
    """The truth through the fit's forward model, against the catalogue."""
    space, tables, _ = world()
    found = {}
    for kind in (name for name in KINDS if name != HISTORIES):
        mock = make_mock(tables, kind, args.galaxies, REDSHIFTS[1], seed=1)
        problem = mock_setup(configured(args), (space, tables), mock, args).problem
        seen = np.asarray(problem.view(jnp.asarray(mock.flux, dtype=float)))
        again, far, near = np.asarray(truth_as_observed(problem, mock)), [], []
        for key in jax.random.split(jax.random.key(0), SPLITS):
            halves = np.array_split(np.asarray(jax.random.permutation(key, len(seen))), 2)
            for which, distances in ((again, far), (seen, near)):
                x, y = which[halves[0]], seen[halves[1]]
                size = min(len(x), len(y))
                distances.append(float(problem.distance(x[:size], y[:size], key=key)))
        found[kind] = {
            "distance_over_that_of_a_second_sample": round(float(np.mean(far) / np.mean(near)), 3),
            "auc": round(auc(again[halves[0]], seen[halves[1]]), 4),
        }
        print(kind, found[kind], flush=True)
    result = {"galaxies": args.galaxies, "mocks": found, "machine": machine()}
    write_json(RESULTS / "population_check.json", result)


def as_theta(mock: Mock) -> dict[str, jax.Array]:
    return {name: jnp.asarray(value, dtype=float) for name, value in mock.theta.items()}


SIZES = {
    f"{layers} x {width}, {knots} knots": FLOW | {"layers": layers, "width": width, "knots": knots}
    for layers, width, knots in ((4, 32, 8), (6, 64, 4), (6, 64, 8), (6, 64, 16), (8, 128, 8))
} | {"mixture of 12": MIXTURE}


def number_of_weights(population: AbstractPopulation) -> int:
    return sum(a.size for a in jax.tree.leaves(eqx.filter(population, eqx.is_inexact_array)))


def sizes(args: argparse.Namespace) -> None:
    """What densities of several sizes make of the same two members, and what they cost."""
    space, tables, _ = world()
    mock, found = make_mock(tables, args.mock, args.galaxies, REDSHIFTS[1], seed=1), {}
    settings = EnsembleSettings(2, 1000, 0)
    for name, density in SIZES.items():
        rate = CONFIGS["mixture" if density is MIXTURE else "tinsley"].rate
        config = dataclasses.replace(configured(args), density=density, rate=rate)
        setup, started = mock_setup(config, (space, tables), mock, args), time.process_time()
        out = args.runs / "population-sizes" / name.replace(" ", "")
        members = fit_ensemble(setup, config, settings, out, {"config": config.to_dict()})
        ended = describe_ensemble(members, setup, settings)["members"]
        found[name] = {
            "weights": number_of_weights(members[0].population),
            "validation_loss": [round(m["best"]["validation_loss"], 2) for m in ended],
            "photometry_ratio": [round(m["photometry_ratio"], 3) for m in ended],
            "kl_nats": [round(m["best"]["kl"], 2) for m in ended],
            "cpu_seconds_a_member": round((time.process_time() - started) / 2),
        }
        print(name, found[name], flush=True)
    about = {n: getattr(args, n) for n in ("mock", "galaxies", "steps", "batch")}
    result = json.loads(json.dumps(about | {"sizes": found, "machine": machine()}))
    write_json(RESULTS / "population_sizes.json", result)


LENGTHS = (1_000, 10_000, 100_000, 1_000_000)
BATCHES = {"sliced": 2048, "characteristic": 2048, "energy": 1024, "sinkhorn": 256}


def cost() -> None:
    """Seconds a step of each distance against the catalogue's length, and at equal batches."""
    space, tables, _ = world()
    mock = make_mock(tables, "table-2", 20_000, REDSHIFTS[1], seed=1)
    rng, by_length, by_distance = np.random.default_rng(0), {}, {}
    for name, batch in BATCHES.items():
        config = dataclasses.replace(CONFIGS["tinsley"], distance=DISTANCES[name], batch=batch)
        small = dataclasses.replace(config, batch=min(BATCHES.values()))
        each = {}
        for number in LENGTHS:
            rows = rng.integers(0, len(mock.flux), number)
            catalog = (mock.flux[rows], mock.sigma[rows])
            each[number] = time_step(config, (space, tables), catalog)
        by_length[name] = {"batch": batch, "seconds_a_step_by_galaxies": each}
        catalog = (mock.flux[:1000], mock.sigma[:1000])
        by_distance[name] = time_step(small, (space, tables), catalog)
        print(name, by_length[name], by_distance[name], flush=True)
    result = {
        "by_distance": by_length,
        "seconds_a_step_of_equal_batches": {small.batch: by_distance},
        "machine": machine(),
    }
    write_json(RESULTS / "population_cost.json", json.loads(json.dumps(result)))


def time_step(config, model, catalog) -> float:
    """Best of three blocks of four steps, seconds a step, compiled."""
    small = dataclasses.replace(config, steps=100)
    centre = uniform_reference(model[0].n_dim)
    setup = make_setup(
        small, model, (gama_like_noise(), NONE), catalog, centre, key=jax.random.key(0)
    )
    schedule, problem = small.schedule(small.rate), setup.problem
    problem = dataclasses.replace(problem, distance=problem.distance.bound(problem.observed))
    population = make_population(small.density, model[0].n_dim, key=jax.random.key(0))
    state, seconds = start_training(population, schedule), []
    for _ in range(4):
        started = time.perf_counter()
        state, losses = train_block(
            (problem, population_loss, schedule, 4), state, jax.random.key(1)
        )
        jax.block_until_ready(eqx.filter((state, losses), eqx.is_array))
        seconds.append((time.perf_counter() - started) / 4)
    return round(min(seconds[1:]), 4)


if __name__ == "__main__":
    main()
