"""Setting up a member of the ensemble, judging it, and drawing from it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tinsley.observe.noise import AbstractNoise
from tinsley.observe.photometry import BandTables, photometry
from tinsley.population.config import PopulationConfig
from tinsley.population.density import AbstractPopulation
from tinsley.population.distance import distance_noise
from tinsley.population.objective import Parts, Problem, objective_parts
from tinsley.population.reference import Reference, draw_reference
from tinsley.population.space import REDSHIFT, PopulationSpace
from tinsley.population.synthetic import Selection, View, make_view, recalibrated, record
from tinsley.sps.derived import DerivedTables, derived

HELD_OUT_SHARE = 0.1
LEAST_PASSING = 0.01
_OVERSAMPLE = 10
_CALIBRATIONS = 256
"""Draws of the shared errors: many times their number, two for each band."""
MIN_GALAXIES = 200
"""Fewer say next to nothing of a population, and their noise can not be fitted."""


class Setup(NamedTuple):
    """What all members have in common.

    Attributes:
        problem: With the whole training catalogue, and the central reference.
        held_out: Galaxies that no member sees, in the problem's view, [m, k].
        rows: Of the catalogue, in the order of the problem's, and of those held out.
    """

    problem: Problem
    held_out: Array
    rows: tuple[np.ndarray, np.ndarray]


def require_galaxies(number: int) -> None:
    """Refuse a catalogue that is too short.

    Raises:
        ValueError: It is.
    """
    if number < MIN_GALAXIES:
        raise ValueError(
            f"a population needs at least {MIN_GALAXIES} galaxies that have every band and pass "
            f"the cut; got {number}."
        )


def make_setup(
    config: PopulationConfig,
    model: tuple[PopulationSpace, BandTables],
    survey: tuple[AbstractNoise, Selection],
    catalog: tuple[np.ndarray, np.ndarray],
    centre: Reference,
    *,
    key: Array,
    redshift: np.ndarray | None = None,
    floor_mag: np.ndarray | None = None,
) -> Setup:
    """Hold some galaxies out, and measure the temperature on the others.

    Args:
        config: How to fit.
        model: Where the population lives; the forward model.
        survey: p(sigma | true flux); the cut that the catalogue has passed.
        catalog: Flux and error, nanomaggies, [n, band] each, every band measured.
        centre: Centre of the hyperprior: the prior.
        key: For the split and the temperature.
        redshift: The catalogue's, where they are known, [n]: the population is fitted to them too.
        floor_mag: The survey's error floor, [band]: errors of the calibration and of the model,
            which galaxies share. `characteristic` distances take them for noise.

    Raises:
        ValueError: There are too few galaxies, or they are all the same.
    """
    flux, sigma = catalog
    require_galaxies(len(flux))
    key_split, key_noise = jax.random.split(key)
    view = make_view(flux, sigma, redshift, colours=config.colours)
    most = config.distance.most_points
    kept, out = _split(len(flux), most, key_split)
    told = None if redshift is None else jnp.asarray(redshift, dtype=float)
    fluxes = jnp.asarray(flux, dtype=float)
    points = np.asarray(view(fluxes, told))
    distance = config.distance.fitted(points[kept])
    temperature = distance_noise(distance, points[kept], most, key=key_noise) / distance.sharpness
    if floor_mag is not None:
        some = kept[:most]
        seen = fluxes[some], None if told is None else told[some]
        changed = _recalibrations(seen, view, floor_mag, key=jax.random.fold_in(key_noise, 1))
        distance = distance.forgiving(view(*seen), changed, len(kept))
    problem = Problem(
        space=model[0],
        tables=model[1],
        noise=survey[0],
        selection=survey[1],
        view=view,
        observed=jnp.asarray(points[kept]),
        reference=centre,
        distance=distance,
        temperature=jnp.asarray(max(temperature, 1e-8), dtype=float),
        annealing=config.annealing,
        progress=jnp.ones(()),
        kl_weight=config.kl_weight,
        batch=config.batch,
        steps=config.steps,
    )
    return Setup(problem, jnp.asarray(points[out]), (kept, out))


def _recalibrations(
    seen: tuple[Array, Array | None], view: View, floor_mag: np.ndarray, *, key: Array
) -> Iterator[Array]:
    """Galaxies in a view as many draws of the survey's shared errors would have them."""
    floor = jnp.asarray(floor_mag, dtype=float)
    return (_changed(seen, view, floor, one) for one in jax.random.split(key, _CALIBRATIONS))


@eqx.filter_jit
def _changed(seen: tuple[Array, Array | None], view: View, floor_mag: Array, key: Array) -> Array:
    flux, told = seen
    return view(recalibrated(flux, view, floor_mag, key=key), told)


