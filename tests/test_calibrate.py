"""The statistics of `tinsley check`, where the answer is known.

Gaussian toy: theta ~ N(0, 1), x = theta + N(0, 1), so the posterior is N(x / 2, 1 / 2).
"""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from tinsley.infer import calibrate as module
from tinsley.infer.amortized import AmortizedPosterior
from tinsley.infer.calibrate import Calibration, Effort, calibrate, summarise
from tinsley.infer.likelihood import Observation, integrate_mass, sample_log10_mass
from tinsley.infer.ranks import (
    JOINT,
    RAW,
    WEIGHTED,
    WITH_TRUTH,
    holm,
    judge,
    rank,
    uniformity,
    weighted_median,
)
from tinsley.infer.simulator import Simulator
from tinsley.infer.truths import Truth, simulate_histories, simulate_prior
from tinsley.observe.exact import (
    derived_of_history,
    exact_derived,
    exact_photometry,
    stars,
    stars_of_history,
)
from tinsley.observe.noise import BroadNoise, SigmaGivenFlux
from tinsley.parameters import MASS, ParamSpace, Uniform
from tinsley.sps.derived import DERIVED

SCALE = np.sqrt(0.5)
N_SBC = 5000


@pytest.fixture
def rng(request) -> np.random.Generator:
    return np.random.default_rng(sum(map(ord, request.node.name)))


def gaussian(rng, number, n_draws, *, width=1.0, shift=0.0):
    """Truths, and draws from posteriors `width` times as wide, shifted by `shift` sd."""
    truth = rng.normal(size=number)
    x = truth + rng.normal(size=number)
    draws = rng.normal(size=(number, n_draws)) * width * SCALE
    return truth, x, draws + (x / 2 + shift * SCALE)[:, None]


def equal_ranks(rng, truth, draws):
    number, n_draws = draws.shape
    weight = np.full(draws.shape, 1 / n_draws)
    return rank(draws, weight, truth, np.full(number, 1 / n_draws), rng.uniform(size=number))


def proposed(rng, number, n_draws, *, width, shift=0.0):
    """Draws from a wrong posterior with the weights that mend it, and the truth's own weight."""
    truth, x, draws = gaussian(rng, number, n_draws, width=width, shift=shift)

    def weigh(values):
        exact = stats.norm.pdf(values, x[:, None] / 2, SCALE)
        return exact / stats.norm.pdf(values, x[:, None] / 2 + shift * SCALE, width * SCALE)

    weight = weigh(draws)
    total = weight.sum(axis=1)
    ess = total**2 / np.sum(weight**2, axis=1)
    return truth, draws, weight / total[:, None], weigh(truth[:, None])[:, 0] / total, ess


# --- the rank ---


@pytest.mark.parametrize("n_draws", [1, 20, 1000])
def test_ranks_of_an_exact_posterior_are_uniform(rng, n_draws):
    truth, _, draws = gaussian(rng, N_SBC, n_draws)
    assert stats.kstest(equal_ranks(rng, truth, draws), "uniform").pvalue > 1e-3


@pytest.mark.parametrize("width", [0.6, 2.0])
@pytest.mark.parametrize("n_draws", [3, 30])
def test_weighted_ranks_with_the_truth_are_uniform_at_any_ess(rng, width, n_draws):
    truth, draws, weight, own, _ = proposed(rng, N_SBC, n_draws, width=width, shift=0.5)
    ranks = rank(draws, weight, truth, own, rng.uniform(size=N_SBC))
    assert stats.kstest(ranks, "uniform").pvalue > 1e-3


def test_weighted_ranks_without_the_truths_weight_need_ess(rng):
    truth, draws, weight, _, ess = proposed(rng, N_SBC, 1000, width=1.5, shift=0.5)
    assert np.quantile(ess, 0.01) > 200
    ranks = rank(draws, weight, truth, 1 / ess, rng.uniform(size=N_SBC))
    assert uniformity(ranks)["distance"] < 0.02
    few, own = weight[:, :5] / weight[:, :5].sum(axis=1, keepdims=True), np.zeros(N_SBC)
    assert uniformity(rank(draws[:, :5], few, truth, own, own))["distance"] > 0.03


def test_ranks_of_tied_values_are_uniform(rng):
    truth, _, draws = gaussian(rng, N_SBC, 50)
    floor = 0.3
    ranks = equal_ranks(rng, np.maximum(truth, floor), np.maximum(draws, floor))
    assert stats.kstest(ranks, "uniform").pvalue > 1e-3
    almost = np.maximum(draws, floor) + np.float32(1e-7) * rng.normal(size=draws.shape)
    assert np.mean(equal_ranks(rng, np.full(N_SBC, floor), np.minimum(almost, floor))) < 0.55


