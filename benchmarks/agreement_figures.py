"""Figures of benchmarks/agreement.py: SEDflow's figures 2, 3 and 4."""

from __future__ import annotations

from collections.abc import Mapping

import corner
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy.stats import kstwo

from tinsley.plot.galaxy import CORNER
from tinsley.plot.style import BLACK, BLUE, GREY, ORANGE, PALE, VERMILION, label, new_figure

COLOURS = {"chain": BLACK, "raw": ORANGE, "weighted": BLUE}
WORDS = {"chain": "chains", "raw": "flow, raw", "weighted": "flow, weighted"}
Drawn = Mapping[str, Mapping[str, np.ndarray]]


def corner_of(drawn: Drawn) -> Figure:
    """One galaxy's posterior by each way, 39 and 86 % contours."""
    figure = Figure(figsize=(11, 11), dpi=150)
    kept = np.stack([drawn["chain"][name] for name in CORNER])
    low, high = np.quantile(kept, [0.002, 0.998], axis=1)
    room = 0.05 * (high - low) + 1e-6
    for kind, colour in COLOURS.items():
        corner.corner(
            np.stack([drawn[kind][name] for name in CORNER], axis=-1),
            fig=figure,
            color=colour,
            labels=[label(name) for name in CORNER],
            range=list(zip(low - room, high + room, strict=True)),
            bins=24,
            smooth=1.0,
            smooth1d=0.8,
            levels=(0.393, 0.865),
            plot_datapoints=False,
            plot_density=False,
            max_n_ticks=3,
            label_kwargs={"fontsize": 8},
            labelpad=0.05,
        )
    lines = [Line2D([], [], color=colour) for colour in COLOURS.values()]
    figure.legend(lines, list(WORDS.values()), loc="upper right", fontsize=12, frameon=False)
    return figure


def medians(drawn: Mapping[str, list[Drawn]]) -> Figure:
    """Posterior medians of every galaxy, weighted draws over chains, with 16 and 84 %."""
    figure, axes = new_figure(2, 3, 10.0, 6.6)
    for ax, name in zip(axes.ravel(), CORNER, strict=True):
        for (kind, galaxies), colour in zip(drawn.items(), (BLUE, VERMILION), strict=False):
            x, y = (np.quantile([g[way][name] for g in galaxies], [0.16, 0.5, 0.84], axis=1)
                    for way in ("chain", "weighted"))  # fmt: skip
            errors = [(q[1] - q[0], q[2] - q[1]) for q in (x, y)]
            ax.errorbar(x[1], y[1], errors[1], errors[0], fmt="o", ms=2.5, color=colour,
                        elinewidth=0.4, label=kind)  # fmt: skip
        ends = ax.get_xlim()
        ax.plot(ends, ends, color=GREY, linewidth=0.8, zorder=-1)
        ax.set_title(label(name))
    axes[0, 0].legend(frameon=False, fontsize=9)
    figure.supxlabel("median by chains", fontsize=11)
    figure.supylabel("median by weighted draws of the flow", fontsize=11)
    return figure


def pp_of_both(flow: Mapping[str, np.ndarray], chains: Mapping[str, np.ndarray]) -> Figure:
    """Ranks of the truth, property by property: the flow's posteriors and the chains'.

    A calibrated property's line lies inside the grey band with 99 % probability.
    """
    figure, axes = new_figure(1, 2, 9.0, 4.4)
    grid = np.linspace(0, 1, 201)
    for ax, ranks, words in zip(axes[0], (flow, chains), ("flow, weighted", "chains"), strict=True):
        number = len(next(iter(ranks.values())))
        half = kstwo.ppf(0.99, number)
        ax.fill_between(grid, grid - half, grid + half, color=PALE, linewidth=0)
        for values in ranks.values():
            share = np.searchsorted(np.sort(values), grid, side="right") / number
            ax.plot(grid, share, color=BLUE, alpha=0.5, linewidth=0.9)
        ax.plot(grid, grid, color=GREY, linewidth=0.8)
        ax.set(xlim=(0, 1), ylim=(0, 1), title=f"{words}: {number} simulations")
        ax.set(xlabel="rank of the true value", ylabel="share of truths below")
    return figure
