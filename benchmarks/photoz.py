"""Photometric redshifts of the embedded catalogue, its own redshifts hidden.

    python benchmarks/photoz.py [--number 10000] [--model sdss]
    python benchmarks/photoz.py --number 2000 --model sdss-nebular --name photoz-nebular

`tinsley infer --redshift free` on the first galaxies; then, for those of status ok, the blue among
these (observed g - r), and for all that have a posterior: bias and sigma_MAD of dz / (1 + z),
outliers beyond 0.05 and 0.15, the distance of the PIT from uniform, and the mean CRPS, for the
posterior median and draws. Two priors: flat in redshift and log mass, as the model was trained, and
`field`: `--prior volume_mass_function`, comoving volume times the mass function of Baldry et al.
(2012; GAMA, z < 0.06).

Writes benchmarks/results/NAME.json (photoz); minutes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.special import logsumexp

from machine import machine
from nebular import BLUE_G_R
from tinsley.catalog.run import RunSettings, run_catalog
from tinsley.io.catalogs import (
    load_sample_catalog_path,
    load_usual_error,
    open_catalog,
)
from tinsley.io.models import load_posterior
from tinsley.io.priors import impose, load_prior
from tinsley.io.results import write_json, write_parquet
from tinsley.io.runs import iterate_draws, load_galaxies
from tinsley.io.surveys import load_survey
from tinsley.io.tables import open_table
from tinsley.status import Redshift

RESULTS = Path(__file__).parent / "results"
DRAWS = 1000
PRIORS = {"flat": None, "field": "volume_mass_function"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=10_000)
    parser.add_argument("--model", default="sdss")
    parser.add_argument("--name", default="photoz", help="of the result")
    options = parser.parse_args()
    rows = sample(options.number)
    blues = set(rows["object_id"][is_blue(rows)].tolist())
    truth = dict(zip(rows["object_id"].tolist(), rows.pop("redshift").tolist(), strict=True))
    result: dict = {"galaxies": options.number, "machine": machine()}
    for label, prior in PRIORS.items():
        with tempfile.TemporaryDirectory() as folder:
            about, galaxies = infer(rows, options.model, prior, Path(folder))
            chunks = list(iterate_draws(Path(folder) / "out", DRAWS))
        ok = dict(zip(galaxies["object_id"].tolist(), galaxies["status"] == "ok", strict=True))
        good = np.array([ok[int(name)] for c in chunks for name in c.object_id])
        blue = np.array([int(name) in blues for c in chunks for name in c.object_id])
        parts = [
            each(c.theta["redshift"], c.log_weight, np.array([truth[int(n)] for n in c.object_id]))
            for c in chunks
        ]
        columns = {k: np.concatenate([part[k] for part in parts]) for k in parts[0]}
        sets = {"all": np.ones(len(good), bool), "ok": good, "blue": good & blue}
        found = {n: summary({k: v[kept] for k, v in columns.items()}) for n, kept in sets.items()}
        result[label] = about | found
    write_json(RESULTS / f"{options.name}.json", result)
    print(json.dumps(result, indent=1))


def sample(number: int) -> dict[str, np.ndarray]:
    """The first rows of the embedded catalogue, by column."""
    table = open_table(load_sample_catalog_path())
    kinds = {name: "name" if name == "object_id" else "real" for name in table.columns}
    rows = next(table.pieces(kinds, number, 0))
    return {name: values[:number] for name, values in rows.items()}


def is_blue(rows: dict[str, np.ndarray]) -> np.ndarray:
    """Which rows are blue as observed, in g - r."""
    return rows["flux_g"] > rows["flux_r"] * 10 ** (-0.4 * BLUE_G_R)


def infer(
    rows: dict[str, np.ndarray], model: str, prior: str | None, folder: Path
) -> tuple[dict, dict]:
    """A run on rows without redshifts: what is to be said of it, and its table."""
    survey, loaded = load_survey("sdss"), load_posterior(model)
    if prior is not None:
        loaded = impose(loaded, load_prior(prior))
    write_parquet(folder / "hidden.parquet", rows, {})
    catalog = open_catalog(folder / "hidden.parquet", survey, needs_redshift=False)
    settings = RunSettings(draws=DRAWS, redshift=Redshift.FREE)
    started = time.monotonic()
    manifest = run_catalog(loaded, catalog, load_usual_error(survey), folder / "out", settings)
    seconds = time.monotonic() - started
    galaxies = load_galaxies(folder / "out")
    return {
        "prior_efficiency": manifest.get("prior_efficiency"),
        "statuses": manifest["statuses"],
        "methods": {k: int(np.sum(galaxies["method"] == k)) for k in ("flow", "weighted", "smc")},
        "ess_median": float(np.nanmedian(galaxies["ess"])),
        "share_ess_100": float(np.mean(galaxies["ess"] >= 100)),
        "seconds": round(seconds, 1),
        "model_sha256": loaded.sha256,
    }, galaxies


def each(redshift: np.ndarray, log_weight: np.ndarray, true: np.ndarray) -> dict[str, np.ndarray]:
    """Median, PIT, CRPS and effective sample size of each galaxy."""
    weight = np.exp(log_weight - logsumexp(log_weight, axis=1, keepdims=True))
    order = np.argsort(redshift, axis=1)
    z, w = (np.take_along_axis(a, order, axis=1).astype(float) for a in (redshift, weight))
    cumulative = np.cumsum(w, axis=1)
    middle = (cumulative < 0.5).sum(axis=1)[:, None].clip(max=z.shape[1] - 1)
    median = np.take_along_axis(z, middle, axis=1)
    split = np.clip(true[:, None], z[:, :-1], z[:, 1:])
    below = cumulative[:, :-1] ** 2 * (split - z[:, :-1])
    above = (1 - cumulative[:, :-1]) ** 2 * (z[:, 1:] - split)
    crps = np.sum(below + above, axis=1)
    crps += np.maximum(z[:, 0] - true, 0) + np.maximum(true - z[:, -1], 0)
    return {
        "true": true,
        "median": median[:, 0],
        "pit": np.sum(w * (z <= true[:, None]), axis=1),
        "crps": crps,
        "ess": 1 / np.sum(w**2, axis=1),
    }


def summary(columns: dict[str, np.ndarray]) -> dict[str, float]:
    error = (columns["median"] - columns["true"]) / (1 + columns["true"])
    pit = np.sort(columns["pit"])
    level = np.arange(1, len(pit) + 1) / len(pit)
    return {
        "galaxies": len(error),
        "bias": float(np.median(error)),
        "sigma_mad": float(1.4826 * np.median(np.abs(error - np.median(error)))),
        "outliers_0.05": float(np.mean(np.abs(error) > 0.05)),
        "outliers_0.15": float(np.mean(np.abs(error) > 0.15)),
        "pit_distance": float(np.max(np.abs(level - pit))),
        "pit_below_0.01": float(np.mean(pit < 0.01)),
        "pit_above_0.99": float(np.mean(pit > 0.99)),
        "crps": float(np.mean(columns["crps"])),
        "ess_median": float(np.median(columns["ess"])),
    }


if __name__ == "__main__":
    main()
