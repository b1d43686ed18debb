"""Figures of a population's summaries: what they must show, read back from the artists."""

from __future__ import annotations

import numpy as np
import pytest

from tinsley.plot import summaries
from tinsley.population.relations import madau_dickinson_2014, renzini_peng_2015
from tinsley.population.sequence import Sequence
from tinsley.population.summaries import Band

EDGES = np.linspace(9, 11, 9)
MIDDLE = (EDGES[1:] + EDGES[:-1]) / 2


@pytest.fixture
def band() -> Band:
    return Band(10 ** np.random.default_rng(1).normal(-2, 0.1, (7, 8)))


def lines(figure):
    return {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}


def test_a_band_is_its_two_shades_about_the_median(band):
    figure = summaries.mass_function_band(band, EDGES)
    shades, logs = figure.axes[0].collections, Band(np.log10(band.each))
    for shade, ends in zip(shades, (10**logs.outer, 10**logs.inner), strict=True):
        drawn = shade.get_paths()[0].vertices
        assert drawn[:, 1].min() == pytest.approx(ends[0].min())
        assert drawn[:, 1].max() == pytest.approx(ends[1].max())
    np.testing.assert_allclose(lines(figure)["population, selection undone"], band.median)
    assert figure.axes[0].get_yscale() == "log"


def test_a_band_of_numbers_per_volume_stays_above_zero():
    phi = Band(np.array([[1e-3] * 8, [2e-3] * 8, [1e-2] * 7 + [0.0]]))
    assert phi.outer.min() < 0
    figure = summaries.mass_function_band(phi, EDGES)
    drawn = [shade.get_paths()[0].vertices for shade in figure.axes[0].collections]
    assert min(vertices[:, 1].min() for vertices in drawn) > 0
    median = lines(figure)["population, selection undone"]
    np.testing.assert_allclose(median, [2e-3] * 7 + [2**0.5 * 1e-3])


def test_the_sequence_stands_beside_the_formula():
    slope, height = np.array([0.8, 0.9]), np.array([0.1, 0.2])
    sequence = Sequence(Band(slope), Band(height), Band(slope), Band(slope))
    running = Band(np.zeros((2, 3, 8)) + np.array([-1.0, 0.0, 1.0])[:, None])
    drawn = lines(summaries.sequence_band(sequence, running, EDGES))
    np.testing.assert_allclose(
        drawn["star-forming galaxies"], np.mean(height) + np.mean(slope) * (MIDDLE - 10)
    )
    np.testing.assert_allclose(drawn["Renzini & Peng (2015)"], renzini_peng_2015(MIDDLE))


def test_star_formation_stands_beside_the_formula(band):
    drawn = lines(summaries.sfr_history_band(band, EDGES - 8.9))
    np.testing.assert_allclose(
        drawn["Madau & Dickinson (2014)"], madau_dickinson_2014(MIDDLE - 8.9)
    )


def test_every_tomographic_bin_is_drawn(band):
    n_of_z = Band(np.stack([band.each, 2 * band.each, 3 * band.each], axis=1))
    drawn = lines(summaries.redshift_bands(n_of_z, EDGES))
    for i in range(3):
        np.testing.assert_allclose(drawn[f"bin {i}"], (i + 1) * band.median)


def test_the_measured_redshifts_stand_beside_those_of_the_population(band):
    n_of_z, measured = Band(np.stack([band.each, 2 * band.each], axis=1)), band.each[:1, None]
    measured = Band(np.concatenate([measured, 3 * measured], axis=1))
    figure = summaries.redshift_bands(n_of_z, EDGES, measured=measured)
    dashed = [line for line in figure.axes[0].lines if line.get_linestyle() == "--"]
    drawn = [line.get_ydata() for line in dashed if len(line.get_ydata())]
    np.testing.assert_allclose(drawn, measured.each[0])
    assert "spectroscopic" in lines(figure)


def test_distributions_are_told_apart(band):
    both = {"near": band, "far": Band(2 * band.each)}
    figure = summaries.density_bands(both, EDGES, "redshift", "two")
    drawn = lines(figure)
    np.testing.assert_allclose(drawn["near"], band.median)
    np.testing.assert_allclose(drawn["far"], 2 * band.median)
    assert len({line.get_color() for line in figure.axes[0].lines}) == 2
    assert figure.axes[0].get_xlabel() == "redshift"
