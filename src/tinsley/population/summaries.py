"""What one does with a fitted population. Start here.

A population is the columns of `population.parquet` (`tinsley.io.populations.load_population`):
draws of galaxies by name, `member` the population that each comes from, `selected_weight` that
makes them the galaxies as observed. Every summary is a function of columns that is worked out for
each member alone; the members' spread, a `Band`, is its uncertainty. Without a weight a summary is
of all galaxies, selection undone; with `weight="selected_weight"` of those observed; any other
column of weights will do.

    relations in it     `within`, `density`, `running_quantiles` here; `sequence`, `relations`
    per volume          `volume`: mass function, cosmic star-formation history
    n(z)                `tomography`
    other surveys       `forecast`: synthetic catalogues; `targets`: colour cuts
    two populations     `compare`
    single galaxies     `reweight`: the population as their prior; `outliers`

A band says how much the members disagree, not how far all of them are from the truth: where the
data are silent they follow their references (docs/population.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student_t

from tinsley.errors import InputError

Columns = Mapping[str, np.ndarray]
MEMBER, SELECTED = "member", "selected_weight"
LEVELS = {"q05": 0.05, "q16": 0.16, "q50": 0.5, "q84": 0.84, "q95": 0.95}
"""Quantiles of a band that are written, by suffix of the column."""


@dataclass(frozen=True)
class Band:
    """A summary with its uncertainty: its value for each member.

    Attributes:
        each: [member, ...]; NaN where a member says nothing, as of an empty bin.
    """

    each: np.ndarray

    def quantile(self, level: float) -> np.ndarray:
        """Quantile of one more population like the members; NaN where none says anything.

        The k-th of n members is the quantile k / (n + 1), since one more is as likely to fall into
        any of the gaps. Levels beyond the first or the last member follow Student's t, mean +
        t s sqrt(1 + 1/n), exact where the members are normal. One member alone has a median only.
        """
        there = np.isfinite(self.each)
        number = there.sum(axis=0)
        ranked = np.sort(np.where(there, self.each, np.inf), axis=0)
        at = level * (number + 1.0) - 1.0
        low = np.clip(np.floor(at), 0, np.maximum(number - 1, 0)).astype(int)
        high = np.minimum(low + 1, np.maximum(number - 1, 0))
        below, above = (np.take_along_axis(ranked, i[None], axis=0)[0] for i in (low, high))
        with np.errstate(invalid="ignore"):
            share = np.clip(at - low, 0.0, 1.0)
            inside = below + np.where(high > low, share * (above - below), 0.0)
            beyond = self._student(level, there, number)
        if level < 0.5:
            inside = np.where(at < 0, np.fmin(inside, beyond), inside)
        elif level > 0.5:
            inside = np.where(at > number - 1, np.fmax(inside, beyond), inside)
        return np.where((number > 1) | ((number == 1) & (level == 0.5)), inside, np.nan)

    def _student(self, level: float, there: np.ndarray, number: np.ndarray) -> np.ndarray:
        """Quantile of one more normal member, of which `number` are known."""
        known = np.maximum(number, 2)
        mean = np.sum(self.each, axis=0, where=there) / np.maximum(number, 1)
        squares = np.sum((self.each - mean) ** 2, axis=0, where=there)
        spread = np.sqrt(squares / (known - 1) * (1 + 1 / known))
        return mean + spread * student_t.ppf(level, known - 1)

    @property
    def median(self) -> np.ndarray:
        """Median of the members."""
        return self.quantile(0.5)

    @property
    def inner(self) -> np.ndarray:
        """16 and 84 % of one more member, [2, ...]."""
        return np.stack([self.quantile(0.16), self.quantile(0.84)])

    @property
    def outer(self) -> np.ndarray:
        """5 and 95 % of one more member, [2, ...]: the 90 % band."""
        return np.stack([self.quantile(0.05), self.quantile(0.95)])

    def to_columns(self, name: str) -> dict[str, np.ndarray]:
        """`name_q05` to `name_q95`, for a table."""
        return {f"{name}_{suffix}": self.quantile(level) for suffix, level in LEVELS.items()}


def over_members(
    columns: Columns,
    summary: Callable[[dict[str, np.ndarray], np.ndarray], np.ndarray],
    weight: str | None = None,
) -> Band:
    """A summary of each member.

    Args:
        columns: Of a population.
        summary: From one member's columns and their weights, [n], to numbers of a fixed shape.
        weight: Column of weights; None for all alike.

    Raises:
        InputError: A column is missing, or a weight is negative or not finite.
    """
    require_columns(columns, [MEMBER] if weight is None else [MEMBER, weight])
    weights = np.ones(len(columns[MEMBER])) if weight is None else columns[weight].astype(float)
    if not (np.isfinite(weights).all() and (weights >= 0).all()):
        raise InputError(f"column {weight!r} has weights that are negative or not finite.")
    each = []
    for member in np.unique(columns[MEMBER]):
        rows = columns[MEMBER] == member
        one = {name: values[rows] for name, values in columns.items()}
        each.append(np.asarray(summary(one, weights[rows]), float))
    return Band(np.stack(each))


def require_columns(columns: Columns, names: list[str]) -> None:
    """Refuse columns of which some are missing, or that hold no galaxy.

    Raises:
        InputError: So it is.
    """
    missing = [name for name in names if name not in columns]
    if missing:
        raise InputError(
            f"the population lacks column {', '.join(missing)}; it has {', '.join(columns)}."
        )
    if not len(columns[names[0]]):
        raise InputError("the population holds no galaxy; expected at least one draw.")


def in_ranges(columns: Columns, ranges: Mapping[str, tuple[float, float]]) -> np.ndarray:
    """True for the galaxies whose properties are all in ranges, lower ends included, [n].

    Args:
        columns: Of a population.
        ranges: Least and greatest value by property; infinite for no limit.

    Raises:
        InputError: A column is missing.
    """
    require_columns(columns, list(ranges))
    kept = np.ones(len(next(iter(columns.values()))), bool)
    for name, (low, high) in ranges.items():
        kept &= (columns[name] >= low) & (columns[name] < high)
    return kept


def within(columns: Columns, ranges: Mapping[str, tuple[float, float]]) -> dict[str, np.ndarray]:
    """A slice: the galaxies that are `in_ranges`.

    Args:
        columns: Of a population.
        ranges: As for `in_ranges`.

    Raises:
        InputError: A column is missing; no galaxy is left.
    """
    kept = in_ranges(columns, ranges)
    if not kept.any():
        asked = ", ".join(f"{low:g} <= {name} < {high:g}" for name, (low, high) in ranges.items())
        raise InputError(f"no galaxy of the population has {asked}; widen the slice.")
    return {name: values[kept] for name, values in columns.items()}


def weighted_quantile(values: np.ndarray, levels: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Quantiles of weighted values, [level]; NaN without any weight.

    A value's level is the share of weight below it and half of its own; between them it is linear.
    """
    used = weight > 0
    if not used.any():
        return np.full(len(levels), np.nan)
    order = np.argsort(values[used])
    ranked, w = values[used][order], weight[used][order]
    return np.interp(levels, (np.cumsum(w) - 0.5 * w) / np.sum(w), ranked)


