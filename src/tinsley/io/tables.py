"""Columns of FITS, Parquet and CSV files, or of a table in memory, in pieces of bounded size."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from astropy.io import fits
from astropy.utils.exceptions import AstropyUserWarning

from tinsley.errors import InputError

Kind = Literal["real", "flags", "name", "label"]
"""What a column is read as: float64 with NaN for null; int64; int64 or str; str, "" for null."""

Columns = dict[str, np.ndarray]


class Table(Protocol):
    """A file whose columns can be read in pieces."""

    label: str
    columns: tuple[str, ...]
    typed: bool
    """False where everything is text, so that 12 may be a number or a name."""

    def pieces(self, kinds: Mapping[str, Kind], size: int, start: int) -> Iterator[Columns]:
        """Columns by name, `size` rows at a time (about), from row `start` on."""


def open_table(path: str | Path) -> Table:
    """Open a catalogue by its suffix: .fits, .parquet or .csv.

    Raises:
        InputError: No such file, another suffix, or not a file of its suffix's kind.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"catalogue {path} does not exist or is not a file; check the path.")
    kinds: dict[str, type[FitsTable] | type[ParquetTable] | type[CsvTable]] = {
        ".fits": FitsTable, ".fit": FitsTable, ".parquet": ParquetTable, ".pq": ParquetTable,
        ".csv": CsvTable,
    }  # fmt: skip
    if path.suffix.lower() not in kinds:
        raise InputError(
            f"catalogue {path} has the suffix {path.suffix!r}; "
            f"expected one of {', '.join(kinds)}; convert or rename it."
        )
    return kinds[path.suffix.lower()](path)


class FitsTable:
    """The first table with columns in a FITS file, memory-mapped."""

    typed = True

    def __init__(self, path: Path) -> None:
        self.path, self.label = path, str(path)
        try:
            with fits.open(path, memmap=True) as hdus, _own_check_of_length():
                self._hdu, self.columns = self._first_table(hdus)
        except (OSError, fits.VerifyError, ValueError, TypeError) as error:
            if isinstance(error, InputError):
                raise
            raise _unreadable(path, "FITS", error) from error

    def _first_table(self, hdus: fits.HDUList) -> tuple[int, tuple[str, ...]]:
        for number, hdu in enumerate(hdus):
            if isinstance(hdu, fits.BinTableHDU | fits.TableHDU) and hdu.columns.names:
                end = hdu.fileinfo()["datLoc"] + hdu.header["NAXIS1"] * hdu.header["NAXIS2"]
                if end > self.path.stat().st_size:
                    raise InputError(
                        f"{self.path} is cut short: its table needs {end} bytes and the file has "
                        f"{self.path.stat().st_size}; copy or download it again."
                    )
                return number, tuple(hdu.columns.names)
        raise InputError(f"{self.path} holds no table; expected a FITS binary table.")

    def pieces(self, kinds: Mapping[str, Kind], size: int, start: int) -> Iterator[Columns]:
        with fits.open(self.path, memmap=True) as hdus:
            with _own_check_of_length():
                data = hdus[self._hdu].data
            for low in range(start, len(data), size):
                rows = data[low : low + size]
                yield {k: _as_kind(rows[k], kind, k, self.label) for k, kind in kinds.items()}


class ParquetTable:
    """A Parquet file, read by row groups."""

    typed = True

    def __init__(self, path: Path) -> None:
        self.path, self.label = path, str(path)
        try:
            with pa.parquet.ParquetFile(path) as file:
                self.columns = tuple(file.schema_arrow.names)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(path, "Parquet", error) from error

    def pieces(self, kinds: Mapping[str, Kind], size: int, start: int) -> Iterator[Columns]:
        try:
            with pa.parquet.ParquetFile(self.path) as file:
                groups, skip = _groups_from(file.metadata, start)
                batches = file.iter_batches(size, row_groups=groups, columns=list(kinds))
                yield from _arrow_pieces(batches, kinds, skip, self.label)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(self.path, "Parquet", error) from error


class CsvTable:
    """A CSV file with a header line, read as a stream."""

    typed = False

    def __init__(self, path: Path) -> None:
        self.path, self.label = path, str(path)
        try:
            with path.open("rb") as file:
                line = file.readline(1 << 20).decode("utf-8-sig").strip()
        except UnicodeDecodeError as error:
            raise _unreadable(path, "CSV", error) from error
        names = [name.strip().strip('"') for name in line.split(",")]
        if not line or not all(name.isprintable() for name in names):
            raise InputError(f"{path} has no header line; expected names of columns and commas.")
        self.columns = tuple(names)

    def pieces(self, kinds: Mapping[str, Kind], size: int, start: int) -> Iterator[Columns]:
        text = pa.string()
        arrow = {"real": pa.float64(), "flags": pa.int64(), "name": text, "label": text}
        read = pa.csv.ReadOptions(column_names=list(self.columns), skip_rows=1, block_size=1 << 22)
        convert = pa.csv.ConvertOptions(
            include_columns=list(kinds),
            column_types={name: arrow[kind] for name, kind in kinds.items()},
        )
        try:
            with pa.csv.open_csv(self.path, read_options=read, convert_options=convert) as reader:
                yield from _arrow_pieces(iter(reader), kinds, start, self.label)
        except (pa.ArrowException, OSError) as error:
            raise _unreadable(self.path, "CSV", error) from error


