"""How far a synthetic sample is from the observed one: three distances between point clouds.

Between two samples of n galaxies of one population the first two fall as 1 / n, and the Sinkhorn
divergence the slower the less its blur is: as n^(-2/k) in k columns without any.
"""

from __future__ import annotations

import abc
import functools
from collections.abc import Iterable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tinsley.errors import InputError

_FIRST_EPSILON = 100.0
"""Squared size of points that are standardised, their outliers counted as a logarithm."""


class AbstractDistance(eqx.Module):
    """A distance between two samples.

    Attributes:
        most_points: In a sample, beyond which it costs too much to be asked again and again.
    """

    most_points: eqx.AbstractClassVar[int]

    @property
    @abc.abstractmethod
    def sharpness(self) -> float:
        """What the temperature is divided by.

        Half the number of features that are added up, each in units of its own noise; 1 where all
        share one noise.
        """

    @abc.abstractmethod
    def fitted(self, points: np.ndarray) -> AbstractDistance:
        """The distance in units of a catalogue, [n, k]."""

    @abc.abstractmethod
    def bound(self, points: Float[Array, "n k"]) -> AbstractDistance:
        """The distance from a whole catalogue, whatever the observed points it is given then."""

    @abc.abstractmethod
    def forgiving(
        self, points: Float[Array, "m k"], changed: Iterable[Float[Array, "m k"]], number: int
    ) -> AbstractDistance:
        """The distance that takes what the galaxies' shared errors may have done for noise.

        Args:
            points: Some galaxies of the catalogue.
            changed: The same galaxies as other draws of the shared errors would have them.
            number: Of galaxies in the catalogue.
        """

    @abc.abstractmethod
    def __call__(
        self,
        x: Float[Array, "n k"],
        y: Float[Array, "m k"],
        *,
        key: Array,
        progress: Array | float = 1.0,
    ) -> Float[Array, ""]:
        """The distance.

        Args:
            x: Synthetic points.
            y: Observed points.
            key: For random projections.
            progress: Share of the training that is done, for what anneals.
        """


class AbstractCloudDistance(AbstractDistance):
    """A distance between the clouds of points as they are: a catalogue fixes nothing of it."""

    @property
    def sharpness(self) -> float:
        return 1.0

    def fitted(self, points: np.ndarray) -> AbstractDistance:
        return self

    def bound(self, points: Float[Array, "n k"]) -> AbstractDistance:
        return self

    def forgiving(
        self, points: Float[Array, "m k"], changed: Iterable[Float[Array, "m k"]], number: int
    ) -> AbstractDistance:
        return self


class SlicedWasserstein(AbstractCloudDistance):
    """Mean over random directions of the squared 2-Wasserstein distance between projections.

    Directions come in orthogonal sets, which spread better than independent ones. Exact for each
    direction. A Gaussian that is shifted by s has s^2 / k, where k is the number of columns.

    Attributes:
        n_projections: Directions; rounded up to whole orthogonal sets.

    Source:
        Bonneel et al. (2015); orthogonal directions: Rowland et al. (2019). Against closed forms
        and POT in tests/test_distance.py.
    """

    most_points: ClassVar[int] = 8192
    n_projections: int = eqx.field(static=True, default=64)

    def __call__(
        self,
        x: Float[Array, "n k"],
        y: Float[Array, "m k"],
        *,
        key: Array,
        progress: Array | float = 1.0,
    ) -> Float[Array, ""]:
        directions = random_directions(self.n_projections, x.shape[1], key=key)
        ours, theirs = (jnp.sort(directions @ points.T, axis=-1) for points in (x, y))
        if x.shape[0] == y.shape[0]:
            return jnp.mean((ours - theirs) ** 2)
        return jnp.mean(jax.vmap(_between_steps)(ours, theirs))


class Energy(AbstractCloudDistance):
    """Energy distance 2 E|X - Y| - E|X - X'| - E|Y - Y'| of the two samples; never negative.

    Source:
        Szekely & Rizzo (2013), eq. 1. Against closed forms in tests/test_distance.py.
    """

    most_points: ClassVar[int] = 8192

    def __call__(
        self,
        x: Float[Array, "n k"],
        y: Float[Array, "m k"],
        *,
        key: Array,
        progress: Array | float = 1.0,
    ) -> Float[Array, ""]:
        return 2 * _mean_length(x, y) - _mean_length(x, x) - _mean_length(y, y)


