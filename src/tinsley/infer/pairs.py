"""What a density is taught: points and the features that they belong to."""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tinsley.density.flows import ConditionalFlow
from tinsley.density.histogram import ConditionalHistogram
from tinsley.infer.features import features, features_without_redshift
from tinsley.infer.simulator import Simulator
from tinsley.parameters import ParamSpace

Pairs = Callable[[Simulator, int, Array], tuple[Array, Array]]
"""pairs(simulator, number, key): fresh points and their features."""

_CHUNK = 16_384


class FreshPairs(eqx.Module):
    """Simulated anew for every batch.

    Attributes:
        simulator: Makes the galaxies.
        pairs: What is learnt of them.
        number: Pairs in a batch.
    """

    simulator: Simulator
    pairs: Pairs = eqx.field(static=True)
    number: int = eqx.field(static=True)

    def batch(self, key: Array) -> tuple[Array, Array]:
        """One batch."""
        return self.pairs(self.simulator, self.number, key)


class StoredPairs(eqx.Module):
    """Batches of a fixed set, each pair of a batch drawn from all, with replacement.

    Attributes:
        x: Points, [pair, d].
        told: Their features, [pair, f].
        number: Pairs in a batch.
    """

    x: Float[Array, "pair d"]
    told: Float[Array, "pair f"]
    number: int = eqx.field(static=True)

    def batch(self, key: Array) -> tuple[Array, Array]:
        """One batch."""
        rows = jax.random.randint(key, (self.number,), 0, self.x.shape[0])
        return self.x[rows], self.told[rows]


def training_loss(
    density: ConditionalFlow | ConditionalHistogram, source: FreshPairs | StoredPairs, key: Array
) -> Float[Array, ""]:
    """Mean -ln q(x | features) of a batch: the loss of neural posterior estimation."""
    x, told = source.batch(key)
    if isinstance(density, ConditionalFlow):
        return -jnp.mean(density.log_prob_each(x, told))
    return -jnp.mean(jax.vmap(density.log_prob)(x, told))


def store_pairs(fresh: FreshPairs, size: int, key: Array) -> tuple[np.ndarray, np.ndarray]:
    """Simulate a set, chunk by chunk: points [size, d] and their features [size, f]."""
    chunks = [
        fresh.pairs(fresh.simulator, _CHUNK, jax.random.fold_in(key, i))
        for i in range(-(-size // _CHUNK))
    ]
    x, told = (
        np.concatenate([np.asarray(part) for part in of]) for of in zip(*chunks, strict=True)
    )
    return x[:size], told[:size]


def posterior_pairs(simulator: Simulator, number: int, key: Array) -> tuple[Array, Array]:
    """Unbounded parameters without mass, which is integrated out, and features."""
    return _pairs(simulator, simulator.space.without_mass(), number, key)


def posterior_pairs_with_mass(simulator: Simulator, number: int, key: Array) -> tuple[Array, Array]:
    """All unbounded parameters, and features."""
    return _pairs(simulator, simulator.space, number, key)


def _pairs(simulator: Simulator, space: ParamSpace, number: int, key: Array) -> tuple[Array, Array]:
    made = simulator.sample(number, key=key)
    cosmology = simulator.tables.history.cosmology
    x = space.to_unbounded(made.theta, cosmology.age_gyr(made.theta["redshift"]))
    return x, features(made.seen, cosmology)


def redshift_pairs(simulator: Simulator, number: int, key: Array) -> tuple[Array, Array]:
    """Redshift and features without redshift."""
    made = simulator.sample(number, key=key)
    return made.theta["redshift"], features_without_redshift(made.seen)
