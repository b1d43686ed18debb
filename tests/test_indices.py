"""The 4000 A break and the attenuation: spectra of known answer, and full spectra."""

import jax.numpy as jnp
import numpy as np
import pytest

from conftest import SMALL_GRID
from tinsley.observe.exact import rest_spectrum
from tinsley.observe.indices import VISUAL_AA, dn4000, indices, make_index_tables
from tinsley.parameters import MASS

WAVE_AA = np.linspace(3700.0, 4300.0, 1201)
STARS = {
    "beta_1": 0.3, "beta_2": 0.3, "beta_3": 0.2, "beta_4": 0.2, "f_burst": 0.05,
    "t_burst_gyr": 0.4, "log10_z_zsun": -0.2, "redshift": 0.1, MASS: 10.5,
}  # fmt: skip


def theta(**dust):
    return {k: jnp.asarray([v], dtype=float) for k, v in (STARS | dust).items()}


@pytest.fixture(scope="module")
def tables(small_model):
    return make_index_tables(small_model, SMALL_GRID)


def test_a_flat_spectrum_has_no_break():
    assert dn4000(WAVE_AA, WAVE_AA**-2.0) == pytest.approx(1.0, abs=1e-6)


def test_a_step_is_its_height():
    step = np.where(WAVE_AA < 3975.0, 1.0, 1.7)
    assert dn4000(WAVE_AA, step * WAVE_AA**-2.0) == pytest.approx(1.7, rel=1e-6)


def test_only_the_two_bands_count():
    lum = WAVE_AA**-2.0
    spoiled = np.where((WAVE_AA > 3951) & (WAVE_AA < 3999), 9.0, lum)
    spoiled = np.where((WAVE_AA < 3849) | (WAVE_AA > 4101), 9.0, spoiled)
    assert dn4000(WAVE_AA, spoiled) == pytest.approx(1.0, abs=1e-6)


def test_a_spectrum_without_the_bands_is_refused():
    with pytest.raises(ValueError, match="needs 3850 to 4100 A"):
        dn4000(WAVE_AA + 200.0, WAVE_AA)


def test_one_screen_attenuates_by_its_depth(tables, small_model):
    seen = theta(tau_bc=0.0, tau_ism=0.8, n_dust=-0.4)
    depth = small_model.dust.optical_depth_ism(
        jnp.asarray([[5500.0]]), seen["tau_ism"], seen["n_dust"]
    )
    a_v_mag = float(indices(tables, [seen])["a_v_mag"][0])
    assert a_v_mag == pytest.approx(2.5 * np.log10(np.e) * float(depth[0, 0]), rel=1e-3)
    clear = theta(tau_bc=0.0, tau_ism=0.0, n_dust=-0.4)
    assert float(indices(tables, [clear])["a_v_mag"][0]) == 0.0


def test_windows_agree_with_the_full_spectrum(tables, small_model):
    dust = {"tau_bc": 1.2, "tau_ism": 0.7, "n_dust": -0.6}
    ours = indices(tables, [theta(**dust)])
    wave, seen = rest_spectrum(small_model, STARS | dust)
    _, clear = rest_spectrum(small_model, STARS | {"tau_bc": 0.0, "tau_ism": 0.0, "n_dust": -0.6})
    fine = np.linspace(VISUAL_AA[0], VISUAL_AA[1], 2001)
    fine_break = np.linspace(3700.0, 4300.0, 6001)
    stars = np.interp(fine_break, wave, clear)
    through = np.interp(fine_break, wave, seen / clear)
    assert float(ours["dn4000"][0]) == pytest.approx(dn4000(fine_break, stars * through), rel=2e-3)
    light = [np.interp(fine, wave, lum).sum() for lum in (seen, clear)]
    depth = -2.5 * np.log10(light[0] / light[1])
    assert float(ours["a_v_mag"][0]) == pytest.approx(depth, abs=5e-3)


def test_two_halves_are_the_whole_and_the_brighter_counts_more(tables):
    dust = {"tau_bc": 0.5, "n_dust": 0.0}
    half = theta(**dust, tau_ism=0.6) | {MASS: jnp.asarray([10.5 - np.log10(2)], dtype=float)}
    whole = indices(tables, [theta(**dust, tau_ism=0.6)])
    halves = indices(tables, [half, half])
    for name in whole:
        np.testing.assert_allclose(halves[name], whole[name], rtol=1e-5)
    dustier = indices(tables, [half, theta(**dust, tau_ism=2.0)])
    alone = indices(tables, [theta(**dust, tau_ism=2.0)])
    assert whole["a_v_mag"][0] < dustier["a_v_mag"][0] < alone["a_v_mag"][0]
