"""The second road to the population: from posteriors of single galaxies. Read this first.

A galaxy's posterior under a prior is its likelihood times that prior, so that draws theta_ik of it,
weighted w_ik, say how well any other population q explains its data:

    ln p(data_i | q) = ln sum_k w_ik q(theta_ik) / prior(theta_ik) + constant

A survey that selects sees the share alpha(q) of all galaxies, and the data of those that it sees
have the likelihood

    sum_i ln sum_k w_ik q(theta_ik) / prior(theta_ik) - N ln alpha(q)

(Loredo 2004; Malz & Hogg 2020). What is fitted is, as on the first road, the population as
observed, q_seen = q passing / alpha. In its terms alpha is inside, exactly, and not estimated:

    sum_i ln sum_k w_ik q_seen(theta_ik) / (prior(theta_ik) passing(theta_ik))

For a density of all galaxies, where that is the simpler one, `intrinsic_terms` has alpha by Monte
Carlo.

**Spikes.** The maximum of such a likelihood is a set of spikes (Laird 1978). So KL(q || reference)
is added, as on the first road, and its weight falls in the course of a training from that of all
galaxies together to that of one; held-out galaxies say where on the way to stop.

**Too few draws.** What q / prior leaves of the draws is few where q is narrow: the sum over draws
is then a rough estimate, its logarithm too low by half its relative variance (so corrected here, to
first order), and a population like the prior is preferred for no other reason. `Evidence.noise`
says how rough: its sum over galaxies should stay below about 1 for the likelihood to be exact, and
where it does not, what the data hardly say follows the draws (Essick & Farr 2022; Talbot & Golomb
2023).
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import NamedTuple, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from tinsley.density.train import AbstractAnnealed
from tinsley.observe.noise import AbstractNoise
from tinsley.observe.photometry import BandTables, photometry
from tinsley.population.density import AbstractPopulation
from tinsley.population.objective import INVISIBLE
from tinsley.population.posteriors import PosteriorDraws
from tinsley.population.reference import Reference, towards
from tinsley.population.space import PopulationSpace
from tinsley.population.synthetic import Selection, record

SETTLED = 0.7
"""Share of a training after which the reference's weight falls no more."""


LEAST_EFFECTIVE = 30.0
"""Effective draws that a reference must leave to the median galaxy: the evidence's bias, corrected
to first order, is then of the order of 1/1000 a galaxy."""
SHARES = (1.0, 0.8, 0.65, 0.5, 0.4, 0.3, 0.2, 0.1)
"""Where a reference may be on the way from its centre."""


class AnyDensity(Protocol):
    """What can explain galaxies: a population, or a reference."""

    def log_prob(self, x: Array) -> Array:
        """Log-density of points in the unbounded space, [n]."""


class AbstractPassing(eqx.Module):
    """A survey's cut, as far as a population is concerned."""

    @abc.abstractmethod
    def log_probability(self, x: Float[Array, "n d"], *, key: Array) -> Float[Array, " n"]:
        """Ln of the probability that galaxies at points of the unbounded space pass."""


class SurveyPassing(AbstractPassing):
    """Forward model, noise and cut of a survey.

    Attributes:
        space: Where the population lives.
        tables: Forward model.
        noise: Errors given the true flux.
        selection: What the survey keeps.
    """

    space: PopulationSpace
    tables: BandTables
    noise: AbstractNoise
    selection: Selection

    def log_probability(self, x: Float[Array, "n d"], *, key: Array) -> Float[Array, " n"]:
        flux = photometry(self.tables, self.space.theta(x))
        passing = record(flux, self.noise, self.selection, key=key).pass_probability
        return jnp.log(passing + INVISIBLE)


class Evidence(NamedTuple):
    """How well a population explains galaxies.

    Attributes:
        log_evidence: ln of p(data | population) over p(data | prior), [n].
        ess: Effective draws that the population leaves, [n].
        noise: Relative variance of the evidence, from the number of draws, [n].
    """

    log_evidence: Array
    ess: Array
    noise: Array


def evidence(population: AnyDensity, draws: PosteriorDraws) -> Evidence:
    """How well a population explains each galaxy.

    Source:
        Self-normalised importance sampling; bias and variance of its logarithm to first order
        (Owen 2013, section 9.2). Against closed forms in tests/test_hierarchy.py.
    """
    return _evidence(_log_terms(population, draws), jnp.exp(draws.log_weight))


