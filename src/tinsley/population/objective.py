"""What a population is fitted by. Read this first.

Draw from the population, make the galaxies' photometry, add noise, keep what the survey keeps, and
compare with the catalogue:

    loss = distance(synthetic, observed) / temperature + KL(population || reference)

The first term alone does not fix a population: many make the same photometry. The second picks, of
all that explain the data, the one that commits itself least beyond a reference population. The
temperature is the distance that sampling noise makes between a population and the catalogue.

What is fitted is the population as observed, whose draws have all passed the survey's cut: few of
the galaxies that exist do, and to draw those that do not would be a waste. Its reference is the
reference of all galaxies times the probability of passing. `tinsley.population.fit.draw_galaxies`
undoes the selection.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from tinsley.density.train import AbstractAnnealed
from tinsley.observe.noise import AbstractNoise
from tinsley.observe.photometry import BandTables, photometry
from tinsley.population.density import AbstractPopulation
from tinsley.population.distance import AbstractDistance
from tinsley.population.reference import Reference
from tinsley.population.space import REDSHIFT, PopulationSpace
from tinsley.population.synthetic import Selection, View, record

INVISIBLE = 1e-6
"""What is added to the probability of passing, so that its logarithm, and slope, are finite."""


class Annealing(eqx.Module):
    """What changes as a training goes; `progress` runs from 0 to 1, where nothing is left of it.

    Attributes:
        noise_extra: R0 in R = 1 + R0 exp(-noise_rate progress); errors are divided by R, so that
            noise comes in as the training goes (PopSED's section 2.5: 30 and 12).
        noise_rate: tau.
        heat: The temperature is multiplied by 1 + heat exp(-heat_rate progress), so that the
            population leaves its reference no faster than the data make it.
        heat_rate: Its rate.
    """

    noise_extra: float = eqx.field(static=True, default=30.0)
    noise_rate: float = eqx.field(static=True, default=12.0)
    heat: float = eqx.field(static=True, default=100.0)
    heat_rate: float = eqx.field(static=True, default=12.0)

    def noise_share(self, progress: Array | float, sharpness: float = 1.0) -> Array:
        """What errors are multiplied by, 1 / R.

        In a sharp distance R falls the faster, as the heat does: it sees errors that are wrong by
        1 %, and would follow what is left of R to the end.
        """
        rate = self.noise_rate * self._steeper(sharpness)
        return 1.0 / (1.0 + self.noise_extra * _fading(rate, progress))

    def heating(self, progress: Array | float, sharpness: float = 1.0) -> Array:
        """What the temperature is multiplied by.

        Of a sharp distance more, to begin as gently, and it falls the faster, to be over as soon.
        """
        rate = self.heat_rate * self._steeper(sharpness)
        return 1.0 + sharpness * self.heat * _fading(rate, progress)

    def _steeper(self, sharpness: float) -> float:
        """How much faster things fall in a sharp distance."""
        if not self.heat:
            return 1.0
        return math.log1p(sharpness * self.heat) / math.log1p(self.heat)


def _fading(rate: float, progress: Array | float) -> Array:
    """exp(-rate progress), and nothing at the end."""
    progress = jnp.asarray(progress)
    return jnp.where(progress < 1, jnp.exp(-rate * progress), 0.0)


class Problem(AbstractAnnealed):
    """Everything that a loss needs beside the population.

    Attributes:
        space: Where the population lives.
        tables: Forward model.
        noise: Errors given the true flux.
        selection: What the survey keeps.
        view: Where galaxies are compared.
        observed: The catalogue in that view, [n, k].
        reference: What the population is believed to be.
        distance: Between synthetic and observed.
        temperature: Distance that sampling noise makes.
        annealing: What changes on the way.
        progress: Share of the training that is done; at 1 nothing is annealed any more.
        kl_weight: Of the second term; 1, or 0 for the paper's objective.
        batch: Galaxies of either kind a step.
        steps: Of the training.
    """

    space: PopulationSpace
    tables: BandTables
    noise: AbstractNoise
    selection: Selection
    view: View
    observed: Float[Array, "n k"]
    reference: Reference
    distance: AbstractDistance
    temperature: Float[Array, ""]
    annealing: Annealing
    progress: Float[Array, ""]
    kl_weight: float = eqx.field(static=True)
    batch: int = eqx.field(static=True)
    steps: int = eqx.field(static=True)

    def at(self, step: Int[Array, ""]) -> Problem:
        return dataclasses.replace(self, progress=step / self.steps)

    def value(self, parts: Parts) -> Float[Array, ""]:
        """The objective from its two terms."""
        heat = self.annealing.heating(self.progress, self.distance.sharpness)
        return parts.distance / (self.temperature * heat) + self.kl_weight * parts.kl


class Parts(NamedTuple):
    """The objective's two terms.

    Attributes:
        distance: Between the photometries, not divided.
        kl: Nats from the reference; with a selection, less an unknown constant.
    """

    distance: Array
    kl: Array


def population_loss(
    population: AbstractPopulation, problem: Problem, key: Array
) -> Float[Array, ""]:
    """The objective on a random batch of the catalogue, as far as the training has gone."""
    key_rows, key_parts = jax.random.split(key)
    rows = jax.random.randint(key_rows, (problem.batch,), 0, problem.observed.shape[0])
    return problem.value(objective_parts(population, problem, problem.observed[rows], key_parts))


def objective_parts(
    population: AbstractPopulation, problem: Problem, observed: Float[Array, "m k"], key: Array
) -> Parts:
    """Distance from some observed galaxies, and KL divergence from the reference.

    Args:
        population: The density.
        problem: All else.
        observed: In the problem's view; as many galaxies are drawn.
        key: Random key.
    """
    key_draw, key_record, key_distance = jax.random.split(key, 3)
    x, log_density = population.sample_and_log_prob(observed.shape[0], key=key_draw)
    theta = problem.space.theta(x)
    made = record(
        photometry(problem.tables, theta),
        problem.noise,
        problem.selection,
        key=key_record,
        noise_share=problem.annealing.noise_share(problem.progress, problem.distance.sharpness),
    )
    log_passing = jnp.log(made.pass_probability + INVISIBLE)
    points = problem.view(made.flux, theta[REDSHIFT])
    distance = problem.distance(points, observed, key=key_distance, progress=problem.progress)
    return Parts(distance, jnp.mean(log_density - problem.reference.log_prob(x) - log_passing))