def test_a_rank_counts_weights():
    values, weight = np.array([[1.0, 2.0, 3.0, 3.0]]), np.array([[0.1, 0.2, 0.3, 0.4]])
    truth, own, jitter = np.array([3.0]), np.array([0.25]), np.array([0.5])
    assert rank(values, weight, truth, own, jitter) == pytest.approx((0.3 + 0.5 * 0.95) / 1.25)


def test_median_counts_weights():
    values, weight = np.array([[3.0, 1.0, 2.0, np.nan]]), np.array([[0.2, 0.4, 0.4, 0.0]])
    assert weighted_median(values, weight) == [2.0]
    assert weighted_median(values[:, :3], np.array([[0.6, 0.2, 0.2]])) == [3.0]


# --- the tests ---


@pytest.mark.parametrize("wrong", [{"width": 0.8}, {"width": 1.25}, {"shift": 0.1}])
def test_a_wrong_posterior_is_found(rng, wrong):
    ranks = {}
    for name, how in {"good": {}, "bad": wrong}.items():
        truth, _, draws = gaussian(rng, N_SBC, 500, **how)
        ranks[name] = equal_ranks(rng, truth, draws)
    criteria = judge({RAW: ranks, WEIGHTED: ranks})
    assert criteria["uniform"]["rejected"] == ["raw bad", "weighted bad"]
    assert criteria["pp"]["of"] == "raw bad"
    assert not criteria["pp"]["passed"]
    assert "joint" not in criteria


def test_an_exact_posterior_passes(rng):
    ranks = {name: equal_ranks(rng, *gaussian(rng, N_SBC, 200)[::2]) for name in ("a", "b", JOINT)}
    criteria = judge({RAW: ranks, WEIGHTED: ranks})
    assert [criteria[name]["passed"] for name in ("uniform", "pp", "joint")] == [True] * 3


def test_false_alarms_are_as_rare_as_stated(rng):
    """200 exact cases of n = 500, 34 quantities: 2 alarms expected, more than 6 in 0.4 %."""
    alarms = 0
    for _ in range(200):
        draws = rng.normal(size=(34, 500, 9))
        count = np.sum(draws < rng.normal(size=(34, 500, 1)), axis=-1)
        ranks = (count + rng.uniform(size=count.shape)) / 10
        p_values = {
            str(i): stats.kstest(r, "uniform", method="asymp").pvalue for i, r in enumerate(ranks)
        }
        alarms += bool(holm(p_values))
    assert alarms <= 6


def test_holm_steps_down():
    p_values = {"a": 0.002, "b": 0.0051, "c": 0.009, "d": 0.2}
    assert holm(p_values, level=0.01) == ["a"]
    assert holm(p_values, level=0.016) == ["a", "b"]
    assert holm(p_values, level=0.018) == ["a", "b", "c"]
    assert holm({"a": 0.02}, level=0.01) == []


def test_joint_coverage_sees_what_marginals_do_not(rng):
    """Both posteriors have the right marginals; one lacks their correlation."""
    number, n_draws, correlation = N_SBC, 300, 0.9
    mixed = np.array([[1, 0], [correlation, np.sqrt(1 - correlation**2)]])
    centre = rng.normal(size=(number, 1, 2))
    truth = centre + rng.normal(size=(number, 1, 2)) @ mixed.T
    exact = centre + rng.normal(size=(number, n_draws, 2)) @ mixed.T
    independent = centre + rng.normal(size=(number, n_draws, 2))
    reference = 3 * rng.uniform(-1, 1, size=(number, 1, 2))

    def distance_from_diagonal(draws):
        near, far = (np.linalg.norm(v - reference, axis=-1) for v in (truth, draws))
        return uniformity(equal_ranks(rng, near[:, 0], far))["distance"]

    assert distance_from_diagonal(exact) < 0.025
    assert distance_from_diagonal(independent) > 0.03
    assert uniformity(equal_ranks(rng, truth[:, 0, 1], independent[..., 1]))["distance"] < 0.025


def test_uniformity_gives_coverage(rng):
    found = uniformity(rng.uniform(size=20_000))
    assert found["coverage_68"] == pytest.approx(0.68, abs=0.012)
    assert found["coverage_95"] == pytest.approx(0.95, abs=0.006)
    assert sum(found["counts"]) == 20_000


# --- galaxies: a small model with an untrained network ---


class WidePrior(eqx.Module):
    """A proposal that ignores the photometry: as the prior, but 1.3 times as wide."""

    n_dim: int = eqx.field(static=True)
    width: float = eqx.field(static=True, default=1.3)

    def log_prob(self, x, features):
        return jnp.sum(jax.scipy.stats.norm.logpdf(x, scale=self.width))

    def sample_and_log_prob(self, number, features, *, key):
        x = self.width * jax.random.normal(key, (number, self.n_dim))
        return x, jax.vmap(lambda row: self.log_prob(row, features))(x)

    def sample_each(self, features, *, key):
        return self.sample_and_log_prob(len(features), features[0], key=key)