def mean_log_evidence(
    population: AbstractPopulation, draws: PosteriorDraws, chosen: int, *, key: Array
) -> Float[Array, ""]:
    """Mean of `evidence` over galaxies, whose slope costs little.

    Its slope is the mean of the log-density's slope over each galaxy's draws, weighted by their
    shares in the evidence (Fisher's identity). So only a few draws, chosen by these shares, are
    followed backwards: the value is exact, and the slope right on average.

    Args:
        population: The density.
        draws: Posteriors.
        chosen: Draws of each galaxy that the slope is taken from.
        key: Random key.
    """
    arrays, static = eqx.partition(population, eqx.is_array)
    fixed = eqx.combine(jax.lax.stop_gradient(arrays), static)
    total = _log_terms(fixed, draws)
    share = jax.nn.softmax(total, axis=1)
    own = share * (1.0 + share - jnp.sum(share**2, axis=1, keepdims=True))
    shape = (chosen, draws.number)
    index = jax.random.categorical(key, jnp.log(own), axis=1, shape=shape).T
    x = jnp.take_along_axis(draws.x, index[..., None], axis=1)
    slope = jnp.mean(population.log_prob(x.reshape(-1, x.shape[-1])))
    value = jnp.mean(_evidence(total, jnp.exp(draws.log_weight)).log_evidence)
    return value + slope - jax.lax.stop_gradient(slope)


def _log_terms(population: AnyDensity, draws: PosteriorDraws) -> Float[Array, "n draw"]:
    """Ln of each draw's term in the sum."""
    n_dim = draws.x.shape[-1]
    log_density = population.log_prob(draws.x.reshape(-1, n_dim)).reshape(draws.log_base.shape)
    return draws.log_weight + log_density - draws.log_base


def _evidence(total: Float[Array, "n draw"], weight: Float[Array, "n draw"]) -> Evidence:
    share = jax.nn.softmax(total, axis=1)
    squares = jnp.sum(share**2, axis=1)
    correction = 0.5 * (squares - jnp.sum(weight**2, axis=1))
    noise = jnp.sum((share - weight) ** 2, axis=1)
    return Evidence(jax.nn.logsumexp(total, axis=1) + correction, 1.0 / squares, noise)


def log_selected_fraction(log_passing: Float[Array, " n"]) -> Float[Array, ""]:
    """Ln of the share alpha of a population that passes a cut, from its own draws.

    Draws of `sample_and_log_prob` follow the weights of the density, and with noise the probability
    of passing is a smooth function of where a galaxy is: so alpha is differentiable in the weights
    as it stands (the reparameterised estimator).

    Args:
        log_passing: ln of the probability that each draw passes.

    Source:
        Against a Gaussian behind a hard cut, and its slope against finite differences of that, in
        tests/test_hierarchy.py.
    """
    return jax.nn.logsumexp(log_passing) - np.log(log_passing.shape[0])


class HierarchyProblem(AbstractAnnealed):
    """Everything that a loss needs beside the population.

    Attributes:
        draws: Posteriors of the catalogue.
        rows: Galaxies of this member: a bootstrap, by index, [n].
        reference: What the population is believed to be.
        reach: How far it is from the centre of the hyperprior; see `reachable`.
        passing: The survey's cut; None where it keeps all.
        progress: Share of the training that is done.
        batch: Galaxies a step.
        chosen: Draws of each that the slope is taken from.
        own_draws: Draws of the population a step.
        steps: Of the training.
    """

    draws: PosteriorDraws
    rows: Int[Array, " n"]
    reference: Reference
    reach: Float[Array, ""]
    passing: AbstractPassing | None
    progress: Float[Array, ""]
    batch: int = eqx.field(static=True)
    chosen: int = eqx.field(static=True)
    own_draws: int = eqx.field(static=True)
    steps: int = eqx.field(static=True)

    def at(self, step: Int[Array, ""]) -> HierarchyProblem:
        return dataclasses.replace(self, progress=step / self.steps)

    def value(self, terms: Terms) -> Float[Array, ""]:
        """The objective from its terms, per galaxy.

        The reference weighs as much as all galaxies at first, as one of them in the end; between,
        the weight falls by the same factor each step.
        """
        share = jnp.minimum(self.progress / SETTLED, 1.0)
        weight = jnp.exp(-share * np.log(self.rows.shape[0]))
        return terms.log_selected - terms.log_evidence + weight * terms.kl

    def log_passing(self, x: Float[Array, "n d"], key: Array) -> Float[Array, " n"]:
        """Ln of the probability that galaxies pass; 0 where the survey keeps all."""
        if self.passing is None:
            return jnp.zeros(x.shape[0])
        return self.passing.log_probability(x, key=key)


