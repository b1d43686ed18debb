"""Likelihoods of photometry, with the formed mass integrated out. Start at `AbstractLikelihood`.

Flux is linear in mass: flux = M f. Given all else a Gaussian likelihood is a Gaussian in M, and
with a prior uniform in log M both the integral over M and the draw of M are one-dimensional sums.
Other likelihoods have the same sums on nodes that are looked for.
"""

from __future__ import annotations

import abc
import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr
from jaxtyping import Array, Float

from tinsley.density.triangular import cholesky, invert_lower
from tinsley.infer.quadrature import add_nodes, integrate_cells
from tinsley.observe.photometry import MASS_UNIT_LOG10_MSUN
from tinsley.observe.redshift import RedshiftPrior

_POINTS = 64
"""Nodes in ln M: the step stays under 1.2 widths of the integrand."""
_REACH = 5.8
"""The integral stops where the likelihood is exp(-_REACH**2 / 2) of its best inside the prior."""
LN10 = float(np.log(10.0))


class Observation(NamedTuple):
    """What was measured of one galaxy, or of many with leading axes.

    Attributes:
        flux: Nanomaggies, [..., band]. Negative fluxes are measurements like others.
        sigma: Total error, nanomaggies, positive, [..., band].
        mask: True where measured, [..., band].
        redshift: [...].
        limit: True where not measured, but known to be less than `flux`, an upper limit whose error
            is `sigma`, [..., band]; None where there are no limits.
        redshift_prior: What is known of a redshift that is not exact; None if nothing is.
    """

    flux: Array
    sigma: Array
    mask: Array
    redshift: Array
    limit: Array | None = None
    redshift_prior: RedshiftPrior | None = None


class MassIntegral(NamedTuple):
    """The likelihood of one galaxy as a function of ln M, for each draw of the other parameters.

    Attributes:
        log_likelihood: ln of the likelihood integrated over the mass prior, [draw].
        ln_peak: ln(M / 1e10 Msun) of the highest likelihood inside the prior, [draw].
        offset: Nodes, ln(M) - ln_peak, increasing, [draw, point].
        log_density: ln of the integrand at the nodes over that at the peak, [draw, point].
        area: Integral from each node to the next, over the integrand's peak, [draw, point - 1].
        step: From each node to the next, [draw, point - 1]; [draw, 1] if all are the same.
    """

    log_likelihood: Array
    ln_peak: Array
    offset: Array
    log_density: Array
    area: Array
    step: Array


class AbstractLikelihood(eqx.Module):
    """How the measured fluxes of a galaxy scatter about the model's.

    A band with an upper limit has the probability of a measurement below it, whatever the
    likelihood of the measured bands: Phi((limit - flux) / sigma), independent of them.
    """

    @abc.abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Its kind and settings in plain numbers, for manifests."""

    @abc.abstractmethod
    def log_norm(self, seen: Observation) -> Float[Array, ""]:
        """Log-likelihood of a model that agrees with every measurement and is below all limits."""

    @abc.abstractmethod
    def deviance(
        self, flux: Float[Array, "*draw band"], seen: Observation
    ) -> Float[Array, "*draw"]:
        """-2 ln of the likelihood over `log_norm`'s: chi^2 where it is Gaussian.

        Args:
            flux: Model fluxes, nanomaggies.
            seen: One galaxy.
        """

    @abc.abstractmethod
    def integrate_mass(
        self,
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
                density of the errors given the flux is constant inside and zero outside: the
                integral keeps to masses inside (only for simulations made so; None for real data).
        """

    def log_prob(
        self, flux: Float[Array, "*draw band"], seen: Observation
    ) -> Float[Array, "*draw"]:
        """Log-likelihood of one galaxy at given model fluxes."""
        return self.log_norm(seen) - 0.5 * self.deviance(flux, seen)

    def at_mass(
        self,
        unit_flux: Float[Array, "draw band"],
        seen: Observation,
        log10_mass: Float[Array, " draw"],
    ) -> MassIntegral:
        """The likelihood at masses that are known: an integral over nothing but them.

        Args:
            unit_flux: Model flux for 1e10 Msun formed, nanomaggies.
            seen: The galaxy.
            log10_mass: Formed mass, log10 Msun.
        """
        ln_mass = LN10 * (log10_mass - MASS_UNIT_LOG10_MSUN)
        log_likelihood = self.log_prob(jnp.exp(ln_mass)[:, None] * unit_flux, seen)
        nodes = jnp.zeros((len(ln_mass), 2))
        one = jnp.ones((len(ln_mass), 1))
        return MassIntegral(log_likelihood, ln_mass, nodes, nodes, one, 0.0 * one)