class MemoryTable:
    """Columns in memory: an astropy table, a data frame or a dictionary of arrays."""

    typed, label = True, "the table"

    def __init__(self, table: Any) -> None:
        names = getattr(table, "colnames", None)
        self.columns: tuple[str, ...] = tuple(table.keys() if names is None else names)
        self._table = table

    def pieces(self, kinds: Mapping[str, Kind], size: int, start: int) -> Iterator[Columns]:
        arrays = {
            name: _as_kind(self._table[name], kind, name, self.label)
            for name, kind in kinds.items()
        }
        lengths = {len(array) for array in arrays.values()}
        if len(lengths) > 1:
            raise InputError(f"the columns of a table are of one length; got {sorted(lengths)}.")
        for low in range(start, max(lengths), size):
            yield {name: array[low : low + size] for name, array in arrays.items()}


@contextlib.contextmanager
def _own_check_of_length() -> Iterator[None]:
    """Silence astropy's warning of a short file, which `_first_table` turns into an error."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "File may have been truncated", AstropyUserWarning)
        yield


def _groups_from(metadata: pa.parquet.FileMetaData, start: int) -> tuple[list[int], int]:
    """Row groups from that of row `start` on, and how many of the first one's rows to skip."""
    low = 0
    for group in range(metadata.num_row_groups):
        rows = metadata.row_group(group).num_rows
        if low + rows > start:
            return list(range(group, metadata.num_row_groups)), start - low
        low += rows
    return [], 0


def _arrow_pieces(
    batches: Iterator[pa.RecordBatch], kinds: Mapping[str, Kind], skip: int, label: str
) -> Iterator[Columns]:
    for batch in batches:
        piece, skip = batch.slice(min(skip, len(batch))), max(skip - len(batch), 0)
        if len(piece):
            yield {k: _from_arrow(piece.column(k), kind, k, label) for k, kind in kinds.items()}


def _from_arrow(array: pa.Array, kind: Kind, name: str, label: str) -> np.ndarray:
    if pa.types.is_nested(array.type) and array.null_count:
        raise InputError(
            f"{label}: some rows have no vector in column {name!r}; give them one of NaN."
        )
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        lengths = set(array.value_lengths().to_pylist())
        if len(lengths) > 1:
            raise InputError(f"{label}: the vectors in column {name!r} differ in length.")
        flat, width = array.flatten(), lengths.pop()
    elif pa.types.is_fixed_size_list(array.type):
        flat, width = array.flatten(), array.type.list_size
    else:
        flat, width = array, None
    if kind == "name" and flat.null_count:
        raise InputError(f"{label}: column {name!r} is empty in some rows; every row needs a name.")
    if kind == "real" and pa.types.is_null(flat.type):
        flat = flat.cast(pa.float64())
    if kind == "label" and not pa.types.is_floating(flat.type):
        flat = flat.cast(pa.string()).fill_null("")
    values = flat.fill_null(0) if kind == "flags" else flat
    values = _as_kind(values.to_numpy(zero_copy_only=False), kind, name, label)
    return values if width is None else values.reshape(len(array), width)


def _as_kind(values: Any, kind: Kind, name: str, label: str) -> np.ndarray:
    """An array of the kind asked for, in the machine's byte order, masked values as NaN."""
    if isinstance(values, np.ma.MaskedArray) and kind == "real":
        values = np.ma.filled(values.astype(np.float64), np.nan)
    try:
        if kind == "real":
            vectors = np.asarray(values).dtype.kind == "O"  # as a data frame has them
            return np.array(list(values) if vectors else values, dtype=np.float64)
        read = {"flags": _whole, "name": _names, "label": _labels}[kind]
        return read(np.asarray(values))
    except (TypeError, ValueError) as error:
        expected = {"real": "numbers", "flags": "whole numbers"}.get(kind, "whole numbers or text")
        raise InputError(
            f"{label}: column {name!r} should hold {expected}: {_one_line(error)}."
        ) from error


def _whole(values: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        whole = values.astype(np.int64)
    if values.dtype.kind == "f" and not np.array_equal(whole, values):
        raise ValueError("some values have a fraction or are not finite")
    return whole


def _labels(values: np.ndarray) -> np.ndarray:
    """Words, of which some may be empty; numbers as they are written."""
    if values.dtype.kind == "f":
        raise ValueError("real numbers have lost the last digits of long names")
    words = values.tolist()
    words = (v.decode() if isinstance(v, bytes) else "" if v is None else str(v) for v in words)
    return np.array([word.strip() for word in words], dtype=np.str_)


def _names(values: np.ndarray) -> np.ndarray:
    if values.dtype.kind in "iu" and not (values.dtype == np.uint64 and np.any(values >> 63)):
        return values.astype(np.int64)
    if values.dtype.kind == "f":
        return _whole(values)
    if values.dtype.kind == "O" and any(value is None for value in values):
        raise ValueError("some rows are empty")
    if values.dtype.kind in "SO":
        words = (v.decode() if isinstance(v, bytes) else str(v) for v in values.tolist())
        values = np.array([word.strip() for word in words], dtype=np.str_)
    if np.any(values.astype(np.str_) == ""):
        raise ValueError("some rows are empty")
    return values.astype(np.str_)


def _unreadable(path: Path, kind: str, error: Exception) -> InputError:
    return InputError(
        f"{path} is not a {kind} file that can be read ({_one_line(error)}); "
        "check that it is complete and of the kind that its suffix says."
    )


def _one_line(error: Exception) -> str:
    """The first sentence of an error that came from a library."""
    return " ".join(str(error).split()).split(". ")[0].rstrip(".")[:200]


def named(columns: Sequence[str], name: str) -> str | None:
    """The column called `name`: as written, else whatever its case, else None."""
    if name in columns:
        return name
    same = [column for column in columns if column.lower() == name.lower()]
    return same[0] if len(same) == 1 else None
