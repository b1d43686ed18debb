"""Long Markov chains of one posterior: Hamiltonian Monte Carlo and jumps, many chains at once.

All chains of a galaxy take the same number of leapfrog steps at a time, of a length drawn anew each
time, so that none waits for another, as chains of the No-U-Turn Sampler do. Between these, points
are proposed from a fixed density, so that a chain can leave a mode or a bend. Metric, step size and
that density are learnt from all chains together, before the first draw that counts. Draws count
equally; R-hat and the effective sample size (Vehtari et al. 2021) say whether to trust them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.diagnostics import rhat
from blackjax.mcmc.hmc import HMCState
from blackjax.optimizers.dual_averaging import dual_averaging
from jax.scipy.special import ndtri
from jax.scipy.stats import norm
from jaxtyping import Array, Float

from tinsley.density.kernels import KernelMixture
from tinsley.density.triangular import cholesky, invert_lower
from tinsley.infer import smc
from tinsley.infer.importance import ESS_GOOD, RHAT_GOOD

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
        jumps: Points proposed after them.
        most_rounds: Rounds of `sample_chains`, each twice as long as the one before.
    """

    chains: int = 16
    warm_up: int = 100
    most_steps: int = 64
    jumps: int = 8
    most_rounds: int = 3


EFFORT = Effort()


class Walk(NamedTuple):
    """Where the chains are, and what was learnt of the density.

    Attributes:
        state: Positions [chain, d], with their log density and its gradient.
        factor: Lower Cholesky factor of their covariance, the inverse of the metric, [d, d].
        step_size: Leapfrog step, in standard deviations.
        proposal: Density of the jumps.
        log_evidence: ln of the density's integral, from the particles behind the proposal; -inf if
            they have not settled.
    """

    state: HMCState
    factor: Float[Array, "d d"]
    step_size: Float[Array, ""]
    proposal: KernelMixture
    log_evidence: Float[Array, ""]


class Path(NamedTuple):
    """What the chains did.

    Attributes:
        x: Draws, [draw, chain, d].
        accepted: Mean probability of acceptance of the trajectories.
        jumped: Share of the jumps that were accepted.
        gradients: Gradients of the log density, all chains together.
    """

    x: Float[Array, "draw chain d"]
    accepted: Float[Array, ""]
    jumped: Float[Array, ""]
    gradients: Float[Array, ""]


class Chains(NamedTuple):
    """Chains that were gone on with until they mixed, or for as long as was allowed.

    Attributes:
        x: Draws, [draw, chain, d].
        rhat: Largest rank-normalised R-hat of the coordinates, folded draws included.
        ess: Least bulk effective sample size of the coordinates, all chains together.
        log_evidence: See `Walk`.
    """

    x: Float[Array, "draw chain d"]
    rhat: Float[Array, ""]
    ess: Float[Array, ""]
    log_evidence: Float[Array, ""]


def sample_chains(
    log_density: LogDensity, n_dim: int, number: int, effort: Effort = EFFORT, *, key: Array
) -> Chains:
    """Chains that go on until R-hat and effective sample size are good.

    Every round draws anew from where the last one ended, and thins twice as much: what came before
    is warm-up, and the number of draws stays.

    Args:
        log_density: As for `warm_up`.
        n_dim: Dimensions.
        number: Draws of each chain.
        effort: How hard to work.
        key: Random key.

    Source:
        Vehtari et al. (2021) as blackjax has it, checked against arviz-stats
        (tests/test_chains.py).
    """
    key_start, key_rounds = jax.random.split(key)
    walk = warm_up(log_density, n_dim, effort, key=key_start)

    def draw_round(so_far: _Round) -> _Round:
        def draw(state: HMCState, key: Array) -> tuple[HMCState, Array]:
            def step(i: Array, state: HMCState) -> HMCState:
                now, key_step = walk._replace(state=state), jax.random.fold_in(key, i)
                return walk_on(log_density, now, 1, effort, key=key_step)[0].state

            state = jax.lax.fori_loop(0, so_far.thin, step, state)
            return state, state.position

        keys = jax.random.split(jax.random.fold_in(key_rounds, so_far.thin), number)
        state, x = jax.lax.scan(draw, so_far.state, keys)
        return _Round(state, 2 * so_far.thin, x, *measure_mixing(x))

    nothing = jnp.zeros((number, effort.chains, n_dim))
    last = jax.lax.while_loop(
        lambda so_far: ~_has_mixed(so_far) & (so_far.thin < 2**effort.most_rounds),
        draw_round,
        _Round(walk.state, jnp.asarray(1), nothing, jnp.asarray(jnp.inf), jnp.zeros(())),
    )
    return Chains(last.x, last.rhat, last.ess, walk.log_evidence)


