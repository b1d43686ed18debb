"""Tempered sequential Monte Carlo against targets whose evidence and moments are known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import multivariate_normal, norm
from scipy import stats

from tinsley.infer.importance import pareto_smooth
from tinsley.infer.smc import EFFORT, propose, sample_particles

N_DIM = 6
N_DRAWS = 4096
LIGHT = EFFORT._replace(particles=512, steps=15)


class Linear:
    """data = design x + noise, x of N(0, 1): posterior and evidence are Gaussian integrals."""

    def __init__(self) -> None:
        rng = np.random.default_rng(1)
        self.design = rng.normal(size=(4, N_DIM))
        self.sigma = np.array([0.02, 0.1, 0.3, 1.0])
        self.data = self.design @ rng.normal(size=N_DIM)
        spread = self.design @ self.design.T + np.diag(self.sigma**2)
        self.log_evidence = stats.multivariate_normal(np.zeros(4), spread).logpdf(self.data)
        precision = np.eye(N_DIM) + (self.design.T / self.sigma**2) @ self.design
        self.covariance = np.linalg.inv(precision)
        self.mean = self.covariance @ (self.design.T @ (self.data / self.sigma**2))

    def log_likelihood(self, x):
        design, data, sigma = (jnp.asarray(a, float) for a in (self.design, self.data, self.sigma))
        return jnp.sum(norm.logpdf(data, x @ design.T, sigma), axis=-1)


class TwoModes:
    """Two narrow peaks of likelihood: the one less favoured by the prior is the higher."""

    centres = np.array([np.full(N_DIM, 1.2), np.full(N_DIM, -0.8)])
    width, shares = 0.1, np.array([0.7, 0.3])

    def __init__(self) -> None:
        wide = np.sqrt(1 + self.width**2)
        log_mass = np.log(self.shares) + stats.norm.logpdf(self.centres, scale=wide).sum(axis=1)
        self.log_evidence = np.logaddexp(*log_mass)
        self.of_first = np.exp(log_mass[0] - self.log_evidence)

    def log_likelihood(self, x):
        covariance = self.width**2 * jnp.eye(N_DIM)
        peaks = [
            np.log(share) + multivariate_normal.logpdf(x, jnp.asarray(centre, float), covariance)
            for share, centre in zip(self.shares, self.centres, strict=True)
        ]
        return jnp.logaddexp(*peaks)


def weighted(target, key):
    """Points and weights of the proposal that the particles make."""

    @jax.jit
    def run(key):
        key_smc, key_x = jax.random.split(key)
        proposal, particles = propose(target.log_likelihood, N_DIM, LIGHT, key=key_smc)
        x = proposal.sample(N_DRAWS, key=key_x)
        log_weight = target.log_likelihood(x) + norm.logpdf(x).sum(axis=1) - proposal.log_prob(x)
        return x, log_weight, pareto_smooth(log_weight), particles.settled

    return run(key)


@pytest.fixture(scope="module")
def linear():
    return Linear()


@pytest.fixture(scope="module")
def linear_draws(linear):
    return weighted(linear, jax.random.key(4))


@pytest.fixture(scope="module")
def two_modes():
    return TwoModes()


@pytest.fixture(scope="module")
def two_modes_draws(two_modes):
    return weighted(two_modes, jax.random.key(5))


def evidence(log_weight) -> tuple[float, float]:
    """Of the weights, and its relative error."""
    weight = np.exp(np.asarray(log_weight, float) - np.max(log_weight))
    error = weight.std() / weight.mean() / np.sqrt(len(weight))
    return float(np.log(weight.mean()) + np.max(log_weight)), error


def test_linear_model_has_its_evidence_and_moments(linear, linear_draws):
    x, log_weight, psis, settled = linear_draws
    assert bool(settled)
    assert float(psis.ess) > 0.3 * N_DRAWS
    assert float(psis.khat) < 0.5
    found, error = evidence(log_weight)
    assert error < 0.05
    assert abs(found - linear.log_evidence) < 4 * error
    weight, x = np.exp(np.asarray(psis.log_weight, float)), np.asarray(x, float)
    spread = np.sqrt(np.diag(linear.covariance))
    np.testing.assert_allclose(
        (weight @ x - linear.mean) / spread, 0, atol=4 / np.sqrt(float(psis.ess))
    )
    np.testing.assert_allclose(
        np.cov(x.T, aweights=weight) / np.outer(spread, spread),
        linear.covariance / np.outer(spread, spread),
        atol=0.15,
    )


def test_both_modes_have_their_weights(two_modes, two_modes_draws):
    x, log_weight, psis, settled = two_modes_draws
    assert bool(settled)
    found, error = evidence(log_weight)
    assert error < 0.1
    assert abs(found - two_modes.log_evidence) < 4 * error
    weight = np.exp(np.asarray(psis.log_weight, float))
    first = weight @ (np.asarray(x)[:, 0] > 0)
    assert 0.05 < two_modes.of_first < 0.95
    assert abs(first - two_modes.of_first) < 4 * error


def test_particles_alone_are_near_and_count_their_temperatures(linear):
    particles = jax.jit(lambda key: sample_particles(linear.log_likelihood, N_DIM, LIGHT, key=key))(
        jax.random.key(6)
    )
    assert bool(particles.settled)
    assert 5 < int(particles.temperatures) < 60
    assert abs(float(particles.log_evidence) - linear.log_evidence) < 1.0
    spread = np.sqrt(np.diag(linear.covariance))
    assert np.max(np.abs(np.asarray(particles.x).mean(axis=0) - linear.mean) / spread) < 0.4


def test_a_sampler_that_gives_up_says_so(linear):
    short = LIGHT._replace(most_temperatures=3)
    particles = jax.jit(lambda key: sample_particles(linear.log_likelihood, N_DIM, short, key=key))(
        jax.random.key(6)
    )
    assert not bool(particles.settled)
    assert int(particles.temperatures) == 3


def test_no_likelihood_anywhere_is_finite_arithmetic(key):
    particles = jax.jit(
        lambda key: sample_particles(lambda x: jnp.full(x.shape[0], jnp.nan), 2, LIGHT, key=key)
    )(key)
    assert not bool(particles.settled)
    assert np.all(np.isfinite(particles.x))