def _split(number: int, most: int, key: Array) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a catalogue to train on, and those to hold out, `most` at most, in random order."""
    rows = np.asarray(jax.random.permutation(key, number))
    out = min(int(HELD_OUT_SHARE * number), most)
    return rows[out:], rows[:out]


def member_problem(problem: Problem, *, key: Array) -> Problem:
    """A member's own: a bootstrap of the catalogue, and a reference from the hyperprior."""
    key_rows, key_reference = jax.random.split(key)
    number = problem.observed.shape[0]
    rows = jax.random.randint(key_rows, (number,), 0, number)
    reference = draw_reference(problem.reference, key=key_reference)
    return eqx.tree_at(
        lambda p: (p.observed, p.reference), problem, (problem.observed[rows], reference)
    )


@eqx.filter_jit
def validate(
    population: AbstractPopulation, problem: Problem, held_out: Float[Array, "m k"], key: Array
) -> tuple[Float[Array, ""], Parts]:
    """The objective on held-out galaxies, nothing annealed, and its parts."""
    parts = objective_parts(population, problem, held_out, key)
    return problem.value(parts), parts


def has_stopped(losses: list[float], patience: int) -> bool:
    """True when the last `patience` validations have brought nothing better."""
    return len(losses) > patience and min(losses[-patience:]) > min(losses[:-patience])


@eqx.filter_jit
def draw_galaxies(
    population: AbstractPopulation,
    problem: Problem,
    tables: DerivedTables,
    number: int,
    key: Array,
) -> dict[str, Array]:
    """Galaxies of a population: parameters, derived properties, `redshift`, `selected_weight`.

    The weight is the probability of passing the survey's cut, over its mean: with it they are the
    population as observed, without it the population itself, as far as it can be known: galaxies
    that pass with less than 1 % probability are counted as if they did with 1 %. To have them, ten
    times as many are drawn as observed, and chosen from by one over that probability.
    """
    key_draw, key_record, key_choice = jax.random.split(key, 3)
    drawn = number * (_OVERSAMPLE if problem.selection.selects else 1)
    x, _ = population.sample_and_log_prob(drawn, key=key_draw)
    theta = problem.space.theta(x)
    made = record(
        photometry(problem.tables, theta), problem.noise, problem.selection, key=key_record
    )
    passing = jnp.maximum(made.pass_probability, LEAST_PASSING)
    if problem.selection.selects:
        chosen = jax.random.choice(key_choice, drawn, (number,), p=1 / passing)
        theta = {name: value[chosen] for name, value in theta.items()}
        passing = passing[chosen]
    return theta | derived(tables, theta) | {"selected_weight": passing / jnp.mean(passing)}


@eqx.filter_jit
def observed_weight(problem: Problem, theta: dict[str, Array], key: Array) -> Float[Array, " n"]:
    """With which weight galaxies would be in the survey: 1 on average."""
    flux = photometry(problem.tables, theta)
    passing = record(flux, problem.noise, problem.selection, key=key).pass_probability
    return passing / jnp.maximum(jnp.mean(passing), 1e-30)


@eqx.filter_jit
def draw_photometry(
    population: AbstractPopulation, problem: Problem, number: int, key: Array
) -> Float[Array, "n k"]:
    """Synthetic galaxies as observed, in the problem's view."""
    key_draw, key_record = jax.random.split(key)
    x, _ = population.sample_and_log_prob(number, key=key_draw)
    theta = problem.space.theta(x)
    made = record(
        photometry(problem.tables, theta), problem.noise, problem.selection, key=key_record
    )
    return problem.view(made.flux, theta[REDSHIFT])


def unreached_share(observed: np.ndarray, synthetic: np.ndarray) -> float:
    """Share of observed galaxies with no synthetic one near: what the model can not make.

    Near is within `reach`. The synthetic galaxies must not be fewer than half of the observed.

    Args:
        observed: In the view, [n, k].
        synthetic: In the view, [m, k].
    """
    from scipy.spatial import cKDTree

    return float(np.mean(cKDTree(synthetic).query(observed)[0] > reach(observed)))


def reach(observed: np.ndarray) -> float:
    """How far apart two galaxies may be to count as near.

    Three times the distance that 99 % of the observed galaxies keep from their nearest fellow among
    half of them.

    Args:
        observed: In the view, [n, k].
    """
    from scipy.spatial import cKDTree

    half = len(observed) // 2
    among = cKDTree(observed[:half]).query(observed[half:])[0]
    return float(3 * np.quantile(among, 0.99))
