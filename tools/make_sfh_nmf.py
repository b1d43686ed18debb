"""Make Tinsley's default star-formation bases, and histories to test the model with.

Galaxies are drawn from DiffstarPop in its IllustrisTNG calibration (on top of diffmah's halo
histories), observed at redshifts 0 to 0.6, and balanced in mass and specific star-formation rate.
Four non-negative bases are factorised from the mass that each formed per bin of lookback time.
A second, independent set of draws becomes the histories that calibration tests use as truths.

Both packages switch JAX to 64 bits for the whole process, so they get an environment of their own:
    python -m venv simenv
    simenv/bin/pip install diffmah==0.7.3 diffstar==1.0.3 scikit-learn==1.9.1 pyarrow==26.0.1
    simenv/bin/python tools/make_sfh_nmf.py
A minute on two cores. Writes src/tinsley/data/sfh_nmf.csv and diffstarpop_histories.parquet.
"""

from __future__ import annotations

import argparse
import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import jax

jax.config.update("jax_enable_x64", True)  # noqa: FBT003 - a short history sum needs float64

import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
from diffmah.diffmahpop_kernels.bimod_censat_params import DEFAULT_DIFFMAHPOP_PARAMS  # noqa: E402
from diffmah.diffmahpop_kernels.mc_bimod_cens import mc_cenpop  # noqa: E402
from diffstar.defaults import FB  # noqa: E402
from diffstar.diffstarpop.kernels.params.params_diffstarpopfits_mgash_tng import (  # noqa: E402
    DIFFSTARPOP_FITS_TNG_DIFFSTARPOP_PARAMS,
)
from diffstar.diffstarpop.mc_diffstarpop_mgash import mc_diffstar_sfh_galpop  # noqa: E402
from sklearn.decomposition import NMF  # noqa: E402

DATA = Path(__file__).resolve().parents[1] / "src" / "tinsley" / "data"
SEED = 20230615
OM0, H0 = 0.307, 67.7
"""Tinsley's default cosmology: flat LCDM (Li et al. 2023)."""
NUMBER_BASES = 4
NUMBER_DRAWS, NUMBER_TRAINING, NUMBER_HISTORIES = 24_000, 8_000, 1_500
LOG10_MHALO_RANGE = (10.2, 15.0)
LOG10_MSTAR_RANGE = (8.0, 12.0)
REDSHIFT_MAX = 0.6
YOUNG_GYR = 0.1
AGE_WEIGHT_POWER = -1.25
"""Mass formed a time t ago counts as t to this power in the factorisation: as the light that it
still gives off in u (BC03, solar: t^-1.20). Of the powers 0 to -2, this one left the smallest
errors in ugriz and in recent star formation on held-out draws (made with another seed than this
one) without losing the ages; with squared errors instead, recent star formation was lost."""
NMF_EDGES_GYR = np.r_[0.0, 10.0 ** np.arange(-1.5, 0.05, 0.1), np.arange(1.25, 13.8, 0.25), 13.84]
PROVABGS_EDGES_GYR = np.r_[0.0, 10.0 ** (6.05 + 0.1 * np.arange(41) - 9.0), 13.8]
LAST_LOOKBACK_GYR = 13.8


class Draws(NamedTuple):
    """Galaxies with their growth: mass formed (Msun) before cosmic time t, [galaxy, time]."""

    time_gyr: np.ndarray
    mass_formed_msun: np.ndarray
    redshift: np.ndarray

    def mass_per_bin(self, edges_gyr: np.ndarray) -> np.ndarray:
        """Mass formed per bin of lookback time from the observation, Msun, [galaxy, bin]."""
        lookback = np.maximum(cosmic_age_gyr(self.redshift)[:, None] - edges_gyr, 0.0)
        rows = zip(lookback, self.mass_formed_msun, strict=True)
        before = np.array([np.interp(t, self.time_gyr, mass) for t, mass in rows])
        return before[:, :-1] - before[:, 1:]


