"""Unusual colours and photometry: limits from training galaxies, and what passes them."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.optimize import brentq

from tinsley.cosmology import make_cosmology
from tinsley.density.mixture import make_mixture
from tinsley.density.train import Schedule, start_training, train_block
from tinsley.infer.features import features_of_band, n_features_of_band
from tinsley.infer.likelihood import Observation
from tinsley.infer.support import (
    TOO_FAINT,
    ColourLimits,
    PhotometryDensity,
    band_pairs,
    colour_limits_from_dict,
    fit_colour_limits,
    fit_limits,
    has_redder,
)
from tinsley.io.models import load_posterior

COSMOLOGY = make_cosmology(z_max=0.7)
EXACT = brentq(lambda t: stats.norm.sf(t) + stats.norm.sf(t / TOO_FAINT) - 0.01, 2.0, 3.0)
"""The limit of one band with a perfect density."""

LIMITS = ColourLimits(jnp.asarray([0.1, 0.3]), jnp.asarray([[1.0, 2.0], [0.5, 1.0]]))
"""Three bands; the ratio of each to the next must stay below these at z = 0.1 and 0.3."""


def unusual(flux, sigma=0.01, redshift=0.1, mask=(True, True, True), limits=LIMITS) -> bool:
    flux = jnp.asarray([flux], dtype=float)
    seen = Observation(
        flux,
        jnp.broadcast_to(jnp.asarray(sigma, dtype=float), flux.shape),
        jnp.asarray([mask]),
        jnp.asarray([redshift], dtype=float),
    )
    return bool(limits.unusual(seen)[0])


@pytest.mark.parametrize(
    ("flux", "expected"),
    [
        ((0.9, 1.0, 1.0), False),
        ((1.1, 1.0, 1.0), True),
        ((0.9, 1.0, 0.45), True),
        ((0.9, 1.0, 0.55), False),
    ],
)
def test_colours_bluer_than_the_limit_are_unusual(flux, expected):
    assert unusual(flux) is expected


def test_limits_go_with_redshift():
    assert not unusual((0.7, 1.0, 1.0), redshift=0.1)
    assert not unusual((0.7, 1.0, 1.0), redshift=0.19)  # limit 0.775
    assert unusual((0.7, 1.0, 1.0), redshift=0.25)  # limit 0.625
    assert unusual((0.6, 1.0, 1.0), redshift=0.55)  # the last bin's goes on


def test_noise_alone_is_not_unusual():
    """Limit + 3 errors of the combination: hypot(0.1, 1 * 0.1) = 0.14."""
    assert not unusual((1.4, 1.0, 1.0), sigma=0.1)
    assert unusual((1.45, 1.0, 1.0), sigma=0.1)
    rng = np.random.default_rng(1)
    truth = np.tile([0.9, 1.0, 1.0], (20_000, 1))
    noisy = truth + 0.3 * rng.normal(size=truth.shape)
    n = len(noisy)
    seen = Observation(jnp.asarray(noisy, dtype=float), jnp.full((n, 3), 0.3),
                       jnp.ones((n, 3), bool), jnp.full(n, 0.1))  # fmt: skip
    assert np.mean(LIMITS.unusual(seen)) < 0.003  # P(> 3 sigma) = 0.00135 a colour


def test_bands_without_a_measurement_have_no_colour():
    assert unusual((5.0, 1.0, 1.0))
    assert not unusual((5.0, 1.0, 1.0), mask=(False, True, True))
    assert not unusual((5.0, 1.0, 1.0), mask=(True, False, True))


def test_fit_finds_the_quantile_of_each_redshift_bin():
    rng = np.random.default_rng(2)
    n = 120_000
    redshift = rng.uniform(0.0, 0.6, n)
    ratio = (1 + redshift) * rng.random(n)  # quantile 0.999 is 0.999 (1 + z)
    flux = np.stack([ratio, np.ones(n), np.full(n, 2.0)], axis=1)
    limits = fit_colour_limits(flux, redshift, n_bins=6)
    np.testing.assert_allclose(limits.redshift, 0.05 + 0.1 * np.arange(6), atol=0.01)
    # in a bin 0.1 wide the quantile of (1 + z) u is between those at its ends
    assert np.all(np.abs(limits.ratio[:, 0] - (1 + np.asarray(limits.redshift))) < 0.06)
    np.testing.assert_allclose(limits.ratio[:, 1], 0.5)
    seen = Observation(*(jnp.asarray(a, dtype=float) for a in (flux, 1e-6 * flux)),
                       jnp.ones((n, 3), bool), jnp.asarray(redshift, dtype=float))  # fmt: skip
    assert np.mean(limits.unusual(seen)) < 0.005


def test_written_and_read_limits_are_the_same():
    back = colour_limits_from_dict(json.loads(json.dumps(LIMITS.to_dict())))
    np.testing.assert_array_equal(back.redshift, LIMITS.redshift)
    np.testing.assert_array_equal(back.ratio, LIMITS.ratio)


# --- the learned density ---


class Toy(NamedTuple):
    """Galaxies of two bands whose colour is known: blue = 0.5 red, with a scatter of 0.1 red."""

    tables: SimpleNamespace = SimpleNamespace(n_bands=2)

    def sample(self, number, *, key):
        key_red, key_sigma, key_blue = jax.random.split(key, 3)
        red = jnp.exp(jax.random.uniform(key_red, (number,), maxval=2.0))
        sigma = red * jnp.exp(jax.random.uniform(key_sigma, (number,), minval=-3.0, maxval=-1.0))
        blue = 0.5 * red + jnp.hypot(0.1 * red, sigma) * jax.random.normal(key_blue, (number,))
        return SimpleNamespace(seen=toy(red, blue, sigma))


def toy(red, blue, sigma) -> Observation:
    flux = jnp.stack([blue, red], axis=-1)
    errors = jnp.stack([sigma, 1e-4 * red], axis=-1)
    return Observation(flux, errors, jnp.ones(flux.shape, bool), jnp.full(red.shape, 0.1))


def toy_pairs(number, key):
    seen = Toy().sample(number, key=key).seen
    return features_of_band(seen, jnp.zeros(number, int), COSMOLOGY)


def toy_loss(model, number, key):
    return -jnp.mean(jax.vmap(model.log_prob)(*toy_pairs(number, key)))


@eqx.filter_jit
def is_unusual(density, seen):
    return density.unusual(seen)


@eqx.filter_jit
def deviates(density, seen):
    return density.deviates(seen)


@pytest.fixture(scope="module")
def learned():
    """The density of the toy, trained and calibrated."""
    config = {"components": 3, "width": 32, "depth": 2}
    start = make_mixture(config, n_features_of_band(2), key=jax.random.key(0))
    schedule = Schedule(steps=4000, batch=256, rate=5e-3, warmup=100, average=0.99)
    state, _ = train_block(
        (256, toy_loss, schedule, 4000), start_training(start, schedule), jax.random.key(1)
    )
    density = PhotometryDensity(state.average, COSMOLOGY)
    limits = fit_limits(density, Toy(), 2**17, key=jax.random.key(2))
    return PhotometryDensity(state.average, COSMOLOGY, limits)


def test_false_alarms_are_one_in_a_hundred(learned):
    """Of 40,000 fresh ones 400 expected; the band is 5 of their errors, limits' noise included.

    At any S/N within a third of that: what the network has not learned exactly.
    """
    (limit,) = learned.limits
    assert limit == pytest.approx(EXACT, abs=0.12)
    seen = Toy().sample(40_000, key=jax.random.key(3)).seen
    unusual = np.asarray(is_unusual(learned, seen))
    assert abs(unusual.sum() - 400) < 5 * np.sqrt(400 * (1 + 40_000 / 2**17))
    snr = np.asarray(seen.flux[:, 1] / seen.sigma[:, 0])
    for third in np.array_split(np.argsort(snr), 3):
        assert 0.005 < unusual[third].mean() < 0.016


@pytest.mark.parametrize("sigma", [0.05, 0.1, 0.3])
@pytest.mark.parametrize("shift", [2.0, 3.0, 4.0])
def test_power_is_that_of_the_exact_test(shift, sigma, learned):
    """Blue is `shift` standard deviations too bright or too faint: an exact test finds these.

    Both sides together: how the 1 % are shared between them is the least well learned.
    """
    red, normal = jnp.full(20_000, 3.0), jax.random.normal(jax.random.key(4), (20_000,))
    normal += shift * jnp.where(jnp.arange(20_000) % 2 == 0, 1.0, -1.0)
    seen = toy(red, 0.5 * red + jnp.hypot(0.1 * red, sigma * red) * normal, sigma * red)
    bright = stats.norm.sf([EXACT - shift, EXACT + shift])
    faint = stats.norm.sf([EXACT / TOO_FAINT - shift, EXACT / TOO_FAINT + shift])
    exact = (bright.sum() + faint.sum()) / 2
    assert float(jnp.mean(is_unusual(learned, seen))) == pytest.approx(exact, abs=0.05)


def test_a_band_is_tested_where_a_redder_one_is_measured():
    mask = np.array([[1, 1, 1], [1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 0]], bool)
    expected = [[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 0, 0], [0, 0, 0]]
    np.testing.assert_array_equal(has_redder(jnp.asarray(mask)), np.array(expected, bool))


@pytest.fixture(scope="module")
def untrained():
    config = {"components": 3, "width": 8, "depth": 1}
    mixture = make_mixture(config, n_features_of_band(3), key=jax.random.key(5))
    return PhotometryDensity(mixture, COSMOLOGY, (1.0, 1.5))


def three_bands(flux, mask) -> Observation:
    flux = jnp.asarray(flux, dtype=float)
    return Observation(flux, 0.1 * jnp.ones(3), jnp.asarray(mask), jnp.asarray(0.1))


def test_what_is_not_measured_does_not_matter(untrained):
    mask = (True, False, True)
    one, other = (deviates(untrained, three_bands((1.0, x, 2.0), mask)) for x in (3.0, 1e6))
    np.testing.assert_array_equal(one, other)
    assert np.count_nonzero(one) == 1
    alone = deviates(untrained, three_bands((1.0, 2.0, 3.0), (True, False, False)))
    np.testing.assert_array_equal(alone, 0.0)
    assert not is_unusual(untrained, three_bands((1e6, 2.0, 3.0), (True, False, False)))


def test_the_limit_is_that_of_as_many_bands(untrained):
    for mask, limit in {(True, True, True): 1.5, (True, False, True): 1.0}.items():
        for blue in np.linspace(-3, 3, 25):
            seen = three_bands((blue, 1.0, 1.0), mask)
            each = np.asarray(deviates(untrained, seen))
            largest = max(each.max(), -TOO_FAINT * each.min())
            assert bool(is_unusual(untrained, seen)) == (largest > limit)


def test_a_density_without_limits_calls_nothing_unusual(untrained):
    bare = PhotometryDensity(untrained.mixture, COSMOLOGY)
    assert not is_unusual(bare, three_bands((1e6, 1.0, 1.0), (True, True, True)))


def test_each_galaxy_teaches_a_band_that_can_be_tested(small_simulator, key):
    y, told = eqx.filter_jit(band_pairs)(small_simulator, 4000, key)
    assert np.all(np.isfinite(y))
    assert np.all(np.isfinite(told))
    band = np.argmax(np.asarray(told)[:, -5:], axis=1)
    redder = np.asarray(told)[:, 10:15].sum(axis=1)
    assert np.mean(redder == 0) < 0.06  # the reddest where it is the only one: 4 % expected
    counts = np.bincount(band[redder > 0], minlength=5)
    assert counts[4] == 0
    assert counts[:4].min() > 700


@pytest.mark.slow
def test_the_shipped_density_holds_its_rate_and_finds_the_planted():
    """8,192 fresh training galaxies: outside these bounds once in 10,000 tests of a perfect one."""
    loaded = load_posterior("sdss")
    unusual = eqx.filter_jit(loaded.support.unusual)
    made = loaded.simulator().sample(8192, key=jax.random.key(12))
    seen = made.seen
    some = np.asarray(has_redder(seen.mask)).any(axis=1)
    low, high = stats.binom.ppf([5e-5, 1 - 5e-5], some.sum(), 0.01)
    assert low <= np.asarray(unusual(seen))[some].sum() <= high
    sigma = 0.03 * made.flux_true
    noise = jax.random.normal(jax.random.key(13), sigma.shape)
    whole = seen._replace(flux=made.flux_true + sigma * noise, sigma=sigma,
                          mask=jnp.ones_like(seen.mask))  # fmt: skip
    assert float(jnp.mean(unusual(whole))) < 0.02
    swapped = whole._replace(flux=whole.flux[:, ::-1])
    assert float(jnp.mean(unusual(swapped))) > 0.95
    brighter = jnp.asarray([2.512, 2.512, 2.512, 1.0, 1.0])  # r - i bluer by 1 mag
    bluer = whole._replace(flux=whole.flux * brighter, sigma=whole.sigma * brighter)
    assert float(jnp.mean(unusual(bluer))) > 0.95
