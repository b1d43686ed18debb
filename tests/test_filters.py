"""Filters: loading, nodes across a band, and AB maggies against speclite and closed forms."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinsley.errors import InputError
from tinsley.io.filters import load_filter, load_filters
from tinsley.observe.exact import maggies
from tinsley.observe.filters import AB_ZERO_ERG_S_CM2_HZ, C_AA_S, Filter
from tinsley.observe.nodes import band_panels, lagrange

NAMES = (*(f"sdss2010-{band}" for band in "ugriz"), "galex-fuv", "galex-nuv")
NAMES = (*NAMES, "twomass-J", "twomass-H", "twomass-Ks", "wise2010-W1", "Euclid-VIS")
NAMES = (*NAMES, "lsst2023-g", "decam2014-r", "hsc2017-i", "panstarrs-y")
BANDS = {band.name: band for band in load_filters(NAMES)}
every_band = pytest.mark.parametrize("band", BANDS.values(), ids=BANDS.keys())
BOX = Filter("box", np.array([4000.0, 4000.001, 6000.0, 6000.001]), np.array([0.0, 1.0, 1.0, 0.0]))


# --- loading ---------------------------------------------------------------------------------


@every_band
def test_speclites_filters_load_by_name(band):
    assert np.all(np.diff(band.wave_aa) > 0)
    assert band.response.max() > 0
    assert band.wave_aa[0] < band.wave_effective_aa < band.wave_aa[-1]


def test_a_file_loads_like_its_name(tmp_path):
    band = BANDS["sdss2010-g"]
    path = tmp_path / "mine.txt"
    np.savetxt(path, np.column_stack([band.wave_aa, band.response]), header="wave response")
    loaded = load_filter(path)
    assert loaded.name == "mine"
    np.testing.assert_allclose(loaded.response, band.response)


@pytest.mark.parametrize("name", ["sdss2010-y", "nosuch-g", "Bessell"])
def test_unknown_filters_are_refused(name):
    with pytest.raises(InputError, match=f"no filter named '{name}'"):
        load_filter(name)


@pytest.mark.parametrize(
    "text", ["", "words only", "4000\n5000\n6000\n", "4000 0\n5000 0\n6000 0", "5 1\n4 1\n3 1"]
)
def test_broken_filter_files_are_refused(tmp_path, text):
    path = tmp_path / "broken.txt"
    path.write_text(text)
    with pytest.raises(InputError, match="filter"):
        load_filter(path)


def test_missing_filter_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected two columns"):
        load_filter(tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("wave", "response", "message"),
    [
        ([1.0, 2.0, 3.0], [0.0, 1.0], "one response per wavelength"),
        ([1.0, 3.0, 2.0], [0.0, 1.0, 0.0], "wavelengths must increase"),
        ([1.0, 2.0], [1.0, 1.0], "wavelengths must increase"),
        ([1.0, 2.0, 3.0], [0.0, 0.0, 0.0], "not all 0"),
        ([1.0, 2.0, 3.0], [0.0, -1.0, 1.0], "must be >= 0"),
    ],
)
def test_curves_that_are_no_filter_are_refused(wave, response, message):
    with pytest.raises(ValueError, match=message):
        Filter("f", np.array(wave), np.array(response))


# --- nodes -----------------------------------------------------------------------------------


def photons(band, panel):
    """Fine wavelengths of a panel, and their photon weights."""
    wave = np.linspace(panel.low_aa, panel.high_aa, 20_001)
    return wave, wave * np.interp(wave, band.wave_aa, band.response)


@every_band
@pytest.mark.parametrize("number", [None, 3, 8])
def test_panels_follow_each_other_inside_the_band(band, number):
    panels = band_panels(band, number)
    assert panels[0].low_aa >= band.wave_aa[0]
    assert panels[-1].high_aa <= band.wave_aa[-1]
    for panel in panels:
        assert panel.low_aa < panel.nodes_aa[0]
        assert panel.nodes_aa[-1] < panel.high_aa
        assert np.all(np.diff(panel.nodes_aa) > 0)
    for panel, following in zip(panels, panels[1:], strict=False):
        assert panel.high_aa <= following.low_aa
    if number is not None:
        assert max(len(panel.nodes_aa) for panel in panels) == max(number, 4 * (len(panels) > 1))


@every_band
def test_panels_leave_few_photons_out(band):
    wave = np.linspace(band.wave_aa[0], band.wave_aa[-1], 100_001)
    total = np.trapezoid(wave * np.interp(wave, band.wave_aa, band.response), wave)
    held = sum(np.trapezoid(w, x) for x, w in (photons(band, p) for p in band_panels(band)))
    assert held / total == pytest.approx(1.0, abs=1.5e-4)


@every_band
@pytest.mark.parametrize("number", [3, 5, 8])
def test_gauss_nodes_integrate_polynomials_of_twice_their_degree(band, number):
    """In ln(wavelength): the rule's weights follow from the Lagrange polynomials."""
    for panel in band_panels(band, number):
        wave, weight = photons(band, panel)
        middle, half = np.log(wave.mean()), np.log(wave[-1] / wave[0]) / 2
        x, nodes = (np.log(wave) - middle) / half, (np.log(panel.nodes_aa) - middle) / half
        rule = weight @ lagrange([panel], wave) / weight.sum()
        assert np.all(rule > 0)
        for degree in range(2 * len(nodes)):
            truth = weight @ x**degree / weight.sum()
            assert rule @ nodes**degree == pytest.approx(truth, abs=2e-4)


