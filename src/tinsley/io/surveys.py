"""Surveys from TOML files: adding one is writing a file like `data/surveys/sdss.toml`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from tinsley.errors import InputError
from tinsley.io.packaged import DATA, packaged_names, read_toml
from tinsley.observe.survey import NATIVE, Layout, Least, Quality, Survey

SURVEYS = DATA / "surveys"

MIN_EIGENVALUE = 1e-3
"""Of a correlation of errors: single precision takes no less."""

_NEEDS = ("ab_offset", "error_floor")
_SURVEY_KEYS = {
    "name", "about", "bands", "filters", "error_floor_mag", "ab_offset_mag",
    "extinction_mag_per_ebv", "error_correlation", "noise", "layouts",
}  # fmt: skip
_NOISE_KEYS = {"snr_min", "snr_max", "catalog"}
_LAYOUT_KEYS = {
    "name", "redshift", "flux", "error", "error_kind", "object_id", "index", "extinction", "ebv",
    "unit_nmgy", "limit", "limit_sigmas", "needs", "quality", "redshift_err", "redshift_pdf",
    "redshift_grid", "least",
}  # fmt: skip
_LEAST_KEYS = {"column", "value", "minus", "missing"}
_QUALITY_KEYS = {"column", "reject_any", "reject_all", "require_all"}


def survey_names() -> list[str]:
    """Names of the surveys that come with the package."""
    return packaged_names(SURVEYS)


def load_survey(name: str | Path) -> Survey:
    """A survey by name, or from a TOML file.

    Args:
        name: One of `survey_names()`, or the path of a file that ends in ".toml".

    Raises:
        InputError: The survey is unknown, or its file is not a survey's.
    """
    table, path = read_toml(name, "survey", SURVEYS)
    return _survey(table, path)


def _survey(table: dict[str, Any], path: Path) -> Survey:
    where = f"survey file {path}"
    _check_keys(table, _SURVEY_KEYS, {"name", "bands", "filters"}, where)
    bands = _words(table["bands"], f"{where}: bands")
    filters = _words(table["filters"], f"{where}: filters")
    if not bands or len(set(bands)) < len(bands) or len(filters) != len(bands):
        raise InputError(
            f"{where}: expected different bands with one filter each; got bands "
            f"{list(bands)} with filters {list(filters)}."
        )
    layouts = [_layout(entry, len(bands), where) for entry in _entries(table, "layouts", where)]
    return Survey(
        name=_word(table["name"], f"{where}: name"),
        bands=bands,
        filters=filters,
        error_floor_mag=_per_band(table, "error_floor_mag", bands, where),
        ab_offset_mag=_per_band(table, "ab_offset_mag", bands, where),
        extinction_mag_per_ebv=_per_band(table, "extinction_mag_per_ebv", bands, where),
        noise=_noise(table.get("noise", {}), path),
        layouts=(NATIVE, *layouts),
        error_correlation=_correlation(table, bands, where),
    )


def _correlation(table: dict[str, Any], bands: tuple[str, ...], where: str) -> np.ndarray | None:
    if "error_correlation" not in table:
        return None
    rows = _entries(table, "error_correlation", where)
    whole = len(rows) == len(bands) and all(
        isinstance(row, list) and len(row) == len(bands) and all(map(_is_real, row)) for row in rows
    )
    if not whole:
        raise InputError(
            f"{where}: error_correlation needs {len(bands)} rows of {len(bands)} finite numbers, "
            f"one for each of {' '.join(bands)}; got {rows}."
        )
    matrix = np.asarray(rows, dtype=np.float64)
    if np.any(matrix != matrix.T) or np.any(np.diag(matrix) != 1.0):
        raise InputError(
            f"{where}: error_correlation is symmetric, with 1 on its diagonal; got {rows}."
        )
    least = np.linalg.eigvalsh(matrix)[0]
    if least < MIN_EIGENVALUE:
        raise InputError(
            f"{where}: error_correlation must be positive definite, with eigenvalues of at least "
            f"{MIN_EIGENVALUE}; its least is {least:.2g}. Lower the correlations."
        )
    return matrix


def _per_band(table: dict[str, Any], key: str, bands: tuple[str, ...], where: str) -> np.ndarray:
    values = table.get(key, [0.0] * len(bands))
    if not isinstance(values, list) or len(values) != len(bands) or not all(map(_is_real, values)):
        raise InputError(
            f"{where}: {key} needs {len(bands)} finite numbers, one for each of "
            f"{' '.join(bands)}; got {values}."
        )
    if key != "ab_offset_mag" and min(values) < 0:
        raise InputError(f"{where}: {key} can not be negative; got {values}.")
    return np.asarray(values, dtype=np.float64)


def _noise(entry: dict[str, Any], path: Path) -> dict[str, Any]:
    where = f"survey file {path}: noise"
    _check_keys(entry, _NOISE_KEYS, set(), where)
    low, high = entry.get("snr_min", 1.0), entry.get("snr_max", 200.0)
    if not (_is_real(low) and _is_real(high) and 0 < low < high):
        raise InputError(f"{where}: expected 0 < snr_min < snr_max; got {low} and {high}.")
    settings: dict[str, Any] = {"snr_min": float(low), "snr_max": float(high)}
    if "catalog" in entry:
        name = _word(entry["catalog"], f"{where}: catalog")
        beside = path.parent / name
        settings["catalog"] = str(beside if beside.exists() else SURVEYS.parent / name)
    return settings


def _layout(entry: dict[str, Any], n_bands: int, where: str) -> Layout:
    _check_keys(entry, _LAYOUT_KEYS, {"name", "redshift", "flux", "error", "error_kind"}, where)
    name = _word(entry["name"], f"{where}: name of a layout")
    where = f"{where}: layout {name!r}"
    if name == NATIVE.name:
        raise InputError(f"{where} is built in and the same for all surveys; choose another name.")
    columns = {
        key: _word(entry[key], f"{where}: {key}")
        for key in ("flux", "error", "object_id", "extinction", "ebv", "limit", "redshift_pdf")
        if key in entry
    }
    layout = Layout(
        name=name,
        redshift=_word_or_words(entry["redshift"], f"{where}: redshift"),
        redshift_err=_word_or_words(entry.get("redshift_err", []), f"{where}: redshift_err"),
        redshift_grid=_grid(entry, where),
        error_kind=entry["error_kind"],
        index=tuple(_entries(entry, "index", where)) or None,
        unit_nmgy=entry.get("unit_nmgy", 1.0),
        limit_sigmas=entry.get("limit_sigmas", 3.0),
        needs=_words(entry.get("needs", []), f"{where}: needs"),
        quality=tuple(_quality(cut, where) for cut in _entries(entry, "quality", where)),
        least=tuple(_least(cut, f"{where}: least") for cut in _entries(entry, "least", where)),
        **columns,
    )
    _check_layout(layout, n_bands, where)
    return layout


def _grid(entry: dict[str, Any], where: str) -> str | tuple[float, ...] | None:
    """The redshifts of a p(z): a column, or the numbers themselves."""
    grid = entry.get("redshift_grid")
    if (grid is None) != ("redshift_pdf" not in entry):
        raise InputError(f"{where}: give redshift_pdf and redshift_grid together, or neither.")
    if grid is None:
        return None
    if isinstance(grid, str):
        return _word(grid, f"{where}: redshift_grid")
    numbers = isinstance(grid, list) and len(grid) > 1 and all(map(_is_real, grid))
    if not numbers or np.any(np.diff(grid) <= 0):
        raise InputError(
            f"{where}: redshift_grid is the name of a column, or at least two increasing numbers; "
            f"got {grid!r}."
        )
    return tuple(map(float, grid))


def _check_layout(layout: Layout, n_bands: int, where: str) -> None:
    if layout.error_kind not in ("sigma", "ivar"):
        raise InputError(f"{where}: error_kind is 'sigma' or 'ivar'; got {layout.error_kind!r}.")
    if not set(layout.needs) <= set(_NEEDS):
        raise InputError(f"{where}: needs lists some of {_NEEDS}; got {list(layout.needs)}.")
    for key in ("unit_nmgy", "limit_sigmas"):
        if not _is_real(value := getattr(layout, key)) or value <= 0:
            raise InputError(f"{where}: {key} is a positive number; got {value!r}.")
    if layout.extinction is not None and layout.ebv is not None:
        raise InputError(f"{where}: give extinction or ebv, not both.")
    names = (layout.flux, layout.error, layout.extinction, layout.limit)
    vectors = [name for name in names if name is not None and "{band}" not in name]
    index = layout.index or ()
    whole = all(type(i) is int and i >= 0 for i in index)
    if vectors and not (whole and len(set(index)) == n_bands == len(index)):
        raise InputError(
            f"{where}: the vector column {vectors[0]!r} needs index, the position of each of the "
            f"{n_bands} bands in it; got {list(index)}. "
            'For one column per band write "{band}" in the name.'
        )


def _quality(entry: dict[str, Any], where: str) -> Quality:
    _check_keys(entry, _QUALITY_KEYS, {"column"}, f"{where}: quality")
    bits = {key: entry[key] for key in _QUALITY_KEYS & entry.keys() if key != "column"}
    if not bits or not all(type(value) is int and value > 0 for value in bits.values()):
        raise InputError(f"{where}: quality needs positive whole numbers of bits; got {bits}.")
    return Quality(_word(entry["column"], f"{where}: column of quality"), **bits)


def _least(entry: dict[str, Any], where: str) -> Least:
    _check_keys(entry, _LEAST_KEYS, {"column", "value"}, where)
    numbers = [entry["value"], *_entries(entry, "missing", where)]
    if not all(map(_is_real, numbers)):
        raise InputError(f"{where}: value and missing are finite numbers; got {numbers}.")
    minus = _word(entry["minus"], f"{where}: minus") if "minus" in entry else None
    column = _word(entry["column"], f"{where}: column")
    return Least(column, float(entry["value"]), minus, tuple(map(float, numbers[1:])))


def _check_keys(entry: Any, known: Iterable[str], required: set[str], where: str) -> None:
    if not isinstance(entry, dict):
        raise InputError(f"{where}: expected a table of keys and values; got {entry!r}.")
    if missing := sorted(required - entry.keys()):
        raise InputError(f"{where} lacks {', '.join(missing)}; sdss.toml shows how it is given.")
    if unknown := sorted(entry.keys() - set(known)):
        raise InputError(
            f"{where} has the unknown key {unknown[0]!r}; known are {', '.join(sorted(known))}."
        )


def _entries(table: dict[str, Any], key: str, where: str) -> list[Any]:
    if not isinstance(entries := table.get(key, []), list):
        raise InputError(f"{where}: {key} should be a list; got {entries!r}.")
    return entries


def _word(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise InputError(f"{where}: expected a word in quotes; got {value!r}.")
    return value


def _words(values: Any, where: str) -> tuple[str, ...]:
    if not isinstance(values, list):
        raise InputError(f"{where}: expected a list of words; got {values!r}.")
    return tuple(_word(value, where) for value in values)


def _word_or_words(value: Any, where: str) -> tuple[str, ...]:
    return _words([value] if isinstance(value, str) else value, where)


def _is_real(value: Any) -> bool:
    return type(value) in (int, float) and bool(np.isfinite(value))
