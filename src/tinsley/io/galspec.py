"""The MPA-JHU properties of SDSS galaxies, joined to photometry: start at `load_galspec`.

Tables as SDSS publishes them since DR8: the FITS files galSpecExtra-dr8.fits and
galSpecIndx-dr8.fits, or what SkyServer gives of the tables of the same names (columns in any case).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinsley.errors import InputError
from tinsley.io.tables import Columns, Kind, Table, named, open_table

SENTINEL = -9999.0
"""What stands for "not measured"; anything at or below a tenth of it counts as that."""
STAR_FORMING = 1
"""`bptclass` of star-forming galaxies (Brinchmann et al. 2004); low S/N ones are 2."""
R_RANGE_MAG = (16.0, 17.78)
"""Apparent r of the paper's galaxies: Yunus, Wu & Holwerda (2025)."""
MAG_PER_TAU = 1.0857362
"""A_V of an optical depth of one: 2.5 log10(e)."""

PROPERTIES = {
    "log10_mstar_msun": ("galSpecExtra", "lgm_tot_p50", 1.0),
    "log10_sfr_msun_yr": ("galSpecExtra", "sfr_tot_p50", 1.0),
    "oh_12_log10": ("galSpecExtra", "oh_p50", 1.0),
    "dn4000": ("galSpecIndx", "d4000_n", 1.0),
    "a_v_mag": ("galSpecIndx", "tauv_cont", MAG_PER_TAU),
}
"""Tinsley's name of each property: table, column, factor. Masses and SFRs are medians of the
posterior, total, Kroupa IMF; 12+log(O/H) is Tremonti et al. (2004); `tauv_cont` is the V-band
optical depth of the stars' best-fitting continuum, the nearest to A_V that these tables hold."""

_R = ("petromag_r", "petro_r", "mag_r", "r", "modelmag_r", "dered_r")
_WORDS = ("id", "name", "flags")
"""Columns whose numbers may have more digits than a real number keeps."""
_PIECE = 65_536


class Joined(NamedTuple):
    """Galaxies with properties, and what became of the others.

    Attributes:
        columns: `object_id`, the properties, and all that the photometry had, each [n].
        counts: Rows of the photometry, and how many were left after each step.
    """

    columns: Columns
    counts: dict[str, int]


def load_galspec(
    photometry: Path,
    extra: Path,
    indx: Path,
    *,
    star_forming: bool = True,
    r_range_mag: tuple[float, float] = R_RANGE_MAG,
) -> Joined:
    """Photometry of SDSS galaxies with their properties, by the paper's cuts.

    Args:
        photometry: Table with `specObjID` and a magnitude in r (`petroMag_r`, or one of the names
            of the like), one row a galaxy; its other columns are kept if they are numbers or words.
        extra: galSpecExtra.
        indx: galSpecIndx.
        star_forming: Keep `bptclass` 1 alone.
        r_range_mag: r, open at both ends.

    Raises:
        InputError: A column is missing; a spectrum is named twice in a table; nothing is left.

    Source:
        Yunus, Wu & Holwerda (2025), section 2: star-forming by the BPT diagram, 16 < r < 17.78, all
        five properties measured. Tested on tables of the published form.
    """
    seen = _read_all(open_table(photometry))
    key = _only(named(tuple(seen), "specObjID"), photometry, "specObjID")
    r = next((c for c in (named(tuple(seen), name) for name in _R) if c is not None), None)
    r = _only(r, photometry, "petroMag_r")
    names = _unique(seen[key], photometry)
    values, there = _properties(names, extra, indx)
    cuts = {
        "photometry": np.ones(len(names), bool),
        "with a spectrum": there,
        f"{r_range_mag[0]:g} < {r} < {r_range_mag[1]:g}": (seen[r] > r_range_mag[0])
        & (seen[r] < r_range_mag[1]),
        "star-forming": (values.pop("bptclass") == STAR_FORMING) | (not star_forming),
        "measured": np.all([_measured(v) for v in values.values()], axis=0),
    }
    left = np.logical_and.accumulate(list(cuts.values()), axis=0)
    counts = dict(zip(cuts, left.sum(axis=1).tolist(), strict=True))
    if not left[-1].any():
        steps = ", ".join(f"{count} {step}" for step, count in counts.items())
        raise InputError(f"no galaxy of {photometry} is left: {steps}; check the tables and cuts.")
    head = {} if named(tuple(seen), "object_id") else {"object_id": names}
    factors = {name: factor for name, (_, _, factor) in PROPERTIES.items()}
    made = {name: value * factors[name] for name, value in values.items()}
    kept = head | seen | made
    return Joined({name: column[left[-1]] for name, column in kept.items()}, counts)


