"""Read star-formation and metallicity bases, and the histories that calibration tests use."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tinsley.errors import InputError
from tinsley.sps.bases import SfhBases

NUMBER_BASES, NUMBER_METALLICITY_BASES = 4, 2
PROVABGS_TIME_FILE = "sfh_t_int.txt"
PROVABGS_SFH_FILE = "NMF_2basis_SFH_components_nowgt_lin_Nc4.txt"
PROVABGS_METALLICITY_FILE = "NMF_2basis_Z_components_nowgt_lin_Nc2.txt"
PROVABGS_ROW_ORDER = (2, 0, 1, 3)
"""Rows of the papers' star-formation file, youngest basis first."""
HISTORY_BINS = 42


class Histories(NamedTuple):
    """Star-formation histories that four bases do not reproduce exactly.

    Attributes:
        redshift: Where the galaxy is observed, [galaxy].
        log10_mstar_formed_msun: Mass formed until then, log10 Msun, [galaxy].
        mass_fraction: Share of it per PROVABGS bin of lookback time, 0 beyond the galaxy's age,
            [galaxy, bin].
    """

    redshift: np.ndarray
    log10_mstar_formed_msun: np.ndarray
    mass_fraction: np.ndarray


def load_sfh_bases(path: str | Path | None = None) -> SfhBases:
    """Read star-formation bases from a CSV file.

    Args:
        path: File with the header `lookback_gyr,basis_1,basis_2,basis_3,basis_4`, youngest basis
            and youngest time first; Tinsley's own (DiffstarPop, IllustrisTNG) if not given.

    Returns:
        The bases, [4, time].

    Raises:
        InputError: The file is missing or is not such a table.
    """
    path = Path(path) if path is not None else _data_file("sfh_nmf.csv")
    expected = ["lookback_gyr", *(f"basis_{i + 1}" for i in range(NUMBER_BASES))]
    header, _, body = _read_text(path).partition("\n")
    if header.strip().split(",") != expected:
        raise InputError(
            f"{path}: the first line must be '{','.join(expected)}'; got '{header.strip()[:80]}'."
        )
    table = _numbers(path, body.splitlines(), delimiter=",")
    return _bases(path, table[:, 0], table[:, 1:].T, NUMBER_BASES)


def load_provabgs_bases(folder: str | Path) -> tuple[SfhBases, SfhBases]:
    """Read the papers' star-formation and metallicity bases from provabgs' text files.

    Args:
        folder: Holds the three files as they lie in provabgs' `dat` folder, whose times run from
            old to young.

    Returns:
        The star-formation bases [4, time], youngest first, and the metallicity bases [2, time].

    Raises:
        InputError: A file is missing or is not such a table.

    Source:
        Hahn et al. (2023); changhoonhahn/provabgs 5a272af, models.py.
    """
    folder = Path(folder)
    times, sfh, met = (
        folder / name for name in (PROVABGS_TIME_FILE, PROVABGS_SFH_FILE, PROVABGS_METALLICITY_FILE)
    )
    lookback_gyr = _text_table(times).ravel()[::-1]
    forwards = _bases(sfh, lookback_gyr, _text_table(sfh)[:, ::-1], NUMBER_BASES)
    return (
        SfhBases(lookback_gyr, forwards.sfr[list(PROVABGS_ROW_ORDER)]),
        _bases(met, lookback_gyr, _text_table(met)[:, ::-1], NUMBER_METALLICITY_BASES),
    )


def load_diffstarpop_histories(path: str | Path | None = None) -> Histories:
    """Read histories drawn from DiffstarPop, none of which shaped the default bases.

    Args:
        path: Parquet file; Tinsley's own if not given.

    Returns:
        The histories, float64.

    Raises:
        InputError: The file is missing or is not such a table.
    """
    path = Path(path) if path is not None else _data_file("diffstarpop_histories.parquet")
    try:
        table = pq.read_table(path, columns=["redshift", "log10_mstar_formed", "mass_fraction"])
        fraction = np.asarray(table["mass_fraction"].to_pylist(), float)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{path}: expected a Parquet table of histories: {error}") from error
    if fraction.ndim != 2 or fraction.shape[1] != HISTORY_BINS:
        raise InputError(f"{path}: mass_fraction needs {HISTORY_BINS} bins; got {fraction.shape}.")
    return Histories(
        redshift=table["redshift"].to_numpy().astype(float),
        log10_mstar_formed_msun=table["log10_mstar_formed"].to_numpy().astype(float),
        mass_fraction=fraction,
    )


def _data_file(name: str) -> Path:
    return Path(str(files("tinsley") / "data" / name))


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected a readable text file: {error}") from error


def _text_table(path: Path) -> np.ndarray:
    return _numbers(path, _read_text(path).splitlines(), delimiter=None)


def _numbers(path: Path, lines: list[str], delimiter: str | None) -> np.ndarray:
    lines = [line for line in lines if line.strip()]
    if not lines:
        raise InputError(f"{path}: expected rows of numbers; got none.")
    try:
        return np.loadtxt(lines, delimiter=delimiter, ndmin=2, comments=None)
    except ValueError as error:
        raise InputError(f"{path}: expected equally long rows of numbers: {error}") from error


def _bases(path: Path, lookback_gyr: np.ndarray, values: np.ndarray, number: int) -> SfhBases:
    if len(values) != number:
        raise InputError(f"{path}: expected {number} bases; got {len(values)}.")
    try:
        return SfhBases(lookback_gyr, values)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error
