"""Distances between samples: closed forms for Gaussians, exact transport by POT."""

from __future__ import annotations

import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from tinsley.errors import InputError
from tinsley.population.config import DISTANCES
from tinsley.population.distance import (
    Energy,
    Sinkhorn,
    SlicedWasserstein,
    distance_noise,
    random_directions,
)

K = 3
KEY = jax.random.key(5)


def sample(seed: int, number: int = 400, mean=(0.0, 0.0, 0.0), sd=(1.0, 1.0, 1.0)):
    noise = jax.random.normal(jax.random.key(seed), (number, K))
    return jnp.asarray(mean) + jnp.asarray(sd) * noise


@eqx.filter_jit
def between(distance, x, y, progress=1.0):
    return distance(x, y, key=KEY, progress=jnp.asarray(progress))


# --- all of them ---

METHODS = {"sliced": DISTANCES["sliced"], "energy": DISTANCES["energy"]}


@pytest.mark.parametrize("distance", METHODS.values(), ids=METHODS.keys())
def test_points_twice_over_are_as_far(distance):
    x, y = sample(0, 60), sample(1, 90)
    twice = jnp.concatenate([x, x])
    assert float(between(distance, x, y)) == pytest.approx(
        float(between(distance, twice, y)), rel=1e-3
    )


@pytest.mark.parametrize("distance", METHODS.values(), ids=METHODS.keys())
@pytest.mark.parametrize("number", [40, 50])
def test_slopes_are_those_of_differences(distance, number):
    x, y = sample(0, 50), sample(1, number, mean=(0.5, 0, 0))
    step, at = 1e-2, jnp.zeros((50, K)).at[7, 1].set(1.0)

    def value(x):
        return between(distance, x, y)

    moved = (value(x + step * at) - value(x - step * at)) / (2 * step)
    assert float(jax.grad(value)(x)[7, 1]) == pytest.approx(float(moved), rel=0.05, abs=1e-4)


# --- sliced Wasserstein ---


def test_directions_are_orthogonal_units():
    sets = random_directions(64, K, key=KEY).reshape(-1, K, K)
    assert len(sets) == 22
    np.testing.assert_allclose(
        sets @ sets.swapaxes(1, 2), np.tile(np.eye(K), (22, 1, 1)), atol=1e-5
    )
    moments = np.einsum("skx,sky->xy", sets, sets) / 66
    np.testing.assert_allclose(moments, np.eye(K) / K, atol=1e-5)


def test_sliced_distance_of_a_shift_is_exact():
    x, shift = sample(0), np.array([0.3, -0.4, 1.2])
    assert float(SlicedWasserstein(6)(x + shift, x, key=KEY)) == pytest.approx(
        np.sum(shift**2) / K, rel=1e-4
    )


def test_sliced_distance_of_gaussians():
    """Along a direction d: (d m)^2 + (s_1 - s_2)^2."""
    mean, sd = np.array([0.5, 0.0, -0.3]), np.array([2.0, 1.0, 0.5])
    x, y = sample(0, 40_000), sample(1, 40_000, mean, sd)
    directions = np.asarray(random_directions(30, K, key=KEY), float)
    exact = (directions @ mean) ** 2 + (np.sqrt(directions**2 @ sd**2) - 1) ** 2
    found = float(SlicedWasserstein(30)(x, y, key=KEY))
    assert found == pytest.approx(exact.mean(), rel=0.02)


def test_sliced_distance_is_exact_transport_on_each_line():
    ot = pytest.importorskip("ot")
    x, y = sample(0, 80), sample(1, 130, (0.4, 0, 0))
    directions = np.asarray(random_directions(12, K, key=KEY), float)
    ours, theirs = np.asarray(x, float) @ directions.T, np.asarray(y, float) @ directions.T
    exact = ot.wasserstein_1d(ours, theirs, np.full(80, 1 / 80), np.full(130, 1 / 130), p=2)
    found = float(SlicedWasserstein(12)(x, y, key=KEY))
    assert found == pytest.approx(float(np.mean(exact)), rel=1e-3)


# --- energy distance ---


def mean_length(shift: float, sd: float) -> float:
    """E|Z| of Z ~ N(shift, sd^2)."""
    return sd * np.sqrt(2 / np.pi) * np.exp(-(shift**2) / (2 * sd**2)) + shift * (
        1 - 2 * norm.cdf(-shift / sd)
    )


