"""One galaxy looked at closely: many draws, the spectra they stand for, their photometry."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tinsley.catalog.batch import BATCH, infer_batch
from tinsley.io.models import LoadedPosterior
from tinsley.observe.exact import rest_spectrum
from tinsley.observe.filters import C_AA_S
from tinsley.observe.photometry import photometry
from tinsley.observe.survey import Photometry
from tinsley.sps.galaxy import GalaxyModel
from tinsley.status import HAS_POSTERIOR, Status

N_SPECTRA = 60
UJY_PER_CGS = 1e29
"""Microjansky in 1 erg/s/cm2/Hz."""


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
    loaded: LoadedPosterior, model: GalaxyModel, row: Photometry, draws: int
) -> CloseUp:
    """Draw one galaxy's posterior anew, 64 times as finely, with the spectra of 60 of the draws.

    The galaxy fills a whole batch, each time under another name, so with another key; the run's own
    compiled function does the work.

    Args:
        loaded: The model.
        model: The physics that it was trained on.
        row: The galaxy: photometry of length 1.
        draws: Draws of each of the 64 repetitions.
    """
    repeated = row.take(np.zeros(BATCH, int))
    repeated = dataclasses.replace(repeated, object_id=np.arange(BATCH))
    result = infer_batch(loaded.posterior, repeated, draws, jax.random.key(0), keep_draws=True)
    if result.draws is None or result.log_weight is None:
        raise ValueError("draws were not kept; call infer_batch with keep_draws=True.")
    theta = {name: np.asarray(value, float).ravel() for name, value in result.draws.items()}
    theta["redshift"] = np.full(BATCH * draws, float(row.redshift[0]))
    evidence = np.exp(result.log_evidence - np.max(result.log_evidence))
    weight = np.exp(np.asarray(result.log_weight, float)) * evidence[:, None]
    weight = weight.ravel() / weight.sum()
    return close_up(loaded, model, theta, weight)


def close_up(
    loaded: LoadedPosterior, model: GalaxyModel, theta: dict[str, np.ndarray], weight: np.ndarray
) -> CloseUp:
    """The spectra and photometry that the draws of one galaxy stand for.

    Args:
        loaded: The model.
        model: The physics that it was trained on.
        theta: Parameters, derived properties and `redshift`, each [draw].
        weight: Importance weights, [draw].
    """
    few = {name: values[resample(weight, N_SPECTRA)] for name, values in theta.items()}
    spectra = [
        observed_spectrum(model, {name: float(values[i]) for name, values in few.items()})
        for i in range(N_SPECTRA)
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
    return wave_aa, flux_aa * wave_aa**2 / C_AA_S * UJY_PER_CGS
