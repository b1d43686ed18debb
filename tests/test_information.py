"""Divergences of normal densities against their closed form."""

from __future__ import annotations

import numpy as np
import pytest

from tinsley.infer.information import kl_divergence


def closed_form(mean: np.ndarray, std: np.ndarray) -> float:
    """KL(N(mean, std^2) || N(0, 1)), nats."""
    return float(np.sum(0.5 * (std**2 + mean**2 - 1) - np.log(std)))


def normal(seed: int, mean: np.ndarray, std: np.ndarray, number: int) -> np.ndarray:
    return mean + std * np.random.default_rng(seed).normal(size=(number, len(mean)))


CASES = {
    "the same, 1-d": (np.zeros(1), np.ones(1)),
    "narrow, 1-d": (np.full(1, 0.5), np.full(1, 0.05)),
    "moved, 2-d": (np.array([1.0, -0.5]), np.array([0.5, 0.3])),
    "the same, 5-d": (np.zeros(5), np.ones(5)),
    "a posterior, 5-d": (np.array([0.5, -0.3, 0.8, 0.0, 0.2]), np.array([0.1, 0.4, 0.3, 0.8, 0.6])),
    "a better one, 5-d": (np.full(5, 0.3), np.array([0.05, 0.2, 0.2, 0.4, 0.3])),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_normal_densities(case):
    """Twenty estimates of 1,000 draws and 16,000: their mean is right, their scatter as they say.

    The scatter of 20 is itself known to 16 %: 1.5 is three such errors. Terms of neighbours cancel,
    so that the error may be too large.
    """
    mean, std = case
    reference = normal(0, np.zeros(len(mean)), np.ones(len(mean)), 16_000)
    found = [kl_divergence(normal(seed, mean, std, 1000), reference) for seed in range(1, 21)]
    nats = np.array([f.nats for f in found])
    assert abs(nats.mean() - closed_form(mean, std)) < 0.1
    said = np.mean([f.error for f in found])
    assert said / 2.5 < nats.std(ddof=1) < 1.5 * said


def test_refusals():
    points = np.zeros((100, 2))
    with pytest.raises(ValueError, match="2 dimensions, the reference has 3"):
        kl_divergence(points, np.zeros((100, 3)))
    with pytest.raises(ValueError, match="expected more than 2 draws"):
        kl_divergence(points[:2], points)