def _properties(names: np.ndarray, extra: Path, indx: Path) -> tuple[Columns, np.ndarray]:
    """The properties and `bptclass` as they are in the tables; and whose spectra both have."""
    values: Columns = {}
    there = names != ""
    for table, path in (("galSpecExtra", extra), ("galSpecIndx", indx)):
        wanted = {name: c for name, (t, c, _) in PROPERTIES.items() if t == table}
        wanted |= {"bptclass": "bptclass"} if table == "galSpecExtra" else {}
        found, has = _looked_up(path, names, list(wanted.values()))
        values |= {name: found[column] for name, column in wanted.items()}
        there &= has
    return values, there


def _measured(value: np.ndarray) -> np.ndarray:
    return np.isfinite(value) & (value > 0.1 * SENTINEL)


def _only(column: str | None, path: Path, name: str) -> str:
    if column is None:
        raise InputError(f"{path} has no column {name}; add or rename it.")
    return column


def _read_all(table: Table) -> Columns:
    """Every column: numbers where they can be read as such, else text; names always as text."""
    return {name: _read_column(table, name) for name in table.columns}


def _read_column(table: Table, name: str) -> np.ndarray:
    if name.lower().endswith(_WORDS):
        return _joined_pieces(table, name, "label")
    try:
        return _joined_pieces(table, name, "real")
    except InputError:
        return _joined_pieces(table, name, "label")


def _joined_pieces(table: Table, name: str, kind: Kind) -> np.ndarray:
    pieces = [piece[name] for piece in table.pieces({name: kind}, _PIECE, 0)]
    if not pieces:
        raise InputError(f"{table.label} has no rows; expected at least one galaxy.")
    return np.concatenate(pieces)


def _unique(names: np.ndarray, path: Path) -> np.ndarray:
    words, number = np.unique(names[names != ""], return_counts=True)
    if (number > 1).any():
        raise InputError(
            f"{path} names {int((number > 1).sum())} spectra more than once "
            f"({words[number > 1][0]}); every galaxy needs a spectrum of its own."
        )
    return names


def _looked_up(path: Path, names: np.ndarray, wanted: list[str]) -> tuple[Columns, np.ndarray]:
    """Columns of a table in the order of some names, NaN where it lacks one; and where it has it.

    The table is read in pieces: the published ones have 1.8 million rows.
    """
    table = open_table(path)
    key = _only(named(table.columns, "specObjID"), path, "specObjID")
    columns = {name: _only(named(table.columns, name), path, name) for name in wanted}
    kinds: dict[str, Any] = {key: "label"} | dict.fromkeys(columns.values(), "real")
    order = np.argsort(names)
    values = {name: np.full(len(names), np.nan) for name in wanted}
    has = np.zeros(len(names), bool)
    for piece in table.pieces(kinds, _PIECE, 0):
        place = np.searchsorted(names, piece[key], sorter=order)
        row = order[np.minimum(place, len(names) - 1)]
        hit = (names[row] == piece[key]) & (piece[key] != "")
        if has[row[hit]].any() or len(np.unique(row[hit])) < hit.sum():
            raise InputError(f"{path} names a spectrum twice; every one may occur once.")
        has[row[hit]] = True
        for name, column in columns.items():
            values[name][row[hit]] = piece[column][hit]
    return values, has