def density(columns: Columns, name: str, edges: np.ndarray, weight: str | None = None) -> Band:
    """Distribution of a property, of integral 1 over all its values, [member, bin].

    With `within` before it, a conditional distribution: of what is in the slice.
    """
    require_columns(columns, [name])

    def one(member: dict[str, np.ndarray], w: np.ndarray) -> np.ndarray:
        count, _ = np.histogram(member[name], edges, weights=w)
        total = np.sum(w)
        return count / np.diff(edges) / (total if total > 0 else np.nan)

    return over_members(columns, one, weight)


def running_quantiles(
    columns: Columns,
    names: tuple[str, str],
    edges: np.ndarray,
    levels: tuple[float, ...] = (0.16, 0.5, 0.84),
    weight: str | None = None,
) -> Band:
    """Quantiles of one property in bins of another, [member, level, bin].

    Args:
        columns: Of a population.
        names: The property that is binned, and the one whose quantiles are wanted.
        edges: Of the bins, increasing.
        levels: Of the quantiles.
        weight: Column of weights.
    """
    require_columns(columns, list(names))

    def one(member: dict[str, np.ndarray], w: np.ndarray) -> np.ndarray:
        at = np.digitize(member[names[0]], edges) - 1
        bins = [
            weighted_quantile(member[names[1]][at == i], np.asarray(levels), w[at == i])
            for i in range(len(edges) - 1)
        ]
        return np.stack(bins, axis=1)

    return over_members(columns, one, weight)
