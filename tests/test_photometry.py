"""Band tables against full spectra, and the laws that photometry keeps.

The whole prior over z 0.005-1.5 is measured by benchmarks/photometry.py; here are 60 galaxies a
kind of metallicity history on a stretch of redshift.
"""

import json
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from astropy.cosmology import FlatLambdaCDM

from tinsley.cosmology import make_cosmology
from tinsley.io.filters import load_filters
from tinsley.io.grids import load_ssp_grid
from tinsley.io.histories import load_provabgs_bases, load_sfh_bases
from tinsley.observe.exact import exact_photometry, rest_spectrum, stars
from tinsley.observe.photometry import (
    CHUNK,
    make_band_tables,
    map_chunks,
    photometry,
    tabulate_ssps,
    unit_flux,
)
from tinsley.parameters import MASS, default_space
from tinsley.sps.bases import SfhBases
from tinsley.sps.dust import TwoComponentDust
from tinsley.sps.galaxy import GalaxyModel, redshift_grid
from tinsley.sps.metallicity import ConstantMetallicity, Enrichment, NmfMetallicity

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "photometry.json"
PAPERS = Path(__file__).parents[2] / "shared" / "reference" / "provabgs_nmf"
STRETCH = (0.26, 0.42)
METALLICITIES = ("constant", "nmf", "enrichment")
N = 60  # one size for all: each costs a compilation


def metallicity_bases():
    """The papers' where they are; else two curves like them."""
    if PAPERS.exists():
        return load_provabgs_bases(PAPERS)[1]
    time = np.linspace(0.067, 13.6, 50)
    return SfhBases(time, np.stack([5.5 * np.exp(-time / 4), 3.0 * time * np.exp(-time / 7) / 7]))


def metallicity(name):
    if name == "nmf":
        return NmfMetallicity(metallicity_bases())
    return {"constant": ConstantMetallicity, "enrichment": Enrichment}[name]()


@pytest.fixture(scope="module")
def filters():
    return load_filters([f"sdss2010-{band}" for band in "ugriz"])


@pytest.fixture(scope="module")
def default_model():
    return GalaxyModel(load_ssp_grid(), load_sfh_bases())


@pytest.fixture(scope="module")
def ssp_flux(default_model, filters):
    return tabulate_ssps(default_model.ssp, filters, redshift_grid(*STRETCH))


@pytest.fixture(scope="module")
def tables_of(default_model, filters, ssp_flux):
    """Model and tables by the name of the metallicity history."""
    made = {}

    def make(name):
        if name not in made:
            model = replace(default_model, metallicity=metallicity(name))
            grid = redshift_grid(*STRETCH)
            made[name] = (model, make_band_tables(model, filters, grid, ssp_flux))
        return made[name]

    return make


def draws(model, key, redshifts=STRETCH, number=N):
    key_z, key_theta = jax.random.split(key)
    redshift = jax.random.uniform(key_z, (number,), minval=redshifts[0], maxval=redshifts[1])
    age_gyr = make_cosmology(model.cosmology).age_gyr(redshift)
    space = default_space(model.metallicity.priors())
    return space.sample(number, age_gyr, key=key_theta) | {"redshift": redshift}


def one(theta, row):
    return {name: float(values[row]) for name, values in theta.items()}


def exact_fluxes(model, filters, theta):
    rows = range(len(theta["redshift"]))
    return np.array([exact_photometry(model, filters, one(theta, row)) for row in rows])


# --- tables against spectra ------------------------------------------------------------------


@pytest.mark.parametrize("name", METALLICITIES)
def test_tables_agree_with_exact_photometry(tables_of, filters, name, key):
    model, tables = tables_of(name)
    theta = draws(model, key)
    expected = exact_fluxes(model, filters, theta)
    bare = theta | {"tau_bc": jnp.zeros(N), "tau_ism": jnp.zeros(N)}
    attenuation = 2.5 * np.log10(np.asarray(photometry(tables, bare), float) / expected)
    error = 2.5 * np.log10(np.asarray(photometry(tables, theta), float) / expected)
    error = np.where(attenuation < 10, np.abs(error), 0.0)
    assert np.percentile(error, 95, axis=0).max() <= 0.003
    assert error.max() <= 0.02
    assert np.median(error) <= 0.0003


@pytest.mark.parametrize("name", METALLICITIES)
def test_without_dust_tables_agree_to_half_a_millimagnitude(tables_of, filters, name, key):
    """What is left is the interpolation in redshift and float32."""
    model, tables = tables_of(name)
    theta = draws(model, key) | {"tau_bc": jnp.zeros(N), "tau_ism": jnp.zeros(N)}
    error = 2.5 * np.log10(np.asarray(photometry(tables, theta), float))
    error -= 2.5 * np.log10(exact_fluxes(model, filters, theta))
    assert np.abs(error).max() <= 0.0007


