"""SSP grids on disk: Tinsley's own compact HDF5, and DSPS's; the light of gas for them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tinsley.errors import InputError
from tinsley.sps.nebular import NebularGrid
from tinsley.sps.ssp import Z_SUN, SspGrid, linear_weights

FORMAT = "tinsley-ssp"
FORMAT_NUMBER = 1
EMBEDDED = "ssp_bc03_miles.h5"
NEBULAR = "nebular_bc03_miles.h5"

_C_AA_S = 2.99792458e18  # speed of light, Angstrom/s
_FAINTEST = 1e-20  # of a spectrum's peak; what is fainter is stored as 0
_CODES = 65534  # steps of the 16-bit code: 1 to 65535; 0 stands for no light
_UNITS = {
    "log10_z_zsun": "log10(Z / 0.019)",
    "log10_age_yr": "log10(yr)",
    "wave_rest_aa": "Angstrom, vacuum",
    "live_fraction": "per mass formed",
}


def load_ssp_grid(path: Path | None = None) -> SspGrid:
    """Read an SSP grid.

    Args:
        path: A file that `save_ssp_grid` wrote, or a DSPS-format HDF5 file with `ssp_lgmet`
            (log10 of absolute Z), `ssp_lg_age_gyr`, `ssp_wave` (Angstrom, vacuum) and `ssp_flux`
            (Lsun/Hz/Msun, [met, age, wave]). DSPS counts in Lsun = 3.828e33 erg/s and keeps no
            living fractions: a dataset `live_fraction` [met, age] is used where there is one, else
            those of the embedded grid, and `about` says so. None: the embedded BC03-MILES grid.

    Returns:
        The grid, float64.

    Raises:
        InputError: If the file is missing, broken, or of another format.
    """
    if path is not None:
        return _load(Path(path))
    with as_file(files("tinsley") / "data" / EMBEDDED) as embedded:
        return _load(embedded)


def save_ssp_grid(grid: SspGrid, path: Path) -> None:
    """Write a grid: ln(luminosity) in 16 bits, scaled for each spectrum.

    A luminosity comes back within 4e-4 of itself (less where a spectrum's range is below 1e20);
    one fainter than 1e-20 of its spectrum's peak comes back as 0.

    Args:
        grid: The grid.
        path: Where to; an existing file is replaced only once the new one is whole.
    """
    code, ln_low, ln_step = _encode(grid.lum_lsun_aa)
    with _new_hdf5(path) as file:
        file.attrs["format"] = FORMAT
        file.attrs["format_number"] = FORMAT_NUMBER
        file.attrs["tinsley_version"] = version("tinsley")
        file.attrs["name"] = grid.name
        file.attrs["lsun_erg_s"] = grid.lsun_erg_s
        file.create_group("about").attrs.update(grid.about)
        for name, unit in _UNITS.items():
            file.create_dataset(name, data=getattr(grid, name)).attrs["unit"] = unit
        lum = file.create_dataset(
            "lum_code",
            data=code,
            chunks=(1, *code.shape[1:]),
            compression="gzip",
            compression_opts=9,
            shuffle=True,
        )
        lum.attrs["meaning"] = "ln(Lsun/Angstrom/Msun) = low + step * (code - 1); 0: no light"
        lum.attrs["axes"] = "met, age, wave"
        file.create_dataset("ln_lum_low", data=ln_low)
        file.create_dataset("ln_lum_step", data=ln_step)


def load_nebular_grid() -> NebularGrid:
    """The embedded light of the gas around young stars: Cloudy's, for the BC03-MILES grid."""
    with as_file(files("tinsley") / "data" / NEBULAR) as path, h5py.File(path, "r") as file:
        return NebularGrid(
            **{name: np.asarray(file[name][()], np.float64) for name in file if name != "about"},
            lsun_erg_s=float(file.attrs["lsun_erg_s"]),
            about={key: str(text) for key, text in file["about"].attrs.items()},
        )


def save_nebular_grid(grid: NebularGrid, path: Path) -> None:
    """Write a grid in 32 bits; an existing file is replaced only once the new one is whole."""
    with _new_hdf5(path) as file:
        file.attrs["lsun_erg_s"] = grid.lsun_erg_s
        file.create_group("about").attrs.update(grid.about)
        for name in grid.arrays:
            values = np.asarray(getattr(grid, name), np.float32)
            file.create_dataset(name, data=values, compression="gzip", shuffle=True)


@contextmanager
def _new_hdf5(path: Path) -> Iterator[h5py.File]:
    """A file that is at `path` once it is whole."""
    part = Path(f"{path}.part")
    try:
        with h5py.File(part, "w") as file:
            yield file
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _load(path: Path) -> SspGrid:
    if not path.is_file():
        raise InputError(f"SSP grid {path}: no such file.")
    try:
        with h5py.File(path, "r") as file:
            return _from_dsps(file, path) if "ssp_flux" in file else _from_tinsley(file, path)
    except InputError:
        raise
    except (OSError, RuntimeError) as problem:
        raise InputError(
            f"SSP grid {path}: expected an HDF5 file; it is none, or cut short or damaged. "
            "Fetch or make it again."
        ) from problem
    except (ValueError, TypeError) as problem:
        raise InputError(f"SSP grid {path}: {problem}") from problem


def _from_tinsley(file: h5py.File, path: Path) -> SspGrid:
    if file.attrs.get("format") != FORMAT:
        raise InputError(
            f"SSP grid {path}: expected a Tinsley or a DSPS grid; got an HDF5 file with "
            f"{', '.join(sorted(file)) or 'nothing'} in it."
        )
    number = int(file.attrs.get("format_number", -1))
    if number != FORMAT_NUMBER:
        raise InputError(
            f"SSP grid {path}: expected format number {FORMAT_NUMBER}; got {number}. "
            "Make the file again with this version of Tinsley."
        )
    columns: dict[str, Any] = {name: _read(file, name, path) for name in _UNITS}
    lum = _decode(*(_read(file, name, path) for name in ("lum_code", "ln_lum_low", "ln_lum_step")))
    about = file["about"].attrs.items() if "about" in file else ()
    return SspGrid(
        **columns,
        lum_lsun_aa=lum,
        name=str(_attribute(file, "name", path)),
        lsun_erg_s=float(_attribute(file, "lsun_erg_s", path)),
        about={key: str(text) for key, text in about},
    )


def _from_dsps(file: h5py.File, path: Path) -> SspGrid:
    log10_z_zsun = _read(file, "ssp_lgmet", path) - np.log10(Z_SUN)
    log10_age_yr = _read(file, "ssp_lg_age_gyr", path) + 9.0
    wave = _read(file, "ssp_wave", path)
    lum_lsun_hz = _read(file, "ssp_flux", path)
    about = {"source": f"DSPS file {path.name}"}
    if "live_fraction" in file:
        live = _read(file, "live_fraction", path)
    else:
        live = _embedded_live_fraction(log10_z_zsun, log10_age_yr)
        about["live_fraction"] = "not in the file: those of the embedded BC03-MILES grid"
    return SspGrid(
        log10_z_zsun=log10_z_zsun,
        log10_age_yr=log10_age_yr,
        wave_rest_aa=wave,
        lum_lsun_aa=lum_lsun_hz * (_C_AA_S / wave**2),
        live_fraction=live,
        name=path.stem,
        about=about,
    )


def _read(file: h5py.File, name: str, path: Path) -> np.ndarray:
    if not isinstance(file.get(name), h5py.Dataset):
        raise InputError(f"SSP grid {path}: dataset {name!r} is missing.")
    values = file[name][()]
    return values if values.dtype == np.uint16 else np.asarray(values, np.float64)


def _attribute(file: h5py.File, name: str, path: Path) -> str | float:
    if name not in file.attrs:
        raise InputError(f"SSP grid {path}: attribute {name!r} is missing.")
    return file.attrs[name]


def _embedded_live_fraction(log10_z_zsun: np.ndarray, log10_age_yr: np.ndarray) -> np.ndarray:
    own = load_ssp_grid()
    by_met = linear_weights(own.log10_z_zsun, log10_z_zsun)
    by_age = linear_weights(own.log10_age_yr, log10_age_yr)
    return by_met @ own.live_fraction @ by_age.T


def _encode(lum: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    lit = lum > _FAINTEST * lum.max(axis=-1, keepdims=True)
    ln_lum = np.log(lum, out=np.zeros(lum.shape), where=lit)
    low = np.min(ln_lum, axis=-1, where=lit, initial=np.inf)
    high = np.max(ln_lum, axis=-1, where=lit, initial=-np.inf)
    low, high = (np.where(np.isfinite(edge), edge, 0.0) for edge in (low, high))
    step = np.maximum((high - low) / _CODES, 1e-12)
    code = np.rint((ln_lum - low[..., None]) / step[..., None]) + 1
    return np.where(lit, code, 0).astype(np.uint16), low, step


def _decode(code: np.ndarray, low: np.ndarray, step: np.ndarray) -> np.ndarray:
    ln_lum = low[..., None] + step[..., None] * (code - 1.0)
    return np.where(code > 0, np.exp(ln_lum), 0.0)
