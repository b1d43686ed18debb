"""Real galaxies with and without nebular emission: how well they fit, and at which redshift.

    python benchmarks/nebular.py [--number 1000000]

Galaxies drawn from the prior at redshifts up to 0.35, with stars alone and with gas, are
libraries. For each galaxy of the embedded SDSS sample, blue or red as observed, the 200 models
nearest in colour get a chi^2 with the survey's floor, their mass free. Reported of each library:
median of the least chi^2 among those within 0.01 of the spectroscopic redshift; and the error of
the redshift that the photometry alone gives, the mean with weights exp(-chi^2 / 2).

Writes benchmarks/results/nebular.json; two minutes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import jax
import numpy as np
from scipy.spatial import cKDTree

from machine import machine
from tinsley.io.catalogs import load_sample_catalog_path, open_catalog
from tinsley.io.models import build_model, build_tables
from tinsley.io.populations import read_whole_rows
from tinsley.io.results import write_json
from tinsley.io.surveys import load_survey
from tinsley.observe.photometry import unit_flux
from tinsley.observe.survey import FLUX_PER_MAG
from tinsley.parameters import default_space
from tinsley.population.synthetic import parse_selection

RESULT = Path(__file__).parent / "results" / "nebular.json"
REDSHIFTS = (0.01, 0.35)
LIBRARIES = {"stars": None, "log10_u_-3.5": -3.5, "log10_u_-3": -3.0, "log10_u_-2.5": -2.5}
NEIGHBOURS = 200
NEAR = 0.01
BLUE_G_R = 0.65
BY_REDSHIFT = (0.02, 0.05, 0.08, 0.12)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=1_000_000)
    args = parser.parse_args()
    survey = load_survey("sdss")
    catalog = open_catalog(load_sample_catalog_path(), survey)
    rows, _ = read_whole_rows(catalog, parse_selection("r < 17.77", survey.bands))
    seen = rows.flux, survey.total_sigma(rows.flux, rows.sigma), rows.redshift
    report = {"machine": machine(), "models": args.number, "galaxies": len(rows.flux)}
    for name, log10_u in LIBRARIES.items():
        report[name] = against(library(survey.filters, log10_u, args.number), seen)
        print(name, json.dumps(report[name]), flush=True)
    write_json(RESULT, report)


def library(
    filters: tuple[str, ...], log10_u: float | None, number: int
) -> tuple[np.ndarray, np.ndarray]:
    """Fluxes of galaxies from the prior, of one mass, [n, band], and their redshifts."""
    tables, _ = build_tables(filters, REDSHIFTS, build_model(nebular=log10_u))
    key_redshift, key_theta = jax.random.split(jax.random.key(0))
    low, high = REDSHIFTS
    redshift = jax.random.uniform(key_redshift, (number,), minval=low, maxval=high)
    age_gyr = tables.history.cosmology.age_gyr(redshift)
    theta = default_space().sample(number, age_gyr, key=key_theta) | {"redshift": redshift}
    return np.asarray(unit_flux(tables, theta), float), np.asarray(redshift, float)


def against(
    models: tuple[np.ndarray, np.ndarray], seen: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> dict[str, object]:
    """The report on one library."""
    (model, model_redshift), (flux, sigma, redshift) = models, seen
    scale = np.median(sigma / flux, axis=0)[1:] / FLUX_PER_MAG
    _, near = cKDTree(colours(model) / scale).query(colours(flux) / scale, NEIGHBOURS, workers=-1)
    chi2 = least_squares(model[near], flux[:, None], sigma[:, None])
    there = model_redshift[near]
    weight = np.exp(-0.5 * (chi2 - chi2.min(axis=1, keepdims=True)))
    found = np.sum(weight * there, axis=1) / np.sum(weight, axis=1)
    at_truth = np.where(np.abs(there - redshift[:, None]) < NEAR, chi2, np.inf).min(axis=1)
    blue = colours(flux)[:, 1] < BLUE_G_R
    return {
        "blue": summary(redshift[blue], found[blue], at_truth[blue]),
        "red": summary(redshift[~blue], found[~blue], at_truth[~blue]),
    }


def colours(flux: np.ndarray) -> np.ndarray:
    """Differences of neighbouring bands, mag, [n, band - 1]."""
    return np.diff(2.5 * np.log10(np.maximum(flux, 1e-12)), axis=-1)


def least_squares(model: np.ndarray, flux: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Chi^2 of models whose mass is free, [n, neighbour]."""
    cross, square = (np.sum(model * other / sigma**2, axis=-1) for other in (flux, model))
    misfit = (flux - (cross / square)[..., None] * model) / sigma
    return np.sum(misfit**2, axis=-1)


def summary(redshift: np.ndarray, found: np.ndarray, at_truth: np.ndarray) -> dict[str, object]:
    """Redshift errors, and how well the model fits at the true one."""
    error = (found - redshift) / (1 + redshift)
    bins = np.digitize(redshift, BY_REDSHIFT)
    ends = (0.0, *BY_REDSHIFT, REDSHIFTS[1])
    return {
        "galaxies": len(error),
        "least_chi2_at_true_redshift_median": round(float(np.median(at_truth)), 3),
        "median_error": round(float(np.median(error)), 4),
        "scatter_nmad": round(float(1.4826 * np.median(np.abs(error - np.median(error)))), 4),
        "median_error_by_redshift": {
            f"{ends[i]:g}-{ends[i + 1]:g}": round(float(np.median(error[bins == i])), 4)
            for i in range(len(ends) - 1)
            if (bins == i).sum() >= 20
        },
    }


if __name__ == "__main__":
    main()