@pytest.mark.parametrize("name", METALLICITIES)
@pytest.mark.parametrize("redshift", [STRETCH[0], 0.3217, STRETCH[1]])
def test_tables_at_one_redshift_are_the_tables_there(tables_of, name, redshift, key):
    model, tables = tables_of(name)
    theta = draws(model, key, (redshift, redshift))
    expected = photometry(tables, theta)
    found = photometry(tables.at_redshift(jnp.asarray(redshift)), theta)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_other_physics_reaches_both_paths(default_model, filters, key):
    """Another cosmology, birth clouds of 0.1 Gyr and the papers' bump: both paths follow."""
    model = replace(
        default_model,
        dust=TwoComponentDust(t_birth_cloud_gyr=0.1, negative_bump=True),
        cosmology=FlatLambdaCDM(H0=50.0, Om0=0.5),
    )
    theta = draws(model, key, (0.30, 0.31))
    theta |= {"tau_bc": jnp.full(N, 2.0), "n_dust": jnp.full(N, 0.9), "tau_ism": jnp.full(N, 1.0)}
    tables = make_band_tables(model, filters, redshift_grid(0.30, 0.31))
    flux, expected = photometry(tables, theta), exact_fluxes(model, filters, theta)
    np.testing.assert_allclose(flux, expected, rtol=0.004)
    as_default = exact_fluxes(default_model, filters, theta)
    assert np.all(np.abs(expected / as_default - 1).max(axis=1) > 0.1)


def test_benchmark_holds_the_limits():
    """benchmarks/photometry.py: 1,000 draws over the prior, z 0.005-1.5, two kinds of history."""
    measured = json.loads(RESULTS.read_text())
    for name in ("constant", "enrichment"):
        errors = measured[name]["accuracy"]
        assert set(errors) == set("ugriz")
        for band in errors.values():
            assert band["p99_mmag"] <= 3
            assert band["worst_mmag"] <= 20


# --- laws ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METALLICITIES)
def test_flux_is_linear_in_mass(tables_of, name, key):
    model, tables = tables_of(name)
    theta = draws(model, key)
    doubled = theta | {MASS: theta[MASS] + np.log10(2.0)}
    np.testing.assert_allclose(
        photometry(tables, doubled), 2 * photometry(tables, theta), rtol=2e-5
    )
    at_unit = theta | {MASS: jnp.full(N, 10.0)}
    np.testing.assert_allclose(photometry(tables, at_unit), unit_flux(tables, theta), rtol=1e-6)


@pytest.mark.parametrize("name", ["constant", "enrichment"])
def test_compiled_is_interpreted(tables_of, name, key):
    model, tables = tables_of(name)
    theta = draws(model, key)
    with jax.disable_jit():
        plain = photometry(tables, theta)
    np.testing.assert_allclose(photometry(tables, theta), plain, rtol=2e-5)


def test_chunked_is_whole(tables_of, key):
    """Each galaxy has the same flux in a small batch, in a chunk, and where chunks are padded."""
    model, tables = tables_of("constant")
    number = 2 * CHUNK + 37
    theta = draws(model, key, number=number)
    whole = photometry(tables, theta)
    assert whole.shape == (number, 5)
    for start in (0, CHUNK - 30, number - N):
        rows = {name: values[start : start + N] for name, values in theta.items()}
        np.testing.assert_allclose(photometry(tables, rows), whole[start : start + N], rtol=1e-6)


@pytest.mark.parametrize("number", [1, 4, 5, 8, 11])
def test_map_chunks_keeps_rows_in_order(number):
    theta = {"redshift": jnp.arange(float(number)), "other": jnp.arange(number) * 10.0}
    out = map_chunks(lambda t: jnp.stack([t["redshift"], t["other"]], axis=-1), theta, 4)
    np.testing.assert_array_equal(out, np.stack([np.arange(number), 10.0 * np.arange(number)], -1))


@pytest.fixture(scope="module")
def slopes_of(tables_of):
    """ln flux of unit-cube points and its gradient to them and to redshift, by kind of history."""
    made = {}

    def make(name):
        if name not in made:
            model, tables = tables_of(name)
            space = default_space(model.metallicity.priors())

            def log_flux(u, redshift):
                age_gyr = tables.history.cosmology.age_gyr(redshift)
                theta = space.from_unit(u, age_gyr) | {"redshift": redshift}
                return jnp.sum(jnp.log(photometry(tables, theta)))

            made[name] = (space, jax.jit(jax.value_and_grad(log_flux, argnums=(0, 1))))
        return made[name]

    return make


