"""Images: GalSim draws the same, flux is where it should be, noise is as stated."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tinsley.observe.images import (
    SDSS_PIXEL_ARCSEC,
    Shapes,
    noiseless_images,
    observed_images,
    padded_size,
    pixel_variance,
    sdss_camera,
)
from tinsley.observe.profiles import GaussianPsf, make_sersic_table
from tinsley.rng import split_id

DEFAULT = {
    "bulge": 100.0, "disc": 0.0, "bulge_radius": 2.0, "disc_radius": 4.0, "bulge_ratio": 0.7,
    "disc_ratio": 0.5, "index": 4.0, "angle": 0.6, "x": 0.3, "y": -0.2, "fwhm": 1.32,
}  # fmt: skip
CASES = {
    "point-like bulge": {"bulge_radius": 0.2},
    "small": {"bulge_radius": 0.4, "index": 2.0},
    "de Vaucouleurs": {},
    "large bulge": {"bulge_radius": 6.0},
    "n = 1.3, flat": {"index": 1.3, "bulge_radius": 3.0, "bulge_ratio": 0.4},
    "disc": {"bulge": 0.0, "disc": 100.0},
    "edge-on disc": {"bulge": 0.0, "disc": 100.0, "disc_radius": 8.0, "disc_ratio": 0.15},
    "thin small disc": {"bulge": 0.0, "disc": 100.0, "disc_radius": 1.0, "disc_ratio": 0.15},
    "huge disc": {"bulge": 0.0, "disc": 100.0, "disc_radius": 15.0, "disc_ratio": 0.8},
    "both": {"bulge": 50.0, "disc": 50.0, "index": 2.7},
    "bad seeing": {"fwhm": 2.6},
    "good seeing": {"fwhm": 0.8},
}
N = 64


def shapes_of(cases, n_bands=1):
    rows = [DEFAULT | case for case in cases]
    column = {k: jnp.asarray([row[k] for row in rows], dtype=float) for k in DEFAULT}
    bands = jnp.ones(n_bands)
    return Shapes(
        bulge_flux=column["bulge"][:, None] * bands,
        disc_flux=column["disc"][:, None] * bands,
        bulge_radius_arcsec=column["bulge_radius"],
        disc_radius_arcsec=column["disc_radius"],
        bulge_axis_ratio=column["bulge_ratio"],
        disc_axis_ratio=column["disc_ratio"],
        sersic_index=column["index"],
        position_angle_rad=column["angle"],
        offset_pixels=jnp.stack([column["x"], column["y"]], axis=-1),
        psf_fwhm_arcsec=column["fwhm"][:, None] * bands,
    )


def draw(camera, cases):
    """Noiseless images in the first band; always sixteen, so that they compile once."""
    padded = [*cases, *[DEFAULT] * (16 - len(cases))]
    return np.asarray(noiseless_images(camera, shapes_of(padded)), float)[: len(cases), 0]


@pytest.fixture(scope="module")
def camera():
    return sdss_camera("gri", N, make_sersic_table())


@pytest.fixture(scope="module")
def one_band():
    return sdss_camera("r", N, make_sersic_table())


@pytest.fixture(scope="module")
def drawn(one_band):
    return draw(one_band, list(CASES.values()))


def galsim_image(galsim, case):
    p = DEFAULT | case
    params = galsim.GSParams(
        folding_threshold=1e-3, maxk_threshold=1e-4, kvalue_accuracy=1e-6, maximum_fft_size=8192
    )

    def component(index, radius, ratio, flux):
        # GalSim's radius is that of the circle which a shear of this axis ratio began with.
        circle = radius * np.sqrt(ratio)
        round_ = galsim.Sersic(n=index, half_light_radius=circle, flux=flux, gsparams=params)
        return round_.shear(q=ratio, beta=p["angle"] * galsim.radians)

    parts = []
    if p["bulge"]:
        parts += [component(p["index"], p["bulge_radius"], p["bulge_ratio"], p["bulge"])]
    if p["disc"]:
        parts += [component(1.0, p["disc_radius"], p["disc_ratio"], p["disc"])]
    psf = galsim.Moffat(beta=3.5, fwhm=p["fwhm"], gsparams=params)
    seen = galsim.Convolve(galsim.Sum(parts), psf)
    offset = (p["x"], p["y"])
    return seen.drawImage(nx=N, ny=N, scale=SDSS_PIXEL_ARCSEC, offset=offset, dtype=float).array


@pytest.mark.parametrize("name", CASES)
def test_galsim_draws_the_same(drawn, name):
    """Pixels within 0.3 % of the peak; the stamp's flux, not the total, within 0.5 %."""
    galsim = pytest.importorskip("galsim")
    ours = drawn[list(CASES).index(name)]
    theirs = galsim_image(galsim, CASES[name])
    assert np.abs(ours - theirs).max() < 3e-3 * theirs.max()
    assert ours.sum() == pytest.approx(theirs.sum(), rel=5e-3)


def test_a_small_galaxy_loses_no_light_and_a_large_one_what_is_outside(drawn):
    small = drawn[list(CASES).index("small")]
    assert small.sum() == pytest.approx(100.0, rel=1e-3)
    huge = drawn[list(CASES).index("huge disc")]
    assert 40 < huge.sum() < 65


