"""Gaussian likelihood of photometry, with the formed mass integrated exactly.

Flux is linear in mass: flux = M f. Given all else the likelihood is a Gaussian in M, and with a
prior uniform in log M both the integral over M and the draw of M are one-dimensional sums.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tinsley.observe.photometry import MASS_UNIT_LOG10_MSUN

_POINTS = 64
"""Trapezoid nodes in ln M: the step stays under 1.2 widths of the integrand, an error < 1e-5."""
_REACH = 5.8
"""How many standard deviations of M around its best value are integrated."""
LN10 = float(np.log(10.0))


class Observation(NamedTuple):
    """What was measured of one galaxy, or of many with leading axes.

    Attributes:
        flux: Nanomaggies, [..., band].
        sigma: Total error, nanomaggies, positive, [..., band].
        mask: True where measured, [..., band].
        redshift: [...].
    """

    flux: Array
    sigma: Array
    mask: Array
    redshift: Array


class MassIntegral(NamedTuple):
    """The likelihood of one galaxy as a function of ln M, for each draw of the other parameters.

    Attributes:
        log_likelihood: ln of the likelihood integrated over the mass prior, [draw].
        ln_mass: Nodes in ln(M / 1e10 Msun), [draw, point].
        density: Integrand at the nodes, up to a constant a draw, [draw, point].
    """

    log_likelihood: Array
    ln_mass: Array
    density: Array


def integrate_mass(
    unit_flux: Float[Array, "draw band"],
    seen: Observation,
    log10_mass_range: tuple[float, float],
    snr_range: tuple[float, float] | None = None,
) -> MassIntegral:
    """Integrate the likelihood of one galaxy over log-uniform mass.

    Args:
        unit_flux: Model flux for 1e10 Msun formed, nanomaggies.
        seen: The galaxy.
        log10_mass_range: Ends of the prior, log10 Msun.
        snr_range: If the errors were drawn log-uniformly in true S/N between these ends, the
            density of the errors given the flux is constant inside and zero outside: the integral
            keeps to masses inside (only for simulations made so; None for real data).

    Source:
        Gaussian integral; tested against quadrature in float64 (tests/test_likelihood.py).
    """
    inverse = jnp.where(seen.mask, 1.0 / seen.sigma, 0.0)
    model, data = unit_flux * inverse, seen.flux * inverse
    precision = jnp.sqrt(jnp.maximum(jnp.sum(model**2, axis=-1), 1e-30))
    best = jnp.sum(model * data, axis=-1) / precision**2
    low, high = _mass_limits(unit_flux, seen, log10_mass_range, snr_range)
    start, stop = _integration_range(best, precision, low, high)
    share = jnp.linspace(0.0, 1.0, _POINTS)
    ln_mass = start[:, None] + (stop - start)[:, None] * share
    misfit = -0.5 * ((jnp.exp(ln_mass) - best[:, None]) * precision[:, None]) ** 2
    top = jnp.max(misfit, axis=-1)
    density = jnp.exp(misfit - top[:, None])
    step = (stop - start) / (_POINTS - 1)
    area = step * (jnp.sum(density, axis=-1) - 0.5 * (density[:, 0] + density[:, -1]))
    prior_width = LN10 * (log10_mass_range[1] - log10_mass_range[0])
    residual = jnp.sum((data - best[:, None] * model) ** 2, axis=-1)
    constant = jnp.sum(jnp.where(seen.mask, jnp.log(inverse + 1e-30) - 0.5 * np.log(2 * np.pi), 0))
    log_likelihood = constant - 0.5 * residual + top + jnp.log(area) - np.log(prior_width)
    return MassIntegral(jnp.where(high > low, log_likelihood, -jnp.inf), ln_mass, density)


def sample_log10_mass(integral: MassIntegral, *, key: Array) -> Float[Array, " draw"]:
    """One log10 formed mass, Msun, for each draw, from its exact conditional."""
    pieces = 0.5 * (integral.density[:, 1:] + integral.density[:, :-1])
    cumulative = jnp.cumsum(pieces, axis=-1)
    level = jax.random.uniform(key, (pieces.shape[0], 1)) * cumulative[:, -1:]
    cell = jnp.minimum(jnp.sum(cumulative < level, axis=-1, keepdims=True), pieces.shape[1] - 1)
    piece = jnp.take_along_axis(pieces, cell, axis=-1)
    before = jnp.take_along_axis(cumulative, cell, axis=-1) - piece
    share = jnp.clip((level - before) / jnp.maximum(piece, 1e-30), 0.0, 1.0)
    low = jnp.take_along_axis(integral.ln_mass, cell, axis=-1)
    width = integral.ln_mass[:, 1:2] - integral.ln_mass[:, :1]
    return (low + share * width)[:, 0] / LN10 + MASS_UNIT_LOG10_MSUN


def chi2(flux: Float[Array, "draw band"], seen: Observation) -> Float[Array, "draw band"]:
    """Squared residual over squared error in each band; 0 where not measured."""
    return jnp.where(seen.mask, ((flux - seen.flux) / seen.sigma) ** 2, 0.0)


def _mass_limits(
    unit_flux: Array,
    seen: Observation,
    log10_mass_range: tuple[float, float],
    snr_range: tuple[float, float] | None,
) -> tuple[Array, Array]:
    """Ends of the prior in ln(M / 1e10 Msun), [draw]."""
    low, high = ((x - MASS_UNIT_LOG10_MSUN) * LN10 for x in log10_mass_range)
    ones = jnp.ones(unit_flux.shape[0])
    if snr_range is None:
        return low * ones, high * ones
    ln_unit_snr = jnp.log(unit_flux / seen.sigma)
    lowest = jnp.where(seen.mask, np.log(snr_range[0]) - ln_unit_snr, -jnp.inf)
    highest = jnp.where(seen.mask, np.log(snr_range[1]) - ln_unit_snr, jnp.inf)
    return jnp.maximum(jnp.max(lowest, axis=-1), low), jnp.minimum(jnp.min(highest, axis=-1), high)


def _integration_range(
    best: Array, precision: Array, low: Array, high: Array
) -> tuple[Array, Array]:
    """Where the integrand is not negligible, in ln M."""
    snr = best * precision
    floor = 1.0 - _REACH / jnp.maximum(snr, _REACH + 0.2)
    bottom = jnp.where(snr > _REACH + 0.2, jnp.log(jnp.maximum(best * floor, 1e-30)), low)
    ceiling = jnp.log(jnp.maximum(best, 0.0) + _REACH / precision)
    stop = jnp.clip(ceiling, low + 1e-3, jnp.maximum(high, low + 1e-3))
    start = jnp.clip(bottom, low, stop - 1e-3)
    return start, stop
