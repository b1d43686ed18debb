"""Do the posteriors agree with long chains? And what does each cost?

    python benchmarks/agreement.py [--model sdss] [--galaxies 100] [--real 50]

Galaxies simulated from the model's prior with its noise, and real ones, all with every band. For
each: chains (benchmarks/oracle.py) until R-hat < 1.01 and ESS >= 2,000; draws of the flow as they
are (raw); draws weighted, and more of them, until ESS >= 4,000. Compared by a classifier
(benchmarks/c2st.py), and by means and medians of every property. Then ranks of 1,000 simulations in
the flow's posteriors, beside those of the first of them in the chains'.

A galaxy that is done is kept in --work: killed runs go on. Writes
benchmarks/results/agreement.json, docs/figures/agreement-*.png, and the tables of docs/how_good.md.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import oracle
from agreement_figures import corner_of, medians, pp_of_both
from agreement_page import write_page
from c2st import c2st, power
from machine import machine
from tinsley.catalog.batch import as_observation
from tinsley.catalog.closeup import resample
from tinsley.cli.console import console, progress
from tinsley.infer.amortized import AmortizedPosterior
from tinsley.infer.calibrate import Effort, calibrate
from tinsley.infer.importance import is_weak
from tinsley.infer.ranks import RAW, WEIGHTED, rank, uniformity
from tinsley.infer.truths import Truth, quantities, simulate_prior
from tinsley.io.catalogs import load_sample_catalog_path, open_catalog
from tinsley.io.models import LoadedPosterior, load_posterior
from tinsley.io.results import make_folder, new_file, write_json
from tinsley.io.surveys import load_survey
from tinsley.observe.survey import Photometry, with_redshift_range
from tinsley.parameters import MASS
from tinsley.sps.derived import DERIVED, derived
from weighted import COMPARED, ENOUGH, Galaxy, draw_enough

HERE = Path(__file__).resolve().parent
SIMULATIONS = 1000
MOST_C2ST = {"raw": 0.60, "weighted": 0.53}
MOST_OFFSET = 0.1
"""Of the means of a property, in its standard deviations, in the median galaxy."""
KINDS = ("chain", RAW, WEIGHTED)
SETS = ("simulated", "real")
SEED = 1


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="sdss")
    parser.add_argument("--galaxies", type=int, default=100, help="simulated ones")
    parser.add_argument("--real", type=int, default=50)
    parser.add_argument("--simulations", type=int, default=SIMULATIONS, help="that are ranked")
    parser.add_argument("--rounds", type=int, default=oracle.MOST_ROUNDS, help="of chains, at most")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--work", type=Path, default=Path("agreement"), help="finished galaxies")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "agreement.json")
    parser.add_argument("--figures", type=Path, default=HERE.parent / "docs" / "figures")
    parser.add_argument("--page", type=Path, default=HERE.parent / "docs" / "how_good.md")
    options = parser.parse_args(arguments)
    loaded = load_posterior(options.model)
    before = machine()
    wanted = [("simulated", i) for i in range(options.galaxies)]
    wanted += [("real", i) for i in range(options.real)]
    found = all_compared(options, loaded, wanted)
    ranks = flow_ranks(options.model, options.simulations)
    chain_ranks = {
        name: np.array([g[f"rank_{name}"] for g in found["simulated"]]) for name in ranks[RAW]
    }
    sets = {name: summary(found[name], names_of(loaded.posterior)) for name in SETS if found[name]}
    result = {
        "model": {"name": loaded.spec.name, "sha256": loaded.sha256},
        "machine": before,
        "settings": {"compared": COMPARED, "chain_ess": oracle.ESS, "chain_rhat": oracle.RHAT,
                     "weighted_ess": ENOUGH, "seed": SEED},
        "criteria": criteria(sets),
        "sets": sets,
        "classifier": power(COMPARED),
        "ranks": {
            "flow_raw": of_ranks(ranks[RAW]),
            "flow_weighted": of_ranks(ranks[WEIGHTED]),
            "chains": of_ranks(chain_ranks),
        },
    }  # fmt: skip
    write_json(options.out, result)
    write_figures(options.figures, found, ranks[WEIGHTED], chain_ranks, names_of(loaded.posterior))
    write_page(options.page, result)
    console.print_json(data={"criteria": result["criteria"]})


# --- galaxies ---


@functools.cache
def model(name: str) -> LoadedPosterior:
    return load_posterior(name)


@functools.cache
def simulations(name: str) -> Truth:
    loaded = model(name)
    key = jax.random.key(SEED)
    simulator = loaded.simulator(1.0)
    return simulate_prior(loaded.posterior, simulator, SIMULATIONS, loaded.spec.snr_range, key)


@functools.cache
def real_galaxies(name: str) -> Photometry:
    """Usable rows of the embedded catalogue with every band, in random order."""
    loaded = model(name)
    catalog = open_catalog(load_sample_catalog_path(), load_survey(loaded.spec.survey))
    rows = next(catalog.chunks(catalog.n_rows))
    rows = with_redshift_range(rows, *loaded.spec.redshift_range)
    there = np.flatnonzero(rows.usable & rows.mask.all(axis=1))
    return rows.take(np.random.default_rng(SEED).permutation(there))


def galaxy(name: str, kind: str, i: int) -> Galaxy:
    """The i-th simulated or real one: the same however many are wanted."""
    if kind == "real":
        seen = as_observation(real_galaxies(name).take(slice(i, i + 1)))
        return Galaxy(jax.tree.map(lambda a: a[0], seen), None, None)
    truth = simulations(name)
    values = {n: float(v[i]) for n, v in truth.values.items()}
    seen = jax.tree.map(lambda a: a[i], truth.seen)
    return Galaxy(seen, model(name).spec.snr_range, (values, np.asarray(truth.reference[i])))


def names_of(posterior: AmortizedPosterior) -> tuple[str, ...]:
    return (*posterior.space.names, *DERIVED)


# --- one galaxy ---


def all_compared(
    options: argparse.Namespace, loaded: LoadedPosterior, wanted: list[tuple[str, int]]
) -> dict[str, list[dict[str, np.ndarray]]]:
    """What was found of each galaxy, computed now or before."""
    folder = make_folder(options.work / loaded.sha256[:12])
    tasks = [(options.model, kind, i, options.rounds, folder) for kind, i in wanted]
    with progress("{task.description}", "{task.completed}/{task.total}") as bar:
        task = bar.add_task("galaxies", total=len(wanted))
        for _ in in_processes(tasks, options.workers):
            bar.advance(task)
    out: dict[str, list] = {name: [] for name in SETS}
    for kind, i in wanted:
        with np.load(file_of(folder, kind, i)) as stored:
            out[kind].append(dict(stored))
    return out


def in_processes(tasks: list[tuple], workers: int) -> Iterator[None]:
    """Each galaxy in one of some processes: a chain keeps one core busy."""
    if workers == 1:
        yield from map(compare_and_keep, tasks)
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn) as pool:
        yield from pool.map(compare_and_keep, tasks)


def file_of(folder: Path, kind: str, i: int) -> Path:
    return folder / f"{kind}-{i:04d}.npz"


def compare_and_keep(task: tuple[str, str, int, int, Path]) -> None:
    """Write what is found of a galaxy, unless that was done before."""
    name, kind, i, rounds, folder = task
    path = file_of(folder, kind, i)
    if not path.exists():
        compile_for(name, kind)
        key = jax.random.fold_in(jax.random.key(SEED + SETS.index(kind)), i)
        found = compare(model(name).posterior, galaxy(name, kind, i), rounds, key)
        with new_file(path) as file:
            np.savez(file, **found)


@functools.cache
def compile_for(name: str, kind: str) -> None:
    """Have this process compile what it needs before anything is timed."""
    one, key = galaxy(name, kind, 0), jax.random.key(0)
    oracle.sample(model(name).posterior, one.seen, one.snr_range, key, 1)
    draw_enough(model(name).posterior, one, key)


def compare(
    posterior: AmortizedPosterior, one: Galaxy, rounds: int, key: jax.Array
) -> dict[str, np.ndarray]:
    """Chains, raw and weighted draws of one galaxy, and how they differ."""
    key_chain, key_flow = jax.random.split(key)
    started = time.monotonic()
    chain = oracle.sample(posterior, one.seen, one.snr_range, key_chain, rounds)
    chain_wall = time.monotonic() - started
    pool, raw = draw_enough(posterior, one, key_flow)
    chosen = resample(pool.weight, COMPARED)
    drawn = {
        "chain": with_derived(posterior, thinned(chain.theta, slice(None))),
        RAW: raw,
        WEIGHTED: {name: values[chosen] for name, values in pool.theta.items()},
    }
    points = {kind: as_points(posterior, theta) for kind, theta in drawn.items()}
    many = with_derived(posterior, thinned(chain.theta, slice(None), 4 * COMPARED))
    half = len(next(iter(chain.theta.values()))) // 2
    halves = [as_points(posterior, thinned(chain.theta, rows, COMPARED // 2))
              for rows in (slice(half), slice(half, None))]  # fmt: skip
    names = names_of(posterior)
    found: dict[str, Any] = {
        "c2st_raw": c2st(points["chain"], points[RAW]),
        "c2st_weighted": c2st(points["chain"], points[WEIGHTED]),
        "c2st_halves": c2st(*halves),
        "distinct": len(np.unique(chosen)),
        "chain_rhat": chain.rhat,
        "chain_ess": chain.ess,
        "chain_converged": chain.converged,
        "chain_gradients": chain.gradients,
        "chain_accepted": chain.accepted,
        "chain_jumped": chain.jumped,
        "chain_seconds": chain.seconds,
        "chain_wall": chain_wall,
        "weighted_ess": pool.ess,
        "weighted_khat": pool.khat,
        "weighted_draws": len(pool.weight),
        "weighted_seconds": pool.seconds,
        "first_seconds": pool.first_seconds,
        "method": str(pool.method),
        "mean_chain": np.array([np.mean(many[n], dtype=float) for n in names]),
        "std_chain": np.array([np.std(many[n], dtype=float) for n in names]),
        "mean_raw": np.array([np.mean(raw[n], dtype=float) for n in names]),
        "mean_weighted": np.array([np.sum(pool.weight * pool.theta[n]) for n in names]),
    }
    for kind, theta in drawn.items():
        found[f"draws_{kind}"] = np.stack([theta[n] for n in names]).astype(np.float32)
    if one.truth is not None:
        found |= ranks_in(posterior, drawn["chain"], one.truth, key)
    return {name: np.asarray(value) for name, value in found.items()}


def thinned(
    theta: dict[str, np.ndarray], chains: slice, number: int = COMPARED
) -> dict[str, jax.Array]:
    """Draws of some chains at even distances."""
    flat = {name: values[chains].ravel() for name, values in theta.items()}
    size = len(next(iter(flat.values())))
    kept = np.linspace(0, size - 1, number).round().astype(int)
    return {name: jnp.asarray(values[kept]) for name, values in flat.items()}


def with_derived(
    posterior: AmortizedPosterior, theta: dict[str, jax.Array]
) -> dict[str, np.ndarray]:
    return jax.tree.map(np.asarray, theta | _derived(posterior, theta))


@eqx.filter_jit
def _derived(posterior: AmortizedPosterior, theta: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return derived(posterior.derived_tables, theta)


def as_points(posterior: AmortizedPosterior, theta: dict[str, Any]) -> np.ndarray:
    """The unbounded space of all but mass, and log mass, [draw, 10]."""
    theta = {name: jnp.asarray(values) for name, values in theta.items()}
    age_gyr = posterior.cosmology.age_gyr(theta["redshift"])
    x = posterior.space.without_mass().to_unbounded(theta, age_gyr)
    return np.concatenate([np.asarray(x), np.asarray(theta[MASS])[:, None]], axis=1)


def ranks_in(
    posterior: AmortizedPosterior,
    theta: dict[str, np.ndarray],
    truth: tuple[dict[str, float], np.ndarray],
    key: jax.Array,
) -> dict[str, float]:
    """Rank of each true property among the draws of chains."""
    values, reference = truth
    drawn = quantities(posterior, {n: jnp.asarray(v) for n, v in theta.items()}, reference)
    jitter = np.asarray(jax.random.uniform(key, (len(values), 1)))
    equal = np.full((1, COMPARED), 1 / COMPARED)
    return {
        f"rank_{name}": rank(
            np.asarray(drawn[name])[None], equal, np.array([true]), equal[:, 0], jitter[k]
        )[0]
        for k, (name, true) in enumerate(values.items())
    }


# --- all galaxies ---


def flow_ranks(name: str, number: int) -> dict[str, dict[str, np.ndarray]]:
    """Ranks of simulations in the flow's posteriors, raw and weighted."""
    loaded, truth = model(name), simulations(name)
    few = jax.tree.map(lambda a: a[:number], truth)
    effort = Effort(workers=os.cpu_count() or 1)
    key = jax.random.key(SEED + len(SETS))
    found = calibrate(loaded.posterior, few, loaded.spec.snr_range, effort, key)
    return {kind: {n: r[np.isfinite(r)] for n, r in found.ranks[kind].items()}
            for kind in (RAW, WEIGHTED)}  # fmt: skip


