"""The population as prior of single galaxies, where the answer is known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from tinsley.observe.noise import SnrGivenFlux
from tinsley.observe.photometry import photometry
from tinsley.parameters import MASS, default_space
from tinsley.population.density import MixturePopulation
from tinsley.population.reweight import (
    log_prior_ratio,
    mean_log_density,
    pass_probability,
    posterior_means,
    reweight,
)
from tinsley.population.space import PopulationSpace
from tinsley.population.synthetic import Selection

DRAWS = 20_000
SIGMA = 0.5
SEEN = np.array([-0.3, 0.4, 1.0])
CENTRE, WIDTH = 0.6, 0.5


@pytest.fixture(scope="module")
def space(small_posterior) -> PopulationSpace:
    return PopulationSpace(default_space(), small_posterior.cosmology, (0.01, 0.6))


def gaussian(n_dim, mean, width):
    """N(mean, width) in the coordinate of mass, the prior in all others."""
    centre = jnp.zeros((1, n_dim)).at[0, 1].set(mean)
    factor = jnp.zeros((1, n_dim, n_dim)).at[0, 1, 1].set(np.log(width))
    return MixturePopulation(centre, factor)


@pytest.fixture(scope="module")
def draws(space, small_posterior):
    """Posteriors of three galaxies, each seen with a Gaussian error, under the prior N(0, 1)."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(3, DRAWS, space.n_dim))
    mean, std = SEEN / (1 + SIGMA**2), SIGMA / np.sqrt(1 + SIGMA**2)
    x[..., 1] = mean[:, None] + std * x[..., 1]
    theta = space.theta(jnp.asarray(x, dtype=float))
    return x[..., 1], {name: np.asarray(value) for name, value in theta.items()}


def conjugate(mean, width):
    precision = 1 / SIGMA**2 + 1 / width**2
    return (SEEN / SIGMA**2 + mean / width**2) / precision, precision**-0.5


def test_a_gaussian_population_gives_the_conjugate_posterior(space, draws):
    coordinate, theta = draws
    ratio = log_prior_ratio([gaussian(space.n_dim, CENTRE, WIDTH)], space, theta)
    assert ratio.shape == (1, 3, DRAWS)
    expected = norm.logpdf(coordinate, CENTRE, WIDTH) - norm.logpdf(coordinate)
    np.testing.assert_allclose(ratio[0], expected, atol=0.01)
    start = jnp.full((3, DRAWS), -np.log(DRAWS))
    done = reweight(start, jnp.asarray(ratio[0], dtype=float))
    weight = np.exp(np.asarray(done.log_weight, float))
    np.testing.assert_allclose(weight.sum(axis=1), 1, rtol=1e-3)
    mean, std = conjugate(CENTRE, WIDTH)
    found = np.sum(weight * coordinate, axis=1)
    np.testing.assert_allclose(found, mean, atol=0.012)
    spread = np.sqrt(np.sum(weight * (coordinate - found[:, None]) ** 2, axis=1))
    np.testing.assert_allclose(spread, std, atol=0.012)
    # evidence: N(seen; CENTRE, WIDTH^2 + SIGMA^2) over N(seen; 0, 1 + SIGMA^2)
    gain = norm.logpdf(SEEN, CENTRE, np.hypot(WIDTH, SIGMA))
    gain -= norm.logpdf(SEEN, 0, np.hypot(1, SIGMA))
    np.testing.assert_allclose(done.log_evidence_gain, gain, atol=0.02)
    share = np.mean(np.exp(expected), axis=1) ** 2 / np.mean(np.exp(2 * expected), axis=1)
    np.testing.assert_allclose(done.ess_share, share, rtol=0.02)
    np.testing.assert_allclose(done.ess, share * DRAWS, rtol=0.02)
    assert done.ess_share[0] < done.ess_share[1] < 1
    assert (np.asarray(done.khat) < 0.7).all()


def test_members_that_disagree_widen_the_band(space, draws):
    coordinate, theta = draws
    centres = (0.2, 0.6, 1.0)
    members = [gaussian(space.n_dim, c, WIDTH) for c in centres]
    ratio = log_prior_ratio(members, space, theta)
    start = np.full((3, DRAWS), -np.log(DRAWS))
    band = posterior_means(coordinate, start, ratio)
    expected = np.stack([conjugate(c, WIDTH)[0] for c in centres])
    np.testing.assert_allclose(band.each, expected, atol=0.02)
    mixed = np.mean([norm.pdf(coordinate, c, WIDTH) for c in centres], axis=0)
    np.testing.assert_allclose(
        mean_log_density(ratio), np.log(mixed) - norm.logpdf(coordinate), atol=0.02
    )


def test_what_is_rarely_seen_weighs_more(space, draws):
    """The population as observed, divided by what passes, is that of all galaxies."""
    coordinate, theta = draws
    seen = gaussian(space.n_dim, CENTRE, WIDTH)
    passing = np.exp(np.minimum(0.5 * (coordinate - 3), 0.0))
    plain = log_prior_ratio([seen], space, theta)
    ratio = log_prior_ratio([seen], space, theta, (passing, np.array([0.2])))
    np.testing.assert_allclose(ratio, plain - np.log(passing) + np.log(0.2), rtol=1e-5)
    start = np.full((3, DRAWS), -np.log(DRAWS))
    # dividing N(m, w) by exp(x / 2) moves it by -w^2 / 2
    expected = conjugate(CENTRE - 0.5 * WIDTH**2, WIDTH)[0]
    np.testing.assert_allclose(
        posterior_means(coordinate, start, ratio).median, expected, atol=0.02
    )


def test_draws_outside_the_redshifts_of_the_population_do_not_count(space, draws):
    theta = {name: value[:, :100] for name, value in draws[1].items()}
    theta["redshift"] = theta["redshift"].copy()
    theta["redshift"][0, :40], theta["redshift"][1] = 0.7, 0.005
    ratio = log_prior_ratio([gaussian(space.n_dim, 0.0, 1.0)], space, theta)[0]
    assert np.isneginf(ratio[0, :40]).all()
    assert np.isfinite(ratio[0, 40:]).all()
    done = reweight(jnp.full((3, 100), -np.log(100)), jnp.asarray(ratio, dtype=float))
    assert done.ess[0] == pytest.approx(60, rel=1e-3)
    assert np.isnan(done.ess[1])
    assert done.ess_share[2] == pytest.approx(1, rel=1e-3)


def test_the_probability_of_passing_is_that_of_noisy_flux(small_posterior, draws):
    theta = {name: value[:2, :300] for name, value in draws[1].items()}
    nodes = jnp.asarray([[5.0, 40.0]] * 5)
    noise = SnrGivenFlux(nodes, jnp.full((5, 2), 1.0), jnp.full((5, 2), 1e-3))
    tables = small_posterior.tables
    free = pass_probability(
        tables, (noise, Selection((-np.inf,) * 5)), theta, key=jax.random.key(0)
    )
    np.testing.assert_array_equal(free, 1)
    cut = Selection((-np.inf, -np.inf, 1.0, -np.inf, -np.inf))
    found = pass_probability(tables, (noise, cut), theta, key=jax.random.key(0), batch=256)
    flat = {name: jnp.asarray(value.ravel()) for name, value in theta.items()}
    flux = np.asarray(photometry(tables, flat), float)[:, 2].reshape(2, 300)
    expected = np.maximum(norm.cdf((flux - 1) / (flux / 10)), 0.01)
    np.testing.assert_allclose(found, expected, atol=0.01)
    assert 0.02 < np.mean(found < 0.5) < 0.98
    assert MASS in theta
