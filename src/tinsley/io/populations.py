"""What a population run reads and writes beside its checkpoints."""

from __future__ import annotations

import dataclasses
import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Array

import tinsley
from tinsley.cosmology import make_cosmology
from tinsley.errors import InputError
from tinsley.infer.prior import draw_prior
from tinsley.io.catalogs import Catalog
from tinsley.io.checkpoints import load_best
from tinsley.io.completeness import completeness_from_dict
from tinsley.io.models import build_model, build_tables
from tinsley.io.parameters import read_parameters
from tinsley.io.priors import PriorFile, load_prior, prior_names
from tinsley.io.results import write_json, write_parquet
from tinsley.observe.noise import AbstractNoise, noise_from_dict
from tinsley.observe.photometry import BandTables
from tinsley.observe.survey import Photometry, Survey, with_redshift_range
from tinsley.parameters import Theta, param_space_from_dict
from tinsley.population.density import AbstractPopulation, make_population
from tinsley.population.reference import Reference, fit_reference, uniform_reference
from tinsley.population.space import REDSHIFT, PopulationSpace
from tinsley.population.synthetic import Selection, parse_selection
from tinsley.sps.derived import DerivedTables
from tinsley.sps.galaxy import GalaxyModel
from tinsley.status import Status

TABLE, MANIFEST = "population.parquet", "manifest.json"
UNIFORM = "uniform"
_LEAST_OF_FLOOR = 0.1
_PRIOR_DRAWS = 200_000


def read_whole_rows(
    catalog: Catalog,
    selection: Selection,
    redshift_range: tuple[float, float] | None = None,
) -> tuple[Photometry, dict[str, int]]:
    """The galaxies that have every band and pass the cut, and how many were left out, and why.

    Their errors are those that the table quotes, without the survey's floor: that stands for the
    calibration and the models, whose errors galaxies share. It does not scatter them, and as noise
    it would blur a population more than the survey does.

    Args:
        catalog: The galaxies.
        selection: The cut that they have passed.
        redshift_range: Galaxies whose redshift is not in it, or not there, are left out too; None
            where redshifts do not matter.

    Raises:
        InputError: A band is measured nowhere; redshifts that matter are not exact.
    """
    rows = _with_quoted_errors(next(catalog.chunks(catalog.n_rows)), catalog.survey)
    if redshift_range is not None:
        rows = _at_known_redshifts(rows, redshift_range)
    usable, elsewhere = rows.usable, rows.status == Status.REDSHIFT_OUT_OF_RANGE
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
        "bad_input": int((~usable & ~elsewhere).sum()),
        "redshift_out_of_range": int(elsewhere.sum()),
        "band_missing": int((usable & ~whole).sum()),
        "below_cut": int((whole & ~kept).sum()),
        "used": int(kept.sum()),
    }
    return rows.take(kept), counts


def _with_quoted_errors(rows: Photometry, survey: Survey) -> Photometry:
    """Errors without the floor, and a tenth of it at least: none is 0 where it was all there is."""
    sigma = survey.measured_sigma(rows.flux, rows.sigma)
    least = _LEAST_OF_FLOOR * survey.floor_nmgy(rows.flux)
    return dataclasses.replace(rows, sigma=np.maximum(sigma, least))


def _at_known_redshifts(rows: Photometry, redshift_range: tuple[float, float]) -> Photometry:
    if rows.redshift_prior is not None:
        raise InputError(
            "--redshift given needs exact redshifts, and these have errors or a p(z): leave them "
            "to the photometry (--redshift free), or drop the column to take them as exact."
        )
    return with_redshift_range(rows, *redshift_range)


def read_prior(
    name: str, space: PopulationSpace, model: GalaxyModel, derived_tables: DerivedTables
) -> Reference:
    """The centre of the hyperprior: mean and covariance, in the unbounded space, of a prior.

    Args:
        name: "uniform"; a prior by name or a .toml file, as `tinsley infer --prior` takes them; or
            a table of galaxies that are like the population, with every parameter and `redshift`
            (the `population.parquet` of another run is one), of which those at other redshifts do
            not count.
        space: Where the population lives.
        model: What the table's parameters are checked against.
        derived_tables: For priors on derived properties.

    Raises:
        InputError: The table can not be read, or holds too few galaxies; no such prior.
    """
    if name == UNIFORM:
        return uniform_reference(space.n_dim)
    if name in prior_names() or Path(name).suffix == ".toml":
        theta, weight = _draw(load_prior(name), space, derived_tables)
    else:
        theta = read_parameters(name, model)
        low, high = space.redshift_range
        inside = (theta[REDSHIFT] > low) & (theta[REDSHIFT] < high)
        theta = {key: value[inside] for key, value in theta.items()}
        weight = jnp.full(int(inside.sum()), 1.0) / inside.sum()
    number = 1 / float(jnp.sum(weight**2)) if len(weight) else 0
    if number < 20 * space.n_dim:
        low, high = space.redshift_range
        raise InputError(
            f"prior {name} holds {number:.0f} galaxies at redshifts {low:g}-{high:g}; expected at "
            f"least {20 * space.n_dim}."
        )
    return fit_reference(space.unbounded(theta), weight)


