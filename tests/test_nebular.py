"""Gas around young stars: against case B, a published H-alpha calibration, and its own sums."""

import csv
import dataclasses
import hashlib
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from tinsley.cli.main import run
from tinsley.cosmology import make_cosmology
from tinsley.io.filters import load_filters
from tinsley.io.grids import load_nebular_grid, load_ssp_grid
from tinsley.io.models import (
    build_model,
    load_posterior,
    model_grid,
)
from tinsley.observe.exact import exact_photometry
from tinsley.observe.filters import line_step
from tinsley.observe.photometry import make_band_tables, photometry
from tinsley.parameters import default_space
from tinsley.sps.galaxy import redshift_grid
from tinsley.sps.nebular import with_nebular
from tinsley.sps.ssp import linear_weights

H_ALPHA_AA, H_BETA_AA = 6564.6, 4862.7


@pytest.fixture(scope="module")
def gas():
    return load_nebular_grid()


@pytest.fixture(scope="module")
def ssp():
    return load_ssp_grid()


def line(gas, wave_aa, log10_u=-3.0):
    """Luminosity of a line, [met, age]."""
    u, nearest = np.argmin(abs(gas.log10_u - log10_u)), np.argmin(abs(gas.line_wave_aa - wave_aa))
    assert abs(gas.line_wave_aa[nearest] - wave_aa) < 1
    return gas.line_lum_lsun[u, :, :, nearest]


def usual(gas):
    """Metallicities that galaxies have: the last, 0.1, has hardly an ionising photon."""
    return gas.log10_z_zsun < 0.5


def test_hydrogen_lines_are_those_of_case_b(gas):
    """2.75-3.05 for 20,000 to 5,000 K (Osterbrock & Ferland 2006, table 4.4)."""
    bright = line(gas, H_BETA_AA) > 0.1
    ratio = (line(gas, H_ALPHA_AA) / line(gas, H_BETA_AA))[usual(gas)][bright[usual(gas)]]
    assert ratio.min() > 2.7
    assert ratio.max() < 3.05


def test_h_alpha_tells_the_star_formation_rate(gas):
    """log L = log SFR + 41.27 (Kennicutt & Evans 2012, table 1); BC03's stars ionise more."""
    age_yr = 10**gas.log10_age_yr
    lum = line(gas, H_ALPHA_AA)[np.argmin(abs(gas.log10_z_zsun))]
    of_one_msun_a_year = lum[0] * age_yr[0] + np.trapezoid(lum, age_yr)
    assert np.log10(of_one_msun_a_year * gas.lsun_erg_s) == pytest.approx(41.27, abs=0.2)


def test_what_is_added_is_the_lines_and_the_continuum(gas, ssp):
    """In a window: lines by their table, the continuum by a trapezium rule on a finer grid."""
    added = with_nebular(ssp, gas, -3.0).lum_lsun_aa - ssp.lum_lsun_aa
    met, age = 4, int(np.argmin(abs(ssp.log10_age_yr - 6.5)))
    window = (ssp.wave_rest_aa > 4700) & (ssp.wave_rest_aa < 5200)
    total = np.trapezoid(added[met, age, window], ssp.wave_rest_aa[window])
    at_age = linear_weights(gas.log10_age_yr, ssp.log10_age_yr[age])
    inside = (gas.line_wave_aa > 4705) & (gas.line_wave_aa < 5195)
    lines = at_age @ gas.line_lum_lsun[2, met][:, inside].sum(axis=1)
    fine = np.linspace(4700, 5200, 2001)
    smooth = np.interp(fine, gas.wave_aa, at_age @ gas.lum_lsun_aa[2, met])
    assert total == pytest.approx(lines + np.trapezoid(smooth, fine), rel=0.01)
    assert lines > 0.8 * total


def test_another_wavelength_grid_has_the_same_light(gas, ssp):
    """Twice as coarse, and in other solar units: the same energy in a window."""
    own = with_nebular(ssp, gas, -2.7)
    some = slice(None, None, 2)
    other = dataclasses.replace(
        ssp,
        wave_rest_aa=ssp.wave_rest_aa[some],
        lum_lsun_aa=ssp.lum_lsun_aa[..., some] / 2,
        lsun_erg_s=2 * ssp.lsun_erg_s,
    )
    with_gas = with_nebular(other, gas, -2.7)

    def energy(lit, dark):
        inside = (lit.wave_rest_aa > 6000) & (lit.wave_rest_aa < 7000)
        light = (lit.lum_lsun_aa - dark.lum_lsun_aa)[..., inside]
        return np.trapezoid(light, lit.wave_rest_aa[inside]) * lit.lsun_erg_s

    np.testing.assert_allclose(energy(with_gas, other), energy(own, ssp), rtol=0.01)


