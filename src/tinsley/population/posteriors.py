"""Galaxies' posteriors as data: weighted draws, and what they were weighted under.

Everything is a density in the same coordinates, those of `tinsley.population.space`: then a ratio
of two densities needs no Jacobian.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jax.scipy.stats import norm
from jaxtyping import Array, Float, Int

from tinsley.population.reference import Reference, uniform_reference

ROUNDS = 8
"""Of expectation and maximisation: enough to see where the population is, too few for spikes."""


class PosteriorDraws(eqx.Module):
    """Weighted draws of the posteriors of galaxies.

    Attributes:
        x: In the unbounded space of the population, [n, draw, d].
        log_weight: ln of the weights, which sum to 1 for each galaxy, [n, draw].
        log_base: ln of what a population's density is divided by at each draw: the prior that the
            weights were made under, and for a population as observed also the probability of
            passing the cut, [n, draw].
    """

    x: Float[Array, "n draw d"]
    log_weight: Float[Array, "n draw"]
    log_base: Float[Array, "n draw"]

    @property
    def number(self) -> int:
        """Of galaxies."""
        return self.x.shape[0]

    def take(self, rows: Int[Array, " m"]) -> PosteriorDraws:
        """Some galaxies, by index."""
        return PosteriorDraws(self.x[rows], self.log_weight[rows], self.log_base[rows])


def make_draws(
    x: Float[Array, "n draw d"],
    log_weight: Float[Array, "n draw"],
    log_prior: Float[Array, "n draw"],
    log_passing: Float[Array, "n draw"] | None = None,
) -> PosteriorDraws:
    """Posteriors from draws in the unbounded space of the population.

    Args:
        x: The draws.
        log_weight: ln of their weights, which sum to 1 for each galaxy; of `thin`, on average.
        log_prior: ln of the density that the weights were made under, in the coordinates of x.
        log_passing: ln of the probability of passing the survey's cut, for a population as
            observed; None for one of all galaxies, or where the survey does not select.

    Raises:
        ValueError: A galaxy has no draw of finite weight.
    """
    if not bool(jnp.isfinite(logsumexp(log_weight, axis=1)).all()):
        raise ValueError("every galaxy needs at least one draw of finite weight.")
    log_base = log_prior if log_passing is None else log_prior + log_passing
    return PosteriorDraws(x, log_weight, log_base)


def log_prior(x: Float[Array, "*batch d"]) -> Float[Array, "*batch"]:
    """Ln of the prior of Tinsley's models in the unbounded space, N(0, 1) in each coordinate."""
    return jnp.sum(norm.logpdf(x), axis=-1)


def thin(
    log_weight: np.ndarray, log_more: np.ndarray, number: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Fewer draws in the place of many: which, and ln of their weights, [n, number] each.

    Systematic resampling: a draw comes as often as its weight times `more` says, but for less than
    one, and then weighs one over `more`, so that sums over the draws are right on average.

    Args:
        log_weight: ln of the weights, which sum to 1, [n, draw].
        log_more: ln of how much more often than its weight says a draw is to come, [n, draw].
        number: How many to keep of each galaxy.
        rng: For the place where counting begins.

    Source:
        Kitagawa (1996).
    """
    total = (log_weight + log_more).astype(float)
    most = np.max(total, axis=1, keepdims=True)
    level = np.cumsum(np.exp(total - most), axis=1)
    log_mean = np.log(level[:, -1:]) + most
    level /= level[:, -1:]
    wanted = (np.arange(number) + rng.uniform(size=(len(level), 1))) / number
    pairs = zip(level, wanted, strict=True)
    index = np.stack([np.searchsorted(one, where, side="left") for one, where in pairs])
    return index, log_mean - np.take_along_axis(log_more, index, axis=1) - np.log(number)


def rough_population(draws: PosteriorDraws) -> Reference:
    """A Gaussian near the population, after a few rounds of expectation and maximisation.

    Good for aiming draws at, not for an answer.

    Source:
        Dempster, Laird & Rubin (1977), begun at the prior N(0, 1).
    """
    rough = uniform_reference(draws.x.shape[-1])
    for _ in range(ROUNDS):
        rough = _maximised(rough, draws)
    return rough


@eqx.filter_jit
def _maximised(rough: Reference, draws: PosteriorDraws) -> Reference:
    n_dim = draws.x.shape[-1]
    log_density = rough.log_prob(draws.x.reshape(-1, n_dim)).reshape(draws.log_base.shape)
    share = jax.nn.softmax(draws.log_weight + log_density - draws.log_base, axis=1)
    share = share / draws.number
    mean = jnp.einsum("nk,nkd->d", share, draws.x)
    offset = draws.x - mean
    covariance = jnp.einsum("nk,nkd,nke->de", share, offset, offset) + 1e-4 * jnp.eye(n_dim)
    return Reference(mean, jnp.linalg.cholesky(covariance))


@eqx.filter_jit
def log_aim(rough: Reference, x: Float[Array, "n draw d"]) -> Float[Array, "n draw"]:
    """Ln of how much more a draw is to be kept than its weight says: (1 + rough / prior) / 2.

    So draws are plenty where the population is, and none weighs more than twice its own weight.
    """
    log_rough = rough.log_prob(x.reshape(-1, x.shape[-1])).reshape(x.shape[:2])
    return jnp.logaddexp(0.0, log_rough - log_prior(x)) - np.log(2.0)
