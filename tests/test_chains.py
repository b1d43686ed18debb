"""Long chains against closed forms, with the errors that their effective sample sizes give."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arviz_stats.base import array_stats
from jax.scipy.stats import norm

from tinsley.infer.chains import (
    EFFORT,
    measure_mixing,
    sample_chains,
    spread_points,
    walk_on,
    warm_up,
)

MEAN = jnp.asarray([0.5, -1.0, 0.2])
ROOT = jnp.asarray([[0.4, 0.0, 0.0], [0.3, 0.05, 0.0], [-0.5, 0.02, 0.8]])
"""Cholesky factor of the covariance: correlations of 0.99, widths from 0.3 to 0.9."""


def correlated(x):
    z = jax.scipy.linalg.solve_triangular(ROOT, x - MEAN, lower=True)
    return -0.5 * jnp.sum(z**2)


def bent(x):
    """x0 ~ N(0, 1); x1 given x0 ~ N(x0^2 - 1, 0.3^2): a ridge that no covariance describes."""
    return norm.logpdf(x[0]) + norm.logpdf((x[1] - x[0] ** 2 + 1.0) / 0.3) + norm.logpdf(x[2])


SHARE = 0.7
"""Of the right one of two modes."""


def far_apart(x):
    """Two modes 80 standard deviations apart."""
    left, right = (jnp.sum(norm.logpdf((x - c) / 0.05)) for c in (-2.0, 2.0))
    return jnp.logaddexp(jnp.log(1 - SHARE) + left, jnp.log(SHARE) + right)


def cut(x):
    """A normal density cut at 0: a wall in the middle of it."""
    return jnp.sum(norm.logpdf(x)) + jnp.where(x[0] > 0, 0.0, -jnp.inf)


TARGETS = (correlated, bent, far_apart, cut)


@eqx.filter_jit
def _chains(number, target, effort, key):
    """Compiled once for all targets, each in three dimensions."""
    key_start, key_walk = jax.random.split(key)

    def log_density(x):
        return jax.lax.switch(target, TARGETS, x)

    walk = warm_up(log_density, 3, effort, key=key_start)
    return walk_on(log_density, walk, number, effort, key=key_walk)[1]


def chains(density, key, effort=EFFORT):
    return _chains(300, jnp.asarray(TARGETS.index(density)), effort, key)


def convergence(x):
    """Largest R-hat and least effective sample size of all dimensions."""
    axes = {"chain_axis": 1, "draw_axis": 0}
    each = [np.asarray(x[..., k], float) for k in range(x.shape[-1])]
    return max(array_stats.rhat(v, **axes) for v in each), min(
        array_stats.ess(v, **axes) for v in each
    )


def moments(x):
    """Mean and covariance of all draws, and the error of a mean in standard deviations."""
    _, ess = convergence(x)
    flat = np.asarray(x, float).reshape(-1, x.shape[-1])
    return flat.mean(axis=0), np.cov(flat, rowvar=False), 1 / np.sqrt(float(ess))


@pytest.mark.slow
def test_correlated_normal(key):
    """5 standard errors in each of 9 numbers: a false alarm in 200,000 runs."""
    path = chains(correlated, key)
    mean, covariance, error = moments(path.x)
    true = np.asarray(ROOT @ ROOT.T)
    sigma = np.sqrt(np.diag(true))
    rhat, ess = convergence(path.x)
    assert rhat < 1.02
    assert ess > 1000
    np.testing.assert_array_less(np.abs(mean - MEAN) / sigma, 5 * error)
    np.testing.assert_array_less(
        np.abs(covariance - true) / np.outer(sigma, sigma), 5 * np.sqrt(2) * error
    )
    assert 0.6 < float(path.accepted) < 0.98


@pytest.mark.slow
def test_bent_ridge(key):
    """E[x1] = 0, var x1 = var(x0^2) + 0.3^2 = 2.09."""
    path = chains(bent, key)
    mean, covariance, error = moments(path.x)
    assert convergence(path.x)[0] < 1.02
    assert abs(mean[0]) < 5 * error
    assert abs(mean[1]) < 5 * np.sqrt(2) * error
    assert abs(covariance[0, 0] - 1.0) < 5 * np.sqrt(2) * error
    assert abs(covariance[1, 1] - 2.09) < 5 * np.sqrt(56) * error


@pytest.mark.slow
def test_wall(key):
    """Half a normal: mean sqrt(2 / pi), nothing beyond the wall."""
    path = chains(cut, key)
    mean, _, error = moments(path.x)
    assert float(path.x[..., 0].min()) > 0
    assert abs(mean[0] - np.sqrt(2 / np.pi)) < 5 * np.sqrt(1 - 2 / np.pi) * error
    assert abs(mean[1]) < 5 * error


@pytest.mark.slow
def test_jumps_take_chains_from_mode_to_mode(key):
    """Each chain visits both, and the share of one is known."""
    path = chains(far_apart, key)
    right = np.asarray(path.x[..., 0]) > 0
    rhat, ess = convergence(path.x)
    assert rhat < 1.02
    assert right.any(axis=0).all()
    assert abs(right.mean() - SHARE) < 5 * np.sqrt(SHARE * (1 - SHARE) / ess)
    assert float(path.jumped) > 0.1


@pytest.mark.parametrize("persistence", [0.0, 0.9])
def test_mixing_is_measured_as_arviz_does(persistence):
    """Chains that wander, of which one is wider and one shifted."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(200, 6, 2))
    for k in range(1, 200):
        x[k] = persistence * x[k - 1] + np.sqrt(1 - persistence**2) * x[k]
    x[:, 0, 0], x[:, 1, 1] = 2 * x[:, 0, 0], x[:, 1, 1] + 0.5
    rhat, ess = eqx.filter_jit(measure_mixing)(jnp.asarray(x, float))
    expected = convergence(x)
    assert float(rhat) == pytest.approx(expected[0], rel=1e-4)
    assert float(ess) == pytest.approx(expected[1], rel=0.03)  # arviz ends its sum elsewhere


