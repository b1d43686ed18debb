"""Redshifts with an error or a p(z): densities against SciPy, posteriors against closed forms."""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import ndtr
from scipy import stats

from test_amortized import galaxy, log_mean_exp, with_flow
from test_calibrate import WidePrior
from test_redshift import ENDS, from_prior, taught
from tinsley.density.histogram import make_histogram
from tinsley.infer.amortized import draw_posterior
from tinsley.infer.calibrate import Effort, calibrate
from tinsley.infer.ranks import JOINT, WEIGHTED, holm, uniformity
from tinsley.infer.redshift import draw_free, draw_free_smc, sample_tilted
from tinsley.infer.refine import MORE_DRAWS
from tinsley.infer.simulator import Simulator
from tinsley.infer.truths import simulate_prior
from tinsley.observe.noise import BroadNoise
from tinsley.observe.redshift import RedshiftPrior, gaussian, joined, tabulated, truncated, uniform
from tinsley.status import Redshift

N_DRAWS = 16_384
LEVELS = np.linspace(0.001, 0.999, 999)


def one(prior: RedshiftPrior, row: int = 0) -> RedshiftPrior:
    """One galaxy's prior, for JAX; of one length, so that JAX compiles once."""
    wide = joined(prior, gaussian(np.ones(len(prior.node)), np.ones(len(prior.node))))
    return jax.tree.map(lambda a: jnp.asarray(a[row], dtype=float), wide)


def normal(redshift: float, error: float, ends=ENDS) -> RedshiftPrior:
    prior, _ = truncated(gaussian(np.array([redshift]), np.array([error])), *ends)
    return one(prior)


def table(node, density) -> RedshiftPrior:
    return one(tabulated(np.array([node], float), np.array([density], float)))


# --- the density itself ---


@pytest.mark.parametrize("error", [1e-4, 0.01, 0.1, 3.0])
def test_a_gaussian_is_scipys(error):
    z = 0.2
    low, high = (np.array(ENDS) - z) / error
    low, high = max(low, -6.0), min(high, 6.0)
    found = np.asarray(normal(z, error).quantile(jnp.asarray(LEVELS, dtype=float)), float)
    expected = stats.truncnorm(low, high, z, error).ppf(LEVELS)
    resolution = 2e-7 + 6e-4 * min(error, ENDS[1] - ENDS[0])
    np.testing.assert_allclose(found, expected, atol=resolution)


def test_truncation_says_how_much_is_inside():
    z, error = np.array([0.2, 0.04, 0.6, 0.02, 0.2]), np.array([0.01, 0.02, 0.05, 0.01, 0.0])
    prior, inside = truncated(gaussian(z, error), *ENDS)
    expected = np.diff(stats.norm(z[:4, None], error[:4, None]).cdf(ENDS), axis=1)[:, 0]
    np.testing.assert_allclose(inside[:4], expected, atol=2e-4)
    assert np.isnan(inside[4])  # no error: no prior
    assert np.isnan(prior.node[4]).all()
    assert prior.node[:4].min() >= ENDS[0]
    assert prior.node[:4].max() <= ENDS[1]


PEAKS = {
    "peaks": ([0.05, 0.1, 0.11, 0.2, 0.3, 0.31, 0.5], [0, 0, 3, 0, 0, 8, 0]),
    "steps": ([0.05, 0.2, 0.2001, 0.4, 0.5], [1, 1, 5, 5, 0.2]),
    "flat": ([0.05, 0.5], [7, 7]),
    "repeated": ([0.05, 0.1, 0.3, 0.3, 0.3], [0, 2, 1, 1, 1]),
}


