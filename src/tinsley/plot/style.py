"""What all figures share: labels with units, colours that the colour-blind can tell, plain axes."""

from __future__ import annotations

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILION, PURPLE = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)
"""Okabe & Ito (2008)."""
GREY = "#8C8C8C"
PALE = "#DDDDDD"

LABELS = {
    "log10_mstar_msun": r"$\log_{10}(M_{\rm formed}\,/\,M_\odot)$",
    "beta_1": r"$\beta_1$",
    "beta_2": r"$\beta_2$",
    "beta_3": r"$\beta_3$",
    "beta_4": r"$\beta_4$",
    "f_burst": r"$f_{\rm burst}$",
    "t_burst_gyr": r"$t_{\rm burst}$ [Gyr]",
    "log10_z_zsun": r"$\log_{10}(Z\,/\,Z_\odot)$",
    "tau_bc": r"$\tau_{\rm birth\ cloud}$",
    "tau_ism": r"$\tau_{\rm ISM}$",
    "n_dust": r"$n_{\rm dust}$",
    "redshift": "redshift",
    "log10_sfr_100myr_msun_yr": r"$\log_{10}({\rm SFR}_{100\,\rm Myr}\,/\,M_\odot\,{\rm yr}^{-1})$",
    "log10_sfr_1gyr_msun_yr": r"$\log_{10}({\rm SFR}_{1\,\rm Gyr}\,/\,M_\odot\,{\rm yr}^{-1})$",
    "log10_ssfr_1gyr_yr": r"$\log_{10}({\rm sSFR}_{1\,\rm Gyr}\,/\,{\rm yr}^{-1})$",
    "log10_ssfr_100myr_yr": r"$\log_{10}({\rm sSFR}_{100\,\rm Myr}\,/\,{\rm yr}^{-1})$",
    "age_mw_gyr": r"mass-weighted age [Gyr]",
    "log10_z_mw_zsun": r"$\log_{10}(Z_{\rm mw}\,/\,Z_\odot)$",
    "log10_mstar_surviving_msun": r"$\log_{10}(M_{\rm surviving}\,/\,M_\odot)$",
}
"""What a parameter or derived property is called on an axis."""


def label(name: str) -> str:
    """Label of a parameter or derived property; the name itself where it has none."""
    return LABELS.get(name, name)


def band_colours(number: int) -> list[str]:
    """One colour a band, from blue (dark) to red (bright)."""
    return [to_hex(c) for c in matplotlib.colormaps["plasma"](np.linspace(0.05, 0.85, number))]


def new_figure(
    rows: int, columns: int, width_in: float, height_in: float
) -> tuple[Figure, np.ndarray]:
    """A figure of its own, known to no one else, with plain axes [rows, columns]."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained", dpi=150)
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.ravel():
        plain(ax)
    return figure, axes


def plain(ax: Axes) -> None:
    """Ticks inside, no box above and to the right."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.tick_params(direction="in", labelsize=9)
    ax.xaxis.label.set_fontsize(11)
    ax.yaxis.label.set_fontsize(11)
    ax.title.set_fontsize(11)
