"""The best fit's chi^2 by band: of the real galaxies, and of galaxies that the model made itself.

    python benchmarks/misfit.py --run demo [--number 2000]

With fewer bands than parameters a perfect model fits each band with a chi^2 far below 1, so the
catalogue is compared with replicas: for each of its first galaxies one draw of its posterior gives
a true flux, noise of the galaxy's own errors is added, and the replica is inferred as the galaxy
was. What the model can not fit shows as the difference. `--run` is the folder of `tinsley demo`.
Writes benchmarks/results/misfit.json; a minute.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from machine import machine
from tinsley.catalog.residuals import best_fit_residuals, misfit_by_band
from tinsley.catalog.run import RunSettings, run_catalog
from tinsley.io.catalogs import Catalog, load_sample_catalog_path, open_catalog
from tinsley.io.models import LoadedPosterior, load_posterior
from tinsley.io.results import write_json
from tinsley.io.runs import load_draws, load_galaxies, load_manifest
from tinsley.io.surveys import load_survey
from tinsley.io.tables import MemoryTable
from tinsley.observe.photometry import photometry
from tinsley.observe.survey import Photometry
from tinsley.status import Refine

RESULT = Path(__file__).parent / "results" / "misfit.json"
FLAGGED = ("unusual_error", "unusual_colour")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("demo"))
    parser.add_argument("--number", type=int, default=2000)
    args = parser.parse_args()
    survey = load_survey("sdss")
    # the survey's errors include its floor, which replicas must not get twice
    no_floor = dataclasses.replace(survey, error_floor_mag=np.zeros(len(survey.bands)))
    manifest = load_manifest(args.run)
    loaded = load_posterior(manifest["model"])
    catalog = open_catalog(load_sample_catalog_path(), survey)
    real = residuals(loaded, catalog, args.run, manifest)
    status = load_galaxies(args.run)["status"]
    rng = np.random.default_rng(0)
    parts = [
        replicas(loaded, rows, args.run, number, manifest, rng)
        for number, rows in enumerate(catalog.chunks(manifest["chunk"]))
        if number * manifest["chunk"] < args.number
    ]
    columns = {name: np.concatenate([p[name] for p in parts])[: args.number] for name in parts[0]}
    made = Catalog(MemoryTable(columns), no_floor, None)
    with tempfile.TemporaryDirectory() as folder:
        refine = Refine(manifest["refine"])
        settings = RunSettings(draws=manifest["draws"], seed=1, refine=refine)
        made_manifest = run_catalog(loaded, made, None, Path(folder), settings)
        replicated = residuals(loaded, made, Path(folder), made_manifest)
    usual = ~np.isin(status, FLAGGED)
    result = {
        "real": misfit_by_band(real, survey.bands),
        "real_usual_errors_and_colours": misfit_by_band(real[usual], survey.bands),
        "replicas": misfit_by_band(replicated, survey.bands),
        "total_chi2_above_9": {
            "real": share_above(real, 9),
            "real_usual_errors_and_colours": share_above(real[usual], 9),
            "replicas": share_above(replicated, 9),
        },
        "model_sha256": loaded.sha256,
        "machine": machine(),
    }
    write_json(RESULT, result)
    print(json.dumps(result, indent=1))


def residuals(loaded: LoadedPosterior, catalog: Catalog, run: Path, manifest: dict) -> np.ndarray:
    posterior = loaded.posterior
    return best_fit_residuals(posterior.tables, posterior.space, catalog, run, manifest)


def share_above(residual: np.ndarray, limit: float) -> float:
    """Share of galaxies whose best fit's chi^2, all bands together, is above a limit."""
    return float(np.mean(np.nansum(residual**2, axis=1) > limit))


def replicas(
    loaded: LoadedPosterior,
    rows: Photometry,
    run: Path,
    chunk: int,
    manifest: dict,
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """One noisy galaxy for each galaxy of a chunk, true to a draw of its posterior."""
    part = load_draws(run, chunk, manifest["draws"])
    rows = rows.take(np.isin(rows.object_id, part.object_id))
    weight = np.exp(part.log_weight.astype(float))
    drawn = [rng.choice(weight.shape[1], p=w / w.sum()) for w in weight]
    theta = {name: jnp.asarray(v[np.arange(len(v)), drawn]) for name, v in part.theta.items()}
    theta["redshift"] = jnp.asarray(rows.redshift, dtype=float)
    flux = np.asarray(photometry(loaded.posterior.tables, theta), float)
    flux = flux + rows.sigma * rng.normal(size=flux.shape)
    columns = {"object_id": rows.object_id, "redshift": rows.redshift}
    for i, band in enumerate(loaded.spec.bands):
        there = rows.mask[:, i]
        columns[f"flux_{band}"] = np.where(there, flux[:, i], np.nan)
        columns[f"flux_err_{band}"] = np.where(there, rows.sigma[:, i], np.nan)
    return columns


if __name__ == "__main__":
    main()
