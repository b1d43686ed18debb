"""Figures of benchmarks/images.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tinsley.io.image_sets import load_image_set
from tinsley.io.tables import open_table
from tinsley.observe.gallery import PROPERTIES
from tinsley.observe.images import SDSS_SKY_NMGY
from tinsley.plot.cutouts import colour_image
from tinsley.plot.style import BLUE, GREY, VERMILION, label, new_figure

COLOURS = {"photometry": VERMILION, "images": BLUE}
MASS, SFR, METALS, BREAK, DUST = PROPERTIES
RELATIONS = {
    SFR: ((10.4, 10.7), (-2.5, -0.5)),
    METALS: ((10.9, 11.2), (0.0, 0.3)),
    BREAK: ((10.4, 10.7), (1.2, 1.4)),
}
"""Against mass; boxes whose galaxies are looked at."""
LOOKED_AT = ("bulge_to_total_r", "disc_axis_ratio", "disc_radius_arcsec", "psf_fwhm_arcsec")


def write_figures(
    folder: Path, found: dict[str, Any], truth: dict[str, np.ndarray], test: Path
) -> None:
    """All figures, as docs/figures/images-*.png."""
    figures = {
        "gain": gain_figure(found),
        "distributions": distributions_figure(found, truth["test"]),
        "relations": relations_figure(found, truth["test"], test),
        "dust-age": dust_age_figure(found, truth["test"], test),
        "worse": worse_figure(found, test),
        "ranks": ranks_figure(found),
    }
    for name, figure in figures.items():
        figure.savefig(folder / f"images-{name}.png")


def gain_figure(found: dict[str, Any]) -> Figure:
    """Density at the truth and divergence from the prior: their gains, and object by object."""
    figure, axes = new_figure(2, 2, 9, 7)
    pairs = (
        ("ln p(truth)", {n: a.log_p for n, a in found.items()}),
        ("divergence from the prior, nats", {n: a.divergence[:, 0] for n, a in found.items()}),
    )
    for row, (words, values) in zip(axes, pairs, strict=True):
        gain = values["images"] - values["photometry"]
        low, high = np.quantile(gain, (0.002, 0.998))
        row[0].hist(gain, np.linspace(low, high, 60), color=BLUE, alpha=0.7)
        row[0].axvline(0, color=GREY)
        row[0].axvline(float(np.median(gain)), color=VERMILION, ls="--")
        row[0].set(xlabel=f"gain in {words}", ylabel="galaxies",
                   title=f"{np.mean(gain > 0):.0%} gain; median {np.median(gain):.2f}")  # fmt: skip
        both = np.concatenate(list(values.values()))
        ends = np.quantile(both, (0.005, 0.995))
        row[1].plot(values["photometry"], values["images"], ".", ms=2, color=BLUE, alpha=0.5)
        row[1].plot(ends, ends, color=GREY)
        row[1].set(xlabel=f"{words}: photometry", ylabel="photometry and image",
                   xlim=ends, ylim=ends)  # fmt: skip
    return figure


def distributions_figure(found: dict[str, Any], true: np.ndarray) -> Figure:
    """Posterior means of all galaxies beside their truths, property by property."""
    figure, axes = new_figure(1, len(PROPERTIES), 3 * len(PROPERTIES), 3)
    for i, (ax, name) in enumerate(zip(axes[0], PROPERTIES, strict=True)):
        edges = np.linspace(*np.quantile(true[:, i], (0.002, 0.998)), 40)
        ax.hist(true[:, i], edges, color=GREY, alpha=0.4, label="truth")
        for which, asked in found.items():
            means = asked.draws[:, :, i].mean(axis=1)
            ax.hist(means, edges, histtype="step", color=COLOURS[which], label=which)
        ax.set(xlabel=label(name), yticks=[])
    axes[0, 0].legend(frameon=False, fontsize=8)
    return figure


def relations_figure(found: dict[str, Any], true: np.ndarray, test: Path) -> Figure:
    """Three properties against mass: truth, both posteriors' means; a box's galaxies below."""
    figure, axes = new_figure(2, 3, 12, 7.5)
    images = load_image_set(test)
    values = {"truth": true} | {n: a.draws.mean(axis=1) for n, a in found.items()}
    styles = {"truth": GREY} | COLOURS
    for k, (name, box) in enumerate(RELATIONS.items()):
        ax, column = axes[0, k], PROPERTIES.index(name)
        for which, points in values.items():
            ax.plot(points[:, 0], points[:, column], ".", ms=2, alpha=0.4,
                    color=styles[which], label=which)  # fmt: skip
        (left, right), (low, high) = box
        ax.plot([left, right, right, left, left], [low, low, high, high, low], "k-", lw=1)
        ends = np.quantile(true[:, column], (0.002, 0.998))
        ax.set(
            xlabel=label(MASS),
            ylabel=label(name),
            ylim=ends + 0.2 * np.ptp(ends) * np.array([-1, 1]),
        )
        inside = values["images"]
        rows = np.flatnonzero(
            (inside[:, 0] > left) & (inside[:, 0] < right)
            & (inside[:, column] > low) & (inside[:, column] < high)
        )  # fmt: skip
        _mosaic(axes[1, k], images, rows[:12], f"{len(rows)} galaxies in the box")
    axes[0, 0].legend(frameon=False, fontsize=8, markerscale=4)
    return figure


def dust_age_figure(found: dict[str, Any], true: np.ndarray, test: Path) -> Figure:
    """Dust against age of an old dust-poor and a young dusty galaxy alike in their colours."""
    pair = alike(found, true)
    figure, axes = new_figure(2, 2, 8, 7.5)
    images = load_image_set(test)
    dust, age = PROPERTIES.index(DUST), PROPERTIES.index(BREAK)
    titles = ("old, little dust", "young, dusty")
    for row, title, (ax, stamp) in zip(pair, titles, axes, strict=True):
        for which, asked in found.items():
            draws = asked.draws[row]
            ax.plot(draws[:, dust], draws[:, age], ".", ms=2, alpha=0.5,
                    color=COLOURS[which], label=which)  # fmt: skip
        ax.plot(true[row, dust], true[row, age], "k*", ms=14, label="truth")
        ax.set(xlabel=label(DUST), ylabel=label(BREAK), title=title)
        _mosaic(stamp, images, np.array([row]), "")
    axes[0, 0].legend(frameon=False, fontsize=8)
    return figure


def alike(found: dict[str, Any], true: np.ndarray) -> tuple[int, int]:
    """Two galaxies far apart in dust and age whose photometric posteriors are the most alike."""
    dust, age = PROPERTIES.index(DUST), PROPERTIES.index(BREAK)
    old = np.flatnonzero((true[:, age] > 1.6) & (true[:, dust] < np.median(true[:, dust])))
    young = np.flatnonzero(
        (true[:, age] < 1.45) & (true[:, dust] > np.quantile(true[:, dust], 0.8))
    )
    means = found["photometry"].draws.mean(axis=1)[:, [age, dust]] / true[:, [age, dust]].std(
        axis=0
    )
    apart = np.linalg.norm(means[old][:, None] - means[young][None], axis=-1)
    one, other = np.unravel_index(np.argmin(apart), apart.shape)
    return int(old[one]), int(young[other])


def worse_figure(found: dict[str, Any], test: Path) -> Figure:
    """Who loses by the image? Looks of the galaxies whose density at the truth falls."""
    gain = found["images"].log_p - found["photometry"].log_p
    columns = read_columns(test)
    figure, axes = new_figure(1, len(LOOKED_AT) + 1, 3.2 * (len(LOOKED_AT) + 1), 3.2)
    for ax, name in zip(axes[0], LOOKED_AT, strict=False):
        edges = np.linspace(*np.quantile(columns[name], (0.01, 0.99)), 25)
        for rows, colour, words in ((gain > 0, BLUE, "gain"), (gain < 0, VERMILION, "loss")):
            ax.hist(columns[name][rows], edges, density=True, histtype="step",
                    color=colour, label=words)  # fmt: skip
        ax.set(xlabel=name.replace("_", " "), yticks=[])
    axes[0, 0].legend(frameon=False, fontsize=8)
    _mosaic(axes[0, -1], load_image_set(test), np.argsort(gain)[:12], "the greatest losses")
    return figure


def ranks_figure(found: dict[str, Any]) -> Figure:
    """p-p plots of both models: ranks of the truths, joint coverage dashed."""
    figure, axes = new_figure(1, len(found), 4.2 * len(found), 4.2)
    for ax, (which, asked) in zip(axes[0], found.items(), strict=True):
        for name, values in asked.ranks.items():
            share = (np.arange(len(values)) + 0.5) / len(values)
            ax.plot(share, np.sort(values), "--" if name == "joint" else "-", lw=1, label=name)
        ax.plot([0, 1], [0, 1], color=GREY, lw=0.7)
        ax.set(xlabel="share of galaxies", ylabel="rank of the truth", title=which)
    axes[0, 0].legend(frameon=False, fontsize=7)
    return figure


def read_columns(test: Path) -> dict[str, np.ndarray]:
    table = open_table(test / "galaxies.parquet")
    pieces = list(table.pieces(dict.fromkeys(LOOKED_AT, "real"), 65_536, 0))
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in LOOKED_AT}


def _mosaic(ax: Axes, images: np.ndarray, rows: np.ndarray, title: str) -> None:
    """Some galaxies in colour, four in a row."""
    ax.set_axis_off()
    ax.set_title(title, fontsize=9)
    if not len(rows):
        return
    stamps = [colour_image(np.moveaxis(images[r], -1, 0), SDSS_SKY_NMGY["r"]) for r in rows]
    wide = min(4, len(stamps))
    stamps += [np.ones_like(stamps[0])] * (-len(stamps) % wide)
    lines = [np.concatenate(stamps[k : k + wide], axis=1) for k in range(0, len(stamps), wide)]
    ax.imshow(np.concatenate(lines[::-1], axis=0), origin="lower", interpolation="nearest")
