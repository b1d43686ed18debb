"""Another prior by weights: closed forms, priors that were sampled themselves, calibration."""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm
from scipy import stats

from test_amortized import galaxy, with_flow
from test_redshift import ENDS, taught
from tinsley.cosmology import default_cosmology
from tinsley.infer.amortized import draw_posterior, weigh, with_prior
from tinsley.infer.marginals import SSFR_1GYR, Schechter, make_volume, properties
from tinsley.infer.prior import draw_prior, make_ratio, replaced_space
from tinsley.infer.ranks import rank
from tinsley.infer.redshift import draw_free
from tinsley.infer.simulator import Simulator
from tinsley.io.priors import load_prior
from tinsley.observe.noise import BroadNoise
from tinsley.observe.photometry import photometry, unit_flux
from tinsley.parameters import MASS, Normal, Uniform
from tinsley.sps.derived import derived

FALSE_ALARM = 1e-3
RANGE = (0.01, 0.3)
SURVIVING = "log10_mstar_surviving_msun"


def uniform(low, high):
    return {"prior": "uniform", "low": low, "high": high}


def normal(mean, std, **ends):
    return {"prior": "normal", "mean": mean, "std": std} | ends


PARAMETERS = {"log10_z_zsun": normal(-0.4, 0.4), "tau_ism": uniform(0.0, 1.0)}
FIELD = load_prior("volume_mass_function").entries


@eqx.filter_jit
def draw(posterior, seen, key, number=16_384):
    return draw_posterior(posterior, seen, number, key=key)


@pytest.fixture(scope="module")
def from_prior(small_posterior):
    """A posterior that proposes the trained prior."""
    return with_flow(small_posterior)


def prior_draws(posterior, redshift, number, key):
    """Draws of the trained prior, with all properties."""
    z = jnp.full(number, redshift)
    theta = posterior.space.sample(number, posterior.cosmology.age_gyr(z), key=key)
    theta |= {"redshift": z}
    return properties(theta | derived(posterior.derived_tables, theta))


def effective(weight):
    return np.sum(weight) ** 2 / np.sum(weight**2)


# --- densities ---


def test_mass_function_is_the_published_one():
    """The double Schechter function written out, per dex; and a normalised density."""
    made = Schechter(SURVIVING, 7.0, 12.0, 10.66, (3.96e-3, 0.79e-3), (-0.35, -1.47))
    mass = np.linspace(7.0, 12.0, 4001)
    x = 10 ** (mass - 10.66)
    phi = np.exp(-x) * (3.96e-3 * x**-0.35 + 0.79e-3 * x**-1.47) * np.log(10) * x
    found = np.exp(np.asarray(made.log_prob(jnp.asarray(mass)), float))
    np.testing.assert_allclose(found[1:-1], (phi / np.trapezoid(phi, mass))[1:-1], rtol=2e-3)
    assert np.all(np.isneginf(made.log_prob(jnp.asarray([6.99, 12.01]))))


def test_volume_is_the_shell_between_two_distances():
    made, cosmology = make_volume(0.01, 0.6), default_cosmology()
    z = np.array([0.05, 0.2, 0.5])
    shell = cosmology.comoving_volume(z + 1e-3) - cosmology.comoving_volume(z - 1e-3)
    whole = cosmology.comoving_volume(0.6) - cosmology.comoving_volume(0.01)
    expected = (shell / whole).value / 2e-3
    np.testing.assert_allclose(np.exp(made.log_prob(jnp.asarray(z))), expected, rtol=1e-3)
    assert np.isneginf(made.log_prob(jnp.asarray(0.7)))


# --- closed forms ---


