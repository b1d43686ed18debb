"""What a prior implies for the properties that people ask of a galaxy."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from tinsley.plot.style import BLUE, GREEN, PALE, VERMILION, label, new_figure

SHOWN = (
    "log10_mstar_msun",
    "log10_mstar_surviving_msun",
    "log10_ssfr_1gyr_yr",
    "age_mw_gyr",
    "log10_z_mw_zsun",
    "redshift",
)
_BINS = 40

Draws = tuple[Mapping[str, np.ndarray], np.ndarray]
"""Properties and weights, each [draw]."""


def implied(priors: Mapping[str, Draws], title: str = "") -> Figure:
    """The density of each property under one prior or several; the first is the grey one.

    Args:
        priors: Weighted draws by the prior's name.
        title: Words above the figure.
    """
    figure, axes = new_figure(2, 3, 9.6, 5.4)
    for ax, name in zip(axes.ravel(), SHOWN, strict=True):
        everywhere = np.concatenate([values[name] for values, _ in priors.values()])
        low, high = np.quantile(everywhere, (0.0005, 0.9995))
        edges = np.linspace(low, high, _BINS + 1)
        for i, (about, (values, weight)) in enumerate(priors.items()):
            height, _ = np.histogram(values[name], edges, weights=weight)
            height = height / np.diff(edges)
            colour = (PALE, BLUE, VERMILION, GREEN)[i]
            ax.stairs(height, edges, color=colour, fill=i == 0, linewidth=1.4, label=about)
        ax.set(xlabel=label(name), yticks=[], xlim=(edges[0], edges[-1]))
    axes[0, 0].set_ylabel("density")
    axes[1, 0].set_ylabel("density")
    axes[1, 0].legend(frameon=False, fontsize=8, loc="upper right")
    figure.suptitle(title, fontsize=12)
    return figure