class _Round(NamedTuple):
    """A round of draws, and every how many iterations the next one takes a draw."""

    state: HMCState
    thin: Array
    x: Array
    rhat: Array
    ess: Array


def _has_mixed(chains: _Round) -> Array:
    return (chains.rhat < RHAT_GOOD) & (chains.ess >= ESS_GOOD)


def measure_mixing(x: Float[Array, "draw chain d"]) -> tuple[Array, Array]:
    """Largest R-hat and least bulk effective sample size of the coordinates; see `Chains`."""
    each = jnp.moveaxis(x, -1, 0)
    return jnp.max(jax.vmap(rhat)(each.swapaxes(1, 2))), jnp.min(jax.vmap(_bulk_ess)(each))


def _bulk_ess(x: Float[Array, "draw chain"]) -> Array:
    """Bulk effective sample size (Vehtari et al. 2021) without a Fourier transform.

    XLA's waits for a thread of the pool that it runs in: galaxies refined side by side, on as many
    threads, would wait for each other for ever.
    """
    half = len(x) // 2
    z = _normal_scores(jnp.concatenate([x[:half], x[len(x) - half :]], axis=1))
    within = z - jnp.mean(z, axis=0)
    lags = jnp.arange(half)

    def autocovariance(lag: Array) -> Array:
        ahead = jnp.where((lags < half - lag)[:, None], jnp.roll(within, -lag, axis=0), 0.0)
        return jnp.mean(within * ahead)

    covariance = jax.lax.map(autocovariance, lags)
    variance = covariance[0] * half / (half - 1)
    total = covariance[0] + jnp.var(jnp.mean(z, axis=0), ddof=1)
    correlation = 1 - (variance - covariance) / total
    pairs = correlation.at[0].set(1.0)[: half - half % 2].reshape(-1, 2).sum(axis=1)
    positive = jnp.cumprod(pairs > 0)  # Geyer (1992): positive to begin with, and never rising
    pairs = jax.lax.cummin(jnp.where(positive, pairs, 0.0))
    time = jnp.maximum(2 * jnp.sum(pairs) - 1, 1 / np.log10(z.size))
    return z.size / time


def _normal_scores(x: Array) -> Array:
    """Normal quantiles of the ranks among all values; equal ones share the mean of theirs."""
    ranked = jnp.sort(x.ravel())
    below, upto = (jnp.searchsorted(ranked, x, side=side) for side in ("left", "right"))
    return ndtri(((below + upto + 1) / 2 - 0.375) / (x.size + 0.25))


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
        & Gelman 2014) of the mean acceptance; jumps from kernels at the particles of another run.
    """
    key_start, key_jump, key_tune = jax.random.split(key, 3)
    x = spread_points(log_density, n_dim, key=key_start)
    above = _above_normal(log_density)
    proposal, particles = smc.propose(above, n_dim, smc.EFFORT, key=key_jump)
    log_evidence = jnp.where(particles.settled, particles.log_evidence, -jnp.inf)
    state = _states(log_density, x[: effort.chains])
    walk = Walk(state, _factor(x), jnp.asarray(_FIRST_STEP), proposal, log_evidence)

    def half(so_far: tuple[Walk, Array], key: Array) -> tuple[tuple[Walk, Array], None]:
        walk, factor = so_far
        walk, x = _tune(log_density, walk._replace(factor=factor), effort, key=key)
        return (walk, _factor(x[effort.warm_up // 2 :].reshape(-1, n_dim))), None

    (walk, _), _ = jax.lax.scan(half, (walk, walk.factor), jax.random.split(key_tune, 2))
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
        from ranges (Neal 2011, section 5.3.2); jumps are Metropolis-Hastings steps whose proposal
        does not depend on where the chain is (Tierney 1994). Tested against closed forms
        (tests/test_chains.py).
    """

    def iterate(state: HMCState, key: Array) -> tuple[HMCState, tuple[Array, ...]]:
        key_walk, key_jump = jax.random.split(key)
        now = walk._replace(state=state)
        state, accepted, steps = _iterate(log_density, now, effort, key_walk)
        state, jumped = _jump(log_density, now._replace(state=state), effort, key_jump)
        return state, (state.position, accepted, jumped, steps)

    keys = jax.random.split(key, number)
    state, (x, accepted, jumped, steps) = jax.lax.scan(iterate, walk.state, keys)
    gradients = effort.chains * jnp.sum(steps.astype(float) + effort.jumps)
    return walk._replace(state=state), Path(x, jnp.mean(accepted), jnp.mean(jumped), gradients)


