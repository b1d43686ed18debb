"""Colour cuts where the best cut, its completeness and its purity are known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from tinsley.errors import InputError
from tinsley.population.summaries import in_ranges
from tinsley.population.targets import (
    ColourCut,
    colours,
    completeness_and_purity,
    fit_colour_cut,
)

PAIRS = (("g", "r"), ("r", "i"))
SHARE, N = 0.2, 40_000
COVARIANCE = np.array([[0.04, 0.018], [0.018, 0.01]])
OFFSET = np.array([0.1, 0.17])
BEST = np.linalg.solve(COVARIANCE, OFFSET)
SEPARATION = np.sqrt(OFFSET @ BEST)
"""Of the clouds along the best direction, in standard deviations."""


@pytest.fixture(scope="module")
def catalog():
    """Galaxies of a fifth in a cloud offset from the others'; four members; fluxes to match."""
    rng = np.random.default_rng(6)
    wanted = rng.random(N) < SHARE
    colour = rng.multivariate_normal([0.5, 0.2], COVARIANCE, N) + wanted[:, None] * OFFSET
    r_mag = rng.uniform(17, 22, N)
    mags = {"g": r_mag + colour[:, 0], "r": r_mag, "i": r_mag - colour[:, 1]}
    made = {f"flux_{band}": 10 ** (0.4 * (22.5 - mag)) for band, mag in mags.items()}
    return made | {"member": np.arange(N) % 4, "z": np.where(wanted, 0.5, 0.1)}


def test_colours_are_differences_of_magnitudes():
    table = {f"flux_{b}": np.array([f, -1.0]) for b, f in (("g", 1.0), ("r", 10.0), ("i", 100.0))}
    found = colours(table, PAIRS)
    np.testing.assert_allclose(found[0], [2.5, 2.5])
    assert np.isnan(found[1]).all()
    cut = ColourCut(PAIRS, np.array([0.8, -0.6]), 0.35)
    assert cut.passes(table).tolist() == [True, False]
    assert str(cut) == "0.80 (g - r) -0.60 (r - i) > 0.35"


def test_the_best_cut_is_found_with_its_completeness_and_purity(catalog):
    wanted = in_ranges(catalog, {"z": (0.4, 0.6)})
    fit = np.arange(N) % 8 < 4
    half = {name: values[fit] for name, values in catalog.items()}
    cut = fit_colour_cut(half, wanted[fit], PAIRS, 0.8)
    np.testing.assert_allclose(cut.direction, BEST / np.linalg.norm(BEST), atol=0.03)
    rest = {name: values[~fit] for name, values in catalog.items()}
    completeness, purity = completeness_and_purity(rest, wanted[~fit], cut.passes(rest))

    def rates(t):
        found, wrong = SHARE * norm.sf(t - SEPARATION), (1 - SHARE) * norm.sf(t)
        return found / SHARE, found / (found + wrong)

    at = brentq(lambda t: rates(t)[1] - 0.8, -1, 4)
    assert purity.each.shape == (4,)
    np.testing.assert_allclose(purity.each, 0.8, atol=0.03)
    np.testing.assert_allclose(completeness.each, rates(at)[0], atol=0.03)
    single = fit_colour_cut(half, wanted[fit], PAIRS[1:], 0.8)
    worse, _ = completeness_and_purity(rest, wanted[~fit], single.passes(rest))
    assert worse.median < completeness.median - 0.05


def test_weights_count_as_more_galaxies(catalog):
    wanted = catalog["z"] > 0.4
    passes = np.arange(N) % 3 == 0
    heavy = np.where(wanted & passes, 3.0, 1.0)
    completeness, purity = completeness_and_purity(catalog | {"w": heavy}, wanted, passes, "w")
    np.testing.assert_allclose(completeness.each, 3 * (1 / 3) / (3 * (1 / 3) + 2 / 3), atol=0.02)
    np.testing.assert_allclose(purity.each, 3 * SHARE / (3 * SHARE + 1 - SHARE), atol=0.02)
    plain = fit_colour_cut(catalog, wanted, PAIRS, 0.9)
    common = fit_colour_cut(catalog, wanted, PAIRS, 0.9, np.where(wanted, 5.0, 1.0))
    assert common.limit_mag < plain.limit_mag


def test_what_can_not_be_is_refused(catalog):
    wanted = catalog["z"] > 0.4
    with pytest.raises(InputError, match="20 wanted and 20 other galaxies"):
        fit_colour_cut(catalog, np.zeros(N, bool), PAIRS, 0.8)
    mixed = np.random.default_rng(0).random(N) < 0.1
    with pytest.raises(InputError, match="no cut in these colours reaches a purity of 1.1"):
        fit_colour_cut(catalog, mixed, PAIRS, 1.1)
    with pytest.raises(InputError, match="lacks column flux_z"):
        fit_colour_cut(catalog, wanted, (("i", "z"),), 0.8)
