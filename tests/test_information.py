"""Divergences of normal densities against their closed form."""

from __future__ import annotations

import numpy as np
import pytest

from tinsley.infer.information import kl_divergence, log_marginal


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


def measured(std: float, rng: np.random.Generator, number: int, truth: np.ndarray) -> np.ndarray:
    """Draws of the posteriors of truths ~ N(0, 1) that were measured with an error of `std`."""
    seen = truth + std * rng.normal(size=len(truth))
    width = std / np.sqrt(1 + std**2)
    return (seen / (1 + std**2))[:, None] + width * rng.normal(size=(len(truth), number))


@pytest.mark.parametrize(("one", "other"), [(1.0, 0.5), (0.1, 0.05), (3.0, 3.0)])
def test_density_at_the_truth_rises_by_the_information_gained(one, other):
    """0.5 ln of the ratio of 1 + 1 / error^2, to 4.5 standard errors or 0.01."""
    rng = np.random.default_rng(3)
    truth, reference = rng.normal(size=2000), rng.normal(size=4000)
    both = [log_marginal(measured(s, rng, 1000, truth), truth, reference) for s in (one, other)]
    gain = both[1] - both[0]
    exact = 0.5 * np.log((1 + other**-2) / (1 + one**-2))
    assert gain.mean() == pytest.approx(exact, abs=max(0.01, 4.5 * gain.std() / np.sqrt(2000)))
    before = 0.5 * np.log(1 + one**-2) - 0.5 * np.log(2 * np.pi * np.e)
    assert both[0].mean() == pytest.approx(before, abs=0.01 + 4.5 * both[0].std() / np.sqrt(2000))


def test_a_truth_beyond_all_draws_costs_what_one_draw_of_the_reference_does():
    reference = np.random.default_rng(0).normal(size=4000)
    found = log_marginal(np.full((1, 999), 0.0) + 1e-3 * reference[:999], np.ones(1), reference)
    assert found[0] == pytest.approx(np.log(np.exp(-0.5) / np.sqrt(2 * np.pi) / 1000), abs=0.1)
