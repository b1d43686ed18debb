"""Two populations compared: of two catalogues, or of one that was selected in two ways."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tinsley.population.summaries import MEMBER, Band, Columns, over_members, require_columns


class Comparison(NamedTuple):
    """One property of two populations, every member of the one with every member of the other.

    Attributes:
        difference: Mean of the second less that of the first, [pair].
        distance: Wasserstein-1, in units of the property, [pair].
        own_distance: The same between members of one population: what the members' disagreement
            alone makes; NaN where neither has two, [pair].
        second_higher: Share of the pairs in which the second has the higher mean.
    """

    difference: Band
    distance: Band
    own_distance: Band
    second_higher: float


def compare_populations(
    first: Columns,
    second: Columns,
    names: list[str],
    weights: tuple[str | None, str | None] = (None, None),
) -> dict[str, Comparison]:
    """Compare properties, each by its mean and by its whole distribution.

    Without weights selection is undone in both, so that two catalogues with different cuts should
    agree where both see; compare there, with `tinsley.population.summaries.within`. With weights it
    says what the cuts do.

    Args:
        first: Columns of a population.
        second: Of another; the same columns with another weight will do, but its members are then
            compared across as if they were not the same.
        names: Properties.
        weights: Column of weights in each.

    Raises:
        InputError: A column is missing.
    """
    require_columns(first, names)
    require_columns(second, names)
    return {name: _compare(first, second, name, weights) for name in names}


def comparison_columns(found: dict[str, Comparison]) -> dict[str, np.ndarray]:
    """Comparisons as a table, a row for each property.

    Args:
        found: Of `compare_populations`.

    Returns:
        `property`; medians over the pairs of `difference`, `distance` and `own_distance`, the first
        with its `difference_q16` and `difference_q84`; `second_higher`.
    """
    pairs = found.values()
    return {
        "property": np.array(list(found)),
        "difference": np.array([float(pair.difference.median) for pair in pairs]),
        "difference_q16": np.array([float(pair.difference.inner[0]) for pair in pairs]),
        "difference_q84": np.array([float(pair.difference.inner[1]) for pair in pairs]),
        "distance": np.array([float(pair.distance.median) for pair in pairs]),
        "own_distance": np.array([float(pair.own_distance.median) for pair in pairs]),
        "second_higher": np.array([pair.second_higher for pair in pairs]),
    }


def _compare(
    first: Columns, second: Columns, name: str, weights: tuple[str | None, str | None]
) -> Comparison:
    def mean(member: dict[str, np.ndarray], w: np.ndarray) -> np.ndarray:
        return np.average(member[name], weights=w)

    means = [over_members(c, mean, w).each for c, w in zip((first, second), weights, strict=True)]
    difference = (means[1][:, None] - means[0]).ravel()
    one, other = (_samples(c, name, w) for c, w in zip((first, second), weights, strict=True))
    across = [_wasserstein(a, b) for b in other for a in one]
    own = [_wasserstein(a, b) for s in (one, other) for i, a in enumerate(s) for b in s[i + 1 :]]
    return Comparison(
        Band(difference),
        Band(np.array(across)),
        Band(np.array(own or [np.nan])),
        float(np.mean(difference > 0)),
    )


def _samples(
    columns: Columns, name: str, weight: str | None
) -> list[tuple[np.ndarray, np.ndarray | None]]:
    rows = [columns[MEMBER] == member for member in np.unique(columns[MEMBER])]
    return [(columns[name][r], None if weight is None else columns[weight][r]) for r in rows]


def _wasserstein(
    first: tuple[np.ndarray, np.ndarray | None], second: tuple[np.ndarray, np.ndarray | None]
) -> float:
    from scipy.stats import wasserstein_distance

    return float(wasserstein_distance(first[0], second[0], first[1], second[1]))
