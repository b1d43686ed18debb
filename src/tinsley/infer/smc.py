"""Tempered sequential Monte Carlo: a proposal for targets that no trained density fits.

Particles go from the prior to the posterior through ever higher powers of the likelihood: they need
no start and find several modes. Kernels around them then make a proposal of known density, to be
weighted as a flow's draws are: the same effective sample size, k-hat and evidence, which are right
even where the particles have not settled, and say so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.mcmc.random_walk import build_additive_step, normal
from blackjax.smc import extend_params
from blackjax.smc.resampling import systematic
from jax.scipy.stats import norm
from jaxtyping import Array, Bool, Float

from tinsley.density.kernels import KernelMixture, fit_kernel_mixture
from tinsley.density.triangular import cholesky

LogLikelihood = Callable[[Float[Array, "point d"]], Float[Array, " point"]]

_LOWEST = -1e30
"""ln of a likelihood that is 0: finite, so that a power of it is defined."""
_STEP_RANGE = (0.1, 1.35)
"""Steps are a log-uniform multiple of the best for a normal target: short ones serve bent ones."""
_PILOT_DRAWS = 4096


class Effort(NamedTuple):
    """How hard to work.

    Attributes:
        particles: How many.
        steps: Random-walk steps of each at each temperature.
        kept_ess: Each temperature is as much higher as leaves this share of effective particles.
        most_temperatures: Give up beyond.
    """

    particles: int = 1024
    steps: int = 20
    kept_ess: float = 0.7
    most_temperatures: int = 100


EFFORT = Effort()
"""Enough for nearly all galaxies, at 1-2 seconds of a core each (benchmarks/refine.py)."""


class Particles(NamedTuple):
    """Equally weighted particles.

    Attributes:
        x: [particle, d].
        log_evidence: ln of the likelihood's mean over the prior.
        settled: False if the posterior was not reached.
        temperatures: How many it took.
    """

    x: Float[Array, "particle d"]
    log_evidence: Float[Array, ""]
    settled: Bool[Array, ""]
    temperatures: Array


def sample_particles(
    log_likelihood: LogLikelihood, n_dim: int, effort: Effort, *, key: Array
) -> Particles:
    """Particles of a posterior whose prior is N(0, 1) in each dimension.

    Args:
        log_likelihood: Of many points at once; NaN counts as 0 likelihood.
        n_dim: Dimensions.
        effort: How hard to work.
        key: Random key.

    Source:
        Del Moral, Doucet & Jasra (2006) as blackjax has it, with random-walk steps along the
        particles' covariance; tested against closed forms (tests/test_smc.py).
    """
    key_start, key_run = jax.random.split(key)
    start = jax.random.normal(key_start, (effort.particles, n_dim))
    smc = blackjax.inner_kernel_tuning(
        smc_algorithm=blackjax.adaptive_tempered_smc,
        logprior_fn=lambda x: jnp.sum(norm.logpdf(x)),
        loglikelihood_fn=lambda x: _finite(log_likelihood(x[None])[0]),
        mcmc_step_fn=_move,
        mcmc_init_fn=blackjax.rmh.init,
        resampling_fn=systematic,
        mcmc_parameter_update_fn=lambda key, state, info: _step_scale(state.particles),
        initial_parameter_value=_step_scale(start),
        num_mcmc_steps=effort.steps,
        target_ess=effort.kept_ess,
    )

    def heat(run: _Run) -> _Run:
        key, key_step = jax.random.split(run.key)
        state, info = smc.step(key_step, run.state)
        log_evidence = run.log_evidence + info.log_likelihood_increment
        return _Run(state, log_evidence, run.temperatures + 1, _is_hot(run.state), key)

    run = jax.lax.while_loop(
        lambda run: ~run.done & (run.temperatures < effort.most_temperatures),
        heat,
        _Run(smc.init(start), jnp.zeros(()), jnp.asarray(0), jnp.zeros((), bool), key_run),
    )
    settled = run.done & jnp.isfinite(run.log_evidence)
    return Particles(run.state.sampler_state.particles, run.log_evidence, settled, run.temperatures)


class _Run(NamedTuple):
    """Where a run is: done once its particles have moved at the full likelihood."""

    state: Any
    log_evidence: Array
    temperatures: Array
    done: Array
    key: Array


def _is_hot(state: Any) -> Array:
    """True once the full likelihood is reached; a step from there resamples and moves."""
    return state.sampler_state.tempering_param >= 1.0


def propose(
    log_likelihood: LogLikelihood, n_dim: int, effort: Effort, *, key: Array
) -> tuple[KernelMixture, Particles]:
    """A proposal of known density that covers the posterior, and the particles behind it.

    Kernels at half of the particles, and at as many points drawn from kernels at all of them and
    resampled by weight (truncated, so that no point takes all places).

    Args:
        log_likelihood: As for `sample_particles`.
        n_dim: Dimensions.
        effort: How hard to work.
        key: Random key.

    Source:
        Population Monte Carlo (Cappé et al. 2004), begun at the particles; weights truncated as by
        Ionides (2008). What is made of it is a proposal only: weights make it exact.
    """
    key_smc, key_pilot, key_again = jax.random.split(key, 3)
    particles = sample_particles(log_likelihood, n_dim, effort, key=key_smc)
    first = fit_kernel_mixture(particles.x)
    x = first.sample(_PILOT_DRAWS, key=key_pilot)
    log_prior = jnp.sum(norm.logpdf(x), axis=-1)
    log_weight = _finite(log_likelihood(x)) + log_prior - first.log_prob(x)
    log_mean = jax.nn.logsumexp(log_weight) - np.log(_PILOT_DRAWS)
    log_weight = jnp.minimum(log_weight, log_mean + 0.5 * np.log(_PILOT_DRAWS))
    half = effort.particles // 2
    again = x[systematic(key_again, jax.nn.softmax(log_weight), half)]
    return fit_kernel_mixture(jnp.concatenate([particles.x[::2], again])), particles


def _finite(log_likelihood: Array) -> Array:
    return jnp.where(log_likelihood > _LOWEST, log_likelihood, _LOWEST)


def _step_scale(particles: Array) -> dict[str, Array]:
    """The random walk's step for a normal target of the particles' covariance."""
    n_dim = particles.shape[1]
    covariance = jnp.cov(particles, rowvar=False).reshape(n_dim, n_dim) + 1e-6 * jnp.eye(n_dim)
    return extend_params({"scale": 2.38 / np.sqrt(n_dim) * cholesky(covariance)})


def _move(
    key: Array, state: Any, log_density: Callable[[Array], Array], scale: Array
) -> tuple[Any, Any]:
    """One random-walk Metropolis step of one particle."""
    key_size, key_step = jax.random.split(key)
    low, high = np.log(_STEP_RANGE)
    size = jnp.exp(jax.random.uniform(key_size, minval=low, maxval=high))
    return build_additive_step()(key_step, state, log_density, normal(size * scale))