def test_images_are_linear_in_flux(one_band):
    fluxes = [{"disc": 0.0}, {"bulge": 0.0, "disc": 60.0}, {"disc": 60.0}]
    bulge, disc, both = draw(one_band, fluxes)
    np.testing.assert_allclose(bulge + disc, both, atol=2e-6 * both.max())


def test_a_quarter_turn_turns_the_image(one_band):
    centred = {"x": 0.0, "y": 0.0, "bulge_ratio": 0.4}
    turned = [centred | {"angle": 0.0}, centred | {"angle": np.pi / 2}]
    level, upright = draw(one_band, turned)
    np.testing.assert_allclose(level, upright.T, atol=1e-4 * level.max())
    y, x = np.mgrid[:N, :N] - (N - 1) / 2
    assert np.sum(level * x**2) > 1.5 * np.sum(level * y**2)


def test_offsets_move_the_centre_in_x_and_y(one_band):
    moved = {"x": 0.4, "y": -0.3, "bulge_radius": 0.3}
    image = draw(one_band, [moved])[0]
    y, x = np.mgrid[:N, :N] - (N - 1) / 2
    assert np.sum(image * x) / image.sum() == pytest.approx(0.4, abs=0.02)
    assert np.sum(image * y) / image.sum() == pytest.approx(-0.3, abs=0.02)


def test_a_gaussian_point_source_is_a_gaussian(one_band):
    camera = dataclasses.replace(one_band, psf=GaussianPsf())
    point = {"bulge": 0.0, "disc": 100.0, "disc_radius": 1e-3, "fwhm": 2.0, "x": 0.0, "y": 0.0}
    image = draw(camera, [point])[0]
    y, x = np.mgrid[:N, :N] - (N - 1) / 2
    sigma = 2.0 / SDSS_PIXEL_ARCSEC / np.sqrt(8 * np.log(2))
    variance = np.sum(image * x**2) / image.sum()
    assert variance == pytest.approx(sigma**2 + 1 / 12, rel=1e-3)


def test_noise_has_the_variance_that_is_stated(camera, key):
    """160 draws of each pixel, the brightest and the sky: chi^2 over pixels within 5 sigma."""
    many = shapes_of([{"bulge_radius": 1.0}] * 160, 3)
    clean = np.asarray(noiseless_images(camera, many), float)
    words = jnp.asarray(split_id(np.arange(160)))
    noise = np.asarray(observed_images(camera, many, words, key=key), float) - clean
    variance = np.asarray(pixel_variance(camera, jnp.asarray(clean[0], dtype=float)), float)
    chi2 = noise**2 / variance
    for band in range(3):
        assert chi2[:, band].mean() == pytest.approx(1.0, abs=5 * np.sqrt(2 / (160 * N * N)))
        bright = clean[0, band] > 0.3 * clean[0, band].max()
        spread = 5 * np.sqrt(2 / (160 * bright.sum()))
        assert chi2[:, band][:, bright].mean() == pytest.approx(1.0, abs=spread)
        assert variance[band][bright].min() > 1.5 * variance[band].min()
    neighbours = noise[:, 0, :, 1:] * noise[:, 0, :, :-1]
    assert abs(neighbours.mean() / variance[0].min()) < 0.02


def test_noise_scale_is_a_factor_on_the_standard_deviation(camera):
    louder = sdss_camera("gri", N, camera.sersic, noise_scale=3.0)
    image = jnp.linspace(-1.0, 40.0, 3 * N * N).reshape(3, N, N)
    ratio = pixel_variance(louder, image) / pixel_variance(camera, image)
    np.testing.assert_allclose(ratio, 9.0, rtol=1e-5)


@pytest.mark.slow  # bits as users have them: quick tests compile otherwise
def test_a_galaxys_bits_know_no_other_galaxy(camera, key):
    shapes = shapes_of([{"bulge_radius": 0.5 + 0.1 * i, "disc": 5.0 * i} for i in range(21)], 3)
    words = jnp.asarray(split_id(np.arange(100, 121)))
    whole = np.asarray(observed_images(camera, shapes, words, key=key))
    few = jax.tree.map(lambda values: values[17:20], shapes)
    part = np.asarray(observed_images(camera, few, words[17:20], key=key))
    np.testing.assert_array_equal(whole[17:20], part)
    again = np.asarray(observed_images(camera, few, words[17:20], key=jax.random.key(5)))
    assert np.all(again != part)
    assert whole.dtype == np.float32 or jax.config.jax_enable_x64


def test_grids_have_small_factors_and_room():
    for n in (32, 64, 100, 128, 256):
        size = padded_size(n)
        assert 1.5 * n <= size <= 1.8 * n
        assert size % 2 == 0
        for prime in (2, 3, 5):
            while size % prime == 0:
                size //= prime
        assert size == 1


def test_cameras_are_checked():
    table = make_sersic_table(1.0, 2.0)
    with pytest.raises(ValueError, match="8 to 512 pixels"):
        sdss_camera("r", 4, table)
    with pytest.raises(ValueError, match="one number a band"):
        dataclasses.replace(sdss_camera("gr", 16, table), sky_nmgy=jnp.ones(3))
