"""Summaries of a population: bands over members, slices, the star-forming sequence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tinsley.errors import InputError
from tinsley.population import relations
from tinsley.population.sequence import MASS, SFR, star_forming_sequence
from tinsley.population.summaries import (
    Band,
    density,
    over_members,
    running_quantiles,
    weighted_quantile,
    within,
)

PUBLISHED = Path(__file__).resolve().parents[2] / "shared" / "data" / "published_relations"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def population(rng, members=5, number=4000, **of_member):
    """Each member's properties are made by functions of the generator, its number and a size."""
    parts = [
        {name: make(rng, m, number) for name, make in of_member.items()}
        | {"member": np.full(number, m), "selected_weight": np.ones(number)}
        for m in range(members)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def test_a_band_is_the_quantiles_of_one_more_member(rng):
    """Between the members as the sixth definition of Hyndman & Fan (1996) has it."""
    each = rng.normal(size=(29, 3))
    for band, levels in ((Band(each).outer, [0.05, 0.95]), (Band(each).inner, [0.16, 0.84])):
        np.testing.assert_allclose(band, np.quantile(each, levels, axis=0, method="weibull"))
    each[4:, 0], each[:, 1] = np.nan, np.nan
    np.testing.assert_allclose(Band(each).median[0], np.median(each[:4, 0]))
    assert np.isnan(Band(each).median[1])
    np.testing.assert_allclose(Band(each).median[2], np.median(each[:, 2]))
    assert list(Band(each).to_columns("phi")) == [
        "phi_q05", "phi_q16", "phi_q50", "phi_q84", "phi_q95",
    ]  # fmt: skip


@pytest.mark.parametrize("members", [2, 4, 10, 19, 40])
def test_a_band_of_few_members_covers_as_often_as_it_says(rng, members):
    """One more normal population falls into 90 % and 68 % bands that often, to 2 %.

    That much comes from straight lines between ranks; the counts are good to 0.25 %.
    """
    number = 40_000
    each, truth = rng.normal(size=(members, number)), rng.normal(size=number)
    band = Band(each)
    for (low, high), share in ((band.outer, 0.90), (band.inner, 0.68)):
        covered = np.mean((low <= truth) & (truth <= high))
        assert covered == pytest.approx(share, abs=0.02)


def test_one_member_has_no_band():
    band = Band(np.array([[1.0, 2.0]]))
    np.testing.assert_array_equal(band.median, [1, 2])
    assert np.isnan([band.outer, band.inner]).all()


def test_a_weight_does_what_repetition_would(rng):
    values, times = rng.normal(size=300), rng.integers(0, 4, 300)
    levels = np.array([0.16, 0.5, 0.84])
    repeated = np.quantile(np.repeat(values, times), levels, method="hazen")
    np.testing.assert_allclose(
        weighted_quantile(values, levels, times.astype(float)), repeated, atol=0.02
    )
    np.testing.assert_allclose(
        weighted_quantile(values, levels, np.ones(300)), np.quantile(values, levels, method="hazen")
    )


def test_members_are_summarised_apart_and_weighted():
    columns = {
        "member": np.array([3, 3, 7]),
        "x": np.array([1.0, 2.0, 5.0]),
        "selected_weight": np.array([3.0, 1.0, 1.0]),
    }
    mean = lambda one, w: np.average(one["x"], weights=w)  # noqa: E731
    np.testing.assert_allclose(over_members(columns, mean).each, [1.5, 5])
    np.testing.assert_allclose(over_members(columns, mean, "selected_weight").each, [1.25, 5])


def test_densities_of_normal_members_have_their_width(rng):
    """Members N(m, 1) with m ~ N(0, 0.3): at the flank the band follows from the slope there."""
    shift = rng.normal(0, 0.3, 40)
    columns = population(rng, 40, x=lambda r, m, n: r.normal(shift[m], 1, n))
    edges = np.linspace(-4, 4, 41)
    band = density(columns, "x", edges)
    np.testing.assert_allclose(np.sum(band.each * np.diff(edges), axis=1), 1, atol=0.002)
    middle = 25  # x = 1.0-1.2
    expected = np.exp(-((1.1 - shift) ** 2) / 2) / np.sqrt(2 * np.pi)
    np.testing.assert_allclose(band.inner[:, middle], np.quantile(expected, [0.16, 0.84]), rtol=0.1)


def test_a_slice_conditions(rng):
    """Of a correlated normal, y given x near 1 is N(rho, 1 - rho^2)."""
    rho = 0.8
    columns = population(rng, 2, 40_000, x=lambda r, m, n: r.normal(size=n))
    columns["y"] = rho * columns["x"] + np.sqrt(1 - rho**2) * rng.normal(size=80_000)
    part = within(columns, {"x": (0.9, 1.1)})
    assert part["x"].min() >= 0.9
    assert len(part["y"]) == len(part["member"])
    assert np.std(part["y"]) == pytest.approx(0.6, rel=0.05)
    edges = np.array([-1.1, -0.9, 0.9, 1.1])
    running = running_quantiles(columns, ("x", "y"), edges, (0.16, 0.5, 0.84)).median
    np.testing.assert_allclose(running[1, [0, 2]], [-rho, rho], atol=0.03)
    np.testing.assert_allclose(running[2, 2] - running[0, 2], 2 * 0.994 * 0.6, rtol=0.05)


def test_empty_bins_say_nothing(rng):
    columns = population(rng, 2, 50, x=lambda r, m, n: r.random(n), y=lambda r, m, n: r.random(n))
    running = running_quantiles(columns, ("x", "y"), np.array([0.0, 1.0, 2.0]))
    assert np.isfinite(running.median[:, 0]).all()
    assert np.isnan(running.median[:, 1]).all()


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda c: density(c, "z", np.array([0.0, 1.0])), "lacks column z; it has"),
        (lambda c: within(c, {"x": (5, 6)}), "no galaxy of the population has 5 <= x < 6"),
        (lambda c: density(c, "x", np.array([0.0, 1.0]), "bad"), "weights that are negative"),
        (lambda c: density({k: v[:0] for k, v in c.items()}, "x", np.zeros(2)), "no galaxy"),
    ],
)
def test_refusals(rng, act, message):
    columns = population(rng, 2, 50, x=lambda r, m, n: r.random(n))
    with pytest.raises(InputError, match=message):
        act(columns | {"bad": -columns["x"]})


