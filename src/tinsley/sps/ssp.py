"""Simple stellar populations: the light of stars of one age and one metallicity."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

Z_SUN = 0.019
"""Mass fraction of metals that `log10_z_zsun` counts from (PROVABGS, Hahn et al. 2023)."""


@dataclass(frozen=True)
class SspGrid:
    """Spectra of simple stellar populations on a grid of metallicity and age.

    Between nodes, luminosity and living fraction are linear in log age and in log metallicity;
    beyond the first or last node they take its value.

    Attributes:
        log10_z_zsun: Metallicity, log10(Z / 0.019), increasing, [met].
        log10_age_yr: Age, log10 years, increasing, [age].
        wave_rest_aa: Vacuum wavelength, Angstrom, increasing, [wave].
        lum_lsun_aa: Luminosity, Lsun/Angstrom per Msun formed, [met, age, wave].
        live_fraction: Surviving mass per mass formed, [met, age]. The library says what survives:
            in BC03 (embedded) living stars without remnants, in FSPS with them.
        name: Short name, e.g. "bc03-miles".
        lsun_erg_s: The solar luminosity that the luminosities count in, erg/s; each library has
            its own (BC03 3.826e33, FSPS 3.839e33, IAU 3.828e33).
        about: Where it comes from: source, imf, licence notes.
        has_lines: Whether emission lines are in the spectra, which jump where a filter does.
    """

    log10_z_zsun: np.ndarray
    log10_age_yr: np.ndarray
    wave_rest_aa: np.ndarray
    lum_lsun_aa: np.ndarray
    live_fraction: np.ndarray
    name: str
    lsun_erg_s: float = 3.828e33
    about: dict[str, str] = field(default_factory=dict)
    has_lines: bool = False

    def __post_init__(self) -> None:
        met, age, wave = (
            len(self.log10_z_zsun),
            len(self.log10_age_yr),
            len(self.wave_rest_aa),
        )
        if self.lum_lsun_aa.shape != (met, age, wave):
            raise ValueError(
                f"SSP luminosities need shape ({met}, {age}, {wave}) = (met, age, wave); "
                f"got {self.lum_lsun_aa.shape}. Check the order of the axes."
            )
        if self.live_fraction.shape != (met, age):
            raise ValueError(
                f"living fractions need shape ({met}, {age}) = (met, age); "
                f"got {self.live_fraction.shape}."
            )
        for label in ("log10_z_zsun", "log10_age_yr", "wave_rest_aa"):
            if not np.all(np.diff(getattr(self, label)) > 0):
                raise ValueError(f"{label} must increase from node to node; sort the grid first.")
        if not np.all(np.isfinite(self.lum_lsun_aa)) or np.any(self.lum_lsun_aa < 0):
            raise ValueError("SSP luminosities must be finite and not negative.")
        if not np.all(self.live_fraction >= 0):
            raise ValueError("living fractions must be numbers, 0 or more.")


def age_weights(grid: SspGrid, age_gyr: np.ndarray) -> np.ndarray:
    """Weight of each age node for the given ages: linear in log age, [..., age].

    Args:
        grid: The SSP grid.
        age_gyr: Ages, Gyr; below the first node (and at 0) the first node is used.

    Returns:
        Non-negative weights that sum to 1 over the last axis.
    """
    log10_age_yr = 9.0 + np.log10(np.maximum(age_gyr, 1e-9))
    return linear_weights(grid.log10_age_yr, log10_age_yr)


def linear_weights(nodes: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Weights of piecewise-linear interpolation, constant beyond the ends, [..., node]."""
    x = np.asarray(x, float)
    if len(nodes) == 1:
        return np.ones((*x.shape, 1))
    clipped = np.clip(x, nodes[0], nodes[-1])
    low = np.clip(np.searchsorted(nodes, clipped, side="right") - 1, 0, len(nodes) - 2)
    share = (clipped - nodes[low]) / (nodes[low + 1] - nodes[low])
    weights = np.zeros((*x.shape, len(nodes)))
    np.put_along_axis(weights, low[..., None], 1 - share[..., None], axis=-1)
    np.put_along_axis(weights, low[..., None] + 1, share[..., None], axis=-1)
    return weights