class Terms(NamedTuple):
    """The objective's terms, per galaxy but for the last.

    Attributes:
        log_evidence: Mean over galaxies.
        log_selected: ln alpha; 0 for a population as observed, where it is inside the evidence.
        kl: Nats from the reference; as observed, less an unknown constant.
    """

    log_evidence: Array
    log_selected: Array
    kl: Array


def observed_terms(
    population: AbstractPopulation, problem: HierarchyProblem, mean_evidence: Array, key: Array
) -> Terms:
    """Of a population as observed, whose draws were divided by their probability of passing."""
    x, log_density, log_passing = _own_draws(population, problem, key)
    kl = jnp.mean(log_density - problem.reference.log_prob(x) - log_passing)
    return Terms(mean_evidence, jnp.zeros(()), kl)


def intrinsic_terms(
    population: AbstractPopulation, problem: HierarchyProblem, mean_evidence: Array, key: Array
) -> Terms:
    """Of a population of all galaxies, whose draws were divided by the prior alone."""
    x, log_density, log_passing = _own_draws(population, problem, key)
    kl = jnp.mean(log_density - problem.reference.log_prob(x))
    return Terms(mean_evidence, log_selected_fraction(log_passing), kl)


def _own_draws(
    population: AbstractPopulation, problem: HierarchyProblem, key: Array
) -> tuple[Array, Array, Array]:
    key_draw, key_pass = jax.random.split(key)
    x, log_density = population.sample_and_log_prob(problem.own_draws, key=key_draw)
    return x, log_density, problem.log_passing(x, key_pass)


def observed_loss(
    population: AbstractPopulation, problem: HierarchyProblem, key: Array
) -> Float[Array, ""]:
    """The objective of a population as observed, on a random batch of the catalogue."""
    return _loss(observed_terms, population, problem, key)


def intrinsic_loss(
    population: AbstractPopulation, problem: HierarchyProblem, key: Array
) -> Float[Array, ""]:
    """The objective of a population of all galaxies, on a random batch of the catalogue."""
    return _loss(intrinsic_terms, population, problem, key)


def _loss(
    terms: Callable[..., Terms],
    population: AbstractPopulation,
    problem: HierarchyProblem,
    key: Array,
) -> Float[Array, ""]:
    key_batch, key_own = jax.random.split(key)
    key_rows, key_chosen = jax.random.split(key_batch)
    place = jax.random.randint(key_rows, (problem.batch,), 0, problem.rows.shape[0])
    draws = problem.draws.take(problem.rows[place])
    explained = mean_log_evidence(population, draws, problem.chosen, key=key_chosen)
    return problem.value(terms(population, problem, explained, key_own))


@eqx.filter_jit
def judge(
    population: AbstractPopulation,
    problem: HierarchyProblem,
    held_out: PosteriorDraws,
    key: Array,
) -> tuple[Float[Array, ""], Terms, Evidence]:
    """The objective of a population as observed on held-out galaxies, the reference weighing least.

    Returns:
        The objective, its terms, and each held-out galaxy's evidence.
    """
    explained = evidence(population, held_out)
    done = dataclasses.replace(problem, progress=jnp.ones(()))
    terms = observed_terms(population, done, jnp.mean(explained.log_evidence), key)
    return done.value(terms), terms, explained


def reachable(
    reference: Reference, centre: Reference, draws: PosteriorDraws
) -> tuple[Reference, float]:
    """A reference, moved towards the centre as far as it must be for the draws to represent it.

    A reference far from the prior of the posteriors leaves hardly any of their draws, and what
    would come out is their noise.

    Args:
        reference: Drawn from the hyperprior.
        centre: Its centre.
        draws: Some galaxies' posteriors.

    Returns:
        The reference, and the share of the way from the centre where it is.
    """
    for share in SHARES:
        moved = towards(reference, centre, share)
        if float(jnp.median(evidence(moved, draws).ess)) >= LEAST_EFFECTIVE:
            return moved, share
    return centre, 0.0
