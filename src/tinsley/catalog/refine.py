"""Refine the posteriors of a chunk that need it: more draws, then a sampler, then chains."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.smc.resampling import systematic
from jaxtyping import Array

from tinsley.catalog.batch import BatchResult, as_observation, summarise
from tinsley.infer.amortized import AmortizedPosterior, Draws
from tinsley.infer.importance import is_weak
from tinsley.infer.likelihood import Observation
from tinsley.infer.redshift import draw_free, draw_free_hmc, draw_free_smc
from tinsley.infer.refine import MORE_DRAWS, draw_hmc, draw_mixture, draw_smc
from tinsley.observe.survey import Photometry
from tinsley.rng import object_key, split_id
from tinsley.status import Method, Redshift

STAGES: dict[Redshift, tuple[tuple[Method, Callable[..., Draws]], ...]] = {
    Redshift.GIVEN: (
        (Method.WEIGHTED, draw_mixture),
        (Method.SMC, draw_smc),
        (Method.HMC, draw_hmc),
    ),
    Redshift.FREE: (
        (Method.WEIGHTED, draw_free),
        (Method.SMC, draw_free_smc),
        (Method.HMC, draw_free_hmc),
    ),
}
"""Tried in turn, until a posterior can be trusted."""

_FIRST_KEY = 2
"""The first round split the galaxy's key, which uses up 0 and 1."""


class Counts(NamedTuple):
    """How many draws a refined galaxy gets, and how many are kept; None for none."""

    number: int
    keep: int | None


class Refined(NamedTuple):
    """A chunk's posteriors, refined where they were to be.

    Attributes:
        result: Posteriors; kept draws of a refined galaxy are resampled to as many as the others'.
        method: Where each comes from, [n].
        n_draws: Draws behind each summary, [n].
    """

    result: BatchResult
    method: np.ndarray
    n_draws: np.ndarray


def refine(
    posterior: AmortizedPosterior,
    photometry: Photometry,
    result: BatchResult,
    wanted: np.ndarray,
    number: int,
    run_key: Array,
    redshift: Redshift = Redshift.GIVEN,
    *,
    chains: bool = True,
) -> Refined:
    """Refine some of the galaxies that `infer_batch` gave posteriors of.

    Each is computed by a call of its own, whose thousands of draws or particles are the batch: a
    result depends on nothing but the galaxy, and one that needs long holds up no other. As many
    calls run at once as there are cores. Where no stage can be trusted, the one with the most
    effective draws stays.

    Args:
        posterior: The trained model.
        photometry: The galaxies.
        result: Their posteriors.
        wanted: Which to refine, bool [n].
        number: Draws a galaxy of `result`.
        run_key: As for `infer_batch`.
        redshift: Whether the redshifts are known.
        chains: Go as far as to long chains, which take minutes of a core a galaxy.
    """
    method = np.full(len(photometry), Method.FLOW, object)
    n_draws = np.full(len(photometry), number)
    left = np.flatnonzero(wanted)
    for stage, (name, draw) in enumerate(STAGES[redshift]):
        if not len(left) or (name == Method.HMC and not chains):
            break
        counts = Counts(max(number, MORE_DRAWS), None if result.draws is None else number)
        found = _each(posterior, photometry.take(left), (draw, redshift), counts, (run_key, stage))
        weak = is_weak(found.ess, found.khat, found.rhat)
        kept = ~weak | (np.nan_to_num(found.ess) >= np.nan_to_num(result.ess[left]))
        rows, better = left[kept], jax.tree.map(lambda values, kept=kept: values[kept], found)
        result = jax.tree.map(lambda old, new, at=rows: _with_rows(old, at, new), result, better)
        method[rows], n_draws[rows] = name, counts.number
        left = left[weak]
    return Refined(result, method, n_draws)


def _each(
    posterior: AmortizedPosterior,
    rows: Photometry,
    draw: tuple[Callable[..., Draws], Redshift],
    counts: Counts,
    key_of: tuple[Array, int],
) -> BatchResult:
    """The results of all rows by one of the ways to draw."""
    seen, words = as_observation(rows), jnp.asarray(split_id(rows.object_id))

    def run(row: int) -> BatchResult:
        galaxy: Any = jax.tree.map(lambda a: a[row], (seen, words))
        return jax.tree.map(np.asarray, _one(posterior, galaxy, draw, counts, key_of))

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        pieces = list(threads.map(run, range(len(rows))))
    return jax.tree.map(lambda *parts: np.stack(parts), *pieces)


@eqx.filter_jit
def _one(
    posterior: AmortizedPosterior,
    galaxy: tuple[Observation, Array],
    draw: tuple[Callable[..., Draws], Redshift],
    counts: Counts,
    key_of: tuple[Array, int],
) -> BatchResult:
    run_key, stage = key_of
    own_key = jax.random.fold_in(object_key(run_key, galaxy[1]), _FIRST_KEY + stage)
    key_draw, key_keep = jax.random.split(own_key)
    result = summarise(draw[0](posterior, galaxy[0], counts.number, key=key_draw), draw[1])
    if counts.keep is None or result.draws is None or result.log_weight is None:
        return result._replace(draws=None, log_weight=None)
    chosen = systematic(key_keep, jnp.exp(result.log_weight), counts.keep)
    return result._replace(
        draws={name: values[chosen] for name, values in result.draws.items()},
        log_weight=jnp.full(counts.keep, -np.log(counts.keep), float),
    )


def _with_rows(old: np.ndarray, rows: np.ndarray, new: np.ndarray) -> np.ndarray:
    """A copy of the old array with some rows replaced."""
    out = np.array(old)
    out[rows] = new
    return out
