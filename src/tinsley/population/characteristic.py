"""A distance as sharp as a likelihood: empirical characteristic functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tinsley.population.distance import AbstractDistance

_RIDGE = 1e-3
"""Added to the waves' covariance, in units of its mean variance: less is rounding's."""
_GALAXIES_A_WAVE = 8
"""Fewer do not tell the waves' covariance."""
_AT_ONCE = 65_536


class Waves(eqx.Module):
    """Cosines of a catalogue's columns.

    Attributes:
        vector: Wave vectors, [k, wave].
        phase: [wave].
        whiten: Makes what the catalogue's galaxies scatter in the waves white, and with it, once
            `forgiving` was asked, what their shared errors do to the mean, [wave, wave].
        mean: Over the whole catalogue, [wave]; None where samples are compared with each other.
    """

    vector: Float[Array, "k wave"]
    phase: Float[Array, " wave"]
    whiten: Float[Array, "wave wave"]
    mean: Float[Array, " wave"] | None = None

    def __call__(self, points: Float[Array, "n k"]) -> Float[Array, "n wave"]:
        """Of each point."""
        return jnp.cos(points @ self.vector + self.phase)


class CharacteristicDistance(AbstractDistance):
    """Squared difference of two samples' mean waves, each in units of its own scatter.

    N/2 times it is minus the log-likelihood of the mean waves of N galaxies, so that no feature of
    the photometry hides behind the noise of the others, as in distances between whole point clouds:
    a narrow sequence counts as much as a mean. With waves enough it is as sharp as the likelihood
    of the galaxies themselves. And the whole catalogue is compared at each step, not a part.

    From a whole catalogue (`bound`) the noise of the synthetic batch is taken off, without bias:
    it is the mean product of different galaxies' offsets. With their own squares in it, populations
    would be favoured whose waves scatter less, by more than the catalogue's noise.

    Attributes:
        n_waves: Cosines, in equal numbers of each scale; `fitted` takes fewer of a short catalogue.
        scales: Standard deviations of the wave vectors where the catalogue's covariance is 1.
        waves: What a catalogue has fixed; `fitted` gives it.

    Source:
        Feuerverger & McDunnough (1981): estimates from the empirical characteristic function are
        asymptotically efficient. Random frequencies: Rahimi & Recht (2007). Against the closed form
        for Gaussians, and a chi^2, in tests/test_characteristic.py.
    """

    most_points: ClassVar[int] = 8192
    n_waves: int = eqx.field(static=True, default=400)
    scales: tuple[float, ...] = eqx.field(static=True, default=(0.5, 1.0, 2.0, 4.0))
    waves: Waves | None = None

    @property
    def sharpness(self) -> float:
        return self.n_waves / 2

    def fitted(self, points: np.ndarray) -> CharacteristicDistance:
        rng, k = np.random.default_rng(0), points.shape[1]
        number = min(self.n_waves, max(1, len(points) // _GALAXIES_A_WAVE))
        points = np.asarray(points, float)
        round_ = np.linalg.inv(np.linalg.cholesky(np.cov(points.T) + 1e-9 * np.eye(k))).T
        length = np.resize(np.asarray(self.scales), number)
        vector = round_ @ (rng.normal(size=(k, number)) * length)
        phase = rng.uniform(0, 2 * np.pi, number)
        some = points[rng.permutation(len(points))[:_AT_ONCE]]
        covariance = np.atleast_2d(np.cov(np.cos(some @ vector + phase).T))
        ridge = _RIDGE * np.trace(covariance) / number
        factor = np.linalg.cholesky(covariance + ridge * np.eye(number))
        arrays = (vector, phase, np.linalg.inv(factor))
        waves = Waves(*(jnp.asarray(array, dtype=float) for array in arrays))
        return dataclasses.replace(self, n_waves=number, waves=waves)

    def bound(self, points: Float[Array, "n k"]) -> CharacteristicDistance:
        waves = self._waves()
        starts = range(0, len(points), _AT_ONCE)
        total = sum(jnp.sum(waves(points[i : i + _AT_ONCE]), axis=0) for i in starts)
        mean = jnp.asarray(total) / len(points)
        return dataclasses.replace(self, waves=dataclasses.replace(waves, mean=mean))

    def forgiving(
        self, points: Float[Array, "m k"], changed: Iterable[Float[Array, "m k"]], number: int
    ) -> CharacteristicDistance:
        waves = self._waves()
        mean = eqx.filter_jit(lambda some: jnp.mean(waves(some), axis=0))
        as_it_is = mean(points)
        moved = np.stack([np.asarray(mean(other) - as_it_is, float) for other in changed])
        scatter = np.linalg.inv(np.asarray(waves.whiten, float))
        covariance = scatter @ scatter.T + number * (moved.T @ moved) / len(moved)
        whiten = jnp.asarray(np.linalg.inv(np.linalg.cholesky(covariance)), dtype=float)
        return dataclasses.replace(self, waves=dataclasses.replace(waves, whiten=whiten))

    def __call__(
        self,
        x: Float[Array, "n k"],
        y: Float[Array, "m k"],
        *,
        key: Array,
        progress: Array | float = 1.0,
    ) -> Float[Array, ""]:
        waves = self._waves()
        if waves.mean is None:
            gap = jnp.mean(waves(x), axis=0) - jnp.mean(waves(y), axis=0)
            return jnp.sum((waves.whiten @ gap) ** 2)
        apart = (waves(x) - waves.mean) @ waves.whiten.T
        n, total = x.shape[0], jnp.sum(apart, axis=0)
        products = jnp.sum(total**2) - jnp.sum(apart**2)
        return products / n / (n - 1)  # n (n - 1) may be beyond 32 bits

    def _waves(self) -> Waves:
        if self.waves is None:
            raise ValueError("the distance has no waves yet; expected `fitted(points)` first.")
        return self.waves