SNR_RANGE = (0.4, 2.0)
EFFORT = Effort(draws=128, enough=20, most=8)
NUMBER = 512


@pytest.fixture(scope="module")
def simulator(small_simulator) -> Simulator:
    space, tables = small_simulator.space, small_simulator.tables
    return Simulator(space, tables, BroadNoise(*SNR_RANGE), small_simulator.redshift_range)


@pytest.fixture(scope="module")
def posterior(small_posterior) -> AmortizedPosterior:
    flow = WidePrior(small_posterior.space.without_mass().n_unit)
    return AmortizedPosterior(
        flow, small_posterior.space, small_posterior.tables, small_posterior.derived_tables
    )


@pytest.fixture(scope="module")
def truth(posterior, simulator) -> Truth:
    return simulate_prior(posterior, simulator, NUMBER, SNR_RANGE, jax.random.key(1))


@pytest.fixture(scope="module")
def found(posterior, truth) -> Calibration:
    return calibrate(posterior, truth, SNR_RANGE, EFFORT, jax.random.key(2))


@pytest.mark.slow
def test_exact_weights_mend_a_wrong_proposal(posterior, truth, found):
    """The whole of it: prior, noise, dropped bands, likelihood, mass, derived properties."""
    assert set(found.ranks[RAW]) == {*posterior.space.names, *DERIVED, JOINT}
    for kind in (WEIGHTED, WITH_TRUTH):
        p_values = {name: uniformity(r)["p"] for name, r in found.ranks[kind].items()}
        assert not holm(p_values), (kind, p_values)
    assert "raw beta_4" in judge(found.ranks)["uniform"]["rejected"]
    assert np.median(found.ess) > EFFORT.enough
    assert set(np.unique(found.rounds)) > {1, 2}
    summary = summarise(truth, found, np.ones(NUMBER, bool))
    assert summary["failed"] == 0
    mass = summary["properties"]["log10_mstar_msun"]
    assert abs(mass["bias"]) < 0.05
    assert mass[WITH_TRUTH]["coverage_68"] == pytest.approx(0.68, abs=0.06)


def telling_errors() -> SigmaGivenFlux:
    """Errors of 0.3 mag at the bright end, 1 mag at the faint, scatter 10 %: they tell fluxes."""
    mag = jnp.tile(jnp.array([16.0, 24.0]), (5, 1))
    mean = jnp.tile(jnp.array([0.3, 1.0]), (5, 1))
    return SigmaGivenFlux(mag, mean, 0.1 * mean)


@pytest.mark.slow
@pytest.mark.parametrize("mass", ["drawn", "integrated"])
def test_errors_that_tell_the_flux_belong_to_the_likelihood(small_posterior, mass):
    """SEDflow's noise: calibrated with p(sigma | flux) in the weights, and not without it."""
    narrow = (Uniform(MASS, 9.7, 10.3), *small_posterior.space.priors[1:])
    posterior = dataclasses.replace(
        small_posterior, space=ParamSpace(narrow), noise=telling_errors(), mass=mass
    )
    posterior = dataclasses.replace(posterior, flow=WidePrior(posterior.flow_space.n_unit))
    simulator = Simulator(posterior.space, posterior.tables, posterior.noise, (0.05, 0.2))
    truth = simulate_prior(posterior, simulator, NUMBER, None, jax.random.key(1))
    found = calibrate(posterior, truth, None, EFFORT, jax.random.key(2))
    for kind in (WEIGHTED, WITH_TRUTH):
        p_values = {name: uniformity(r)["p"] for name, r in found.ranks[kind].items()}
        assert not holm(p_values), (kind, p_values)
    deaf = dataclasses.replace(posterior, noise=None)
    ranks = calibrate(deaf, truth, None, EFFORT, jax.random.key(2)).ranks[WEIGHTED]
    assert holm({name: uniformity(ranks[name])["p"] for name in ranks})


@pytest.mark.slow
def test_a_wrong_likelihood_is_found(posterior, truth):
    """Errors understated by a third."""
    wrong = truth._replace(seen=truth.seen._replace(sigma=truth.seen.sigma * 0.67))
    ranks = calibrate(posterior, wrong, SNR_RANGE, EFFORT, jax.random.key(2)).ranks
    rejected = judge(ranks)["uniform"]["rejected"]
    assert "weighted log10_mstar_msun" in rejected


