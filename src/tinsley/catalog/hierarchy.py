"""The second road in use: a population from the draws that `tinsley infer` has left."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tinsley.catalog.population import Road
from tinsley.errors import InputError
from tinsley.io.catalogs import Catalog
from tinsley.io.models import LoadedPosterior, load_posterior
from tinsley.io.populations import read_whole_rows
from tinsley.io.runs import (
    iterate_draws,
    load_galaxies,
    load_manifest,
    refuse_own_prior,
    refuse_without_draws,
)
from tinsley.observe.noise import fit_snr_given_flux
from tinsley.population.config import HierarchyConfig
from tinsley.population.density import AbstractPopulation
from tinsley.population.fit import Setup, make_setup, require_galaxies, validate
from tinsley.population.forecast import in_batches
from tinsley.population.hierarchy import (
    HierarchyProblem,
    SurveyPassing,
    judge,
    observed_loss,
    reachable,
)
from tinsley.population.objective import Problem
from tinsley.population.posteriors import (
    PosteriorDraws,
    log_aim,
    log_prior,
    make_draws,
    rough_population,
    thin,
)
from tinsley.population.reference import Reference, draw_reference, uniform_reference
from tinsley.population.reweight import pass_probability
from tinsley.population.space import REDSHIFT, PopulationSpace
from tinsley.population.synthetic import Selection
from tinsley.status import Status

_FIRST_LOOK = 32
"""Draws of each galaxy from which it is seen roughly where the population is."""
_AT_ONCE = 65_536
"""Draws that are computed together."""
_PROBE = 256
"""Galaxies that a reference is tried on."""
TRUSTED = (str(Status.OK), str(Status.LOW_ESS))
"""Galaxies of other status are unlike what the model can make, or have no posterior."""


class PosteriorSetup(NamedTuple):
    """What all members have in common.

    Attributes:
        photometry: The first road's set-up of the same galaxies, by which members are described.
        problem: With the draws of all training galaxies, and the central reference.
        held_out: Draws of galaxies that no member sees.
        rows: How many galaxies were left out, and why.
    """

    photometry: Setup
    problem: HierarchyProblem
    held_out: PosteriorDraws
    rows: dict[str, int]


def make_posterior_setup(
    run: Path,
    loaded: LoadedPosterior,
    catalog: Catalog,
    selection: Selection,
    config: HierarchyConfig,
    centre: Reference | None = None,
    *,
    seed: int,
) -> PosteriorSetup:
    """Read a run's draws and set the second road up.

    The redshifts are those that the model was trained for.

    Args:
        run: Folder of a finished run of `tinsley infer`, redshift given or free.
        loaded: The model of the run.
        catalog: The catalogue of the run.
        selection: The cut that the catalogue has passed.
        config: How to fit.
        centre: Centre of the hyperprior; the model's prior if not given.
        seed: Seed of the run.

    Raises:
        InputError: The run is not finished, kept no draws, or is of another model, catalogue or
            prior; there are too few galaxies.
    """
    manifest = load_manifest(run)
    refuse_without_draws(run, manifest)
    refuse_other_run(run, manifest, loaded, catalog)
    space = PopulationSpace(
        loaded.posterior.space, loaded.posterior.cosmology, loaded.spec.redshift_range
    )
    rows, counts = read_whole_rows(catalog, selection)
    redshifts = _trusted(run)
    rows = rows.take(np.array([name in redshifts for name in rows.object_id.tolist()], bool))
    key_setup, key_passing = jax.random.split(jax.random.key(seed))
    try:
        require_galaxies(len(rows))
        photometry = make_setup(
            config.common,
            (space, loaded.posterior.tables),
            (fit_snr_given_flux(rows.flux, rows.sigma, rows.mask), selection),
            (rows.flux, rows.sigma),
            centre or uniform_reference(space.n_dim),
            key=key_setup,
        )
    except ValueError as wrong:
        raise InputError(f"{run}: {wrong}") from wrong
    own = {name: redshifts[name] for name in rows.object_id.tolist()}
    x, log_weight = _read_draws((run, manifest["draws"], own), space, config.draws, seed)
    draws = _as_draws(x, log_weight, photometry.problem, key_passing)
    kept, out = photometry.rows
    problem = HierarchyProblem(
        draws=draws.take(jnp.asarray(kept)),
        rows=jnp.arange(len(kept)),
        reference=photometry.problem.reference,
        reach=jnp.ones(()),
        passing=_passing(photometry.problem) if selection.selects else None,
        progress=jnp.ones(()),
        batch=config.common.batch,
        chosen=config.chosen,
        own_draws=config.own_draws,
        steps=config.common.steps,
    )
    counts |= {"no_trusted_posterior": counts["used"] - len(rows), "used": len(rows)}
    return PosteriorSetup(
        photometry, problem, draws.take(jnp.asarray(out[: config.held_out])), counts
    )


def refuse_other_run(
    run: Path, manifest: dict[str, Any], loaded: LoadedPosterior, catalog: Catalog
) -> None:
    """Draws mean something only with the model, the prior and the catalogue that they are of.

    Raises:
        InputError: One of them is another.
    """
    if manifest["model_sha256"] != loaded.sha256:
        raise InputError(
            f"{run} was inferred with another model, {manifest['model']}; give that with --model."
        )
    if manifest["input_sha256"] != catalog.checksum:
        raise InputError(
            f"{run} is of another catalogue, {manifest['input']}; give that with --catalog."
        )
    refuse_own_prior(run, manifest)


def informed(setup: Setup, run: Path, *, seed: int) -> Setup:
    """The first road's set-up, its hyperprior centred on what a run's posteriors say.

    The Gaussian under which the data of the run's galaxies, as observed, are most probable, after a
    few rounds of expectation and maximisation: `tinsley.population.posteriors.rough_population`. It
    stands for all galaxies: what of it lies beyond the cut, the cut takes away again.

    Args:
        setup: Of the first road, with any centre.
        run: Folder of a finished run of `tinsley infer` on galaxies that have passed the same cut,
            such as those of the catalogue with a spectrum.
        seed: Of the choice of draws.

    Raises:
        InputError: The run is not finished, kept no draws, or was made under another prior; too few
            of its galaxies are in the range of redshifts.
    """
    manifest, problem = load_manifest(run), setup.problem
    refuse_without_draws(run, manifest)
    refuse_own_prior(run, manifest)
    _refuse_other_space(run, manifest, problem.space)
    low, high = problem.space.redshift_range
    counted = {name: z for name, z in _trusted(run).items() if not (z < low or z > high)}
    if len(counted) < 20 * problem.space.n_dim:
        raise InputError(
            f"prior {run} holds {len(counted)} galaxies with a posterior at redshifts {low:g}-"
            f"{high:g}; expected at least {20 * problem.space.n_dim}."
        )
    source = run, manifest["draws"], counted
    x, log_weight = _read_draws(source, problem.space, 4 * _FIRST_LOOK, seed)
    draws = _as_draws(x, log_weight, problem, jax.random.key(seed))
    centred = dataclasses.replace(problem, reference=rough_population(draws))
    return setup._replace(problem=centred)


def _refuse_other_space(run: Path, manifest: dict[str, Any], space: PopulationSpace) -> None:
    """Draws were made under the prior of their model: it has to be the population's."""
    try:
        own = load_posterior(manifest["model"])
    except InputError:
        own = None
    if own is None or own.sha256 != manifest["model_sha256"]:
        raise InputError(
            f"{run} is of the model {manifest['model']!r}, which does not ship: run `tinsley "
            "hierarchy` on it, and give the population.parquet that it writes."
        )
    if own.posterior.space.to_dict() != space.space.to_dict():
        raise InputError(f"{run} is of a model with other parameters or priors than a population.")


