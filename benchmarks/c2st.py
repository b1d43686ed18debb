"""Can a classifier tell two samples apart? Accuracy 0.5: no; 1: always."""

from __future__ import annotations

import numpy as np
from scipy import stats
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedKFold, cross_val_score
from threadpoolctl import threadpool_limits

FOLDS = 5


def c2st(one: np.ndarray, other: np.ndarray, seed: int = 0) -> float:
    """Accuracy of gradient-boosted trees on points they were not taught, [point, d] each.

    A point that occurs twice gives away its sample if one copy is taught and the other asked, so
    each counts once; then the larger sample is cut to the size of the smaller.

    Source:
        Lopez-Paz & Oquab (2017); trees in the place of their network (see `power`).
    """
    rng = np.random.default_rng(seed)
    samples = [rng.permutation(np.unique(sample, axis=0)) for sample in (one, other)]
    number = min(map(len, samples))
    points = np.concatenate([sample[:number] for sample in samples])
    labels = np.repeat([0, 1], number)
    trees = HistGradientBoostingClassifier(max_iter=60, max_leaf_nodes=8, random_state=seed)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    with threadpool_limits(1):  # as many galaxies as cores are compared at once
        return float(np.mean(cross_val_score(trees, points, labels, cv=folds)))


def power(number: int, n_dim: int = 10, seed: int = 0) -> list[dict[str, float]]:
    """What it finds of normal samples a known distance apart, and what the best classifier would.

    The best one's accuracy is Phi(distance / 2).
    """
    rng = np.random.default_rng(seed)
    found = []
    for distance in (0.0, 0.25, 0.5, 1.0):
        one, other = rng.normal(size=(2, number, n_dim))
        other[:, 0] += distance
        found.append(
            {
                "distance": distance,
                "best": float(stats.norm.cdf(distance / 2)),
                "found": c2st(one, other, seed),
            }
        )
    return found
