"""The measurement of benchmarks/agreement.py: its classifier, its oracle, and the whole command."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from tinsley.infer.likelihood import Observation
from tinsley.observe.photometry import photometry
from tinsley.parameters import MASS

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

pytest.importorskip("sklearn", reason="the classifier needs scikit-learn (the extra `test`)")
import oracle  # noqa: E402
from c2st import c2st, power  # noqa: E402
from weighted import kish  # noqa: E402


def test_same_distribution_can_not_be_told_apart():
    """Accuracy of 2,000 guesses, of which neighbours in a fold share their trees: 4 sigma."""
    rng = np.random.default_rng(1)
    found = [c2st(*rng.normal(size=(2, 1000, 10)), seed) for seed in range(4)]
    assert abs(np.mean(found) - 0.5) < 4 * 0.5 / np.sqrt(4 * 2000)


@pytest.mark.parametrize("distance", [0.5, 1.0, 2.0])
def test_shifted_normals_are_told_apart_nearly_as_well_as_can_be(distance):
    rng = np.random.default_rng(2)
    one, other = rng.normal(size=(2, 2000, 5))
    other[:, 2] += distance
    best = stats.norm.cdf(distance / 2)
    assert best - 0.04 < c2st(one, other) < best + 0.03


def test_points_that_occur_twice_give_nothing_away():
    """Resampled with replacement from the same points: every point occurs five times."""
    rng = np.random.default_rng(3)
    one, other = rng.normal(size=(2, 1000, 10))
    assert abs(c2st(one, np.repeat(other, 5, axis=0)) - 0.5) < 4 * 0.5 / np.sqrt(2000)


def test_power_is_that_of_the_best_classifier_or_less():
    for row in power(1000, n_dim=3):
        assert row["found"] < row["best"] + 0.05


@pytest.fixture(scope="module")
def seen(small_posterior) -> Observation:
    theta = {"beta_1": 0.3, "beta_2": 0.3, "beta_3": 0.2, "beta_4": 0.2, "f_burst": 0.1,
             "t_burst_gyr": 3.0, "log10_z_zsun": -0.5, "tau_bc": 1.0, "tau_ism": 0.6,
             "n_dust": -0.5, "redshift": 0.1, MASS: 10.5}  # fmt: skip
    flux = photometry(small_posterior.tables, {k: jnp.asarray([v]) for k, v in theta.items()})[0]
    return Observation(1.02 * flux, flux / 20, jnp.ones(5, bool), jnp.asarray(0.1))


@pytest.mark.slow
def test_oracle_knows_likelihood_prior_and_walls(small_posterior, seen, key):
    """Differences of the log density are those of chi^2 / 2 and of the normal prior."""
    y = jnp.asarray(0.5 * jax.random.normal(key, (40, small_posterior.space.n_unit)))
    theta = oracle.to_theta(small_posterior, seen, y)
    flux = np.asarray(photometry(small_posterior.tables, theta), float)
    misfit = np.sum(((flux - seen.flux) / seen.sigma) ** 2, axis=1)
    expected = -0.5 * misfit + stats.norm.logpdf(np.asarray(y)[:, 1:]).sum(axis=1)

    def found(low, high):
        limits = jnp.asarray([low, high])
        return np.asarray(
            jax.vmap(lambda p: oracle.log_density(small_posterior, seen, limits, p))(y)
        )

    np.testing.assert_allclose(found(0.0, np.inf), expected, rtol=2e-4, atol=1e-3)
    snr = flux / np.asarray(seen.sigma)
    level = float(np.median(snr.min(axis=1)))
    outside = snr.min(axis=1) < level
    assert 0 < outside.sum() < len(y)
    np.testing.assert_array_equal(np.isneginf(found(level, np.inf)), outside)


def test_oracle_moves_mass_alone_along_its_first_coordinate(small_posterior, seen):
    """0.3 dex a unit, whatever the others: the determinant is constant."""
    y = jnp.zeros((2, small_posterior.space.n_unit)).at[1, 0].set(1.0)
    theta = oracle.to_theta(small_posterior, seen, y)
    moved = {name for name, value in theta.items() if value[0] != value[1]}
    assert moved == {MASS}
    assert float(theta[MASS][1] - theta[MASS][0]) == pytest.approx(0.3, abs=1e-5)


def test_effective_number():
    assert kish(np.zeros(50)) == pytest.approx(50)
    assert kish(np.array([0.0, 0.0, -np.inf])) == pytest.approx(2)
    assert kish(np.full(3, -np.inf)) == 0
