"""The population as the prior of single galaxies: their draws, weighted anew.

A galaxy's draws were weighted under the prior that its posterior was trained with, which in the
unbounded space is N(0, 1). Under a population q they weigh q / N(0, 1) more. What is fitted is the
population as observed; a galaxy that is in the survey has the prior of all galaxies, for that it
was seen follows from its data, so q is divided by the probability of passing:

    posterior = likelihood x q / passing = draws x old weight x q / (N(0, 1) passing)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tinsley.infer.importance import effective_sample_size, pareto_smooth
from tinsley.observe.noise import AbstractNoise
from tinsley.observe.photometry import BandTables, photometry
from tinsley.parameters import Theta
from tinsley.population.density import AbstractPopulation
from tinsley.population.fit import LEAST_PASSING
from tinsley.population.forecast import BATCH, in_batches
from tinsley.population.posteriors import log_prior
from tinsley.population.space import REDSHIFT, PopulationSpace
from tinsley.population.summaries import Band
from tinsley.population.synthetic import Selection, record


class Reweighted(NamedTuple):
    """Galaxies under another prior.

    Attributes:
        log_weight: Smoothed and normalised: logsumexp = 0 for each galaxy, [n, draw].
        ess: Effective draws that are left, [n].
        khat: Above 0.7 the weights are not to be trusted, [n].
        ess_share: `ess` over that before: what the prior costs, [n].
        log_evidence_gain: ln of the evidence under the population over that before, [n].
    """

    log_weight: Array
    ess: Array
    khat: Array
    ess_share: Array
    log_evidence_gain: Array


@eqx.filter_jit
def reweight(log_weight: Float[Array, "n draw"], log_ratio: Float[Array, "n draw"]) -> Reweighted:
    """Multiply weights by a ratio of priors.

    Args:
        log_weight: Of draws under the old prior, as `tinsley infer` writes them.
        log_ratio: ln of new prior over old; -inf where the new one is 0. A galaxy with nothing
            else comes out as NaN.

    Source:
        Importance sampling; against a conjugate Gaussian in tests/test_reweight.py.
    """
    total = log_weight + log_ratio
    smooth = jax.vmap(pareto_smooth)(total)
    before = jax.vmap(effective_sample_size)(log_weight)
    gain = jax.nn.logsumexp(total, axis=1) - jax.nn.logsumexp(log_weight, axis=1)
    return Reweighted(smooth.log_weight, smooth.ess, smooth.khat, smooth.ess / before, gain)


def log_prior_ratio(
    members: Sequence[AbstractPopulation],
    space: PopulationSpace,
    theta: Theta,
    passing: tuple[np.ndarray, np.ndarray] | None = None,
) -> np.ndarray:
    """Ln of each member's density of all galaxies over the prior, [member, n, draw].

    The old prior on redshift is uniform in redshift, or the redshift is known: then only ratios
    between draws of one galaxy count.

    Args:
        members: The populations as observed.
        space: Where they live.
        theta: Parameters and `redshift` of the draws, each [n, draw].
        passing: Probability that each draw passes the survey's cut, [n, draw], and the share of
            each member's galaxies that do, [member]; None where the survey does not select.

    Returns:
        -inf outside the redshifts of the population.
    """
    shape = np.shape(theta[REDSHIFT])
    flat = {name: jnp.asarray(value, dtype=float).ravel() for name, value in theta.items()}
    ratio = np.stack([np.asarray(_log_ratio(one, space, flat)) for one in members])
    ratio = ratio.reshape(-1, *shape)
    low, high = space.redshift_range
    inside = (theta[REDSHIFT] >= low) & (theta[REDSHIFT] <= high)
    ratio = np.where(np.asarray(inside), ratio, -np.inf)
    if passing is None:
        return ratio
    probability, fraction = passing
    return ratio - np.log(probability) + np.log(fraction)[:, None, None]


@eqx.filter_jit
def _log_ratio(member: AbstractPopulation, space: PopulationSpace, theta: Theta) -> Array:
    x = space.unbounded(theta)
    return member.log_prob(x) - log_prior(x)


def pass_probability(
    tables: BandTables,
    survey: tuple[AbstractNoise, Selection],
    theta: Theta,
    *,
    key: Array,
    batch: int = BATCH,
) -> np.ndarray:
    """Probability of passing a survey's cut, at least 1 %, of draws [n, draw].

    Args:
        tables: Forward model in the survey's bands.
        survey: p(sigma | true flux); the cut.
        theta: Parameters and `redshift`, each [n, draw].
        key: Random key: errors are drawn.
        batch: Galaxies at a time.
    """
    flat = {name: np.ravel(value) for name, value in theta.items()}

    def one(some: dict[str, Array], number: int) -> Array:
        return _passing(tables, survey, some, jax.random.fold_in(key, number))

    passing = in_batches(one, flat, batch).reshape(np.shape(theta[REDSHIFT]))
    return np.maximum(passing, LEAST_PASSING)


@eqx.filter_jit
def _passing(
    tables: BandTables, survey: tuple[AbstractNoise, Selection], theta: Theta, key: Array
) -> Array:
    return record(photometry(tables, theta), *survey, key=key).pass_probability


def mean_log_density(each: np.ndarray) -> np.ndarray:
    """Ln of the members' mean density, of those of each, [member, ...]: an uncertain prior's."""
    return np.logaddexp.reduce(each, axis=0) - np.log(len(each))


def posterior_means(values: np.ndarray, log_weight: np.ndarray, log_ratio: np.ndarray) -> Band:
    """Mean of each galaxy under each member: how much the uncertain population matters.

    Args:
        values: A property of the draws, [n, draw].
        log_weight: As for `reweight`.
        log_ratio: Of each member, [member, n, draw].

    Returns:
        [member, n].
    """
    each = []
    for one in log_ratio:
        done = reweight(jnp.asarray(log_weight, dtype=float), jnp.asarray(one, dtype=float))
        each.append(np.sum(np.exp(np.asarray(done.log_weight)) * values, axis=1))
    return Band(np.stack(each))
