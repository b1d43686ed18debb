"""Tables of galaxy parameters, checked row by row before anything is computed."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from tinsley.errors import InputError
from tinsley.io.tables import named, open_table
from tinsley.parameters import BETAS, MASS, AbstractBoundedPrior, ParamSpace, UniformToAge
from tinsley.sps.galaxy import GalaxyModel
from tinsley.sps.metallicity import AbstractMetallicity, ConstantMetallicity, NmfMetallicity
from tinsley.sps.sfh import EDGES_GYR

REDSHIFTS = (0.001, 2.0)
"""Beyond these the cosmology tables or the blue bands end."""
_SHOWN = 5


def read_parameters(path: str | Path, model: GalaxyModel) -> dict[str, Array]:
    """Every parameter of the model and `redshift`, each [row], from CSV, Parquet or FITS.

    Raises:
        InputError: A column is missing; a row holds what the grid, the bins or the physics can not
            (the message names rows by number, the first is 1).
    """
    table = open_table(path)
    names = (MASS, *BETAS, "f_burst", "t_burst_gyr", *_metallicity_names(model.metallicity))
    names = (*names, "tau_bc", "tau_ism", "n_dust", "redshift")
    missing = [name for name in names if named(table.columns, name) is None]
    if missing:
        raise InputError(f"{path} has no column {', '.join(missing)}; expected {', '.join(names)}.")
    columns = {str(named(table.columns, name)): name for name in names}
    pieces = list(table.pieces(dict.fromkeys(columns, "real"), 65_536, 0))
    if not pieces or not sum(len(next(iter(piece.values()))) for piece in pieces):
        raise InputError(f"{path} has no rows; expected one galaxy a row.")
    values = {
        name: np.concatenate([np.asarray(piece[column], float) for piece in pieces])
        for column, name in columns.items()
    }
    _refuse(path, values, model)
    return {name: jnp.asarray(value, dtype=float) for name, value in values.items()}


def refuse_ranges(
    where: str, space: ParamSpace, redshift_range: tuple[float, float], model: GalaxyModel
) -> None:
    """Raise InputError for a prior that reaches where the grid, the bins or the physics end."""
    ends: dict[str, tuple[float, float]] = {"redshift": redshift_range} | dict.fromkeys(
        BETAS, (0.25, 0.25)
    )
    for prior in space.priors:
        if isinstance(prior, AbstractBoundedPrior | UniformToAge):
            ends[prior.names[0]] = (prior.low, prior.high)
    values = {name: np.array(pair) for name, pair in ends.items()}
    for expected, good in _rules(values, model):
        if not good.all():
            raise InputError(f"{where}: expected {expected}.")


def _metallicity_names(metallicity: AbstractMetallicity) -> tuple[str, ...]:
    return tuple(name for prior in metallicity.priors() for name in prior.names)


def _refuse(path: str | Path, values: dict[str, np.ndarray], model: GalaxyModel) -> None:
    """Raise for the first rule that any row breaks."""
    for expected, good in _rules(values, model):
        rows = np.flatnonzero(~good) + 1
        if len(rows):
            shown = ", ".join(str(row) for row in rows[:_SHOWN])
            more = f" and {len(rows) - _SHOWN} more" if len(rows) > _SHOWN else ""
            raise InputError(f"{path}, row {shown}{more}: expected {expected}.")


def _rules(values: dict[str, np.ndarray], model: GalaxyModel) -> list[tuple[str, np.ndarray]]:
    """What each row must hold, in words, and where it does."""
    finite = np.all([np.isfinite(column) for column in values.values()], axis=0)
    betas = np.stack([values[name] for name in BETAS])
    rules = [
        ("finite numbers", finite),
        (
            "beta_1 to beta_4 not negative, with sum 1",
            np.all(betas >= 0, axis=0) & (np.abs(betas.sum(axis=0) - 1) < 1e-3),
        ),
        ("f_burst from 0 to 1", (values["f_burst"] >= 0) & (values["f_burst"] <= 1)),
        (
            f"t_burst_gyr from 0 to {EDGES_GYR[-1]:g}, the last time bin",
            (values["t_burst_gyr"] >= 0) & (values["t_burst_gyr"] <= EDGES_GYR[-1]),
        ),
        ("tau_bc and tau_ism not negative", (values["tau_bc"] >= 0) & (values["tau_ism"] >= 0)),
        ("n_dust from -5 to 5", np.abs(values["n_dust"]) <= 5),
        (f"{MASS} from 0 to 20", (values[MASS] >= 0) & (values[MASS] <= 20)),
        (
            f"redshift from {REDSHIFTS[0]:g} to {REDSHIFTS[1]:g}",
            (values["redshift"] >= REDSHIFTS[0]) & (values["redshift"] <= REDSHIFTS[1]),
        ),
    ]
    if isinstance(model.metallicity, NmfMetallicity):
        good = (values["gamma_1"] >= 0) & (values["gamma_2"] >= 0)
        return [*rules, ("gamma_1 and gamma_2 not negative", good)]
    if isinstance(model.metallicity, ConstantMetallicity):
        low, high = model.ssp.log10_z_zsun[[0, -1]]
        z = values["log10_z_zsun"]
        rules.append(
            (f"log10_z_zsun from {low:.3f} to {high:.3f}, the grid", (z >= low) & (z <= high))
        )
    return rules
