"""Importance weights: against arviz-stats, NumPy and closed forms."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arviz_stats.base import array_stats

from tinsley.infer.importance import (
    fit_generalised_pareto,
    is_weak,
    pareto_smooth,
    weighted_summary,
)

RNG = np.random.default_rng(11)
N = 1024  # arviz rounds the length of the tail down, we (and loo) up: the same for a square


def some_possible(share: float) -> np.ndarray:
    log_weight = RNG.normal(size=N)
    log_weight[RNG.random(N) > share] = -np.inf
    return log_weight


LOG_WEIGHTS = {
    "nearly_equal": 0.01 * RNG.normal(size=N),
    "light": RNG.normal(size=N),
    "heavy": 3.0 * RNG.normal(size=N),
    "heavier": 10.0 * RNG.normal(size=N) - 5000.0,
    "cauchy": np.log(np.abs(RNG.standard_cauchy(N))),
    "pareto": -0.7 * np.log(RNG.random(N)),
    "bounded": np.log(RNG.random(N)),
    "offset": RNG.normal(size=N) + 80.0,
    "half_impossible": some_possible(0.5),
    "few": 2.0 * RNG.normal(size=100),
}


@pytest.mark.slow
@pytest.mark.parametrize("log_weight", LOG_WEIGHTS.values(), ids=LOG_WEIGHTS.keys())
def test_smoothing_is_that_of_arviz(log_weight):
    log_weight = log_weight.astype(np.float32).astype(float)
    expected, khat = array_stats.psislw(-log_weight)
    got = pareto_smooth(jnp.asarray(log_weight, dtype=float))
    assert float(got.khat) == pytest.approx(khat, abs=2e-3)
    weight, expected_weight = np.exp(np.asarray(got.log_weight, float)), np.exp(expected)
    np.testing.assert_allclose(weight, expected_weight, rtol=5e-3, atol=1e-6)


@pytest.mark.parametrize("log_weight", LOG_WEIGHTS.values(), ids=LOG_WEIGHTS.keys())
def test_ess_is_kishs_of_the_raw_weights(log_weight):
    weight = np.exp(log_weight - log_weight.max())
    got = pareto_smooth(jnp.asarray(log_weight, dtype=float))
    expected = weight.sum() ** 2 / np.sum(weight**2)
    assert float(got.ess) == pytest.approx(expected, rel=2e-3)
    assert float(jax.nn.logsumexp(got.log_weight)) == pytest.approx(0.0, abs=1e-5)


def test_order_and_scale_of_the_weights_do_not_matter():
    log_weight = LOG_WEIGHTS["heavy"]
    order = RNG.permutation(N)
    plain = pareto_smooth(jnp.asarray(log_weight, dtype=float))
    other = pareto_smooth(jnp.asarray(log_weight[order] + 3.0, dtype=float))
    np.testing.assert_allclose(plain.log_weight[order], other.log_weight, atol=1e-4)
    assert float(plain.khat) == pytest.approx(float(other.khat), abs=1e-3)


def test_impossible_draws_keep_weight_zero():
    log_weight = np.full(N, -np.inf)
    log_weight[[3, 500, 900]] = [-7.0, -8.0, -9.0]
    got = pareto_smooth(jnp.asarray(log_weight, dtype=float))
    assert np.flatnonzero(np.isfinite(got.log_weight)).tolist() == [3, 500, 900]
    assert float(got.khat) > 0.7
    assert float(got.ess) < 3.0


def test_equal_weights_are_as_good_as_can_be():
    got = pareto_smooth(jnp.full(400, -3.0))
    assert float(got.ess) == pytest.approx(400.0, rel=1e-4)
    assert float(got.khat) < 0.7
    np.testing.assert_allclose(got.log_weight, -np.log(400.0), atol=1e-4)


def test_nothing_possible_is_nan_not_a_number_that_looks_good():
    got = pareto_smooth(jnp.full(N, -jnp.inf))
    assert jnp.isnan(got.ess)
    assert not got.khat <= 0.7


@pytest.mark.parametrize("shape", [-0.3, 0.2, 0.7, 1.0])
def test_pareto_fit_recovers_the_shape(shape):
    """Posterior mean of a shape: 5 standard errors of the maximum likelihood, (1 + k) / sqrt(n)."""
    n = 5000
    level = np.random.default_rng(5).random(n)
    excess = np.sort(2.0 * np.expm1(-shape * np.log1p(-level)) / shape)
    khat, scale = fit_generalised_pareto(jnp.asarray(excess, dtype=float))
    tolerance = 5 * max(1 + shape, 0.5) / np.sqrt(n)
    assert float(khat) == pytest.approx(shape, abs=tolerance)
    assert float(scale) == pytest.approx(2.0, rel=2 * tolerance)


@pytest.mark.parametrize("name", ["normal", "skewed", "offset"])
def test_summary_is_numpys_of_repeated_draws(name):
    rng = np.random.default_rng(sum(map(ord, name)))
    values = {
        "normal": rng.normal(size=301),
        "skewed": np.exp(2 * rng.normal(size=301)),
        "offset": 11.0 + 0.05 * rng.normal(size=301),
    }[name]
    counts = rng.integers(0, 6, size=301)
    repeated = np.repeat(values, counts)
    got = weighted_summary(
        jnp.asarray(values, dtype=float), jnp.asarray(counts / counts.sum(), dtype=float)
    )
    assert float(got["mean"]) == pytest.approx(repeated.mean(), rel=1e-5, abs=1e-5)
    assert float(got["std"]) == pytest.approx(repeated.std(), rel=1e-3)
    for label, level in (("q16", 0.16), ("q50", 0.5), ("q84", 0.84)):
        expected = np.quantile(repeated, level, method="inverted_cdf")
        assert float(got[label]) == pytest.approx(expected, rel=1e-5, abs=1e-5), label


def test_summary_of_one_draw_with_all_the_weight():
    values, weight = jnp.asarray([3.0, -1.0, 8.0]), jnp.asarray([0.0, 1.0, 0.0])
    got = weighted_summary(values, weight)
    for label in ("mean", "q16", "q50", "q84"):
        assert float(got[label]) == pytest.approx(-1.0, abs=1e-6)
    assert float(got["std"]) == 0.0


def test_a_flat_profile_of_shapes_is_no_nan():
    """A grid point may fall on shape 0, where a rounding error decides its sign."""
    number, n_grid = 40, 36
    grid = 1.0 - np.sqrt(n_grid / (np.arange(1, n_grid + 1) - 0.5))
    for j in (9, 12, 20):
        last = np.float32(-3.0 / grid[j])
        for _ in range(20):
            last = np.nextafter(last, np.float32(0))
            excess = np.sort(np.append(np.linspace(0.5, 1.5, number - 1), last))
            excess[int(number / 4 + 0.5) - 1] = 1.0
            khat, scale = fit_generalised_pareto(jnp.asarray(np.sort(excess), dtype=float))
            assert np.isfinite(khat)
            assert np.isfinite(scale)


def test_weak_is_any_that_can_not_be_shown_good():
    ess = np.array([150.0, 99.0, 150.0, np.nan, 150.0])
    khat = np.array([0.5, 0.5, 0.8, 0.5, np.nan])
    assert is_weak(ess, khat).tolist() == [False, True, True, True, True]


def test_r_hat_takes_the_place_of_k_hat_for_chains():
    ess = np.array([150.0, 99.0, 150.0, 150.0, np.nan])
    rhat = np.array([1.009, 1.0, 1.01, np.nan, 1.0])
    assert is_weak(ess, np.full(5, np.nan), rhat).tolist() == [False, True, True, True, True]
