"""Two populations whose difference is known."""

from __future__ import annotations

import numpy as np
import pytest

from tinsley.errors import InputError
from tinsley.population.compare import compare_populations, comparison_columns
from tinsley.population.summaries import within

N = 20_000


def population(seed, mean, width, shifts=(0.0, 0.05, -0.05)):
    rng = np.random.default_rng(seed)
    member = np.repeat(np.arange(len(shifts)), N)
    x = mean + np.asarray(shifts)[member] + width * rng.normal(size=len(member))
    return {"member": member, "x": x, "y": rng.normal(size=len(member))}


def test_a_shift_is_found_and_measured_against_the_members_own_disagreement():
    found = compare_populations(population(1, 0.0, 1.0), population(2, 0.5, 1.0), ["x", "y"])
    shifts = np.array([0.0, 0.05, -0.05])
    expected = (0.5 + shifts[:, None] - shifts).ravel()
    np.testing.assert_allclose(found["x"].difference.each, expected, atol=0.03)
    np.testing.assert_allclose(found["x"].distance.each, expected, atol=0.03)
    np.testing.assert_allclose(
        np.sort(found["x"].own_distance.each), [0.05, 0.05, 0.05, 0.05, 0.1, 0.1], atol=0.025
    )
    assert found["x"].second_higher == 1
    assert found["y"].distance.each.max() < 0.05
    table = comparison_columns(found)
    assert table["property"].tolist() == ["x", "y"]
    assert table["difference"][0] == pytest.approx(0.5, abs=0.03)
    assert table["difference_q16"][0] < table["difference"][0] < table["difference_q84"][0]
    assert table["own_distance"][0] == found["x"].own_distance.median
    assert table["second_higher"][0] == 1


def test_a_width_shows_in_the_distance_alone():
    """W1 of N(0, 1) and N(0, 1.5) is 0.5 E|z|."""
    found = compare_populations(population(1, 0, 1, (0.0,)), population(2, 0, 1.5, (0.0,)), ["x"])
    assert abs(found["x"].difference.each[0]) < 0.03
    assert found["x"].distance.each[0] == pytest.approx(0.5 * np.sqrt(2 / np.pi), abs=0.02)
    assert np.isnan(found["x"].own_distance.median)


def test_two_selections_of_one_population_agree_once_undone():
    """Weights exp(a x) on N(0, 1) make N(a, 1): samples differ by the weights' slopes alone."""
    first, second = population(3, 0, 1, (0.0,)), population(4, 0, 1, (0.0,))
    first["seen"], second["seen"] = np.exp(0.4 * first["x"]), np.exp(-0.3 * second["x"])
    seen = compare_populations(first, second, ["x"], ("seen", "seen"))["x"]
    assert seen.difference.each[0] == pytest.approx(-0.7, abs=0.04)
    assert seen.distance.each[0] == pytest.approx(0.7, abs=0.04)
    undone = compare_populations(first, second, ["x"])["x"]
    assert undone.distance.each[0] < 0.03


def test_slices_and_refusals():
    both = population(1, 0, 1), population(2, 0, 1)
    parts = [within(p, {"x": (0, 1)}) for p in both]
    assert compare_populations(*parts, ["x"])["x"].distance.each.max() < 0.03
    with pytest.raises(InputError, match="lacks column w"):
        compare_populations(*both, ["x"], ("w", None))
    with pytest.raises(InputError, match="lacks column q"):
        compare_populations(*both, ["q"])
