"""Galaxies whose redshift is not known: it is drawn first, then all else given it."""

from __future__ import annotations

import jax
import numpy as np
from jaxtyping import Array

from tinsley.density.histogram import ConditionalHistogram
from tinsley.infer.amortized import AmortizedPosterior, Draws, weigh
from tinsley.infer.features import features, features_without_redshift
from tinsley.infer.likelihood import Observation


def draw_free(
    posterior: AmortizedPosterior,
    seen: Observation,
    number: int,
    *,
    key: Array,
    snr_range: tuple[float, float] | None = None,
) -> Draws:
    """Draws for one galaxy of unknown redshift.

    A priori it is uniform over the model's range, or as a new prior has it. The redshifts come from
    their own density, each with one draw of the flow at that redshift; the weight is exact:
    likelihood times prior over both densities.

    Args:
        posterior: A model that was taught redshifts.
        seen: One galaxy; its redshift is not looked at.
        number: How many draws.
        key: Random key of this galaxy.
        snr_range: See `AbstractLikelihood.integrate_mass`; for calibration on simulations only.

    Returns:
        As `draw_posterior`, with `redshift` among the parameters; the evidence is p(flux | sigma).

    Raises:
        ValueError: The model was not taught redshifts.
    """
    density = _density(posterior)
    key_redshift, key_flow, key_mass = jax.random.split(key, 3)
    redshift, log_q_redshift = density.sample_and_log_prob(
        number, features_without_redshift(seen), key=key_redshift
    )
    at_each = seen._replace(redshift=redshift)
    told = jax.vmap(lambda z: features(seen._replace(redshift=z), posterior.cosmology))(redshift)
    x, log_q = posterior.flow.sample_each(told, key=key_flow)
    log_prior = -np.log(density.high - density.low)
    return weigh(
        posterior, at_each, x, log_q + log_q_redshift - log_prior, key=key_mass, snr_range=snr_range
    )


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
