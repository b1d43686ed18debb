"""Kernel mixtures: the stated density is that of the draws, whatever the points' shape."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, multivariate_t

from tinsley.density.kernels import KernelMixture, fit_kernel_mixture

N_POINTS = 500


def blob(rng):
    return rng.normal(size=(N_POINTS, 3)) @ np.array([[1.0, 0.9, 0], [0, 0.1, 0], [0, 0, 2.0]])


def two_far_apart(rng):
    return 0.1 * rng.normal(size=(N_POINTS, 3)) + 5.0 * np.sign(rng.normal(size=(N_POINTS, 1)))


def bent(rng):
    x = rng.normal(size=(N_POINTS, 3))
    return np.stack([x[:, 0], x[:, 0] ** 2 + 0.1 * x[:, 1], 0.1 * x[:, 2]], axis=1)


SHAPES = {"blob": blob, "two_far_apart": two_far_apart, "bent": bent}


@pytest.fixture(params=SHAPES)
def points(request) -> np.ndarray:
    return SHAPES[request.param](np.random.default_rng(2))


def test_log_prob_is_that_of_scipys_student_mixture(points):
    mixture = fit_kernel_mixture(jnp.asarray(points, dtype=float))
    x = points[::10] + 0.1
    scale = np.asarray(mixture.scale, float)
    kernels = [multivariate_t(c, s @ s.T, df=8) for c, s in zip(points, scale, strict=True)]
    expected = logsumexp([kernel.logpdf(x) for kernel in kernels], axis=0) - np.log(N_POINTS)
    np.testing.assert_allclose(
        mixture.log_prob(jnp.asarray(x, dtype=float)), expected, rtol=1e-3, atol=2e-3
    )


def test_draws_follow_the_density(points, key):
    """The mean of p/q over draws from q is 1 for any normalised p that q covers."""
    mixture = fit_kernel_mixture(jnp.asarray(points, dtype=float))
    x = mixture.sample(20_000, key=key)
    log_q = np.asarray(mixture.log_prob(x), float)
    for i, width in ((0, 0.5), (1, 0.7), (2, 0.9)):
        scale = width * np.asarray(mixture.scale[i], float)
        log_p = multivariate_normal(points[i], scale @ scale.T).logpdf(np.asarray(x))
        ratio = np.exp(log_p - log_q)
        error = ratio.std() / np.sqrt(len(ratio))
        assert error < 0.1
        assert abs(ratio.mean() - 1) < 4 * error


def test_kernels_follow_a_bend(key):
    """Thin across the curve, where one covariance for all would be thick."""
    points = bent(np.random.default_rng(3))
    x = np.asarray(fit_kernel_mixture(jnp.asarray(points, dtype=float)).sample(5000, key=key))
    across = np.quantile(np.abs(x[:, 1] - x[:, 0] ** 2), 0.5)
    assert across < 0.4 * np.quantile(np.abs(points[:, 1] - points[:, 1].mean()), 0.5)


@pytest.mark.parametrize("number", [7, 10, 1000])
def test_every_kernel_gets_its_share(number, key):
    centre = 100.0 * jnp.arange(10.0)[:, None]
    x = KernelMixture(centre, 0.1 * jnp.ones((10, 1, 1))).sample(number, key=key)
    counts = np.bincount(np.round(np.asarray(x)[:, 0] / 100).astype(int).clip(0, 9), minlength=10)
    assert counts.sum() == number
    assert counts.max() - counts.min() <= 1


def test_points_that_coincide_give_a_finite_density(key):
    points = jnp.concatenate([jnp.zeros((100, 2)), jax.random.normal(key, (100, 2))])
    mixture = fit_kernel_mixture(points)
    assert np.all(np.isfinite(mixture.log_prob(mixture.sample(500, key=key))))