def line(slope, height, scatter):
    """Members of one sequence, and as many quiescent galaxies 2 dex below it."""

    def make(rng, columns):
        low = np.arange(len(columns[MASS])) % 2
        mean = height + slope * (columns[MASS] - 10) - 2.5 * low
        columns[SFR] = mean + scatter * rng.normal(size=len(low))
        return columns

    return make


def test_a_straight_sequence_is_recovered(rng):
    columns = population(
        rng,
        6,
        20_000,
        **{
            MASS: lambda r, m, n: r.uniform(8, 12, n),
            "redshift": lambda r, m, n: r.uniform(0, 0.2, n),
        },
    )
    found = star_forming_sequence(line(0.9, 0.2, 0.2)(rng, columns))
    np.testing.assert_allclose(found.slope.each, 0.9, atol=0.012)
    np.testing.assert_allclose(found.log10_sfr_at_pivot.each, 0.2, atol=0.01)
    np.testing.assert_allclose(found.scatter_dex.each, 0.2, atol=0.01)
    np.testing.assert_allclose(found.star_forming_share.each, 0.5, atol=0.02)
    np.testing.assert_allclose(found.at(np.array([9.0, 11.0])).median, [-0.7, 1.1], atol=0.02)


def test_the_sequence_of_what_is_observed_is_not_that_of_all(rng):
    """A survey that favours high SFR sees it higher by the weight's slope times its variance."""
    columns = population(
        rng,
        4,
        30_000,
        **{MASS: lambda r, m, n: r.uniform(9, 11, n), "redshift": lambda r, m, n: np.full(n, 0.05)},
    )
    scatter, favour = 0.2, 1.5
    excess = scatter * rng.normal(size=120_000)
    columns[SFR] = 0.8 * (columns[MASS] - 10) + excess
    columns["selected_weight"] = np.exp(favour * excess)
    all_, seen = (
        star_forming_sequence(columns),
        star_forming_sequence(columns, weight="selected_weight"),
    )
    lift = seen.log10_sfr_at_pivot.median - all_.log10_sfr_at_pivot.median
    assert lift == pytest.approx(favour * scatter**2, abs=0.01)


def test_too_few_forming_stars_say_nothing(rng):
    columns = population(
        rng,
        2,
        100,
        **{MASS: lambda r, m, n: np.full(n, 10.0), "redshift": lambda r, m, n: np.full(n, 0.05)},
    )
    found = star_forming_sequence(columns | {SFR: columns[MASS] - 13})
    assert np.isnan(found.slope.each).all()
    np.testing.assert_array_equal(found.star_forming_share.each, 0)


def read_published(name: str, **options) -> np.ndarray:
    path = PUBLISHED / name
    if not path.exists():
        pytest.skip(f"{path} is not there: published tables are beside the repository")
    return np.loadtxt(path, **options)


def test_renzini_and_peng_goes_through_published_points():
    mass, sfr = np.log10(
        read_published("GalaxyStellarMassStarFormationRate/raw/Davies2016.txt", delimiter=",").T
    )
    near = (mass > 9) & (mass < 11.2)
    assert near.sum() > 5
    np.testing.assert_allclose(relations.renzini_peng_2015(mass[near]), sfr[near], atol=0.25)
