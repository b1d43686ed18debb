"""Band tables: how exact and how fast, beside bagpipes where it is at hand.

    python benchmarks/photometry.py [--number 1000] [--bagpipes-python PYTHON]

Accuracy: prior draws at z 0.005-1.5 against full-resolution float64 integrals, constant and
evolving metallicity, where dust takes less than 10 mag from a band. Speed: galaxies per second,
forward and with the gradient of a scalar to all parameters, best of five. `--bagpipes-python` is an
interpreter that can import bagpipes 1.3: its `update()` is timed in the same run.

Writes benchmarks/results/photometry.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from machine import machine
from tinsley.io.band_tables import load_band_tables
from tinsley.io.filters import load_filters
from tinsley.io.models import build_model
from tinsley.observe.exact import exact_photometry
from tinsley.observe.photometry import BandTables, photometry
from tinsley.parameters import default_space
from tinsley.sps.galaxy import GalaxyModel, redshift_grid
from tinsley.sps.metallicity import Enrichment

BANDS = "ugriz"
REDSHIFTS = (0.005, 1.5)
BAGPIPES = """
import sys, time, numpy as np, bagpipes
filters = sys.argv[1:]
parts = {"redshift": 0.1,
         "exponential": {"age": 8.0, "tau": 3.0, "massformed": 10.5, "metallicity": 0.8},
         "dust": {"type": "Calzetti", "Av": 0.5}}
model = bagpipes.model_galaxy(parts, filt_list=filters)
times = []
for i in range(300):
    parts["dust"]["Av"] = 0.5 + 1e-3 * i
    parts["redshift"] = 0.1
    start = time.perf_counter()
    model.update(parts)
    times.append(time.perf_counter() - start)
print(float(np.median(times)))
"""


def prior_draws(model: GalaxyModel, tables: BandTables, number: int, seed: int) -> dict[str, Any]:
    """Parameters and redshifts over the whole prior."""
    key_z, key = jax.random.split(jax.random.key(seed))
    redshift = jax.random.uniform(key_z, (number,), minval=REDSHIFTS[0], maxval=REDSHIFTS[1])
    space = default_space(model.metallicity.priors())
    return space.sample(number, tables.history.cosmology.age_gyr(redshift), key=key) | {
        "redshift": redshift
    }


def accuracy(model: GalaxyModel, filters: tuple, tables: BandTables, number: int) -> dict:
    """Errors in mmag by band."""
    theta = prior_draws(model, tables, number, seed=1)
    fast = np.asarray(photometry(tables, theta), float)
    error, attenuation = np.empty(fast.shape), np.empty(fast.shape)
    for i in range(number):
        row = {name: float(value[i]) for name, value in theta.items()}
        exact = exact_photometry(model, filters, row)
        clear = exact_photometry(model, filters, row | {"tau_bc": 0.0, "tau_ism": 0.0})
        error[i] = 2500 * np.abs(np.log10(fast[i] / exact))
        attenuation[i] = 2.5 * np.log10(clear / exact)
    out = {}
    for b, band in enumerate(BANDS):
        seen = error[attenuation[:, b] < 10, b]
        quantiles = np.percentile(seen, [50, 99, 100])
        names = ("median_mmag", "p99_mmag", "worst_mmag")
        out[band] = {"n": len(seen), **dict(zip(names, quantiles.round(3).tolist(), strict=True))}
    return out


def rate(function: Callable, theta: dict) -> float:
    """Galaxies per second, best of five."""
    jax.block_until_ready(function(theta))
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        jax.block_until_ready(function(theta))
        seconds.append(time.perf_counter() - start)
    return round(len(theta["redshift"]) / min(seconds))


def speed(model: GalaxyModel, tables: BandTables) -> dict:
    """Forward and gradient rates for two batch sizes."""
    forward = jax.jit(lambda theta: photometry(tables, theta))
    gradient = jax.jit(jax.grad(lambda theta: jnp.sum(jnp.log(photometry(tables, theta)))))
    out = {}
    for number in (10_000, 100_000):
        theta = prior_draws(model, tables, number, seed=2)
        out[str(number)] = {
            "forward_per_s": rate(forward, theta),
            "gradient_per_s": rate(gradient, theta),
        }
    return out


def bagpipes_seconds(python: str, filters: tuple) -> float:
    """Median seconds of one `update()` with ugriz."""
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for band in filters:
            paths.append(str(Path(folder) / f"{band.name}.txt"))
            np.savetxt(paths[-1], np.stack([band.wave_aa, band.response], axis=1))
        done = subprocess.run(
            [python, "-c", BAGPIPES, *paths], capture_output=True, text=True, check=True, cwd=folder
        )
    return float(done.stdout.split()[-1])


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=1000)
    parser.add_argument("--bagpipes-python")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/photometry.json"))
    args = parser.parse_args()
    filters = load_filters([f"sdss2010-{band}" for band in BANDS])
    constant = build_model()
    evolving = GalaxyModel(constant.ssp, constant.bases, Enrichment())
    grid = redshift_grid(*REDSHIFTS)
    result: dict[str, Any] = {"machine": machine(), "redshift_nodes": grid.number}
    for name, model in (("constant", constant), ("enrichment", evolving)):
        tables = load_band_tables(model, filters, grid)
        result[name] = {"wavelength_nodes": len(tables.node_aa), "speed": speed(model, tables)}
        result[name]["accuracy"] = accuracy(model, filters, tables, args.number)
    if args.bagpipes_python:
        seconds = bagpipes_seconds(args.bagpipes_python, filters)
        ours = result["constant"]["speed"]["100000"]["forward_per_s"]
        result["bagpipes"] = {"update_ms": 1e3 * seconds, "ratio": round(ours * seconds)}
    result["peak_memory_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
    args.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
