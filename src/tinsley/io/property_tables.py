"""Tables of galaxies with known properties: start at `open_galaxies`."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from tinsley.errors import InputError
from tinsley.io.catalogs import open_catalog
from tinsley.io.tables import Table, named, open_table
from tinsley.observe.survey import Photometry, Survey

NAMES = ("object_id", "objid", "specobjid")
"""Columns that may name the galaxies, whatever their case; the first that is there does."""
MISSING = (-99.0, -999.0, -9999.0)
"""Values that stand for none in published tables."""
SHARES = {"training": 0.8, "validation": 0.1, "test": 0.1}

_PIECE = 65_536


class GalaxyTable(Protocol):
    """Rows of galaxies, read in pieces."""

    n_rows: int

    @property
    def checksum(self) -> str:
        """SHA-256 of the file."""

    def chunks(self, size: int = 8192, start: int = 0) -> Iterator[Photometry]:
        """Rows in input order; without photometry, of no bands."""


class NamedGalaxies:
    """A table of names, for galaxies of which only images are used."""

    def __init__(self, path: Path) -> None:
        table, self.path = open_table(path), path
        there = (named(table.columns, name) for name in NAMES)
        column = next((name for name in there if name is not None), None)
        if column is None:
            raise InputError(f"{path} has no column object_id; images are found by it. Add one.")
        pieces = [piece[column] for piece in table.pieces({column: "name"}, _PIECE, 0)]
        if not pieces:
            raise InputError(f"{path} has no rows; expected at least one galaxy.")
        self._names = np.concatenate(pieces)
        self.n_rows = len(self._names)
        words, number = np.unique(self._names, return_counts=True)
        if (number > 1).any():
            raise InputError(
                f"{path}: column {column!r} names {int((number > 1).sum())} galaxies more than "
                f"once ({words[number > 1][0]}); every row needs a name of its own."
            )

    @functools.cached_property
    def checksum(self) -> str:
        """SHA-256 of the file, in hexadecimal."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def chunks(self, size: int = 8192, start: int = 0) -> Iterator[Photometry]:
        """Rows from `start` on; each is as good as its image."""
        for low in range(start, self.n_rows, size):
            names = self._names[low : low + size]
            none = np.zeros((len(names), 0))
            status = np.full(len(names), "")
            yield Photometry(names, np.full(len(names), np.nan), none, none, none > 0, status)


def open_galaxies(
    path: Path, survey: Survey | None, layout: str | None = None, *, redshift: bool = False
) -> GalaxyTable:
    """A table to learn from or to infer.

    Args:
        path: FITS, Parquet or CSV.
        survey: Whose photometry is used; None for images alone.
        layout: As in `tinsley.io.catalogs.open_catalog`.
        redshift: Whether redshifts are used.
    """
    if survey is None:
        return NamedGalaxies(path)
    return open_catalog(path, survey, layout, needs_redshift=redshift)


def read_properties(path: Path, names: Sequence[str]) -> np.ndarray:
    """Known properties, [n, property]; NaN where missing, or where a word for it is (`MISSING`).

    Raises:
        InputError: A column is not there, is named twice, or holds no numbers.
    """
    table = open_table(path)
    columns = [_column(table, name) for name in names]
    if len(set(columns)) < len(columns):
        raise InputError(f"the properties {', '.join(names)} name a column twice; name each once.")
    pieces = list(table.pieces(dict.fromkeys(columns, "real"), _PIECE, 0))
    values = np.concatenate([np.stack([piece[c] for c in columns], axis=-1) for piece in pieces])
    if values.ndim != 2:
        raise InputError(f"the properties {', '.join(names)} are to be numbers, not vectors.")
    return np.where(np.isfinite(values) & ~np.isin(values, MISSING), values, np.nan)


def refuse_without(path: Path, names: Sequence[str]) -> None:
    """Raise InputError where a table lacks a parameter of the galaxies."""
    columns = open_table(path).columns
    missing = [name for name in names if named(columns, name) is None]
    if missing:
        raise InputError(
            f"{path} has no column {', '.join(missing)}; expected every SPS parameter "
            f"({', '.join(names)}), as `tinsley simulate-images` writes them."
        )


def _column(table: Table, name: str) -> str:
    column = named(table.columns, name)
    if column is None:
        shown = ", ".join(table.columns[:12]) + (", ..." if len(table.columns) > 12 else "")
        raise InputError(f"{table.label} has no column {name!r}; it has {shown}.")
    return column


def split_by_name(object_id: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """To which set each galaxy belongs, and an order of them, that follow from their names alone.

    Returns:
        A word of `SHARES` for each, [n]; and the indices that sort them by a hash, [n].
    """
    place = place_by_name(object_id, "split")
    ends = np.cumsum(list(SHARES.values()))[:-1]
    sets = np.array(list(SHARES))[np.searchsorted(ends, place, side="right")]
    return sets, np.argsort(place, kind="stable")


def place_by_name(object_id: np.ndarray, purpose: str) -> np.ndarray:
    """A number from 0 to 1 for each galaxy that follows from its name and a purpose, [n]."""
    words = (f"{purpose} {name}".encode() for name in np.asarray(object_id).tolist())
    digests = b"".join(hashlib.sha256(word).digest()[:8] for word in words)
    return np.frombuffer(digests, ">u8").astype(np.float64) / 2.0**64
