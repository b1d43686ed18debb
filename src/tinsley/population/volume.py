"""A population per comoving volume: mass function and cosmic star-formation history.

A survey that saw N galaxies, a share alpha of those that are there, had N / alpha before it. alpha
follows from `selected_weight`, the probability of passing over its mean: the brightest galaxies
pass for certain, or with a share that `Footprint` knows, so their weight is 1 / alpha.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tinsley.cosmology import default_cosmology
from tinsley.errors import InputError
from tinsley.population.sequence import MASS, SFR
from tinsley.population.summaries import (
    SELECTED,
    Band,
    Columns,
    over_members,
    require_columns,
)

if TYPE_CHECKING:
    from astropy.cosmology import FLRW

SKY_DEG2 = 4 * np.pi * (180 / np.pi) ** 2
REDSHIFT = "redshift"

_Sums = Callable[[dict[str, np.ndarray]], np.ndarray]


@dataclass(frozen=True)
class Footprint:
    """What a survey covered.

    Attributes:
        area_deg2: Solid angle.
        n_observed: Galaxies that the population was fitted to, all of their redshifts together.
        completeness: Share of the brightest galaxies that the catalogue holds.
    """

    area_deg2: float
    n_observed: int
    completeness: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.completeness <= 1:
            raise InputError(f"expected a completeness of 0 to 1; got {self.completeness}.")
        if not 0 < self.area_deg2 <= SKY_DEG2 or self.n_observed < 1:
            raise InputError(
                f"expected an area of 0 to {SKY_DEG2:.0f} square degrees and at least one galaxy; "
                f"got {self.area_deg2} and {self.n_observed}."
            )


def comoving_volume_mpc3(
    area_deg2: float, redshift_edges: np.ndarray, cosmology: FLRW | None = None
) -> np.ndarray:
    """Comoving volume between neighbouring redshifts, Mpc^3, [bin]."""
    within_mpc3 = (cosmology or default_cosmology()).comoving_volume(redshift_edges)
    return area_deg2 / SKY_DEG2 * np.diff(within_mpc3.to_value("Mpc3"))


def selected_fraction(columns: Columns) -> Band:
    """Share of a population's galaxies that a survey complete at the bright end has seen, [member].

    One over the greatest `selected_weight`; too large when no draw of a member is bright enough to
    pass for certain. Galaxies that pass with less than 1 % are counted as `draw_galaxies` has them.
    """
    return over_members(columns, lambda one, _: 1.0 / np.max(one[SELECTED]), SELECTED)


def seen_share(columns: Columns, name: str, edges: np.ndarray) -> Band:
    """Share of the galaxies in bins of a property that the survey has seen, [member, bin].

    Where it nears 1 %, the least that is told apart, numbers are lower limits.
    """
    require_columns(columns, [name])

    def one(member: dict[str, np.ndarray], passing: np.ndarray) -> np.ndarray:
        count, _ = np.histogram(member[name], edges)
        total, _ = np.histogram(member[name], edges, weights=passing / np.max(passing))
        return total / np.where(count > 0, count, np.nan)

    return over_members(columns, one, SELECTED)


def mass_function(
    columns: Columns,
    edges: np.ndarray,
    footprint: Footprint,
    redshift_range: tuple[float, float],
    cosmology: FLRW | None = None,
    *,
    name: str = MASS,
) -> Band:
    """Galaxies per comoving Mpc^3 and dex of mass, selection undone, [member, bin].

    The band does not hold the noise of `footprint.n_observed` nor cosmic variance.

    Args:
        columns: Of a population with `selected_weight`.
        edges: log10 of mass, Msun, increasing.
        footprint: Area, and the number of galaxies that the population was fitted to.
        redshift_range: Inside the range that the population was fitted over.
        cosmology: astropy's; `default_cosmology` if not given.
        name: The mass, or any other property: then per unit of it.

    Source:
        phi = N / alpha / V / d log10 M times the share of all galaxies in the bin. Checked on
        draws from a Schechter function behind a known selection (tests/test_volume.py).
    """
    volume = float(
        comoving_volume_mpc3(footprint.area_deg2, np.array(redshift_range), cosmology)[0]
    )

    def one(member: dict[str, np.ndarray]) -> np.ndarray:
        low, high = redshift_range
        inside = (member[REDSHIFT] >= low) & (member[REDSHIFT] < high)
        return np.histogram(member[name][inside], edges)[0] / np.diff(edges) / volume

    return _per_galaxy(columns, one, footprint, [REDSHIFT, name])


def cosmic_sfr_density(
    columns: Columns,
    redshift_edges: np.ndarray,
    footprint: Footprint,
    cosmology: FLRW | None = None,
    *,
    least_log10_mass_msun: float = -np.inf,
) -> Band:
    """Star-formation rate per comoving volume, Msun/yr/Mpc^3, [member, redshift bin].

    The sum of the galaxies' own SFRs (100 Myr) where they are seen, selection undone; not the
    history that their stellar populations remember, which would go on to higher redshifts, but
    which five broad bands hardly constrain beyond the last Gyr or so. A lower limit where the
    survey sees too few of the faint galaxies: see `seen_share`.

    Args:
        columns: Of a population with `selected_weight`.
        redshift_edges: Increasing, inside the range that the population was fitted over.
        footprint: Area, and the number of galaxies that the population was fitted to.
        cosmology: astropy's; `default_cosmology` if not given.
        least_log10_mass_msun: Only galaxies of at least this surviving mass.
    """
    volume = comoving_volume_mpc3(footprint.area_deg2, redshift_edges, cosmology)

    def one(member: dict[str, np.ndarray]) -> np.ndarray:
        sfr = np.where(member[MASS] >= least_log10_mass_msun, 10.0 ** member[SFR], 0.0)
        return np.histogram(member[REDSHIFT], redshift_edges, weights=sfr)[0] / volume

    return _per_galaxy(columns, one, footprint, [REDSHIFT, SFR, MASS])


def _per_galaxy(columns: Columns, sums: _Sums, footprint: Footprint, names: list[str]) -> Band:
    """Sums over draws, times the number of real galaxies that a draw stands for."""
    require_columns(columns, [SELECTED, *names])

    def one(member: dict[str, np.ndarray], weight: np.ndarray) -> np.ndarray:
        there = footprint.n_observed / footprint.completeness
        galaxies = there * np.max(weight) / np.mean(weight)
        return sums(member) * galaxies / len(weight)

    return over_members(columns, one, SELECTED)
