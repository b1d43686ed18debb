"""Laws of the encoders, their scale, and what augmentation does to an image."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tinsley.density.encoders import (
    ENCODERS,
    AsinhScale,
    augment,
    dihedral,
    fit_asinh_scale,
    make_encoder,
)
from tinsley.density.rings import ring_numbers
from tinsley.errors import InputError

SMALL = {
    "yunus2025": {"widths": [8, 8, 16, 24]},
    "convolutions": {"widths": [8, 8, 16, 16], "size": 12},
    "tinsley": {"rings": 5},
}
SIZES = {"yunus2025": 24, "convolutions": 12, "tinsley": 5 + 10 + 4 + 30}
N_BANDS = 3


@pytest.fixture(scope="module", params=ENCODERS)
def name(request):
    """Each encoder that has a name."""
    return request.param


@pytest.fixture(scope="module")
def encoder(name):
    """The same with few channels."""
    return make_encoder(ENCODERS[name] | SMALL[name], N_BANDS, key=jax.random.key(0))


@pytest.mark.parametrize("shape", [(32, 32), (33, 35), (64, 64), (256, 256)])
def test_any_image_becomes_a_vector_of_the_same_length(encoder, name, shape, key):
    image = jax.random.normal(key, (N_BANDS, *shape))
    vector = eqx.filter_jit(encoder)(image)
    assert vector.shape == (encoder.size,) == (SIZES[name],)
    assert np.all(np.isfinite(vector))


def test_gradients_reach_every_weight_and_are_finite(encoder, name, key):
    if name == "tinsley":
        pytest.skip("it has no weights: it measures")
    images = jax.random.normal(key, (4, N_BANDS, 32, 32))
    slope = eqx.filter_jit(eqx.filter_grad(lambda e: jnp.sum(jax.vmap(e)(images) ** 2)))(encoder)
    for leaf in jax.tree.leaves(slope):
        assert np.all(np.isfinite(leaf))
        assert np.any(leaf != 0)


def test_gradients_are_finite_where_the_image_is_empty(encoder):
    image = jnp.zeros((N_BANDS, 32, 32))
    slope = eqx.filter_jit(eqx.filter_grad(lambda e: jnp.sum(e(image))))(encoder)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(slope))


def test_an_image_s_vector_does_not_depend_on_its_companions(encoder, key):
    images = 1 + jax.random.normal(key, (3, N_BANDS, 32, 32))  # noise alone has no centre
    together = eqx.filter_jit(lambda e: jax.vmap(e)(images))(encoder)
    alone = eqx.filter_jit(encoder)(images[1])
    np.testing.assert_allclose(together[1], alone, atol=1e-5)


def test_brightness_is_seen(encoder, key):
    """A normalisation of whole images would lose it."""
    image = jnp.abs(jax.random.normal(key, (N_BANDS, 32, 32)))
    one, other = (eqx.filter_jit(encoder)(factor * image) for factor in (1.0, 2.0))
    assert float(jnp.max(jnp.abs(other - one))) > 0.1 * float(jnp.max(jnp.abs(one)))


def test_the_paper_s_encoder():
    encoder = make_encoder(ENCODERS["yunus2025"], 5, key=jax.random.key(0))
    assert encoder.size == 256
    assert [(c.kernel_size, c.stride) for c in encoder.convolutions] == 4 * [((3, 3), (1, 1))]


def test_unknown_encoder_is_refused(key):
    message = "unknown encoder 'vit'; expected one of plain, residual, rings"
    with pytest.raises(ValueError, match=message):
        make_encoder({"encoder": "vit"}, N_BANDS, key=key)


# --- rings ---


RINGS = 8


def galaxy(axis_ratio=1.0, turned_rad=0.0, centre=(0.0, 0.0), colours=(1.0, 2.0, 4.0)):
    """A Gaussian, 6 pixels along its major axis, without noise, as `AsinhScale` gives it."""
    y, x = np.mgrid[-24:24, -24:24] + 0.5
    x, y = x - centre[0], y - centre[1]
    along = x * np.cos(turned_rad) + y * np.sin(turned_rad)
    across = y * np.cos(turned_rad) - x * np.sin(turned_rad)
    light = 500.0 * np.exp(-0.5 * (along**2 + (across / axis_ratio) ** 2) / 36.0)
    return jnp.arcsinh(jnp.asarray(np.multiply.outer(colours, light)))


def parts(image):
    """Light, steps, colours, second and fourth cosines of the rings of a three-band image."""
    ends = np.cumsum([RINGS, RINGS - 1, 2 * RINGS, 3 * RINGS])
    light, steps, colours, second, fourth = np.split(np.asarray(ring_numbers(image, RINGS)), ends)
    return light, steps, colours.reshape(RINGS, 2), second.reshape(-1, 3), fourth.reshape(-1, 3)


def test_rings_hold_the_light_of_a_gaussian():
    """Between radii a and b it has exp(-a^2 / 2 s^2) - exp(-b^2 / 2 s^2) of it; rings follow."""
    edge = np.geomspace(1.0, 0.44 * 48, RINGS)
    inside = 1 - np.exp(-0.5 * (edge / 6.0) ** 2)
    steps = parts(galaxy())[1]
    expected = np.diff(np.log(np.diff(inside, prepend=0.0)))
    np.testing.assert_allclose(steps[3:-1], expected[3:-1], atol=0.06)  # of many pixels each


def test_colours_are_those_of_the_bands():
    np.testing.assert_allclose(parts(galaxy())[2][:-1], np.log(2.0), atol=1e-3)


@pytest.mark.parametrize("turned_rad", [0.0, 0.5, 2.1])
def test_flat_galaxies_are_flat_whichever_way_they_lie(turned_rad):
    round_, oval, flat = (parts(galaxy(q, turned_rad))[3][5] for q in (1.0, 0.7, 0.4))
    np.testing.assert_allclose(round_, 0.0, atol=0.02)
    assert np.all(oval > 0.1)
    assert np.all(flat > oval + 0.1)
    np.testing.assert_allclose(flat, parts(galaxy(0.4))[3][5], atol=0.02)


def test_the_eight_turns_are_measured_alike(key):
    image = galaxy(0.5, 0.7) + 0.3 * jax.random.normal(key, (3, 48, 48))
    each = jax.vmap(lambda k: ring_numbers(dihedral(image, k), RINGS))(jnp.arange(8))
    np.testing.assert_allclose(each, jnp.broadcast_to(each[0], each.shape), atol=2e-4)


def test_rings_follow_a_galaxy_that_is_not_in_the_middle():
    one, other = (ring_numbers(galaxy(0.6, 0.4, c), RINGS) for c in ((0, 0), (2.0, -1.0)))
    np.testing.assert_allclose(one[:-24], other[:-24], atol=0.02)
    moved = ring_numbers(galaxy(0.6, 0.4, (0.5, 0.3)), RINGS)
    np.testing.assert_allclose(one[3:RINGS], moved[3:RINGS], atol=0.05)  # a part of a pixel


def test_numbers_are_in_units_of_the_training_set(key):
    encoder = make_encoder(ENCODERS["tinsley"], 3, key=key)
    numbers = np.random.default_rng(0).normal(3.0, 2.0, (500, encoder.size))
    numbers[:, 4] = 1.0
    fitted = encoder.fitted(numbers)
    standard = np.asarray(fitted.standard(jnp.asarray(numbers)))
    np.testing.assert_allclose(standard.mean(axis=0), 0.0, atol=1e-5)
    np.testing.assert_allclose(np.delete(standard.std(axis=0), 4), 1.0, atol=1e-4)
    assert float(jnp.max(jnp.abs(fitted(1e4 * jnp.ones((3, 32, 32)))))) <= 10.0


# --- augmentation ---


def eight(image):
    """All turns of an image and of its mirror image."""
    turned = [np.rot90(image, k, axes=(1, 2)) for k in range(4)]
    return turned + [np.flip(one, axis=2) for one in turned]


def which(image, choices):
    return [k for k, choice in enumerate(choices) if np.array_equal(image, choice)]


def test_dihedral_gives_each_of_the_eight_once(key):
    image = jax.random.normal(key, (2, 5, 5))
    found = jax.jit(jax.vmap(dihedral, (None, 0)))(image, jnp.arange(8))
    assert sorted(which(one, eight(np.asarray(image)))[0] for one in found) == list(range(8))
    np.testing.assert_array_equal(found[0], image)


def test_augmentation_without_shift_draws_all_eight(key):
    image = jax.random.normal(key, (2, 6, 6))
    many = jnp.broadcast_to(image, (400, 2, 6, 6))
    found = jax.jit(lambda x: augment(x, max_shift=0, key=key))(many)
    counts = np.bincount([which(one, eight(np.asarray(image)))[0] for one in found], minlength=8)
    assert len(counts) == 8
    assert np.all(np.abs(counts - 50) < 4.5 * np.sqrt(50 * 7 / 8))


def test_shifts_are_whole_pixels_in_both_directions_and_bring_in_nothing(key):
    image = jnp.zeros((1, 9, 9)).at[0, 4, 4].set(1.0)  # the same however it is turned
    found = augment(jnp.broadcast_to(image, (300, 1, 9, 9)), max_shift=2, key=key)
    np.testing.assert_array_equal(jnp.sum(found, axis=(1, 2, 3)), jnp.ones(300))
    places = {tuple(int(i) for i in np.argwhere(np.asarray(one[0]))[0]) for one in found}
    assert places == {(y, x) for y in range(2, 7) for x in range(2, 7)}
    edge = augment(jnp.ones((50, 1, 9, 9)), max_shift=2, key=key)
    lost = 81 - np.asarray(jnp.sum(edge, axis=(1, 2, 3)))
    assert lost.min() == 0  # some are not shifted
    assert lost.max() == 81 - 49
    assert set(np.unique(edge)) == {0.0, 1.0}


def test_bands_move_together(key):
    image = jax.random.normal(key, (1, 8, 8))
    many = jnp.broadcast_to(image, (20, 3, 8, 8))
    found = augment(many, max_shift=3, key=key)
    np.testing.assert_array_equal(found[:, 0], found[:, 2])


@pytest.mark.parametrize(
    ("shape", "max_shift", "message"),
    [
        ((1, 1, 8, 9), 0, "images must be square to be turned; got 8 x 9 pixels"),
        ((1, 1, 8, 8), 8, "max_shift must be 0 or more, and less than 8 pixels; got 8"),
        ((1, 1, 8, 8), -1, "max_shift must be 0 or more, and less than 8 pixels; got -1"),
    ],
)
def test_what_can_not_be_augmented_is_refused(shape, max_shift, message, key):
    with pytest.raises(ValueError, match=message):
        augment(jnp.zeros(shape), max_shift=max_shift, key=key)


# --- the scale ---


def test_softening_is_the_sky_s_noise_whatever_the_galaxy():
    rng = np.random.default_rng(0)
    sigma = np.array([0.5, 3.0, 20.0])
    y, x = np.mgrid[-24:24, -24:24]
    galaxy = 1000.0 * np.exp(-np.hypot(x, y) / 5.0)
    images = (galaxy + 7.0 + sigma[:, None, None] * rng.normal(size=(40, 3, 48, 48))).astype("f4")
    images[::8, :, :4] = 1e5  # a bright neighbour, a bad amplifier
    found = fit_asinh_scale(images)
    # 552 differences in each of 40 images know it to 1 %; the galaxy's wings add to the first
    np.testing.assert_allclose(found.softening, sigma, rtol=0.1)


def test_scale_is_linear_in_the_noise_logarithmic_in_the_light_and_not_trained():
    scale = AsinhScale(jnp.asarray([1.0, 10.0]))
    faint, bright = jnp.full((2, 4, 4), 0.01), jnp.full((2, 4, 4), 1e4)
    np.testing.assert_allclose(scale(faint)[:, 0, 0], [0.01, 0.001], rtol=1e-3)
    np.testing.assert_allclose(scale(bright)[:, 0, 0], np.log([2e4, 2e3]), rtol=1e-3)
    np.testing.assert_array_equal(scale(jnp.stack([faint, bright]))[1], scale(bright))
    slope = eqx.filter_grad(lambda s: jnp.sum(s(bright)))(scale)
    np.testing.assert_array_equal(slope.softening, [0.0, 0.0])


def test_bands_without_noise_and_pixels_without_value_are_refused():
    images = np.random.default_rng(0).normal(size=(5, 2, 16, 16))
    padded = images.copy()
    padded[:, 1, :2] = padded[:, 1, -2:] = 0.0
    with pytest.raises(InputError, match="band 1 .* has no noise at the edges of most images"):
        fit_asinh_scale(padded)
    images[0, 0, 0, 0] = np.nan
    with pytest.raises(InputError, match="pixels that are not finite; set these to 0 first"):
        fit_asinh_scale(images)
