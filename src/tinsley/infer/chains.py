"""Long Markov chains of one posterior: Hamiltonian Monte Carlo, many chains at once.

All chains of a galaxy take the same number of leapfrog steps at a time, of a length drawn anew each
time, so that none waits for another, as chains of the No-U-Turn Sampler do. Metric and step size
are learnt from all chains together. Draws count equally; R-hat and the effective sample size
(Vehtari et al. 2021; `blackjax.diagnostics`, arviz-stats) say whether to trust them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.mcmc.hmc import HMCState
from blackjax.optimizers.dual_averaging import dual_averaging
from jax.scipy.stats import norm
from jaxtyping import Array, Float

from tinsley.infer import smc

LogDensity = Callable[[Float[Array, " d"]], Float[Array, ""]]

_HEAT = 0.25
"""Power of the density that chains start from: for normal errors, twice as wide."""
_START = smc.Effort(particles=512, steps=8, kept_ess=0.6)
_ACCEPTED = 0.85
"""Share of proposals that the step size is tuned to have accepted."""
_PATH = (0.5 * np.pi, 2.0 * np.pi)
"""Lengths of a trajectory, in standard deviations: a quarter turn decorrelates a normal density;
bent ones take longer."""
_SHORT = 0.4
"""Steps go from this share of the tuned one to all of it: short ones free chains that a bend holds.
Without them two runs of three did not mix on a bent ridge."""
_FIRST_STEP = 0.1
_KEPT = 0.9
"""Share of the learnt covariance in the metric; the rest is its diagonal's."""


class Effort(NamedTuple):
    """How hard to work.

    Attributes:
        chains: How many.
        warm_up: Iterations in which metric and step size are learnt, in each of two halves.
        most_steps: Leapfrog steps of one iteration, at most.
    """

    chains: int = 16
    warm_up: int = 100
    most_steps: int = 512


EFFORT = Effort()


class Walk(NamedTuple):
    """Where the chains are, and what was learnt of the density.

    Attributes:
        state: Positions [chain, d], with their log density and its gradient.
        covariance: Of the positions: the inverse of the metric, [d, d].
        step_size: Leapfrog step, in standard deviations.
    """

    state: HMCState
    covariance: Float[Array, "d d"]
    step_size: Float[Array, ""]


class Path(NamedTuple):
    """What the chains did.

    Attributes:
        x: Draws, [draw, chain, d].
        accepted: Mean probability of acceptance.
        gradients: Gradients of the log density, all chains together.
    """

    x: Float[Array, "draw chain d"]
    accepted: Float[Array, ""]
    gradients: Float[Array, ""]