def spread_points(log_density: LogDensity, n_dim: int, *, key: Array) -> Float[Array, "point d"]:
    """Points of the heated density, from N(0, 1) by tempered sequential Monte Carlo."""
    above = _above_normal(log_density)
    return smc.sample_particles(lambda x: _HEAT * above(x), n_dim, _START, key=key).x


def _above_normal(log_density: LogDensity) -> smc.LogLikelihood:
    """What is left of a density over N(0, 1): the likelihood where that is the prior."""
    return lambda x: jax.vmap(log_density)(x) - jnp.sum(norm.logpdf(x), axis=-1)


def _states(log_density: LogDensity, x: Float[Array, "chain d"]) -> HMCState:
    """The states of chains at some points."""
    return jax.vmap(lambda point: blackjax.hmc.init(point, log_density))(x)


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
    kernel, inverse = blackjax.hmc.build_kernel(), invert_lower(walk.factor)

    def log_density_white(x: Float[Array, " d"]) -> Float[Array, ""]:
        return log_density(walk.factor @ x)

    def one(key: Array, state: HMCState) -> tuple[HMCState, Array]:
        white = _mapped(state, inverse, walk.factor)
        unit = jnp.ones(len(inverse))
        white, info = kernel(key, white, log_density_white, size, unit, steps)
        moved = _mapped(white, walk.factor, inverse)
        kept = jax.tree.map(lambda new, old: jnp.where(info.is_accepted, new, old), moved, state)
        return kept, info.acceptance_rate

    state, accepted = jax.vmap(one)(jax.random.split(key_chains, effort.chains), walk.state)
    return state, jnp.mean(jnp.nan_to_num(accepted)), steps


def _mapped(state: HMCState, by: Array, back: Array) -> HMCState:
    """A chain in coordinates that are linear in these."""
    return HMCState(by @ state.position, state.logdensity, back.T @ state.logdensity_grad)


def _jump(
    log_density: LogDensity, walk: Walk, effort: Effort, key: Array
) -> tuple[HMCState, Array]:
    """Some points proposed to each chain from the fixed density; the share that was accepted."""

    def once(so_far: tuple[HMCState, Array], key: Array) -> tuple[tuple[HMCState, Array], Array]:
        state, log_over = so_far
        key_x, key_order, key_accept = jax.random.split(key, 3)
        x = walk.proposal.sample(effort.chains, key=key_x)
        x = jax.random.permutation(key_order, x)  # their kernels are in order
        proposed = _states(log_density, x)
        log_over_proposed = proposed.logdensity - walk.proposal.log_prob(x)
        level = jnp.log(jax.random.uniform(key_accept, (effort.chains,)))
        accept = level < log_over_proposed - log_over
        state = jax.tree.map(
            lambda new, old: jnp.where(accept.reshape(-1, *[1] * (new.ndim - 1)), new, old),
            proposed,
            state,
        )
        return (state, jnp.where(accept, log_over_proposed, log_over)), jnp.mean(accept)

    log_over = walk.state.logdensity - walk.proposal.log_prob(walk.state.position)
    keys = jax.random.split(key, effort.jumps)
    (state, _), accepted = jax.lax.scan(once, (walk.state, log_over), keys)
    return state, jnp.mean(accepted)


def _factor(x: Float[Array, "point d"]) -> Float[Array, "d d"]:
    """Cholesky factor of points' covariance, its correlations shrunk: few points do for many d."""
    covariance = jnp.cov(x, rowvar=False).reshape(x.shape[1], x.shape[1])
    diagonal = jnp.diag(jnp.diag(covariance) + 1e-12)
    return cholesky(_KEPT * covariance + (1 - _KEPT) * diagonal)
