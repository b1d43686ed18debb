"""Where to sample dust across a band: Gauss nodes of the filter's own response."""

from __future__ import annotations

import numpy as np

from tinsley.observe.filters import Filter

_DARK = 1e-4
"""A filter is dark where its response is below this share of its peak."""
_GAP = 0.05
"""A dark stretch longer than this in ln(wavelength) splits a band into panels."""
_LEAK_NODES = 3


def band_nodes(band: Filter, number: int) -> list[np.ndarray]:
    """Wavelength nodes of each panel of a band, Angstrom.

    Args:
        band: The filter.
        number: Nodes of the main panel; a panel with less than 5 % of the photons (a leak) gets
            three.

    Returns:
        One increasing array per panel.

    Source:
        Golub & Welsch (1969); orthogonal polynomials of the discrete measure by the Stieltjes
        procedure (Gautschi 2004, section 2.2).
    """
    pieces = _panels(band)
    photons = [np.trapezoid(w * r, w) for w, r in pieces]
    total = sum(photons)
    return [
        _gauss_nodes(wave, wave * response, number if n > 0.05 * total else _LEAK_NODES)
        for (wave, response), n in zip(pieces, photons, strict=True)
    ]


def default_nodes(band: Filter) -> int:
    """How many nodes keep a band's error at a few mmag: more in the blue, and for wide bands.

    Chosen by the errors in benchmarks/results/photometry.json.
    """
    if band.wave_aa[-1] > 1.6 * band.wave_aa[0] or band.wave_effective_aa < 4200:
        return 8
    return 6 if band.wave_effective_aa < 5300 else 5


def lagrange(panels: list[np.ndarray], wave_aa: np.ndarray) -> np.ndarray:
    """Lagrange polynomials (in ln wavelength) of each panel's nodes, [wave, node].

    A wavelength counts in the panel nearest to it alone.
    """
    x = np.log(wave_aa)
    middles = [
        0.5 * (np.log(a[-1]) + np.log(b[0])) for a, b in zip(panels, panels[1:], strict=False)
    ]
    panel_of = np.searchsorted(middles, x)
    columns = []
    for i, nodes in enumerate(panels):
        at = np.log(nodes)
        for k in range(len(at)):
            others = np.delete(at, k)
            value = np.prod((x[:, None] - others) / (at[k] - others), axis=1)
            columns.append(np.where(panel_of == i, value, 0.0))
    return np.stack(columns, axis=1)


def _panels(band: Filter) -> list[tuple[np.ndarray, np.ndarray]]:
    """Stretches of a filter parted by long dark gaps, finely resampled."""
    bright = np.flatnonzero(band.response > _DARK * band.response.max())
    ln_wave = np.log(band.wave_aa[bright])
    breaks = np.flatnonzero(np.diff(ln_wave) > _GAP) + 1
    out = []
    for group in np.split(bright, breaks):
        first, last = max(group[0] - 1, 0), min(group[-1] + 1, len(band.wave_aa) - 1)
        wave = np.linspace(band.wave_aa[first], band.wave_aa[last], 2001)
        out.append((wave, np.interp(wave, band.wave_aa, band.response)))
    return out


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
