"""The redshifts of a user's table: exact, with an error, or as a p(z) on a grid.

A row's p(z) counts before its error, and its error before its bare redshift. Where the p(z) is NaN
in all places there is none; where the error is 0, NaN or null the redshift is exact.
"""

from __future__ import annotations

import numpy as np

from tinsley.errors import InputError
from tinsley.io.layouts import BoundLayout
from tinsley.io.tables import Columns
from tinsley.observe.redshift import RedshiftPrior, gaussian, joined, tabulated


def read_redshifts(
    piece: Columns, columns: BoundLayout, label: str
) -> tuple[np.ndarray, RedshiftPrior | None, np.ndarray]:
    """Redshifts [n], NaN where there is none; what is known of them; and where that is absurd [n].

    Raises:
        InputError: A column does not have the shape that it should.
    """
    n_rows = len(next(iter(piece.values())))
    redshift, error = np.full(n_rows, np.nan), np.zeros(n_rows)
    if columns.redshift is not None:
        redshift = _numbers(piece, columns.redshift, label)
    if columns.redshift_err is not None:
        error = np.nan_to_num(_numbers(piece, columns.redshift_err, label), posinf=np.inf)
    absurd = ~((error >= 0) & (error < np.inf))
    if columns.redshift_pdf is None:
        if columns.redshift_err is None:
            return redshift, None, absurd
        return redshift, gaussian(redshift, np.where(absurd, 0.0, error)), absurd
    node, density = _vectors(piece, columns, label)
    there = ~np.isnan(density).all(axis=1)
    with np.errstate(invalid="ignore"):
        sound = (density >= 0).all(axis=1) & (density < np.inf).all(axis=1)
        sound &= (density > 0).any(axis=1) & (np.diff(node, axis=1) > 0).all(axis=1)
        sound &= np.isfinite(node).all(axis=1)
    absurd = np.where(there, ~sound, absurd)
    node, density = (np.where((there & sound)[:, None], x, np.nan) for x in (node, density))
    by_error = gaussian(redshift, np.where(there | absurd, 0.0, error))
    return redshift, joined(tabulated(node, density), by_error), absurd


def _numbers(piece: Columns, name: str, label: str) -> np.ndarray:
    if piece[name].ndim != 1:
        raise InputError(
            f"{label}: expected numbers in column {name!r}; got {piece[name].shape[1:]}."
        )
    return piece[name]


def _vectors(piece: Columns, columns: BoundLayout, label: str) -> tuple[np.ndarray, np.ndarray]:
    """The redshifts of each row's p(z), and its values there, both [n, node]."""
    density = piece[str(columns.redshift_pdf)]
    if columns.redshift_grid is None:
        node = np.tile(np.asarray(columns.layout.redshift_grid), (len(density), 1))
    else:
        node = piece[columns.redshift_grid]
    if density.ndim != 2 or density.shape[1] < 2 or density.shape != node.shape:
        raise InputError(
            f"{label}: expected at least 2 values of p(z) in column {columns.redshift_pdf!r}, as "
            f"many as redshifts in {columns.redshift_grid or 'redshift_grid of the layout'}; got "
            f"{density.shape[1:]} and {node.shape[1:]}."
        )
    return node, density