def _draw(
    prior: PriorFile, space: PopulationSpace, derived_tables: DerivedTables
) -> tuple[Theta, Array]:
    """Weighted galaxies of a prior."""
    parts = space.space, derived_tables, space.redshift_range, prior.entries
    try:
        values, weight = draw_prior(*parts, _PRIOR_DRAWS, key=jax.random.key(0))
    except ValueError as problem:
        raise InputError(f"prior {prior.name}: {problem}") from problem
    return {name: values[name] for name in (REDSHIFT, *space.space.names)}, weight


def save_population(
    out: Path, columns: dict[str, np.ndarray], manifest: dict[str, Any], seed: int
) -> None:
    """Write the draws and the manifest."""
    words = {"format": "1", "tinsley": tinsley.__version__, "seed": str(seed)}
    write_parquet(out / TABLE, columns, words)
    write_json(out / MANIFEST, manifest)


@dataclass(frozen=True, eq=False)
class FittedPopulation:
    """A finished run, read back.

    Attributes:
        columns: Of `population.parquet`, as the summaries take them.
        manifest: Of the run.
        space: Where its members live; the default cosmology's.
        members: Densities of the galaxies as observed, in the order of the numbers in `member`.
        noise: p(sigma | true flux) of the catalogue.
        selection: The cut that it has passed.
    """

    columns: dict[str, np.ndarray]
    manifest: dict[str, Any]
    space: PopulationSpace
    members: tuple[AbstractPopulation, ...]
    noise: AbstractNoise
    selection: Selection

    @property
    def bands(self) -> tuple[str, ...]:
        """Of the catalogue."""
        return tuple(self.manifest["bands"])

    @property
    def survey(self) -> tuple[AbstractNoise, Selection]:
        """How the catalogue was recorded, as `tinsley.population.forecast` takes it."""
        return self.noise, self.selection

    @property
    def model(self) -> GalaxyModel:
        """The run's physics: the embedded, with its nebular emission or without."""
        return build_model(nebular=self.manifest.get("nebular"))

    @functools.cached_property
    def tables(self) -> BandTables:
        """Forward model in the catalogue's bands."""
        filters = tuple(self.manifest["filters"])
        return build_tables(filters, self.space.redshift_range, self.model)[0]


def load_population(folder: Path) -> FittedPopulation:
    """What `tinsley population` has left in a folder.

    Raises:
        InputError: The folder holds no finished run, or one of a version that did not write down
            its noise.
    """
    folder = Path(folder)
    try:
        table = pq.read_table(folder / TABLE)
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, pa.ArrowException, json.JSONDecodeError) as problem:
        raise InputError(
            f"{folder} holds no finished population ({TABLE} and {MANIFEST}); run "
            "`tinsley population` with --out of this folder."
        ) from problem
    if "noise" not in manifest:
        raise InputError(f"{folder} is of an older version; run `tinsley population` again.")
    space = PopulationSpace(
        param_space_from_dict(manifest["space"]),
        make_cosmology(),
        (manifest["redshift_range"][0], manifest["redshift_range"][1]),
    )
    bands = tuple(manifest["bands"])
    completeness = completeness_from_dict(manifest.get("completeness"), bands)
    like = make_population(manifest["config"]["density"], space.n_dim, key=jax.random.key(0))
    return FittedPopulation(
        columns={name: table[name].to_numpy() for name in table.column_names},
        manifest=manifest,
        space=space,
        members=tuple(
            load_best(member_folder(folder, entry["member"], entry["restarts"]), like)
            for entry in manifest["members"]
        ),
        noise=noise_from_dict(manifest["noise"]),
        selection=parse_selection(manifest["select"], bands, completeness),
    )


def member_folder(out: Path, number: int, restarts: int) -> Path:
    """Where the checkpoints of a member are."""
    again = f"-restart-{restarts}" if restarts else ""
    return out / "members" / f"member-{number:02d}{again}"