def of_ranks(ranks: dict[str, np.ndarray]) -> dict[str, Any]:
    """Distance from the diagonal and p-value of each property."""
    tested = {name: uniformity(values) for name, values in ranks.items() if len(values)}
    if not tested:
        return {"galaxies": 0}
    return {
        "galaxies": len(next(iter(ranks.values()))),
        "largest_distance": max(t["distance"] for t in tested.values()),
        "least_p": min(t["p"] for t in tested.values()),
        "properties": {n: {k: t[k] for k in ("distance", "p")} for n, t in tested.items()},
    }


def summary(galaxies: list[dict[str, np.ndarray]], names: tuple[str, ...]) -> dict[str, Any]:
    """What is said of a set of galaxies; all of them count in every figure."""

    def all_of(label: str) -> np.ndarray:
        return np.array([g[label] for g in galaxies])

    per_draw = all_of("chain_gradients") / all_of("chain_ess")
    offset = {kind: np.abs(all_of(f"mean_{kind}") - all_of("mean_chain")) / all_of("std_chain")
              for kind in (RAW, WEIGHTED)}  # fmt: skip
    methods, counts = np.unique(all_of("method"), return_counts=True)
    weak = is_weak(all_of("weighted_ess"), all_of("weighted_khat"))
    return {
        "galaxies": len(galaxies),
        "c2st": {kind: quantiles(all_of(f"c2st_{kind}")) for kind in (RAW, WEIGHTED, "halves")},
        "offset_of_means_in_sigma": {
            kind: {
                "median_by_property": by_name(names, np.median(o, axis=0)),
                "worst_property_by_galaxy": quantiles(o.max(axis=1)),
            }
            for kind, o in offset.items()
        },
        "chains": {
            "converged": int(all_of("chain_converged").sum()),
            "rhat": quantiles(all_of("chain_rhat")),
            "ess": quantiles(all_of("chain_ess")),
            "gradients_per_effective_draw": quantiles(per_draw),
            "not_converged": [
                {"galaxy": i, **{k: round(float(g[k]), 3) for k in _SAID}}
                for i, g in enumerate(galaxies)
                if not g["chain_converged"]
            ],
        },
        "weighted": {
            "ess_2000": int(np.sum(all_of("weighted_ess") >= COMPARED)),
            "weak": int(weak.sum()),
            "ess": quantiles(all_of("weighted_ess")),
            "methods": {str(m): int(n) for m, n in zip(methods, counts, strict=True)},
            "distinct_of_compared": quantiles(all_of("distinct") / COMPARED),
        },
        "processor_seconds": seconds(all_of),
    }  # fmt: skip


