"""What another survey would see: draws of a population through its filters, depth and cut.

Its filters are in its band tables (`tinsley.io.models.build_tables`), its depth in a noise. The
draws hold no galaxy that the population's own survey passes with less than 1 %, so a catalogue
much deeper than that survey is an extrapolation; `tinsley.population.volume.seen_share` says where.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from tinsley.observe.noise import AbstractNoise, SnrGivenFlux
from tinsley.observe.photometry import BandTables, photometry
from tinsley.observe.survey import AB_ZEROPOINT_MAG, FLUX_PER_MAG, Photometry
from tinsley.population.space import REDSHIFT
from tinsley.population.summaries import MEMBER, Columns, require_columns
from tinsley.population.synthetic import Selection

BATCH = 8192
_DEPTH_SIGMAS = 5.0
_NODES_MAG = np.arange(8.0, 36.01, 0.25)


def noise_of_depth(
    depth_mag: tuple[float, ...],
    floor_mag: tuple[float, ...] | None = None,
    *,
    extended_mag: float = 0.0,
    scatter_dex: float = 0.05,
) -> SnrGivenFlux:
    """Errors of a survey of which no more is known than its depth.

    The sky's error is the same for all galaxies; between magnitudes 0.25 apart log10 S/N is
    linear, which errs by less than 1 %.

    Args:
        depth_mag: Of each band, AB, 5 sigma.
        floor_mag: Error of each band that no brightness undercuts, mag. None for a table that is
            read as `--survey`'s: `tinsley infer` adds its file's floor, `tinsley population` none.
        extended_mag: How much less deep it is for galaxies, when the depth is of point sources.
        scatter_dex: Of the S/N at a given flux.
    """
    limit_mag = np.asarray(depth_mag, float) - extended_mag
    floor = FLUX_PER_MAG * np.asarray(0 * limit_mag if floor_mag is None else floor_mag)
    flux_over_sky = _DEPTH_SIGMAS * 10 ** (0.4 * (limit_mag[:, None] - _NODES_MAG))
    log10_snr = -0.5 * np.log10(flux_over_sky**-2 + floor[:, None] ** 2)
    nodes = np.broadcast_to(_NODES_MAG, log10_snr.shape)
    scatter = np.full(log10_snr.shape, scatter_dex)
    return SnrGivenFlux(*(jnp.asarray(a, dtype=float) for a in (nodes, log10_snr, scatter)))


def synthetic_catalog(
    columns: Columns,
    tables: BandTables,
    bands: tuple[str, ...],
    survey: tuple[AbstractNoise, Selection],
    *,
    key: Array,
) -> dict[str, np.ndarray]:
    """Draws of a population as a survey would record them; those that fail its cut are left out.

    Args:
        columns: Of a population, without weights all of its galaxies: every parameter, `redshift`.
        tables: Forward model in the survey's bands, over the population's redshifts.
        bands: Their names.
        survey: p(sigma | true flux), nanomaggies; the cut.
        key: Random key.

    Returns:
        `object_id` (the draw's row), `flux_{band}` and `flux_err_{band}` in nanomaggies, as the
        layout `native` has them, `flux_true_{band}`, and the draw's own columns.
    """
    require_columns(columns, [REDSHIFT])
    noise, selection = survey
    true = true_flux(columns, tables)
    key_sigma, key_noise, key_kept = jax.random.split(key, 3)
    sigma = np.asarray(noise.sample_sigma(jnp.asarray(true), key=key_sigma))
    flux = true + sigma * np.asarray(jax.random.normal(key_noise, true.shape))
    kept = np.flatnonzero(selection.keeps(flux, sigma, key=key_kept))
    table = {"object_id": kept}
    for i, band in enumerate(bands):
        table |= {f"flux_{band}": flux[kept, i], f"flux_err_{band}": sigma[kept, i]}
        table |= {f"flux_true_{band}": true[kept, i]}
    return table | {name: values[kept] for name, values in columns.items()}


def observed_catalog(rows: Photometry, bands: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Real galaxies with the columns of a synthetic catalogue, as a population of one member.

    So colours, cuts, bins and summaries are the same functions for both.

    Args:
        rows: Galaxies that have every band.
        bands: Their names.

    Returns:
        `object_id`, `redshift` as read, `member` (0), and `flux_{band}` and `flux_err_{band}` in
        nanomaggies, errors as in `rows`.
    """
    table = {"object_id": rows.object_id, REDSHIFT: rows.redshift}
    table[MEMBER] = np.zeros(len(rows), np.int32)
    for i, band in enumerate(bands):
        table |= {f"flux_{band}": rows.flux[:, i], f"flux_err_{band}": rows.sigma[:, i]}
    return table


def true_flux(columns: Columns, tables: BandTables) -> np.ndarray:
    """Flux without noise of every draw, nanomaggies, [n, band]."""
    return in_batches(lambda theta, _: photometry(tables, theta), columns)


def in_batches(
    function: Callable[[dict[str, Array], int], Array], columns: Columns, batch: int = BATCH
) -> np.ndarray:
    """A function of galaxies, so many at a time; the last batch is filled up with its last one.

    Args:
        function: Of columns as arrays and of the number of the batch.
        columns: Each [n].
        batch: Galaxies at a time.
    """
    number = len(next(iter(columns.values())))
    parts = []
    for i, start in enumerate(range(0, number, batch)):
        rows = np.minimum(np.arange(start, start + min(batch, number)), number - 1)
        some = {name: jnp.asarray(value[rows], dtype=float) for name, value in columns.items()}
        parts.append(np.asarray(function(some, i)))
    return np.concatenate(parts)[:number]


def ab_magnitude(flux_nmgy: np.ndarray) -> np.ndarray:
    """AB magnitude, NaN where the flux is not positive."""
    positive = flux_nmgy > 0
    return AB_ZEROPOINT_MAG - 2.5 * np.log10(np.where(positive, flux_nmgy, np.nan))