def test_energy_distance_of_gaussians():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(0, 1, (6000, 1)), dtype=float)
    y = jnp.asarray(rng.normal(0.7, 1.5, (6000, 1)), dtype=float)
    exact = 2 * mean_length(0.7, np.hypot(1, 1.5)) - mean_length(0, np.sqrt(2)) * (1 + 1.5)
    assert float(between(Energy(), x, y)) == pytest.approx(exact, rel=0.1)


def test_energy_distance_of_one_population_is_the_samples_own_noise():
    """(1/n + 1/m) E|X - X'|: each sample's own pairs hold n zeros."""
    values = [float(between(Energy(), sample(2 * i, 60), sample(2 * i + 1, 40))) for i in range(60)]
    length = mean_length_in_space()
    error = np.std(values) / np.sqrt(60)
    assert abs(np.mean(values) - (1 / 60 + 1 / 40) * length) < 3.5 * error


def mean_length_in_space() -> float:
    """E|X - X'| of N(0, 1) in three dimensions: sqrt(2) times the mean of chi with 3 degrees."""
    return float(np.sqrt(2) * np.sqrt(8 / np.pi))


# --- Sinkhorn divergence ---


def test_sinkhorn_at_little_blur_is_exact_transport():
    ot = pytest.importorskip("ot")
    x, y = sample(0, 60), sample(1, 70, (1.0, 0, 0))
    cost = ot.dist(np.asarray(x, float), np.asarray(y, float))
    exact = ot.emd2(np.full(60, 1 / 60), np.full(70, 1 / 70), cost)
    found = between(Sinkhorn(((0.0, 0.05),), 2000), x, y)
    assert float(found) == pytest.approx(exact, rel=0.05)


def test_epsilon_that_falls_comes_near_exact_transport_at_hardly_any_blur():
    ot = pytest.importorskip("ot")
    x, y = sample(0, 400), sample(1, 400, (0.2, 0, 0))
    even = np.full(400, 1 / 400)
    exact = ot.emd2(even, even, ot.dist(np.asarray(x, float), np.asarray(y, float)))
    found = between(Sinkhorn(((0.0, 0.002),)), x, y)
    assert float(found) == pytest.approx(exact, rel=0.08)
    at_last_only = between(Sinkhorn(((0.0, 0.002),), 100, 1e-9), x, y)
    assert abs(float(at_last_only) - exact) > 0.1 * exact


def test_sinkhorn_of_a_shift_is_the_shift_whatever_the_blur():
    x, shift = sample(0, 100), np.array([0.3, -0.4, 1.2])
    for blur in (0.05, 0.5):
        found = between(Sinkhorn(((0.0, blur),), 2000), x + shift, x)
        assert float(found) == pytest.approx(np.sum(shift**2), rel=0.02)


def test_blur_falls_as_the_training_goes():
    annealed = Sinkhorn(((0.0, 1.0), (0.5, 0.1)), 500)
    x, y = sample(0, 40), sample(1, 40)
    for progress, blur in ((0.49, 1.0), (0.5, 0.1)):
        fixed = between(Sinkhorn(((0.0, blur),), 500), x, y)
        assert float(between(annealed, x, y, progress)) == pytest.approx(float(fixed), rel=1e-3)


def test_without_ott_one_is_told_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ott", None)
    monkeypatch.setitem(sys.modules, "ott.geometry", None)
    with pytest.raises(InputError, match=r"pip install 'tinsley\[popsed\]'"):
        Sinkhorn()(sample(0), sample(1), key=KEY)


# --- the noise of a catalogue ---


@pytest.mark.slow
@pytest.mark.parametrize("distance", METHODS.values(), ids=METHODS.keys())
def test_noise_is_the_distance_between_a_catalogue_and_its_population(distance):
    """Less the share of the population's own sample, which is 20 times as large."""
    number = 200
    population = sample(99, 20 * number)
    direct = np.mean([
        float(between(distance, sample(i, number), population)) for i in range(30)
    ])  # fmt: skip
    noise = np.mean(
        [distance_noise(distance, np.asarray(sample(i, number)), 100, key=KEY) for i in range(6)]
    )
    assert noise == pytest.approx(direct, rel=0.25)