class Gaussian(AbstractLikelihood):
    """Normal errors.

    Attributes:
        correlation: Of the total errors of the bands, [band, band], positive definite; None where
            they are independent.

    Source:
        Normal density of the measured bands, which of a correlated set is that of their block of
        the covariance; limits as Sawicki (2012). Tested against scipy (tests/test_likelihoods.py).
    """

    correlation: Array | None = None

    def to_dict(self) -> dict[str, Any]:
        correlation = None if self.correlation is None else self.correlation.tolist()
        return {"kind": "gaussian", "correlation": correlation}

    def log_norm(self, seen: Observation) -> Array:
        independent = _log_norm(jnp.where(seen.mask, 1.0 / seen.sigma, 0.0), seen)
        if self.correlation is None:
            return independent
        return independent + _whitening(self.correlation, seen.mask)[1]

    def deviance(self, flux: Array, seen: Observation) -> Array:
        if self.correlation is None:
            return jnp.sum(chi2(flux, seen), axis=-1) + _limit_deviance(flux, seen)
        residual = jnp.where(seen.mask, (flux - seen.flux) / seen.sigma, 0.0)
        white, _ = _whitening(self.correlation, seen.mask)
        return jnp.sum((residual @ white.T) ** 2, axis=-1) + _limit_deviance(flux, seen)

    def integrate_mass(
        self,
        unit_flux: Array,
        seen: Observation,
        log10_mass_range: tuple[float, float],
        snr_range: tuple[float, float] | None = None,
    ) -> MassIntegral:
        if seen.limit is not None:
            return _integrate_on_nodes(self, unit_flux, seen, log10_mass_range, snr_range)
        return integrate_mass(unit_flux, seen, log10_mass_range, snr_range, self.correlation)


MIN_DOF, MAX_DOF = 1.0, 1e6


class StudentT(AbstractLikelihood):
    """Student's t errors, independent from band to band: for outliers, which it heeds little.

    Attributes:
        dof: Degrees of freedom, from 1 to 1e6: 1 is a Cauchy density, 1e6 as good as normal. The
            error is the scale: the standard deviation is sqrt(dof / (dof - 2)) times it.

    Source:
        Student's t density; tested against scipy (tests/test_likelihoods.py).
    """

    dof: float = eqx.field(static=True, default=4.0)

    def __check_init__(self) -> None:
        if not MIN_DOF <= self.dof <= MAX_DOF:
            raise ValueError(f"dof needs to be from {MIN_DOF} to {MAX_DOF:.0e}; got {self.dof}.")

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "student-t", "dof": self.dof}

    def log_norm(self, seen: Observation) -> Array:
        half = 0.5 * self.dof
        over_normal = math.lgamma(half + 0.5) - math.lgamma(half) - 0.5 * math.log(half)
        inverse = jnp.where(seen.mask, 1.0 / seen.sigma, 0.0)
        return _log_norm(inverse, seen) + over_normal * jnp.sum(seen.mask)

    def deviance(self, flux: Array, seen: Observation) -> Array:
        each = (self.dof + 1.0) * jnp.log1p(chi2(flux, seen) / self.dof)
        return jnp.sum(each, axis=-1) + _limit_deviance(flux, seen)

    def integrate_mass(
        self,
        unit_flux: Array,
        seen: Observation,
        log10_mass_range: tuple[float, float],
        snr_range: tuple[float, float] | None = None,
    ) -> MassIntegral:
        return _integrate_on_nodes(self, unit_flux, seen, log10_mass_range, snr_range)


