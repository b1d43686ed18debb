"""The distance by characteristic functions: closed forms, its noise, and what it sees."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tinsley.population.characteristic import CharacteristicDistance
from tinsley.population.distance import SlicedWasserstein

KEY = jax.random.key(2)
K = 3


def sample(seed: int, number: int, mean=(0.0, 0.0, 0.0)) -> np.ndarray:
    return np.asarray(jax.random.normal(jax.random.key(seed), (number, K)) + np.asarray(mean))


def apart(distance, x, y) -> float:
    return float(distance(jnp.asarray(x), jnp.asarray(y), key=KEY))


@pytest.fixture(scope="module")
def distance() -> CharacteristicDistance:
    return CharacteristicDistance(40).fitted(sample(0, 50_000))


def test_a_shifted_gaussian_is_as_far_as_its_characteristic_function_says(distance):
    """E cos(w x + p) of N(m, 1) is exp(-|w|^2 / 2) cos(w m + p)."""
    shift = np.array([0.3, -0.2, 0.1])
    vector, phase = (np.asarray(getattr(distance.waves, n), float) for n in ("vector", "phase"))
    fade = np.exp(-0.5 * np.sum(vector**2, axis=0))
    gap = fade * (np.cos(shift @ vector + phase) - np.cos(phase))
    exact = np.sum((np.asarray(distance.waves.whiten, float) @ gap) ** 2)
    found = apart(distance, sample(1, 200_000, shift), sample(2, 200_000))
    assert found == pytest.approx(exact, rel=0.03)


def test_a_small_shift_costs_what_a_likelihood_would_take(distance):
    """N |m|^2 / 2 nats of a Gaussian's N galaxies: within a fifth, with 40 waves."""
    shift = np.array([0.05, 0.0, 0.0])
    x = sample(3, 400_000)
    assert apart(distance, x + shift, x) / 2 == pytest.approx(0.5 * 0.05**2, rel=0.2)


def test_between_samples_of_one_population_it_is_a_chi_squared(distance):
    """Of as many degrees of freedom as there are waves, less what the ridge takes."""
    values = [
        500 * apart(distance, sample(10 + 2 * i, 1000), sample(11 + 2 * i, 1000)) for i in range(80)
    ]
    assert distance.sharpness == 20
    assert 34 < np.mean(values) < 42
    assert np.var(values) == pytest.approx(2 * np.mean(values), rel=0.6)  # 3.5 of its errors


def test_a_short_catalogue_has_fewer_waves():
    """As many as its galaxies tell the covariance of."""
    short = CharacteristicDistance(40).fitted(sample(0, 200))
    assert (short.n_waves, short.sharpness, short.waves.phase.shape) == (25, 12.5, (25,))
    again = [200 * apart(short, sample(10 + i, 400), sample(60 + i, 400)) for i in range(40)]
    assert np.mean(again) / short.n_waves == pytest.approx(1.0, abs=0.35)


@pytest.mark.slow
def test_it_sees_a_narrow_sequence_that_transport_hardly_does():
    """A fifth of the galaxies on a thin sheet or on a thicker one, in units of the noise."""

    def galaxies(seed: int, width: float) -> np.ndarray:
        rng = np.random.default_rng(seed)
        points = rng.normal(size=(20_000, K))
        points[:4000, 2] = 0.5 * points[:4000, 0] + width * rng.normal(size=4000)
        return points

    def significance(distance) -> float:
        same = [apart(distance, galaxies(i, 0.05), galaxies(50 + i, 0.05)) for i in range(10)]
        other = [apart(distance, galaxies(i, 0.05), galaxies(50 + i, 0.4)) for i in range(10)]
        return float((np.mean(other) - np.mean(same)) / np.std(same, ddof=1))

    characteristic = significance(CharacteristicDistance().fitted(galaxies(99, 0.05)))
    assert characteristic > 8
    assert characteristic > 2 * significance(SlicedWasserstein(64))


def test_a_whole_catalogue_stands_for_whatever_part_of_it_is_shown(distance):
    x, catalog = sample(4, 300), sample(5, 70_000)
    whole = distance.bound(jnp.asarray(catalog))
    assert apart(whole, x, catalog[:10]) == apart(whole, x, catalog)


@pytest.mark.parametrize("width", [1.0, 1.2])
def test_the_noise_of_a_batch_is_no_distance_from_a_whole_catalogue(distance, width):
    """Averaged over small batches it is that of a large one: else narrow populations would win."""
    catalog = jnp.asarray(sample(5, 200_000))
    batches = jnp.asarray(width * sample(7, 400 * 60)).reshape(400, 60, K)

    def mean_and_error(distance, y) -> tuple[float, float]:
        values = jax.jit(jax.vmap(lambda x: distance(x, y, key=KEY)))(batches)
        return float(values.mean()), float(values.std()) / 20

    exact = apart(distance, width * sample(6, 400_000), catalog)
    found, error = mean_and_error(distance.bound(catalog), catalog[:1])
    assert error < 0.05
    assert abs(found - exact) < 3.5 * error
    assert mean_and_error(distance, catalog[:20_000])[0] > exact + 0.4


def test_what_all_galaxies_may_be_off_by_costs_no_more_than_its_own_spread(distance):
    """Along a shared error s of N galaxies a shift m costs m^2 / 2 / (1/N + s^2), else as ever.

    Within a fifth, as without shared errors.
    """
    number, spread, shift = 5000, 0.05, 0.05
    points = jnp.asarray(sample(8, 20_000))
    errors = spread * np.random.default_rng(0).normal(size=400)
    along = np.array([1.0, 0.0, 0.0])
    told = distance.forgiving(points, (points + e * along for e in errors), number)

    def cost(of, direction) -> float:
        return number / 2 * apart(of, points + shift * np.asarray(direction), points)

    assert cost(told, along) == pytest.approx(0.5 * shift**2 / (1 / number + spread**2), rel=0.2)
    across = 0.0, 1.0, 0.0
    assert cost(told, across) == pytest.approx(cost(distance, across), rel=0.02)
    assert cost(distance, along) > 10 * cost(told, along)
    assert told.sharpness == distance.sharpness


def test_slopes_are_those_of_differences(distance):
    x, y = jnp.asarray(sample(6, 50)), jnp.asarray(sample(7, 60, (0.5, 0, 0)))

    def value(x):
        return distance(x, y, key=KEY)

    at = jnp.zeros((50, K)).at[7, 1].set(1.0)
    moved = (value(x + 1e-2 * at) - value(x - 1e-2 * at)) / 2e-2
    assert float(jax.grad(value)(x)[7, 1]) == pytest.approx(float(moved), rel=0.05, abs=1e-3)


def test_without_a_catalogue_it_is_refused():
    with pytest.raises(ValueError, match="no waves yet"):
        apart(CharacteristicDistance(8), sample(0, 10), sample(1, 10))
