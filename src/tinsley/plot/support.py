"""Does the training set reach to the catalogue? Its colours and errors under observed ones."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter

from tinsley.plot.style import BLACK, BLUE, GREEN, ORANGE, PURPLE, VERMILION, new_figure

SHARES = (0.997, 0.95, 0.68)
_CELLS = 60
Points = tuple[np.ndarray, np.ndarray]
Limits = tuple[float, float]
_MARKS = ((ORANGE, 2.2), (VERMILION, 5.0), (PURPLE, 4.0))
"""Colour and size of the points of each word, in order."""


class Errors(NamedTuple):
    """Errors in magnitudes: a catalogue's, and those that are usual.

    Attributes:
        observed_mag: NaN where there is none, [row, band].
        mag, mean_mag, scatter_mag: What is usual at some magnitudes, [band, node], as
            `tinsley.observe.noise.SigmaGivenFlux` has it.
    """

    observed_mag: np.ndarray
    mag: np.ndarray
    mean_mag: np.ndarray
    scatter_mag: np.ndarray


def training_support(
    simulated_mag: tuple[np.ndarray, np.ndarray],
    observed_mag: np.ndarray,
    unusual: dict[str, np.ndarray],
    bands: tuple[str, ...],
    errors: Errors | None = None,
    title: str = "",
) -> Figure:
    """Colours of the training galaxies as contours, those of a catalogue as points; and its errors.

    Filled contours hold 68, 95 and 99.7 % of noiseless training galaxies; the dashed one 99.7 % of
    such galaxies at the catalogue's own redshifts. A point outside is either a large error or a
    galaxy that the model can not make. The panels show the surroundings of the catalogue: the
    training set goes further. Below, errors against magnitudes, band by band, over the usual ones
    and 3 sigma to either side.

    Args:
        simulated_mag: Noiseless AB magnitudes of training galaxies, [n, band]; and of galaxies at
            the catalogue's redshifts, [m, band].
        observed_mag: AB magnitudes of the catalogue, NaN where there is none, [row, band].
        unusual: Rows to mark, by the word for them, each [row] of bool; three words at most.
        bands: Names, blue to red, four or more.
        errors: For the second row of panels; None leaves it out.
        title: Words above the figure.

    Source:
        Hahn & Melchior (2022), figures 1 and 5.
    """
    panels = [(i, i + 1, i + 1, i + 2) for i in range(len(bands) - 2)]
    middle = len(bands) // 2
    rows, columns = (1, len(panels) + 1) if errors is None else (2, len(bands))
    figure, axes = new_figure(rows, columns, 4.0 * columns, 4.0 * rows + 0.2)
    for ax, (a, b, c, d) in zip(axes[0], panels, strict=False):
        _panel(
            ax,
            [(m[:, c] - m[:, d], m[:, a] - m[:, b]) for m in (*simulated_mag, observed_mag)],
            unusual,
        )
        ax.set(xlabel=f"{bands[c]} $-$ {bands[d]} [mag]", ylabel=f"{bands[a]} $-$ {bands[b]} [mag]")
    ax = axes[0, len(panels)]
    _panel(ax, [(m[:, middle], m[:, 1] - m[:, 2]) for m in (*simulated_mag, observed_mag)], unusual)
    ax.set(xlabel=f"{bands[middle]} [mag]", ylabel=f"{bands[1]} $-$ {bands[2]} [mag]")
    handles = ax.get_legend_handles_labels()
    if errors is not None:
        for empty in axes[0, len(panels) + 1 :]:
            empty.set_axis_off()
        for k, band in enumerate(bands):
            _errors_of_band(axes[1, k], errors, k, observed_mag[:, k], unusual)
            axes[1, k].set(xlabel=f"{band} [mag]", ylabel=f"error of {band} [mag]")
    figure.legend(
        *handles, loc="outside lower center", ncols=6, frameon=False, fontsize=10, markerscale=2.5
    )
    figure.suptitle(title, fontsize=12)
    return figure


def _panel(ax: Axes, points: list[Points], unusual: dict[str, np.ndarray]) -> None:
    """One plane: training galaxies, those at the catalogue's redshifts, and the catalogue."""
    training, matched, (x, y) = points
    limits = (_limits(x), _limits(y))
    centres, density, levels = _density(training, limits, SHARES)
    ax.contourf(*centres, density, [*levels, np.inf], colors=BLUE, alpha=0.22)
    ax.contour(*centres, density, levels, colors=BLUE, linewidths=0.8)
    centres, density, levels = _density(matched, limits, SHARES[:1])
    ax.contour(*centres, density, levels, colors=GREEN, linewidths=1.4, linestyles="--")
    ax.fill([], [], color=BLUE, alpha=0.4, label="training set: 68, 95, 99.7 %")
    ax.plot([], [], "--", color=GREEN, label="at the catalogue's redshifts: 99.7 %")
    _catalogue(ax, (x, y), unusual)
    ax.set(xlim=limits[0], ylim=limits[1])


