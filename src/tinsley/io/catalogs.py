"""From a user's table to photometry. Start at `open_catalog`.

What becomes of a row, in this order:

- `bad_input`: a band with a flux but no usable error, or an error but no flux; a flux or error that
  is infinite or absurd; an error <= 0 or an inverse variance < 0; a flux more than 10 sigma below
  0; an extinction that is not finite or above 20 mag; a failed quality cut of the layout; an error
  of the redshift that is negative or infinite; a p(z) that is negative or not finite somewhere, or
  0 everywhere, or whose redshifts do not increase.
- `redshift_out_of_range`: a redshift that is missing, not finite, or <= 0 without an error.
- `too_few_bands`: no band measured. A band is missing where its columns are absent, where flux and
  error are both NaN or null, and where an inverse variance is 0.

A missing band, or one with an error but no flux, may have an upper limit, in a column that the
layout names. It is no measurement. A limit that is infinite, absurd or <= 0 is `bad_input`.
"""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tinsley.errors import InputError
from tinsley.io.layouts import BoundLayout, bind, choose_layout
from tinsley.io.packaged import DATA
from tinsley.io.redshifts import read_redshifts
from tinsley.io.tables import Columns, Kind, MemoryTable, Table, open_table
from tinsley.observe.noise import SigmaGivenFlux, fit_sigma_given_flux
from tinsley.observe.survey import Photometry, Survey
from tinsley.status import Status

SAMPLE = DATA / "sdss_sample.parquet"

MAX_FLUX_NMGY = 1e9
"""AB magnitude 0. No galaxy is brighter, and its square still fits into float32."""
MIN_ERROR_NMGY = 1e-9
"""AB magnitude 45, for the same reason at the other end."""
MAX_EXTINCTION_MAG = 20.0
MAX_NEGATIVE_SIGMA = 10.0
"""A flux further below zero than this many errors is no measurement of a galaxy."""

_HEAD_ROWS = 10_000
_SCAN_ROWS = 65_536


def load_sample_catalog_path() -> Path:
    """The 10,000 SDSS galaxies that come with the package: Parquet, layout `native`."""
    return SAMPLE


def load_noise_catalog(survey: Survey) -> Photometry:
    """The usable rows of the catalogue that a survey's realistic errors are to be fitted to.

    Raises:
        InputError: The survey's file names no catalogue.
    """
    if "catalog" not in survey.noise:
        raise InputError(
            f"survey {survey.name!r} names no catalogue to fit its errors to; "
            'add catalog = "FILE" under [noise] in its TOML file.'
        )
    catalog = open_catalog(survey.noise["catalog"], survey)
    photometry = next(catalog.chunks(catalog.n_rows))
    return photometry.take(photometry.usable)


def load_usual_error(survey: Survey) -> SigmaGivenFlux | None:
    """How errors go with flux in a survey's own catalogue; None if it names none.

    Raises:
        InputError: The catalogue can not be read, or has too few galaxies in a band.
    """
    if "catalog" not in survey.noise:
        return None
    known = load_noise_catalog(survey)
    try:
        return fit_sigma_given_flux(known.flux, known.sigma, known.mask)
    except ValueError as problem:
        raise InputError(f"noise catalogue of survey {survey.name}: {problem}") from problem


def open_catalog(
    path: str | Path, survey: Survey, layout: str | None = None, *, needs_redshift: bool = True
) -> Catalog:
    """Open a FITS, Parquet or CSV file of galaxies.

    Args:
        path: The file; its suffix says of which kind it is.
        survey: Whose photometry it holds.
        layout: Name of one of the survey's layouts; by default the first that fits the columns.
        needs_redshift: False for photometry alone: redshifts are then neither read nor asked for.

    Raises:
        InputError: The file can not be read, is empty, lacks columns, names a galaxy twice, or
            holds magnitudes in the place of fluxes.
    """
    return Catalog(open_table(path), survey, layout, Path(path), needs_redshift=needs_redshift)


def read_photometry(
    table: Any, survey: Survey, layout: str | None = None, *, needs_redshift: bool = True
) -> Photometry:
    """All rows of a table in memory: see `memory_catalog`."""
    catalog = memory_catalog(table, survey, layout, needs_redshift=needs_redshift)
    return next(catalog.chunks(catalog.n_rows))


