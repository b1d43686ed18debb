"""Unusual colours: limits from training galaxies, and what passes them."""

from __future__ import annotations

import json

import jax.numpy as jnp
import numpy as np
import pytest

from tinsley.infer.likelihood import Observation
from tinsley.infer.support import ColourLimits, colour_limits_from_dict, fit_colour_limits

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
