"""Priors and the maps between unit cube, unbounded space and physical values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tinsley.parameters import (
    BETAS,
    FLAT_POWER,
    MASS,
    WARPED_POWER,
    AbstractBoundedPrior,
    LogUniform,
    Normal,
    ParamSpace,
    Simplex,
    Uniform,
    UniformToAge,
    default_space,
    param_space_from_dict,
    sedflow_space,
)

PRIORS = {
    "uniform": lambda: Uniform("x", -2.0, 5.0),
    "log_uniform": lambda: LogUniform("x", 4.5e-5, 1.5e-2),
    "normal": lambda: Normal("x", 0.3, 0.5, -0.4, 2.0),
    "half_normal": lambda: Normal("x", 0.0, 1.0, 0.0, 9.0),
    "simplex_flat": lambda: Simplex(BETAS, FLAT_POWER),
    "simplex_warped": lambda: Simplex(BETAS, WARPED_POWER),
    "uniform_to_age": lambda: UniformToAge("x", 0.01, 13.27),
}
SPACES = {"default": default_space, "sedflow": sedflow_space}
every_prior = pytest.mark.parametrize("make", PRIORS.values(), ids=PRIORS.keys())
every_space = pytest.mark.parametrize("make", SPACES.values(), ids=SPACES.keys())
units = st.lists(st.floats(0.01, 0.99), min_size=3, max_size=3)
ages = st.floats(3.0, 13.7)
FALSE_ALARM = 1e-3


# --- laws of every prior ---------------------------------------------------------------------


@every_prior
@given(u=units, age_gyr=ages)
def test_to_unit_is_the_inverse_of_from_unit(make, u, age_gyr):
    prior = make()
    u = jnp.asarray(u[: prior.n_unit])
    theta = prior.from_unit(u, jnp.asarray(age_gyr))
    assert set(theta) == set(prior.names)
    np.testing.assert_allclose(prior.to_unit(theta, jnp.asarray(age_gyr)), u, atol=2e-4)


@every_prior
def test_edges_of_the_unit_cube_stay_inside_the_prior(make):
    prior, age_gyr = make(), jnp.asarray([3.0, 4.213, 8.000001, 13.79])
    low = prior.from_unit(jnp.zeros((4, prior.n_unit)), age_gyr)
    high = prior.from_unit(jnp.ones((4, prior.n_unit)), age_gyr)
    for theta in (low, high):
        assert all(np.all(np.isfinite(value)) for value in theta.values())
    if isinstance(prior, AbstractBoundedPrior):
        np.testing.assert_allclose(low["x"], prior.low, rtol=1e-5)
        np.testing.assert_allclose(high["x"], prior.high, rtol=1e-5)


@every_prior
def test_plain_description_gives_the_prior_back(make):
    space = ParamSpace((make(),))
    assert param_space_from_dict(space.to_dict()) == space


@every_prior
def test_slope_of_from_unit_is_finite_inside(make):
    prior = make()
    u = jnp.asarray([1e-6, 0.5, 1 - 1e-6])[:, None] * jnp.ones(prior.n_unit)
    total = jax.grad(
        lambda u: sum(jnp.sum(v) for v in prior.from_unit(u, jnp.full(3, 9.0)).values())
    )
    assert np.all(np.isfinite(total(u)))


@every_prior
def test_density_is_the_inverse_slope_of_from_unit(make):
    prior = make()
    if not isinstance(prior, AbstractBoundedPrior):
        return
    u = jnp.linspace(0.01, 0.99, 41)

    def value(u):
        return prior.from_unit(u[None], jnp.asarray(9.0))["x"]

    log_prob = prior.log_prob(jax.vmap(value)(u))
    np.testing.assert_allclose(np.exp(-log_prob), jax.vmap(jax.grad(value))(u), rtol=2e-3)
    outside = jnp.asarray([prior.low - 0.01, prior.high + 0.01])
    assert np.all(np.isneginf(prior.log_prob(outside)))


# --- each of them ----------------------------------------------------------------------------


def test_log_uniform_is_uniform_in_the_logarithm():
    middle = LogUniform("x", 1e-4, 1e-2).from_unit(jnp.asarray([0.5]), jnp.asarray(9.0))
    assert float(middle["x"]) == pytest.approx(1e-3, rel=1e-5)


def test_normal_is_scipys_truncated_normal():
    """KS of 20,000 draws; false alarm 1e-3 (fixed seed)."""
    prior = PRIORS["normal"]()
    drawn = prior.from_unit(jax.random.uniform(jax.random.key(2), (20_000, 1)), jnp.zeros(20_000))
    exact = stats.truncnorm(-1.4, 3.4, 0.3, 0.5)
    assert stats.kstest(np.asarray(drawn["x"], float), exact.cdf).pvalue > FALSE_ALARM
    x = np.linspace(-0.399, 1.999, 50)
    np.testing.assert_allclose(prior.log_prob(jnp.asarray(x)), exact.logpdf(x), atol=1e-4)


@given(age_gyr=ages, u=st.floats(0.0, 1.0))
def test_bursts_are_never_older_than_the_galaxy(age_gyr, u):
    prior, age = UniformToAge("t", 0.01, 13.27), jnp.asarray(age_gyr)
    for at in (u, 1.0, 1 - 3e-7):
        t_gyr = prior.from_unit(jnp.asarray([at]), age)["t"]
        assert 0.01 <= float(t_gyr) + 1e-9
        assert float(t_gyr) <= float(age)
        assert float(t_gyr) <= float(jnp.asarray(13.27))


def test_bursts_reach_the_galaxys_age():
    t_gyr = UniformToAge("t", 0.01, 13.27).from_unit(jnp.ones((2, 1)), jnp.asarray([5.0, 13.8]))
    np.testing.assert_allclose(t_gyr["t"], [5.0, 13.27], rtol=1e-6)


def betas(power, number, key):
    u = jax.random.uniform(key, (number, 3))
    theta = Simplex(BETAS, power).from_unit(u, jnp.zeros(number))
    return np.stack([theta[name] for name in BETAS], axis=-1)


@pytest.mark.parametrize("power", [FLAT_POWER, WARPED_POWER])
def test_shares_sum_to_one(power):
    drawn = betas(power, 1000, jax.random.key(0))
    assert drawn.min() >= 0
    np.testing.assert_allclose(drawn.sum(axis=-1), 1.0, atol=3e-7)


def dirichlet_p_values(drawn):
    """KS against a sampled flat Dirichlet: marginals, sums of pairs, the largest, the smallest."""
    sampled = np.random.default_rng(5).dirichlet(np.ones(4), len(drawn))
    views = [lambda b, i=i: b[:, i] for i in range(4)]
    views += [lambda b, i=i: b[:, i] + b[:, (i + 1) % 4] for i in range(4)]
    views += [lambda b: b.max(axis=1), lambda b: b.min(axis=1)]
    return np.array([stats.ks_2samp(view(drawn), view(sampled)).pvalue for view in views])


def test_flat_simplex_is_a_flat_dirichlet():
    """Ten two-sample KS tests of 100,000; family-wise false alarm 1e-3 (and the seed is fixed)."""
    p_values = dirichlet_p_values(betas(FLAT_POWER, 100_000, jax.random.key(1)))
    assert p_values.min() > FALSE_ALARM / len(p_values)


def test_warped_simplex_is_the_papers_and_no_flat_dirichlet():
    drawn = betas(WARPED_POWER, 100_000, jax.random.key(2))
    np.testing.assert_allclose(drawn.mean(axis=0), [0.5, 0.25, 0.125, 0.125], atol=0.01)
    np.testing.assert_allclose(drawn.std(axis=0), [0.289, 0.220, 0.146, 0.146], atol=0.01)
    assert dirichlet_p_values(drawn).min() < 1e-10


# --- spaces ----------------------------------------------------------------------------------


@every_space
def test_space_names_its_parameters_in_order(make):
    space = make()
    theta = space.from_unit(jnp.full((1, space.n_unit), 0.5), jnp.asarray([9.0]))
    assert tuple(theta) == space.names
    assert space.names[:7] == (MASS, *BETAS, "f_burst", "t_burst_gyr")
    assert space.n_unit == len(space.names) - 1
    assert MASS not in space.without_mass().names
    assert space.without_mass().n_unit == space.n_unit - 1
    assert (space.mass_prior.low, space.mass_prior.high) == (7.0, 12.5)


@every_space
def test_samples_fill_the_unit_cube_evenly(make):
    """KS of every coordinate against uniform; family-wise false alarm 1e-3 (fixed seed)."""
    space, age_gyr = make(), jnp.linspace(5.0, 13.7, 2000)
    u = space.to_unit(space.sample(2000, age_gyr, key=jax.random.key(3)), age_gyr)
    p_values = [stats.kstest(np.asarray(column), "uniform").pvalue for column in u.T]
    assert min(p_values) > FALSE_ALARM / space.n_unit


@every_space
def test_unbounded_space_and_back(make):
    space, age_gyr = make(), jnp.full(2000, 9.0)
    x = jax.random.normal(jax.random.key(4), (2000, space.n_unit))
    back = space.to_unbounded(space.from_unbounded(x, age_gyr), age_gyr)
    here = np.abs(np.asarray(x)).max(axis=-1) < 2.5
    np.testing.assert_allclose(back[here], x[here], atol=5e-3)


@every_space
@given(reach=st.floats(-1e30, 1e30))
def test_no_point_of_the_unbounded_space_leaves_the_prior(make, reach):
    space, age_gyr = make(), jnp.asarray([9.0])
    theta = space.from_unbounded(jnp.full((1, space.n_unit), reach), age_gyr)
    u = space.to_unit(theta, age_gyr)
    assert all(np.all(np.isfinite(value)) for value in theta.values())
    assert np.all((u > -1e-6) & (u < 1 + 1e-6))
    assert np.all(np.isfinite(space.to_unbounded(theta, age_gyr)))


@every_space
def test_space_survives_its_plain_description(make):
    assert param_space_from_dict(make().to_dict()) == make()


def test_default_prior_wastes_no_volume_on_bursts_before_the_galaxy():
    age_gyr = jnp.full(2000, 6.0)
    theta = default_space().sample(2000, age_gyr, key=jax.random.key(6))
    assert np.all(theta["t_burst_gyr"] <= 6.0)
    papers = sedflow_space().sample(2000, age_gyr, key=jax.random.key(6))
    assert np.mean(papers["t_burst_gyr"] > 6.0) == pytest.approx(1 - 6 / 13.26, abs=0.05)


# --- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Uniform, LogUniform, UniformToAge])
def test_ranges_must_not_be_empty(kind):
    with pytest.raises(ValueError, match="low < high; got 2.0 and 1.0"):
        kind("x", 2.0, 1.0)


def test_log_uniform_needs_positive_ends():
    with pytest.raises(ValueError, match="needs low > 0"):
        LogUniform("x", 0.0, 1.0)


@pytest.mark.parametrize(("mean", "std"), [(3.0, 1.0), (0.5, 0.0), (0.5, -1.0)])
def test_normal_needs_a_width_and_its_mean_inside(mean, std):
    with pytest.raises(ValueError, match="x: a normal prior needs std > 0 and its mean from 0 to"):
        Normal("x", mean, std, 0.0, 1.0)


def test_a_prior_is_replaced_in_its_place():
    new = Normal("log10_z_zsun", -0.2, 0.3, -2.0, 0.4)
    space = default_space().replaced(new)
    assert space.names == default_space().names
    assert param_space_from_dict(space.to_dict()) == space
    assert new in space.priors
    for name in ("beta_1", "age_mw_gyr"):
        with pytest.raises(ValueError, match=f"{name}: no prior of its own to replace"):
            default_space().replaced(Uniform(name, 0.0, 1.0))


def test_unknown_prior_is_refused():
    with pytest.raises(ValueError, match="unknown prior 'planar'"):
        param_space_from_dict([{"prior": "planar", "name": "x", "low": 0.0, "high": 1.0}])


def test_space_without_mass_has_no_mass_prior():
    with pytest.raises(ValueError, match=f"uniform prior on {MASS}"):
        default_space().without_mass().mass_prior  # noqa: B018
