"""Summaries of a population with their bands: 16-84 % of one more member dark, 5-95 % pale."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tinsley.plot.style import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    band_colours,
    label,
    new_figure,
)
from tinsley.population.relations import madau_dickinson_2014, renzini_peng_2015
from tinsley.population.sequence import MASS, SFR, Sequence
from tinsley.population.summaries import Band

_COLOURS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BLACK)


def draw_band(ax: Axes, x: np.ndarray, band: Band, colour: str = BLUE, name: str = "") -> None:
    """Median of the members as a line, their spread as two shades.

    Args:
        ax: Where.
        x: Where the values are, [n].
        band: [member, n].
        colour: Of all of it.
        name: In the legend; none if empty.
    """
    _draw(ax, x, (band.outer, band.inner, band.median), colour, name)


def draw_positive_band(
    ax: Axes, x: np.ndarray, band: Band, colour: str = BLUE, name: str = ""
) -> None:
    """As `draw_band`, with the spread of the members' logarithms, which stays above 0.

    A member that is 0 somewhere, as of an empty bin, says nothing there.
    """
    log10 = Band(np.log10(np.where(band.each > 0, band.each, np.nan)))
    _draw(ax, x, (10.0**log10.outer, 10.0**log10.inner, 10.0**log10.median), colour, name)


def _draw(
    ax: Axes, x: np.ndarray, band: tuple[np.ndarray, np.ndarray, np.ndarray], colour: str, name: str
) -> None:
    outer, inner, median = band
    for ends, alpha in ((outer, 0.15), (inner, 0.3)):
        ax.fill_between(x, *ends, color=colour, alpha=alpha, linewidth=0)
    ax.plot(x, median, color=colour, lw=1.4, label=name or None)


def density_bands(
    bands: Mapping[str, Band], edges: np.ndarray, name: str, title: str = ""
) -> Figure:
    """Distributions of one property, one above the other.

    Args:
        bands: Of `tinsley.population.summaries.density`, by the name in the legend, [member, bin].
        edges: Of the bins, the same for all.
        name: The property.
        title: Words above the figure.
    """
    figure, axes = new_figure(1, 1, 6.4, 4.0)
    for colour, (words, band) in zip(_COLOURS, bands.items(), strict=False):
        draw_band(axes[0, 0], _middle(edges), band, colour, words)
    axes[0, 0].set(xlabel=label(name), ylabel="density", title=title, ylim=(0, None))
    axes[0, 0].legend(frameon=False, fontsize=8)
    return figure


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
    draw_positive_band(ax, _middle(edges), phi, name="population, selection undone")
    ax.set(yscale="log", xlabel=label(MASS), ylabel=r"$\phi$ [Mpc$^{-3}$ dex$^{-1}$]", title=title)
    ax.legend(frameon=False, fontsize=8)
    return figure


def redshift_bands(
    n_of_z: Band, edges: np.ndarray, title: str = "", *, measured: Band | None = None
) -> Figure:
    """n(z) of each tomographic bin.

    Args:
        n_of_z: [member, bin, redshift].
        edges: Of the redshifts.
        title: Words above the figure.
        measured: The same of galaxies with spectra, dashed; None where there are none.
    """
    figure, axes = new_figure(1, 1, 6.4, 4.0)
    number = n_of_z.each.shape[1]
    for i, colour in enumerate(band_colours(number)):
        draw_band(axes[0, 0], _middle(edges), Band(n_of_z.each[:, i]), colour, f"bin {i}")
        if measured is not None:
            axes[0, 0].plot(_middle(edges), measured.median[i], "--", color=colour)
    if measured is not None:
        axes[0, 0].plot([], [], "--", color=BLACK, label="spectroscopic")
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
    draw_positive_band(ax, middle, density, name="population, selection undone")
    paper = madau_dickinson_2014(middle)
    ax.plot(middle, paper, "--", color=VERMILION, label="Madau & Dickinson (2014)")
    ylabel = r"SFR density [$M_\odot\,{\rm yr}^{-1}\,{\rm Mpc}^{-3}$]"
    ax.set(yscale="log", xlabel=label("redshift"), ylabel=ylabel, title=title)
    ax.legend(frameon=False, fontsize=8)
    return figure


def _middle(edges: np.ndarray) -> np.ndarray:
    return (edges[1:] + edges[:-1]) / 2
