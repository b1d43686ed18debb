"""Band tables whose integrals are kept on disk, under a key of everything that they depend on."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np

from tinsley.errors import InputError
from tinsley.io.results import new_file
from tinsley.observe.filters import Filter
from tinsley.observe.nodes import band_panels
from tinsley.observe.photometry import BandTables, make_band_tables, tabulate_ssps
from tinsley.sps.galaxy import GalaxyModel, RedshiftGrid
from tinsley.sps.ssp import SspGrid

_FORMAT = 2
"""Raise when `tabulate_ssps` comes to give other numbers for the same input."""


def load_band_tables(
    model: GalaxyModel,
    filters: tuple[Filter, ...],
    grid: RedshiftGrid,
    folder: Path | None = None,
) -> BandTables:
    """`make_band_tables`; the second call reads the integrals instead of doing them.

    Args:
        model: The physics.
        filters: The bands.
        grid: Redshift nodes.
        folder: Where to keep them; by default `cache_folder()`. Where nothing can be written they
            are done anew each time.
    """
    path = (folder or cache_folder()) / f"ssp-bands-{_key(model.ssp, filters, grid)}.npy"
    flux = _read(path)
    if flux is None:
        flux = tabulate_ssps(model.ssp, filters, grid).astype(np.float32)
        _keep(path, flux)
    return make_band_tables(model, filters, grid, flux)


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/tinsley`, or `~/.cache/tinsley`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tinsley"


def _read(path: Path) -> np.ndarray | None:
    """The array on disk, None where there is none or it is damaged."""
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None


def _keep(path: Path, flux: np.ndarray) -> None:
    """Write the array if that is possible: a cache that fails costs time, nothing else."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path) as file:
            np.save(file, flux, allow_pickle=False)
    except (OSError, InputError):
        return


def _key(ssp: SspGrid, filters: tuple[Filter, ...], grid: RedshiftGrid) -> str:
    digest = hashlib.sha256(repr((_FORMAT, grid.z_min, grid.z_max, grid.number)).encode())
    digest.update(repr(ssp.lsun_erg_s).encode())
    for array in (ssp.log10_z_zsun, ssp.log10_age_yr, ssp.wave_rest_aa, ssp.lum_lsun_aa):
        digest.update(np.ascontiguousarray(array).tobytes())
    for band in filters:
        digest.update(np.ascontiguousarray(band.wave_aa).tobytes())
        digest.update(np.ascontiguousarray(band.response).tobytes())
        for panel in band_panels(band):
            digest.update(repr((panel.low_aa, panel.high_aa, panel.nodes_aa.tolist())).encode())
    return digest.hexdigest()[:24]
