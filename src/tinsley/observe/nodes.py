"""Where to sample dust across a band: Gauss nodes of the filter's own response."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinsley.observe.filters import Filter

_CORE = 0.01
"""A filter's core is where its response exceeds this share of its peak."""
_REACH = 0.05
"""In ln(wavelength): a core's polynomials reach this far beyond it, and bridge gaps so long."""
_BLUE_WING_PHOTONS, _RED_WING_PHOTONS = 1e-4, 1e-7
"""A wing with less than this share of the photons (of a flat spectrum) gets no nodes of its own: a
red one matters more, for dust dims the core more than it."""
_WING_NODES = 4


@dataclass(frozen=True)
class Panel:
    """A stretch of a band in which transmission is taken for a polynomial in ln(wavelength).

    Attributes:
        low_aa: Where it begins, Angstrom.
        high_aa: Where it ends.
        nodes_aa: Gauss nodes inside, increasing.
    """

    low_aa: float
    high_aa: float
    nodes_aa: np.ndarray


def band_panels(band: Filter, number: int | None = None) -> list[Panel]:
    """Panels of a band, by wavelength: its core, and the wings beyond it that count.

    Wings (the red leak of SDSS u, the tails that LSST's curves have to 11,000 A) hold few photons,
    but behind much dust they shine while the core is dark.

    Args:
        band: The filter.
        number: Nodes of a core; by default `default_nodes`. A wing gets four.

    Source:
        Golub & Welsch (1969); orthogonal polynomials of the discrete measure by the Stieltjes
        procedure (Gautschi 2004, section 2.2).
    """
    total = np.trapezoid(band.wave_aa * band.response, band.wave_aa)
    panels: list[Panel] = []
    for low, high, is_core in _stretches(band):
        wave = np.linspace(low, high, 4001)
        photons = wave * np.interp(wave, band.wave_aa, band.response)
        least = _RED_WING_PHOTONS if panels else _BLUE_WING_PHOTONS
        if is_core or np.trapezoid(photons, wave) > least * total:
            count = (number or default_nodes(low, high)) if is_core else _WING_NODES
            nodes = _gauss_nodes(wave, photons, count)
            panels.append(Panel(low, high, nodes))
    return panels


def default_nodes(low_aa: float, high_aa: float) -> int:
    """How many nodes keep the error of a core at a few mmag; chosen by measurement.

    The errors of the SDSS bands are in benchmarks/results/photometry.json.
    """
    width = np.log(high_aa / low_aa)
    return 5 if width < 0.4 else 6 if width < 0.5 else 8


def lagrange(panels: list[Panel], wave_aa: np.ndarray) -> np.ndarray:
    """Lagrange polynomials (in ln wavelength) of each panel's nodes, [wave, node].

    A wavelength counts in one panel: its own, or else the nearest, as at that panel's end.
    """
    ends = np.array([[panel.low_aa, panel.high_aa] for panel in panels])
    outside = np.maximum(ends[:, :1] - wave_aa, wave_aa - ends[:, 1:])
    panel_of = np.argmin(np.maximum(outside, 0.0), axis=0)
    out, first = np.zeros((len(wave_aa), sum(len(p.nodes_aa) for p in panels))), 0
    for i, panel in enumerate(panels):
        mine = np.flatnonzero(panel_of == i)
        x, at = np.log(np.clip(wave_aa[mine], *ends[i])), np.log(panel.nodes_aa)
        for k in range(len(at)):
            others = np.delete(at, k)
            out[mine, first + k] = np.prod((x[:, None] - others) / (at[k] - others), axis=1)
        first += len(at)
    return out


def _stretches(band: Filter) -> list[tuple[float, float, bool]]:
    """The whole band in pieces (low, high, is a core), Angstrom: cores widened, wings between."""
    out, reached = [], float(band.wave_aa[0])
    cores, end = _cores(band), float(band.wave_aa[-1])
    for i, (low, high) in enumerate(cores):
        before = np.sqrt(cores[i - 1][1] * low) if i else 0.0
        after = np.sqrt(high * cores[i + 1][0]) if i + 1 < len(cores) else np.inf
        low = float(max(reached, before, low * np.exp(-_REACH)))
        high = float(min(end, after, high * np.exp(_REACH)))
        out += [(reached, low, False)] * (low > reached) + [(low, high, True)]
        reached = high
    return out + [(reached, end, False)] * (end > reached)


def _cores(band: Filter) -> list[tuple[float, float]]:
    """Ends of the stretches where the response is high; stretches close together are one."""
    bright = np.flatnonzero(band.response > _CORE * band.response.max())
    breaks = np.flatnonzero(np.diff(np.log(band.wave_aa[bright])) > _REACH) + 1
    groups = [band.wave_aa[group] for group in np.split(bright, breaks)]
    return [(float(wave[0]), float(wave[-1])) for wave in groups]


def _gauss_nodes(wave_aa: np.ndarray, weight: np.ndarray, number: int) -> np.ndarray:
    """Nodes of the Gauss rule of a discrete measure, in ln wavelength."""
    x = np.log(wave_aa)
    middle, half = 0.5 * (x[-1] + x[0]), 0.5 * (x[-1] - x[0])
    x = (x - middle) / half
    previous, current = np.zeros_like(x), np.ones_like(x)
    diagonal, off = [], []
    norm_before = 1.0
    for k in range(number):
        norm = np.sum(weight * current**2)
        diagonal.append(np.sum(weight * x * current**2) / norm)
        off.append(norm / norm_before if k else 0.0)
        previous, current = current, (x - diagonal[-1]) * current - off[-1] * previous
        norm_before = norm
    jacobi = np.diag(diagonal) + np.diag(np.sqrt(off[1:]), 1) + np.diag(np.sqrt(off[1:]), -1)
    return np.exp(middle + half * np.linalg.eigvalsh(jacobi))
