"""What the network sees: laws of the feature vector."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinsley.cosmology import make_cosmology
from tinsley.infer.features import (
    features,
    features_of_band,
    n_features,
    n_features_of_band,
)
from tinsley.infer.likelihood import Observation

COSMOLOGY = make_cosmology(z_max=0.7)
LUMINOSITY = -1
FLUX = np.array([3.0, 11.0, 25.0, 34.0, 40.0])


def see(flux=FLUX, sigma=0.05 * FLUX, mask=(True,) * 5, redshift=0.1) -> Observation:
    flux, sigma, redshift = (jnp.asarray(a, dtype=float) for a in (flux, sigma, redshift))
    return Observation(flux, sigma, jnp.asarray(np.array(mask)), redshift)


def vector(**changes) -> np.ndarray:
    return np.asarray(features(see(**changes), COSMOLOGY))


def test_length():
    assert vector().shape == (n_features(5),)
    batch = jax.tree.map(lambda a: jnp.stack([a, a]), see())
    assert features(batch, COSMOLOGY).shape == (2, n_features(5))


def test_a_batch_is_its_galaxies_one_by_one():
    ones = [see(), see(flux=-FLUX), see(mask=(True, False, True, False, True), redshift=0.5)]
    batch = jax.tree.map(lambda *arrays: jnp.stack(arrays), *ones)
    apart = np.stack([features(one, COSMOLOGY) for one in ones])
    np.testing.assert_allclose(features(batch, COSMOLOGY), apart, rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-6, 1e-2, 3.7, 1e5])
def test_scale_changes_the_luminosity_alone(scale):
    plain, scaled = vector(), vector(flux=scale * FLUX, sigma=0.05 * scale * FLUX)
    np.testing.assert_allclose(
        np.delete(scaled, LUMINOSITY), np.delete(plain, LUMINOSITY), atol=1e-5
    )
    assert scaled[LUMINOSITY] - plain[LUMINOSITY] == pytest.approx(np.log10(scale), abs=1e-5)


def test_distance_and_flux_together_are_a_luminosity():
    near, far = 0.1, 0.4
    dimming = 10 ** (2 * float(COSMOLOGY.log10_dl_mpc(near) - COSMOLOGY.log10_dl_mpc(far)))
    here = vector(redshift=near)
    there = vector(redshift=far, flux=dimming * FLUX, sigma=0.05 * dimming * FLUX)
    np.testing.assert_allclose(here[:15], there[:15], atol=1e-5)
    assert here[LUMINOSITY] == pytest.approx(there[LUMINOSITY], abs=1e-5)


@pytest.mark.parametrize("wild", [(0.0, 1.0), (1e9, 1e-9), (-1e9, 1e9), (np.nan, np.nan)])
def test_bands_without_a_measurement_do_not_matter(wild):
    mask = np.array([True, False, True, False, True])
    flux, sigma = FLUX.copy(), 0.05 * FLUX
    plain = vector(flux=flux, sigma=sigma, mask=mask)
    flux[~mask], sigma[~mask] = wild
    np.testing.assert_array_equal(vector(flux=flux, sigma=sigma, mask=mask), plain)
    assert not np.array_equal(vector(), plain)


def test_mask_is_told_from_a_flux_of_zero():
    zero = vector(flux=FLUX * [1, 0, 1, 1, 1])
    assert not np.allclose(zero, vector(mask=(True, False, True, True, True)))


def test_galaxies_of_no_flux_at_all_have_finite_features():
    assert np.all(np.isfinite(vector(flux=0 * FLUX)))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(-9, 9), min_size=5, max_size=5),
    st.lists(st.floats(-9, 9), min_size=5, max_size=5),
    st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=5, max_size=5),
    st.lists(st.booleans(), min_size=5, max_size=5),
    st.floats(0.001, 0.7),
)
def test_extreme_input_gives_finite_features(log10_flux, log10_sigma, sign, mask, redshift):
    out = FEATURES(
        see(np.array(sign) * 10.0 ** np.array(log10_flux), 10.0 ** np.array(log10_sigma), mask,
            redshift)
    )  # fmt: skip
    assert np.all(np.isfinite(out))
    assert np.all(np.abs(out) < 40)
    assert np.all(np.abs(out[5:10]) <= 3)


FEATURES = jax.jit(lambda seen: features(seen, COSMOLOGY))


@jax.jit
def of_band(seen: Observation, band) -> tuple[jax.Array, jax.Array]:
    return features_of_band(seen, band, COSMOLOGY)


def test_a_band_is_told_of_the_redder_ones_alone():
    y, told = of_band(see(), jnp.asarray(2))
    assert told.shape == (n_features_of_band(5),)
    bluer, own, redder = (np.where(np.arange(5) == k, 2.0, 1.0) * FLUX for k in (0, 2, 4))
    sigma = 0.05 * FLUX
    same = of_band(see(flux=bluer, sigma=np.where(np.arange(5) < 2, 9.0, sigma)), jnp.asarray(2))
    np.testing.assert_array_equal(same[0], y)
    np.testing.assert_array_equal(same[1], told)
    brighter = of_band(see(flux=own, sigma=sigma), jnp.asarray(2))
    assert float(brighter[0]) > float(y) + 0.5
    np.testing.assert_array_equal(brighter[1], told)
    assert not np.array_equal(of_band(see(flux=redder, sigma=sigma), jnp.asarray(2))[1], told)


def test_a_band_s_scale_does_not_matter():
    y, told = of_band(see(), jnp.asarray(1))
    scaled = of_band(see(flux=1e3 * FLUX, sigma=50 * FLUX), jnp.asarray(1))
    assert float(scaled[0]) == pytest.approx(float(y), abs=1e-5)
    luminosity = 15 + 2
    rest = np.delete(np.asarray(scaled[1]), luminosity)
    np.testing.assert_allclose(rest, np.delete(np.asarray(told), luminosity), atol=1e-5)
    assert float(scaled[1][luminosity] - told[luminosity]) == pytest.approx(3.0, abs=1e-5)


def test_a_band_without_a_measurement_is_finite():
    for mask in ((False,) * 5, (True,) + (False,) * 4):
        flux = np.where(mask, FLUX, np.nan)
        for band in (0, 4):
            y, told = of_band(see(flux=flux, mask=mask), jnp.asarray(band))
            assert np.isfinite(y)
            assert np.all(np.isfinite(told))
