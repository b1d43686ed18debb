"""Galaxies whose truth is known: from the prior, or with histories that the model can not make."""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from jaxtyping import Array

from tinsley.infer.amortized import AmortizedPosterior, log_likelihood, log_prob_errors
from tinsley.infer.features import features
from tinsley.infer.likelihood import Observation
from tinsley.infer.ranks import JOINT
from tinsley.infer.redshift import log_q_of
from tinsley.infer.simulator import Simulator
from tinsley.observe.exact import derived_of_history, exact_photometry, stars_of_history
from tinsley.observe.filters import Filter
from tinsley.observe.photometry import unit_flux
from tinsley.parameters import BETAS, MASS, Theta
from tinsley.sps.derived import derived
from tinsley.sps.galaxy import GalaxyModel
from tinsley.status import Redshift

SnrRange = tuple[float, float] | None
_SMOOTH_AND_BURST = (*BETAS, "f_burst", "t_burst_gyr")
"""What a history takes the place of."""


class Truth(NamedTuple):
    """Galaxies whose truth is known, as a survey sees them.

    Attributes:
        seen: The photometry, [n, band].
        values: The true properties that are known, by name, each [n].
        reference: Random points in the unit cube of all parameters, for the joint coverage, [n, d].
        log_weight: ln of the truth's own importance weight, [n]; None where the model can not make
            the truth.
    """

    seen: Observation
    values: dict[str, Array]
    reference: Array
    log_weight: Array | None


def simulate_prior(
    posterior: AmortizedPosterior,
    simulator: Simulator,
    number: int,
    snr_range: SnrRange,
    key: Array,
    *,
    redshift: Redshift = Redshift.GIVEN,
) -> Truth:
    """Fresh galaxies from the prior, their noise included.

    With free redshifts these are among the values, and uniform in the simulator's range.
    """
    key_sample, key_reference = jax.random.split(key)
    made = simulator.sample(number, key=key_sample)
    reference = jax.random.uniform(key_reference, (number, posterior.space.n_unit))
    theta = made.theta | derived(posterior.derived_tables, made.theta)
    values = quantities(posterior, theta, reference)
    if redshift == Redshift.GIVEN:
        del values["redshift"]
    log_weight = _log_weight_of_truth(posterior, (made.seen, made.theta), snr_range, redshift)
    return Truth(made.seen, values, reference, log_weight)


def simulate_histories(
    model: GalaxyModel,
    filters: tuple[Filter, ...],
    simulator: Simulator,
    histories: tuple[np.ndarray, np.ndarray, np.ndarray],
    key: Array,
) -> Truth:
    """Galaxies of given histories; metallicity and dust from the prior, no band table involved.

    Args:
        model: The physics.
        filters: The bands.
        simulator: For the prior and the noise.
        histories: Redshift [n], log10 of the formed mass in Msun [n], and its share in each bin of
            lookback time [n, 42].
        key: Random key.
    """
    key_theta, key_observe = jax.random.split(key)
    redshift, log10_mass, fraction = histories
    age_gyr = simulator.tables.history.cosmology.age_gyr(jnp.asarray(redshift, dtype=float))
    sampled = simulator.space.sample(len(redshift), age_gyr, key=key_theta)
    theta = {n: np.asarray(v, float) for n, v in sampled.items() if n not in _SMOOTH_AND_BURST}
    theta |= {MASS: np.asarray(log10_mass, float), "redshift": np.asarray(redshift, float)}
    flux, rows = [], []
    for i, share in enumerate(fraction):
        one = {name: float(value[i]) for name, value in theta.items()}
        flux.append(exact_photometry(model, filters, one, stars_of_history(model, one, share)))
        rows.append(derived_of_history(model, one, share))
    values = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    as_arrays = {name: jnp.asarray(value, dtype=float) for name, value in theta.items()}
    flux_true = jnp.asarray(np.stack(flux), dtype=float)
    seen = simulator.observe(as_arrays, flux_true, key=key_observe).seen
    values |= {name: value for name, value in theta.items() if name != "redshift"}
    reference = jnp.zeros((len(redshift), simulator.space.n_unit))
    return Truth(seen, {n: jnp.asarray(v, dtype=float) for n, v in values.items()}, reference, None)


def quantities(posterior: AmortizedPosterior, theta: Theta, reference: Array) -> dict[str, Array]:
    """Every property that is ranked, and the distance from the reference point, each [batch]."""
    age_gyr = posterior.cosmology.age_gyr(theta["redshift"])
    offset = posterior.space.to_unit(theta, age_gyr) - reference
    return dict(theta) | {JOINT: jnp.sqrt(jnp.sum(offset**2, axis=-1))}


@eqx.filter_jit
def _log_weight_of_truth(
    posterior: AmortizedPosterior,
    galaxies: tuple[Observation, Theta],
    snr_range: SnrRange,
    redshift: Redshift,
) -> Array:
    """The weight that the truth would have, had it been drawn, [n]."""
    seen, theta = galaxies
    x = posterior.flow_space.to_unbounded(theta, posterior.cosmology.age_gyr(theta["redshift"]))
    flux = unit_flux(posterior.tables, theta)

    def one(galaxy: tuple[Observation, Array, Array, Array]) -> Array:
        seen_, x_, flux_, mass_ = galaxy
        if redshift == Redshift.FREE:
            log_q = log_q_of(posterior, seen_, x_, seen_.redshift)
        else:
            log_q = posterior.flow.log_prob(x_, features(seen_, posterior.cosmology))
        log_l = log_likelihood(posterior, seen_, x_[None], snr_range)
        log_l = log_l + log_prob_errors(posterior, seen_, mass_[None], flux_[None])
        return log_l[0] + jnp.sum(norm.logpdf(x_)) - log_q

    log_weight = jax.lax.map(one, (seen, x, flux, theta[MASS]))
    if posterior.prior_ratio is None:
        return log_weight
    properties = dict(theta) | derived(posterior.derived_tables, theta)
    return log_weight + posterior.prior_ratio.log_ratio(properties, free=redshift == Redshift.FREE)
