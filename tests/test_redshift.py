"""Unknown redshifts: draws against brute force, truths weighed as draws are, whole runs."""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
from jax.scipy.stats import norm

from test_amortized import galaxy, log_mean_exp
from test_run import columns
from tinsley.catalog.run import RunSettings, run_catalog
from tinsley.density.histogram import make_histogram
from tinsley.errors import InputError
from tinsley.infer.amortized import weigh
from tinsley.infer.features import n_features_without_redshift
from tinsley.infer.redshift import draw_free, draw_free_hmc, log_q_of
from tinsley.infer.truths import simulate_prior
from tinsley.io.catalogs import open_catalog
from tinsley.io.results import write_parquet
from tinsley.io.surveys import load_survey
from tinsley.posterior import Posterior
from tinsley.status import Redshift, Refine

ENDS = (0.05, 0.5)
N_DRAWS = 65_536
N_PRIOR = 65_536
DENSITY = {"bins": 32, "width": 16, "depth": 1}
DRAWS = 100


def taught(posterior, ends=ENDS):
    """The posterior with an untrained, far from flat density of redshift."""
    density = make_histogram(DENSITY, n_features_without_redshift(5), ends, key=jax.random.key(3))
    density = jax.tree.map(lambda x: 1.5 * x if eqx.is_inexact_array(x) else x, density)
    return dataclasses.replace(posterior, redshift_density=density)


@pytest.fixture(scope="module")
def free_posterior(small_posterior):
    return taught(small_posterior)


@pytest.fixture(scope="module")
def free_loaded(small_loaded):
    posterior = taught(small_loaded.posterior, small_loaded.spec.redshift_range)
    return dataclasses.replace(small_loaded, posterior=posterior)


@eqx.filter_jit
def draw(posterior, seen, key):
    return draw_free(posterior, seen, N_DRAWS, key=key)


@eqx.filter_jit
def from_prior(posterior, seen, key):
    """Redshifts and parameters from the prior, as another proposal: nothing of the networks."""
    key_z, key_x, key_mass = jax.random.split(key, 3)
    redshift = jax.random.uniform(key_z, (N_PRIOR,), minval=ENDS[0], maxval=ENDS[1])
    x = jax.random.normal(key_x, (N_PRIOR, posterior.space.without_mass().n_unit))
    log_q = jnp.sum(norm.logpdf(x), axis=-1)
    return weigh(posterior, seen._replace(redshift=redshift), x, log_q, key=key_mass)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["faint", "red"])
def test_draws_are_those_of_brute_force(name, free_posterior, key):
    key_draw, key_prior = jax.random.split(key)
    seen = galaxy(name)._replace(redshift=jnp.asarray(jnp.nan))  # not to be looked at
    drawn, brute = draw(free_posterior, seen, key_draw), from_prior(free_posterior, seen, key_prior)
    assert_same_posterior(drawn, brute)


@pytest.mark.slow
def test_chains_are_those_of_brute_force(free_posterior, key):
    key_draw, key_prior = jax.random.split(key)
    seen = galaxy("red")._replace(redshift=jnp.asarray(jnp.nan))  # not to be looked at
    drawn = eqx.filter_jit(draw_free_hmc)(free_posterior, seen, 8192, key=key_draw)
    assert float(drawn.rhat) < 1.01
    np.testing.assert_allclose(drawn.psis.log_weight, -np.log(8192), rtol=1e-6)
    assert_same_posterior(drawn, from_prior(free_posterior, seen, key_prior))


def assert_same_posterior(drawn, brute):
    """Evidence, and means to 5 standard errors, of a galaxy of unknown redshift."""
    weight = np.exp(np.asarray(drawn.psis.log_weight, float))
    expected = np.exp(np.asarray(brute.psis.log_weight, float))
    assert float(drawn.psis.ess) > 200
    assert float(drawn.log_evidence) == pytest.approx(
        log_mean_exp(np.asarray(brute.log_weight, float)), abs=0.15
    )
    for quantity in ("redshift", "log10_mstar_msun", "tau_ism", "log10_ssfr_100myr_yr"):
        ours, theirs = (np.asarray(d.theta[quantity], float) for d in (drawn, brute))
        mean, spread = np.sum(expected * theirs), np.sqrt(np.cov(theirs, aweights=expected))
        allowed = 5 * spread * np.hypot(*(1 / np.sqrt(float(d.psis.ess)) for d in (drawn, brute)))
        assert np.sum(weight * ours) == pytest.approx(mean, abs=allowed), quantity
    inside = (np.asarray(drawn.theta["redshift"]) >= ENDS[0]) & (drawn.theta["redshift"] <= ENDS[1])
    assert np.all(inside)