@eqx.filter_jit
def _gone_on_with(most_rounds, key):
    effort = EFFORT._replace(most_rounds=most_rounds)
    return sample_chains(bent, 3, 256, effort, key=key)


@pytest.mark.slow
def test_chains_go_on_until_they_mix(key):
    """The density's integral is 0.3, for the second factor is not over its width."""
    found = _gone_on_with(jnp.asarray(6), key)
    rhat, ess = convergence(found.x)
    assert float(found.rhat) == pytest.approx(rhat, abs=1e-3)
    assert float(found.ess) == pytest.approx(ess, rel=0.05)
    assert rhat < 1.01
    mean, covariance, error = moments(found.x)
    assert abs(mean[1]) < 5 * np.sqrt(2) * error
    assert abs(covariance[1, 1] - 2.09) < 5 * np.sqrt(56) * error
    assert float(found.log_evidence) == pytest.approx(np.log(0.3), abs=0.15)
    none = _gone_on_with(jnp.asarray(0), key)
    assert not float(none.rhat) < 1.01
    assert not float(none.ess) >= 100


def test_modes_that_do_not_mix_are_found_and_flagged(key):
    path = chains(far_apart, key, EFFORT._replace(jumps=0))
    at = np.asarray(path.x[-1, :, 0])
    assert (at < 0).any()
    assert (at > 0).any()
    assert convergence(path.x)[0] > 1.1


def test_start_is_wider_than_the_density(key):
    """The square root of the heat: N(0, 1)^(3/4) N(0.5, 0.1)^(1/4) has a width of 0.197."""
    heated = 1 / np.sqrt(0.75 + 0.25 / 0.01)
    x = spread_points(lambda x: jnp.sum(norm.logpdf((x - 0.5) / 0.1)), 1, key=key)
    assert float(jnp.std(x)) == pytest.approx(heated, rel=0.15)