@pytest.mark.slow
def test_the_same_key_gives_the_same_ranks_however_many_workers(posterior, truth):
    few = jax.tree.map(lambda a: a[:70], truth)
    once = calibrate(posterior, few, SNR_RANGE, EFFORT, jax.random.key(4))
    busy = dataclasses.replace(EFFORT, workers=3)
    again = calibrate(posterior, few, SNR_RANGE, busy, jax.random.key(4))
    jax.tree.map(np.testing.assert_array_equal, once, again)


@pytest.mark.slow
def test_galaxies_without_need_keep_one_round(found):
    once = found.rounds == 1
    assert 0 < once.sum() < NUMBER
    np.testing.assert_allclose(found.efficiency[once], found.ess[once] / EFFORT.draws, rtol=1e-6)
    assert np.all(found.ess[once] >= EFFORT.enough)


def test_galaxies_that_fail_are_counted_and_left_out(posterior, truth):
    few = jax.tree.map(lambda a: a[:70], truth)
    hopeless = few._replace(seen=few.seen._replace(flux=few.seen.flux.at[:2].set(1e25)))
    failed = calibrate(posterior, hopeless, SNR_RANGE, EFFORT, jax.random.key(4))
    summary = summarise(hopeless, failed, np.arange(70) != 1)
    assert (summary["galaxies"], summary["failed"]) == (69, 1)
    assert sum(summary["properties"]["tau_bc"][RAW]["counts"]) == 68


def test_masses_that_the_noise_rules_out_are_finite(posterior):
    """Two bands whose S/N can not both lie in the range: weight 0, and no NaN to spoil a mean."""
    flux, sigma = jnp.array([5.0, 5000.0, 1.0]), jnp.array([1.0, 0.1, 1.0])
    seen = Observation(flux, sigma, jnp.array([True, True, False]), jnp.array(0.1))
    integral = integrate_mass(jnp.array([[1.0, 1000.0, 1.0]]), seen, (7.0, 12.5), (0.7, 220.0))
    assert integral.log_likelihood[0] == -jnp.inf
    assert jnp.isfinite(sample_log10_mass(integral, key=jax.random.key(0)))[0]


def test_histories_of_the_model_itself_are_nothing_new(small_model, small_filters):
    """Bin by bin, a history that the bases make gives the same light and properties as they do."""
    theta = {"log10_mstar_msun": 10.3, "redshift": 0.1, "log10_z_zsun": -0.4, "f_burst": 0.0}
    theta |= {"beta_1": 0.4, "beta_2": 0.3, "beta_3": 0.2, "beta_4": 0.1, "t_burst_gyr": 1.0}
    theta |= {"tau_bc": 1.0, "tau_ism": 0.6, "n_dust": -0.5}
    fraction = np.zeros(42)
    fraction[: len(stars(small_model, theta).mass) - 1] = stars(small_model, theta).mass[:-1]
    history = stars_of_history(small_model, theta, fraction)
    np.testing.assert_allclose(
        exact_photometry(small_model, small_filters, theta, history),
        exact_photometry(small_model, small_filters, theta),
        rtol=1e-12,
    )
    found, expected = (
        derived_of_history(small_model, theta, fraction),
        exact_derived(small_model, theta),
    )
    assert tuple(found) == DERIVED
    sfr = {
        f"log10_{name}_msun_yr": np.log10(expected.pop(name)) for name in ("sfr_100myr", "sfr_1gyr")
    }
    assert {n: found[n] for n in sfr | expected} == pytest.approx(sfr | expected, abs=1e-9)


def test_histories_share_nothing_with_the_band_tables_but_the_noise(
    small_model, small_filters, simulator
):
    fraction = np.zeros((3, 42))
    fraction[:, [5, 30, 38]] = [0.2, 0.3, 0.5]
    histories = (np.array([0.06, 0.1, 0.19]), np.array([9.0, 10.0, 11.0]), fraction)
    quiet = Simulator(
        simulator.space, simulator.tables, BroadNoise(1e5, 2e5), (0.05, 0.2), complete=1.0
    )
    truth = simulate_histories(small_model, small_filters, quiet, histories, jax.random.key(0))
    assert {"beta_1", "f_burst", "t_burst_gyr", JOINT}.isdisjoint(truth.values)
    one = {name: float(value[2]) for name, value in truth.values.items()} | {"redshift": 0.19}
    expected = exact_photometry(
        small_model, small_filters, one, stars_of_history(small_model, one, fraction[2])
    )
    np.testing.assert_allclose(truth.seen.flux[2], expected, rtol=1e-4)
    assert truth.values["log10_sfr_100myr_msun_yr"][2] == pytest.approx(
        11 + np.log10(0.2 / 1e8), abs=1e-3
    )


def test_rounds_are_as_many_as_needed():
    ess = np.array([200.0, 199.0, 101.0, 63.0, 62.0, 1.0, np.nan])
    assert module._rounds_wanted(ess, Effort()).tolist() == [1, 2, 4, 4, 8, 32, 32]
