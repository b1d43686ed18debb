"""A population: each marginal beside its prior, and each pair."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tinsley.parameters import BETAS, MASS
from tinsley.plot.style import BLUE, GREY, PALE, VERMILION, label, new_figure

SHOWN = (
    "redshift",
    "log10_mstar_surviving_msun",
    "log10_sfr_100myr_msun_yr",
    "age_mw_gyr",
    "log10_z_zsun",
    "f_burst",
    "tau_bc",
    "tau_ism",
    "n_dust",
)
"""Properties of the corner, as in PopSED's figures 6-7, and the dust."""
PARAMETERS = (
    "redshift",
    MASS,
    *BETAS,
    "f_burst",
    "t_burst_gyr",
    "log10_z_zsun",
    "tau_bc",
    "tau_ism",
    "n_dust",
)
"""All that a population is a density of."""
_BINS, _CELLS = 40, 36

Columns = Mapping[str, np.ndarray]


def population_corner(
    draws: Columns,
    prior: Columns,
    truth: Columns | None = None,
    *,
    shown: tuple[str, ...] = SHOWN,
    title: str = "",
) -> Figure:
    """Every marginal, beside its prior, and every pair of a population as observed.

    On the diagonal: each member a thin line, all together blue, the prior grey, the truth (of a
    mock) red. Where blue is grey the data said nothing. Below it: 39, 68 and 95 % of the galaxies.

    Args:
        draws: Columns of `population.parquet`.
        prior: Draws from the prior, same names; `selected_weight` where the survey selects.
        truth: The galaxies of a mock, same names where they are known.
        shown: Which columns, `SHOWN` or `PARAMETERS`; those that are not there are left out.
        title: Words above the figure.
    """
    names = [name for name in shown if name in draws]
    figure, axes = new_figure(len(names), len(names), 1.6 * len(names), 1.6 * len(names))
    weight = draws["selected_weight"]
    for i, row in enumerate(names):
        for j, column in enumerate(names):
            ax = axes[i, j]
            ax.tick_params(labelsize=6)
            if j > i:
                ax.set_axis_off()
            elif i == j:
                _marginal(ax, row, draws, prior, truth)
            else:
                _pair(ax, draws[column], draws[row], weight)
            if i == len(names) - 1:
                ax.set_xlabel(label(column), fontsize=7)
            if j == 0 and i > 0:
                ax.set_ylabel(label(row), fontsize=7)
    figure.suptitle(title)
    return figure


def _marginal(ax: Axes, name: str, draws: Columns, prior: Columns, truth: Columns | None) -> None:
    low, high = _range(np.concatenate([draws[name], prior[name]]))
    edges = np.linspace(low, high, _BINS + 1)

    def outline(values: np.ndarray, weight: np.ndarray | None, **style: Any) -> None:
        count, _ = np.histogram(values, edges, weights=weight, density=True)
        ax.stairs(count, edges, **style)

    outline(prior[name], prior.get("selected_weight"), color=PALE, fill=True, label="prior")
    for member in np.unique(draws["member"]):
        one = draws["member"] == member
        outline(draws[name][one], draws["selected_weight"][one], color=BLUE, lw=0.4, alpha=0.6)
    outline(draws[name], draws["selected_weight"], color=BLUE, lw=1.2, label="population")
    if truth is not None and name in truth:
        outline(truth[name], None, color=VERMILION, lw=1.0, ls="--", label="truth")
    ax.set_yticks([])
    ax.set_xlim(low, high)
    if name == "redshift":
        ax.legend(frameon=False, fontsize=6)


def _pair(ax: Axes, x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> None:
    count, x_edges, y_edges = np.histogram2d(x, y, _CELLS, [_range(x), _range(y)], weights=weight)
    ordered = np.sort(count.ravel())[::-1]
    inside = np.cumsum(ordered) / ordered.sum()
    levels = [ordered[np.searchsorted(inside, share)] for share in (0.95, 0.68, 0.39)]
    levels = sorted({float(level) for level in levels if level > 0})
    ax.pcolormesh(x_edges, y_edges, np.ma.masked_equal(count.T, 0), cmap="Greys", rasterized=True)
    if levels:
        middles = [(edges[1:] + edges[:-1]) / 2 for edges in (x_edges, y_edges)]
        ax.contour(*middles, count.T, levels=levels, colors=GREY, linewidths=0.6)


def _range(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, (0.001, 0.999))
    return float(low), float(max(high, low + 1e-6))
