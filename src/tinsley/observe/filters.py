"""Filters: what share of the photons of each wavelength a band records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

C_AA_S = 2.99792458e18
"""Speed of light, Angstrom/s."""
AB_ZERO_ERG_S_CM2_HZ = 3.631e-20
"""Flux density of AB magnitude 0 (3631 Jy; Oke & Gunn 1983)."""
_LINE_ERROR, _FINEST_STEP = 0.15, 0.0005


@dataclass(frozen=True)
class Filter:
    """A photon-counting filter curve.

    Attributes:
        name: e.g. "sdss2010-u".
        wave_aa: Observed vacuum wavelength, Angstrom, increasing, [wave].
        response: Probability that a photon is recorded, up to a constant, [wave].
    """

    name: str
    wave_aa: np.ndarray
    response: np.ndarray

    def __post_init__(self) -> None:
        if self.wave_aa.ndim != 1 or self.wave_aa.shape != self.response.shape:
            raise ValueError(
                f"filter {self.name}: expected one response per wavelength; got shapes "
                f"{self.wave_aa.shape} and {self.response.shape}."
            )
        if len(self.wave_aa) < 3 or np.any(np.diff(self.wave_aa) <= 0):
            raise ValueError(f"filter {self.name}: wavelengths must increase; sort the table.")
        if np.any(self.response < 0) or not np.any(self.response > 0):
            raise ValueError(f"filter {self.name}: responses must be >= 0 and not all 0.")

    @property
    def wave_effective_aa(self) -> float:
        """Photon-weighted mean wavelength, Angstrom."""
        weight = self.wave_aa * self.response
        return float(
            np.trapezoid(weight * self.wave_aa, self.wave_aa) / np.trapezoid(weight, self.wave_aa)
        )


def line_step(filters: Sequence[Filter], step: float) -> float:
    """Spacing in ln(1 + z) at which the flux of emission lines may be linear between nodes.

    A line's flux goes with redshift as the filter's curve does with wavelength. The spacing is
    halved until no curve, taken as linear between nodes, is off by more than 15 % of its peak:
    only where filters begin and end sharply, or have the atmosphere's bands in them, is that less
    than continua need.

    Args:
        filters: The bands.
        step: The spacing that continua need.
    """
    while step > _FINEST_STEP and max(_misread(band, step) for band in filters) > _LINE_ERROR:
        step /= 2
    return step


def _misread(band: Filter, step: float) -> float:
    """Largest error of a curve that is linear in ln(wavelength) between nodes, of its peak."""
    parts = 16
    first, last = np.log(band.wave_aa[[0, -1]])
    fine = np.arange(first - step, last + 2 * step, step / parts)
    curve = np.interp(np.exp(fine), band.wave_aa, band.response, left=0, right=0)
    at = [np.interp(fine, fine[i::parts], curve[i::parts]) - curve for i in range(0, parts, 4)]
    return float(np.max(np.abs(at)) / np.max(curve))
