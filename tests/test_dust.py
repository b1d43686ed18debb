"""Laws of the attenuation curves, and their values in print."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinsley.sps.dust import TwoComponentDust

WAVE_AA = jnp.asarray(np.geomspace(912.0, 50_000.0, 300), dtype=float)
DUSTS = {"default": TwoComponentDust(), "papers": TwoComponentDust(negative_bump=True)}
taus, slopes = st.floats(0.0, 3.0), st.floats(-3.0, 1.0)
each = pytest.mark.parametrize("dust", DUSTS.values(), ids=DUSTS.keys())


def diffuse(dust, tau, slope, wave_aa=WAVE_AA):
    depth = dust.optical_depth_ism(wave_aa, jnp.asarray([tau]), jnp.asarray([slope]))
    return np.asarray(depth[0], float)


@each
@given(tau=taus, slope=slopes)
def test_transmission_lies_between_0_and_1(dust, tau, slope):
    cloud = np.asarray(dust.optical_depth_birth_cloud(WAVE_AA, jnp.asarray([tau]))[0])
    for depth in (diffuse(dust, tau, slope), cloud):
        transmission = np.exp(-depth)
        assert np.all((transmission >= 0) & (transmission <= 1))


@each
@given(slope=slopes)
def test_no_dust_lets_all_light_through(dust, slope):
    np.testing.assert_array_equal(diffuse(dust, 0.0, slope), 0.0)
    np.testing.assert_allclose(np.exp(-diffuse(dust, 1e-7, slope)), 1.0, atol=2e-4)
    cloud = dust.optical_depth_birth_cloud(WAVE_AA, jnp.zeros(1))
    np.testing.assert_array_equal(cloud, 0.0)


@given(tau=taus, slope=slopes)
def test_depth_is_linear_in_tau(tau, slope):
    dust = DUSTS["default"]
    np.testing.assert_allclose(
        diffuse(dust, tau, slope), tau * diffuse(dust, 1.0, slope), rtol=1e-5, atol=1e-30
    )


# Calzetti et al. (2000), eq. 4, computed apart: k'(lambda); k'(B) - k'(V) is nearly 1.
@pytest.mark.parametrize(
    ("wave_aa", "k"),
    [(1500, 10.334), (2500, 7.815), (4400, 5.060), (5500, 4.048), (8000, 2.569), (16_500, 0.788)],
)
def test_without_bump_the_curve_is_calzettis(wave_aa, k):
    """At n = 0.5 the bump is clipped away; what is left over the tilt is k' / 4.05."""
    depth = diffuse(DUSTS["default"], 1.0, 0.5, jnp.asarray([float(wave_aa)]))[0]
    assert depth * 4.05 / (wave_aa / 5500.0) ** 0.5 == pytest.approx(k, abs=1e-3)


def test_curve_is_zero_where_calzettis_would_be_negative():
    far = jnp.asarray([31_500.0, 50_000.0])
    np.testing.assert_array_equal(diffuse(DUSTS["default"], 3.0, 0.5, far), 0.0)


@pytest.mark.parametrize(
    ("slope", "strength"), [(0.0, 0.85), (-1.0, 2.75), (0.4, 0.09), (1.0, 0.0)]
)
def test_bump_has_the_strength_of_kriek_and_conroy(slope, strength):
    """At 2175 A the Drude profile is 1: E_b / 4.05 (lambda / 5500)^n above the smooth curve."""
    at = jnp.asarray([2175.0])
    smooth = diffuse(DUSTS["default"], 1.0, 0.6, at) / (2175 / 5500) ** 0.6
    bump = diffuse(DUSTS["default"], 1.0, slope, at) / (2175 / 5500) ** slope - smooth
    assert bump[0] * 4.05 == pytest.approx(strength, abs=1e-4)


def test_the_papers_bump_turns_negative():
    at = jnp.asarray([2175.0])
    papers, default = (diffuse(DUSTS[name], 1.0, 1.0, at)[0] for name in ("papers", "default"))
    assert (papers - default) * 4.05 / (2175 / 5500) == pytest.approx(0.85 - 1.9, abs=1e-4)


def test_birth_clouds_follow_the_inverse_of_wavelength():
    depth = DUSTS["default"].optical_depth_birth_cloud(
        jnp.asarray([2750.0, 5500.0, 11_000.0]), jnp.asarray([0.7])
    )
    np.testing.assert_allclose(depth[0], [1.4, 0.7, 0.35], rtol=1e-6)


@each
@pytest.mark.parametrize("slope", [-2.0, 0.85 / 1.9, 1.0])
@pytest.mark.parametrize("tau", [0.0, 3.0])
def test_gradients_are_finite_at_the_priors_edges(dust, tau, slope):
    def light(tau, slope, wave_aa):
        depth = dust.optical_depth_ism(wave_aa, tau[None], slope[None])
        return jnp.sum(jnp.exp(-depth))

    at = (jnp.asarray(tau), jnp.asarray(slope), WAVE_AA)
    for gradient in jax.grad(light, argnums=(0, 1, 2))(*at):
        assert np.all(np.isfinite(gradient))
