"""Refined posteriors of single galaxies against brute force: very many draws from the prior."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

from conftest import SMALL_GRID
from test_amortized import with_flow
from tinsley.infer.amortized import draw_posterior
from tinsley.infer.importance import ESS_GOOD, KHAT_GOOD
from tinsley.infer.likelihood import Observation, chi2
from tinsley.infer.refine import MORE_DRAWS, draw_mixture, draw_smc, sample_mixture
from tinsley.infer.smc import EFFORT
from tinsley.observe.photometry import photometry
from tinsley.parameters import MASS

REDSHIFT = float(SMALL_GRID.nodes[8])
N_PRIOR = 1 << 18
LABELS = ("beta_1", "f_burst", "t_burst_gyr", "log10_z_zsun", "tau_ism", "n_dust", MASS)


@pytest.fixture(scope="module")
def galaxy(small_posterior) -> Observation:
    """A galaxy of the model itself at S/N 10: too well measured for an untrained flow."""
    theta = {"beta_1": 0.3, "beta_2": 0.3, "beta_3": 0.2, "beta_4": 0.2, "f_burst": 0.1,
             "t_burst_gyr": 3.0, "log10_z_zsun": -0.5, "tau_bc": 1.0, "tau_ism": 0.6,
             "n_dust": -0.5, "redshift": REDSHIFT, MASS: 10.5}  # fmt: skip
    flux = photometry(small_posterior.tables, {k: jnp.asarray([v]) for k, v in theta.items()})[0]
    noise = np.random.default_rng(3).normal(size=5)
    sigma = flux / 10.0
    return Observation(flux + sigma * noise, sigma, jnp.ones(5, bool), jnp.asarray(REDSHIFT))


@pytest.fixture(scope="module")
def brute(small_posterior, galaxy):
    """(ln evidence, its relative error, ESS, mean and spread of each property) from the prior."""
    prior = with_flow(small_posterior)
    draw = eqx.filter_jit(lambda key: draw_posterior(prior, galaxy, N_PRIOR // 4, key=key))
    parts = [draw(jax.random.key(seed)) for seed in range(4)]
    log_weight = np.concatenate([np.asarray(p.log_weight, float) for p in parts])
    weight = np.exp(log_weight - log_weight.max())
    ess = weight.sum() ** 2 / np.sum(weight**2)
    moments = {}
    for label in LABELS:
        values = np.concatenate([np.asarray(p.theta[label], float) for p in parts])
        mean = np.average(values, weights=weight)
        moments[label] = mean, np.sqrt(np.average((values - mean) ** 2, weights=weight))
    return np.log(weight.mean()) + log_weight.max(), ess, moments


@eqx.filter_jit
def by_smc(posterior, seen, most_temperatures, key):
    """Compiled once: how many temperatures are allowed is an argument."""
    effort = EFFORT._replace(most_temperatures=most_temperatures)
    return draw_smc(posterior, seen, MORE_DRAWS, effort, key=key)


@pytest.fixture(scope="module", params=["mixture", pytest.param("smc", marks=pytest.mark.slow)])
def drawn(request, small_posterior, galaxy):
    key = jax.random.key(11)
    if request.param == "smc":
        return by_smc(small_posterior, galaxy, jnp.asarray(100), key)
    return eqx.filter_jit(draw_mixture)(small_posterior, galaxy, MORE_DRAWS, key=key)


def test_the_first_draws_fail_and_refined_ones_do_not(small_posterior, galaxy, drawn):
    first = eqx.filter_jit(draw_posterior)(small_posterior, galaxy, 500, key=jax.random.key(2))
    assert float(first.psis.ess) < ESS_GOOD
    assert float(drawn.psis.ess) > ESS_GOOD
    assert float(drawn.psis.khat) < KHAT_GOOD


def test_evidence_and_moments_are_those_of_brute_force(drawn, brute):
    log_evidence, ess, moments = brute
    assert ess > 400
    error = np.sqrt(1 / ess + 1 / float(drawn.psis.ess))
    assert abs(float(drawn.log_evidence) - log_evidence) < 4 * error
    weight = np.exp(np.asarray(drawn.psis.log_weight, float))
    for label, (mean, spread) in moments.items():
        values = np.asarray(drawn.theta[label], float)
        found = np.average(values, weights=weight)
        assert abs(found - mean) < 4 * error * spread, label
        scatter = np.sqrt(np.average((values - found) ** 2, weights=weight))
        assert abs(scatter / spread - 1) < 5 * error, label


def test_best_is_the_draw_of_least_chi2(drawn, small_posterior, galaxy):
    theta = {k: v[None] for k, v in drawn.best.items()} | {"redshift": galaxy.redshift[None]}
    own = float(jnp.sum(chi2(photometry(small_posterior.tables, theta), galaxy)))
    assert own == pytest.approx(float(drawn.best_chi2), rel=1e-2, abs=1e-2)
    with_mass = photometry(small_posterior.tables, drawn.theta)
    assert float(jnp.min(jnp.sum(chi2(with_mass, galaxy), axis=-1))) >= own - 1e-2


def test_the_mixtures_density_is_that_of_its_draws(small_posterior, galaxy, key):
    """The mean of p/q over draws from q is 1 for any normalised p."""
    x, log_q = eqx.filter_jit(sample_mixture)(small_posterior, galaxy, MORE_DRAWS, key=key)
    assert x.shape == (MORE_DRAWS, small_posterior.space.without_mass().n_unit)
    for shift, width in ((0.0, 1.0), (0.2, 0.9), (-0.1, 0.8)):
        log_p = jnp.sum(norm.logpdf(x, shift, width), axis=-1)
        ratio = np.exp(np.asarray(log_p - log_q, float))
        error = ratio.std() / np.sqrt(MORE_DRAWS)
        assert error < 0.05
        assert abs(ratio.mean() - 1) < 4 * error
    log_prior = jnp.sum(norm.logpdf(x), axis=-1)
    assert float(jnp.max(log_prior - log_q)) < np.log(8.0) + 1e-3


@pytest.mark.slow
def test_a_sampler_that_gives_up_has_no_evidence(small_posterior, galaxy, key):
    drawn = by_smc(small_posterior, galaxy, jnp.asarray(2), key)
    assert float(drawn.log_evidence) == -np.inf
    assert not float(drawn.psis.ess) > 0
    assert np.all(np.isfinite(drawn.theta[MASS]))
