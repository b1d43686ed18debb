"""Mass function and star-formation history of a population whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad

from test_summaries import read_published
from tinsley.cosmology import default_cosmology
from tinsley.errors import InputError
from tinsley.population import relations
from tinsley.population.sequence import MASS, SFR
from tinsley.population.volume import (
    SKY_DEG2,
    Footprint,
    comoving_volume_mpc3,
    cosmic_sfr_density,
    mass_function,
    seen_share,
    selected_fraction,
)

PHI_STAR, LOG10_M_STAR, ALPHA = 4e-3, 10.7, -1.1
RANGE_DEX, REDSHIFTS, AREA_DEG2 = (8.5, 12.0), (0.02, 0.2), 300.0
LOG10_SSFR_YR = -10.2


def schechter(log10_mass):
    """Per Mpc^3 and dex."""
    x = 10 ** (log10_mass - LOG10_M_STAR)
    return np.log(10) * PHI_STAR * x ** (ALPHA + 1) * np.exp(-x)


def passing(log10_mass, redshift):
    """Bright and near galaxies pass for certain."""
    reach = (log10_mass - 9.5) / 0.3 - (redshift - 0.1) / 0.03
    return np.maximum(1 / (1 + np.exp(-np.minimum(reach, 50.0))), 0.01)


@pytest.fixture(scope="module")
def truth():
    """Draws from the function, spread over the volume, and how many a survey sees of them."""
    rng = np.random.default_rng(5)
    per_member, members = 60_000, 4
    number = per_member * members
    mass = np.linspace(*RANGE_DEX, 2001)
    cumulative = np.cumsum(schechter(mass))
    z = np.linspace(*REDSHIFTS, 2001)
    volume = default_cosmology().comoving_volume(z).value
    columns = {
        MASS: np.interp(rng.random(number), cumulative / cumulative[-1], mass),
        "redshift": np.interp(rng.random(number), (volume - volume[0]) / np.ptp(volume), z),
        "member": np.repeat(np.arange(members), per_member),
    }
    columns[SFR] = columns[MASS] + LOG10_SSFR_YR
    weight = passing(columns[MASS], columns["redshift"])
    alpha = weight.mean()
    parts = [weight[columns["member"] == m] for m in range(members)]
    columns["selected_weight"] = np.concatenate([part / part.mean() for part in parts])
    there = quad(schechter, *RANGE_DEX)[0] * np.ptp(volume) * AREA_DEG2 / SKY_DEG2
    return columns, Footprint(AREA_DEG2, round(alpha * there)), alpha


def test_volume_is_the_cone_of_the_sky():
    """Nearby, a sphere of radius c z / H0 (1 - 3/4 z (1 + q0)), a percent or so."""
    z = 0.02
    radius = 299792.458 * z / 67.7 * (1 - 0.5 * z * (1 + 1.5 * 0.307 - 1))
    sphere = 4 / 3 * np.pi * radius**3
    whole = comoving_volume_mpc3(SKY_DEG2, np.array([0.0, z]))
    np.testing.assert_allclose(whole, sphere, rtol=1e-3)
    np.testing.assert_allclose(
        comoving_volume_mpc3(100.0, np.array([0.0, z])), sphere * 100 / 41252.96, rtol=1e-3
    )


def test_the_share_that_is_seen_follows_from_the_weights(truth):
    columns, _, alpha = truth
    np.testing.assert_allclose(selected_fraction(columns).each, alpha, rtol=0.02)
    edges = np.array([8.5, 9.0, 11.5, 12.0])
    seen = seen_share(columns, MASS, edges).median
    assert seen[0] < 0.2
    assert seen[2] > 0.95


def test_a_schechter_function_behind_a_selection_is_recovered(truth):
    columns, footprint, alpha = truth
    edges = np.arange(8.6, 11.5, 0.2)
    middle = (edges[1:] + edges[:-1]) / 2
    expected = (
        np.array([quad(schechter, a, b)[0] for a, b in zip(edges, edges[1:], strict=False)]) / 0.2
    )
    for redshifts in (REDSHIFTS, (0.05, 0.12)):
        found = mass_function(columns, edges, footprint, redshifts)
        counts = expected / quad(schechter, *RANGE_DEX)[0] * 0.2 * 60_000
        part = comoving_volume_mpc3(1, np.array(redshifts)) / comoving_volume_mpc3(
            1, np.array(REDSHIFTS)
        )
        sigma = 1 / np.sqrt(counts * part) + 0.01
        assert np.all(np.abs(found.each / expected - 1) < 4.5 * sigma), middle
    seen = footprint.n_observed / (60_000 * 4) * np.histogram(
        columns[MASS], edges, weights=columns["selected_weight"]
    )[0] / 0.2 / comoving_volume_mpc3(AREA_DEG2, np.array(REDSHIFTS))  # fmt: skip
    assert seen[0] < 0.3 * expected[0], "the selection must matter for this test to say something"


def test_star_formation_per_volume_is_recovered(truth):
    columns, footprint, _ = truth
    edges = np.array([0.02, 0.08, 0.14, 0.2])
    expected = quad(lambda m: schechter(m) * 10 ** (m + LOG10_SSFR_YR), *RANGE_DEX)[0]
    np.testing.assert_allclose(
        cosmic_sfr_density(columns, edges, footprint).each, expected, rtol=0.07
    )
    massive = quad(lambda m: schechter(m) * 10 ** (m + LOG10_SSFR_YR), 10.5, 12)[0]
    found = cosmic_sfr_density(columns, edges, footprint, least_log10_mass_msun=10.5)
    np.testing.assert_allclose(found.median, massive, rtol=0.07)


def test_no_selection_means_every_galaxy_was_seen(truth):
    columns = truth[0] | {"selected_weight": np.ones(len(truth[0][MASS]))}
    np.testing.assert_array_equal(selected_fraction(columns).each, 1)
    found = mass_function(columns, np.array(RANGE_DEX), Footprint(AREA_DEG2, 1000), REDSHIFTS)
    volume = comoving_volume_mpc3(AREA_DEG2, np.array(REDSHIFTS))
    np.testing.assert_allclose(found.each[:, 0] * 3.5 * volume, 1000)


def test_what_a_catalogue_lacks_at_the_bright_end_is_counted(truth):
    columns, footprint, _ = truth
    partly = Footprint(AREA_DEG2, footprint.n_observed, completeness=0.8)
    edges = np.array([9.5, 10.5])
    whole, part = (
        mass_function(columns, edges, one, REDSHIFTS).each for one in (partly, footprint)
    )
    np.testing.assert_allclose(whole, part / 0.8)
    for share in (0.0, 1.2):
        with pytest.raises(InputError, match="completeness of 0 to 1"):
            Footprint(AREA_DEG2, 10, completeness=share)


@pytest.mark.parametrize(("area", "number"), [(0.0, 10), (50_000.0, 10), (100.0, 0)])
def test_impossible_footprints_are_refused(area, number):
    with pytest.raises(InputError, match="expected an area"):
        Footprint(area, number)


@pytest.mark.parametrize("name", ["cucciati2011", "magnelli2013", "gruppioni2013"])
def test_madau_and_dickinson_goes_through_published_points(name):
    """From ultraviolet and infrared light, Salpeter's IMF."""
    table = read_published(f"StarFormationRateHistory/raw/sfr_{name}.dat")
    offset = np.log10(relations.madau_dickinson_2014(table[:, 0], 1.0)) - table[:, 1]
    assert np.abs(np.median(offset)) < 0.12
    assert np.abs(offset).max() < 0.4


def test_madau_and_dickinson_is_what_the_paper_says_of_it():
    """0.015 today, a peak near z = 1.86, and in Kroupa's IMF two thirds of it."""
    fine = np.linspace(0, 8, 801)
    paper = relations.madau_dickinson_2014(fine, 1.0)
    assert paper[0] == pytest.approx(0.015, rel=0.01)
    assert fine[np.argmax(paper)] == pytest.approx(1.86, abs=0.05)
    np.testing.assert_allclose(relations.madau_dickinson_2014(fine), 0.67 * paper)