@pytest.mark.slow
@pytest.mark.parametrize("mass", [normal(10.6, 0.3), normal(9.8, 0.2, low=9.0, high=11.0)])
def test_mass_under_a_new_prior_is_that_of_quadrature(mass, from_prior, key):
    """All else fixed: a Gaussian in mass times a truncated normal in its logarithm."""
    posterior, seen = with_prior(from_prior, RANGE, {MASS: mass}), galaxy("faint")
    number = 16_384
    one = 0.2 * jax.random.normal(key, (1, posterior.space.without_mass().n_unit))
    x = jnp.broadcast_to(one, (number, one.shape[1]))
    drawn = weigh(posterior, seen, x, jnp.sum(norm.logpdf(x), axis=-1), key=key)

    low, high = mass.get("low", 7.0), mass.get("high", 12.5)
    ends = ((low - mass["mean"]) / mass["std"], (high - mass["mean"]) / mass["std"])
    grid = np.linspace(low, high, 20_001)
    theta = {name: values[:1] for name, values in drawn.theta.items()}
    flux = np.asarray(unit_flux(posterior.tables, theta), float)[0] * 10 ** (grid[:, None] - 10)
    data, sigma = np.asarray(seen.flux, float), np.asarray(seen.sigma, float)
    log_height = np.sum(stats.norm.logpdf(data, flux, sigma), axis=1)
    log_height += stats.truncnorm.logpdf(grid, *ends, mass["mean"], mass["std"])
    height = np.exp(log_height - log_height.max())
    log_evidence = np.log(np.trapezoid(height, grid)) + log_height.max()
    cdf = np.cumsum(height) / np.sum(height)

    n_effective = float(drawn.psis.ess)
    assert float(drawn.log_evidence) == pytest.approx(log_evidence, abs=5 / np.sqrt(n_effective))
    weight = np.exp(np.asarray(drawn.psis.log_weight, float))
    values = np.asarray(drawn.theta[MASS], float)
    order = np.argsort(values)
    distance = np.abs(np.cumsum(weight[order]) - np.interp(values[order], grid, cdf))
    assert distance.max() < stats.kstwobign.isf(FALSE_ALARM) / np.sqrt(n_effective)
    assert values.min() >= low - 1e-4
    assert values.max() <= high + 1e-4


@pytest.mark.slow
def test_weights_of_the_trained_prior_itself_change_nothing(from_prior, key):
    entries = {"tau_ism": uniform(0.0, 3.0), MASS: uniform(7.0, 12.5)}
    seen = galaxy("faint")
    one, same = (draw(p, seen, key) for p in (from_prior, with_prior(from_prior, RANGE, entries)))
    np.testing.assert_allclose(one.log_weight, same.log_weight, atol=1e-5)
    assert float(same.ess_trained_prior) == pytest.approx(float(one.psis.ess), rel=1e-5)
    assert one.ess_trained_prior is None


def assert_agree(one, other, names):
    """Evidence and means of two weighted samples within 4.5 of their standard errors."""
    errors = [1 / np.sqrt(float(d.psis.ess)) for d in (one, other)]
    assert max(errors) < 0.15
    assert abs(float(one.log_evidence - other.log_evidence)) < 4.5 * np.hypot(*errors)
    weights = [np.exp(np.asarray(d.psis.log_weight, float)) for d in (one, other)]
    for name in names:
        values = [np.asarray(d.theta[name], float) for d in (one, other)]
        means = [np.sum(w * v) for w, v in zip(weights, values, strict=True)]
        spread = np.sqrt(np.cov(values[1], aweights=weights[1]))
        assert abs(means[0] - means[1]) < 4.5 * spread * np.hypot(*errors), name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["faint", "red"])
def test_weighted_draws_are_those_of_a_model_with_that_prior(name, small_posterior, key):
    """The other model draws the new prior itself, and needs no ratio."""
    entries = PARAMETERS | {MASS: uniform(8.0, 11.5)}
    space, _ = replaced_space(small_posterior.space, RANGE, entries)
    assert {Normal, Uniform} <= {type(prior) for prior in space.priors}
    itself = with_flow(dataclasses.replace(small_posterior, space=space))
    weighted = with_prior(with_flow(small_posterior), RANGE, entries)
    keys = jax.random.split(key)
    one, other = (
        draw(p, galaxy(name), k, 16_384) for p, k in zip((weighted, itself), keys, strict=True)
    )
    assert_agree(one, other, (MASS, "log10_z_zsun", "tau_ism", "n_dust", "age_mw_gyr"))
    for drawn in (one, other):
        assert 0 <= float(drawn.best["tau_ism"]) <= 1
        assert 8 <= float(drawn.best[MASS]) <= 11.5


