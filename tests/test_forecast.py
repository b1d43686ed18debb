"""Synthetic catalogues of other surveys."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import kstest

from tinsley.io.catalogs import read_photometry
from tinsley.io.surveys import load_survey
from tinsley.parameters import default_space
from tinsley.population.forecast import (
    ab_magnitude,
    in_batches,
    noise_of_depth,
    observed_catalog,
    synthetic_catalog,
    true_flux,
)
from tinsley.population.space import PopulationSpace
from tinsley.population.summaries import density
from tinsley.population.synthetic import Selection, parse_selection
from tinsley.population.targets import colours

BANDS = tuple("ugriz")
DEPTH_MAG = (23.0, 24.0, 23.5, 23.0, 22.0)
FREE = Selection((-np.inf,) * 5)


@pytest.fixture(scope="module")
def columns(small_posterior):
    space = PopulationSpace(default_space(), small_posterior.cosmology, (0.02, 0.6))
    x = jax.random.normal(jax.random.key(3), (3000, space.n_dim))
    theta = {name: np.asarray(value) for name, value in space.theta(x).items()}
    return theta | {"member": np.arange(3000) % 2, "selected_weight": np.ones(3000)}


def test_a_depth_is_five_sigma_and_a_floor_the_least_error():
    noise = noise_of_depth(DEPTH_MAG, (0.02,) * 5, extended_mag=0.7, scatter_dex=0.0)
    limit = 10 ** (0.4 * (22.5 - np.array(DEPTH_MAG) + 0.7))
    for times in (1.0, 1.12, 30.0, 1e4):
        flux = jnp.asarray(times * limit, dtype=float)[None]
        sigma = np.asarray(noise.sample_sigma(flux, key=jax.random.key(0)))[0]
        expected = np.hypot(limit / 5, 0.02 * 0.4 * np.log(10) * times * limit)
        np.testing.assert_allclose(sigma, expected, rtol=0.012)
    bare = noise_of_depth(DEPTH_MAG, scatter_dex=0.0)
    bright = jnp.full((1, 5), 1e5)
    sky = 10 ** (0.4 * (22.5 - np.array(DEPTH_MAG))) / 5
    np.testing.assert_allclose(bare.sample_sigma(bright, key=jax.random.key(0))[0], sky, rtol=0.012)


def test_a_catalogue_is_true_flux_and_its_noise(small_posterior, columns):
    survey = (noise_of_depth(DEPTH_MAG), FREE)
    made = synthetic_catalog(columns, small_posterior.tables, BANDS, survey, key=jax.random.key(1))
    assert made["object_id"].tolist() == list(range(3000))
    np.testing.assert_array_equal(made["redshift"], columns["redshift"])
    for band in BANDS:
        pull = (made[f"flux_{band}"] - made[f"flux_true_{band}"]) / made[f"flux_err_{band}"]
        assert kstest(pull, "norm").pvalue > 1e-3
    true = true_flux(columns, small_posterior.tables)
    np.testing.assert_array_equal(true[:, 2], made["flux_true_r"])


def test_a_cut_leaves_what_passes(small_posterior, columns):
    survey = (noise_of_depth(DEPTH_MAG), parse_selection("r < 20, snr > 3", BANDS))
    made = synthetic_catalog(columns, small_posterior.tables, BANDS, survey, key=jax.random.key(1))
    free = synthetic_catalog(
        columns, small_posterior.tables, BANDS, (survey[0], FREE), key=jax.random.key(1)
    )
    bright = free["flux_r"] > 10 ** (0.4 * 2.5)
    for band in BANDS:
        bright &= free[f"flux_{band}"] > 3 * free[f"flux_err_{band}"]
    assert 100 < bright.sum() < 2900
    np.testing.assert_array_equal(made["object_id"], np.flatnonzero(bright))
    np.testing.assert_array_equal(made["tau_ism"], columns["tau_ism"][bright])


def test_it_reads_as_a_table_of_the_survey(small_posterior, columns):
    survey = (noise_of_depth(DEPTH_MAG), FREE)
    made = synthetic_catalog(columns, small_posterior.tables, BANDS, survey, key=jax.random.key(1))
    seen = read_photometry(made, load_survey("sdss"))
    usable = seen.usable
    assert usable.mean() > 0.95
    np.testing.assert_allclose(seen.flux[usable, 2], made["flux_r"][usable], rtol=1e-6)


def test_batches_are_the_whole():
    columns = {"x": np.arange(10.0), "y": np.arange(10.0) ** 2}
    whole = in_batches(lambda c, _: jnp.stack([c["x"], c["y"]], 1), columns)
    np.testing.assert_allclose(whole, np.stack([columns["x"], columns["y"]], 1))
    for batch in (1, 3, 5, 10, 64):
        parts = in_batches(lambda c, i: jnp.stack([c["x"], c["y"]], 1), columns, batch)
        np.testing.assert_array_equal(parts, whole)


def test_a_magnitude_needs_a_positive_flux():
    found = ab_magnitude(np.array([1.0, 100.0, 0.0, -2.0]))
    np.testing.assert_allclose(found[:2], [22.5, 17.5])
    assert np.isnan(found[2:]).all()


def test_real_galaxies_take_the_place_of_synthetic_ones():
    table = {"object_id": [7, 8, 9], "redshift": [0.05, 0.15, 0.15]}
    for i, band in enumerate(BANDS):
        table |= {f"flux_{band}": [10.0 + i] * 3, f"flux_err_{band}": [0.1] * 3}
    rows = read_photometry(table, load_survey("sdss"))
    observed = observed_catalog(rows, BANDS)
    assert observed["object_id"].tolist() == [7, 8, 9]
    np.testing.assert_allclose(colours(observed, (("u", "z"),)), 2.5 * np.log10(14 / 10))
    np.testing.assert_array_equal(observed["flux_err_z"], rows.sigma[:, 4])
    found = density(observed, "redshift", np.array([0.0, 0.1, 0.2])).each
    np.testing.assert_allclose(found, [[10 / 3, 20 / 3]])
