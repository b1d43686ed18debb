"""The star-forming sequence."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from tinsley.plot.style import BLACK, GREEN, GREY, VERMILION, label, new_figure
from tinsley.population.relations import renzini_peng_2015

MASS = "log10_mstar_surviving_msun"
SFR = "log10_sfr_100myr_msun_yr"
AGE = "age_mw_gyr"
EDGES = (np.linspace(8.8, 12.0, 97), np.linspace(-2.6, 2.4, 101))
"""Cells of the plane, log10 Msun and log10 Msun/yr."""
_BARS = 10
_POINTS = 1500


def star_forming_sequence(
    galaxies: Mapping[str, np.ndarray], density: np.ndarray, title: str = ""
) -> Figure:
    """Star formation rate against surviving stellar mass, with its uncertainty.

    Grey is the sum of all posteriors. Some galaxies, evenly spread in mass, are points at their
    medians, coloured by age; a few of those have error bars (16-84 %).

    Args:
        galaxies: Columns of `galaxies.parquet` of the galaxies to show.
        density: Sum of their posteriors in the cells of `EDGES`, [mass, sfr].
        title: Words above the figure.

    Source:
        Dashed: the ridge of SDSS star-forming galaxies, Renzini & Peng (2015), eq. 1.
    """
    figure, axes = new_figure(1, 1, 7.4, 5.6)
    ax = axes[0, 0]
    top = max(float(density.max()), 1e-3)
    ax.pcolormesh(
        *EDGES,
        np.ma.masked_less(density.T, top / 300),
        norm=LogNorm(top / 300, 6 * top),
        cmap="Greys",
        linewidth=0,
        rasterized=True,
    )
    mass, sfr, age = (galaxies[f"{name}_q50"] for name in (MASS, SFR, AGE))
    low, high = np.quantile(age, (0.02, 0.98)) if len(age) else (0, 1)
    shown = _spread_out(mass, _POINTS)
    points = ax.scatter(
        mass[shown],
        sfr[shown],
        c=age[shown],
        s=6,
        cmap="viridis_r",
        linewidths=0,
        vmin=low,
        vmax=high,
    )
    figure.colorbar(points, ax=ax, label=label(AGE), pad=0.01, extend="both")
    few = _spread_out(mass, _BARS)
    bars = [
        np.abs([galaxies[f"{name}_{q}"][few] - middle[few] for q in ("q16", "q84")])
        for name, middle in ((MASS, mass), (SFR, sfr))
    ]
    ax.fill([], [], color=GREY, label="sum of all posteriors")
    ax.plot([], [], "o", color=GREEN, ms=4, label=f"medians of {len(shown):,} galaxies")
    ax.errorbar(
        mass[few], sfr[few], bars[1], bars[0], "none", ecolor=BLACK, elinewidth=0.8, label="16-84 %"
    )
    ridge = np.array([9.0, 11.2])
    ax.plot(ridge, renzini_peng_2015(ridge), "--", color=VERMILION, label="Renzini & Peng (2015)")
    ax.legend(frameon=False, fontsize=9, loc="lower left")
    ax.set(xlabel=label(MASS), ylabel=label(SFR), title=title)
    ax.set(xlim=EDGES[0][[0, -1]], ylim=EDGES[1][[0, -1]])
    return figure


def _spread_out(values: np.ndarray, number: int) -> np.ndarray:
    """Indices of a few entries, evenly spaced in rank between the extremes."""
    order = np.argsort(values)
    share = (np.arange(min(number, len(order))) + 0.5) / max(min(number, len(order)), 1)
    return order[(share * len(order)).astype(int)]