def by_name(names: tuple[str, ...], values: np.ndarray) -> dict[str, float]:
    return {name: round(float(v), 4) for name, v in zip(names, values, strict=True)}


_SAID = ("chain_rhat", "chain_ess", "c2st_halves", "c2st_raw", "c2st_weighted")


def seconds(all_of: Any) -> dict[str, Any]:
    """What a galaxy costs in processor time, compilation apart."""
    chain, weighted = all_of("chain_seconds"), all_of("weighted_seconds")
    first = all_of("first_seconds")
    return {
        "chains": quantiles(chain),
        "weighted_to_ess_4000": quantiles(weighted),
        "flow_4096_weighted_draws": quantiles(first),
        "ratio_chains_to_weighted": float(np.median(chain) / np.median(weighted)),
        "ratio_chains_to_flow": float(np.median(chain) / np.median(first)),
        "chains_wall": quantiles(all_of("chain_wall")),
    }


def quantiles(values: np.ndarray) -> dict[str, float]:
    levels = (0.16, 0.5, 0.84, 0.95, 1.0)
    found = np.quantile(values, levels)
    return {f"{level:g}": round(float(v), 4) for level, v in zip(levels, found, strict=True)}


def criteria(sets: dict[str, Any]) -> dict[str, Any]:
    """What was asked for, set by set."""
    out = {}
    for name, found in sets.items():
        for kind, limit in MOST_C2ST.items():
            value = found["c2st"][kind]["0.5"]
            out[f"{name}, c2st {kind}"] = {"value": value, "limit": limit, "passed": value <= limit}
        means = found["offset_of_means_in_sigma"][WEIGHTED]["median_by_property"]
        worst = max(means, key=means.__getitem__)
        out[f"{name}, means"] = {"value": means[worst], "of": worst, "limit": MOST_OFFSET,
                                 "passed": means[worst] <= MOST_OFFSET}  # fmt: skip
    return out


def write_figures(
    folder: Path,
    found: dict[str, list[dict[str, np.ndarray]]],
    ranks: dict[str, np.ndarray],
    chain_ranks: dict[str, np.ndarray],
    names: tuple[str, ...],
) -> None:
    """SEDflow's figures 2, 3 and 4."""
    make_folder(folder)
    drawn = {name: [{kind: dict(zip(names, g[f"draws_{kind}"], strict=True)) for kind in KINDS}
                    for g in galaxies] for name, galaxies in found.items() if galaxies}  # fmt: skip
    example = drawn["real"][0] if "real" in drawn else drawn["simulated"][0]
    figures = {"corner": corner_of(example), "medians": medians(drawn)}
    if "simulated" in drawn:
        figures["pp"] = pp_of_both(ranks, chain_ranks)
    for name, figure in figures.items():
        with new_file(folder / f"agreement-{name}.png") as file:
            figure.savefig(file, format="png", dpi=100)


if __name__ == "__main__":
    main()
