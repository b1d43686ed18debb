"""Cutouts in colour: colours are those of the light, the order is the one that is named."""

import numpy as np
import pytest

from tinsley.plot.cutouts import COLUMNS, ROWS, colour_image, cutout_order, cutouts_figure


def truth(number, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "dn4000": rng.uniform(1.1, 2.1, number),
        "cos_inclination": rng.uniform(0, 1, number),
        "bulge_to_total_r": rng.uniform(0, 1, number),
    }


def test_order_is_by_break_then_inclination():
    galaxies = truth(400)
    order = cutout_order(galaxies)
    assert order.shape == (ROWS, COLUMNS)
    assert len(np.unique(order)) == order.size
    breaks, cosines = galaxies["dn4000"][order], galaxies["cos_inclination"][order]
    assert np.all(breaks[:-1].max(axis=1) < breaks[1:].min(axis=1))
    assert np.all(np.diff(cosines, axis=1) < 0)


@pytest.mark.parametrize("number", [1, 3, 9, 17])
def test_few_galaxies_are_all_there_is(number):
    order = cutout_order(truth(number))
    assert set(order.ravel()) <= set(range(number))


def test_colours_keep_their_ratio_where_light_saturates():
    faint, bright = np.array([1.0, 2.0, 4.0]), np.array([1e4, 2e4, 4e4])
    images = np.stack([faint, bright], axis=1)[:, None, :]
    colour = colour_image(images, noise_nmgy=0.03)
    ratio = colour[0, :, 2] / colour[0, :, 0]
    assert ratio[0] == pytest.approx(ratio[1], rel=1e-6)
    assert colour.min() >= 0
    assert colour.max() <= 1
    assert np.argmax(colour[0, 0]) == 0


def test_a_figure_has_a_panel_a_galaxy():
    images = np.random.default_rng(0).normal(size=(50, 3, 16, 16))
    figure = cutouts_figure(images, truth(50), 1.0)
    assert len(figure.axes) == cutout_order(truth(50)).size
    assert figure.axes[0].images[0].get_array().shape == (16, 16, 3)
