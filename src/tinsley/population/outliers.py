"""Rare galaxies: draws where the population is thin, and the observed galaxies nearest to them.

The density is the members' mean, of the galaxies as observed, in the unbounded space of redshift
and all parameters. That a galaxy of the catalogue looks like a rare draw says that it may be one,
not that it is: infer its own posterior, with the population as prior (`reweight`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tinsley.observe.survey import Photometry
from tinsley.population.density import AbstractPopulation
from tinsley.population.fit import reach
from tinsley.population.forecast import in_batches
from tinsley.population.reweight import mean_log_density
from tinsley.population.space import REDSHIFT, PopulationSpace
from tinsley.population.summaries import Columns, require_columns
from tinsley.population.synthetic import make_view

OBJECT_ID = "object_id"


class Matches(NamedTuple):
    """Draws and the observed galaxies that look most like them.

    Attributes:
        draw: Rows of the draws, [m].
        observed: Row of the nearest observed galaxy, [m].
        distance: Between them, in the space of the points, [m].
        near: Whether that is as near as observed galaxies are to one another, [m].
    """

    draw: np.ndarray
    observed: np.ndarray
    distance: np.ndarray
    near: np.ndarray


def find_outliers(
    members: Sequence[AbstractPopulation],
    space: PopulationSpace,
    synthetic: Columns,
    observed: Photometry,
    bands: tuple[str, ...],
    *,
    share: float = 0.01,
) -> dict[str, np.ndarray]:
    """Observed galaxies whose photometry is that of a population's rarest draws.

    Args:
        members: The populations as observed.
        space: Where they live.
        synthetic: Of `tinsley.population.forecast.synthetic_catalog`, in the survey of the observed
            galaxies, with its noise and its cut.
        observed: Galaxies that have every band.
        bands: Of both, by name.
        share: Of the synthetic galaxies, how many are rare.

    Returns:
        As of `outlier_table`; the properties are those of the synthetic galaxy.

    Raises:
        InputError: A column is missing.
        ValueError: The share is not between 0 and 1.
    """
    require_columns(synthetic, [f"flux_{band}" for band in bands])
    log_density = column_log_density(members, space, synthetic)
    rows = rarest(log_density, share)
    view = make_view(observed.flux, observed.sigma)
    flux = np.stack([synthetic[f"flux_{band}"][rows] for band in bands], axis=1)
    made, seen = (np.asarray(view(jnp.asarray(f, dtype=float))) for f in (flux, observed.flux))
    matches = match_to_observed(rows, made, seen)
    drawn = {name: values for name, values in synthetic.items() if name != OBJECT_ID}
    return outlier_table(matches, observed.object_id, log_density, drawn)


def column_log_density(
    members: Sequence[AbstractPopulation], space: PopulationSpace, columns: Columns
) -> np.ndarray:
    """Ln of the members' mean density, of the galaxies as observed, at each galaxy, [n].

    Per unit of the unbounded space, where the prior is N(0, 1): rare is what is rare there.

    Args:
        members: The populations as observed.
        space: Where they live.
        columns: Every parameter, and `redshift`.

    Raises:
        InputError: A column is missing.
    """
    names = [*space.space.names, REDSHIFT]
    require_columns(columns, names)
    theta = {name: columns[name] for name in names}
    return ensemble_log_density(
        members, jnp.asarray(in_batches(lambda some, _: space.unbounded(some), theta))
    )


def ensemble_log_density(
    members: Sequence[AbstractPopulation], x: Float[Array, "n d"]
) -> np.ndarray:
    """Ln of the members' mean density at points of the unbounded space, [n]."""
    each = np.stack([np.asarray(member.log_prob(jnp.asarray(x)), float) for member in members])
    return mean_log_density(each)


def rarest(log_density: np.ndarray, share: float, weight: np.ndarray | None = None) -> np.ndarray:
    """Rows of the lowest density that together are a share of all galaxies, the rarest first.

    Args:
        log_density: At each draw, [n].
        share: Of the weight, above 0 and below 1.
        weight: Such as `selected_weight`, for a share of the observed galaxies; None for all alike.

    Raises:
        ValueError: The share is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise ValueError(f"expected a share above 0 and below 1; got {share}.")
    w = np.ones(len(log_density)) if weight is None else np.asarray(weight, float)
    order = np.argsort(log_density)
    below = np.cumsum(w[order]) / np.sum(w)
    return order[: int(np.searchsorted(below, share, side="right"))]


def match_to_observed(draws: np.ndarray, points: np.ndarray, observed: np.ndarray) -> Matches:
    """The observed galaxy nearest to each draw.

    Args:
        draws: Rows of the population that the points are of, [m].
        points: Photometry of the draws in a `tinsley.population.synthetic.View`, [m, k].
        observed: The catalogue in the same view, [n, k].
    """
    from scipy.spatial import cKDTree

    distance, row = cKDTree(observed).query(points)
    return Matches(np.asarray(draws), row, distance, distance <= reach(observed))


def outlier_table(
    matches: Matches, object_id: np.ndarray, log_density: np.ndarray, columns: Columns
) -> dict[str, np.ndarray]:
    """Observed galaxies that look like rare draws, each once, the rarest first.

    Args:
        matches: Of rare draws; those that no observed galaxy is near to are left out.
        object_id: Names of the observed galaxies, [n].
        log_density: Of all draws, the rows of the population.
        columns: Of the population.

    Returns:
        `object_id`, `log_density` and `distance` of the rarest draw that it is nearest to, how
        many (`draws`), and the properties of that draw.
    """
    rows = np.flatnonzero(matches.near)
    rows = rows[np.argsort(log_density[matches.draw[rows]], kind="stable")]
    found, first, count = np.unique(matches.observed[rows], return_index=True, return_counts=True)
    order = np.argsort(first)
    chosen = rows[first[order]]
    head = {
        OBJECT_ID: np.asarray(object_id)[found[order]],
        "log_density": log_density[matches.draw[chosen]],
        "distance": matches.distance[chosen],
        "draws": count[order],
    }
    return head | {name: values[matches.draw[chosen]] for name, values in columns.items()}
