"""Simulated galaxies: the truth is consistent, looks and stars are tied, draws reproducible."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from conftest import SMALL_GRID
from tinsley.cosmology import default_cosmology, make_cosmology
from tinsley.errors import InputError
from tinsley.observe import scenes as scenes_module
from tinsley.observe.gallery import PROPERTIES, make_gallery
from tinsley.observe.images import sdss_camera
from tinsley.observe.indices import make_index_tables
from tinsley.observe.morphology import (
    apparent_axis_ratio,
    arcsec_per_kpc,
    early_type_radius_kpc,
    inclined_depth,
    late_type_radius_kpc,
    radius_scatter,
)
from tinsley.observe.noise import BroadNoise
from tinsley.observe.profiles import make_sersic_table
from tinsley.observe.scenes import SceneModel, passes, sample_scenes
from tinsley.parameters import MASS, whole_space
from tinsley.sps.derived import derived

NUMBER = 600


@pytest.fixture(scope="module")
def model(small_posterior):
    noise = BroadNoise(20.0, 60.0)
    return SceneModel(small_posterior.tables, noise, (0.02,) * 5, mag_range=(14.0, 19.0))


@pytest.fixture(scope="module")
def small_blocks():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(scenes_module, "BLOCK", 512)
        yield


@pytest.fixture(scope="module")
def scenes(model, small_blocks):
    return sample_scenes(model, NUMBER, key=jax.random.key(7))


@pytest.fixture(scope="module")
def make(scenes, small_model, small_posterior):
    index_tables = make_index_tables(small_model, SMALL_GRID)

    def call(chosen=scenes, **options):
        return make_gallery(
            chosen, small_posterior.derived_tables, index_tables, bands="gri", **options
        )

    return call


@pytest.fixture(scope="module")
def gallery(make):
    return make()


def test_more_galaxies_begin_with_the_same_ones(model, scenes, small_blocks):
    few = sample_scenes(model, 20, key=jax.random.key(7))
    for one, other in zip(jax.tree.leaves(few), jax.tree.leaves(scenes), strict=True):
        np.testing.assert_array_equal(one, other[:20])


def test_all_pass_the_limits_and_not_all_candidates_do(model, scenes, small_blocks):
    assert len(scenes.flux) == NUMBER
    assert np.all(passes(model, scenes))
    tried = scenes_module.candidates(model, 512, key=jax.random.key(1))
    assert 0.01 < np.mean(passes(model, tried)) < 0.9


def test_limits_that_none_pass_are_refused(model, small_blocks):
    none = dataclasses.replace(model, mag_range=(1.0, 2.0))
    with pytest.raises(ValueError, match="0 of 12800 candidates pass"):
        sample_scenes(none, 5, key=jax.random.key(0))


def test_measured_fluxes_scatter_by_their_total_error(model, small_blocks):
    """Before selection, error and a floor of 2 % in quadrature: chi^2 within 5 sigma."""
    tried = scenes_module.candidates(model, 512, key=jax.random.key(2))
    total = np.asarray(tried.disc_flux + tried.bulge_flux, float)
    sigma = np.hypot(np.asarray(tried.error, float), 0.02 * total)
    chi2 = ((np.asarray(tried.flux, float) - total) / sigma) ** 2
    assert chi2.mean() == pytest.approx(1.0, abs=5 * np.sqrt(2 / chi2.size))


def test_looks_tell_of_stars_but_do_not_fix_them(gallery):
    truth = gallery.properties
    for name, other, sign in (
        ("bulge_fraction", "dn4000", 1),
        ("bulge_fraction", "log10_sfr_100myr_msun_yr", -1),
        ("cos_inclination", "a_v_mag", -1),
        ("log10_mstar_surviving_msun", "log10_z_mw_zsun", 1),
    ):
        correlation = sign * np.corrcoef(truth[name], truth[other])[0, 1]
        assert 0.1 < correlation < 0.9, (name, other, correlation)
    for name in PROPERTIES:
        assert np.all(np.isfinite(truth[name]))
        assert np.std(truth[name]) > 0.02


def test_inclination_dims_the_disc_alone(scenes, make):
    """The same galaxies, face-on and at 80 degrees."""
    depth = jnp.full(NUMBER, 0.4)
    thickness = jnp.full(NUMBER, 0.2)
    found = []
    for cosine in (1.0, 0.17):
        ratio = apparent_axis_ratio(jnp.full(NUMBER, cosine), thickness)
        disc = scenes.disc | {"tau_ism": inclined_depth(depth, ratio)}
        bulge = scenes.bulge | {"tau_ism": depth}
        found.append(make(scenes._replace(disc=disc, bulge=bulge)).properties)
    assert np.all(found[1]["a_v_mag"] > found[0]["a_v_mag"])
    for name in ("log10_mstar_surviving_msun", "log10_sfr_100myr_msun_yr", "log10_z_mw_zsun"):
        np.testing.assert_array_equal(found[0][name], found[1][name])


def test_two_equal_halves_have_the_properties_of_the_whole(scenes, make, small_posterior):
    whole = scenes.disc
    half = whole | {MASS: whole[MASS] - np.log10(2)}
    looks = scenes.looks | {"bulge_fraction": jnp.full(NUMBER, 0.5)}
    truth = make(scenes._replace(disc=half, bulge=half, looks=looks)).properties
    expected = derived(small_posterior.derived_tables, whole)
    for name in ("log10_mstar_surviving_msun", "log10_sfr_100myr_msun_yr", "log10_z_mw_zsun"):
        np.testing.assert_allclose(truth[name], expected[name], atol=2e-5)
    for name in whole_space().names:
        np.testing.assert_allclose(truth[name], whole[name], rtol=1e-4, atol=2e-5)


def test_the_parameters_of_the_whole_are_those_of_the_sum(scenes, gallery, small_posterior):
    """Histories add up: mass, mean age, and, but where both had a burst, what formed recently."""
    tables, truth = small_posterior.derived_tables, gallery.properties
    names = [name for prior in whole_space().priors for name in prior.names]
    whole = {name: jnp.asarray(truth[name], dtype=float) for name in names}
    found = derived(tables, whole | {"redshift": scenes.disc["redshift"]})
    both = [derived(tables, theta) for theta in (scenes.disc, scenes.bulge)]
    share = np.stack([10 ** np.asarray(t[MASS], float) for t in (scenes.disc, scenes.bulge)])
    np.testing.assert_allclose(truth[MASS], np.log10(share.sum(axis=0)), atol=1e-5)
    share /= share.sum(axis=0)
    age = (share * np.stack([d["age_mw_gyr"] for d in both])).sum(axis=0)
    np.testing.assert_allclose(found["age_mw_gyr"], age, rtol=1e-4)
    one = np.asarray((scenes.disc["f_burst"] == 0) | (scenes.bulge["f_burst"] == 0))
    assert 0.9 < one.mean() < 1
    for name, span_yr in {"log10_sfr_100myr_msun_yr": 1e8, "log10_sfr_1gyr_msun_yr": 1e9}.items():
        per_mass = span_yr / 10 ** np.asarray(truth[MASS], float)
        rate = sum(10 ** np.asarray(d[name], float) for d in both) * per_mass
        whole_rate = 10 ** np.asarray(found[name], float) * per_mass
        np.testing.assert_allclose(whole_rate[one], rate[one], rtol=5e-3, atol=1e-5)
    np.testing.assert_allclose(truth["log10_z_zsun"], truth["log10_z_mw_zsun"], atol=1e-3)
    for name in ("tau_ism", "tau_bc", "log10_z_zsun"):
        ends = np.stack([truth[f"{name}_disc"], truth[f"{name}_bulge"]])
        assert np.all(truth[name] >= ends.min(axis=0) - 1e-5)
        assert np.all(truth[name] <= ends.max(axis=0) + 1e-5)
    none = truth["f_burst"] == 0
    assert 0.7 < none.mean() < 0.9
    np.testing.assert_array_equal(truth["t_burst_gyr"][none], scenes.disc["t_burst_gyr"][none])


def test_scales_change_looks_alone(gallery, make):
    other = make(size_scale=1.5, psf_scale=1.2)
    for name in PROPERTIES:
        np.testing.assert_array_equal(other.properties[name], gallery.properties[name])
    for name, factor in (
        ("bulge_radius_arcsec", 1.5),
        ("disc_radius_arcsec", 1.5),
        ("psf_fwhm_arcsec", 1.2),
    ):
        ratio = getattr(other.shapes, name) / getattr(gallery.shapes, name)
        np.testing.assert_allclose(ratio, factor, rtol=1e-5)
    np.testing.assert_array_equal(other.shapes.disc_flux, gallery.shapes.disc_flux)


def test_seeing_that_pixels_can_not_sample_is_refused(make):
    with pytest.raises(InputError, match="at least 0.7"):
        make(psf_scale=0.5)


def test_tables_hold_photometry_and_truth(gallery, scenes):
    table = gallery.table("ugriz")
    assert list(table)[:4] == ["object_id", "redshift", "flux_u", "flux_err_u"]
    assert set(PROPERTIES) <= set(table)
    np.testing.assert_allclose(table["flux_r"], scenes.flux[:, 2], rtol=1e-6)
    assert {len(column) for column in table.values()} == {NUMBER}


@pytest.mark.slow  # bits as users have them: quick tests compile otherwise
def test_chunks_do_not_change_a_galaxy(gallery, key):
    camera = sdss_camera("gri", 32, make_sersic_table(1.0, 6.0))
    whole = np.asarray(gallery.images(camera, 0, 20, key=key))
    part = np.asarray(gallery.images(camera, 16, 20, key=key))
    assert whole.shape == (20, 3, 32, 32)
    np.testing.assert_array_equal(whole[16:], part)


def test_published_sizes():
    """Shen et al. (2003): about 4.2 kpc for early types of 1e11, less for late types at 1e10."""
    mass = jnp.asarray([1e10, 1e11], dtype=float)
    assert float(early_type_radius_kpc(mass)[1]) == pytest.approx(4.16, abs=0.02)
    late = np.asarray(late_type_radius_kpc(mass), float)
    assert late == pytest.approx([0.1 * 1e10**0.14 * (1 + 1 / 3.98) ** 0.25, 4.75], rel=2e-3)
    scatter = np.asarray(radius_scatter(jnp.asarray([1e7, 3.98e10, 1e14])), float)
    assert scatter == pytest.approx([0.47, 0.405, 0.34], abs=1e-3)


def test_inclined_spheroids():
    thickness = jnp.asarray([0.2, 0.2, 1.0])
    ratio = apparent_axis_ratio(jnp.asarray([1.0, 0.0, 0.3]), thickness)
    np.testing.assert_allclose(ratio, [1.0, 0.2, 1.0], rtol=1e-6)
    np.testing.assert_allclose(inclined_depth(jnp.full(3, 0.5), ratio), [0.5, 2.5, 0.5], rtol=1e-6)


def test_angles_of_kiloparsecs():
    redshift = np.array([0.02, 0.08, 0.3])
    theirs = default_cosmology().arcsec_per_kpc_proper(redshift).value
    ours = arcsec_per_kpc(make_cosmology(), jnp.asarray(redshift, dtype=float))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)