def posterior_road(setup: PosteriorSetup) -> Road:
    """The second road: the likelihood of all galaxies from their posteriors."""

    def member(key: jax.Array) -> tuple[HierarchyProblem, Problem]:
        key_rows, key_reference = jax.random.split(key)
        number = setup.problem.rows.shape[0]
        centre = setup.problem.reference
        reference, reach = reachable(
            draw_reference(centre, key=key_reference),
            centre,
            setup.problem.draws.take(jnp.arange(min(_PROBE, number))),
        )
        rows = jax.random.randint(key_rows, (number,), 0, number)
        own = dataclasses.replace(
            setup.problem, rows=rows, reference=reference, reach=jnp.asarray(reach)
        )
        return own, dataclasses.replace(setup.photometry.problem, reference=reference)

    def judged(
        population: AbstractPopulation, own: HierarchyProblem, shown: Problem, key: jax.Array
    ) -> dict[str, float]:
        value, terms, each = judge(population, own, setup.held_out, key)
        _, parts = validate(population, shown, setup.photometry.held_out, key)
        low, middle, high = np.quantile(np.asarray(each.ess), (0.05, 0.5, 0.95))
        return {
            "validation_loss": float(value),
            "log_evidence": float(terms.log_evidence),
            "distance": float(parts.distance),
            "kl": float(terms.kl),
            "ess_q05": float(low),
            "ess_q50": float(middle),
            "ess_q95": float(high),
            "reference_reach": float(own.reach),
            "evidence_noise": float(jnp.mean(each.noise)) * setup.problem.rows.shape[0],
        }

    return Road(member, observed_loss, judged)


