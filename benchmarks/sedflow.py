"""SEDflow's configuration beside Tinsley's flow: the same simulations, judged in the same ways.

    python benchmarks/sedflow.py sedflow=sedflow.tinsley tinsley=tinsley-on-sedflow.tinsley ...

The first model's simulator makes the galaxies: 2,000, all bands, of another key than in training.
For each model: mean ln q(truth | photometry) over all parameters with mass (where a flow leaves
mass to the exact integral, its conditional counts), ranks of the truths in raw and weighted
posteriors, effective draws per draw, processor seconds of training, draws a second with their
densities. Then the ranks of 500 galaxies whose errors are not those of the training: doubled,
halved, a tenth larger.

Train the models with, for example:

    tinsley train posterior --config sedflow --provabgs-bases DIR --out sedflow.tinsley
    tinsley train posterior --config sedflow --provabgs-bases DIR --density coupling --out ...

Writes benchmarks/results/sedflow.json; what it holds of the same models is not done again.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm

from machine import machine, median_seconds
from tinsley.cli.console import console
from tinsley.infer.amortized import AmortizedPosterior
from tinsley.infer.calibrate import Effort, calibrate
from tinsley.infer.features import features
from tinsley.infer.likelihood import Observation
from tinsley.infer.ranks import RAW, WEIGHTED, holm, uniformity
from tinsley.infer.simulator import Simulation, Simulator
from tinsley.infer.truths import simulate_prior
from tinsley.io.models import LoadedPosterior, load_posterior
from tinsley.io.results import write_json
from tinsley.observe.noise import AbstractNoise
from tinsley.observe.photometry import unit_flux
from tinsley.parameters import MASS

OUT = Path(__file__).resolve().parent / "results" / "sedflow.json"
NUMBER = 2000
DRAWS = 1000
WRONG_NUMBER = 500
"""Galaxies with wrong errors, at most: an autoregressive flow is slow to draw from."""
TIMED = 16
"""Galaxies whose draws are timed."""
ROUNDS = 5
WRONG = {"errors_doubled": 2.0, "errors_halved": 0.5, "errors_times_1.1": 1.1}
SEED = 11


class Scaled(AbstractNoise):
    """Errors of another noise model, all times a factor."""

    noise: AbstractNoise
    factor: float

    def sample_sigma(self, flux: jax.Array, *, key: jax.Array) -> jax.Array:
        return self.factor * self.noise.sample_sigma(flux, key=key)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "scaled", "noise": self.noise.to_dict(), "factor": self.factor}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="NAME=FILE")
    parser.add_argument("--number", type=int, default=NUMBER)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    models = {n: load_posterior(f) for n, f in (m.split("=", 1) for m in options.models)}
    simulator = next(iter(models.values())).simulator(1.0)
    report: dict[str, Any] = {"machine": machine(), "galaxies": options.number, "draws": DRAWS}
    report["models"] = kept(options.out, options.number, models)
    for name, loaded in models.items():
        if name not in report["models"]:
            report["models"][name] = judged(loaded, simulator, options.number) | about(loaded)
            write_json(options.out, report)
    for name, rate in speeds(models, simulator).items():
        report["models"][name]["draws_per_second"] = rate
    write_json(options.out, report)
    console.print_json(data=report)


def kept(path: Path, number: int, models: dict[str, LoadedPosterior]) -> dict[str, Any]:
    """What an earlier run has found of the same models on as many galaxies."""
    earlier = json.loads(path.read_text()) if path.exists() else {}
    if (earlier.get("galaxies"), earlier.get("draws")) != (number, DRAWS):
        return {}
    found = earlier["models"]
    return {n: found[n] for n, m in models.items() if found.get(n, {}).get("sha256") == m.sha256}


def about(loaded: LoadedPosterior) -> dict[str, Any]:
    weights = jax.tree.leaves(eqx.filter(loaded.posterior.flow, eqx.is_inexact_array))
    training = loaded.spec.training
    return {
        "sha256": loaded.sha256,
        "weights": sum(a.size for a in weights),
        "mass": loaded.spec.mass,
        "trained_on": training.get("galaxies", "on the fly"),
        "training": {k: training[k] for k in ("batch", "rate", "best", "last")},
    }


def judged(loaded: LoadedPosterior, simulator: Simulator, number: int) -> dict[str, Any]:
    """All that is asked of one model on galaxies of a simulator."""
    posterior, key = loaded.posterior, jax.random.key(SEED)
    key_sample, _ = jax.random.split(key)  # as `simulate_prior` does
    each = np.asarray(log_q(posterior, simulator.sample(number, key=key_sample)), float)
    out: dict[str, Any] = {
        "log_q": {"mean": each.mean(), "error": each.std() / np.sqrt(len(each))},
        "as_trained": ranked(loaded, simulator, number, key),
    }
    for name, factor in WRONG.items():
        noise = Scaled(simulator.noise, factor)
        wrong = eqx.tree_at(lambda s: s.noise, simulator, noise)
        out[name] = ranked(loaded, wrong, min(number, WRONG_NUMBER), key)
    return out


def ranked(
    loaded: LoadedPosterior, simulator: Simulator, number: int, key: jax.Array
) -> dict[str, Any]:
    """Ranks of the truths, raw and weighted, and the efficiency."""
    truth = simulate_prior(loaded.posterior, simulator, number, loaded.snr_range, key)
    effort = Effort(draws=DRAWS, most=1, workers=os.cpu_count() or 1)
    found = calibrate(loaded.posterior, truth, loaded.snr_range, effort, jax.random.key(SEED + 1))
    out: dict[str, Any] = {
        "median_efficiency": float(np.median(found.efficiency)),
        "share_below_1_percent": float(np.mean(~(found.efficiency >= 0.01))),
    }
    return out | {kind: judged_ranks(found.ranks[kind]) for kind in (RAW, WEIGHTED)}


def judged_ranks(ranks: dict[str, np.ndarray]) -> dict[str, Any]:
    """Largest distance from the p-p diagonal; properties that fail at 1 % family-wise."""
    tested = {n: uniformity(r[np.isfinite(r)]) for n, r in ranks.items()}
    worst = max(tested, key=lambda n: tested[n]["distance"])
    return {
        "galaxies": int(np.isfinite(next(iter(ranks.values()))).sum()),
        "largest_distance": tested[worst]["distance"],
        "of": worst,
        "rejected": holm({n: t["p"] for n, t in tested.items()}),
        "distance": {n: t["distance"] for n, t in tested.items()},
    }


@eqx.filter_jit
def log_q(posterior: AmortizedPosterior, made: Simulation) -> jax.Array:
    """ln q of the truths, all parameters with mass, in the space where the prior is normal, [n]."""
    age_gyr = posterior.cosmology.age_gyr(made.theta["redshift"])
    x = posterior.flow_space.to_unbounded(made.theta, age_gyr)
    flux = unit_flux(posterior.tables, made.theta)
    prior = posterior.space.mass_prior

    def of_mass(seen: Observation, flux: jax.Array, mass: jax.Array) -> jax.Array:
        """ln of the exact conditional of mass, over the axis where its prior is normal."""
        each = posterior.likelihood.at_mass(flux[None], seen, mass[None]).log_likelihood
        ends = (prior.low, prior.high)
        whole = posterior.likelihood.integrate_mass(flux[None], seen, ends, None).log_likelihood
        x_mass = norm.ppf((mass - prior.low) / (prior.high - prior.low))
        return (each - whole)[0] + norm.logpdf(x_mass)

    def one(galaxy: tuple) -> jax.Array:
        seen, x_flow, flux_, mass = galaxy
        density = posterior.flow.log_prob(x_flow, features(seen, posterior.cosmology))
        return density if posterior.mass == "drawn" else density + of_mass(seen, flux_, mass)

    galaxies = (made.seen, x, flux, made.theta[MASS])
    return jax.lax.map(one, galaxies, batch_size=64)


def speeds(models: dict[str, LoadedPosterior], simulator: Simulator) -> dict[str, float]:
    """Draws with their densities a second, median of rounds in which the models take turns."""
    seen = simulator.sample(TIMED, key=jax.random.key(SEED + 2)).seen

    @eqx.filter_jit
    def draw(posterior: AmortizedPosterior, key: jax.Array) -> jax.Array:
        def one(galaxy: Observation) -> jax.Array:
            told = features(galaxy, posterior.cosmology)
            return posterior.flow.sample_and_log_prob(DRAWS, told, key=key)[1]

        return jnp.sum(jax.lax.map(one, seen))

    def call(loaded: LoadedPosterior) -> Callable[[], jax.Array]:
        return lambda: draw(loaded.posterior, jax.random.key(0)).block_until_ready()

    seconds = median_seconds({name: call(loaded) for name, loaded in models.items()}, ROUNDS)
    return {name: round(TIMED * DRAWS / spent) for name, spent in seconds.items()}


if __name__ == "__main__":
    main()
