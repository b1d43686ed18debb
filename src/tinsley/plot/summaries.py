"""Summaries of a population with their bands: 16-84 % of the members dark, 5-95 % pale."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tinsley.plot.style import BLUE, VERMILION, band_colours, label, new_figure
from tinsley.population.relations import madau_dickinson_2014, renzini_peng_2015
from tinsley.population.sequence import MASS, SFR, Sequence
from tinsley.population.summaries import Band


def draw_band(ax: Axes, x: np.ndarray, band: Band, colour: str = BLUE, name: str = "") -> None:
    """Median of the members as a line, their spread as two shades.

    Args:
        ax: Where.
        x: Where the values are, [n].
        band: [member, n].
        colour: Of all of it.
        name: In the legend; none if empty.
    """
    for ends, alpha in ((band.outer, 0.15), (band.inner, 0.3)):
        ax.fill_between(x, *ends, color=colour, alpha=alpha, linewidth=0)
    ax.plot(x, band.median, color=colour, lw=1.4, label=name or None)


def sequence_band(sequence: Sequence, running: Band, edges: np.ndarray, title: str = "") -> Figure:
    """The star-forming sequence: the members' lines beside the formula.

    Args:
        sequence: Of `tinsley.population.sequence`.
        running: 16, 50 and 84 % of log10 SFR in bins of mass, [member, 3, bin].
        edges: Of the bins, log10 Msun.
        title: Words above the figure.

    Source:
        Dashed: Renzini & Peng (2015), eq. 1.
    """
    figure, axes = new_figure(1, 1, 6.4, 4.8)
    ax, middle = axes[0, 0], _middle(edges)
    low, _, high = running.median
    ax.fill_between(middle, low, high, color="0.85", linewidth=0, label="16-84 % of all galaxies")
    draw_band(ax, middle, sequence.at(middle), name="star-forming galaxies")
    ax.plot(middle, renzini_peng_2015(middle), "--", color=VERMILION, label="Renzini & Peng (2015)")
    ax.set(xlabel=label(MASS), ylabel=label(SFR), title=title)
    ax.legend(frameon=False, fontsize=8)
    return figure


def mass_function_band(phi: Band, edges: np.ndarray, title: str = "") -> Figure:
    """Galaxies per comoving volume and dex of mass."""
    figure, axes = new_figure(1, 1, 6.4, 4.8)
    ax = axes[0, 0]
    draw_band(ax, _middle(edges), phi, name="population, selection undone")
    ax.set(yscale="log", xlabel=label(MASS), ylabel=r"$\phi$ [Mpc$^{-3}$ dex$^{-1}$]", title=title)
    ax.legend(frameon=False, fontsize=8)
    return figure


def redshift_bands(n_of_z: Band, edges: np.ndarray, title: str = "") -> Figure:
    """n(z) of each tomographic bin, [member, bin, redshift]."""
    figure, axes = new_figure(1, 1, 6.4, 4.0)
    number = n_of_z.each.shape[1]
    for i, colour in enumerate(band_colours(number)):
        draw_band(axes[0, 0], _middle(edges), Band(n_of_z.each[:, i]), colour, f"bin {i}")
    axes[0, 0].set(xlabel=label("redshift"), ylabel="n(z)", title=title)
    axes[0, 0].legend(frameon=False, fontsize=8)
    return figure


def sfr_history_band(density: Band, edges: np.ndarray, title: str = "") -> Figure:
    """Cosmic star-formation history.

    Source:
        Dashed: Madau & Dickinson (2014), eq. 15, in Kroupa's IMF.
    """
    figure, axes = new_figure(1, 1, 6.4, 4.8)
    ax, middle = axes[0, 0], _middle(edges)
    draw_band(ax, middle, density, name="population, selection undone")
    paper = madau_dickinson_2014(middle)
    ax.plot(middle, paper, "--", color=VERMILION, label="Madau & Dickinson (2014)")
    ylabel = r"SFR density [$M_\odot\,{\rm yr}^{-1}\,{\rm Mpc}^{-3}$]"
    ax.set(yscale="log", xlabel=label("redshift"), ylabel=ylabel, title=title)
    ax.legend(frameon=False, fontsize=8)
    return figure


def _middle(edges: np.ndarray) -> np.ndarray:
    return (edges[1:] + edges[:-1]) / 2
