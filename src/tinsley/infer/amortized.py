"""Amortised posteriors: a flow proposes, the exact likelihood weighs. Read this first.

For one galaxy: the network turns its photometry into a density over all parameters but mass; draws
from it are weighted with the likelihood integrated over mass; mass is then drawn from its exact
conditional. What comes out are weighted draws of the posterior, with an effective sample size that
says whether to trust them.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.stats import norm
from jaxtyping import Array, Float

from tinsley.cosmology import Cosmology
from tinsley.density.flows import ConditionalFlow
from tinsley.density.histogram import ConditionalHistogram
from tinsley.infer.config import Mass
from tinsley.infer.features import features
from tinsley.infer.importance import PsisResult, effective_sample_size, pareto_smooth
from tinsley.infer.likelihood import (
    LN10,
    AbstractLikelihood,
    Gaussian,
    MassIntegral,
    Observation,
    sample_log10_mass,
)
from tinsley.infer.marginals import Entries
from tinsley.infer.prior import PriorRatio, make_ratio
from tinsley.observe.noise import SigmaGivenFlux
from tinsley.observe.photometry import MASS_UNIT_LOG10_MSUN, BandTables, unit_flux
from tinsley.parameters import MASS, ParamSpace
from tinsley.sps.derived import DerivedTables, derived


class AmortizedPosterior(eqx.Module):
    """A trained network and the physics that it was trained on.

    Attributes:
        flow: Density over the unbounded space of all parameters but mass.
        space: The prior it was trained with.
        tables: Forward model.
        derived_tables: For the derived properties.
        redshift_density: Density of the redshift given the photometry; None if the redshift has to
            be given.
        noise: p(sigma | flux), where the errors that it was trained with tell of the flux: then it
            is a factor of the likelihood. None where they do not.
        mass: Whether the flow leaves the mass to its exact integral, "integrated", or draws it.
        likelihood: How measured fluxes scatter about the model's.
        prior_ratio: Another prior over the trained one, with which draws are weighted; None for the
            trained one.
    """

    flow: ConditionalFlow
    space: ParamSpace
    tables: BandTables
    derived_tables: DerivedTables
    redshift_density: ConditionalHistogram | None = None
    noise: SigmaGivenFlux | None = None
    mass: Mass = eqx.field(static=True, default="integrated")
    likelihood: AbstractLikelihood = Gaussian()
    prior_ratio: PriorRatio | None = None

    @property
    def flow_space(self) -> ParamSpace:
        """The parameters that the flow draws."""
        return flow_space(self.space, self.mass)

    @property
    def cosmology(self) -> Cosmology:
        """Distance and age."""
        return self.tables.history.cosmology

    def at_redshift(self, redshift: Float[Array, ""]) -> AmortizedPosterior:
        """The same for one galaxy of known redshift, whose draws then cost half of the physics."""
        return dataclasses.replace(
            self,
            tables=self.tables.at_redshift(redshift),
            derived_tables=self.derived_tables.at_redshift(redshift),
        )


def flow_space(space: ParamSpace, mass: Mass) -> ParamSpace:
    """What a flow draws of a space."""
    return space.without_mass() if mass == "integrated" else space


def with_prior(
    posterior: AmortizedPosterior, redshift_range: tuple[float, float], entries: Entries
) -> AmortizedPosterior:
    """The same model under another prior: its draws are weighted, its network is as it was.

    Args:
        posterior: The trained model.
        redshift_range: That it was trained for.
        entries: The prior; see `make_ratio`, and for what it raises.
    """
    space, ratio = make_ratio(
        posterior.space,
        posterior.derived_tables,
        redshift_range,
        entries,
        cut_mass=posterior.mass == "integrated",
    )
    return dataclasses.replace(posterior, space=space, prior_ratio=ratio)


class Draws(NamedTuple):
    """Weighted draws from the posterior of one galaxy.

    Attributes:
        theta: Parameters, derived properties and `redshift`, each [draw].
        log_weight: Unsmoothed importance weight, ln, not normalised, [draw].
        psis: Smoothed weights, ESS and k-hat.
        log_evidence: ln of the mean weight, including the prior's volume: ln p(flux | sigma, z).
        best: Parameters of the likeliest possible draw, each draw taken at its best mass, each [].
        best_chi2: Its deviance, which is chi^2 where the likelihood is Gaussian, [].
        rhat: Largest R-hat of the chains that the draws are of, []; NaN where they are of none.
        ess_trained_prior: Effective sample size without the weights of a new prior; None where
            there is none.
    """

    theta: dict[str, Array]
    log_weight: Array
    psis: PsisResult
    log_evidence: Array
    best: dict[str, Array]
    best_chi2: Array
    rhat: Array
    ess_trained_prior: Array | None = None


def draw_posterior(
    posterior: AmortizedPosterior,
    seen: Observation,
    number: int,
    *,
    key: Array,
    snr_range: tuple[float, float] | None = None,
) -> Draws:
    """Draws for one galaxy.

    Args:
        posterior: The trained model.
        seen: One galaxy: flux [band], redshift [].
        number: How many draws.
        key: Random key of this galaxy.
        snr_range: See `AbstractLikelihood.integrate_mass`; for calibration on simulations only.

    Source:
        Importance sampling with mass integrated out; tested against closed forms and by
        simulation-based calibration (tests/test_amortized.py, `tinsley check`).
    """
    posterior = posterior.at_redshift(seen.redshift)
    key_flow, key_mass = jax.random.split(key)
    x, log_q = posterior.flow.sample_and_log_prob(
        number, features(seen, posterior.cosmology), key=key_flow
    )
    return weigh(posterior, seen, x, log_q, key=key_mass, snr_range=snr_range)


def weigh(
    posterior: AmortizedPosterior,
    seen: Observation,
    x: Float[Array, "draw d"],
    log_q: Float[Array, " draw"] | None,
    *,
    key: Array,
    snr_range: tuple[float, float] | None = None,
) -> Draws:
    """Weights, masses and properties of points drawn from any proposal, for one galaxy.

    Args:
        posterior: The physics and the prior; the flow is not used.
        seen: One galaxy: flux [band], redshift [], or [draw] where it is not known and drawn too.
        x: The points, in the unbounded space of what the flow draws: all parameters, or all but
            mass.
        log_q: ln of the density that they were drawn from; None if that is the posterior itself, of
            the trained prior and the measured fluxes.
        key: For the masses.
        snr_range: See `AbstractLikelihood.integrate_mass`.
    """
    theta, model_flux, integral = _at(posterior, seen, x, snr_range)
    log_density = integral.log_likelihood + jnp.sum(norm.logpdf(x), axis=-1)
    log_weight = log_density - (log_density if log_q is None else log_q)
    theta[MASS] = sample_log10_mass(integral, key=key)
    log_weight = log_weight + log_prob_errors(posterior, seen, theta[MASS], model_flux)
    log_weight = jnp.where(jnp.isfinite(log_weight), log_weight, -jnp.inf)
    theta |= derived(posterior.derived_tables, theta)
    possible, ess_trained_prior = None, None
    if posterior.prior_ratio is not None:
        ess_trained_prior = effective_sample_size(log_weight)
        free = jnp.ndim(seen.redshift) > 0
        log_ratio = posterior.prior_ratio.log_ratio(theta, free=free)
        log_weight, possible = log_weight + log_ratio, log_ratio > -jnp.inf
    log_evidence = jax.nn.logsumexp(log_weight) - jnp.log(x.shape[0])
    best, best_chi2 = _best(posterior, seen, theta, (model_flux, integral), possible)
    psis, rhat = pareto_smooth(log_weight), jnp.asarray(jnp.nan)
    return Draws(theta, log_weight, psis, log_evidence, best, best_chi2, rhat, ess_trained_prior)


def log_prob_errors(
    posterior: AmortizedPosterior,
    seen: Observation,
    log10_mass: Float[Array, " draw"],
    unit_flux: Float[Array, "draw band"],
) -> Float[Array, " draw"] | float:
    """Ln of the density of a galaxy's errors given its true fluxes; 0 where they tell nothing.

    A model trained with the errors of a survey has learnt what they say of the flux, so that they
    belong to the likelihood of its draws.
    """
    if posterior.noise is None:
        return 0.0
    flux = 10.0 ** (log10_mass - MASS_UNIT_LOG10_MSUN)[:, None] * unit_flux
    each = posterior.noise.log_prob(jnp.broadcast_to(seen.sigma, flux.shape), flux)
    return jnp.sum(jnp.where(seen.mask, each, 0.0), axis=-1)


def log_likelihood(
    posterior: AmortizedPosterior,
    seen: Observation,
    x: Float[Array, "draw d"],
    snr_range: tuple[float, float] | None = None,
) -> Float[Array, " draw"]:
    """Log-likelihood of one galaxy at points of the unbounded space; see `weigh`."""
    return _at(posterior, seen, x, snr_range)[2].log_likelihood


def _at(
    posterior: AmortizedPosterior,
    seen: Observation,
    x: Array,
    snr_range: tuple[float, float] | None,
) -> tuple[dict[str, Array], Array, MassIntegral]:
    """Parameters but mass, flux for 1e10 Msun [draw, band], and the likelihood over mass."""
    redshift = jnp.broadcast_to(seen.redshift, (x.shape[0],))
    age_gyr = posterior.cosmology.age_gyr(redshift)
    theta = posterior.flow_space.from_unbounded(x, age_gyr) | {"redshift": redshift}
    flux = unit_flux(posterior.tables, theta)
    if posterior.mass == "drawn":
        return theta, flux, posterior.likelihood.at_mass(flux, seen, theta[MASS])
    prior = posterior.space.mass_prior
    mass_range = (prior.low, prior.high)
    return theta, flux, posterior.likelihood.integrate_mass(flux, seen, mass_range, snr_range)


def _best(
    posterior: AmortizedPosterior,
    seen: Observation,
    theta: dict[str, Array],
    fitted: tuple[Array, MassIntegral],
    possible: Array | None,
) -> tuple[dict[str, Array], Array]:
    """Parameters and deviance of the likeliest possible draw, each draw at its best mass."""
    model_flux, integral = fitted
    misfit = posterior.likelihood.deviance(jnp.exp(integral.ln_peak)[:, None] * model_flux, seen)
    misfit = jnp.where(jnp.isfinite(misfit), misfit, jnp.inf)
    if possible is not None:
        misfit = jnp.where(possible, misfit, jnp.inf)
    first = jnp.argmin(misfit)
    masses = integral.ln_peak / LN10 + MASS_UNIT_LOG10_MSUN
    best = {name: theta[name][first] for name in (*posterior.space.names, "redshift")}
    return best | {MASS: masses[first]}, misfit[first]