@pytest.mark.parametrize("name", PEAKS)
def test_cdf_and_quantile_are_those_of_the_table(name):
    node, density = (np.array(x, float) for x in PEAKS[name])
    prior = table(node, density)
    fine = np.unique(np.concatenate([np.linspace(0.05, 0.5, 200_001), node]))
    height = np.interp(fine, node, density, right=0.0)
    total = np.concatenate([[0], np.cumsum(np.diff(fine) * (height[1:] + height[:-1]) / 2)])
    some = fine[::997]
    found = np.asarray(prior.cdf(jnp.asarray(some, dtype=float)), float)
    np.testing.assert_allclose(found, (total / total[-1])[::997], atol=1e-4)
    level = jnp.asarray(LEVELS, dtype=float)
    np.testing.assert_allclose(prior.cdf(prior.quantile(level)), LEVELS, atol=3e-6)
    start, end = prior.quantile(jnp.asarray([0.0, 1.0])).tolist()
    assert (start, end) == pytest.approx(
        (node[np.flatnonzero(density)[0] - (density[0] == 0)], node[-1])
    )


def test_joined_takes_the_first_that_is_there():
    first = tabulated(np.array([[0.1, 0.2], [np.nan] * 2, [np.nan] * 2]), np.ones((3, 2)))
    second = gaussian(np.array([0.3, 0.3, 0.3]), np.array([0.01, 0.01, 0.0]))
    both = joined(first, second)
    middle = [float(one(both, row).quantile(jnp.array([0.5]))[0]) for row in range(2)]
    assert middle == pytest.approx([0.15, 0.3])
    assert np.isnan(both.node[2]).all()
    assert float(one(both).quantile(jnp.array([0.25]))[0]) == pytest.approx(0.125)


# --- a Gaussian toy: prior N(z, err), likelihood N(0.2, 0.02) ---


@pytest.mark.parametrize("redshift", [0.2, 0.17, 0.26])
@pytest.mark.parametrize("error", [1e-6, 1e-3, 0.01, 0.04, 0.2])
def test_posterior_and_evidence_of_a_gaussian_toy(redshift, error, key):
    """However wrong the network, and however narrow or wide the error, weights are exact."""
    density = make_histogram({"bins": 64, "width": 8, "depth": 1}, 2, (0.0, 0.4), key=key)
    density = jax.tree.map(lambda x: 3 * x if eqx.is_inexact_array(x) else x, density)
    prior = normal(redshift, error, (0.0, 0.4))
    z, log_ratio = (
        np.asarray(a, float) for a in sample_tilted(prior, density, jnp.ones(2), N_DRAWS, key=key)
    )
    assert log_ratio.min() > np.log(0.1) - 1e-3
    log_weight = stats.norm(0.2, 0.02).logpdf(z) - log_ratio
    # the closed form, by quadrature only because of the ends of the range
    grid = np.linspace(max(0.0, redshift - 6 * error), min(0.4, redshift + 6 * error), 40_001)
    p = stats.norm(redshift, error).pdf(grid)
    p /= np.trapezoid(p, grid)
    joint = p * stats.norm(0.2, 0.02).pdf(grid)
    evidence = np.trapezoid(joint, grid)
    mean = np.trapezoid(grid * joint, grid) / evidence
    std = np.sqrt(np.trapezoid((grid - mean) ** 2 * joint, grid) / evidence)
    weight = np.exp(log_weight - log_weight.max())
    ess = weight.sum() ** 2 / np.sum(weight**2)
    assert ess > 0.02 * N_DRAWS
    loss = 4 / np.sqrt(ess) + 1e-3
    assert log_mean_exp(log_weight) == pytest.approx(np.log(evidence), abs=loss)
    found = np.average(z, weights=weight)
    assert found == pytest.approx(mean, abs=loss * std + 2e-8)
    spread = np.sqrt(np.average((z - found) ** 2, weights=weight))
    assert spread == pytest.approx(std, rel=loss, abs=2e-8)


# --- galaxies ---


@pytest.fixture(scope="module")
def posterior(small_posterior):
    return taught(small_posterior)


