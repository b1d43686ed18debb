"""Densities, references and their space; each against what is known in closed form."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from paramax import unwrap
from scipy.stats import kstest, multivariate_normal, norm

from tinsley.density.coupling import coupling_layers
from tinsley.density.train import OneCycle, start_training, train_block
from tinsley.parameters import BETAS, default_space
from tinsley.population.density import FLOW, MIXTURE, POPSED, make_population
from tinsley.population.reference import (
    draw_reference,
    fit_reference,
    reference_from_dict,
    uniform_reference,
)
from tinsley.population.space import PopulationSpace

D = 4
SMALL = FLOW | {"layers": 2, "width": 8, "depth": 1, "knots": 4}
CONFIGS = {"flow": SMALL, "mixture": MIXTURE | {"components": 3}}
KEY = jax.random.key(2)
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())


@pytest.fixture(scope="module")
def space(small_posterior) -> PopulationSpace:
    return PopulationSpace(default_space(), small_posterior.cosmology, (0.01, 0.6))


def moved(population):
    """The same with other weights, all of them."""
    leaves, tree = jax.tree.flatten(eqx.filter(population, eqx.is_inexact_array))
    keys = jax.random.split(KEY, len(leaves))
    extra = [0.2 * jax.random.normal(k, a.shape) for k, a in zip(keys, leaves, strict=True)]
    return eqx.apply_updates(population, jax.tree.unflatten(tree, extra))


# --- the density ---


@pytest.mark.parametrize("config", [SMALL, POPSED | {"layers": 2}, MIXTURE], ids=str)
def test_a_new_density_is_the_prior_exactly(config):
    x, log_density = make_population(config, D, key=KEY).sample_and_log_prob(500, key=KEY)
    np.testing.assert_allclose(log_density, norm.logpdf(x).sum(axis=1), atol=2e-4)
    for column in np.asarray(x, float).T:
        assert kstest(column, "norm").pvalue > 1e-3


def test_a_new_density_is_uniform_in_the_box(space):
    population = make_population(SMALL, space.n_dim, key=KEY)
    theta = space.theta(population.sample_and_log_prob(2000, key=KEY)[0])
    assert kstest(np.asarray(theta["redshift"], float), "uniform", (0.01, 0.59)).pvalue > 1e-3
    assert kstest(np.asarray(theta["tau_ism"], float), "uniform", (0, 3)).pvalue > 1e-3
    for name in BETAS:  # flat Dirichlet: each share is Beta(1, 3)
        assert kstest(np.asarray(theta[name], float), "beta", (1, 3)).pvalue > 1e-3


@every_config
def test_draws_come_with_their_own_density(config):
    population = moved(make_population(config, D, key=KEY))
    x, log_density = population.sample_and_log_prob(64, key=KEY)
    np.testing.assert_allclose(log_density, population.log_prob(x), atol=2e-3)
    assert np.abs(log_density - norm.logpdf(x).sum(axis=1)).max() > 0.1


@pytest.mark.slow
def test_a_flow_is_flowjaxs(key):
    """Density of draws and of other points, and the slopes by which a population is fitted."""
    population = moved(make_population(SMALL, D, key=KEY))
    x, log_density = population.sample_and_log_prob(300, key=key)
    np.testing.assert_allclose(log_density, population.flow.log_prob(x), atol=1e-3)
    points = 2.5 * jax.random.normal(key, (300, D))
    expected = population.flow.log_prob(points)
    np.testing.assert_allclose(population.log_prob(points), expected, atol=1e-3)
    base = jax.random.normal(key, (300, D))

    def loss(population, to_data):
        x, log_det = to_data(population)
        return jnp.mean(x**3) - jnp.mean(log_det)

    def library(population):
        return jax.vmap(unwrap(population.flow).bijection.transform_and_log_det)(base)

    def own(population):
        return coupling_layers(population.flow).to_data(base, np.zeros(0, np.float32))

    slopes = [eqx.filter_grad(loss)(population, way) for way in (own, library)]
    for one, other in zip(*(jax.tree.leaves(each) for each in slopes), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4 * max(float(jnp.abs(other).max()), 1e-3))


@every_config
def test_a_density_integrates_to_one(config):
    """By importance sampling from a wide Gaussian; so does the draws' density, being the same."""
    population = moved(make_population(config, 2, key=KEY))
    x = 2.5 * jax.random.normal(KEY, (40_000, 2))
    log_wide = np.log(1 / 2.5**2) + norm.logpdf(np.asarray(x) / 2.5).sum(axis=1)
    ratio = np.exp(np.asarray(population.log_prob(x)) - log_wide)
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / 200 + 2e-3


def test_another_key_changes_the_network_but_not_the_density():
    one = make_population(SMALL, D, key=KEY)
    other = make_population(SMALL, D, key=jax.random.key(8))
    assert jax.tree.structure(one) == jax.tree.structure(other)  # what is compiled serves both
    leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    assert sum(eqx.is_array(a) and not np.array_equal(a, b) for a, b in leaves) == 2
    x = jax.random.normal(KEY, (10, D))
    np.testing.assert_allclose(one.log_prob(x), other.log_prob(x), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["flow", "mixture"])
