"""One galaxy looked at closely: many draws, the spectra they stand for, their photometry."""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from tinsley.infer.amortized import draw_posterior
from tinsley.infer.likelihood import Observation
from tinsley.io.models import LoadedPosterior
from tinsley.observe.exact import rest_spectrum
from tinsley.observe.photometry import photometry
from tinsley.observe.survey import Photometry
from tinsley.rng import object_key, split_id
from tinsley.sps.galaxy import GalaxyModel
from tinsley.status import HAS_POSTERIOR, Status

UJY_PER_NMGY = 3.631


class CloseUp(NamedTuple):
    """The posterior of one galaxy.

    Attributes:
        theta: Parameters, derived properties and `redshift`, each [draw].
        weight: Sums to 1, [draw].
        wave_aa: Observed wavelength, [wave].
        spectra_ujy: Spectra of equally likely draws, [spectrum, wave].
        flux_nmgy: Photometry of the same draws, [spectrum, band].
    """

    theta: dict[str, np.ndarray]
    weight: np.ndarray
    wave_aa: np.ndarray
    spectra_ujy: np.ndarray
    flux_nmgy: np.ndarray


def choose_example(galaxies: dict[str, np.ndarray], rows: Photometry) -> int | None:
    """A well-measured galaxy: the highest ESS of those with the best tenth of u-band S/N.

    Any galaxy with a posterior will do if none is `ok`; None if none has one.
    """
    status = galaxies["status"]
    for words in ((Status.OK,), HAS_POSTERIOR):
        able = np.flatnonzero(np.isin(status, words) & rows.mask.all(axis=1))
        if len(able):
            snr = np.min(rows.flux[able] / rows.sigma[able], axis=1)
            able = able[snr >= np.quantile(snr, 0.9)]
            return int(able[np.argmax(galaxies["ess"][able])])
    return None


def look_closely(
    loaded: LoadedPosterior, model: GalaxyModel, row: Photometry, seed: int, draws: int = 20_000
) -> CloseUp:
    """Draw one galaxy's posterior anew, finely, with the spectra of 60 of the draws.

    Args:
        loaded: The model.
        model: The physics that it was trained on.
        row: The galaxy: photometry of length 1.
        seed: Seed of the run.
        draws: How many draws.
    """
    key = object_key(jax.random.key(seed), jnp.asarray(split_id(row.object_id)[0]))
    seen = Observation(
        jnp.asarray(row.flux[0], dtype=float),
        jnp.asarray(row.sigma[0], dtype=float),
        jnp.asarray(row.mask[0]),
        jnp.asarray(row.redshift[0], dtype=float),
    )
    drawn = eqx.filter_jit(draw_posterior)(loaded.posterior, seen, draws, key=key)
    theta = {name: np.asarray(values, float) for name, values in drawn.theta.items()}
    weight = np.exp(np.asarray(drawn.psis.log_weight, float))
    chosen = resample(weight, 60)
    few = {name: values[chosen] for name, values in theta.items()}
    spectra = [
        observed_spectrum(model, {name: float(values[i]) for name, values in few.items()})
        for i in range(len(chosen))
    ]
    flux = photometry(loaded.posterior.tables, {name: jnp.asarray(v) for name, v in few.items()})
    return CloseUp(
        theta, weight, spectra[0][0], np.stack([s for _, s in spectra]), np.asarray(flux)
    )


def resample(weight: np.ndarray, number: int) -> np.ndarray:
    """Indices of equally likely draws: systematic resampling, in order."""
    total = np.cumsum(weight)
    level = (np.arange(number) + 0.5) / number * total[-1]
    return np.searchsorted(total, level)


def observed_spectrum(model: GalaxyModel, theta: dict[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """Observed wavelength, Angstrom, and flux density, microjansky, of one galaxy."""
    redshift = theta["redshift"]
    wave_rest_aa, lum_lsun_aa = rest_spectrum(model, theta)
    dl_cm = model.cosmology.luminosity_distance(redshift).to_value("cm")
    wave_aa = wave_rest_aa * (1 + redshift)
    lum_erg_s_aa = 10 ** theta["log10_mstar_msun"] * lum_lsun_aa * model.ssp.lsun_erg_s
    flux_aa = lum_erg_s_aa / (4 * np.pi * dl_cm**2 * (1 + redshift))
    return wave_aa, flux_aa * wave_aa**2 / 2.99792458e18 * 1e29