@eqx.filter_jit
def draw(posterior, seen, prior, key):
    return draw_free(posterior, seen._replace(redshift_prior=prior), N_DRAWS, key=key)


@eqx.filter_jit
def at_each(posterior, seen, redshift, key):
    """Draws at known redshifts, and their evidence."""
    keys = jax.random.split(key, len(redshift))
    run = lambda z, k: draw_posterior(posterior, seen._replace(redshift=z), 4096, key=k)  # noqa: E731
    return jax.lax.map(lambda pair: run(*pair).log_evidence, (redshift, keys))


def moments(drawn, name):
    weight = np.exp(np.asarray(drawn.psis.log_weight, float))
    values = np.asarray(drawn.theta[name], float)
    mean = np.sum(weight * values)
    return mean, np.sqrt(np.sum(weight * (values - mean) ** 2))


def assert_alike(one, other, names, sigmas=4.5):
    error = np.sqrt(1 / float(one.psis.ess) + 1 / float(other.psis.ess))
    assert abs(float(one.log_evidence - other.log_evidence)) < sigmas * error + 2e-3
    for name in names:
        (mean, std), (expected, spread) = moments(one, name), moments(other, name)
        assert abs(mean - expected) < sigmas * error * spread, name
        assert abs(std / spread - 1) < sigmas * error, name


LABELS = ("log10_mstar_msun", "tau_ism", "log10_z_zsun", "age_mw_gyr")


@pytest.mark.slow
def test_without_photometry_the_posterior_is_the_prior(posterior, key):
    """A closed form of the whole: the weighted draws are those of N(z, err), the evidence is 1."""
    seen = galaxy("faint")
    blind = seen._replace(mask=jnp.zeros(5, bool))
    for z, error in ((0.2, 0.02), (0.06, 0.05)):
        drawn = draw(posterior, blind, normal(z, error), key)
        loss = 4.5 / np.sqrt(float(drawn.psis.ess))
        assert float(drawn.log_evidence) == pytest.approx(0.0, abs=loss)
        exact = stats.truncnorm(*((np.array(ENDS) - z) / error), z, error)
        mean, std = moments(drawn, "redshift")
        error_of_mean = 5 * exact.std() / np.sqrt(float(drawn.psis.ess))
        assert mean == pytest.approx(exact.mean(), abs=error_of_mean)
        assert std == pytest.approx(exact.std(), abs=error_of_mean)


@pytest.mark.slow
@pytest.mark.parametrize("narrow", [normal(0.2, 1e-6), table([0.2 - 1e-6, 0.2, 0.2 + 1e-6],
                                                             [0, 1, 0])],
                         ids=["error", "p(z)"])  # fmt: skip
def test_a_spike_is_a_known_redshift(narrow, posterior, key):
    seen = galaxy("faint")._replace(redshift=jnp.asarray(0.2))
    known = eqx.filter_jit(draw_posterior)(posterior, seen, N_DRAWS, key=key)
    blind = seen._replace(redshift=jnp.asarray(jnp.nan))  # not to be looked at
    spiked = draw(posterior, blind, narrow, key)
    assert_alike(spiked, known, LABELS)
    np.testing.assert_allclose(spiked.theta["redshift"], 0.2, atol=7e-6)


@pytest.mark.slow
def test_a_flat_p_is_a_free_redshift(posterior, key):
    seen = galaxy("red")
    free = draw(posterior, seen, None, key)
    for flat in (table(ENDS, (3, 3)), normal(0.2, 50.0)):
        assert_alike(draw(posterior, seen, flat, key), free, (*LABELS, "redshift"))


PRIORS = {"narrow": normal(0.15, 0.03), "wide": normal(0.45, 0.1), "peaks": table(*PEAKS["peaks"])}


