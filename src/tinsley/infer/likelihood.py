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
"""Nodes in ln M: the step stays under 1.2 widths of the integrand."""
_REACH = 5.8
"""The integral stops where the likelihood is exp(-_REACH**2 / 2) of its best inside the prior."""
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
        ln_peak: ln(M / 1e10 Msun) of the highest likelihood inside the prior, [draw].
        offset: Nodes, ln(M) - ln_peak, evenly spaced, [draw, point].
        log_density: ln of the integrand at the nodes over that at the peak, [draw, point].
        area: Integral from each node to the next, over the integrand's peak, [draw, point - 1].
    """

    log_likelihood: Array
    ln_peak: Array
    offset: Array
    log_density: Array
    area: Array


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
        Gaussian integral by trapezoids with the Euler-Maclaurin correction; tested against
        quadrature in float64 (tests/test_likelihood.py).
    """
    inverse = jnp.where(seen.mask, 1.0 / seen.sigma, 0.0)
    model, data = unit_flux * inverse, seen.flux * inverse
    precision = jnp.sqrt(jnp.maximum(jnp.sum(model**2, axis=-1), 1e-30))
    best = jnp.sum(model * data, axis=-1) / precision**2
    low, high = _mass_limits(unit_flux, seen, log10_mass_range, snr_range)
    peak = jnp.clip(best, jnp.exp(low), jnp.exp(high))
    beyond = jnp.abs(best - peak) * precision
    reach = _REACH**2 / (beyond + jnp.hypot(beyond, _REACH)) / precision
    ln_peak = jnp.log(peak)
    start = jnp.maximum(jnp.log1p(-jnp.minimum(reach / peak, 1.0)), low - ln_peak)
    stop = jnp.minimum(jnp.log1p(reach / peak), high - ln_peak)
    offset = start[:, None] + (stop - start)[:, None] * jnp.linspace(0.0, 1.0, _POINTS)
    log_density, area = _cells(offset, best[:, None], peak[:, None], precision[:, None])
    misfit = jnp.sum((data - peak[:, None] * model) ** 2, axis=-1)
    constant = jnp.sum(jnp.where(seen.mask, jnp.log(inverse + 1e-30) - 0.5 * np.log(2 * np.pi), 0))
    prior_width = LN10 * (log10_mass_range[1] - log10_mass_range[0])
    integral = jnp.log(jnp.sum(area, axis=-1)) - np.log(prior_width)
    log_likelihood = jnp.where(high > low, constant - 0.5 * misfit + integral, -jnp.inf)
    return MassIntegral(log_likelihood, ln_peak, offset, log_density, area)


def at_mass(
    unit_flux: Float[Array, "draw band"], seen: Observation, log10_mass: Float[Array, " draw"]
) -> MassIntegral:
    """The likelihood at masses that are known: an integral over nothing but them.

    Args:
        unit_flux: Model flux for 1e10 Msun formed, nanomaggies.
        seen: The galaxy.
        log10_mass: Formed mass, log10 Msun.
    """
    ln_mass = LN10 * (log10_mass - MASS_UNIT_LOG10_MSUN)
    misfit = jnp.sum(chi2(jnp.exp(ln_mass)[:, None] * unit_flux, seen), axis=-1)
    density = -0.5 * np.log(2 * np.pi) - jnp.log(jnp.where(seen.mask, seen.sigma, 1.0))
    constant = jnp.sum(jnp.where(seen.mask, density, 0.0))
    nodes = jnp.zeros((len(ln_mass), 2))
    return MassIntegral(constant - 0.5 * misfit, ln_mass, nodes, nodes, jnp.ones_like(nodes[:, :1]))


def sample_log10_mass(integral: MassIntegral, *, key: Array) -> Float[Array, " draw"]:
    """One log10 formed mass, Msun, for each draw, from its exact conditional.

    The CDF at the nodes is inverted, with a density exponential in ln M between them. A draw that
    no mass makes possible gets the mass at the end of the range, so that it stays finite.
    """
    cumulative = jnp.cumsum(integral.area, axis=-1)
    level = jax.random.uniform(key, (cumulative.shape[0], 1)) * cumulative[:, -1:]
    last = cumulative.shape[1] - 1
    cell = jnp.minimum(jnp.sum(cumulative < level, axis=-1, keepdims=True), last)

    def at(values: Array) -> Array:
        return jnp.take_along_axis(values, cell, axis=-1)

    share = jnp.clip(1.0 - (at(cumulative) - level) / jnp.maximum(at(integral.area), 1e-30), 0, 1)
    slope = at(integral.log_density[:, 1:]) - at(integral.log_density[:, :-1])
    steep = jnp.where(jnp.abs(slope) < 1e-3, 1e-3, slope)
    share = jnp.where(jnp.abs(slope) < 1e-3, share, jnp.log1p(share * jnp.expm1(steep)) / steep)
    step = integral.offset[:, 1:2] - integral.offset[:, :1]
    offset = (at(integral.offset) + share * step)[:, 0]
    offset = jnp.where(jnp.isfinite(integral.log_likelihood), offset, 0.0)
    return (integral.ln_peak + offset) / LN10 + MASS_UNIT_LOG10_MSUN


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


def _cells(offset: Array, best: Array, peak: Array, precision: Array) -> tuple[Array, Array]:
    """Log of the integrand at the nodes, 0 at the peak, and its integral from node to node."""
    mass = peak * jnp.exp(offset)
    from_peak = peak * jnp.expm1(offset) * precision
    log_density = -0.5 * from_peak * (from_peak + 2.0 * (peak - best) * precision)
    density = jnp.exp(log_density)
    slope = density * (best - mass) * precision * mass * precision
    step = offset[:, 1:2] - offset[:, :1]
    trapezoid = 0.5 * step * (density[:, 1:] + density[:, :-1])
    correction = step**2 / 12.0 * (slope[:, 1:] - slope[:, :-1])
    return log_density, jnp.maximum(trapezoid - correction, 0.0)
