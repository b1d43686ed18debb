"""One galaxy: its posterior as a corner plot, and its spectrum with the photometry over it."""

from __future__ import annotations

from collections.abc import Mapping

import corner
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from tinsley.observe.filters import Filter
from tinsley.plot.style import BLACK, BLUE, GREY, PALE, band_colours, label, plain

CORNER = (
    "log10_mstar_surviving_msun",
    "log10_sfr_100myr_msun_yr",
    "age_mw_gyr",
    "log10_z_zsun",
    "tau_ism",
    "n_dust",
)
UJY_PER_NMGY = 3.631
_SHORT = {
    "log10_mstar_surviving_msun": r"$\log_{10}M_{\rm surv}\ [M_\odot]$",
    "log10_sfr_100myr_msun_yr": r"$\log_{10}{\rm SFR}\ [M_\odot/{\rm yr}]$",
    "age_mw_gyr": "age [Gyr]",
    "log10_z_zsun": r"$\log_{10}Z\ [Z_\odot]$",
}


def corner_plot(
    theta: Mapping[str, np.ndarray],
    weight: np.ndarray,
    names: tuple[str, ...] = CORNER,
    title: str = "",
) -> Figure:
    """Posterior of one galaxy in every plane of some properties.

    Contours hold 39 and 86 % (1 and 2 sigma in two dimensions); above each histogram the median
    with the 16 and 84 % quantiles.

    Args:
        theta: Parameters and derived properties, each [draw].
        weight: Importance weights, [draw].
        names: The properties to show.
        title: Words above the figure.
    """
    size = 1.7 * len(names)
    figure = Figure(figsize=(size, size), dpi=150)
    data = np.stack([theta[name] for name in names], axis=-1)
    corner.corner(
        data,
        weights=weight,
        fig=figure,
        labels=[_SHORT.get(name, label(name)) for name in names],
        range=[_range(theta[name], weight) for name in names],
        bins=24,
        smooth=1.0,
        smooth1d=0.8,
        levels=(0.393, 0.865),
        plot_datapoints=False,
        plot_density=False,
        fill_contours=True,
        color=BLUE,
        label_kwargs={"fontsize": 11},
        labelpad=0.06,
        hist_kwargs={"linewidth": 1.4},
        max_n_ticks=3,
    )
    for i, name in enumerate(names):
        ax = figure.axes[i * (len(names) + 1)]
        low, middle, high = corner.quantile(theta[name], (0.16, 0.5, 0.84), weight)
        ax.axvspan(low, high, color=PALE, linewidth=0, zorder=-1)
        ax.axvline(middle, color=GREY, linewidth=0.8)
        ax.set_title(_with_errors(low, middle, high), fontsize=11)
    figure.suptitle(title, fontsize=13, x=0.72, y=0.93)
    return figure