@pytest.mark.slow
def test_unknown_redshifts_get_the_new_prior(small_posterior, key):
    """Against draws of redshift from the new prior itself, and of all else from the trained."""
    entries = {"redshift": normal(0.15, 0.05)}
    weighted = with_prior(taught(small_posterior), ENDS, entries)
    seen, number = galaxy("faint"), 16_384
    keys = jax.random.split(key, 4)
    one = eqx.filter_jit(lambda p, k: draw_free(p, seen, number, key=k))(weighted, keys[0])
    u = jax.random.uniform(keys[1], (number, 1))
    redshift = Normal("redshift", 0.15, 0.05, *ENDS).from_unit(u, u[:, 0])["redshift"]
    x = jax.random.normal(keys[2], (number, small_posterior.space.without_mass().n_unit))
    other = eqx.filter_jit(weigh)(
        small_posterior, seen._replace(redshift=redshift), x,
        jnp.sum(norm.logpdf(x), axis=-1), key=keys[3],
    )  # fmt: skip
    assert_agree(one, other, ("redshift", MASS, "tau_ism"))
    assert float(one.ess_trained_prior) > float(one.psis.ess)


@pytest.mark.slow
def test_a_given_redshift_has_no_prior(from_prior, key):
    entries = {"redshift": uniform(0.25, 0.3)}  # the galaxy's is far from it
    one, same = (
        draw(p, galaxy("faint"), key) for p in (from_prior, with_prior(from_prior, RANGE, entries))
    )
    np.testing.assert_array_equal(one.log_weight, same.log_weight)


# --- derived properties ---

DERIVED_PRIORS = {
    "ssfr": {SSFR_1GYR: uniform(-11.5, -9.2)},
    "age": {"age_mw_gyr": normal(4.0, 1.0)},
    "share": {"beta_1": uniform(0.05, 0.8)},
    "two": {SSFR_1GYR: uniform(-11.0, -9.5), "age_mw_gyr": uniform(2.0, 6.0)},
    "mass_and_ssfr": {MASS: normal(10.0, 0.7), SSFR_1GYR: uniform(-11.5, -9.2)},
    "field": {SURVIVING: FIELD[SURVIVING]},
}
DISTRIBUTIONS = {
    "uniform": lambda e: stats.uniform(e["low"], e["high"] - e["low"]).cdf,
    "normal": lambda e: stats.norm(e["mean"], e["std"]).cdf,
    "schechter": lambda e: schechter_cdf,
}


def schechter_cdf(value):
    grid = np.linspace(7.0, 12.0, 5001)
    x = 10 ** (grid - 10.66)
    phi = np.exp(-x) * (3.96 * x**0.65 + 0.79 * x**-0.47)
    return np.interp(value, grid, np.cumsum(phi) / phi.sum())


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in ("age", "two", "mass_and_ssfr")))
        for name in DERIVED_PRIORS
    ],
)
def test_the_implied_prior_is_the_one_asked_for(name, small_posterior, key):
    """Weighted draws that had no part in the tables; KS at their effective number.

    Tables err by up to 1 % of probability (their tolerance), which is allowed on top. What is not
    named and does not depend on it keeps its prior.
    """
    entries = DERIVED_PRIORS[name]
    posterior = with_prior(small_posterior, RANGE, entries)
    for redshift in (0.03, 0.279):
        theta = prior_draws(posterior, redshift, 40_000, key)
        weight = np.exp(np.asarray(posterior.prior_ratio.log_ratio(theta, free=False), float))
        number = effective(weight)
        assert number > 2000
        assert np.mean(weight) == pytest.approx(1.0, abs=0.03 + 4 / np.sqrt(number))
        limit = stats.kstwobign.isf(FALSE_ALARM / len(entries)) / np.sqrt(number) + 0.01
        for label, entry in entries.items():
            values = np.asarray(theta[label], float)
            order = np.argsort(values)
            found = np.cumsum(weight[order]) / weight.sum()
            expected = DISTRIBUTIONS[entry["prior"]](entry)(values[order])
            there = weight[order] > 0
            assert np.max(np.abs(found - expected)[there]) < limit, label
        for label in ("tau_ism", "n_dust", "log10_z_zsun"):
            values = np.asarray(theta[label], float)
            error = 4.5 * np.std(values) / np.sqrt(number)
            assert np.average(values, weights=weight) == pytest.approx(values.mean(), abs=error)


