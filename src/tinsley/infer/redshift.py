"""Galaxies whose redshift is not known exactly: it is drawn first, then all else given it.

What is known of it is a prior, `Observation.redshift_prior`: its error, a p(z), or nothing but the
model's range. The coordinate is the prior's own probability below a redshift, in which the prior is
uniform whatever its form, so that an error of 1e-5 asks for nothing special.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr
from jaxtyping import Array, Float

from tinsley.density.histogram import ConditionalHistogram, sample_bins
from tinsley.infer.amortized import AmortizedPosterior, Draws, weigh
from tinsley.infer.features import features, features_without_redshift
from tinsley.infer.likelihood import Observation
from tinsley.infer.refine import sample_hmc, sample_smc
from tinsley.observe.redshift import RedshiftPrior, uniform

DEFENCE = 0.1
"""Share of the redshifts that come from a prior as it is: none weighs above ten times the
likelihood, however wrong the network."""


def draw_free(
    posterior: AmortizedPosterior,
    seen: Observation,
    number: int,
    *,
    key: Array,
    snr_range: tuple[float, float] | None = None,
) -> Draws:
    """Draws for one galaxy whose redshift is not known, or not exactly.

    A priori it is uniform over the model's range, as a new prior has it, or as is known of this
    galaxy. The redshifts come from their own density, each with one draw of the flow at that
    redshift; the weight is exact: likelihood times prior over both densities. Where something is
    known that density is its product with the network's p(z | photometry), and a tenth of it alone.

    Args:
        posterior: A model that was taught redshifts.
        seen: One galaxy; its prior of redshift is looked at, its redshift is not.
        number: How many draws.
        key: Random key of this galaxy.
        snr_range: See `AbstractLikelihood.integrate_mass`; for calibration on simulations only.

    Returns:
        As `draw_posterior`, with `redshift` among the parameters; the evidence is p(flux | sigma).

    Raises:
        ValueError: The model was not taught redshifts.
    """
    key_redshift, key_flow, key_mass = jax.random.split(key, 3)
    redshift, log_q_redshift, log_prior = _propose(posterior, seen, number, key_redshift)
    at_each = seen._replace(redshift=redshift)
    told = jax.vmap(lambda z: features(seen._replace(redshift=z), posterior.cosmology))(redshift)
    x, log_q = posterior.flow.sample_each(told, key=key_flow)
    return weigh(
        posterior, at_each, x, log_q + log_q_redshift - log_prior, key=key_mass, snr_range=snr_range
    )


def with_free_redshift(sample: Callable[..., Draws]) -> Callable[..., Draws]:
    """`sample_smc` or `sample_hmc` with one more coordinate, the normal quantile of the redshift.

    It is that of the redshift's prior, known of the galaxy or the model's range. The redshift that
    the galaxy brings is not looked at. Called as `draw_free` is, without `snr_range`.
    """

    def draw(
        posterior: AmortizedPosterior, seen: Observation, number: int, *effort: Any, key: Array
    ) -> Draws:
        density, prior = _density(posterior), seen.redshift_prior
        known = uniform(density.low, density.high) if prior is None else prior

        def at(extra: Float[Array, "point 1"]) -> Observation:
            return seen._replace(redshift=known.quantile(ndtr(extra[:, 0])))

        return sample(posterior, at, 1, number, *effort, key=key)

    return draw


draw_free_smc = with_free_redshift(sample_smc)
draw_free_hmc = with_free_redshift(sample_hmc)


def _propose(
    posterior: AmortizedPosterior, seen: Observation, number: int, key: Array
) -> tuple[Array, Array, Array | float]:
    """Redshifts, ln of the density that they are drawn from, and ln of the prior's."""
    density, told = _density(posterior), features_without_redshift(seen)
    if seen.redshift_prior is None:
        redshift, log_q = density.sample_and_log_prob(number, told, key=key)
        return redshift, log_q, -np.log(density.high - density.low)
    redshift, log_q = sample_tilted(seen.redshift_prior, density, told, number, key=key)
    return redshift, log_q, 0.0


def sample_tilted(
    prior: RedshiftPrior,
    density: ConditionalHistogram,
    told: Float[Array, " f"],
    number: int,
    *,
    key: Array,
) -> tuple[Float[Array, " number"], Float[Array, " number"]]:
    """Redshifts from a prior times the network's density, a tenth from the prior alone.

    In the prior's own probability the density drawn from is flat between the edges of the bins, so
    that its value there is the weight: exactly, however these edges are rounded.

    Args:
        prior: Of one galaxy, inside the density's range.
        density: p(z | photometry).
        told: What it is told of the galaxy.
        number: How many redshifts.
        key: Random key.

    Returns:
        The redshifts, and ln of the density that they are drawn from over the prior's.
    """
    level = prior.cdf(density.edges).at[0].set(0.0).at[-1].set(1.0)
    mass = jnp.maximum(jnp.diff(level), 0.0)
    height = jnp.exp(density.log_height(told))
    total = jnp.maximum(jnp.sum(mass * height), 1e-30)
    ratio = DEFENCE + (1.0 - DEFENCE) * height / total
    index, share = sample_bins(mass * ratio, number, key=key)
    redshift = prior.quantile(level[index] + share * mass[index])
    return redshift, jnp.log(ratio)[index] - jnp.log(jnp.sum(mass * ratio))


def log_q_of(posterior: AmortizedPosterior, seen: Observation, x: Array, redshift: Array) -> Array:
    """Ln of the density, over the prior's, that `draw_free` draws a point from; one galaxy."""
    density = _density(posterior)
    log_q = posterior.flow.log_prob(
        x, features(seen._replace(redshift=redshift), posterior.cosmology)
    )
    log_q_redshift = density.log_prob(redshift, features_without_redshift(seen))
    return log_q + log_q_redshift + np.log(density.high - density.low)


def _density(posterior: AmortizedPosterior) -> ConditionalHistogram:
    if posterior.redshift_density is None:
        raise ValueError("the model needs redshifts; `tinsley train redshift` teaches them.")
    return posterior.redshift_density