def test_the_second_term_alone_leads_to_the_reference(kind):
    """KL(population || reference) goes to 0, and the population takes the reference's moments."""
    reference = draw_reference(uniform_reference(3), key=jax.random.key(1))
    config = CONFIGS[kind] | ({"layers": 3, "width": 16} if kind == "flow" else {})

    def loss(population, reference_, key):
        x, log_density = population.sample_and_log_prob(256, key=key)
        return jnp.mean(log_density - reference_.log_prob(x))

    start = start_training(make_population(config, 3, key=KEY), OneCycle(200, 3e-2))
    assert float(loss(start.model, reference, KEY)) > 0.5
    state, _ = train_block((reference, loss, OneCycle(200, 3e-2), 200), start, KEY)
    assert float(loss(state.average, reference, jax.random.key(77))) < 0.06
    x = np.asarray(state.average.sample_and_log_prob(4000, key=KEY)[0])
    covariance = np.asarray(reference.factor @ reference.factor.T)
    np.testing.assert_allclose(x.mean(axis=0), reference.mean, atol=0.1)
    np.testing.assert_allclose(np.cov(x.T), covariance, atol=0.1)


def test_unknown_density_is_refused():
    with pytest.raises(ValueError, match="expected flow or mixture"):
        make_population({"kind": "cloud"}, D, key=KEY)


# --- its space ---


def test_space_maps_there_and_back(space):
    x = jax.random.uniform(KEY, (200, space.n_dim), minval=-2.5, maxval=2.5)
    np.testing.assert_allclose(space.unbounded(space.theta(x)), x, atol=5e-3)


def test_every_draw_is_inside_the_box(space):
    theta = space.theta(30.0 * jax.random.normal(KEY, (500, space.n_dim)))
    assert np.all((theta["redshift"] >= 0.01) & (theta["redshift"] <= 0.6))
    assert np.all((theta["log10_mstar_msun"] >= 7) & (theta["log10_mstar_msun"] <= 12.5))
    assert all(np.isfinite(v).all() for v in theta.values())


# --- references ---


def test_reference_is_its_gaussian():
    reference = draw_reference(uniform_reference(3), key=KEY)
    covariance = np.asarray(reference.factor @ reference.factor.T, float)
    x = reference.sample(20_000, key=KEY)
    exact = multivariate_normal(np.asarray(reference.mean, float), covariance).logpdf(x)
    np.testing.assert_allclose(reference.log_prob(x), exact, atol=2e-3)
    np.testing.assert_allclose(np.cov(np.asarray(x).T), covariance, atol=0.03)


def test_references_together_say_no_more_than_the_prior():
    """A galaxy of a random reference is distributed as the prior, coordinate by coordinate."""
    keys = jax.random.split(KEY, 4000)
    one = jax.vmap(lambda k: draw_reference(uniform_reference(D), key=k).sample(1, key=k)[0])
    x = np.asarray(one(keys), float)
    for column in x.T:
        assert kstest(column, "norm").pvalue > 1e-3
    drawn = jax.vmap(lambda k: draw_reference(uniform_reference(D), key=k))(keys[:300])
    covariance = np.asarray(drawn.factor @ drawn.factor.swapaxes(1, 2))
    sd = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    assert 0.4 < sd.min() < 0.45
    assert 0.9 < sd.max() < 0.95
    correlation = covariance[:, 0, 1] / (sd[:, 0] * sd[:, 1])
    assert np.std(correlation) > 0.3  # they are anything but uncorrelated,
    assert abs(np.mean(correlation)) < 0.1  # but not one way


def test_references_lie_about_their_centre():
    centre = fit_reference(jnp.asarray([2.0, -1.0]) + 0.1 * jax.random.normal(KEY, (5000, 2)))
    np.testing.assert_allclose(centre.mean, [2, -1], atol=0.01)
    drawn = jax.vmap(lambda k: draw_reference(centre, key=k))(jax.random.split(KEY, 500))
    np.testing.assert_allclose(np.mean(drawn.mean, axis=0), [2, -1], atol=0.02)
    assert np.std(drawn.mean, axis=0).max() < 0.1


def test_reference_survives_a_file():
    reference = draw_reference(uniform_reference(D), key=KEY)
    again = reference_from_dict(reference.to_dict())
    np.testing.assert_array_equal(reference.mean, again.mean)
    np.testing.assert_array_equal(reference.factor, again.factor)


@pytest.mark.parametrize(
    "plain",
    [
        {},
        {"mean": [0.0], "factor": [[float("nan")]]},
        {"mean": [0.0], "factor": [[-1.0]]},
        {"mean": [0.0, 0.0], "factor": [[1.0, 0.5], [0.0, 1.0]]},
        {"mean": [0.0, 0.0], "factor": [[1.0]]},
    ],
)
def test_no_reference_is_refused(plain):
    with pytest.raises(ValueError, match="a reference"):
        reference_from_dict(plain)


def test_the_memory_of_the_weights_is_a_share_of_the_cycle():
    for steps in (300, 3000):
        assert 1 / (1 - OneCycle(steps, 1e-3).average) == pytest.approx(0.07 * steps)
    assert OneCycle(5, 1e-3).average == 0.0


def test_one_cycle_goes_up_and_down():
    schedule = OneCycle(100, 3e-4)
    weight, sizes = jnp.zeros(1), []
    state = schedule.optimizer().init(weight)
    for _ in range(100):
        update, state = schedule.optimizer().update(jnp.ones(1), state, weight)
        sizes.append(abs(float(update[0])))  # Adam's steps are of the size of the rate
    assert sizes[0] == pytest.approx(3e-5, rel=0.05)
    assert max(sizes) == pytest.approx(3e-4, rel=0.02)
    assert np.argmax(sizes) == pytest.approx(30, abs=2)
    assert sizes[-1] == pytest.approx(3e-6, rel=0.2)
