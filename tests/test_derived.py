"""Derived properties: tables against the exact path, limits, and hand-made cases."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tinsley.io.grids import load_ssp_grid
from tinsley.io.histories import load_sfh_bases
from tinsley.observe.exact import exact_derived
from tinsley.parameters import BETAS, MASS, default_space
from tinsley.sps.bases import SfhBases
from tinsley.sps.derived import DERIVED, SSFR_FLOOR_YR, derived, make_derived_tables
from tinsley.sps.galaxy import GalaxyModel, make_history, redshift_grid
from tinsley.sps.metallicity import ConstantMetallicity, Enrichment, NmfMetallicity

RANGE = (0.005, 1.5)
N = 200
TIME = np.linspace(0.07, 13.6, 50)
METALLICITIES = {
    "constant": ConstantMetallicity,
    "nmf": lambda: NmfMetallicity(SfhBases(TIME, np.stack([5.5 - 0.3 * TIME, 0.4 * TIME]))),
    "enrichment": Enrichment,
}
STEADY = SfhBases(np.array([0.0, 13.8]), np.ones((4, 2)))
"""The same star-formation rate at all times."""


@pytest.fixture(scope="module")
def default_model():
    return GalaxyModel(load_ssp_grid(), load_sfh_bases())


def draws(model, key):
    key_z, key_theta = jax.random.split(key)
    redshift = jax.random.uniform(key_z, (N,), minval=RANGE[0], maxval=RANGE[1])
    history = make_history(model, redshift_grid(*RANGE))
    age_gyr = history.cosmology.age_gyr(redshift)
    space = default_space(model.metallicity.priors())
    return space.sample(N, age_gyr, key=key_theta) | {"redshift": redshift}


@pytest.mark.parametrize("make", METALLICITIES.values(), ids=METALLICITIES.keys())
def test_tables_agree_with_the_exact_path(default_model, make, key):
    model = replace(default_model, metallicity=make())
    theta = draws(model, key)
    out = derived(make_derived_tables(model, redshift_grid(*RANGE)), theta)
    assert set(out) == set(DERIVED)
    rows = [{name: float(v[i]) for name, v in theta.items()} for i in range(N)]
    exact = [exact_derived(model, row) for row in rows]
    truth = {name: np.array([row[name] for row in exact]) for name in exact[0]}
    floor = SSFR_FLOOR_YR * 10 ** np.asarray(theta[MASS], float)
    for span in ("100myr", "1gyr"):
        expected = np.log10(np.maximum(truth[f"sfr_{span}"], floor))
        np.testing.assert_allclose(out[f"log10_sfr_{span}_msun_yr"], expected, atol=2e-4)
    ssfr = out["log10_sfr_100myr_msun_yr"] - theta[MASS]
    np.testing.assert_allclose(out["log10_ssfr_100myr_yr"], ssfr, atol=1e-5)
    for name in ("age_mw_gyr", "log10_z_mw_zsun", "log10_mstar_surviving_msun"):
        np.testing.assert_allclose(out[name], truth[name], atol=5e-4)


def one_galaxy(**changed):
    theta = dict.fromkeys(BETAS, 0.25) | {MASS: 10.0, "redshift": 0.1}
    theta |= {"f_burst": 0.0, "t_burst_gyr": 5.0, "log10_z_zsun": 0.0}
    return {name: jnp.asarray([value]) for name, value in (theta | changed).items()}


def of_one(model, **changed):
    out = derived(make_derived_tables(model, redshift_grid(0.09, 0.11)), one_galaxy(**changed))
    return {name: float(value[0]) for name, value in out.items()}


@pytest.mark.parametrize("make", METALLICITIES.values(), ids=METALLICITIES.keys())
def test_tables_at_one_redshift_are_the_tables_there(default_model, make, key):
    model = replace(default_model, metallicity=make())
    theta = draws(model, key) | {"redshift": jnp.full(N, 0.437)}
    tables = make_derived_tables(model, redshift_grid(*RANGE))
    expected, found = derived(tables, theta), derived(tables.at_redshift(jnp.asarray(0.437)), theta)
    for name in DERIVED:
        np.testing.assert_allclose(found[name], expected[name], atol=2e-5, err_msg=name)


def test_steady_star_formation_by_hand(default_model):
    """Mass over age; the mean age is half the galaxy's (of the bins' middles, to 0.1 %)."""
    model = replace(default_model, bases=STEADY)
    out = of_one(model)
    age_gyr = float(model.cosmology.age(0.1).to_value("Gyr"))
    for span in ("100myr", "1gyr"):
        assert 10 ** out[f"log10_sfr_{span}_msun_yr"] == pytest.approx(10 / age_gyr, rel=1e-3)
    assert out["age_mw_gyr"] == pytest.approx(age_gyr / 2, rel=2e-3)
    assert out["log10_z_mw_zsun"] == 0.0


@pytest.mark.parametrize(("t_burst_gyr", "spans"), [(0.05, (1, 1)), (0.5, (0, 1)), (2.0, (0, 0))])
def test_burst_counts_in_the_spans_that_hold_it(default_model, t_burst_gyr, spans):
    model = replace(default_model, bases=STEADY)
    out = of_one(model, f_burst=0.4, t_burst_gyr=t_burst_gyr)
    age_gyr = float(model.cosmology.age(0.1).to_value("Gyr"))
    for inside, span, name in zip(spans, (0.1, 1.0), ("100myr", "1gyr"), strict=True):
        expected = 10 * (0.6 / age_gyr + 0.4 * inside / span)
        assert 10 ** out[f"log10_sfr_{name}_msun_yr"] == pytest.approx(expected, rel=1e-3)
    assert out["age_mw_gyr"] == pytest.approx(0.6 * age_gyr / 2 + 0.4 * t_burst_gyr, rel=2e-3)


def test_dead_galaxy_has_the_least_star_formation(default_model):
    """A burst and nothing else: the specific rate stops at 1e-14/yr, and the rates with it."""
    out = of_one(default_model, f_burst=1.0, t_burst_gyr=6.0)
    assert out["log10_ssfr_100myr_yr"] == pytest.approx(-14.0, abs=1e-5)
    assert out["log10_sfr_100myr_msun_yr"] == pytest.approx(-4.0, abs=1e-5)
    assert out["log10_sfr_1gyr_msun_yr"] == pytest.approx(-4.0, abs=1e-5)
    assert out["age_mw_gyr"] == pytest.approx(6.0, rel=1e-5)


def test_surviving_mass_of_a_burst_is_the_grids(default_model):
    """At nodes of the grid, in age and metallicity."""
    ssp = default_model.ssp
    met, age = 3, int(np.searchsorted(ssp.log10_age_yr, 9.0))
    out = of_one(
        default_model,
        f_burst=1.0,
        t_burst_gyr=10 ** (ssp.log10_age_yr[age] - 9),
        log10_z_zsun=ssp.log10_z_zsun[met],
    )
    living = 10 ** (out["log10_mstar_surviving_msun"] - 10)
    assert living == pytest.approx(ssp.live_fraction[met, age], rel=1e-4)


def test_old_bursts_are_not_counted(default_model):
    """Older than the galaxy: the smooth history has all the mass."""
    assert of_one(default_model, f_burst=0.5, t_burst_gyr=13.0) == pytest.approx(
        of_one(default_model, f_burst=0.0), abs=1e-5
    )


def test_surviving_mass_is_less_than_formed_and_gradients_are_finite(default_model, key):
    model = replace(default_model, metallicity=Enrichment())
    tables, theta = make_derived_tables(model, redshift_grid(*RANGE)), draws(model, key)
    out = derived(tables, theta)
    assert np.all(out["log10_mstar_surviving_msun"] < theta[MASS])
    assert np.all(out["log10_mstar_surviving_msun"] > theta[MASS] - 0.6)
    ends = theta | {"f_burst": jnp.ones(N), "t_burst_gyr": jnp.full(N, 0.01)}
    gradient = jax.grad(lambda t: sum(jnp.sum(v) for v in derived(tables, t).values()))(ends)
    assert all(np.all(np.isfinite(value)) for value in gradient.values())