def cosmic_age_gyr(redshift: np.ndarray) -> np.ndarray:
    """Age of the universe in flat LCDM without radiation, in closed form."""
    x = np.sqrt((1.0 - OM0) / OM0 / (1.0 + np.asarray(redshift)) ** 3)
    return 2.0 / (3.0 * np.sqrt(1.0 - OM0)) * np.arcsinh(x) * 977.7922 / H0


def draw_galaxies(number: int, redshift_min: float, seed: int) -> Draws:
    """Central galaxies of haloes uniform in log mass, each seen at a redshift of its own."""
    rng = np.random.default_rng(seed)
    halo_key, galaxy_key = jax.random.split(jax.random.key(seed))
    t0_gyr = float(cosmic_age_gyr(0.0))
    time_gyr = np.linspace(0.01, t0_gyr, 1400)
    log10_mhalo = jnp.asarray(rng.uniform(*LOG10_MHALO_RANGE, number))
    today, none = jnp.full(number, t0_gyr), jnp.zeros(number)
    haloes = mc_cenpop(
        DEFAULT_DIFFMAHPOP_PARAMS, time_gyr, log10_mhalo, today, halo_key, np.log10(t0_gyr)
    )
    central = (none - 1.0, none, none, none - 100.0)  # upid, no host: not a satellite
    galaxies = mc_diffstar_sfh_galpop(
        DIFFSTARPOP_FITS_TNG_DIFFSTARPOP_PARAMS,
        haloes.mah_params,
        haloes.log_mah[:, -1],
        *central,
        galaxy_key,
        time_gyr,
        lgt0=np.log10(t0_gyr),
        fb=FB,
    )
    quenched = np.asarray(galaxies.mc_is_q)[:, None]
    sfr_msun_yr = np.where(quenched, galaxies.sfh_q, galaxies.sfh_ms)
    steps = 0.5e9 * (sfr_msun_yr[:, 1:] + sfr_msun_yr[:, :-1]) * np.diff(time_gyr)
    formed = np.concatenate([np.zeros((number, 1)), np.cumsum(steps, axis=1)], axis=1)
    return Draws(time_gyr, formed, rng.uniform(redshift_min, REDSHIFT_MAX, number))


def balanced_weights(mass_msun: np.ndarray, young_msun: np.ndarray) -> np.ndarray:
    """Weights that make mass and specific star-formation rate (100 Myr) near uniform."""
    log10_mass = np.log10(mass_msun)
    log10_ssfr_yr = np.log10(np.maximum(young_msun, 1e-9) / mass_msun / (YOUNG_GYR * 1e9))
    mass_cell = np.digitize(log10_mass, np.arange(*LOG10_MSTAR_RANGE, 0.5))
    ssfr_cell = np.digitize(log10_ssfr_yr, np.arange(-12.5, -9.6, 0.25))
    _, cell, count = np.unique(100 * mass_cell + ssfr_cell, return_inverse=True, return_counts=True)
    low, high = LOG10_MSTAR_RANGE
    inside = (log10_mass > low) & (log10_mass < high)
    return inside / np.maximum(count[cell], 30)  # so that no rare galaxy is repeated often