def integrate_mass(
    unit_flux: Float[Array, "draw band"],
    seen: Observation,
    log10_mass_range: tuple[float, float],
    snr_range: tuple[float, float] | None = None,
    correlation: Float[Array, "band band"] | None = None,
) -> MassIntegral:
    """`Gaussian.integrate_mass` of measured bands alone, whose integrand is known beforehand.

    Args:
        unit_flux: Model flux for 1e10 Msun formed, nanomaggies.
        seen: The galaxy; its limits are not looked at.
        log10_mass_range: Ends of the prior, log10 Msun.
        snr_range: As for any likelihood.
        correlation: Of the bands' errors; None for none.

    Source:
        Gaussian integral by trapezoids with the Euler-Maclaurin correction; tested against
        quadrature in float64 (tests/test_likelihood.py).
    """
    inverse = jnp.where(seen.mask, 1.0 / seen.sigma, 0.0)
    model, data, log_norm = unit_flux * inverse, seen.flux * inverse, _log_norm(inverse, seen)
    if correlation is not None:
        white, log_scale = _whitening(correlation, seen.mask)
        model, data, log_norm = model @ white.T, data @ white.T, log_norm + log_scale
    precision = jnp.sqrt(jnp.maximum(jnp.sum(model**2, axis=-1), 1e-30))
    best = jnp.sum(model * data, axis=-1) / precision**2
    low, high = _mass_limits(unit_flux, seen, log10_mass_range, snr_range)
    peak = jnp.clip(best, jnp.exp(low), jnp.exp(high))
    beyond = jnp.abs(best - peak) * precision
    reach = _REACH**2 / (beyond + jnp.hypot(beyond, _REACH)) / precision
    ln_peak = jnp.log(peak)
    share = reach / peak
    below = jnp.where(share < 1.0, jnp.log1p(-jnp.where(share < 1.0, share, 0.0)), -jnp.inf)
    start = jnp.maximum(below, low - ln_peak)
    stop = jnp.minimum(jnp.log1p(reach / peak), high - ln_peak)
    offset = start[:, None] + (stop - start)[:, None] * jnp.linspace(0.0, 1.0, _POINTS)
    log_density, area = _cells(offset, best[:, None], peak[:, None], precision[:, None])
    misfit = jnp.sum((data - peak[:, None] * model) ** 2, axis=-1)
    prior_width = LN10 * (log10_mass_range[1] - log10_mass_range[0])
    integral = jnp.log(jnp.sum(area, axis=-1)) - np.log(prior_width)
    log_likelihood = jnp.where(high > low, log_norm - 0.5 * misfit + integral, -jnp.inf)
    step = offset[:, 1:2] - offset[:, :1]
    return MassIntegral(log_likelihood, ln_peak, offset, log_density, area, step)


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
    step = at(jnp.broadcast_to(integral.step, integral.area.shape))
    offset = (at(integral.offset) + share * step)[:, 0]
    offset = jnp.where(jnp.isfinite(integral.log_likelihood), offset, 0.0)
    return (integral.ln_peak + offset) / LN10 + MASS_UNIT_LOG10_MSUN


def chi2(flux: Float[Array, "*draw band"], seen: Observation) -> Float[Array, "*draw band"]:
    """Squared residual over squared error in each band; 0 where not measured."""
    return jnp.where(seen.mask, ((flux - seen.flux) / seen.sigma) ** 2, 0.0)


def _limit_deviance(flux: Array, seen: Observation) -> Array | float:
    """-2 ln of the probability that measurements would have been below the upper limits."""
    if seen.limit is None:
        return 0.0
    room = jnp.where(seen.limit, (seen.flux - flux) / seen.sigma, 0.0)
    return -2.0 * jnp.sum(jnp.where(seen.limit, log_ndtr(room), 0.0), axis=-1)


