"""n(z) of tomographic bins, with the members' spread, and as an ensemble of the package `qp`.

The bin of a galaxy is a column of the population: of its own redshift, or of what a survey would
make of it, from a synthetic catalogue (`tinsley.population.forecast`).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinsley.errors import InputError
from tinsley.population.space import REDSHIFT
from tinsley.population.summaries import SELECTED, Band, Columns, over_members, require_columns

NO_BIN = -1


def assign_bins(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Number of the bin, from 0, that each value is in; -1 outside all and for NaN."""
    at = np.searchsorted(edges, values, side="right") - 1
    inside = (values >= edges[0]) & (values < edges[-1])
    return np.where(inside, at, NO_BIN)


def redshift_distributions(
    columns: Columns, label: str, redshift_edges: np.ndarray, weight: str | None = SELECTED
) -> Band:
    """n(z) of each tomographic bin, of integral 1 between the edges, [member, bin, redshift].

    Args:
        columns: Of a population, with the bin of each galaxy.
        label: That column; bins are counted from 0, negative is no bin.
        redshift_edges: Increasing.
        weight: As observed, if not said otherwise.

    Returns:
        NaN where a member has no galaxy in a bin.
    """
    number = _number_of_bins(columns, label)

    def one(member: dict[str, np.ndarray], w: np.ndarray) -> np.ndarray:
        places = np.arange(number + 1) - 0.5, redshift_edges
        count, _, _ = np.histogram2d(member[label], member[REDSHIFT], places, weights=w)
        total = count.sum(axis=1, keepdims=True)
        return count / np.where(total > 0, total, np.nan) / np.diff(redshift_edges)

    return over_members(columns, one, weight)


def mean_redshifts(columns: Columns, label: str, weight: str | None = SELECTED) -> Band:
    """Mean redshift of each tomographic bin, [member, bin]: what lensing asks for."""
    number = _number_of_bins(columns, label)

    def one(member: dict[str, np.ndarray], w: np.ndarray) -> np.ndarray:
        in_bin = member[label] == np.arange(number)[:, None]
        total = in_bin @ w
        return in_bin @ (w * member[REDSHIFT]) / np.where(total > 0, total, np.nan)

    return over_members(columns, one, weight)


def _number_of_bins(columns: Columns, label: str) -> int:
    require_columns(columns, [label, REDSHIFT])
    number = int(np.max(columns[label])) + 1
    if number < 1:
        raise InputError(f"no galaxy has a bin: column {label!r} is negative throughout.")
    return number


def to_qp(n_of_z: Band, redshift_edges: np.ndarray) -> Any:
    """An ensemble of `qp`: a histogram for each member and bin, which `ancil` names.

    Args:
        n_of_z: Of `redshift_distributions`.
        redshift_edges: The same.

    Raises:
        InputError: The package qp-prob is not installed; a member has no galaxy in a bin.
    """
    try:
        import qp
    except ImportError as problem:
        raise InputError(
            "an n(z) ensemble needs qp-prob; install it with `pip install 'tinsley[qp]'`."
        ) from problem
    n_members, n_bins, _ = n_of_z.each.shape
    member, bin_ = (a.ravel() for a in np.indices((n_members, n_bins)))
    pdfs = n_of_z.each.reshape(n_members * n_bins, -1)
    if not np.isfinite(pdfs).all():
        raise InputError("a member has no galaxy in one of the bins; draw more, or widen the bins.")
    data = {"bins": np.asarray(redshift_edges, float), "pdfs": pdfs}
    return qp.Ensemble(qp.hist, data=data, ancil={"member": member, "bin": bin_})
