"""Several trainings as one vectorised computation: what each alone would have come to."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from tinsley.density.train import (
    AbstractAnnealed,
    OneCycle,
    TrainState,
    start_training,
    train_block,
    train_together,
)

SCHEDULE = OneCycle(40, 0.05)
KEYS = jax.random.split(jax.random.key(7), 3)


class Line(eqx.Module):
    slope: Array
    name: str = eqx.field(static=True, default="line")


class Points(AbstractAnnealed):
    """Shared places, and heights of each training's own."""

    place: Array
    height: Array
    progress: Array

    def at(self, step: Array) -> Points:
        return Points(self.place, self.height, step / SCHEDULE.steps)


def loss(line: Line, points: Points, key: Array) -> Array:
    noise = 0.1 * points.progress * jax.random.normal(key, points.height.shape)
    return jnp.mean((points.place @ line.slope + noise - points.height) ** 2)


@pytest.fixture
def data() -> list[Points]:
    place = jax.random.normal(jax.random.key(0), (50, 4))
    slopes = jax.random.normal(jax.random.key(1), (3, 4))
    return [Points(place, place @ slope, jnp.ones(())) for slope in slopes]


def begun(data: list[Points]) -> list[TrainState]:
    return [start_training(Line(jnp.full(4, float(i))), SCHEDULE) for i in range(len(data))]


def test_each_training_comes_where_it_would_come_alone(data):
    alone = [
        train_block((one, loss, SCHEDULE, 40), state, key)
        for one, state, key in zip(data, begun(data), KEYS, strict=True)
    ]
    together = [(state, ()) for state in begun(data)]
    for _ in range(2):  # and goes on from there
        states = [state for state, _ in together]
        together = train_together((data, loss, SCHEDULE, 20), states, KEYS)
    for (single, losses), (joined, last) in zip(alone, together, strict=True):
        assert int(joined.step) == 40
        assert joined.model.name == "line"
        np.testing.assert_allclose(joined.model.slope, single.model.slope, rtol=2e-5, atol=1e-6)
        np.testing.assert_allclose(joined.average.slope, single.average.slope, rtol=2e-5, atol=1e-6)
        np.testing.assert_allclose(last, losses[20:], rtol=1e-4, atol=1e-7)
