"""Target selection: a region of the population mapped to colours, and a cut that finds it.

Say which draws are wanted (`in_ranges` of redshift, star formation, any column), make the
catalogue that a survey would have of all of them (`tinsley.population.forecast`), and fit the cut:
the direction in colour space that separates wanted from other galaxies best (Fisher's), and along
it the limit that keeps most of the wanted at the purity asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tinsley.errors import InputError
from tinsley.population.forecast import ab_magnitude
from tinsley.population.summaries import Band, Columns, over_members, require_columns

WANTED, PASSES = "wanted", "passes"
FEWEST = 20


@dataclass(frozen=True)
class ColourCut:
    """A cut in colours: galaxies above the limit along a direction.

    Attributes:
        pairs: Bands of each colour, the bluer first: magnitudes of the one less the other.
        direction: Of length 1, [colour].
        limit_mag: Least colour along it.
    """

    pairs: tuple[tuple[str, str], ...]
    direction: np.ndarray
    limit_mag: float

    def passes(self, catalog: Columns) -> np.ndarray:
        """True where a galaxy of a catalogue is selected; one without a colour is not, [n]."""
        along = colours(catalog, self.pairs) @ self.direction
        return np.where(np.isfinite(along), along, -np.inf) > self.limit_mag

    def __str__(self) -> str:
        """The cut in words, as "0.80 (g - r) - 0.60 (r - i) > 0.35"."""
        terms = [
            f"{weight:+.2f} ({blue} - {red})"
            for weight, (blue, red) in zip(self.direction, self.pairs, strict=True)
        ]
        return " ".join(terms).removeprefix("+") + f" > {self.limit_mag:.2f}"


def colours(catalog: Columns, pairs: tuple[tuple[str, str], ...]) -> np.ndarray:
    """Colours of a catalogue with columns `flux_{band}`, mag, [n, colour].

    NaN where a flux is not positive.
    """
    bands = [f"flux_{band}" for pair in pairs for band in pair]
    require_columns(catalog, bands)
    return np.stack(
        [ab_magnitude(catalog[f"flux_{b}"]) - ab_magnitude(catalog[f"flux_{r}"]) for b, r in pairs],
        axis=1,
    )


def fit_colour_cut(
    catalog: Columns,
    wanted: np.ndarray,
    pairs: tuple[tuple[str, str], ...],
    least_purity: float,
    weight: np.ndarray | None = None,
) -> ColourCut:
    """The cut with the most of the wanted galaxies at a purity.

    To judge it use galaxies that it was not fitted to: half of the draws, or another member.

    Args:
        catalog: Columns `flux_{band}`, [n].
        wanted: True for the galaxies to be found, [n].
        pairs: Bands of the colours.
        least_purity: Share of the selected that must be wanted.
        weight: Of the galaxies, [n].

    Raises:
        InputError: Fewer than 20 of either kind have colours; no limit reaches the purity.

    Source:
        Fisher (1936): best for normal clouds of one covariance, against which it is tested
        (tests/test_targets.py).
    """
    x = colours(catalog, pairs)
    there = np.isfinite(x).all(axis=1)
    x, want = x[there], np.asarray(wanted)[there]
    w = np.ones(len(x)) if weight is None else np.asarray(weight, float)[there]
    if min(want.sum(), (~want).sum()) < FEWEST:
        raise InputError(
            f"a cut needs {FEWEST} wanted and {FEWEST} other galaxies with colours; got "
            f"{want.sum()} and {(~want).sum()}."
        )
    direction = _fisher(x, want, w)
    order = np.argsort(-(x @ direction))
    found, taken = np.cumsum((w * want)[order]), np.cumsum(w[order])
    pure = np.flatnonzero((found >= least_purity * taken) & (found > 0))
    if not len(pure):
        raise InputError(
            f"no cut in these colours reaches a purity of {least_purity:g}; the best is "
            f"{np.max(found / np.maximum(taken, 1e-30)):.2f}. Add colours, or ask for less."
        )
    last = pure[-1]
    along = (x @ direction)[order]
    after = along[last + 1] if last + 1 < len(along) else along[last] - 1.0
    return ColourCut(pairs, direction, float((along[last] + after) / 2))


def _fisher(x: np.ndarray, wanted: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Direction of length 1 towards the wanted galaxies, in the metric of the spread within."""
    means, within = [], np.zeros((x.shape[1], x.shape[1]))
    for kind in (wanted, ~wanted):
        mean = np.average(x[kind], axis=0, weights=w[kind])
        offset = x[kind] - mean
        within += (w[kind][:, None] * offset).T @ offset
        means.append(mean)
    within = within / np.sum(w) + 1e-8 * np.eye(x.shape[1])
    direction = np.linalg.solve(within, means[0] - means[1])
    return direction / np.linalg.norm(direction)


def completeness_and_purity(
    catalog: Columns, wanted: np.ndarray, passes: np.ndarray, weight: str | None = None
) -> tuple[Band, Band]:
    """Share of the wanted that a cut selects, and share of the selected that are wanted, [member].

    Args:
        catalog: With `member`, [n].
        wanted: True for the galaxies to be found, [n].
        passes: True for those that the cut selects, [n].
        weight: Column of weights.
    """

    def one(member: dict[str, np.ndarray], w: np.ndarray) -> np.ndarray:
        both = np.sum(w * (member[WANTED] & member[PASSES]))
        all_ = np.array([np.sum(w * member[WANTED]), np.sum(w * member[PASSES])])
        return both / np.where(all_ > 0, all_, np.nan)

    each = over_members(dict(catalog) | {WANTED: wanted, PASSES: passes}, one, weight).each
    return Band(each[:, 0]), Band(each[:, 1])
