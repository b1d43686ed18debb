"""How well the best draw of each galaxy fits it, band by band."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tinsley.infer.likelihood import Observation
from tinsley.io.catalogs import Catalog
from tinsley.io.runs import load_draws
from tinsley.observe.photometry import MASS_UNIT_LOG10_MSUN, BandTables, unit_flux
from tinsley.observe.survey import Photometry
from tinsley.parameters import MASS, ParamSpace

BATCH = 64
"""Galaxies of one compiled call; short batches are padded."""


def best_fit_residuals(
    tables: BandTables, space: ParamSpace, catalog: Catalog, run: Path, manifest: dict[str, Any]
) -> np.ndarray:
    """(Observed flux - best draw's flux) / sigma of every row of a catalogue, [row, band].

    The best draw has the greatest likelihood, each draw taken at its best mass: mass scales a
    draw's flux in all bands alike, so its best value is known in closed form, and the mass that was
    drawn would add its own scatter.

    Args:
        tables: Forward model.
        space: Prior: masses stay inside it.
        catalog: What the run was of.
        run: Folder of a finished run that kept its draws.
        manifest: The run's; its chunks and draws count.

    Returns:
        NaN where a band was not measured or a row has no posterior.
    """
    found = []
    for number, photometry in enumerate(catalog.chunks(manifest["chunk"])):
        residual = np.full(photometry.flux.shape, np.nan)
        part = load_draws(run, number, manifest["draws"])
        if part is not None:
            there = np.isin(photometry.object_id, part.object_id)
            residual[there] = _of_rows(tables, space, photometry.take(there), part.theta)
        found.append(residual)
    return np.concatenate(found)


def misfit_by_band(residual: np.ndarray, bands: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Statistics of the residuals of each band: the best fit's chi^2, and where it comes from.

    Args:
        residual: In units of sigma, NaN where there is none, [n, band].
        bands: Names.

    Returns:
        For each band: `n`, `chi2_median`, `chi2_mean`, `residual_median` and `residual_scatter`
        (1.48 MAD). With fewer bands than parameters chi^2 is below 1 even for a perfect model.
    """
    out = {}
    for band, values in zip(bands, residual.T, strict=True):
        values = values[np.isfinite(values)]
        if not len(values):
            continue
        middle = float(np.median(values))
        out[band] = {
            "n": len(values),
            "chi2_median": float(np.median(values**2)),
            "chi2_mean": float(np.mean(values**2)),
            "residual_median": middle,
            "residual_scatter": float(1.4826 * np.median(np.abs(values - middle))),
        }
    return out


def _of_rows(
    tables: BandTables, space: ParamSpace, rows: Photometry, theta: dict[str, np.ndarray]
) -> np.ndarray:
    """`best_fit_residuals` of rows that all have draws, [n, band]."""
    limits = (space.mass_prior.low, space.mass_prior.high)
    names = [name for name in space.names if name != MASS]
    out = []
    for start in range(0, len(rows), BATCH):
        index = np.minimum(np.arange(start, start + BATCH), len(rows) - 1)
        batch = rows.take(index)
        seen = Observation(
            jnp.asarray(batch.flux, dtype=float),
            jnp.asarray(batch.sigma, dtype=float),
            jnp.asarray(batch.mask),
            jnp.asarray(batch.redshift, dtype=float),
        )
        drawn = {name: jnp.asarray(theta[name][index]) for name in names}
        out.append(np.asarray(_best(tables, drawn, seen, limits))[: len(rows) - start])
    return np.where(rows.mask, np.concatenate(out), np.nan)


@eqx.filter_jit
def _best(
    tables: BandTables,
    theta: dict[str, Array],
    seen: Observation,
    log10_mass_range: tuple[float, float],
) -> Float[Array, "galaxy band"]:
    """Residuals of the best draw; `theta` [galaxy, draw]."""
    shape = theta["tau_ism"].shape
    flat = {name: values.ravel() for name, values in theta.items()}
    flat["redshift"] = jnp.repeat(seen.redshift, shape[1])
    inverse = jnp.where(seen.mask, 1 / seen.sigma, 0.0)[:, None]
    model = unit_flux(tables, flat).reshape(*shape, -1) * inverse
    data = seen.flux[:, None] * inverse
    mass = jnp.sum(model * data, axis=-1) / jnp.maximum(jnp.sum(model**2, axis=-1), 1e-30)
    low, high = (10 ** (limit - MASS_UNIT_LOG10_MSUN) for limit in log10_mass_range)
    residual = data - jnp.clip(mass, low, high)[..., None] * model
    best = jnp.argmin(jnp.sum(residual**2, axis=-1), axis=-1)
    return jnp.take_along_axis(residual, best[:, None, None], axis=1)[:, 0]