@pytest.mark.parametrize("name", ["constant", "enrichment"])
def test_gradients_are_finite_at_the_priors_edges(slopes_of, name):
    """In the unit cube: also bursts as old as the galaxy, the ends of slope and redshift."""
    space, slopes = slopes_of(name)
    corners = np.random.default_rng(3).choice([3e-7, 0.5, 1 - 3e-7], (N, space.n_unit))
    corners[:2] = [[3e-7], [1 - 3e-7]]
    redshift = jnp.resize(jnp.asarray(STRETCH), N)
    value, gradients = slopes(jnp.asarray(corners, dtype=float), redshift)
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(gradient)) for gradient in gradients)


@pytest.mark.parametrize("name", ["constant", "enrichment"])
def test_gradients_are_differences(slopes_of, name):
    """Central differences in each coordinate; few straddle a kink of the tables' interpolation.

    Not of t_burst where metallicity follows the mass: it jumps as the burst passes a bin.
    """
    space, slopes = slopes_of(name)
    rng = np.random.default_rng(4)
    u = jnp.asarray(rng.uniform(0.1, 0.9, (N, space.n_unit)), dtype=float)
    redshift = jnp.asarray(rng.uniform(*STRETCH, N), dtype=float)
    _, (slope, slope_z) = slopes(u, redshift)
    step = 0.01
    smooth = [i for i in range(space.n_unit) if (name, i) != ("enrichment", 5)]
    for i in smooth:
        there, back = (slopes(u.at[:, i].add(sign * step), redshift)[0] for sign in (1, -1))
        total = float(jnp.sum(slope[:, i]))
        assert float(there - back) / (2 * step) == pytest.approx(total, rel=0.03, abs=1.0)
    there, back = (slopes(u, redshift + sign * 0.002)[0] for sign in (1, -1))
    assert float(there - back) / 0.004 == pytest.approx(float(jnp.sum(slope_z)), rel=0.03)


def test_light_dims_with_dust_and_distance(tables_of, key):
    model, tables = tables_of("constant")
    theta = draws(model, key)
    flux = photometry(tables, theta)
    for parameter in ("tau_ism", "tau_bc"):
        more = photometry(tables, theta | {parameter: theta[parameter] + 0.1})
        assert np.all(more <= flux * (1 + 1e-5))


def test_fluxes_are_positive_and_finite_behind_any_dust(tables_of, key):
    model, tables = tables_of("constant")
    theta = draws(model, key)
    theta |= {"tau_ism": jnp.full(N, 30.0), "tau_bc": jnp.full(N, 30.0)}
    flux = np.asarray(photometry(tables, theta))
    assert np.all(flux > 0)
    assert np.all(np.isfinite(flux))


def test_bursts_older_than_the_galaxy_give_no_light_and_take_no_mass(tables_of, filters, key):
    """The papers' prior allows them; the smooth history then has all the mass."""
    model, tables = tables_of("constant")
    theta = draws(model, key) | {"t_burst_gyr": jnp.full(N, 13.0)}
    none = theta | {"f_burst": jnp.zeros(N)}
    np.testing.assert_array_equal(photometry(tables, theta), photometry(tables, none))
    np.testing.assert_allclose(
        photometry(tables, theta), exact_fluxes(model, filters, theta), rtol=0.01
    )


def test_birth_clouds_dim_the_young_alone(default_model):
    theta = {f"beta_{k}": 0.25 for k in (1, 2, 3, 4)} | {"log10_z_zsun": 0.0}
    theta |= {"f_burst": 0.3, "t_burst_gyr": 0.01, "redshift": 0.1}
    theta |= {"tau_bc": 1.0, "tau_ism": 0.0, "n_dust": 0.0}
    population = stars(default_model, theta)
    assert population.young.sum() == 11
    assert not population.young[-1]
    assert population.mass.sum() == pytest.approx(1.0)
    wave_aa, dimmed = rest_spectrum(default_model, theta)
    _, clear = rest_spectrum(default_model, theta | {"tau_bc": 0.0})
    _, dark = rest_spectrum(default_model, theta | {"tau_bc": 1e4})
    lost = (clear - dimmed) / np.maximum(clear - dark, 1e-30)
    np.testing.assert_allclose(lost, 1 - np.exp(-5500.0 / wave_aa), atol=1e-6)


# --- grids -----------------------------------------------------------------------------------


def test_tables_of_few_filters_are_columns_of_more(tables_of, default_model, filters, key):
    model, tables = tables_of("constant")
    theta = draws(model, key)
    some = make_band_tables(default_model, filters[1:3], redshift_grid(*STRETCH))
    assert some.n_bands == 2
    np.testing.assert_allclose(
        photometry(some, theta), photometry(tables, theta)[:, 1:3], rtol=1e-6
    )
