"""Ranks of true values in their posteriors, and tests that they are uniform.

A posterior is calibrated if the posterior probability below the truth is uniform over galaxies
whose truth follows the prior (Talts et al. 2018). The same test of one more quantity, the distance
to a random point, is the joint coverage of Lemos et al. (2023, TARP).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import stats

FAMILY_LEVEL = 0.01
"""Chance of one or more false alarms in a family of tests."""
MAX_DISTANCE = 0.03
"""Largest distance from the diagonal of a p-p plot that is allowed."""
N_BINS = 20
_TIE = 1e-6
"""Values nearer than this, relative to 1 + |truth|, are tied: float32 can not tell them apart."""

Kind = str
Ranks = Mapping[Kind, Mapping[str, np.ndarray]]
"""Ranks by kind ("raw", "weighted", "with_truth"), then by the quantity's name, each [n]."""
RAW, WEIGHTED, WITH_TRUTH = "raw", "weighted", "with_truth"
JUDGED = (RAW, WEIGHTED)
JOINT = "joint"
"""The quantity whose ranks are the joint coverage."""


def rank(
    values: np.ndarray, weight: np.ndarray, truth: np.ndarray, own: np.ndarray, jitter: np.ndarray
) -> np.ndarray:
    """Posterior probability below the truth, with the truth itself counted among the draws.

    Ties are broken at random. With equal weights this is the rank of the truth among draws plus
    truth, exactly uniform for a calibrated posterior; so it is with unequal weights where `own` is
    the truth's own weight, however few draws count (given the set of draws and truth, each is the
    truth with a probability proportional to its weight). Without that knowledge an `own` of 1 / ESS
    leaves an error of the order of 1 / ESS.

    Args:
        values: Draws, [n, draw].
        weight: Their weights, normalised to sum to 1, [n, draw].
        truth: [n].
        own: Weight of the truth in the same measure, [n].
        jitter: Uniform random numbers, [n].

    Source:
        Exchangeability; tests/test_calibrate.py checks uniformity against closed forms.
    """
    difference = values - truth[:, None]
    tied = np.abs(difference) <= _TIE * (1 + np.abs(truth))[:, None]
    below = np.sum(weight * ((difference < 0) & ~tied), axis=1)
    ties = np.sum(weight * tied, axis=1)
    return np.clip((below + jitter * (ties + own)) / (1 + own), 0.0, 1.0)


def weighted_median(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Median of each row of draws [n, draw] with weights that sum to 1 [n, draw], [n]."""
    order = np.argsort(values, axis=1)
    reached = np.cumsum(np.take_along_axis(weight, order, axis=1), axis=1) < 0.5
    middle = np.minimum(np.sum(reached, axis=1, keepdims=True), values.shape[1] - 1)
    place = np.take_along_axis(order, middle, axis=1)
    return np.take_along_axis(values, place, axis=1)[:, 0]


def uniformity(ranks: np.ndarray) -> dict[str, Any]:
    """Tests that ranks [n] are uniform.

    Returns:
        `distance` from the diagonal of the p-p plot (Kolmogorov-Smirnov) with its p-value,
        `counts` in 20 equal bins and the p-value of their chi^2, and the shares of truths in the
        central 68 and 95 % of the posterior.
    """
    ks = stats.kstest(ranks, "uniform")
    counts, _ = np.histogram(ranks, bins=N_BINS, range=(0, 1))
    chi2 = stats.chisquare(counts)
    off_centre = np.abs(ranks - 0.5)
    return {
        "distance": float(ks.statistic),
        "p": float(ks.pvalue),
        "chi2": float(chi2.statistic),
        "chi2_p": float(chi2.pvalue),
        "coverage_68": float(np.mean(off_centre <= 0.34)),
        "coverage_95": float(np.mean(off_centre <= 0.475)),
        "counts": counts.tolist(),
    }


def holm(p_values: Mapping[str, float], level: float = FAMILY_LEVEL) -> list[str]:
    """Names of the hypotheses that Holm's procedure rejects at a family-wise `level`."""
    rejected = []
    ordered = sorted(p_values, key=p_values.__getitem__)
    for i, name in enumerate(ordered):
        if p_values[name] > level / (len(ordered) - i):
            break
        rejected.append(name)
    return rejected


def judge(ranks: Ranks) -> dict[str, dict[str, Any]]:
    """The criteria of a calibrated posterior, each with `passed`, on raw and weighted ranks.

    Returns:
        `uniform`: no Kolmogorov-Smirnov test of any property rejected, 1 % family-wise;
        `pp`: no property further than 0.03 from the diagonal; `joint`: nor the joint coverage.
    """
    p_values, distance, joint = {}, {}, {}
    for kind in JUDGED:
        for name, values in ranks[kind].items():
            found = uniformity(values)
            if name == JOINT:
                joint[f"{kind} {name}"] = found["distance"]
            else:
                p_values[f"{kind} {name}"] = found["p"]
                distance[f"{kind} {name}"] = found["distance"]
    rejected = holm(p_values)
    criteria = {
        "uniform": {
            "passed": not rejected,
            "limit": FAMILY_LEVEL,
            "value": min(1.0, min(p_values.values()) * len(p_values)),
            "of": min(p_values, key=p_values.__getitem__),
            "rejected": rejected,
        },
        "pp": _within(distance),
    }
    return criteria | ({"joint": _within(joint)} if joint else {})


def _within(distance: Mapping[str, float]) -> dict[str, Any]:
    worst = max(distance, key=distance.__getitem__)
    return {
        "passed": distance[worst] <= MAX_DISTANCE,
        "limit": MAX_DISTANCE,
        "value": distance[worst],
        "of": worst,
    }
