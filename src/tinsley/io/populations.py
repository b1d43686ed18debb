"""What a population run reads and writes beside its checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import tinsley
from tinsley.errors import InputError
from tinsley.io.catalogs import Catalog
from tinsley.io.parameters import read_parameters
from tinsley.io.results import write_json, write_parquet
from tinsley.population.reference import Reference, fit_reference, uniform_reference
from tinsley.population.space import PopulationSpace
from tinsley.population.synthetic import Selection
from tinsley.sps.galaxy import GalaxyModel

TABLE, MANIFEST = "population.parquet", "manifest.json"
UNIFORM = "uniform"


def read_whole_photometry(
    catalog: Catalog, selection: Selection
) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
    """Flux and error of the galaxies that have every band and pass the cut, and what was left out.

    Raises:
        InputError: A band is measured nowhere.
    """
    rows = next(catalog.chunks(catalog.n_rows))
    usable = rows.usable
    absent = ~rows.mask[usable].any(axis=0)
    if usable.any() and absent.any():
        names = [b for b, gone in zip(catalog.survey.bands, absent, strict=True) if gone]
        raise InputError(
            f"no galaxy is measured in {', '.join(names)}; a population needs every band of survey "
            f"{catalog.survey.name!r}: add the band, or give a survey file without it."
        )
    whole = usable & rows.mask.all(axis=1)
    kept = whole & selection.passes(rows.flux, rows.sigma)
    counts = {
        "rows": len(rows),
        "bad_input": int((~usable).sum()),
        "band_missing": int((usable & ~whole).sum()),
        "below_cut": int((whole & ~kept).sum()),
        "used": int(kept.sum()),
    }
    return rows.flux[kept], rows.sigma[kept], counts


def read_prior(name: str, space: PopulationSpace, model: GalaxyModel) -> Reference:
    """The centre of the hyperprior: "uniform", or a table of galaxies that are like the population.

    Of a table (every parameter and `redshift`; the `population.parquet` of another run is one) the
    mean and the covariance in the unbounded space count.

    Raises:
        InputError: The table can not be read, or holds too few galaxies.
    """
    if name == UNIFORM:
        return uniform_reference(space.n_dim)
    theta = read_parameters(name, model)
    number = len(theta["redshift"])
    if number < 20 * space.n_dim:
        raise InputError(
            f"prior {name} holds {number} galaxies; expected at least {20 * space.n_dim}."
        )
    return fit_reference(space.unbounded(theta))


def save_population(
    out: Path, columns: dict[str, np.ndarray], manifest: dict[str, Any], seed: int
) -> None:
    """Write the draws and the manifest."""
    words = {"format": "1", "tinsley": tinsley.__version__, "seed": str(seed)}
    write_parquet(out / TABLE, columns, words)
    write_json(out / MANIFEST, manifest)