@pytest.mark.slow
@pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS)
def test_evidence_is_that_of_given_redshifts_averaged(prior, posterior, small_posterior, key):
    """Against quadrature over the prior's levels of the evidence at each known redshift."""
    seen = galaxy("faint")
    level = (jnp.arange(48) + 0.5) / 48
    each = at_each(with_flow(small_posterior), seen, prior.quantile(level), key)
    drawn = draw(posterior, seen, prior, key)
    expected = log_mean_exp(np.asarray(each, float))
    assert float(drawn.psis.ess) > 100
    error = 4 / np.sqrt(float(drawn.psis.ess)) + 0.06
    assert float(drawn.log_evidence) == pytest.approx(expected, abs=error)


@pytest.mark.slow
@pytest.mark.parametrize("known", [None, (0.3, 0.04)], ids=["free", "error"])
def test_the_sampler_finds_the_same(known, posterior, key):
    prior = None if known is None else normal(*known)
    seen = galaxy("faint")._replace(redshift=jnp.asarray(jnp.nan), redshift_prior=prior)
    sampled = eqx.filter_jit(draw_free_smc)(posterior, seen, MORE_DRAWS, key=key)
    assert float(sampled.psis.ess) > 400
    brute = from_prior(posterior, seen, key) if known is None else draw(posterior, seen, prior, key)
    assert_alike(sampled, brute, (*LABELS, "redshift"))


def test_uniform_levels_are_redshifts_of_the_range():
    prior = uniform(*ENDS)
    assert prior.quantile(jnp.array([0.0, 0.5, 1.0])).tolist() == pytest.approx([0.05, 0.275, 0.5])
    assert np.all(np.asarray(prior.quantile(ndtr(jnp.array([-40.0, 40.0])))) == np.float32(ENDS))


# --- simulation-based calibration ---

SNR_RANGE = (0.4, 2.0)
RANGE = (0.01, 0.6)
NUMBER = 512
EFFORT = Effort(draws=384, enough=30, most=8)


@pytest.fixture(scope="module")
def simulated(small_posterior):
    """Galaxies of the prior, and the redshift that a spectrograph of their own error would give."""
    flow = WidePrior(small_posterior.space.without_mass().n_unit)
    posterior = dataclasses.replace(taught(small_posterior, RANGE), flow=flow)
    noise = BroadNoise(*SNR_RANGE)
    simulator = Simulator(small_posterior.space, small_posterior.tables, noise, RANGE)
    truth = simulate_prior(
        posterior, simulator, NUMBER, SNR_RANGE, jax.random.key(1), redshift=Redshift.FREE
    )
    rng = np.random.default_rng(2)
    error = 10 ** rng.uniform(-2.5, -0.5, NUMBER)
    seen = np.asarray(truth.values["redshift"], float) + error * rng.normal(size=NUMBER)
    return posterior, truth, seen, error


def ranks(simulated, claimed):
    posterior, truth, redshift, error = simulated
    prior, _ = truncated(gaussian(redshift, claimed * error), *RANGE)
    prior = jax.tree.map(lambda a: jnp.asarray(a, dtype=float), prior)
    told = truth._replace(seen=truth.seen._replace(redshift_prior=prior), log_weight=None)
    found = calibrate(posterior, told, SNR_RANGE, EFFORT, jax.random.key(3))
    there = np.isfinite(found.ess)
    assert there.mean() > 0.99
    assert np.median(found.ess[there]) > EFFORT.enough
    return {name: uniformity(r[there])["p"] for name, r in found.ranks[WEIGHTED].items()}


@pytest.mark.slow
def test_truths_rank_uniformly_where_redshifts_have_errors(simulated):
    """Every parameter and derived property, and the redshift; 1 % false alarms over all of them."""
    p_values = ranks(simulated, 1.0)
    assert {"redshift", "log10_mstar_msun", JOINT} <= set(p_values)
    assert not holm(p_values), p_values


@pytest.mark.slow
def test_understated_errors_are_found(simulated):
    assert "redshift" in holm(ranks(simulated, 0.6))
