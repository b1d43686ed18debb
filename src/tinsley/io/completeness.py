"""How complete a survey is: from a table, and in manifests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from tinsley.errors import InputError
from tinsley.io.tables import open_table
from tinsley.population.synthetic import CompletenessTable

_SHARE = "completeness"
_ROWS = 100_000


def read_completeness(path: str | Path, bands: tuple[str, ...]) -> CompletenessTable:
    """A table with the columns `mag_<band>`, increasing, and `completeness`, from 0 to 1.

    Args:
        path: CSV, Parquet or FITS.
        bands: Names of the survey's bands.

    Raises:
        InputError: It can not be read, or is no such table.
    """
    table = open_table(path)
    found = [band for band in bands if f"mag_{band}" in table.columns]
    if len(found) != 1 or _SHARE not in table.columns:
        raise InputError(
            f"completeness {path} needs the columns mag_<band>, of one of {', '.join(bands)}, and "
            f"{_SHARE}; got {', '.join(table.columns)}."
        )
    mag = f"mag_{found[0]}"
    rows = next(table.pieces({mag: "real", _SHARE: "real"}, _ROWS, 0))
    try:
        return _table(bands.index(found[0]), rows[mag], rows[_SHARE])
    except ValueError as problem:
        raise InputError(f"completeness {path}: {problem}") from problem


def completeness_to_dict(
    completeness: CompletenessTable | None, bands: tuple[str, ...]
) -> dict[str, Any] | None:
    """Plain values, for manifests."""
    if completeness is None:
        return None
    nodes = {name: np.asarray(getattr(completeness, name)).tolist() for name in ("mag", "share")}
    return {"band": bands[completeness.band]} | nodes


def completeness_from_dict(
    plain: dict[str, Any] | None, bands: tuple[str, ...]
) -> CompletenessTable | None:
    """The inverse of `completeness_to_dict`."""
    if plain is None:
        return None
    return _table(bands.index(plain["band"]), np.array(plain["mag"]), np.array(plain["share"]))


def _table(band: int, mag: np.ndarray, share: np.ndarray) -> CompletenessTable:
    if not (np.isfinite(mag).all() and np.isfinite(share).all()):
        raise ValueError("expected numbers in every row.")
    return CompletenessTable(band, *(jnp.asarray(values, dtype=float) for values in (mag, share)))
