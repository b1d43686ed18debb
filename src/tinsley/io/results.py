"""Results on disk: a file appears whole or not at all, written beside its name and then moved."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from tinsley.errors import InputError


def make_folder(path: Path, purpose: str = "results") -> Path:
    """The folder, made if it is not there, with those above it.

    Raises:
        InputError: It can not be made; the message says what for.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise InputError(
            f"{path} can not be made a folder for {purpose}: {problem.strerror or problem}."
        ) from problem
    return path


@contextlib.contextmanager
def new_file(path: str | Path) -> Iterator[IO[bytes]]:
    """A file to write bytes into, at `path` once it is complete.

    Raises:
        InputError: The disk is full, or the folder is not there or can not be written to.
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            yield file
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise _not_written(path, error) from error
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_parquet(
    path: str | Path, columns: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Write columns of equal length as Parquet, with words about them in the schema."""
    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    table = table.replace_schema_metadata(dict(metadata))
    with new_file(path) as file:
        pa.parquet.write_table(table, file, compression="zstd")


def write_csv(path: str | Path, columns: Mapping[str, np.ndarray]) -> None:
    """Write columns of equal length as CSV with a header line."""
    with new_file(path) as file:
        pa.csv.write_csv(pa.table({name: pa.array(col) for name, col in columns.items()}), file)


def write_table(path: str | Path, columns: Mapping[str, np.ndarray]) -> None:
    """Write columns as the suffix of `path` says: .parquet or .csv.

    Raises:
        InputError: Another suffix, or the file can not be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".parquet":
        write_parquet(path, columns, {})
    elif suffix == ".csv":
        write_csv(path, columns)
    else:
        raise InputError(f"{path} can not be written: expected a name in .parquet or .csv.")


def write_json(path: str | Path, value: Any) -> None:
    """Write plain data as indented JSON; what JSON has no word for (NaN, infinity) is refused."""
    text = json.dumps(value, indent=1, allow_nan=False) + "\n"
    with new_file(path) as file:
        file.write(text.encode("utf-8"))


def _not_written(path: Path, error: OSError) -> InputError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return InputError(
            f"{path} can not be written: the disk is full; free some space or choose another "
            "folder, then run the same command again."
        )
    return InputError(f"{path} can not be written: {error.strerror or error}.")
