"""Filters: what share of the photons of each wavelength a band records."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

C_AA_S = 2.99792458e18
"""Speed of light, Angstrom/s."""
AB_ZERO_ERG_S_CM2_HZ = 3.631e-20
"""Flux density of AB magnitude 0 (3631 Jy; Oke & Gunn 1983)."""


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
