"""Filter curves, by speclite's names or from a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tinsley.errors import InputError
from tinsley.observe.filters import Filter


def load_filter(name: str | Path) -> Filter:
    """A filter by speclite's name ("sdss2010-u", "lsst2023-g", "Euclid-VIS") or from a file.

    Args:
        name: A name that speclite knows, or the path of a text file with two columns:
            wavelength in Angstrom (vacuum), photon response.

    Raises:
        InputError: If neither a name nor a readable file.
    """
    path = Path(name)
    if path.suffix or path.exists():
        return _from_file(path)
    from speclite.filters import load_filter as speclite_filter

    try:
        curve = speclite_filter(str(name))
    except (ValueError, RuntimeError) as problem:
        raise InputError(
            f"no filter named {name!r}: expected a speclite name such as sdss2010-u, or a text "
            "file with columns wavelength_aa and response."
        ) from problem
    return _trimmed(str(name), np.asarray(curve.wavelength, float), np.asarray(curve.response))


def load_filters(names: list[str] | tuple[str, ...]) -> tuple[Filter, ...]:
    """`load_filter` for each name."""
    return tuple(load_filter(name) for name in names)


def _from_file(path: Path) -> Filter:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = [line for line in lines if line.partition("#")[0].strip()]
        table = np.loadtxt(rows, ndmin=2) if rows else np.empty((0, 0))
        return _trimmed(path.stem, table[:, 0], table[:, 1])
    except (OSError, ValueError, IndexError) as problem:
        raise InputError(
            f"filter file {path}: expected two columns of numbers, wavelength in Angstrom and "
            f"response; {problem}"
        ) from problem


def _trimmed(name: str, wave_aa: np.ndarray, response: np.ndarray) -> Filter:
    used = np.flatnonzero(response > 0)
    if not len(used):
        raise InputError(f"filter {name}: the response is 0 everywhere; check its columns.")
    keep = slice(max(used[0] - 1, 0), used[-1] + 2)
    return Filter(name, wave_aa[keep], np.maximum(response[keep], 0.0))
