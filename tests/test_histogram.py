"""The conditional histogram: a density, draws that follow it, and learning a known one."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from tinsley.density.histogram import make_histogram
from tinsley.density.train import Schedule, start_training, train_block

CONFIG = {"bins": 40, "width": 16, "depth": 1}


@pytest.fixture
def density(key):
    made = make_histogram(CONFIG, 2, (-1.0, 3.0), key=key)
    return jax.tree.map(lambda x: 4 * x if eqx.is_inexact_array(x) else x, made)  # not flat


def test_it_is_a_density(density):
    y = jnp.linspace(-1, 3, 40_001)
    total = jnp.trapezoid(jnp.exp(density.log_prob(y, jnp.ones(2))), y)
    assert float(total) == pytest.approx(1.0, abs=2e-3)
    assert np.isneginf(np.asarray(density.log_prob(jnp.array([-1.01, 3.01]), jnp.ones(2)))).all()


def test_draws_follow_the_density(density, key):
    y, log_q = density.sample_and_log_prob(4000, jnp.ones(2), key=key)
    np.testing.assert_allclose(log_q, density.log_prob(y, jnp.ones(2)), atol=2e-3)
    edges = np.linspace(-1, 3, 41)
    middle = jnp.asarray(0.5 * (edges[1:] + edges[:-1]), dtype=float)
    expected = np.exp(np.asarray(density.log_prob(middle, jnp.ones(2)))) * 0.1
    found = np.histogram(y, edges)[0] / 4000
    np.testing.assert_allclose(found, expected, atol=2 / 4000)  # stratified: a draw to either side


def gaussians(number, key):
    """y | f ~ N(f, 0.3) with f uniform in (0, 2)."""
    key_f, key_y = jax.random.split(key)
    f = jax.random.uniform(key_f, (number, 1), maxval=2.0)
    return f, f[:, 0] + 0.3 * jax.random.normal(key_y, (number,))


def loss(model, number, key):
    f, y = gaussians(number, key)
    return -jnp.mean(jax.vmap(model.log_prob)(jnp.clip(y, -1, 3), f))


def test_it_learns_a_known_density(key):
    schedule = Schedule(steps=1500, batch=256)
    start = start_training(make_histogram(CONFIG, 1, (-1.0, 3.0), key=key), schedule)
    state, _ = train_block((256, loss, schedule, 1500), start, key)
    for f in (0.3, 1.0, 1.7):
        y, _ = state.average.sample_and_log_prob(4000, jnp.array([f]), key=key)
        # bins of 0.1 round the edges by 0.03
        assert stats.kstest(np.asarray(y, float), "norm", (f, 0.3)).statistic < 0.05
