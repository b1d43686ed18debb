"""Simulated galaxies: prior, noise and mask are distributed as they say."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm
from scipy import stats

from tinsley.infer.features import features
from tinsley.infer.pairs import FreshPairs, posterior_pairs, training_loss
from tinsley.infer.simulator import Simulator
from tinsley.observe.photometry import photometry
from tinsley.parameters import MASS

FALSE_ALARM = 1e-5
"""Chance that a right program fails one test of a distribution; keys are fixed."""
N = 4000


@pytest.fixture(scope="module")
def made(small_simulator):
    return small_simulator.sample(N, key=jax.random.key(3))


def test_truth_is_the_forward_models(small_simulator, made):
    assert made.theta.keys() == {*small_simulator.space.names, "redshift"}
    expected = photometry(small_simulator.tables, made.theta)
    np.testing.assert_allclose(made.flux_true, expected, rtol=1e-5)
    np.testing.assert_array_equal(made.seen.redshift, made.theta["redshift"])


def test_parameters_follow_the_prior(small_simulator, made):
    ends = {MASS: (7.0, 12.5), "f_burst": (0, 1), "log10_z_zsun": (-2.2, 0.4), "tau_bc": (0, 3),
            "tau_ism": (0, 3), "n_dust": (-2, 0.4), "redshift": (0.01, 0.6)}  # fmt: skip
    for name, (low, high) in ends.items():
        uniform = stats.uniform(low, high - low)
        assert stats.kstest(np.asarray(made.theta[name]), uniform.cdf).pvalue > FALSE_ALARM, name
    beta = np.stack([made.theta[f"beta_{k}"] for k in (1, 2, 3, 4)])
    np.testing.assert_allclose(beta.sum(axis=0), 1.0, rtol=1e-5)
    for row in beta:  # marginals of the flat Dirichlet in 4 dimensions
        assert stats.kstest(row, stats.beta(1, 3).cdf).pvalue > FALSE_ALARM
    age_gyr = small_simulator.tables.history.cosmology.age_gyr(made.theta["redshift"])
    share = (np.asarray(made.theta["t_burst_gyr"]) - 0.01) / (np.asarray(age_gyr) - 0.01)
    assert stats.kstest(share, "uniform").pvalue > FALSE_ALARM


def test_noise_is_gaussian_with_the_quoted_error(made):
    pull = np.asarray((made.seen.flux - made.flux_true) / made.seen.sigma, float).ravel()
    assert stats.kstest(pull, "norm").pvalue > FALSE_ALARM


def test_errors_tell_nothing_of_the_flux(made):
    log_snr = np.log(np.asarray(made.flux_true / made.seen.sigma, float))
    expected = stats.uniform(0.0, np.log(100.0)).cdf
    assert stats.kstest(log_snr.ravel(), expected).pvalue > FALSE_ALARM
    for band in range(5):
        log_flux = np.log(np.asarray(made.flux_true[:, band], float))
        assert stats.pearsonr(log_snr[:, band], log_flux).pvalue > FALSE_ALARM
    assert np.abs(np.corrcoef(log_snr.T) - np.eye(5)).max() < 5 / np.sqrt(N)


def test_masks_have_the_stated_shares(made):
    mask = np.asarray(made.seen.mask)
    assert mask.any(axis=1).all()
    whole = 0.5 + 0.5 * (0.6**5 + 0.4**5)  # complete by choice, by chance, or for want of any
    assert abs(mask.all(axis=1).mean() - whole) < 4.5 * np.sqrt(whole * (1 - whole) / N)
    some = mask[~mask.all(axis=1)]
    kept = (0.6 - 0.6**5) / (1 - 0.6**5 - 0.4**5)
    assert np.abs(some.mean(axis=0) - kept).max() < 4.5 * np.sqrt(0.25 / len(some))


def test_complete_photometry_on_request(small_simulator, made, key):
    tables, noise = small_simulator.tables, small_simulator.noise
    whole = Simulator(small_simulator.space, tables, noise, (0.01, 0.6), complete=1.0)
    assert bool(jnp.all(whole.observe(made.theta, made.flux_true, key=key).seen.mask))


def test_galaxies_outside_a_range_of_flux_are_left_out(small_simulator, made, key):
    flux = np.asarray(made.seen.flux)
    ends = np.quantile(flux, [0.2, 0.95], axis=0).T
    kept = dataclasses.replace(small_simulator, flux_range=tuple(map(tuple, ends.tolist())))
    some = kept.sample(N, key=key)
    assert not some.seen.mask.all()  # bands that were dropped do not count
    low, high = ends.T
    inside = (some.seen.flux >= low) & (some.seen.flux <= high)
    assert np.all(inside | ~some.seen.mask)
    inside = (flux >= low) & (flux <= high)
    expected = np.asarray(made.flux_true)[np.all(inside | ~np.asarray(made.seen.mask), axis=1)]
    found = np.asarray(some.flux_true)
    for band in range(5):
        assert stats.ks_2samp(found[:, band], expected[:, band]).pvalue > FALSE_ALARM
    assert len(np.unique(found[:, 0])) == N


def test_same_key_same_galaxies(small_simulator, made):
    again = small_simulator.sample(N, key=jax.random.key(3))
    for a, b in zip(jax.tree.leaves(made), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)
    other = small_simulator.sample(N, key=jax.random.key(4))
    assert not np.array_equal(made.seen.flux, other.seen.flux)


def test_posterior_pairs_are_standard_normal_and_belong_together(small_simulator):
    key = jax.random.key(3)
    x, condition = posterior_pairs(small_simulator, N, key)
    for column in np.asarray(x, float).T:
        assert stats.kstest(column, "norm").pvalue > FALSE_ALARM
    made = small_simulator.sample(N, key=key)
    expected = features(made.seen, small_simulator.tables.history.cosmology)
    np.testing.assert_allclose(condition, expected, rtol=1e-5, atol=1e-5)
    age_gyr = small_simulator.tables.history.cosmology.age_gyr(made.theta["redshift"])
    theta = small_simulator.space.without_mass().from_unbounded(x, age_gyr)
    for name, values in theta.items():
        np.testing.assert_allclose(values, made.theta[name], atol=2e-4, err_msg=name)


class Prior:
    """A flow that has learnt nothing."""

    def log_prob(self, x, features):
        return jnp.sum(norm.logpdf(x)) + 0.01 * features[0]


def test_loss_is_the_mean_of_minus_log_q(small_simulator):
    key = jax.random.key(3)
    loss = jax.jit(
        lambda k: training_loss(Prior(), FreshPairs(small_simulator, posterior_pairs, N), k)
    )(key)
    x, condition = posterior_pairs(small_simulator, N, key)
    log_q = stats.norm.logpdf(np.asarray(x, float)).sum(axis=1) + 0.01 * np.asarray(condition)[:, 0]
    assert float(loss) == pytest.approx(-np.mean(log_q), rel=1e-4)
