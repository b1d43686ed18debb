"""How well four bases reproduce the held-out DiffstarPop histories.

    python benchmarks/sfh_nmf.py [--papers FOLDER]

Each history, in mass fraction per PROVABGS bin up to the galaxy's age, is fitted by non-negative
least squares and the fit normalised to unit mass, twice: `mass` counts the mass of every bin
alike; `light` counts each bin's r-band light (solar, no dust), nearer to what photometry sees.
Errors are fit minus truth. The papers' bases (Illustris) are fitted to the same histories where
FOLDER, provabgs' text files, is present. Writes benchmarks/results/sfh_nmf.json; seconds.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np
from astropy.cosmology import FlatLambdaCDM
from scipy.optimize import nnls
from speclite.filters import load_filter

import tinsley
from tinsley.io.grids import load_ssp_grid
from tinsley.io.histories import (
    Histories,
    load_diffstarpop_histories,
    load_provabgs_bases,
    load_sfh_bases,
)
from tinsley.sps.bases import SfhBases
from tinsley.sps.sfh import EDGES_GYR, basis_mass, mass_before_gyr
from tinsley.sps.ssp import age_weights, linear_weights

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "src" / "tinsley" / "data"
OUT = ROOT / "benchmarks" / "results" / "sfh_nmf.json"
PAPERS = ROOT.parent / "shared" / "reference" / "provabgs_nmf"
BANDS = "ugriz"
REDSHIFT_LIGHT = 0.1
RECENT_GYR = {"last_100myr": 0.1, "last_1gyr": 1.0}
SSFR_FLOOR_YR = 1e-14
"""Less star formation than this, per year and mass formed, counts as none (as in `derived`)."""
STAR_FORMING_YR = 1e-11


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--papers", type=Path, default=PAPERS)
    papers = parser.parse_args().papers
    histories = load_diffstarpop_histories()
    sets = {"tinsley": load_sfh_bases()}
    if papers.exists():
        sets["papers"] = load_provabgs_bases(papers)[0]
    light = band_light()
    results = {
        "tinsley_version": tinsley.__version__,
        "sha256": {
            name: checksum(name) for name in ("sfh_nmf.csv", "diffstarpop_histories.parquet")
        },
        "draws": len(histories.redshift),
        "conventions": "errors are fit minus truth; median, q16, q84, and p95 of the absolute "
        f"value; dex with both floored at sSFR {SSFR_FLOOR_YR}/yr; star-forming: true sSFR (100 "
        f"Myr) above {STAR_FORMING_YR}/yr; mag: solar, no dust, z = {REDSHIFT_LIGHT}, unit mass",
        "truth": population(histories.mass_fraction, ages_gyr(histories.redshift)),
    }
    for name, bases in sets.items():
        results[name] = {"bases": describe(bases), "flat_dirichlet": prior(bases)}
        for fit, weight in {"mass": np.ones(light.shape[1]), "light": light[2]}.items():
            results[name][f"fit_{fit}"] = errors(bases, histories, weight, light)
    OUT.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


def band_light() -> np.ndarray:
    """AB maggies (to one constant) per unit mass formed in each bin, [band, bin]."""
    grid = load_ssp_grid()
    solar = linear_weights(grid.log10_z_zsun, np.array(0.0))
    centre = 0.5 * (EDGES_GYR[1:] + EDGES_GYR[:-1])
    spectra = np.einsum("ba,m,maw->bw", age_weights(grid, centre), solar, grid.lum_lsun_aa)
    wave_aa = grid.wave_rest_aa * (1 + REDSHIFT_LIGHT)
    light = []
    for band in BANDS:
        curve = load_filter(f"sdss2010-{band}")
        x = np.union1d(wave_aa, curve.wavelength)
        x = x[(x >= curve.wavelength[0]) & (x <= curve.wavelength[-1])]
        response = np.interp(x, curve.wavelength, curve.response)
        flux = np.array([np.interp(x, wave_aa, spectrum) for spectrum in spectra])
        ab = np.trapezoid(response / x, x)
        light.append(np.trapezoid(flux * response * x, x, axis=1) / ab)
    return np.array(light)


def errors(
    bases: SfhBases, histories: Histories, weight: np.ndarray, light: np.ndarray
) -> dict[str, object]:
    """Errors of the fits with these weights per bin."""
    truth = histories.mass_fraction
    age_gyr = ages_gyr(histories.redshift)
    fitted = np.array([fit(bases, *one, weight) for one in zip(truth, age_gyr, strict=True)])
    forms = recent(truth, RECENT_GYR["last_100myr"]) / 1e8 > STAR_FORMING_YR
    result: dict[str, object] = {}
    for name, span_gyr in RECENT_GYR.items():
        floor = SSFR_FLOOR_YR * span_gyr * 1e9
        formed, expected = recent(fitted, span_gyr), recent(truth, span_gyr)
        dex = np.log10(np.maximum(formed, floor) / np.maximum(expected, floor))
        result[f"mass_{name}_dex"] = {
            "all": spread(dex),
            "star_forming": spread(dex[forms]),
            "none_in_truth": int(np.sum(expected < floor)),
            "none_in_fit": int(np.sum(formed < floor)),
            "none_in_fit_of_star_forming": int(np.sum(formed[forms] < floor)),
        }
    ages = [mean_age_gyr(mass, age_gyr) for mass in (fitted, truth)]
    result["age_mw_gyr"] = spread(ages[0] - ages[1])
    result["age_mw_dex"] = spread(np.log10(ages[0] / ages[1]))
    mag = -2.5 * np.log10((fitted @ light.T) / (truth @ light.T))
    result["mag"] = {band: spread(mag[:, i]) for i, band in enumerate(BANDS)}
    result["mag_star_forming"] = {band: spread(mag[forms, i]) for i, band in enumerate(BANDS)}
    result["mag_u_minus_r"] = spread(mag[:, 0] - mag[:, 2])
    return result


def fit(bases: SfhBases, truth: np.ndarray, age_gyr: float, weight: np.ndarray) -> np.ndarray:
    """The best mass fraction per bin, [bin]."""
    columns = basis_mass(bases, age_gyr).T
    coefficients, _ = nnls(columns * weight[:, None], truth * weight)
    mass = columns @ coefficients
    return mass / mass.sum()


def recent(mass: np.ndarray, span_gyr: float) -> np.ndarray:
    """Mass formed in the last `span_gyr`: whole bins and a share of the last one."""
    share = np.clip((span_gyr - EDGES_GYR[:-1]) / np.diff(EDGES_GYR), 0.0, 1.0)
    return mass @ share


def mean_age_gyr(mass: np.ndarray, age_gyr: np.ndarray) -> np.ndarray:
    """Mass-weighted age; the bins end at the galaxy's age."""
    edges = np.minimum(EDGES_GYR, age_gyr[:, None])
    return np.sum(mass * 0.5 * (edges[:, 1:] + edges[:, :-1]), axis=1) / mass.sum(axis=1)