_Source = tuple[Path, int, dict[Any, float]]
"""Folder of a run, draws a galaxy, and the redshift of each galaxy that counts, by its name."""


def _trusted(run: Path) -> dict[Any, float]:
    """Redshift in the catalogue of each galaxy whose posterior is to be used, by its name."""
    table = load_galaxies(run, ("object_id", "redshift", "status"))
    good = np.isin(table["status"].astype(str), TRUSTED)
    names, redshift = (table[name][good].tolist() for name in ("object_id", "redshift"))
    return dict(zip(names, redshift, strict=True))


def _read_draws(
    source: _Source, space: PopulationSpace, number: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draws in the population's space, thinned: [n, number, d], and ln of their weights.

    A first look at a few draws of each says roughly where the population is; then most are kept
    there, of the same posteriors.
    """
    rng = np.random.default_rng(seed)
    x, log_weight = _thinned(source, space, None, _FIRST_LOOK, rng)
    first = jnp.asarray(x), jnp.asarray(log_weight, dtype=float)
    rough = rough_population(make_draws(*first, log_prior(first[0])))
    return _thinned(source, space, rough, number, rng)


def _thinned(
    source: _Source,
    space: PopulationSpace,
    rough: Reference | None,
    number: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    parts = []
    for log_weight, theta in _chunks(source):
        needed = {name: theta[name] for name in (*space.space.names, REDSHIFT)}
        points = in_batches(_points_of(space, rough), needed, _AT_ONCE)
        points = points.reshape(*log_weight.shape, points.shape[-1])
        index, thinned = thin(log_weight, points[..., -1], number, rng)
        parts.append((np.take_along_axis(points[..., :-1], index[..., None], axis=1), thinned))
    x, weights = (np.concatenate(part) for part in zip(*parts, strict=True))
    return x, weights.astype(np.float32)


def _points_of(
    space: PopulationSpace, rough: Reference | None
) -> Callable[[dict[str, jax.Array], int], jax.Array]:
    """Of draws, their points in the space, and in the last column how much more to keep them."""

    @jax.jit
    def points(theta: dict[str, jax.Array]) -> jax.Array:
        x = space.unbounded(theta)
        aim = jnp.zeros(x.shape[0]) if rough is None else log_aim(rough, x[None])[0]
        return jnp.concatenate([x, aim[:, None]], axis=1)

    return lambda theta, _: points(theta)


def _chunks(source: _Source) -> Iterator[tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Weights [n, draw] and parameters, flat, of the galaxies that count, chunk by chunk."""
    run, draws, redshifts = source
    for chunk in iterate_draws(run, draws):
        names = chunk.object_id.tolist()
        good = np.array([name in redshifts for name in names], bool)
        if good.any():
            theta = {name: value[good].ravel() for name, value in chunk.theta.items()}
            if REDSHIFT not in theta:
                known = [redshifts[name] for name in names if name in redshifts]
                theta[REDSHIFT] = np.repeat(np.asarray(known, np.float32), draws)
            yield chunk.log_weight[good], theta


def _as_draws(
    x: np.ndarray, log_weight: np.ndarray, problem: Problem, key: jax.Array
) -> PosteriorDraws:
    """For a population as observed: divided by the probability of passing too."""
    there = jnp.asarray(x)
    log_passing = None
    if problem.selection.selects:
        passing = pass_probability(
            problem.tables,
            (problem.noise, problem.selection),
            problem.space.theta(there),
            key=key,
            batch=_AT_ONCE,
        )
        log_passing = jnp.log(jnp.asarray(passing))
    return make_draws(there, jnp.asarray(log_weight), log_prior(there), log_passing)


def _passing(problem: Problem) -> SurveyPassing:
    return SurveyPassing(problem.space, problem.tables, problem.noise, problem.selection)
