"""The conditional mixture: a density, deviates that go with it, and learning a known one."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from tinsley.density.mixture import make_mixture
from tinsley.density.train import Schedule, start_training, train_block

CONFIG = {"components": 4, "width": 16, "depth": 1}
ONE = jnp.ones(2)


@pytest.fixture
def density(key):
    made = make_mixture(CONFIG, 2, key=key)
    return jax.tree.map(lambda x: 2 * x if eqx.is_inexact_array(x) else x, made)  # uneven parts


@eqx.filter_jit
def at(density, y, features=ONE):
    """Log-densities and deviates at many points."""
    both = jax.vmap(lambda v: (density.log_prob(v, features), density.deviate(v, features)))
    return both(jnp.asarray(y, dtype=float))


def parts(density) -> list[np.ndarray]:
    """Weights, means and widths by NumPy, in float64."""
    layers = density.network.layers
    hidden = np.asarray(layers[0].weight, float) @ np.ones(2) + np.asarray(layers[0].bias, float)
    hidden = hidden / (1 + np.exp(-hidden))
    out = np.asarray(layers[1].weight, float) @ hidden + np.asarray(layers[1].bias, float)
    log_weight, mean, log_width = out.reshape(3, -1)
    weight = np.exp(log_weight)
    return [weight / weight.sum(), mean + np.linspace(-1, 4, 4), np.exp(log_width)]


def test_density_and_deviates_are_those_of_the_mixture(density):
    weight, mean, width = parts(density)
    y = np.linspace(-4, 7, 45)
    each = stats.norm(mean[:, None], width[:, None])
    log_prob, deviate = at(density, y)
    np.testing.assert_allclose(log_prob, np.log(weight @ each.pdf(y)), rtol=1e-4, atol=1e-4)
    below, above = weight @ each.cdf(y), weight @ each.sf(y)
    expected = np.where(below < above, stats.norm.ppf(below), stats.norm.isf(above))
    np.testing.assert_allclose(deviate, expected, atol=2e-3)


def test_deviates_grow_into_the_tails_and_stay_finite(density):
    deviate = np.asarray(at(density, [-1e6, -100.0, -10.0, 1.0, 10.0, 100.0, 1e6])[1])
    assert np.all(np.isfinite(deviate))
    assert np.all(np.diff(deviate) >= 0)
    assert -13 < deviate[0] < -5 < 5 < deviate[-1] < 13


def gaussians(number, key):
    """y | f ~ N(2 f, 0.1 + 0.2 f), f uniform in (0, 1)."""
    key_f, key_y = jax.random.split(key)
    f = jax.random.uniform(key_f, (number, 1))
    return 2 * f[:, 0] + (0.1 + 0.2 * f[:, 0]) * jax.random.normal(key_y, (number,)), f


def loss(model, number, key):
    return -jnp.mean(jax.vmap(model.log_prob)(*gaussians(number, key)))


def test_it_learns_a_known_density(key):
    """Deviates within 0.3 of the exact ones, to 3 sigma: the size and power of any test on them."""
    schedule = Schedule(steps=1500, batch=256, rate=1e-2)
    start = start_training(make_mixture(CONFIG, 1, key=key), schedule)
    state, _ = train_block((256, loss, schedule, 1500), start, key)
    sigma = jnp.linspace(-3, 3, 25)
    for f in (0.1, 0.5, 0.9):
        found = at(state.average, 2 * f + (0.1 + 0.2 * f) * sigma, jnp.array([f]))[1]
        np.testing.assert_allclose(found, sigma, atol=0.3)