def ages_gyr(redshift: np.ndarray) -> np.ndarray:
    return FlatLambdaCDM(H0=67.7, Om0=0.307).age(redshift).to_value("Gyr")


def describe(bases: SfhBases) -> list[dict[str, float]]:
    """Of each basis: share of its mass formed lately, and mean age, cut at 13.8 Gyr."""
    mass = basis_mass(bases, EDGES_GYR[-1])
    lately = {name: mass_before_gyr(bases, np.array(t)) for name, t in RECENT_GYR.items()}
    age = mean_age_gyr(mass, np.full(len(mass), EDGES_GYR[-1]))
    total = mass.sum(axis=1)
    return [
        {name: rounded(m[i] / total[i], 5) for name, m in lately.items()}
        | {"mean_age_gyr": rounded(age[i])}
        for i in range(len(mass))
    ]


def prior(bases: SfhBases) -> dict[str, object]:
    """What flat Dirichlet coefficients imply at z = 0.1, without burst."""
    beta = np.random.default_rng(0).dirichlet(np.ones(len(bases.sfr)), 20_000)
    age_gyr = ages_gyr(np.array([REDSHIFT_LIGHT]))
    mass = beta @ basis_mass(bases, age_gyr[0])
    return population(mass / mass.sum(axis=1, keepdims=True), np.repeat(age_gyr, len(mass)))


def population(mass: np.ndarray, age_gyr: np.ndarray) -> dict[str, object]:
    """Percentiles 5, 16, 50, 84, 95 of log10 sSFR (100 Myr) and of mass-weighted age."""
    ssfr_yr = np.maximum(recent(mass, RECENT_GYR["last_100myr"]) / 1e8, SSFR_FLOOR_YR)
    at = (5, 16, 50, 84, 95)
    return {
        "log10_ssfr_100myr_yr": [rounded(q) for q in np.percentile(np.log10(ssfr_yr), at)],
        "age_mw_gyr": [rounded(q) for q in np.percentile(mean_age_gyr(mass, age_gyr), at)],
        "share_ssfr_below_1e-11": rounded(np.mean(ssfr_yr < STAR_FORMING_YR)),
        "share_ssfr_above_1e-10": rounded(np.mean(ssfr_yr > 1e-10)),
    }


def spread(error: np.ndarray) -> dict[str, float]:
    q16, q50, q84 = np.percentile(error, [16, 50, 84])
    p95 = np.percentile(np.abs(error), 95)
    return {"median": rounded(q50), "q16": rounded(q16), "q84": rounded(q84), "p95": rounded(p95)}


def rounded(value: float, digits: int = 4) -> float:
    return round(float(value), digits)


def checksum(name: str) -> str:
    return hashlib.sha256((DATA / name).read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