def warm_up(log_density: LogDensity, n_dim: int, effort: Effort = EFFORT, *, key: Array) -> Walk:
    """Chains that start wider than the density, and have learnt its shape.

    Args:
        log_density: Of one point; not normalised, -inf allowed. Its scale is to be of order 1 about
            0, as in the unbounded space, for the chains come from N(0, 1) by tempering.
        n_dim: Dimensions.
        effort: How hard to work.
        key: Random key.

    Source:
        Starts by tempered sequential Monte Carlo, which stops while the density is still heated, so
        that no mode is lost and R-hat means something; steps by Nesterov's dual averaging (Hoffman
        & Gelman 2014) of the mean acceptance.
    """
    key_start, key_tune = jax.random.split(key)
    x = spread_points(log_density, n_dim, key=key_start)
    state = jax.vmap(lambda point: blackjax.hmc.init(point, log_density))(x[: effort.chains])
    walk = Walk(state, _covariance(x), jnp.asarray(_FIRST_STEP))

    def half(so_far: tuple[Walk, Array], key: Array) -> tuple[tuple[Walk, Array], None]:
        walk, covariance = so_far
        walk, x = _tune(log_density, walk._replace(covariance=covariance), effort, key=key)
        return (walk, _covariance(x[effort.warm_up // 2 :].reshape(-1, n_dim))), None

    (walk, _), _ = jax.lax.scan(half, (walk, walk.covariance), jax.random.split(key_tune, 2))
    return walk


def walk_on(
    log_density: LogDensity, walk: Walk, number: int, effort: Effort = EFFORT, *, key: Array
) -> tuple[Walk, Path]:
    """`number` further draws of each chain.

    Args:
        log_density: As for `warm_up`.
        walk: Where the chains are.
        number: Iterations, each of which gives a draw.
        effort: How hard to work.
        key: Random key.

    Source:
        Hamiltonian Monte Carlo as blackjax has it, with the lengths of trajectory and step drawn
        from ranges (Neal 2011, section 5.3.2); tested against closed forms (tests/test_chains.py).
    """

    def iterate(state: HMCState, key: Array) -> tuple[HMCState, tuple[Array, Array, Array]]:
        state, accepted, steps = _iterate(log_density, walk._replace(state=state), effort, key)
        return state, (state.position, accepted, steps)

    state, (x, accepted, steps) = jax.lax.scan(iterate, walk.state, jax.random.split(key, number))
    path = Path(x, jnp.mean(accepted), effort.chains * jnp.sum(steps.astype(float)))
    return walk._replace(state=state), path


def spread_points(log_density: LogDensity, n_dim: int, *, key: Array) -> Float[Array, "point d"]:
    """Points of the heated density, from N(0, 1) by tempered sequential Monte Carlo."""

    def above_normal(x: Array) -> Array:
        return _HEAT * (jax.vmap(log_density)(x) - jnp.sum(norm.logpdf(x), axis=-1))

    return smc.sample_particles(above_normal, n_dim, _START, key=key).x


def _tune(
    log_density: LogDensity, walk: Walk, effort: Effort, *, key: Array
) -> tuple[Walk, Float[Array, "draw chain d"]]:
    """Iterations that tune the step size, and where they went."""
    begin, update, end = dual_averaging(t0=10, gamma=0.05, kappa=0.75)

    def iterate(so_far: tuple, key: Array) -> tuple[tuple, Array]:
        state, tuning = so_far
        now = walk._replace(state=state, step_size=jnp.exp(tuning.log_x))
        state, accepted, _ = _iterate(log_density, now, effort, key)
        return (state, update(tuning, _ACCEPTED - accepted)), state.position

    first = (walk.state, begin(walk.step_size))
    keys = jax.random.split(key, effort.warm_up)
    (state, tuning), x = jax.lax.scan(iterate, first, keys)
    return walk._replace(state=state, step_size=end(tuning)), x


def _iterate(
    log_density: LogDensity, walk: Walk, effort: Effort, key: Array
) -> tuple[HMCState, Array, Array]:
    """One trajectory of each chain; mean probability of acceptance, and its leapfrog steps."""
    key_path, key_size, key_chains = jax.random.split(key, 3)
    path = jax.random.uniform(key_path, minval=_PATH[0], maxval=_PATH[1])
    size = walk.step_size * jax.random.uniform(key_size, minval=_SHORT, maxval=1.0)
    steps = jnp.clip(jnp.ceil(path / size), 1, effort.most_steps).astype(int)
    kernel = blackjax.hmc.build_kernel()

    def one(key: Array, state: HMCState) -> tuple[HMCState, Array]:
        state, info = kernel(key, state, log_density, size, walk.covariance, steps)
        return state, info.acceptance_rate

    state, accepted = jax.vmap(one)(jax.random.split(key_chains, effort.chains), walk.state)
    return state, jnp.mean(jnp.nan_to_num(accepted)), steps


def _covariance(x: Float[Array, "point d"]) -> Float[Array, "d d"]:
    """Of points, with correlations shrunk a little, so that few points do for many dimensions."""
    covariance = jnp.cov(x, rowvar=False).reshape(x.shape[1], x.shape[1])
    diagonal = jnp.diag(jnp.diag(covariance) + 1e-12)
    return _KEPT * covariance + (1 - _KEPT) * diagonal
