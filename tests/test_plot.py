"""Figures: what they must show, read back from the artists."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_hex

from tinsley.parameters import default_space
from tinsley.plot import calibration
from tinsley.plot.style import BLUE, LABELS, VERMILION
from tinsley.sps.derived import DERIVED


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def test_every_property_has_a_label():
    assert set(LABELS) == {*default_space().names, *DERIVED, "redshift"}


def test_rank_histograms_show_which_property_is_miscalibrated(rng):
    pit = {"tau_ism": rng.random(5000), "tau_bc": rng.beta(0.8, 0.8, 5000)}
    figure = calibration.rank_histograms(pit)
    flat, horned = (ax.patches[-1] for ax in figure.axes)
    assert to_hex(flat.get_edgecolor()) == BLUE.lower()
    assert to_hex(horned.get_edgecolor()) == VERMILION.lower()
    values = horned.get_data().values
    np.testing.assert_allclose(values.mean(), 1)
    assert values[0] > values[10] < values[-1]


def test_rank_band_holds_calibrated_bars_99_times_in_100(rng):
    n_panels = 12
    outside = 0
    for _ in range(10):
        pit = {str(i): rng.random(1000) for i in range(n_panels)}
        for ax in calibration.rank_histograms(pit, bins=10).axes:
            outside += to_hex(ax.patches[-1].get_edgecolor()) == VERMILION.lower()
    assert outside <= 6  # 1.2 expected of 120; more than 6 once in 3,000


def test_pp_lines_name_only_what_leaves_the_band(rng):
    pit = {"tau_ism": rng.random(5000), "tau_bc": rng.random(5000) ** 1.2}
    (ax,) = calibration.pp_lines(pit).axes
    words = [text.get_text() for text in ax.get_legend().get_texts()]
    assert words == [LABELS["tau_bc"], "1 properties in the band"]


def test_coverage_shows_the_distance_from_the_diagonal():
    levels = np.linspace(0, 1, 11)
    figure = calibration.coverage(levels, {"a": levels, "b": levels - 0.02}, number=1000)
    _, difference = figure.axes
    np.testing.assert_allclose(difference.lines[-1].get_ydata(), -0.02)
    assert calibration.coverage(levels, levels).axes[0].get_legend() is None


@pytest.mark.parametrize("ranks", [[0.5, 1.2], [0.5, np.nan], []])
def test_ranks_are_refused_where_they_are_none(ranks):
    with pytest.raises(ValueError, match=r"tau_bc: expected ranks between 0 and 1"):
        calibration.rank_histograms({"tau_bc": np.array(ranks)})
