"""Star-formation history: NMF bases on PROVABGS's time bins, plus one burst.

Time is lookback time from the epoch of observation, whatever the redshift: the bases are cut at
the galaxy's age, never shifted.
"""

from __future__ import annotations

import numpy as np

from tinsley.sps.bases import SfhBases

EDGES_GYR = np.concatenate([[0.0], 10 ** (6.05 + 0.1 * np.arange(41) - 9), [13.8]])
"""Lookback-time edges before the cut at the galaxy's age (PROVABGS), [43]."""
N_BINS = len(EDGES_GYR) - 1


def bin_edges_gyr(age_gyr: float) -> np.ndarray:
    """Lookback-time edges of a galaxy of this age, Gyr, [43]: bins beyond the age have no width."""
    return np.minimum(EDGES_GYR, age_gyr)


def bin_centres_gyr(age_gyr: float) -> np.ndarray:
    """Middle of each bin, Gyr, [42]: the age at which its SSP is evaluated."""
    edges = bin_edges_gyr(age_gyr)
    return 0.5 * (edges[1:] + edges[:-1])


def mass_before_gyr(bases: SfhBases, lookback_gyr: np.ndarray) -> np.ndarray:
    """Mass that each basis forms between now and `lookback_gyr`, [basis, ...].

    The exact integral of the piecewise-linear bases, which go on linearly beyond both ends of
    their table (this sets the SFR of the last 0.1 Gyr when the table starts at 0.067 Gyr).
    """
    time, sfr = _extended(bases)
    steps = 0.5 * (sfr[:, 1:] + sfr[:, :-1]) * np.diff(time)
    total = np.concatenate([np.zeros((len(sfr), 1)), np.cumsum(steps, axis=1)], axis=1)
    at = np.asarray(lookback_gyr, float)
    low = np.clip(np.searchsorted(time, at, side="right") - 1, 0, len(time) - 2)
    since = at - time[low]
    slope = (sfr[:, low + 1] - sfr[:, low]) / (time[low + 1] - time[low])
    return total[:, low] + since * (sfr[:, low] + 0.5 * slope * since)


def basis_mass(bases: SfhBases, age_gyr: float) -> np.ndarray:
    """Mass that each basis forms in each bin, [basis, 42]; nothing beyond the galaxy's age.

    Source:
        PROVABGS (Hahn et al. 2023), `reference` notes in docs/forward_model.md; checked against
        the SFHs of provabgs itself (tests/test_provabgs.py).
    """
    return np.diff(mass_before_gyr(bases, bin_edges_gyr(age_gyr)), axis=1)


def n_young_bins(t_birth_cloud_gyr: float) -> int:
    """How many bins end at or before the age at which stars leave their birth clouds."""
    return int(np.sum(EDGES_GYR[1:] <= t_birth_cloud_gyr * (1 + 1e-4)))


def _extended(bases: SfhBases) -> tuple[np.ndarray, np.ndarray]:
    """The bases with their end segments drawn out to 0 and past 13.8 Gyr."""
    time, sfr = bases.lookback_gyr, bases.sfr
    first = sfr[:, :1] - time[0] * (sfr[:, 1:2] - sfr[:, :1]) / (time[1] - time[0])
    beyond = EDGES_GYR[-1] + 1.0
    slope = (sfr[:, -1:] - sfr[:, -2:-1]) / (time[-1] - time[-2])
    last = sfr[:, -1:] + slope * (beyond - time[-1])
    if time[0] > 0:
        time, sfr = np.concatenate([[0.0], time]), np.concatenate([first, sfr], axis=1)
    return np.concatenate([time, [beyond]]), np.concatenate([sfr, last], axis=1)
