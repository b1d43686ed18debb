"""Bases of a history: curves over lookback time whose non-negative sums are the history."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class SfhBases:
    """Curves over lookback time, linear between nodes, youngest first.

    Star-formation rates; the papers' metallicity bases come in the same form, with metallicity per
    unit coefficient in place of `sfr`. Beyond the first and last node the nearest two go on.

    Attributes:
        lookback_gyr: Lookback time from the observation, Gyr, increasing, [time].
        sfr: Star-formation rate, arbitrary units, not negative, [basis, time].
    """

    lookback_gyr: np.ndarray
    sfr: np.ndarray

    def __post_init__(self) -> None:
        _check_time(self.lookback_gyr)
        if self.sfr.ndim != 2 or self.sfr.shape[1] != len(self.lookback_gyr):
            raise ValueError(
                f"bases need shape (basis, {len(self.lookback_gyr)}), one value per lookback "
                f"time; got {self.sfr.shape}. Check the order of the axes."
            )
        if not np.all(np.isfinite(self.sfr)) or np.any(self.sfr < 0):
            raise ValueError("bases must be finite and not negative; got other values.")
        if np.any(self.sfr.max(axis=1) <= 0):
            raise ValueError("each basis must exceed 0 somewhere; got an empty one: remove it.")

    def to_dict(self) -> dict[str, list]:
        """Plain lists, for files; `sfh_bases_from_dict` is the way back."""
        return {"lookback_gyr": self.lookback_gyr.tolist(), "sfr": self.sfr.tolist()}


def sfh_bases_from_dict(plain: dict[str, list]) -> SfhBases:
    """The bases that `SfhBases.to_dict` described."""
    return SfhBases(np.asarray(plain["lookback_gyr"]), np.asarray(plain["sfr"]))


def _check_time(lookback_gyr: np.ndarray) -> None:
    if lookback_gyr.ndim != 1 or len(lookback_gyr) < 2:
        raise ValueError(
            f"bases need 2 or more lookback times in one row; got shape {lookback_gyr.shape}."
        )
    if not np.all(np.diff(lookback_gyr) > 0) or not np.all(np.isfinite(lookback_gyr)):
        raise ValueError(
            "lookback times must be finite and increase; got others: sort them, youngest first."
        )
    if lookback_gyr[0] < 0:
        raise ValueError(f"lookback times must be 0 Gyr or more; got {lookback_gyr[0]}.")