def sed(
    spectra: tuple[np.ndarray, np.ndarray],
    observed: tuple[np.ndarray, np.ndarray],
    model_nmgy: np.ndarray,
    filters: tuple[Filter, ...],
    title: str = "",
) -> Figure:
    """A galaxy's photometry over the spectra that its posterior allows.

    Bands of colour hold 68 and 95 % of the spectra. Below: residuals of the photometry, with the
    spread of the model's, and the filters.

    Args:
        spectra: Observed wavelength, Angstrom, [wave], and flux density of equally likely draws,
            microjansky, [spectrum, wave].
        observed: Flux and error, nanomaggies, each [band].
        model_nmgy: Photometry of the same draws, nanomaggies, [spectrum, band].
        filters: The bands.
        title: Words above the figure.
    """
    figure = Figure(figsize=(8.4, 6.4), layout="constrained", dpi=150)
    top, middle, bottom = figure.subplots(
        3, 1, sharex=True, gridspec_kw={"height_ratios": (5, 1.4, 1.1), "hspace": 0.03}
    )
    for ax in (top, middle, bottom):
        plain(ax)
    centre_um = np.array([band.wave_effective_aa for band in filters]) / 1e4
    flux, sigma = observed
    colours = band_colours(len(filters))
    _spectra(top, spectra, centre_um)
    model = np.quantile(model_nmgy, (0.16, 0.5, 0.84), axis=0)
    top.plot(
        centre_um,
        model[1] * UJY_PER_NMGY,
        "s",
        color=BLUE,
        mfc="none",
        ms=9,
        label="model photometry",
    )
    ujy = (flux * UJY_PER_NMGY, sigma * UJY_PER_NMGY)
    top.errorbar(
        centre_um, *ujy, fmt="o", color=BLACK, ms=4.5, capsize=2.5, zorder=5, label="photometry"
    )
    top.legend(frameon=False, fontsize=10, loc="lower right")
    top.set(ylabel=r"flux density [$\mu$Jy]", title=title)
    _residuals(middle, centre_um, flux, sigma, model)
    for band, colour in zip(filters, colours, strict=True):
        response = band.response / band.response.max()
        bottom.fill_between(band.wave_aa / 1e4, response, color=colour, alpha=0.55, linewidth=0)
    bottom.set(xlabel=r"observed wavelength [$\mu$m]", ylabel="response", ylim=(0, 1.08), yticks=[])
    figure.align_ylabels((top, middle, bottom))
    return figure


def _spectra(ax: Axes, spectra: tuple[np.ndarray, np.ndarray], centre_um: np.ndarray) -> None:
    wave_um, flux = spectra[0] / 1e4, spectra[1]
    shown = (wave_um > 0.55 * centre_um.min()) & (wave_um < 1.8 * centre_um.max())
    low2, low1, middle, high1, high2 = np.quantile(
        flux[:, shown], (0.025, 0.16, 0.5, 0.84, 0.975), axis=0
    )
    wave_um = wave_um[shown]
    ax.fill_between(
        wave_um, low2, high2, color=BLUE, alpha=0.18, linewidth=0, label="spectra, 95 %"
    )
    ax.fill_between(
        wave_um, low1, high1, color=BLUE, alpha=0.32, linewidth=0, label="spectra, 68 %"
    )
    ax.plot(wave_um, middle, color=BLUE, linewidth=0.8, label="spectra, median")
    ax.set(xscale="log", yscale="log", xlim=(wave_um[0], wave_um[-1]))
    ticks = [t for t in (0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0, 1.5, 2, 3, 4) if t > wave_um[0]]
    ticks = [t for t in ticks if t < wave_um[-1]]
    ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
    ax.xaxis.set_minor_locator(NullLocator())


def _residuals(
    ax: Axes, centre_um: np.ndarray, flux: np.ndarray, sigma: np.ndarray, model: np.ndarray
) -> None:
    """(Observed - median model) / sigma, with the posterior's own spread."""
    pull = (flux - model[1]) / sigma
    spread = np.abs(model[[0, 2]] - model[1]) / sigma
    ax.axhspan(-1, 1, color=PALE, linewidth=0)
    ax.axhline(0, color=GREY, linewidth=0.8)
    ax.errorbar(centre_um, 0 * pull, spread, fmt="s", color=BLUE, mfc="none", ms=9)
    ax.plot(centre_um, pull, "o", color=BLACK, ms=4.5)
    reach = 1.2 * max(2.0, float(np.nanmax(np.abs(pull))))
    ax.set(ylim=(-reach, reach), ylabel=r"$\Delta/\sigma$")


def _range(values: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """All but 0.4 % of the posterior, and a little room."""
    low, high = corner.quantile(values, (0.002, 0.998), weight)
    room = 0.05 * (high - low) + 1e-6
    return low - room, high + room


def _with_errors(low: float, middle: float, high: float) -> str:
    return rf"${middle:.2f}_{{-{middle - low:.2f}}}^{{+{high - middle:.2f}}}$"