def _errors_of_band(
    ax: Axes, errors: Errors, band: int, mag: np.ndarray, unusual: dict[str, np.ndarray]
) -> None:
    """Errors against magnitudes, on a logarithmic scale."""
    nodes, mean, scatter = errors.mag[band], errors.mean_mag[band], errors.scatter_mag[band]
    low = np.maximum(mean - 3 * scatter, 0.2 * mean)
    ax.fill_between(nodes, low, mean + 3 * scatter, color=BLUE, alpha=0.22, lw=0)
    ax.plot(nodes, mean, color=BLUE, lw=0.8)
    _catalogue(ax, (mag, errors.observed_mag[:, band]), unusual)
    there = errors.observed_mag[:, band][np.isfinite(errors.observed_mag[:, band])]
    ends = np.quantile(there, (0.001, 0.999)) if len(there) else np.array([0.01, 1.0])
    ax.set(yscale="log", xlim=_limits(mag), ylim=(0.9 * ends[0], 1.3 * ends[1]))


def _catalogue(ax: Axes, points: Points, unusual: dict[str, np.ndarray]) -> None:
    """Usual rows as small points, the others marked by their word."""
    x, y = points
    usual = ~np.any(list(unusual.values()), axis=0)
    ax.plot(x[usual], y[usual], ".", color=BLACK, ms=1.5, mew=0, rasterized=True, label="catalogue")
    for (word, rows), (colour, size) in zip(unusual.items(), _MARKS, strict=False):
        ax.plot(x[rows], y[rows], ".", color=colour, ms=size, mew=0, label=word)


def _density(
    points: Points, limits: tuple[Limits, Limits], shares: tuple[float, ...]
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray, list[float]]:
    """Smoothed density [y, x] inside the limits, and the levels that hold shares of all points.

    Cells go on beyond the limits, so that a share counts points that are not shown.
    """
    edges = []
    for values, (low, high) in zip(points, limits, strict=True):
        step = (high - low) / _CELLS
        before = max(0, int(np.ceil((low - values.min()) / step)))
        after = max(0, int(np.ceil((values.max() - high) / step)))
        edges.append(low + step * np.arange(-before, _CELLS + after + 1))
    density = gaussian_filter(np.histogram2d(*points, edges)[0], 1.5)
    ranked = np.sort(density.ravel())[::-1]
    held = np.cumsum(ranked) / ranked.sum()
    levels = [float(ranked[np.searchsorted(held, share)]) for share in shares]
    x, y = (0.5 * (e[1:] + e[:-1]) for e in edges)
    return (x, y), density.T, levels


def _limits(values: np.ndarray) -> Limits:
    """The catalogue's range, less its last outliers, and as much again around it."""
    values = values[np.isfinite(values)]
    low, high = np.quantile(values, (0.003, 0.997)) if len(values) else (0.0, 1.0)
    room = 0.45 * (high - low) + 0.05
    return float(low - room), float(high + room)
