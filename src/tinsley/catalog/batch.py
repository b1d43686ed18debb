"""Posteriors of a batch of galaxies: fixed shapes, so that neighbours change nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from tinsley.infer.amortized import AmortizedPosterior, Draws, draw_posterior
from tinsley.infer.importance import weighted_summary
from tinsley.infer.likelihood import Observation
from tinsley.infer.redshift import draw_free
from tinsley.infer.support import PhotometryDensity
from tinsley.observe.survey import Photometry
from tinsley.rng import object_key, split_id
from tinsley.status import Redshift

BATCH = 64
"""Galaxies of one compiled call. Each is computed by itself (a loop, not a vector), so a result
depends on nothing but the galaxy; short batches are padded. One batch keeps little more than one
core busy, so that as many run at once as there are cores (1.5-1.9 times faster on two)."""

DRAW = {Redshift.GIVEN: draw_posterior, Redshift.FREE: draw_free}
"""How a galaxy gets its first draws."""

Values = np.ndarray | Array


class BatchResult(NamedTuple):
    """Posteriors of some galaxies; NumPy arrays once they leave `infer_batch`.

    Attributes:
        ess: Effective sample size, [n].
        khat: Pareto shape, [n]; NaN for chains.
        rhat: Largest R-hat of chains, [n]; NaN where the draws are weighted.
        log_evidence: ln p(flux | sigma, redshift), [n].
        best_chi2: Least chi^2 of a draw, each draw at its best mass, [n].
        best: Parameters of that draw, each [n].
        summary: `<name>_<statistic>`, each [n].
        draws: Parameters and derived properties, each [n, draw]; None when not asked for.
        log_weight: Smoothed weights, [n, draw]; None when not asked for.
        ess_trained_prior: Effective sample size without the weights of a new prior, [n]; None where
            there is none.
    """

    ess: Values
    khat: Values
    rhat: Values
    log_evidence: Values
    best_chi2: Values
    best: Mapping[str, Values]
    summary: Mapping[str, Values]
    draws: Mapping[str, Values] | None
    log_weight: Values | None
    ess_trained_prior: Values | None = None


def infer_batch(
    posterior: AmortizedPosterior,
    photometry: Photometry,
    number: int,
    run_key: Array,
    *,
    keep_draws: bool,
    redshift: Redshift = Redshift.GIVEN,
) -> BatchResult:
    """Posteriors of galaxies that all can be used.

    Args:
        posterior: The trained model.
        photometry: The galaxies, any number.
        number: Draws a galaxy.
        run_key: Key of the run; each galaxy's own key follows from it and the object id.
        keep_draws: Return the draws too.
        redshift: Whether the redshifts are known; if not, all of `photometry` have a prior of it or
            none has.
    """

    def run(start: int) -> BatchResult:
        seen, words = _padded(photometry.take(slice(start, start + BATCH)))
        out = _infer(posterior, seen, words, run_key, number, (keep_draws, redshift))
        return jax.tree.map(np.asarray, out)

    with ThreadPoolExecutor(os.cpu_count()) as threads:
        pieces = list(threads.map(run, range(0, len(photometry), BATCH)))

    def joined(*parts: np.ndarray) -> np.ndarray:
        return np.concatenate(parts)[: len(photometry)]

    return jax.tree.map(joined, *pieces)


def find_unusual(support: PhotometryDensity, seen: Observation) -> np.ndarray:
    """True where the photometry is unlike the training set's, [n]; neighbours change nothing."""
    number = len(seen.redshift)

    def run(start: int) -> np.ndarray:
        rows = np.minimum(np.arange(start, start + BATCH), number - 1)
        return np.asarray(_find_unusual(support, jax.tree.map(lambda a: a[rows], seen)))

    pieces = [run(start) for start in range(0, number, BATCH)]
    return np.concatenate([np.zeros(0, bool), *pieces])[:number]


@eqx.filter_jit
def _find_unusual(support: PhotometryDensity, seen: Observation) -> Array:
    return jax.lax.map(support.unusual, seen)


def as_observation(rows: Photometry) -> Observation:
    """The same as JAX arrays."""
    return Observation(
        flux=jnp.asarray(rows.flux, dtype=float),
        sigma=jnp.asarray(rows.sigma, dtype=float),
        mask=jnp.asarray(rows.mask),
        redshift=jnp.asarray(rows.redshift, dtype=float),
        limit=None if rows.limit is None else jnp.asarray(rows.limit),
        redshift_prior=jax.tree.map(lambda a: jnp.asarray(a, dtype=float), rows.redshift_prior),
    )


def _padded(rows: Photometry) -> tuple[Observation, Array]:
    """Arrays of exactly `BATCH` galaxies; the last is repeated."""
    rows = rows.take(np.minimum(np.arange(BATCH), len(rows) - 1))
    return as_observation(rows), jnp.asarray(split_id(rows.object_id))


@eqx.filter_jit
def _infer(
    posterior: AmortizedPosterior,
    seen: Observation,
    words: Array,
    run_key: Array,
    number: int,
    how: tuple[bool, Redshift],
) -> BatchResult:
    keep_draws, redshift = how

    def one(galaxy: tuple[Observation, Array]) -> Any:
        key = object_key(run_key, galaxy[1])
        drawn = DRAW[redshift](posterior, galaxy[0], number, key=key)
        result = summarise(drawn, redshift)
        return result if keep_draws else result._replace(draws=None, log_weight=None)

    return jax.lax.map(one, (seen, words))


def with_redshift(result: BatchResult, redshift: np.ndarray) -> BatchResult:
    """The result of `infer_batch` with its exact redshifts, [n], beside what was inferred."""
    exact = redshift.astype(np.float32)
    summary = {f"redshift_{end}": exact for end in ("mean", "q16", "q50", "q84")}
    summary["redshift_std"] = np.zeros_like(exact)
    draws = result.draws
    if draws is not None and result.log_weight is not None:
        repeated = np.broadcast_to(exact[:, None], result.log_weight.shape)
        draws = dict(draws) | {"redshift": repeated}
    return result._replace(summary=dict(result.summary) | summary, draws=draws)


def summarise(drawn: Draws, redshift: Redshift) -> BatchResult:
    """The result of one galaxy, whose arrays lack the first axis."""
    weight = jnp.exp(drawn.psis.log_weight)
    known = {"redshift"} if redshift == Redshift.GIVEN else set()
    theta = {name: value for name, value in drawn.theta.items() if name not in known}
    statistics = weighted_summary(jnp.stack(list(theta.values())), weight)
    summary = {
        f"{name}_{label}": values[i]
        for i, name in enumerate(theta)
        for label, values in statistics.items()
    }
    return BatchResult(
        ess=drawn.psis.ess,
        khat=drawn.psis.khat,
        rhat=drawn.rhat,
        log_evidence=drawn.log_evidence,
        best_chi2=drawn.best_chi2,
        best=drawn.best,
        summary=summary,
        draws=theta,
        log_weight=drawn.psis.log_weight,
        ess_trained_prior=drawn.ess_trained_prior,
    )
