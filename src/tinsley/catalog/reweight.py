"""A finished run of `tinsley infer` with a population in the place of its prior."""

from __future__ import annotations

from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tinsley.errors import InputError
from tinsley.infer.importance import weighted_summary
from tinsley.io.populations import FittedPopulation
from tinsley.io.runs import (
    ChunkDraws,
    iterate_draws,
    load_galaxies,
    load_manifest,
    refuse_other_gas,
    refuse_own_prior,
    refuse_without_draws,
)
from tinsley.population.reweight import (
    Reweighted,
    log_prior_ratio,
    mean_log_density,
    pass_probability,
    reweight,
)
from tinsley.population.space import REDSHIFT
from tinsley.population.volume import selected_fraction

MEMBERS_STD = "members_std"


def reweight_run(
    fitted: FittedPopulation, run: Path, names: tuple[str, ...], *, key: Array
) -> dict[str, np.ndarray]:
    """Properties of every galaxy of a run with the population as prior, beside what that costs.

    The prior is the members' mean density of all galaxies, so that the members' disagreement is in
    the posteriors. How far the answer depends on the member: `{name}_members_std`.

    Args:
        fitted: The population.
        run: Folder of `tinsley infer`, redshifts given or free, with draws, without --prior; of a
            model with the population's nebular emission, or without, as it has none.
        names: Properties, parameters or derived.
        key: Random key: errors are drawn for the probability of passing.

    Returns:
        Of the galaxies that have draws, in the order of the run: `object_id`; `ess`, `ess_share`,
        `khat` and `log_evidence_gain` as in `Reweighted`; `{name}_mean`, `_std`, `_q16`, `_q50`,
        `_q84`, and `_members_std`, the standard deviation of the members' own means. NaN for a
        galaxy whose draws are all outside the population's redshifts.

    Raises:
        InputError: The run is not finished, kept no draws, has a prior of its own, is of other
            nebular emission or of other parameters than the population, or lacks a property.
    """
    manifest = load_manifest(run)
    refuse_without_draws(run, manifest)
    refuse_own_prior(run, manifest)
    refuse_other_gas(run, manifest, fitted.manifest.get("nebular"))
    known = load_galaxies(run, ("object_id", REDSHIFT))
    redshifts = dict(zip(known["object_id"].tolist(), known[REDSHIFT].tolist(), strict=True))
    parts = []
    for number, chunk in enumerate(iterate_draws(run, manifest["draws"])):
        theta = _with_redshift(chunk, redshifts)
        _refuse_missing(run, theta, (*fitted.space.space.names, *names))
        ratio = _log_ratio(fitted, theta, jax.random.fold_in(key, number))
        parts.append({"object_id": chunk.object_id} | _described(chunk, theta, ratio, names))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _with_redshift(chunk: ChunkDraws, redshifts: dict[object, float]) -> dict[str, np.ndarray]:
    """Draws with the catalogue's redshift, where that is known."""
    if REDSHIFT in chunk.theta:
        return chunk.theta
    known = np.array([redshifts[name] for name in chunk.object_id.tolist()], np.float32)
    return {REDSHIFT: np.broadcast_to(known[:, None], chunk.log_weight.shape)} | chunk.theta


def _refuse_missing(run: Path, theta: dict[str, np.ndarray], names: tuple[str, ...]) -> None:
    missing = [name for name in names if name not in theta]
    if missing:
        raise InputError(
            f"{run} has no draws of {', '.join(missing)}; it has {', '.join(theta)}. Population "
            "and run must be of the same parameters."
        )


def _log_ratio(fitted: FittedPopulation, theta: dict[str, np.ndarray], key: Array) -> np.ndarray:
    """Ln of each member's density of all galaxies over the prior, [member, n, draw]."""
    names = (*fitted.space.space.names, REDSHIFT)
    needed = {name: jnp.asarray(theta[name], dtype=float) for name in names}
    if not fitted.selection.selects:
        return log_prior_ratio(fitted.members, fitted.space, needed)
    passing = pass_probability(fitted.tables, fitted.survey, needed, key=key)
    share = selected_fraction(fitted.columns).each
    return log_prior_ratio(fitted.members, fitted.space, needed, (passing, share))


def _described(
    chunk: ChunkDraws, theta: dict[str, np.ndarray], ratio: np.ndarray, names: tuple[str, ...]
) -> dict[str, np.ndarray]:
    all_of_them = _under(chunk, mean_log_density(ratio))
    each = [np.exp(np.asarray(_under(chunk, one).log_weight)) for one in ratio]
    said = ("ess", "ess_share", "khat", "log_evidence_gain")
    columns = {name: np.asarray(getattr(all_of_them, name)) for name in said}
    for name in names:
        values = jnp.asarray(theta[name], dtype=float)
        for statistic, value in _summaries(values, jnp.exp(all_of_them.log_weight)).items():
            columns[f"{name}_{statistic}"] = np.asarray(value)
        means = [np.sum(weight * theta[name], axis=1) for weight in each]
        columns[f"{name}_{MEMBERS_STD}"] = np.std(means, axis=0)
    return columns


def _under(chunk: ChunkDraws, log_ratio: np.ndarray) -> Reweighted:
    before, more = (jnp.asarray(a, dtype=float) for a in (chunk.log_weight, log_ratio))
    return reweight(before, more)


@eqx.filter_jit
def _summaries(
    values: Float[Array, "n draw"], weight: Float[Array, "n draw"]
) -> dict[str, Float[Array, " n"]]:
    return jax.vmap(weighted_summary)(values, weight)
