"""Does the training set reach to the catalogue? Simulated colours under observed ones."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.ndimage import gaussian_filter

from tinsley.plot.style import BLACK, BLUE, GREEN, ORANGE, VERMILION, new_figure

SHARES = (0.997, 0.95, 0.68)
_CELLS = 60
Points = tuple[np.ndarray, np.ndarray]
Limits = tuple[float, float]


def training_support(
    simulated_mag: tuple[np.ndarray, np.ndarray],
    observed_mag: np.ndarray,
    unusual: dict[str, np.ndarray],
    bands: tuple[str, ...],
    title: str = "",
) -> Figure:
    """Colours of the training galaxies as contours, those of a catalogue as points.

    Filled contours hold 68, 95 and 99.7 % of noiseless training galaxies; the dashed one 99.7 % of
    such galaxies at the catalogue's own redshifts. A point outside is either a large error or a
    galaxy that the model can not make. The panels show the surroundings of the catalogue: the
    training set goes further.

    Args:
        simulated_mag: Noiseless AB magnitudes of training galaxies, [n, band]; and of galaxies at
            the catalogue's redshifts, [m, band].
        observed_mag: AB magnitudes of the catalogue, NaN where there is none, [row, band].
        unusual: Rows to mark, by the word for them, each [row] of bool.
        bands: Names, blue to red, four or more.
        title: Words above the figure.

    Source:
        Hahn & Melchior (2022), figure 1.
    """
    panels = [(i, i + 1, i + 1, i + 2) for i in range(len(bands) - 2)]
    middle = len(bands) // 2
    figure, axes = new_figure(1, len(panels) + 1, 4.0 * (len(panels) + 1), 4.2)
    for ax, (a, b, c, d) in zip(axes[0], panels, strict=False):
        _panel(
            ax,
            [(m[:, c] - m[:, d], m[:, a] - m[:, b]) for m in (*simulated_mag, observed_mag)],
            unusual,
        )
        ax.set(xlabel=f"{bands[c]} $-$ {bands[d]} [mag]", ylabel=f"{bands[a]} $-$ {bands[b]} [mag]")
    ax = axes[0, -1]
    _panel(ax, [(m[:, middle], m[:, 1] - m[:, 2]) for m in (*simulated_mag, observed_mag)], unusual)
    ax.set(xlabel=f"{bands[middle]} [mag]", ylabel=f"{bands[1]} $-$ {bands[2]} [mag]")
    handles = ax.get_legend_handles_labels()
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
    usual = ~np.any(list(unusual.values()), axis=0)
    ax.plot(x[usual], y[usual], ".", color=BLACK, ms=1.5, mew=0, rasterized=True, label="catalogue")
    for (word, rows), colour, size in zip(
        unusual.items(), (ORANGE, VERMILION), (2.2, 5.0), strict=False
    ):
        ax.plot(x[rows], y[rows], ".", color=colour, ms=size, mew=0, label=word)
    ax.set(xlim=limits[0], ylim=limits[1])


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
