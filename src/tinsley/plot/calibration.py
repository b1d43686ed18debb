"""Is a posterior as wide as it should be? Ranks, p-p lines and coverage of simulations."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import binom, kstwo

from tinsley.plot.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PALE,
    PURPLE,
    VERMILION,
    label,
    new_figure,
)

CONFIDENCE = 0.99
_COLUMNS = 6


def rank_histograms(pit: Mapping[str, np.ndarray], bins: int = 20, title: str = "") -> Figure:
    """Histograms of the true value's rank in its posterior: flat if the posterior is calibrated.

    A hump in the middle means posteriors that are too wide, horns at the ends too narrow, a slope
    biased. In each panel all bars lie inside the grey band with 99 % probability.

    Args:
        pit: For each property the posterior probability below the true value, in [0, 1], [n].
        bins: Bars a panel.
        title: Words above the figure.

    Source:
        Talts et al. (2018). The band is binomial, Bonferroni-corrected for the number of bars.
    """
    names = list(pit)
    columns = min(_COLUMNS, len(names))
    rows = -(-len(names) // columns)
    figure, axes = new_figure(rows, columns, 2.1 * columns + 0.4, 1.75 * rows + 0.5)
    for ax, name in zip(axes.ravel(), names, strict=False):
        _rank_panel(ax, _checked(name, pit[name]), bins)
        ax.set_title(label(name), fontsize=9)
    for ax in axes.ravel()[len(names) :]:
        ax.set_visible(False)
    figure.supxlabel("rank of the true value in its posterior", fontsize=11)
    figure.supylabel("relative frequency", fontsize=11)
    figure.suptitle(title, fontsize=12)
    return figure


def pp_lines(pit: Mapping[str, np.ndarray], tolerance: float = 0.03, title: str = "") -> Figure:
    """How far the ranks' distribution is from the diagonal of a p-p plot, property by property.

    A calibrated property's whole line lies inside the grey band with 99 % probability. The lines
    that leave it are named.

    Args:
        pit: As for `rank_histograms`; for the band, as many as the first one's.
        tolerance: Dashed lines: the largest distance that is to be allowed.
        title: Words above the figure.

    Source:
        Exact distribution of the Kolmogorov-Smirnov distance.
    """
    figure, axes = new_figure(1, 1, 7.6, 4.2)
    ax = axes[0, 0]
    colours = itertools.cycle((VERMILION, GREEN, PURPLE, ORANGE, BLACK))
    grid = np.linspace(0, 1, 401)
    half = kstwo.ppf(CONFIDENCE, len(next(iter(pit.values()))))
    _difference_frame(ax, grid, np.full_like(grid, half), tolerance)
    quiet = {"color": BLUE, "alpha": 0.45, "linewidth": 0.9}
    for name, values in pit.items():
        ranks = np.sort(_checked(name, values))
        excess = np.searchsorted(ranks, grid, side="right") / len(ranks) - grid
        if np.max(np.abs(excess)) > half:
            ax.plot(grid, excess, color=next(colours), linewidth=1.6, label=label(name))
        else:
            ax.plot(grid, excess, **quiet)
    named = len(ax.get_legend_handles_labels()[1])
    if named < len(pit):
        ax.plot([], [], **quiet, label=f"{len(pit) - named} properties in the band")
    ax.set_xlabel("rank of the true value in its posterior")
    ax.set_ylabel("share of truths below, minus expected")
    ax.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    ax.set_title(title)
    return figure


def coverage(
    levels: np.ndarray,
    empirical: np.ndarray | Mapping[str, np.ndarray],
    number: int | None = None,
    tolerance: float = 0.03,
    title: str = "",
) -> Figure:
    """Joint coverage (TARP): how often regions of a given posterior probability hold the truth.

    Below the diagonal posteriors are overconfident, above it they are too cautious.

    Args:
        levels: Posterior probability of the regions, increasing, [level].
        empirical: Share of simulations whose truth lies inside, [level]; or several, by name.
        number: Simulations, for a 99 % band (pointwise binomial); None for no band.
        tolerance: Dashed lines: the largest distance that is to be allowed.
        title: Words above the figure.

    Source:
        Lemos et al. (2023).
    """
    curves = empirical if isinstance(empirical, Mapping) else {"": empirical}
    figure, axes = new_figure(1, 2, 9.0, 4.2)
    whole, difference = axes[0]
    half = np.zeros_like(levels)
    if number is not None:
        low, high = binom.interval(CONFIDENCE, number, levels)
        half = np.maximum(high / number - levels, levels - low / number)
    whole.fill_between(levels, levels - half, levels + half, color=PALE, linewidth=0)
    whole.plot([0, 1], [0, 1], color=GREY, linewidth=0.8)
    whole.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    _difference_frame(difference, levels, half, tolerance)
    colours = itertools.cycle((BLUE, VERMILION, GREEN, PURPLE))
    for (name, curve), colour in zip(curves.items(), colours, strict=False):
        whole.plot(levels, curve, color=colour, linewidth=1.8, label=name)
        difference.plot(levels, curve - levels, color=colour, linewidth=1.8)
    if any(curves):
        whole.legend(frameon=False, fontsize=9, loc="upper left")
    whole.set(xlabel="posterior probability of the region", ylabel="share that holds the truth")
    difference.set(xlabel="posterior probability of the region", ylabel="share minus probability")
    figure.suptitle(title, fontsize=12)
    return figure


def _rank_panel(ax: Axes, ranks: np.ndarray, bins: int) -> None:
    expected = len(ranks) / bins
    low, high = binom.interval(1 - (1 - CONFIDENCE) / bins, len(ranks), 1 / bins)
    counts, edges = np.histogram(ranks, bins=bins, range=(0, 1))
    ax.axhspan(low / expected, high / expected, color=PALE, linewidth=0)
    ax.axhline(1, color=GREY, linewidth=0.8)
    outside = np.any((counts < low) | (counts > high))
    colour = VERMILION if outside else BLUE
    ax.stairs(counts / expected, edges, baseline=None, color=colour, linewidth=1.3)
    reach = 1.5 * max(high / expected - 1, 1 - low / expected, *np.abs(counts / expected - 1))
    ax.set(xlim=(0, 1), ylim=(max(1 - reach, 0), 1 + reach), xticks=[0, 0.5, 1])
    ax.set_xticklabels(["0", "0.5", "1"])


def _difference_frame(ax: Axes, x: np.ndarray, half: np.ndarray, tolerance: float) -> None:
    """Band around zero and dashed limits, with room for what leaves them."""
    ax.fill_between(x, -half, half, color=PALE, linewidth=0)
    ax.axhline(0, color=GREY, linewidth=0.8)
    for sign in (-1, 1):
        ax.axhline(sign * tolerance, color=GREY, linewidth=0.8, linestyle="--")
    ax.set_xlim(0, 1)
    reach = 1.5 * max(tolerance, float(half.max()))
    ax.update_datalim([(0, -reach), (1, reach)])


def _checked(name: str, values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, float)
    if values.ndim != 1 or not len(values) or not np.all((values >= 0) & (values <= 1)):
        raise ValueError(
            f"{name}: expected ranks between 0 and 1, one for each simulation; got shape "
            f"{values.shape}, {np.sum(~((values >= 0) & (values <= 1)))} of them outside."
        )
    return values