def test_a_prior_is_drawn_by_itself_or_by_weights(small_posterior, key):
    parts = (small_posterior.space, small_posterior.derived_tables, RANGE)
    values, weight = draw_prior(*parts, PARAMETERS, 20_000, key=key)
    assert effective(np.asarray(weight)) == pytest.approx(20_000, rel=1e-3)
    assert stats.kstest(np.asarray(values["tau_ism"]), "uniform").pvalue > FALSE_ALARM
    values, weight = draw_prior(*parts, FIELD, 20_000, key=key)
    number = effective(np.asarray(weight, float))
    assert number < 15_000
    z, volume = np.asarray(values["redshift"], float), default_cosmology().comoving_volume
    expected = float(((volume(0.2) - volume(0.01)) / (volume(0.3) - volume(0.01))).value)
    below = np.sum(np.asarray(weight, float)[z < 0.2])
    assert below == pytest.approx(expected, abs=4 * 0.5 / np.sqrt(number))


# --- calibration ---


def truths_of_parameters(posterior, number, rng):
    """Galaxies at z = 0.2 of PARAMETERS and a normal mass, drawn by scipy."""
    theta = prior_draws(posterior, 0.2, number, jax.random.key(rng.integers(2**31)))
    theta = {name: np.asarray(values) for name, values in theta.items()}
    theta[MASS] = stats.truncnorm(-6.0, 5.0, 10.0, 0.5).rvs(number, random_state=rng)
    theta["log10_z_zsun"] = stats.truncnorm(-4.5, 2.0, -0.4, 0.4).rvs(number, random_state=rng)
    theta["tau_ism"] = rng.uniform(0, 1, number)
    return theta


def truths_of_ssfr(posterior, number, rng):
    """Galaxies at z = 0.2 uniform in sSFR: prior draws, kept with a kernel estimate's inverse."""
    theta = prior_draws(posterior, 0.2, 150 * number, jax.random.key(rng.integers(2**31)))
    value = np.asarray(theta[SSFR_1GYR], float)
    grid = np.linspace(-11.2, -9.6, 200)
    height = np.interp(value, grid, stats.gaussian_kde(value[::15], 0.03)(grid))
    inside = (value > -11.2) & (value < -9.6)
    kept = inside & (rng.uniform(size=len(value)) < height[inside].min() / height)
    return {name: np.asarray(values)[kept][:number] for name, values in theta.items()}


