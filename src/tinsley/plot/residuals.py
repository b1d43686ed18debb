"""Do the best models fit? Residuals band by band."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import norm

from tinsley.plot.style import BLACK, GREY, band_colours, new_figure

_REACH = 4.0


def residual_histograms(
    residual: np.ndarray,
    bands: tuple[str, ...],
    misfit: Mapping[str, Mapping[str, float]],
    title: str = "",
) -> Figure:
    """Histograms of (observed - best draw) / sigma, with N(0, 1) over them.

    With five bands and more parameters the best draw fits better than the truth would: histograms
    narrower than the curve are no sign of errors that are too large. Shifts and tails are misfit.

    Args:
        residual: In units of sigma, NaN where there is none, [n, band].
        bands: Names.
        misfit: Statistics by band, from `tinsley.catalog.residuals.misfit_by_band`.
        title: Words above the figure.
    """
    figure, axes = new_figure(1, len(bands), 2.6 * len(bands) + 0.4, 3.0)
    edges = np.linspace(-_REACH, _REACH, 65)
    x = np.linspace(-_REACH, _REACH, 201)
    for ax, band, values, colour in zip(
        axes[0], bands, residual.T, band_colours(len(bands)), strict=True
    ):
        values = np.clip(values[np.isfinite(values)], -_REACH, _REACH)
        peak = 0.4
        if len(values):
            bars, *_ = ax.hist(values, edges, density=True, color=colour, alpha=0.75)
            peak = max(peak, float(np.max(bars)))
        ax.plot(x, norm.pdf(x), color=BLACK, linewidth=1.2)
        ax.axvline(0, color=GREY, linewidth=0.6)
        ax.set(xlim=(-_REACH, _REACH), yticks=[], ylim=(0, 1.35 * peak))
        ax.set_title(f"{band} band", fontsize=12)
        ax.text(0.04, 0.97, _words(misfit.get(band)), transform=ax.transAxes, va="top", fontsize=9)
    figure.supxlabel(r"(observed $-$ best draw) / $\sigma$", fontsize=11)
    axes[0, 0].set_ylabel("share of galaxies")
    figure.suptitle(title, fontsize=12)
    return figure


def _words(misfit: Mapping[str, float] | None) -> str:
    if misfit is None:
        return "not measured"
    return (
        r"$\chi^2$" + f" median {misfit['chi2_median']:.2f}\n"
        r"$\chi^2$" + f" mean {misfit['chi2_mean']:.2f}\n"
        f"shift {misfit['residual_median']:+.2f}" + r"$\,\sigma$"
    )
