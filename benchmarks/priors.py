"""What another prior costs: by weights, and by fine-tuning for it.

    python benchmarks/priors.py [--number 1000] [--steps 1500] [--model sdss] [--tuned FILE]

Galaxies of three priors, complete photometry, errors as in training; 1,000 draws each in the first
round (few effective ones bring more rounds, as in `tinsley check`):

- `parameters`: metal-rich, little dust; weighted draws of the model, and draws of the model after
  `tinsley train posterior --from` with that prior;
- `ssfr`: uniform in specific star-formation rate, by weights;
- `volume_mass_function`: the same for galaxies of that prior, whose redshifts are known.

For each: effective sample size over draws, with and without the prior's weights, and whether the
ranks of the truths are uniform (weighted; Kolmogorov-Smirnov, Holm, 1 % family-wise).

Writes benchmarks/results/priors.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from commands import command
from machine import machine
from tinsley.infer.calibrate import Effort, calibrate
from tinsley.infer.ranks import FAMILY_LEVEL, WEIGHTED, holm, uniformity
from tinsley.infer.simulator import Simulation
from tinsley.infer.truths import Truth, quantities
from tinsley.io.models import LoadedPosterior, load_posterior
from tinsley.io.priors import PriorFile, impose, load_prior, sample_prior
from tinsley.io.results import write_json
from tinsley.observe.photometry import photometry
from tinsley.sps.derived import derived

RESULT = Path(__file__).resolve().parent / "results" / "priors.json"
PARAMETERS = """
[log10_z_zsun]
prior = "normal"
mean = -0.2
std = 0.3
[tau_ism]
prior = "uniform"
low = 0.0
high = 1.0
[tau_bc]
prior = "uniform"
low = 0.0
high = 1.0
"""
SSFR = {"log10_ssfr_1gyr_yr": {"prior": "uniform", "low": -11.5, "high": -9.2}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--model", default="sdss")
    parser.add_argument("--tuned", help="a model that was fine-tuned before, to save the training")
    options = parser.parse_args()
    loaded = load_posterior(options.model)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "parameters.toml"
        file.write_text(PARAMETERS)
        prior = load_prior(file)
        started = time.monotonic()
        tuned_file = options.tuned or fine_tune(options, file, Path(folder))
        seconds = round(time.monotonic() - started, 1)
        tuned = load_posterior(tuned_file)
    result: dict[str, Any] = {
        "model_sha256": loaded.sha256,
        "machine": machine(),
        "galaxies": options.number,
        "fine_tuning": dict(tuned.spec.training) | ({} if options.tuned else {"seconds": seconds}),
        "priors": {},
    }
    result["fine_tuning"].pop("prior")
    made = galaxies(loaded, prior, options.number, seed=3)
    result["priors"]["parameters"] = {
        "weighted": measure(impose(loaded, prior), made, loaded),
        "fine_tuned": measure(tuned, made, loaded),
    }
    for name, other in {
        "ssfr": load_prior(SSFR),
        "volume_mass_function": load_prior("volume_mass_function"),
    }.items():
        made = galaxies(loaded, other, options.number, seed=4)
        found = measure(impose(loaded, other), made, loaded)
        result["priors"][name] = {"weighted": found}
    write_json(RESULT, result)
    print(json.dumps(result, indent=1))


def fine_tune(options: argparse.Namespace, file: Path, folder: Path) -> Path:
    """The model, taught the prior by the command."""
    out = folder / "tuned.tinsley"
    where = ("--out", str(out), "--run", str(folder / "run"))
    begun = ("--from", options.model, "--prior", str(file), "--steps", str(options.steps))
    command("train", "posterior", *begun, *where)
    return out


def galaxies(loaded: LoadedPosterior, prior: PriorFile, number: int, seed: int) -> Simulation:
    """Galaxies of a prior, observed as in training: weighted draws, drawn again by weight."""
    key_draw, key_pick, key_observe = jax.random.split(jax.random.key(seed), 3)
    values, weight = sample_prior(loaded, prior, 100 * number, key_draw)
    picked = np.asarray(
        jax.random.choice(key_pick, len(weight), (number,), replace=False, p=jnp.asarray(weight))
    )
    names = (*loaded.posterior.space.names, "redshift")
    theta = {name: jnp.asarray(values[name][picked], dtype=float) for name in names}
    flux = photometry(loaded.posterior.tables, theta)
    return loaded.simulator(1.0).observe(theta, flux, key=key_observe)


def measure(under: LoadedPosterior, made: Simulation, loaded: LoadedPosterior) -> dict[str, Any]:
    """Efficiency and calibration of a model on galaxies."""
    number, posterior = len(made.seen.redshift), under.posterior
    reference = jax.random.uniform(jax.random.key(5), (number, posterior.space.n_unit))
    theta = made.theta | derived(posterior.derived_tables, made.theta)
    values = quantities(posterior, theta, reference)
    del values["redshift"]
    truth = Truth(made.seen, values, reference, None)
    ends = loaded.spec.snr_range
    effort = Effort(draws=1000, workers=2)
    started = time.monotonic()
    found = calibrate(posterior, truth, ends, effort, jax.random.key(6))
    finite = np.isfinite(found.ess)
    tests = {name: uniformity(r[finite]) for name, r in found.ranks[WEIGHTED].items()}
    p_values = {name: test["p"] for name, test in tests.items()}
    worst = max(tests, key=lambda name: tests[name]["distance"])
    out = {
        "efficiency": quantiles(found.efficiency),
        "share_ess_below_100": float(np.mean(~(found.efficiency * effort.draws >= 100))),
        "failed": int(np.sum(~finite)),
        "rejected": holm(p_values, FAMILY_LEVEL),
        "least_p": min(p_values.values()),
        "worst": {"of": worst, "distance": tests[worst]["distance"]},
        "properties": len(tests),
        "seconds": round(time.monotonic() - started, 1),
    }
    if posterior.prior_ratio is not None:
        trained = dataclasses.replace(posterior, prior_ratio=None)
        before = calibrate(
            trained, truth, ends, Effort(draws=1000, most=1, workers=2), jax.random.key(6)
        )
        out["efficiency_trained_prior"] = quantiles(before.efficiency)
        out["share_left"] = float(np.nanmedian(found.efficiency / before.efficiency))
    return out


def quantiles(share: np.ndarray) -> dict[str, float]:
    low, middle, high = np.nanquantile(share, (0.16, 0.5, 0.84))
    return {"q16": float(low), "median": float(middle), "q84": float(high)}


if __name__ == "__main__":
    main()