@pytest.mark.slow
def test_a_truth_is_weighed_as_a_draw_is(free_posterior, small_simulator, key):
    truth = simulate_prior(free_posterior, small_simulator, 64, None, key, redshift=Redshift.FREE)
    assert "redshift" in truth.values
    given = simulate_prior(free_posterior, small_simulator, 64, None, key)
    assert "redshift" not in given.values
    redshift = np.asarray(truth.values["redshift"])
    outside = (redshift < ENDS[0]) | (redshift > ENDS[1])
    assert np.all(np.isposinf(np.asarray(truth.log_weight))[outside])  # never drawn
    seen = jax.tree.map(lambda a: a[0], truth.seen)
    drawn = draw(free_posterior, seen, key)
    theta = {name: values[:50] for name, values in drawn.theta.items()}
    age_gyr = free_posterior.cosmology.age_gyr(theta["redshift"])
    x = free_posterior.space.without_mass().to_unbounded(theta, age_gyr)
    log_q = jax.vmap(lambda x, z: log_q_of(free_posterior, seen, x, z))(x, theta["redshift"])
    again = weigh(free_posterior, seen._replace(redshift=theta["redshift"]), x, log_q, key=key)
    usual = np.asarray(drawn.log_weight[:50])
    shown = np.abs(np.asarray(x)).max(axis=1) < 3.5  # beyond, float32 rounds the way back
    np.testing.assert_allclose(
        np.asarray(again.log_weight)[shown], usual[shown], atol=0.05, rtol=1e-3
    )


def without_redshift():
    return {name: values for name, values in columns().items() if name != "redshift"}


@pytest.fixture(scope="module")
def run(free_loaded, tmp_path_factory):
    folder = tmp_path_factory.mktemp("free")
    write_parquet(folder / "g.parquet", without_redshift(), {})
    catalog = open_catalog(folder / "g.parquet", load_survey("sdss"), needs_redshift=False)
    settings = RunSettings(draws=DRAWS, refine=Refine.NEVER, redshift=Redshift.FREE)
    manifest = run_catalog(free_loaded, catalog, None, folder / "out", settings)
    return folder / "out", manifest


def test_a_run_without_redshifts_gives_them(run, small_spec):
    out, manifest = run
    table = pq.read_table(out / "galaxies.parquet").to_pydict()
    status = np.array(table["status"])
    low, high = small_spec.redshift_range
    there = np.isfinite(table["redshift_q50"])
    assert status[-7:-3].tolist() == ["bad_input"] * 4
    assert set(status[-3:-1]) <= {"ok", "low_ess", "unusual_colour"}  # no redshift, or far outside
    assert status[-1] == "too_few_bands"
    assert there[-7:].tolist() == [False] * 4 + [True, True, False]
    for end in ("mean", "q16", "q50", "q84"):
        values = np.array(table[f"redshift_{end}"])[there]
        assert np.all((values >= low) & (values <= high))
    assert np.all(np.array(table["redshift_std"])[there] > 0)
    assert "best_redshift" in table
    assert "redshift" in pq.read_table(out / "draws").column_names
    assert manifest["redshift"] == "free"


def test_python_gives_the_same(run, free_loaded):
    expected = pq.read_table(run[0] / "galaxies.parquet").to_pydict()
    posterior, table = Posterior(free_loaded, load_survey("sdss")), columns()
    settings = {"redshift": "free", "draws": DRAWS, "refine": "never"}
    result = posterior.infer(table, **settings)
    flux, error = (np.stack([table[f"{n}_{b}"] for b in "ugriz"], 1) for n in ("flux", "flux_err"))
    other = posterior.infer(flux, error, object_id=table["object_id"], **settings)
    for found in (result, other):
        np.testing.assert_array_equal(found.table["redshift_q50"], expected["redshift_q50"])
    assert "z = 0.05" in result.plot_sed(0).axes[0].get_title()


def test_a_model_that_was_not_taught_says_so(small_loaded, tmp_path):
    write_parquet(tmp_path / "g.parquet", without_redshift(), {})
    catalog = open_catalog(tmp_path / "g.parquet", load_survey("sdss"), needs_redshift=False)
    with pytest.raises(InputError, match="model small needs redshifts; teach it"):
        run_catalog(small_loaded, catalog, None, tmp_path, RunSettings(redshift=Redshift.FREE))