def test_old_stars_have_no_such_gas(gas, ssp):
    old = ssp.log10_age_yr > 7.41
    lit = with_nebular(ssp, gas, -3.0)
    np.testing.assert_array_equal(lit.lum_lsun_aa[:, old], ssp.lum_lsun_aa[:, old])
    assert (lit.lum_lsun_aa >= ssp.lum_lsun_aa).all()


def test_a_harder_field_has_more_oxygen(gas):
    """O III 5008 rises with U, H-alpha does not: the photons are as many."""
    low, high = (line(gas, 5008.2, u)[:4].sum() for u in (-4.0, -2.0))
    assert high > 5 * low
    low, high = (line(gas, H_ALPHA_AA, u)[:4].sum() for u in (-4.0, -2.0))
    assert high == pytest.approx(low, rel=0.05)


def test_an_ionisation_beyond_the_grid_is_refused(gas, ssp):
    with pytest.raises(ValueError, match="between -4 and -2; got -1"):
        with_nebular(ssp, gas, -1.0)


def test_sources_give_the_checksum_of_the_shipped_file():
    data = Path(__file__).parents[1] / "src" / "tinsley" / "data"
    digest = hashlib.sha256((data / "nebular_bc03_miles.h5").read_bytes()).hexdigest()
    assert digest in (data / "SOURCES.md").read_text()


@pytest.mark.parametrize(
    ("names", "redshifts"),
    [
        ([f"sdss2010-{band}" for band in "ugriz"], (0.02, 0.12)),  # H-alpha goes from r to i
        (["lsst2016-r", "lsst2016-i"], (0.15, 0.17)),  # and through the atmosphere's A band
    ],
)
def test_band_tables_follow_lines_through_the_filters(names, redshifts, key):
    """Against exact integrals, for galaxies that form stars today."""
    model, filters = build_model(nebular=-3.0), load_filters(names)
    tables = make_band_tables(model, filters, model_grid(model, filters, redshifts))
    redshift = jnp.linspace(*redshifts, 60)
    age_gyr = make_cosmology(z_max=0.2).age_gyr(redshift)
    theta = default_space().sample(60, age_gyr, key=key) | {"redshift": redshift}
    theta |= {"beta_1": jnp.ones(60)} | {f"beta_{k}": jnp.zeros(60) for k in (2, 3, 4)}
    theta |= {"f_burst": jnp.zeros(60), "tau_bc": jnp.zeros(60), "tau_ism": jnp.zeros(60)}
    rows = [{name: float(value[i]) for name, value in theta.items()} for i in range(60)]
    exact = np.stack([exact_photometry(model, filters, row) for row in rows])
    error_mag = np.abs(2.5 * np.log10(np.asarray(photometry(tables, theta)) / exact))
    assert np.median(error_mag) < 1e-3
    assert error_mag.max() < 0.01


def test_smooth_filters_need_no_closer_redshifts():
    smooth, sharp = (load_filters([name]) for name in ("sdss2010-r", "lsst2016-i"))
    assert line_step(smooth, 0.004) == 0.004
    assert line_step(sharp, 0.004) == 0.001
    stars = build_model()
    assert model_grid(stars, sharp, (0.1, 0.2)) == redshift_grid(0.1, 0.2)


def test_a_model_s_header_says_its_gas():
    assert load_posterior("sdss-nebular").model.ssp.has_lines
    assert not load_posterior("sdss").model.ssp.has_lines


def test_the_command_adds_it(tmp_path, monkeypatch, own_cache):
    """A galaxy that forms stars, at a redshift where H-alpha is in r."""
    galaxy = {f"beta_{k}": float(k == 1) for k in (1, 2, 3, 4)}
    galaxy |= {"log10_mstar_msun": 9.0, "f_burst": 0.0, "t_burst_gyr": 1.0, "log10_z_zsun": -0.5}
    galaxy |= {"tau_bc": 0.0, "tau_ism": 0.0, "n_dust": 0.0, "redshift": 0.03}
    table = tmp_path / "galaxy.csv"
    values = ",".join(str(value) for value in galaxy.values())
    table.write_text(",".join(galaxy) + "\n" + values + "\n", encoding="utf-8")

    def magnitudes(*options):
        out = tmp_path / "out.csv"
        monkeypatch.setattr(
            sys, "argv", ["tinsley", "photometry", str(table), "--out", str(out), *options]
        )
        with pytest.raises(SystemExit) as stop:
            run()
        assert not stop.value.code
        with out.open(encoding="utf-8") as file:
            return {name: float(value) for name, value in next(csv.DictReader(file)).items()}

    stars, gas = magnitudes(), magnitudes("--nebular", "-3")
    brighter = {name: stars[name] - gas[name] for name in stars}
    assert brighter["mag_r"] > 0.03
    assert brighter["mag_r"] > brighter["mag_i"] > 0
