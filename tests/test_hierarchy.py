"""The hierarchical likelihood against Gaussians, where everything is known in closed form.

Galaxies have properties from N(mean, covariance), are seen with normal errors, and their posteriors
under the prior N(0, 1) are known, so that draws of them are exact.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm as jnorm
from scipy.special import logsumexp
from scipy.stats import multivariate_normal, norm

from tinsley.density.train import OneCycle, start_training, train_block
from tinsley.population.density import MixturePopulation, make_population
from tinsley.population.hierarchy import (
    LEAST_EFFECTIVE,
    AbstractPassing,
    HierarchyProblem,
    evidence,
    intrinsic_loss,
    log_selected_fraction,
    mean_log_evidence,
    observed_loss,
    reachable,
)
from tinsley.population.posteriors import (
    PosteriorDraws,
    log_aim,
    log_prior,
    make_draws,
    rough_population,
    thin,
)
from tinsley.population.reference import (
    Reference,
    fit_reference,
    uniform_reference,
)

KEY = jax.random.key(3)
ERROR = 0.6
CUT = 0.6
MEAN = np.array([0.5, -0.4])
COVARIANCE = np.array([[0.36, 0.15], [0.15, 0.25]])


class HardCut(AbstractPassing):
    """The first datum, coordinate plus noise, above a limit."""

    limit: jax.Array = eqx.field(converter=jnp.asarray, default=CUT)

    def log_probability(self, x, *, key):
        return jnorm.logcdf((x[:, 0] - self.limit) / ERROR)


BLIND = HardCut(-20.0)
"""Keeps all: in place of None it has every fit compiled once."""


class Mock(NamedTuple):
    datum: np.ndarray
    x: np.ndarray
    draws: PosteriorDraws


def gaussian(mean, covariance) -> MixturePopulation:
    """A mixture of one."""
    lower = np.linalg.cholesky(np.atleast_2d(covariance))
    factor = np.tril(lower, -1) + np.diag(np.log(np.diag(lower)))
    return MixturePopulation(
        jnp.asarray(mean, dtype=float)[None], jnp.asarray(factor, dtype=float)[None]
    )


def posterior_draws(datum, n_draws, rng):
    """Exact, under the prior N(0, 1) in each coordinate."""
    variance = 1 / (1 + ERROR**-2)
    shape = (len(datum), n_draws, datum.shape[1])
    mean = variance * datum / ERROR**2
    return mean[:, None] + np.sqrt(variance) * rng.normal(size=shape)


def make_mock(seed, number, n_draws, *, dims=2, cut=False, as_observed=False) -> Mock:
    rng, found = np.random.default_rng(seed), np.empty((0, dims))
    while len(found) < number:
        true = rng.multivariate_normal(MEAN[:dims], COVARIANCE[:dims, :dims], 4 * number)
        datum = true + ERROR * rng.normal(size=true.shape)
        found = np.concatenate([found, datum[datum[:, 0] > CUT] if cut else datum])
    found = found[:number]
    x = posterior_draws(found, n_draws, rng)
    return Mock(found, x, as_draws(x, as_observed=as_observed))


def as_draws(x, *, as_observed=False) -> PosteriorDraws:
    there = jnp.asarray(x, dtype=float)
    log_passing = HardCut().log_probability(there.reshape(-1, x.shape[-1]), key=KEY)
    passing = log_passing.reshape(there.shape[:2]) if as_observed else None
    weight = jnp.full(there.shape[:2], -np.log(there.shape[1]))
    return make_draws(there, weight, log_prior(there), passing)


def problem_of(
    draws, reference, *, passing=None, steps=400, batch=128, own_draws=512
) -> HierarchyProblem:
    return HierarchyProblem(
        draws, jnp.arange(draws.number), reference, jnp.ones(()), passing, jnp.ones(()),
        batch=batch, chosen=4, own_draws=own_draws, steps=steps,
    )  # fmt: skip


def fit(problem, loss, population, rate=5e-2):
    schedule = OneCycle(problem.steps, rate)
    start = start_training(population, schedule)
    return train_block((problem, loss, schedule, problem.steps), start, KEY)[0].average


PRIOR = gaussian(np.zeros(2), np.eye(2))


def moments(population, number=40_000):
    x = np.asarray(population.sample_and_log_prob(number, key=KEY)[0], float)
    return x.mean(axis=0), np.cov(x.T)


# --- the likelihood ---


def test_the_evidence_is_the_sum_in_float64():
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(7, 40, 2)), rng.dirichlet(np.ones(40), 7)
    passing = rng.uniform(0.1, 1, size=(7, 40))
    population = make_population({"kind": "mixture", "components": 2}, 2, key=KEY)
    population = eqx.tree_at(lambda p: p.mean, population, jnp.asarray([[0.5, 0.1], [-1.0, 0.3]]))
    prior = norm.logpdf(x).sum(axis=-1)
    draws = make_draws(*(jnp.asarray(a, dtype=float) for a in (x, np.log(weight), prior,
                                                               np.log(passing))))  # fmt: skip
    both = [multivariate_normal([0.5, 0.1]).pdf(x), multivariate_normal([-1.0, 0.3]).pdf(x)]
    term = weight * np.mean(both, axis=0) / np.exp(prior) / passing
    share = term / term.sum(axis=1, keepdims=True)
    found = evidence(population, draws)
    correction = 0.5 * np.sum(share**2 - weight**2, axis=1)
    np.testing.assert_allclose(found.log_evidence, np.log(term.sum(axis=1)) + correction, atol=2e-5)
    np.testing.assert_allclose(found.ess, 1 / np.sum(share**2, axis=1), rtol=1e-4)
    np.testing.assert_allclose(found.noise, np.sum((share - weight) ** 2, axis=1), rtol=1e-3)


@pytest.mark.parametrize("dims", [1, 2])
def test_the_evidence_is_that_of_a_gaussian(dims):
    """N(datum; mean, covariance + error^2) over N(datum; 0, 1 + error^2)."""
    mock = make_mock(1, 40, 20_000, dims=dims)
    mean, covariance = MEAN[:dims], COVARIANCE[:dims, :dims]
    found = evidence(gaussian(mean, covariance), mock.draws)
    noise = ERROR**2 * np.eye(dims)
    exact = multivariate_normal(mean, covariance + noise).logpdf(mock.datum)
    exact -= multivariate_normal(np.zeros(dims), np.eye(dims) + noise).logpdf(mock.datum)
    np.testing.assert_allclose(found.log_evidence, exact, atol=5 * np.sqrt(max(found.noise)))
    assert max(found.noise) < 1e-3
    wrong = evidence(gaussian(mean + 0.5, covariance), mock.draws).log_evidence
    assert np.abs(np.asarray(wrong) - exact).max() > 0.5  # control: another population


def test_few_draws_bias_the_evidence_less_once_corrected_and_say_how_noisy_it_is():
    """Of one galaxy, 4,000 times with 30 draws: mean and variance against the exact evidence."""
    datum = np.full((4000, 2), 0.2)
    x = posterior_draws(datum, 30, np.random.default_rng(2))
    population = gaussian(MEAN, COVARIANCE)
    draws = as_draws(x)
    found = evidence(population, draws)
    error = ERROR**2 * np.eye(2)
    exact = multivariate_normal(MEAN, COVARIANCE + error).logpdf(datum[0])
    exact -= multivariate_normal(np.zeros(2), np.eye(2) + error).logpdf(datum[0])
    log_density = np.asarray(population.log_prob(draws.x.reshape(-1, 2)), float).reshape(4000, 30)
    plain = logsumexp(log_density - np.asarray(draws.log_base, float), axis=1) - np.log(30)
    bias, bias_plain = np.mean(found.log_evidence) - exact, np.mean(plain) - exact
    assert bias_plain < -0.01
    assert abs(bias) < 0.4 * abs(bias_plain)
    assert np.var(plain) == pytest.approx(np.mean(found.noise), rel=0.25)


def test_the_likelihood_knows_nothing_of_coordinates():
    """Draws, prior and population in y(x) = sinh(x), each with its Jacobian, say the same."""

    class Stretched(eqx.Module):
        inner: MixturePopulation

        def log_prob(self, y):
            return self.inner.log_prob(jnp.arcsinh(y)) - jnp.sum(0.5 * jnp.log1p(y**2), axis=-1)

    mock, population = make_mock(3, 30, 50), gaussian(MEAN, COVARIANCE)
    y = jnp.sinh(mock.draws.x)
    log_slope = jnp.sum(jnp.log(jnp.cosh(mock.draws.x)), axis=-1)
    prior = log_prior(mock.draws.x)
    there = make_draws(y, mock.draws.log_weight, prior - log_slope)
    here = evidence(population, mock.draws).log_evidence
    np.testing.assert_allclose(evidence(Stretched(population), there).log_evidence, here, atol=1e-4)
    forgotten = make_draws(y, mock.draws.log_weight, prior)
    wrong = evidence(Stretched(population), forgotten).log_evidence
    assert np.abs(np.asarray(wrong - here)).max() > 0.05  # control


@pytest.mark.slow
def test_the_sampled_slope_is_the_slope():
    mock, population = make_mock(4, 20, 40), gaussian(MEAN, COVARIANCE)
    weights, static = eqx.partition(population, eqx.is_inexact_array)

    def exact(w):
        return jnp.mean(evidence(eqx.combine(w, static), mock.draws).log_evidence)

    def sampled(w):
        return mean_log_evidence(eqx.combine(w, static), mock.draws, 4000, key=KEY)

    assert float(sampled(weights)) == pytest.approx(float(exact(weights)), abs=1e-5)
    slopes = jax.grad(exact)(weights), jax.grad(sampled)(weights)
    assert np.abs(slopes[0].mean).max() > 0.05
    for one, other in zip(*map(jax.tree.leaves, slopes), strict=True):
        np.testing.assert_allclose(one, other, atol=0.02)


# --- the selected fraction ---


def exact_fraction(mean, log_width):
    return norm.logcdf((mean - CUT) / np.hypot(np.exp(log_width), ERROR))


@pytest.mark.slow
def test_the_selected_fraction_and_its_slope_are_those_of_a_gaussian():
    """Reparameterised, with 200,000 draws, against finite differences of the closed form."""

    def found(parameters):
        population = MixturePopulation(parameters[:1, None], parameters[1:, None, None])
        x, _ = population.sample_and_log_prob(200_000, key=KEY)
        return log_selected_fraction(HardCut().log_probability(x, key=KEY))

    at = np.array([0.2, np.log(0.7)])
    value, slope = jax.value_and_grad(found)(jnp.asarray(at, dtype=float))
    assert float(value) == pytest.approx(exact_fraction(*at), abs=5e-3)
    step = 1e-4
    for place in range(2):
        shift = step * np.eye(2)[place]
        exact = (exact_fraction(*(at + shift)) - exact_fraction(*(at - shift))) / (2 * step)
        assert float(slope[place]) == pytest.approx(exact, abs=0.01)
        assert abs(exact) > 0.1


def test_as_observed_or_of_all_galaxies_is_the_same_likelihood():
    """The population as observed is that of all times passing over alpha."""

    class Seen(eqx.Module):
        inner: MixturePopulation
        log_fraction: float

        def log_prob(self, x):
            passing = HardCut().log_probability(x, key=KEY)
            return self.inner.log_prob(x) + passing - self.log_fraction

    mock, population = make_mock(5, 30, 60, cut=True), gaussian(MEAN, COVARIANCE)
    log_fraction = float(exact_fraction(MEAN[0], 0.5 * np.log(COVARIANCE[0, 0])))
    seen = evidence(Seen(population, log_fraction), as_draws(mock.x, as_observed=True))
    whole = evidence(population, mock.draws)
    np.testing.assert_allclose(seen.log_evidence, whole.log_evidence - log_fraction, atol=1e-4)


# --- what is found ---


@pytest.mark.slow
def test_the_truth_is_found_where_all_galaxies_are_seen():
    mock = make_mock(6, 1000, 64)
    problem = problem_of(mock.draws, uniform_reference(2), passing=BLIND)
    mean, covariance = moments(fit(problem, intrinsic_loss, PRIOR))
    # the likeliest Gaussian: the data's mean, and their covariance less the errors'
    best = np.cov(mock.datum.T) - ERROR**2 * np.eye(2)
    np.testing.assert_allclose(mean, mock.datum.mean(axis=0), atol=0.03)
    np.testing.assert_allclose(covariance, best, atol=0.04)
    np.testing.assert_allclose(mean, MEAN, atol=0.12)


@pytest.mark.slow
def test_a_cut_is_undone_with_alpha_and_not_without():
    mock = make_mock(7, 1000, 64, cut=True)
    problem = problem_of(mock.draws, uniform_reference(2), passing=HardCut())
    mean, covariance = moments(fit(problem, intrinsic_loss, PRIOR))
    np.testing.assert_allclose(mean, MEAN, atol=0.15)
    np.testing.assert_allclose(covariance, COVARIANCE, atol=0.12)
    blind = dataclasses.replace(problem, passing=BLIND)
    mean, covariance = moments(fit(blind, intrinsic_loss, PRIOR))
    assert mean[0] > MEAN[0] + 0.5  # every galaxy is above the cut,
    assert covariance[0, 0] < 0.5 * COVARIANCE[0, 0]  # and nothing says why


@pytest.mark.slow
def test_the_population_as_observed_is_found_behind_a_cut():
    """Moments of the true galaxies whose data pass; those of all would fail."""
    mock = make_mock(8, 4000, 64, cut=True, as_observed=True)
    problem = problem_of(mock.draws, uniform_reference(2), passing=HardCut(), steps=1000)
    start = make_population({"kind": "mixture", "components": 4}, 2, key=KEY)
    start = eqx.tree_at(lambda p: p.mean, start, 0.1 * jax.random.normal(KEY, (4, 2)))
    mean, covariance = moments(fit(problem, observed_loss, start, 3e-2))
    rng = np.random.default_rng(0)
    true = rng.multivariate_normal(MEAN, COVARIANCE, 200_000)
    seen = true[true[:, 0] + ERROR * rng.normal(size=len(true)) > CUT]
    np.testing.assert_allclose(mean, seen.mean(axis=0), atol=0.05)
    np.testing.assert_allclose(covariance, np.cov(seen.T), atol=0.05)
    assert abs(mean[0] - MEAN[0]) > 0.2


# --- draws ---


def test_rough_population_is_near_the_likeliest_gaussian():
    mock = make_mock(10, 1000, 32)
    rough = rough_population(mock.draws)
    best = np.cov(mock.datum.T) - ERROR**2 * np.eye(2)
    np.testing.assert_allclose(rough.mean, mock.datum.mean(axis=0), atol=0.05)
    np.testing.assert_allclose(rough.factor @ rough.factor.T, best, atol=0.1)


@pytest.mark.slow
def test_aimed_draws_are_of_the_same_posteriors_and_serve_the_population_better():
    """Thinned with an aim: as many effective draws as plain thinning leaves of twice as many."""
    narrow = gaussian([0.9, -0.9], 0.05 * np.eye(2))
    mock = make_mock(11, 100, 4000)
    rough, rng = (
        fit_reference(narrow.sample_and_log_prob(4000, key=KEY)[0]),
        np.random.default_rng(0),
    )
    aim = log_aim(rough, mock.draws.x)
    exact = np.asarray(evidence(narrow, mock.draws).log_evidence)
    kept = {}
    equal = np.full(aim.shape, -np.log(4000))
    for label, log_more in (("aimed", np.asarray(aim)), ("plain", np.zeros(aim.shape))):
        index, weight = thin(equal, log_more, 200, rng)
        there = jnp.asarray(np.take_along_axis(mock.x, index[..., None], axis=1), dtype=float)
        draws = make_draws(there, jnp.asarray(weight, dtype=float), log_prior(there))
        kept[label] = evidence(narrow, draws)
    assert np.median(kept["aimed"].ess) > 2 * np.median(kept["plain"].ess)
    off = np.asarray(kept["aimed"].log_evidence) - exact
    assert np.std(off) < 0.5 * np.std(np.asarray(kept["plain"].log_evidence) - exact)


def test_references_stay_where_the_draws_are():
    mock, centre = make_mock(12, 50, 200), uniform_reference(2)
    far = Reference(jnp.asarray([3.0, -3.0]), 0.2 * jnp.eye(2))
    moved, reach = reachable(far, centre, mock.draws)
    assert 0 < reach < 1
    assert np.median(evidence(moved, mock.draws).ess) >= LEAST_EFFECTIVE
    assert np.median(evidence(far, mock.draws).ess) < LEAST_EFFECTIVE
    near, reach = reachable(Reference(jnp.asarray([0.1, 0.0]), centre.factor), centre, mock.draws)
    assert reach == 1.0
    np.testing.assert_allclose(near.mean, [0.1, 0.0], atol=1e-6)


def test_thinning_keeps_every_mean():
    rng = np.random.default_rng(0)
    x, more = rng.normal(size=(3, 500)), rng.normal(size=(3, 500))
    weight = rng.dirichlet(0.3 * np.ones(500), 3)
    index, log_weight = thin(np.log(weight), more, 20_000, rng)
    kept = np.take_along_axis(x, index, axis=1) * np.exp(log_weight)
    np.testing.assert_allclose(kept.sum(axis=1), np.sum(weight * x, axis=1), atol=0.005)
    np.testing.assert_allclose(np.exp(log_weight).sum(axis=1), 1, atol=0.005)
    few, _ = thin(np.log(weight), more, 100, rng)
    count = np.stack([np.bincount(row, minlength=500) for row in few])
    expected = weight * np.exp(more)
    expected *= 100 / expected.sum(axis=1, keepdims=True)
    assert np.abs(count - expected).max() < 1


def test_a_galaxy_without_draws_is_refused():
    x = jnp.zeros((2, 3, 1))
    weight = jnp.zeros((2, 3)).at[1].set(-jnp.inf)
    with pytest.raises(ValueError, match="at least one draw"):
        make_draws(x, weight, log_prior(x))