def balanced_sample(draws: Draws, number: int, seed: int, *, replace: bool) -> np.ndarray:
    """Row numbers balanced in mass and star formation, equally many from each redshift sixth."""
    rng = np.random.default_rng(seed)
    mass = draws.mass_per_bin(np.array([0.0, YOUNG_GYR, 20.0]))
    slices = np.digitize(draws.redshift, np.linspace(0.0, REDSHIFT_MAX, 7)[1:-1])
    rows = []
    for one in range(6):
        here = np.flatnonzero(slices == one)
        weights = balanced_weights(mass[here].sum(axis=1), mass[here, 0])
        share = weights / weights.sum()
        rows.append(rng.choice(here, number // 6, replace=replace, p=share))
    return np.concatenate(rows)


def factorise(mass_per_bin: np.ndarray) -> np.ndarray:
    """Four bases of star-formation rate per bin, youngest first, [basis, bin].

    The Kullback-Leibler loss compares relative errors bin by bin, so that a small mass formed
    lately is not lost beside a large one formed long ago, as it is with squared errors.
    """
    width = np.diff(NMF_EDGES_GYR)
    middle = 0.5 * (NMF_EDGES_GYR[1:] + NMF_EDGES_GYR[:-1])
    weight = middle**AGE_WEIGHT_POWER
    fraction = mass_per_bin / mass_per_bin.sum(axis=1, keepdims=True)
    model = NMF(
        NUMBER_BASES,
        init="nndsvda",
        solver="mu",
        beta_loss="kullback-leibler",
        max_iter=3000,
        tol=1e-6,
        random_state=0,
    )
    model.fit(fraction * weight)
    sfr = model.components_ / (weight * width)
    mean_age = (sfr * width * middle).sum(axis=1) / (sfr * width).sum(axis=1)
    return sfr[np.argsort(mean_age)]


def tabulate(sfr: np.ndarray) -> np.ndarray:
    """Table of lookback time and bases: bin means at bin middles, ends added, equal mass."""
    middle = 0.5 * (NMF_EDGES_GYR[1:] + NMF_EDGES_GYR[:-1])
    inner = middle < LAST_LOOKBACK_GYR
    lookback_gyr = np.r_[0.0, middle[inner], LAST_LOOKBACK_GYR]
    at_end = np.array([np.interp(LAST_LOOKBACK_GYR, middle, row) for row in sfr])
    table = np.column_stack([sfr[:, 0], sfr[:, inner], at_end]).T
    table = table / np.trapezoid(table, lookback_gyr, axis=0)
    return np.column_stack([lookback_gyr, table])


def write_bases(path: Path, table: np.ndarray) -> None:
    """Write the table as CSV; the seventh decimal is a millionth of the peak."""
    names = ",".join(["lookback_gyr", *(f"basis_{i + 1}" for i in range(NUMBER_BASES))])
    part = path.with_suffix(".csv.part")
    np.savetxt(part, table, delimiter=",", header=names, comments="", fmt="%.7f")
    os.replace(part, path)


def write_histories(path: Path, draws: Draws) -> None:
    """Write redshift, mass formed and mass fraction per PROVABGS bin as Parquet."""
    mass = draws.mass_per_bin(PROVABGS_EDGES_GYR)
    total = mass.sum(axis=1)
    fraction = (mass / total[:, None]).astype(np.float32)
    bins = pa.FixedSizeListArray.from_arrays(pa.array(fraction.ravel()), fraction.shape[1])
    about = {
        "source": "DiffstarPop, IllustrisTNG calibration",
        "packages": {name: version(name) for name in ("diffstar", "diffmah")},
        "seed": SEED,
        "cosmology": {"Om0": OM0, "H0": H0},
        "lookback_edges_gyr": PROVABGS_EDGES_GYR.tolist(),
        "balanced_in": "log10_mstar_formed 8-12 and log10 sSFR, in each sixth of redshift",
    }
    table = pa.table(
        {
            "redshift": pa.array(draws.redshift.astype(np.float32)),
            "log10_mstar_formed": pa.array(np.log10(total).astype(np.float32)),
            "mass_fraction": bins,
        }
    ).replace_schema_metadata({"tinsley": json.dumps(about)})
    part = path.with_suffix(".parquet.part")
    pq.write_table(table, part, compression="zstd", compression_level=19, use_dictionary=False)
    os.replace(part, path)


def main() -> None:
    """Draw, factorise, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=DATA)
    out = parser.parse_args().out
    training = draw_galaxies(NUMBER_DRAWS, redshift_min=0.0, seed=SEED)
    rows = balanced_sample(training, NUMBER_TRAINING, SEED, replace=True)
    bases = factorise(training.mass_per_bin(NMF_EDGES_GYR)[rows])
    write_bases(out / "sfh_nmf.csv", tabulate(bases))
    fresh = draw_galaxies(NUMBER_DRAWS, redshift_min=0.01, seed=SEED + 1)
    rows = balanced_sample(fresh, NUMBER_HISTORIES, SEED + 1, replace=False)
    rows = np.random.default_rng(SEED + 2).permutation(rows)
    held_out = Draws(fresh.time_gyr, fresh.mass_formed_msun[rows], fresh.redshift[rows])
    write_histories(out / "diffstarpop_histories.parquet", held_out)


if __name__ == "__main__":
    main()
