"""Cutouts of galaxies in colour, in the order of what they show."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from tinsley.plot.style import new_figure

ROWS, COLUMNS = 5, 8
_SOFTENING, _SATURATED = 8.0, 200.0
_WEIGHTS = (1.0, 1.35, 2.3)
"""Of i, r and g, so that a galaxy of middling colour is white."""


def colour_image(images: np.ndarray, noise_nmgy: float) -> np.ndarray:
    """Red, green and blue, 0-1, of images in three bands: colours are kept where light saturates.

    Args:
        images: From blue to red, nanomaggies per pixel, [3, y, x].
        noise_nmgy: Noise of a pixel of the middle band, which sets where the stretch bends.

    Source:
        Lupton et al. (2004).
    """
    bands = np.stack([w * images[b] for w, b in zip(_WEIGHTS, (2, 1, 0), strict=True)], axis=-1)
    bands = bands / noise_nmgy
    mean = np.maximum(bands.mean(axis=-1, keepdims=True), 1e-3)
    stretched = np.arcsinh(mean / _SOFTENING) / np.arcsinh(_SATURATED / _SOFTENING)
    colours = np.maximum(bands / mean * stretched, 0.0)
    brightest = np.maximum(colours.max(axis=-1, keepdims=True), 1.0)
    return np.clip(colours / brightest, 0.0, 1.0)


def cutout_order(truth: Mapping[str, np.ndarray]) -> np.ndarray:
    """Which galaxies to show, [row, column]: breaks grow downwards, inclinations to the right.

    Args:
        truth: dn4000 and cos_inclination, each [n], of at least one galaxy.
    """
    number = len(truth["dn4000"])
    rows = max(1, min(ROWS, number // COLUMNS))
    columns = min(COLUMNS, number)
    chosen = np.round(np.linspace(0, number - 1, rows * columns)).astype(int)
    by_break = np.argsort(truth["dn4000"], kind="stable")[chosen].reshape(rows, columns)
    inner = np.argsort(-np.asarray(truth["cos_inclination"])[by_break], axis=1, kind="stable")
    return np.take_along_axis(by_break, inner, axis=1)


def cutouts_figure(
    images: np.ndarray, truth: Mapping[str, np.ndarray], noise_nmgy: float
) -> Figure:
    """A grid of galaxies: from young (small 4000 A break) to old, and from face-on to edge-on.

    Args:
        images: In three bands from blue to red, nanomaggies per pixel, [n, 3, y, x].
        truth: dn4000, cos_inclination and bulge_to_total_r of each, [n].
        noise_nmgy: Noise of a pixel.
    """
    order = cutout_order(truth)
    rows, columns = order.shape
    figure, axes = new_figure(rows, columns, 1.35 * columns + 0.4, 1.45 * rows + 0.5)
    for ax, row in zip(axes.ravel(), order.ravel(), strict=True):
        ax.imshow(colour_image(images[row], noise_nmgy), origin="lower", interpolation="nearest")
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        words = f"{truth['dn4000'][row]:.2f}   B/T {truth['bulge_to_total_r'][row]:.2f}"
        ax.set_title(words, fontsize=7, pad=2)
    figure.supxlabel(r"face-on $\rightarrow$ edge-on", fontsize=11)
    figure.supylabel(r"old $\leftarrow$ Dn4000 $\rightarrow$ young", fontsize=11)
    return figure
