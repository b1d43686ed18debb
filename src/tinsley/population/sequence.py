"""The star-forming sequence of a population: slope, height and scatter."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tinsley.population.summaries import Band, Columns, over_members, within

MASS, SFR = "log10_mstar_surviving_msun", "log10_sfr_100myr_msun_yr"
LEAST_LOG10_SSFR_YR = -11.0
"""Below this SFR over mass a galaxy counts as quiescent."""
PIVOT_LOG10_MSUN = 10.0
NEARBY = {"redshift": (0.0, 0.1), MASS: (8.5, 11.5)}
"""Where the sequence is usually looked at (PopSED, section 4)."""
FEWEST = 10


class Sequence(NamedTuple):
    """A straight star-forming sequence.

    Attributes:
        slope: d log10 SFR / d log10 M.
        log10_sfr_at_pivot: At 1e10 Msun, Msun/yr.
        scatter_dex: Standard deviation about the line.
        star_forming_share: Of the galaxies, how many count.
    """

    slope: Band
    log10_sfr_at_pivot: Band
    scatter_dex: Band
    star_forming_share: Band

    def at(self, log10_mstar_msun: np.ndarray) -> Band:
        """log10 SFR of each member's line, [member, n]."""
        offset = np.asarray(log10_mstar_msun) - PIVOT_LOG10_MSUN
        line = self.log10_sfr_at_pivot.each[:, None] + self.slope.each[:, None] * offset
        return Band(line)


def star_forming_sequence(
    columns: Columns,
    ranges: dict[str, tuple[float, float]] | None = None,
    *,
    least_log10_ssfr_yr: float = LEAST_LOG10_SSFR_YR,
    weight: str | None = None,
) -> Sequence:
    """The line of least squares through the galaxies that form stars, in each member.

    The mass is that of living stars and remnants, the SFR the mean of 100 Myr. The cut takes the
    lower wing of a broad sequence away: one 0.3 dex wide at an SFR over mass of 1e-10/yr loses
    0.04 %, one at 1e-10.5/yr 5 %.

    Args:
        columns: Of a population.
        ranges: The slice; `NEARBY` if not given.
        least_log10_ssfr_yr: Galaxies below it are quiescent; per surviving mass.
        weight: Column of weights.

    Raises:
        InputError: No galaxy is in the slice, or a column is missing.
    """

    def one(member: dict[str, np.ndarray], w: np.ndarray) -> np.ndarray:
        forming = member[SFR] - member[MASS] > least_log10_ssfr_yr
        share = np.sum(w[forming]) / max(np.sum(w), np.finfo(float).tiny)
        line = _line(member[MASS][forming].astype(float), member[SFR][forming], w[forming])
        return np.array([*line, share])

    each = over_members(within(columns, ranges or NEARBY), one, weight).each
    return Sequence(*(Band(column) for column in each.T))


def _line(x: np.ndarray, y: np.ndarray, w: np.ndarray) -> tuple[float, float, float]:
    """Slope, value at the pivot and scatter; NaN where there are too few galaxies."""
    if np.sum(w > 0) < FEWEST:
        return np.nan, np.nan, np.nan
    share = w / np.sum(w)
    x_mean, y_mean = share @ x, share @ y
    slope = share @ ((x - x_mean) * (y - y_mean)) / (share @ (x - x_mean) ** 2)
    residual = y - y_mean - slope * (x - x_mean)
    height = y_mean + slope * (PIVOT_LOG10_MSUN - x_mean)
    return float(slope), float(height), float(np.sqrt(share @ residual**2))