def memory_catalog(
    table: Any, survey: Survey, layout: str | None = None, *, needs_redshift: bool = True
) -> Catalog:
    """A table in memory, to be read by the same rules as a file.

    Args:
        table: An astropy table, a data frame, or a dictionary of arrays.
        survey: Whose photometry it holds.
        layout: Name of one of the survey's layouts; by default the first that fits the columns.
        needs_redshift: As in `open_catalog`.
    """
    return Catalog(MemoryTable(table), survey, layout, needs_redshift=needs_redshift)


class Catalog:
    """A table of galaxies that is read in pieces: memory does not grow with its length.

    Attributes:
        survey: Whose photometry it is.
        layout: How it is laid out.
        n_rows: Number of rows.
        path: The file, None for a table in memory.
    """

    def __init__(
        self,
        table: Table,
        survey: Survey,
        layout: str | None,
        path: Path | None = None,
        *,
        needs_redshift: bool = True,
    ) -> None:
        self._table, self.survey, self.path = table, survey, path
        self.layout = choose_layout(table, survey, layout, needs_redshift=needs_redshift)
        self._columns = bind(self.layout, survey, table.columns)
        self.n_rows, self._whole_ids = _scan_ids(table, self._columns)
        self._refuse_magnitudes()

    @property
    def redshift_known_by(self) -> tuple[str, ...]:
        """Columns that say how uncertain the redshifts are; none if they are exact or not read."""
        return self._columns.redshift_known_by

    @functools.cached_property
    def checksum(self) -> str:
        """SHA-256 of the file, in hexadecimal; "" for a table in memory."""
        if self.path is None:
            return ""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def chunks(self, size: int = 8192, start: int = 0) -> Iterator[Photometry]:
        """Rows from `start` on in input order, `size` at a time; the last chunk may be shorter.

        Raises:
            InputError: The file turns out to be damaged on the way.
        """
        pieces = self._table.pieces(self._columns.kinds, size, start)
        for piece in _of_size(pieces, size, self._table.label):
            chunk = self._photometry(piece, start)
            start += len(chunk)
            yield chunk

    def _photometry(self, piece: Columns, first_row: int) -> Photometry:
        columns, n_rows = self._columns, _n_rows(piece)
        redshift, prior, absurd = read_redshifts(piece, columns, self._table.label)
        names = np.arange(first_row, first_row + n_rows, dtype=np.int64)
        if columns.object_id is not None:
            names = piece[columns.object_id]
            names = names.astype(np.int64) if self._whole_ids else names
        flux, error, missing, limit = self._limited(piece, *self._measured(piece))
        scale, sound = _scale(piece, columns, self.survey)
        flux, error, plausible = _calibrated(flux, error, scale)
        plausible &= ~limit | (flux > 0)
        failed = (~missing & ~(plausible & sound)).any(axis=1) | _is_cut(piece, columns) | absurd
        no_redshift = np.zeros(n_rows, bool)
        if columns.redshift is not None or prior is not None:
            no_redshift = ~(np.isfinite(redshift) & (redshift > 0))
        if prior is not None:
            no_redshift &= ~np.isfinite(prior.node[:, 0])
        status = np.select(
            [failed, no_redshift, (missing | limit).all(axis=1)],
            [str(Status.BAD_INPUT), str(Status.REDSHIFT_OUT_OF_RANGE), str(Status.TOO_FEW_BANDS)],
            default="",
        )
        told = ~missing & (status == "")[:, None]
        flux, error = np.where(told, flux, 0.0), np.where(told, error, 1.0)
        if "error_floor" in self.layout.needs:
            error = self.survey.total_sigma(flux, error)
        limits = told & limit if any(columns.limit) else None
        mask = told & ~limit
        return Photometry(names, redshift, flux, error, mask, status, limits, prior)

    def _measured(self, piece: Columns) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Flux, its standard deviation, both in the table's unit, and what is missing."""
        index, label = self.layout.index, self._table.label
        flux = _by_band(piece, self._columns.flux, index, label)
        error = _by_band(piece, self._columns.error, index, label)
        missing = np.isnan(flux) & np.isnan(error)
        if self.layout.error_kind == "ivar":
            missing |= error == 0
            error = np.divide(1.0, np.sqrt(np.abs(error)), where=error > 0, out=-np.ones_like(flux))
        return flux, error, missing

    def _limited(
        self, piece: Columns, flux: np.ndarray, error: np.ndarray, missing: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The same with upper limits for missing fluxes, and where these are."""
        if not any(self._columns.limit):
            return flux, error, missing, np.zeros_like(missing)
        value = _by_band(piece, self._columns.limit, self.layout.index, self._table.label)
        limit = ~np.isnan(value) & (missing | np.isnan(flux))
        error = np.where(limit & missing, value / self.layout.limit_sigmas, error)
        return np.where(limit, value, flux), error, missing & ~limit, limit

    def _refuse_magnitudes(self) -> None:
        flux, error, missing = self._measured(
            next(self._table.pieces(self._columns.kinds, _HEAD_ROWS, 0))
        )
        if _are_magnitudes(flux, error, ~missing):
            raise InputError(
                f"{self._table.label} seems to hold magnitudes (around {np.nanmedian(flux):.1f}) "
                f"where layout {self.layout.name!r} expects fluxes: convert them with "
                "flux = 10**(0.4 * (22.5 - mag)) and flux_err = 0.921 * mag_err * flux."
            )


# --- names of the rows ---


def _scan_ids(table: Table, columns: BoundLayout) -> tuple[int, bool]:
    """Count the rows; True where names that came as text are all whole numbers.

    Raises:
        InputError: There are no rows, or a name occurs twice.
    """
    column = columns.object_id
    some = next(iter(columns.kinds))
    kinds: dict[str, Kind] = {some: "real"} if column is None else {column: "name"}
    n_rows, whole, words = 0, not table.typed, []
    for piece in table.pieces(kinds, _SCAN_ROWS, 0):
        names = next(iter(piece.values()))
        n_rows += len(names)
        if column is not None:
            whole = whole and _are_whole(names)
            words.append(_words(names))
    if n_rows == 0:
        raise InputError(f"{table.label} has no rows; expected at least one galaxy.")
    if column is not None:
        _refuse_duplicates(table, column, np.concatenate(words))
    return n_rows, whole and column is not None


def _are_whole(names: np.ndarray) -> bool:
    """True where all names are whole numbers of 64 bits, written the one usual way."""
    try:
        return bool(np.all(names.astype(np.int64).astype(np.str_) == names.astype(np.str_)))
    except (ValueError, OverflowError):
        return False


def _words(names: np.ndarray) -> np.ndarray:
    """8 bytes for each name: a whole number itself, a hash of text."""
    if names.dtype.kind == "i":
        return names
    digests = (hashlib.blake2b(name.encode(), digest_size=8).digest() for name in names.tolist())
    return np.frombuffer(b"".join(digests), dtype=np.int64)


def _refuse_duplicates(table: Table, column: str, words: np.ndarray) -> None:
    words.sort()
    suspects = np.unique(words[1:][words[1:] == words[:-1]])
    if not len(suspects):
        return
    counts: Counter[Any] = Counter()  # text may share a hash without being the same
    for piece in table.pieces({column: "name"}, _SCAN_ROWS, 0):
        names = piece[column]
        counts.update(names[np.isin(_words(names), suspects)].tolist())
    twice = [str(name) for name, count in counts.items() if count > 1]
    if twice:
        shown = ", ".join(twice[:3]) + (", ..." if len(twice) > 3 else "")
        raise InputError(
            f"{table.label}: column {column!r} names {len(twice)} galaxies more than once "
            f"({shown}); every row needs a name of its own."
        )


# --- values ---


def _of_size(pieces: Iterator[Columns], size: int, label: str) -> Iterator[Columns]:
    """The same rows in pieces of exactly `size`, but for the last.

    Raises:
        InputError: The vectors of a column differ in length from piece to piece.
    """
    held: list[Columns] = []
    n_held = 0
    for piece in pieces:
        held.append(piece)
        for name, values in piece.items():
            if values.shape[1:] != held[0][name].shape[1:]:
                raise InputError(f"{label}: the vectors in column {name!r} differ in length.")
        n_held += _n_rows(piece)
        if n_held < size:
            continue
        whole = {name: np.concatenate([h[name] for h in held]) for name in piece}
        for low in range(0, n_held - size + 1, size):
            yield {name: array[low : low + size] for name, array in whole.items()}
        n_held %= size
        held = [{name: array[len(array) - n_held :] for name, array in whole.items()}]
    if n_held:
        yield {name: np.concatenate([h[name] for h in held]) for name in held[0]}


def _n_rows(piece: Columns) -> int:
    return len(next(iter(piece.values())))


def _by_band(
    piece: Columns, names: tuple[str | None, ...], index: tuple[int, ...] | None, label: str
) -> np.ndarray:
    """Values [n, band]: from a vector column, or one column per band with NaN for absent ones."""
    n_rows = _n_rows(piece)
    vector = len(names) == 1 and index is not None
    for name in names:
        shape = (n_rows,) if name is None else piece[name].shape
        if len(shape) != 1 + vector or (vector and shape[1] <= max(index or ())):
            expected = (
                f"vectors of at least {max(index or ()) + 1} numbers" if vector else "numbers"
            )
            raise InputError(f"{label}: expected {expected} in column {name!r}; got {shape[1:]}.")
    if vector:
        return piece[str(names[0])][:, list(index or ())]
    nothing = np.full(n_rows, np.nan)
    return np.stack([nothing if name is None else piece[name] for name in names], axis=1)


def _scale(piece: Columns, columns: BoundLayout, survey: Survey) -> tuple[np.ndarray, np.ndarray]:
    """Factor [n, band] from the table's fluxes to AB nanomaggies, and where it can be trusted."""
    n_rows = _n_rows(piece)
    extinction = np.zeros((n_rows, len(survey.bands)))
    if columns.extinction:
        extinction = _by_band(piece, columns.extinction, columns.layout.index, "extinction")
    elif columns.ebv is not None:
        extinction = piece[columns.ebv][:, None] * survey.extinction_mag_per_ebv
    sound = np.abs(extinction) <= MAX_EXTINCTION_MAG  # False for NaN
    extinction = np.where(sound, extinction, 0.0)
    if "ab_offset" in columns.layout.needs:
        extinction = extinction - survey.ab_offset_mag
    return columns.layout.unit_nmgy * 10 ** (0.4 * extinction), sound


def _calibrated(
    flux: np.ndarray, error: np.ndarray, scale: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Flux and error in nanomaggies, and where both can be those of a galaxy."""
    with np.errstate(invalid="ignore", over="ignore"):
        flux, error = flux * scale, error * scale
        plausible = (
            (np.abs(flux) < MAX_FLUX_NMGY)
            & (error > MIN_ERROR_NMGY)
            & (error < MAX_FLUX_NMGY)
            & (flux >= -MAX_NEGATIVE_SIGMA * error)
        )
    return flux, error, plausible


def _is_cut(piece: Columns, columns: BoundLayout) -> np.ndarray:
    """True where a row fails a quality cut that its table has the column for, [n]."""
    cut = np.zeros(_n_rows(piece), dtype=bool)
    for name, quality in zip(columns.flags, columns.layout.quality, strict=True):
        if name is not None:
            cut |= quality.fails(piece[name]).reshape(len(cut), -1).any(axis=1)
    for names, least in zip(columns.least, columns.layout.least, strict=True):
        if names:
            number, *subtracted = (piece[str(name)] for name in names)
            cut |= least.fails(number, subtracted[0] if subtracted else None)
    return cut


def _are_magnitudes(flux: np.ndarray, error: np.ndarray, there: np.ndarray) -> bool:
    """True where a table of fluxes holds magnitudes with near certainty.

    Magnitudes of galaxies lie between 8 and 35 with errors below 1, and, being magnitudes, fall
    from blue to red, while fluxes rise. Fluxes can do each of these, hardly all at once: the range
    means AB 18.6-20.2 in every band, and the fall galaxies bluer than nearly all known. In a short
    table value over error must be large too, as it is for magnitudes (18 times the S/N); in a table
    of one band, which has no colour, errors must grow with the value as steeply as the errors of
    magnitudes alone do.
    """
    there = there & np.isfinite(flux) & np.isfinite(error) & (error > 0)
    if not there.any():
        return False
    value, sigma = flux[there], error[there]
    in_range = (value > 8) & (value < 35) & (sigma < 1)
    least = 210 if len(flux) < 5 else 100 if len(flux) < 20 else 30
    if np.mean(in_range) < 0.8 or np.median(value[in_range] / sigma[in_range]) < least:
        return False
    rows = there.sum(axis=1) >= 2
    if not rows.any():
        return len(value) >= 50 and _slope(np.log(value[in_range]), np.log(sigma[in_range])) > 3
    first = np.argmax(there[rows], axis=1)
    last = there.shape[1] - 1 - np.argmax(there[rows][:, ::-1], axis=1)
    each = np.arange(len(first))
    return bool(np.mean(flux[rows][each, first] > flux[rows][each, last]) > 0.8)


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    spread = x - x.mean()
    return float(spread @ y / max(spread @ spread, np.finfo(float).tiny))