@pytest.mark.parametrize("number", [1, 4, 8])
@given(coefficients=st.lists(st.floats(-1, 1), min_size=8, max_size=8))
def test_lagrange_polynomials_reproduce_polynomials(number, coefficients):
    panels = band_panels(BANDS["sdss2010-r"], number)
    polynomial = np.polynomial.Polynomial(coefficients[:number])
    wave = np.linspace(5500.0, 6900.0, 50)
    at_nodes = polynomial(np.log(panels[0].nodes_aa / 6200.0))
    expected = polynomial(np.log(wave / 6200.0))
    np.testing.assert_allclose(lagrange(panels, wave) @ at_nodes, expected, atol=1e-9)


@every_band
def test_lagrange_polynomials_are_a_partition(band):
    """They sum to 1 everywhere, are 1 at their own node and stay small between and beyond."""
    panels = band_panels(band)
    nodes = np.concatenate([panel.nodes_aa for panel in panels])
    np.testing.assert_allclose(lagrange(panels, nodes), np.eye(len(nodes)), atol=1e-9)
    everywhere = lagrange(panels, np.linspace(band.wave_aa[0], band.wave_aa[-1], 2000))
    np.testing.assert_allclose(everywhere.sum(axis=1), 1.0, atol=1e-9)
    assert np.abs(everywhere).max() < 30


def test_red_leak_of_u_has_its_own_panel():
    """The 2010 curve of SDSS u reaches 7940 A; behind much dust the leak is all that shines."""
    core, leak = band_panels(BANDS["sdss2010-u"])
    assert core.high_aa == leak.low_aa < 4300
    assert leak.high_aa == pytest.approx(7940.0, abs=2)
    at = lagrange([core, leak], np.array([3500.0, 7200.0]))
    number = len(core.nodes_aa)
    assert np.all(at[0, number:] == 0)
    assert np.all(at[1, :number] == 0)


# --- AB maggies ------------------------------------------------------------------------------


@every_band
def test_ab_source_has_magnitude_zero(band):
    wave = np.geomspace(500.0, 80_000.0, 5000)
    flat = AB_ZERO_ERG_S_CM2_HZ * C_AA_S / wave**2
    assert maggies(wave, flat, band) == pytest.approx(1.0, rel=1e-5)


@given(st.floats(-4.0, 2.0))
def test_power_laws_through_a_box(slope):
    """f_lambda = (lambda / 5000 A)^a: both integrals in closed form."""
    wave = np.linspace(3000.0, 7000.0, 8001)
    low, high = 4000.0, 6000.0
    power = slope + 2
    log = np.log(high / low)
    top = log if abs(power) < 1e-6 else (high**power - low**power) / power
    expected = top / 5000.0**slope / (AB_ZERO_ERG_S_CM2_HZ * C_AA_S * log)
    assert maggies(wave, (wave / 5000.0) ** slope, BOX) == pytest.approx(expected, rel=1e-4)


@every_band
def test_maggies_are_speclites(band):
    """A red spectrum with a break and lines; speclite integrates by the same trapezoids."""
    from speclite.filters import load_filter as speclite_filter

    curve = speclite_filter(band.name)
    wave = np.arange(1000.0, 60_000.0, 2.0)
    flux = 1e-17 * (1 + np.sin(wave / 40) ** 2) * np.where(wave > 4500, 3.0, 1.0)
    assert maggies(wave, flux, band) == pytest.approx(
        curve.get_ab_maggies(flux * 1.0, wave), rel=3e-4
    )


def test_a_spectrum_is_dark_beyond_its_table():
    """A flat spectrum that ends in the middle of a box of photons."""
    edges, inside = np.array([3999.999, 6000.001]), np.linspace(4000.0, 6000.0, 2001)
    box = Filter("box", np.insert(edges, 1, inside), np.pad(np.ones(2001), 1))
    whole = maggies(np.array([3000.0, 7000.0]), np.ones(2), box)
    half = maggies(np.array([3000.0, 5000.0]), np.ones(2), box)
    assert half / whole == pytest.approx((5000**2 - 4000**2) / (6000**2 - 4000**2), rel=2e-3)
