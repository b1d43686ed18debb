"""Whether to trust the posteriors: effective sample sizes and Pareto shapes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tinsley.plot.style import BLUE, GREY, VERMILION, new_figure
from tinsley.status import Method, Status


def trust(
    galaxies: Mapping[str, np.ndarray], draws: int, limits: tuple[float, float], title: str = ""
) -> Figure:
    """Effective sample size, k-hat and status of a whole run.

    Args:
        galaxies: Columns of `galaxies.parquet`.
        draws: Draws a galaxy of the first round; refined galaxies have their own `n_draws`.
        limits: The least ESS and the greatest k-hat of an `ok` galaxy.
        title: Words above the figure.
    """
    figure, axes = new_figure(1, 3, 12.0, 3.7)
    left, middle, right = axes[0]
    inferred = np.isfinite(galaxies["ess"])
    ess, least = galaxies["ess"][inferred], limits[0] / draws
    share = ess / galaxies["n_draws"][inferred]
    edges = least * 10 ** (0.05 * np.arange(-60, 60))
    edges = edges[(edges > 0.7 / draws) & (edges < 1.2)]
    _split(left, np.maximum(share, edges[0]), edges, ess >= limits[0], least)
    left.set(xscale="log", xlabel="effective draws / draws", ylabel="galaxies")
    if len(share):
        left.set_title(f"median {np.median(share):.0%}, below 1 %: {np.mean(share < 0.01):.1%}")
    khat = galaxies["khat"][inferred & (galaxies["method"] != Method.HMC)]  # chains have none
    _split(
        middle, np.clip(khat, -0.5, 1.5), np.linspace(-0.5, 1.5, 41), khat <= limits[1], limits[1]
    )
    middle.set(xlabel=r"$\hat{k}$ of the weights")
    if len(khat):
        middle.set_title(f"above {limits[1]}: {np.mean(~(khat <= limits[1])):.1%}")
    _statuses(right, galaxies["status"])
    figure.suptitle(title, fontsize=12)
    return figure


def _split(ax: Axes, values: np.ndarray, edges: np.ndarray, good: np.ndarray, limit: float) -> None:
    """One histogram, the good part in one colour and the bad in another, and the limit."""
    ax.hist([values[good], values[~good]], list(edges), stacked=True, color=[BLUE, VERMILION])
    ax.axvline(limit, color=GREY, linestyle="--", linewidth=1)


def _statuses(ax: Axes, status: np.ndarray) -> None:
    """Bars, the best word on top."""
    counts = {str(word): int(np.sum(status == word)) for word in Status}
    counts = {word: count for word, count in counts.items() if count}
    colours = [BLUE if word == Status.OK else VERMILION for word in counts]
    bars = ax.barh(list(counts), list(counts.values()), color=colours, height=0.7)
    ax.bar_label(bars, [f"{count:,}" for count in counts.values()], padding=3, fontsize=10)
    ax.set(xlabel="galaxies", xlim=(0, 1.18 * max(counts.values())), title="status")
    ax.tick_params(axis="y", length=0)