CALIBRATED = {
    "parameters": (truths_of_parameters, PARAMETERS | {MASS: normal(10.0, 0.5)}, None),
    "ssfr": (truths_of_ssfr, {SSFR_1GYR: uniform(-11.2, -9.6)}, None),
    "flux_limited": (truths_of_parameters, PARAMETERS | {MASS: normal(10.0, 0.5)}, 20.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CALIBRATED)
def test_ranks_of_truths_of_the_new_prior_are_uniform(name, from_prior, key):
    """Simulation-based calibration; family-wise false alarm 1e-3 (and the seed is fixed).

    With a limit in the observed r flux the galaxies that pass it are calibrated under the prior of
    all: the limit has no part in the posterior. Under the trained prior the ranks are far off.
    """
    simulate, entries, limit = CALIBRATED[name]
    rng = np.random.default_rng(7)
    theta = simulate(from_prior, 600 if limit else 300, rng)
    theta = {label: jnp.asarray(values, dtype=float) for label, values in theta.items()}
    simulator = Simulator(from_prior.space, from_prior.tables, BroadNoise(1.0, 6.0), RANGE)
    made = simulator.observe(theta, photometry(from_prior.tables, theta), key=key)
    rows = np.arange(300)
    if limit:
        rows = np.flatnonzero(np.asarray(made.seen.flux[:, 2]) > limit)
        assert 120 < len(rows) < 450
    seen = jax.tree.map(lambda a: a[rows], made.seen)
    true = made.theta | derived(from_prior.derived_tables, made.theta)
    names = (MASS, "log10_z_zsun", "tau_ism", "n_dust", SSFR_1GYR)
    true = {n: np.asarray(properties(true)[n], float)[rows] for n in names}

    @eqx.filter_jit
    def infer(posterior):
        def one(galaxy):
            drawn = draw_posterior(posterior, galaxy[0], 4096, key=galaxy[1], snr_range=(1.0, 6.0))
            values = properties(drawn.theta)
            return {n: values[n] for n in names}, drawn.psis.log_weight, drawn.psis.ess

        return jax.lax.map(one, (seen, jax.random.split(key, len(rows))))

    p_values = {}
    for label, posterior in {
        "new": with_prior(from_prior, RANGE, entries),
        "trained": from_prior,
    }.items():
        values, log_weight, ess = jax.tree.map(lambda a: np.asarray(a, float), infer(posterior))
        p_values[label] = min(
            stats.kstest(
                rank(values[n], np.exp(log_weight), true[n], 1 / ess, rng.uniform(size=len(rows))),
                "uniform",
            ).pvalue
            for n in names
        )
        if label == "new":
            assert np.median(ess) > 100
    assert p_values["new"] > FALSE_ALARM / len(names)
    assert p_values["trained"] < 1e-4


# --- refusals ---

WIDE = r"reaches beyond what the model was trained on, .* `tinsley train posterior --prior`"


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"mass": uniform(8, 9)}, "unknown quantity 'mass'; expected some of log10_mstar_msun"),
        ({"log10_z_zsun": uniform(-3.0, 0.4)}, r"log10_z_zsun: a prior from -3 to 0.4 " + WIDE),
        ({MASS: uniform(6.0, 12.0)}, f"{MASS}: a prior from 6 to 12 " + WIDE),
        ({"tau_ism": normal(0.3, 0.1, low=-1.0)}, "tau_ism: a prior from -1 to 3 " + WIDE),
        ({"redshift": uniform(0.01, 1.0)}, r"redshift: a prior from 0.01 to 1 " + WIDE),
        ({SSFR_1GYR: uniform(-11, -8)}, f"{SSFR_1GYR}: a prior from -11 to -8 " + WIDE),
        ({"age_mw_gyr": uniform(1, 13)}, WIDE + r".* This is at redshift 0\.[0-9]+"),
        ({"tau_ism": uniform(2.0, 1.0)}, "tau_ism: a prior needs low < high"),
        ({"tau_ism": normal(5.0, 1.0)}, "tau_ism: a normal prior needs std > 0 and its mean"),
        ({"tau_ism": normal(1.0, -1.0)}, "tau_ism: a normal prior needs std > 0"),
        ({"tau_ism": {"prior": "volume"}}, "tau_ism: the prior 'volume' is of redshift alone"),
        ({"tau_ism": FIELD[SURVIVING]}, "tau_ism: the prior 'schechter' is of masses alone"),
        ({SURVIVING: FIELD[SURVIVING] | {"phi": [1.0]}}, "as many positive phi as alpha"),
        (
            {SSFR_1GYR: uniform(-9.4, -9.05), "age_mw_gyr": uniform(9.0, 9.5)},
            "can not be had together at redshift 0.01",
        ),
    ],
)
def test_priors_that_can_not_be(entries, words, small_posterior):
    redshifts = (0.01, 0.05) if "can not be had" in words else RANGE
    with pytest.raises(ValueError, match=words):
        make_ratio(small_posterior.space, small_posterior.derived_tables, redshifts, entries)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({SSFR_1GYR: uniform(-11, -9)}, f"{SSFR_1GYR}: no network can be trained with the prior"),
        ({"beta_1": uniform(0.1, 0.9)}, "beta_1: no network .* `tinsley infer --prior`"),
        ({MASS: normal(10, 1)}, f"{MASS}: no network can be .* 'normal': .* here uniform"),
        ({"redshift": {"prior": "volume"}}, "redshift: no network can be trained .* 'volume'"),
        ({"t_burst_gyr": normal(3, 1)}, "t_burst_gyr: no network .* here uniform"),
        ({"age": uniform(0, 1)}, "unknown quantity 'age'"),
    ],
)
def test_priors_that_no_network_is_trained_with(entries, words, small_posterior):
    with pytest.raises(ValueError, match=words):
        replaced_space(small_posterior.space, RANGE, entries)


def test_a_trained_prior_may_be_wider(small_posterior):
    entries = {"tau_ism": uniform(0, 5), "redshift": uniform(0.01, 1.0), MASS: uniform(6, 13),
               "t_burst_gyr": uniform(0.01, 5.0), "tau_bc": normal(1.0, 0.5)}  # fmt: skip
    space, redshifts = replaced_space(small_posterior.space, RANGE, entries)
    assert redshifts == (0.01, 1.0)
    assert space.names == small_posterior.space.names
    assert (space.mass_prior.low, space.mass_prior.high) == (6, 13)
    plain = {entry.get("name"): entry for entry in space.to_dict()}
    assert plain["t_burst_gyr"] | {"high": 5.0} == plain["t_burst_gyr"]
    assert plain["t_burst_gyr"]["prior"] == "uniform_to_age"
    assert plain["tau_bc"]["high"] == 3.0