def _log_norm(inverse: Array, seen: Observation) -> Array:
    """Log of independent normal densities at their peaks, of the measured bands."""
    return jnp.sum(jnp.where(seen.mask, jnp.log(inverse + 1e-30) - 0.5 * np.log(2 * np.pi), 0))


def _whitening(correlation: Array, mask: Array) -> tuple[Array, Array]:
    """Matrix [band, band] that makes residuals over errors independent, and ln of its determinant.

    Bands that are not measured count as independent of all others.
    """
    both = mask[:, None] & mask[None, :]
    one = jnp.eye(len(mask))
    factor = cholesky(jnp.where(both, correlation, one))
    return invert_lower(factor), -jnp.sum(jnp.log(jnp.diag(factor)))


_CLUSTER = np.array([-30.0, -10.0, -3.0, -1.0, 0.0, 1.0, 3.0, 10.0, 30.0])
_SPREAD = 16
"""First nodes: so many widths from the mass that each band asks for, and so many over the range."""


def _integrate_on_nodes(
    likelihood: AbstractLikelihood,
    unit_flux: Array,
    seen: Observation,
    log10_mass_range: tuple[float, float],
    snr_range: tuple[float, float] | None,
) -> MassIntegral:
    """`AbstractLikelihood.integrate_mass` of any likelihood."""
    low, high = _mass_limits(unit_flux, seen, log10_mass_range, snr_range)

    def log_density_at(ln_mass: Array) -> Array:
        flux = jnp.exp(ln_mass)[..., None] * unit_flux[:, None]
        return -0.5 * likelihood.deviance(flux, seen)

    nodes = add_nodes(log_density_at, _first_nodes(unit_flux, seen, low, high))
    log_density, highest, area = integrate_cells(log_density_at, nodes)
    peak = jnp.argmax(log_density, axis=-1, keepdims=True)
    ln_peak = jnp.take_along_axis(nodes, peak, axis=-1)
    prior_width = LN10 * (log10_mass_range[1] - log10_mass_range[0])
    integral = jnp.log(jnp.sum(area, axis=-1)) - np.log(prior_width)
    log_likelihood = likelihood.log_norm(seen) + highest + integral
    log_likelihood = jnp.where(high > low, log_likelihood, -jnp.inf)
    offset, step = nodes - ln_peak, jnp.diff(nodes, axis=-1)
    return MassIntegral(log_likelihood, ln_peak[:, 0], offset, log_density, area, step)


def _first_nodes(unit_flux: Array, seen: Observation, low: Array, high: Array) -> Array:
    """ln(M / 1e10 Msun) over the prior's range, and about what each band and all of them ask for.

    Where bands disagree the likelihood may have a peak near each.
    """
    told = seen.mask if seen.limit is None else seen.mask | seen.limit
    each = jnp.where(told, seen.flux, 0.0) / unit_flux
    scatter = jnp.where(told, seen.sigma, 0.0) / unit_flux
    inverse = jnp.where(seen.mask, 1.0 / seen.sigma, 0.0)
    model, data = unit_flux * inverse, seen.flux * inverse
    width = 1.0 / jnp.sqrt(jnp.maximum(jnp.sum(model**2, axis=-1, keepdims=True), 1e-30))
    centre = jnp.sum(model * data, axis=-1, keepdims=True) * width**2
    centres = jnp.concatenate([each, centre], axis=-1)
    widths = jnp.concatenate([scatter, width], axis=-1)
    masses = (centres[..., None] + widths[..., None] * _CLUSTER).reshape(len(unit_flux), -1)
    within = jnp.clip(masses, jnp.exp(low)[:, None], jnp.exp(high)[:, None])
    spread = low[:, None] + (high - low)[:, None] * jnp.linspace(0.0, 1.0, _SPREAD)
    nodes = jnp.concatenate([spread, jnp.log(within)], axis=-1)
    return jnp.sort(jax.lax.stop_gradient(nodes), axis=-1)


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