class Sinkhorn(AbstractCloudDistance):
    """Debiased Sinkhorn divergence of cost |x - y|^2, by ott-jax (the extra `popsed`).

    The blur falls as the training goes: `blur` lists (share of the training, blur), each from that
    share on; epsilon = 2 blur^2, which is geomloss's blur^2 at its cost |x - y|^2 / 2. Within each
    call epsilon falls from far above by `decay` an iteration, as geomloss lets it: of 400 points at
    the paper's last blur, 0.002, the value so comes within 8 % of exact transport, and not within
    10 % from the last epsilon alone (tests/test_distance.py).

    Attributes:
        blur: In the units of the points.
        iterations: Most iterations of each of the three problems.
        decay: What epsilon is multiplied by at each; the square of PopSED's scaling, 0.9.
    """

    most_points: ClassVar[int] = 2048
    blur: tuple[tuple[float, float], ...] = eqx.field(static=True, default=((0.0, 0.05),))
    iterations: int = eqx.field(static=True, default=100)
    decay: float = eqx.field(static=True, default=0.81)

    def __call__(
        self,
        x: Float[Array, "n k"],
        y: Float[Array, "m k"],
        *,
        key: Array,
        progress: Array | float = 1.0,
    ) -> Float[Array, ""]:
        point_cloud, falling, divergence = _ott()
        starts, blurs = (jnp.asarray(column) for column in zip(*self.blur, strict=True))
        now = jnp.maximum(jnp.sum(starts <= progress) - 1, 0)
        value, _ = divergence(
            point_cloud,
            x,
            y,
            epsilon=falling(2 * blurs[now] ** 2, _FIRST_EPSILON, self.decay),
            solve_kwargs={"max_iterations": self.iterations},
        )
        return value


def random_directions(number: int, k: int, *, key: Array) -> Float[Array, "directions k"]:
    """Unit vectors in orthogonal sets of `k`, at least `number` of them."""
    sets = jax.random.normal(key, (-(-number // k), k, k))
    return jnp.linalg.qr(sets)[0].swapaxes(1, 2).reshape(-1, k)


def _between_steps(x: Array, y: Array) -> Array:
    """Squared 2-Wasserstein distance on a line, of sorted points.

    Both quantile functions are steps: between neighbouring steps of either both are constant.
    """
    n, m = x.shape[0], y.shape[0]
    level = np.union1d(np.arange(n + 1) / n, np.arange(m + 1) / m)
    middle = (level[1:] + level[:-1]) / 2
    gap = x[(middle * n).astype(int)] - y[(middle * m).astype(int)]
    return jnp.sum(np.diff(level) * gap**2)


def _mean_length(x: Array, y: Array) -> Array:
    """Mean of |x - y| over pairs, some rows of pairs in memory at a time."""

    @jax.checkpoint
    def row(one: Array) -> Array:
        squared = jnp.sum((one - y) ** 2, axis=-1)
        apart = squared > 0
        return jnp.mean(jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1.0)), 0.0))

    return jnp.mean(jax.lax.map(row, x, batch_size=64))


def _ott() -> tuple[Any, Any, Any]:
    """Point clouds, a schedule for epsilon (last value, first value, decay), and the divergence."""
    try:
        from ott.geometry import epsilon_scheduler, pointcloud
        from ott.tools import sinkhorn_divergence
    except ImportError as problem:
        raise InputError(
            "the Sinkhorn distance needs ott-jax; install it with `pip install 'tinsley[popsed]'`, "
            "or choose --distance sliced or energy."
        ) from problem
    falling = _falling(epsilon_scheduler.Epsilon)
    return pointcloud.PointCloud, falling, sinkhorn_divergence.sinkhorn_divergence


@functools.cache
def _falling(schedule: Any) -> Any:
    """Of ott's schedule one whose first value is not a multiple of the last, which is traced."""

    @jax.tree_util.register_pytree_node_class
    class Falling(schedule):
        def __call__(self, it: int | None) -> Array:
            if it is None:
                return self.target
            return jnp.maximum(self.init * self.decay**it, self.target)

    return Falling


def distance_noise(
    distance: AbstractDistance, points: np.ndarray, size: int, *, key: Array
) -> float:
    """The distance to be expected between a population and a catalogue of its galaxies.

    Random halves of the catalogue, at most `size` galaxies each, are n1 and n2 galaxies of one
    population: their distance, which falls as 1/n1 + 1/n2, is scaled to the whole catalogue.
    Averaged over eight splits.

    Args:
        distance: Which.
        points: The catalogue, [n, k].
        size: Most galaxies in a half.
        key: For the splits and the directions.
    """
    half = min(size, len(points) // 2)
    values = []
    for one in jax.random.split(key, 8):
        key_split, key_distance = jax.random.split(one)
        rows = np.asarray(jax.random.permutation(key_split, len(points)))[: 2 * half]
        x, y = jnp.asarray(points[rows[:half]]), jnp.asarray(points[rows[half:]])
        values.append(float(_plain_distance(distance, x, y, key_distance)))
    return float(np.mean(values)) * half / (2 * len(points))


@eqx.filter_jit
def _plain_distance(distance: AbstractDistance, x: Array, y: Array, key: Array) -> Array:
    return distance(x, y, key=key)
