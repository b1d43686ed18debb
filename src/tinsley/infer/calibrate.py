"""Is a posterior calibrated? The ranks of known truths in it, raw and weighted.

`tinsley.infer.truths` makes the galaxies, `calibrate` ranks their truths, and
`tinsley.infer.ranks` judges the ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from tinsley.infer.amortized import AmortizedPosterior, Draws, draw_posterior
from tinsley.infer.importance import pareto_smooth
from tinsley.infer.likelihood import Observation
from tinsley.infer.ranks import RAW, WEIGHTED, WITH_TRUTH, rank, uniformity, weighted_median
from tinsley.infer.redshift import draw_free
from tinsley.infer.truths import SnrRange, Truth, quantities

BATCH = 64
"""Rounds of draws in one compiled call, of as many galaxies or fewer; short batches are padded."""

_MARGIN = 1.25
"""A first round is a noisy measure of the need."""


@dataclass(frozen=True)
class Effort:
    """How many draws.

    Attributes:
        draws: A round, and all that most galaxies get.
        enough: Galaxies whose effective sample size is less get more rounds.
        most: Rounds at most, a power of 2, up to `BATCH`.
        workers: Batches at once; one keeps little more than one core busy.
    """

    draws: int = 1000
    enough: float = 200.0
    most: int = 32
    workers: int = 1


class Calibration(NamedTuple):
    """What `calibrate` finds of n galaxies.

    Attributes:
        ranks: By kind, then by property, each [n]; see `tinsley.infer.ranks.rank`.
        median: Weighted posterior median of each property, [n].
        efficiency: ESS over draws in the first round, [n].
        ess: Effective sample size of all rounds, [n].
        khat: Pareto shape of all rounds, [n].
        rounds: Rounds of draws that each galaxy got, [n].
    """

    ranks: dict[str, dict[str, np.ndarray]]
    median: dict[str, np.ndarray]
    efficiency: np.ndarray
    ess: np.ndarray
    khat: np.ndarray
    rounds: np.ndarray


def calibrate(
    posterior: AmortizedPosterior,
    truth: Truth,
    snr_range: SnrRange,
    effort: Effort,
    key: Array,
    on_batch: Callable[[int, int], None] = lambda done, of: None,
) -> Calibration:
    """Ranks of the truths in their raw and weighted posteriors.

    A galaxy with few effective draws gets more of them, pooled: as many rounds as its first round
    says that it needs. Those that stay below `effort.enough` are not left out. A galaxy for which
    all weights vanish has ranks of NaN.

    Args:
        posterior: The trained model.
        truth: The galaxies; where the redshift is among their values, it is not told.
        snr_range: Of their noise; see `AbstractLikelihood.integrate_mass`.
        effort: How many draws.
        key: Random key.
        on_batch: Called with galaxies done and galaxies to do after each batch.
    """
    key_draw, key_jitter = jax.random.split(key)
    number = len(truth.seen.redshift)
    jitter = np.asarray(jax.random.uniform(key_jitter, (number, len(truth.values))), float)
    keys = jax.random.split(key_draw, number)

    def run(rows: np.ndarray, rounds: int) -> Calibration:
        return _calibrate_batch(posterior, truth, snr_range, effort, keys, jitter, rows, rounds)

    def in_batches(rows: np.ndarray, rounds: int, start: int, of: int) -> Calibration:
        progress = _onward(on_batch, start, of)
        return _in_batches(run, rows, rounds, effort.workers, progress)

    first = in_batches(np.arange(number), 1, 0, number)
    wanted = _rounds_wanted(first.ess, effort)
    again = int(np.sum(wanted > 1))
    out, done = first, number
    for rounds in np.unique(wanted[wanted > 1]):
        rows = np.flatnonzero(wanted == rounds)
        out = _replaced(out, in_batches(rows, int(rounds), done, number + again), rows)
        done += len(rows)
    return out._replace(efficiency=first.efficiency)


def summarise(truth: Truth, found: Calibration, rows: np.ndarray) -> dict[str, Any]:
    """Plain summary of some galaxies, for files.

    Args:
        truth: The galaxies.
        found: What `calibrate` made of them.
        rows: Which galaxies, boolean; those without finite ranks are counted and left out.

    Returns:
        ESS statistics and, for each property, the tests of its ranks by kind, the median of
        posterior median minus truth, and its scatter (1.48 MAD), in the property's unit.
    """
    finite = np.isfinite(found.ess)
    kept = rows & finite
    efficiency, effective = found.efficiency[kept], found.ess[kept]
    properties = {}
    for name, true_value in truth.values.items():
        error = found.median[name][kept] - np.asarray(true_value, float)[kept]
        bias = float(np.median(error))
        properties[name] = {
            "bias": bias,
            "scatter": 1.4826 * float(np.median(np.abs(error - bias))),
            **{kind: uniformity(ranks[name][kept]) for kind, ranks in found.ranks.items()},
        }
    return {
        "galaxies": int(rows.sum()),
        "failed": int(np.sum(rows & ~finite)),
        "efficiency": {
            "median": float(np.median(efficiency)),
            "q16": float(np.quantile(efficiency, 0.16)),
            "q84": float(np.quantile(efficiency, 0.84)),
            "share_below_1_percent": float(np.mean(efficiency < 0.01)),
        },
        "pooled_ess": {
            f"share_below_{least}": float(np.mean(effective < least)) for least in (50, 100, 200)
        },
        "mean_rounds": float(np.mean(found.rounds[kept])),
        "properties": properties,
    }


@eqx.filter_jit
def _draw(
    posterior: AmortizedPosterior,
    galaxies: tuple[Observation, Array, Array],
    number: int,
    snr_range: SnrRange,
    draw: Callable[..., Draws],
) -> tuple[dict[str, Array], Array]:
    """Draws of every property and their log weights, each [batch, draw]."""

    def one(galaxy: tuple[Observation, Array, Array]) -> tuple[dict[str, Array], Array]:
        seen, reference, key = galaxy
        drawn = draw(posterior, seen, number, key=key, snr_range=snr_range)
        return quantities(posterior, drawn.theta, reference), drawn.log_weight

    return jax.lax.map(one, galaxies)


@eqx.filter_jit
def _smooth(log_weight: Array) -> tuple[Array, Array, Array]:
    """Smoothed log weights, ESS and k-hat of each galaxy."""
    found = jax.lax.map(pareto_smooth, log_weight)
    return found.log_weight, found.ess, found.khat


def _calibrate_batch(
    posterior: AmortizedPosterior,
    truth: Truth,
    snr_range: SnrRange,
    effort: Effort,
    keys: Array,
    jitter: np.ndarray,
    rows: np.ndarray,
    rounds: int,
) -> Calibration:
    """`calibrate` for some galaxies with the same number of rounds, `BATCH` rounds in all."""
    tasks, turn = np.repeat(rows, rounds), np.tile(np.arange(rounds), len(rows))
    key = jax.vmap(jax.random.fold_in)(keys[tasks], turn)
    galaxies = (jax.tree.map(lambda a: a[tasks], truth.seen), truth.reference[tasks], key)
    draw = draw_free if "redshift" in truth.values else draw_posterior
    drawn, drawn_weight = _draw(posterior, galaxies, effort.draws, snr_range, draw)
    values = {name: np.asarray(drawn[name]).reshape(len(rows), -1) for name in truth.values}
    log_weight = np.asarray(drawn_weight).reshape(len(rows), -1)
    smoothed, ess, khat = (np.asarray(a, float) for a in _smooth(jnp.asarray(log_weight)))
    true_values = {name: np.asarray(value)[rows] for name, value in truth.values.items()}
    measures = _measures(log_weight, smoothed, ess, truth, rows)
    ranks = {
        kind: {
            name: rank(values[name], weight, true_values[name], own, jitter[rows, k])
            for k, name in enumerate(values)
        }
        for kind, (weight, own) in measures.items()
    }
    median = {name: weighted_median(values[name], np.exp(smoothed)) for name in values}
    efficiency = ess / log_weight.shape[1]
    filled = np.full(len(rows), rounds)
    return Calibration(ranks, median, efficiency, ess, khat, filled)


def _measures(
    log_weight: np.ndarray, smoothed: np.ndarray, ess: np.ndarray, truth: Truth, rows: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """For each kind of rank the weights of the draws [n, draw] and of the truth [n]."""
    number = log_weight.shape[1]
    equal = np.full_like(smoothed, 1.0 / number)
    out = {
        RAW: (equal, np.full(len(rows), 1.0 / number)),
        WEIGHTED: (np.exp(smoothed), 1.0 / ess),
    }
    if truth.log_weight is not None:
        with np.errstate(invalid="ignore"):  # all weights may be 0
            total = np.logaddexp.reduce(log_weight.astype(float), axis=1)
            own = np.exp(np.minimum(np.asarray(truth.log_weight, float)[rows] - total, 500.0))
            out[WITH_TRUTH] = (np.exp(log_weight - total[:, None]), own)
    return out


def _in_batches(
    run: Callable[[np.ndarray, int], Calibration],
    rows: np.ndarray,
    rounds: int,
    workers: int,
    on_batch: Callable[[int], None],
) -> Calibration:
    """Run `BATCH` rounds at a time, the last batch filled up with its last galaxy."""
    size = BATCH // rounds
    parts = [rows[start : start + size] for start in range(0, len(rows), size)]
    filled = [part[np.minimum(np.arange(size), len(part) - 1)] for part in parts]
    pieces = []
    with ThreadPoolExecutor(workers) as threads:
        for piece in threads.map(lambda part: run(part, rounds), filled):
            pieces.append(piece)
            on_batch(min(len(pieces) * size, len(rows)))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[: len(rows)], *pieces)


def _onward(on_batch: Callable[[int, int], None], start: int, of: int) -> Callable[[int], None]:
    """`on_batch` for galaxies counted from `start`."""
    return lambda done: on_batch(start + done, of)


def _rounds_wanted(ess: np.ndarray, effort: Effort) -> np.ndarray:
    """Rounds that should bring each galaxy to `enough`, a power of 2, [n]."""
    needed = np.log2(_MARGIN * effort.enough / np.maximum(np.nan_to_num(ess), 1e-3))
    rounds = 2 ** np.clip(np.ceil(needed), 0, np.log2(effort.most)).astype(int)
    return np.where(ess >= effort.enough, 1, rounds)


def _replaced(whole: Calibration, part: Calibration, rows: np.ndarray) -> Calibration:
    """`whole` with some galaxies' results replaced."""

    def put(old: np.ndarray, new: np.ndarray) -> np.ndarray:
        old = old.copy()
        old[rows] = new
        return old

    return jax.tree.map(put, whole, part)
