"""Weighted draws of one galaxy, as many as it takes, by the first way that gives them."""

from __future__ import annotations

import time
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from tinsley.infer.amortized import AmortizedPosterior, log_likelihood, weigh
from tinsley.infer.features import features
from tinsley.infer.importance import pareto_smooth
from tinsley.infer.likelihood import Observation
from tinsley.infer.refine import sample_mixture
from tinsley.infer.smc import EFFORT, propose
from tinsley.status import Method

COMPARED = 2000
"""Draws of each kind that are compared."""
ENOUGH = 2 * COMPARED
"""Effective draws that the compared ones are resampled from, so that few occur twice."""
ROUND = 4096
MOST_ROUNDS = {Method.FLOW: 32, Method.WEIGHTED: 32, Method.SMC: 8}


class Galaxy(NamedTuple):
    """One galaxy: what was seen, how its errors were made, and what it truly is.

    Attributes:
        seen: Its photometry.
        snr_range: See `integrate_mass`.
        truth: Its true properties and the reference point of the joint coverage; None if real.
    """

    seen: Observation
    snr_range: tuple[float, float] | None
    truth: tuple[dict[str, float], np.ndarray] | None


class Pool(NamedTuple):
    """Weighted draws of one galaxy, from as many rounds as it took.

    Attributes:
        theta: Parameters and derived properties, each [draw].
        weight: Smoothed, sums to 1, [draw].
        ess: Effective sample size of the unsmoothed weights.
        khat: Pareto shape.
        method: Where they come from.
        seconds: Of processor time, all rounds and methods that were tried together.
        first_seconds: Of those, the first round's.
    """

    theta: dict[str, np.ndarray]
    weight: np.ndarray
    ess: float
    khat: float
    method: Method
    seconds: float
    first_seconds: float


def draw_enough(
    posterior: AmortizedPosterior, one: Galaxy, key: jax.Array
) -> tuple[Pool, dict[str, np.ndarray]]:
    """Weighted draws by the first method that gives enough, or by the best; and raw draws."""
    started = time.process_time()
    best, raw, first = None, {}, 0.0
    for method, most in MOST_ROUNDS.items():
        parts: list[tuple[dict[str, np.ndarray], np.ndarray]] = []
        for turn in range(most):
            key_turn = jax.random.fold_in(
                jax.random.fold_in(key, list(MOST_ROUNDS).index(method)), turn
            )
            parts.append(jax.tree.map(np.asarray, draw(posterior, one[:2], method, key_turn)))
            if not raw:
                raw = {name: values[:COMPARED] for name, values in parts[0][0].items()}
                first = time.process_time() - started
            log_weight = np.concatenate([w for _, w in parts])
            ess = kish(log_weight)
            if ess >= ENOUGH or ess * most < 0.5 * ENOUGH * (turn + 1):
                break
        theta = {name: np.concatenate([t[name] for t, _ in parts]) for name in raw}
        smooth = smoothed(jnp.asarray(log_weight))
        weight = np.exp(np.asarray(smooth.log_weight, float))
        seconds = time.process_time() - started
        pool = Pool(theta, weight / weight.sum(), ess, float(smooth.khat), method, seconds, first)
        if best is None or pool.ess > best.ess:
            best = pool
        if ess >= ENOUGH:
            break
    return best._replace(seconds=seconds), raw


@eqx.filter_jit
def draw(
    posterior: AmortizedPosterior,
    one: tuple[Observation, tuple[float, float] | None],
    method: Method,
    key: jax.Array,
) -> tuple[dict[str, jax.Array], jax.Array]:
    """One round of draws, with ln of their weights."""
    seen, snr_range = one
    posterior = posterior.at_redshift(seen.redshift)
    key_x, key_more, key_mass = jax.random.split(key, 3)
    if method == Method.FLOW:
        told = features(seen, posterior.cosmology)
        x, log_q = posterior.flow.sample_and_log_prob(ROUND, told, key=key_x)
    elif method == Method.WEIGHTED:
        x, log_q = sample_mixture(posterior, seen, ROUND, key=key_x)
    else:
        n_dim = posterior.space.without_mass().n_unit
        kernels, _ = propose(lambda x: log_likelihood(posterior, seen, x), n_dim, EFFORT, key=key_x)
        x = kernels.sample(ROUND, key=key_more)
        log_q = kernels.log_prob(x)
    drawn = weigh(posterior, seen, x, log_q, key=key_mass, snr_range=snr_range)
    return drawn.theta, drawn.log_weight


smoothed = eqx.filter_jit(pareto_smooth)


def kish(log_weight: np.ndarray) -> float:
    """Effective sample size; 0 if no weight is finite."""
    if not np.isfinite(log_weight.max()):
        return 0.0
    weight = np.exp(log_weight.astype(float) - log_weight.max())
    return float(weight.sum() ** 2 / np.sum(weight**2))
