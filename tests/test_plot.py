"""Figures: what they must show, read back from the artists."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.colors import to_hex

from tinsley.infer.marginals import SSFR_1GYR
from tinsley.parameters import default_space
from tinsley.plot import calibration, galaxy, sequence
from tinsley.plot.residuals import residual_histograms
from tinsley.plot.style import BLUE, LABELS, VERMILION
from tinsley.plot.support import Errors, training_support
from tinsley.plot.trust import trust
from tinsley.sps.derived import DERIVED


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def test_every_property_has_a_label():
    assert set(LABELS) == {*default_space().names, *DERIVED, SSFR_1GYR, "redshift"}


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


def some_galaxies(rng, number: int) -> dict[str, np.ndarray]:
    """A table as `galaxies.parquet` holds it, with what figures read of it."""
    middles = {sequence.MASS: 10.5, sequence.SFR: 0.3, sequence.AGE: 5.0}
    columns = {"ess": rng.uniform(1, 500, number), "khat": rng.uniform(0, 1, number)}
    for name, middle in middles.items():
        for shift, statistic in ((-0.2, "q16"), (0.0, "q50"), (0.3, "q84")):
            columns[f"{name}_{statistic}"] = np.full(number, middle + shift)
    columns |= {"n_draws": np.full(number, 500), "method": np.full(number, "flow")}
    return columns | {"status": np.where(columns["ess"] > 100, "ok", "low_ess")}


@pytest.mark.parametrize("number", [0, 1, 500])
def test_sequence_shows_medians_and_few_error_bars(rng, number):
    cells = tuple(len(edges) - 1 for edges in sequence.EDGES)
    figure = sequence.star_forming_sequence(some_galaxies(rng, number), np.zeros(cells))
    ax = figure.axes[0]
    points = next(c for c in ax.collections if isinstance(c, PathCollection))
    assert len(points.get_offsets()) == number
    horizontal = next(c for c in ax.collections if isinstance(c, LineCollection))
    assert len(horizontal.get_segments()) == min(number, 10)
    for segment in horizontal.get_segments():
        np.testing.assert_allclose(segment, [[10.3, 0.3], [10.8, 0.3]])


def test_trust_counts_each_galaxy_once_and_splits_at_the_limits(rng):
    galaxies = some_galaxies(rng, 300)
    galaxies["ess"][:10] = galaxies["khat"][:10] = np.nan
    left, middle, right = trust(galaxies, 500, (100.0, 0.7)).axes
    for ax, limit in ((left, 0.2), (middle, 0.7)):
        good, bad = (container.patches for container in ax.containers)
        heights = [[bar.get_height() for bar in bars] for bars in (good, bad)]
        assert np.sum(heights) == 290
        edges = [bar.get_x() for bar, height in zip(good, heights[0], strict=True) if height]
        assert (min(edges) >= limit * 0.999) == (ax is left)
    assert [t.get_text() for t in right.get_yticklabels()] == ["low_ess", "ok"]


def test_trust_asks_chains_for_no_k_hat(rng):
    galaxies = some_galaxies(rng, 300)
    galaxies["khat"][:] = 0.5
    galaxies["khat"][:10], galaxies["method"][:10] = np.nan, "hmc"
    left, middle, _ = trust(galaxies, 500, (100.0, 0.7)).axes
    counts = [sum(bar.get_height() for part in ax.containers for bar in part.patches)
              for ax in (left, middle)]  # fmt: skip
    assert counts == [300, 290]
    assert middle.get_title() == "above 0.7: 0.0%"


def test_trust_takes_a_refined_galaxy_for_what_it_has_reached(rng):
    galaxies = some_galaxies(rng, 1) | {"ess": np.array([150.0]), "n_draws": np.array([150_000])}
    left = trust(galaxies, 500, (100.0, 0.7)).axes[0]
    good, bad = ([bar.get_height() for bar in c.patches] for c in left.containers)
    assert good[0] == 1
    assert np.sum(bad) == 0


def test_residuals_say_the_misfit_and_survive_a_band_without_data(rng):
    residual = rng.normal(size=(400, 2))
    residual[:, 1] = np.nan
    misfit = {"u": {"chi2_median": 0.46, "chi2_mean": 1.0, "residual_median": 0.25}}
    u, g = residual_histograms(residual, ("u", "g"), misfit).axes
    assert "mean 1.00" in u.texts[0].get_text()
    assert "+0.25" in u.texts[0].get_text()
    assert g.texts[0].get_text() == "not measured"


def test_corner_shows_the_weighted_median(rng):
    theta = {name: rng.normal(size=4000) for name in galaxy.CORNER}
    weight = (theta["tau_ism"] > 0).astype(float)
    figure = galaxy.corner_plot(theta, weight / weight.sum(), galaxy.CORNER)
    diagonal = figure.axes[:: len(galaxy.CORNER) + 1]
    index = galaxy.CORNER.index("tau_ism")
    assert diagonal[index].get_title().startswith("$0.6")  # 0.67, the normal's upper quartile
    assert abs(float(diagonal[0].get_title()[1:5])) < 0.1


def test_sed_lays_the_photometry_over_the_spectra(rng, small_filters):
    wave_aa = np.geomspace(1000, 30_000, 300)
    spectra = (wave_aa / 5000) * rng.uniform(0.9, 1.1, (20, 1))
    flux = np.array([band.wave_effective_aa for band in small_filters]) / 5000 / 3.631
    model_nmgy = flux * rng.uniform(0.9, 1.1, (20, 1))
    figure = galaxy.sed(
        (wave_aa, spectra), (flux * 1.2, 0.1 * flux), model_nmgy, small_filters, "one"
    )
    top, middle, bottom = figure.axes
    data = top.containers[0].lines[0]
    np.testing.assert_allclose(data.get_ydata(), 1.2 * data.get_xdata() * 2, rtol=1e-6)
    np.testing.assert_allclose(middle.lines[-1].get_ydata(), 2, atol=0.7)
    assert len(bottom.collections) == len(small_filters)


def test_support_marks_the_unusual_and_holds_the_shares_it_says(rng):
    bands = tuple("ugriz")
    training = rng.normal(0, 1, (50_000, 5))
    observed = rng.normal(0, 1, (50, 5))
    observed[3] = np.nan
    unusual = {"unusual_error": np.arange(50) < 5, "unusual_colour": np.arange(50) == 9}
    figure = training_support((training, training), observed, unusual, bands)
    assert len(figure.axes) == 4
    marked = {line.get_label(): line for line in figure.axes[0].lines}
    assert len(marked["catalogue"].get_xdata()) == 44
    assert len(marked["unusual_error"].get_xdata()) == 5
    points = np.stack([training[:, 1] - training[:, 2], training[:, 0] - training[:, 1]], -1)
    assert [line.get_label() for line in figure.axes[0].lines][-1] == "unusual_colour"
    innermost = figure.axes[0].collections[0].get_paths()[2]
    assert abs(innermost.contains_points(points).mean() - 0.68) < 0.04


def test_support_shows_errors_over_the_usual_ones(rng):
    bands = tuple("ugriz")
    training, observed = rng.normal(18, 1, (5000, 5)), rng.normal(18, 1, (50, 5))
    nodes = np.tile([15.0, 18.0, 21.0], (5, 1))
    usual = (nodes, np.full((5, 3), 0.05), np.full((5, 3), 0.01))
    error_mag = np.full((50, 5), 0.05)
    error_mag[7, 2] = 0.5
    unusual = {"unusual_error": np.arange(50) == 7, "unusual_colour": np.zeros(50, bool),
               "unusual_photometry": np.arange(50) < 3}  # fmt: skip
    figure = training_support(
        (training, training), observed, unusual, bands, Errors(error_mag, *usual)
    )
    top, bottom = figure.axes[:5], figure.axes[5:]
    assert [ax.axison for ax in top] == [True] * 4 + [False]
    marked = {line.get_label(): line for line in bottom[2].lines}
    np.testing.assert_allclose(marked["unusual_error"].get_xydata(), [[observed[7, 2], 0.5]])
    assert len(marked["unusual_photometry"].get_xdata()) == 3
    assert marked["unusual_photometry"].get_color() != marked["unusual_error"].get_color()
    band = bottom[2].collections[0].get_paths()[0]
    assert band.contains_point((18.0, 0.079))
    assert not band.contains_point((18.0, 0.081))
