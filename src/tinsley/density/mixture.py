"""A conditional density of one number: a mixture of normals whose parts a network gives."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from jax.scipy.stats import norm
from jaxtyping import Array, Float

_FIRST_MEANS = (-1.0, 4.0)
"""Where an untrained mixture's means lie, evenly spaced: asinh of flux over error."""
_LOG_WIDTHS = (-6.0, 3.0)
_LOG_SMALLEST = -80.0
"""float32 ends at exp(-87): no deviate is beyond 12.5."""


class ConditionalMixture(eqx.Module):
    """q(y | features): normals of different means, widths and weights.

    Unlike a histogram's, its tails go on: what a deviate in them is worth can be said.

    Attributes:
        network: From features to the log-weights, means and log-widths of the parts, in this order.
    """

    network: eqx.nn.MLP

    def log_prob(self, y: Float[Array, ""], features: Float[Array, " f"]) -> Float[Array, ""]:
        """Log-density at a point, for one galaxy."""
        log_weight, mean, width = self._parts(features)
        return jax.nn.logsumexp(log_weight + norm.logpdf(y, mean, width))

    def deviate(self, y: Float[Array, ""], features: Float[Array, " f"]) -> Float[Array, ""]:
        """The standard normal number that has as much probability below it as y, for one galaxy.

        Numbers that follow the density have deviates that follow N(0, 1), whatever the features.

        Source:
            Rosenblatt (1952).
        """
        log_weight, mean, width = self._parts(features)
        scaled = (y - mean) / width
        below = jax.nn.logsumexp(log_weight + norm.logcdf(scaled))
        above = jax.nn.logsumexp(log_weight + norm.logcdf(-scaled))
        smaller = jnp.clip(jnp.minimum(below, above), _LOG_SMALLEST, -np.log(2.0))
        tail = ndtri(jnp.exp(smaller))
        return jnp.where(below < above, tail, -tail)

    def _parts(self, features: Array) -> tuple[Array, Array, Array]:
        log_weight, mean, log_width = self.network(features).reshape(3, -1)
        mean = mean + jnp.linspace(*_FIRST_MEANS, mean.shape[0])
        return jax.nn.log_softmax(log_weight), mean, jnp.exp(jnp.clip(log_width, *_LOG_WIDTHS))


def make_mixture(config: dict[str, Any], n_features: int, *, key: Array) -> ConditionalMixture:
    """Build one from its plain description.

    Args:
        config: `components`, and `width` and `depth` of the network.
        n_features: Length of the feature vector.
        key: For the initial weights.
    """
    shape = (n_features, 3 * config["components"], config["width"], config["depth"])
    return ConditionalMixture(eqx.nn.MLP(*shape, activation=jax.nn.silu, key=key))


BAND: dict[str, Any] = {"components": 10, "width": 160, "depth": 3}
"""For one band's flux given those of the redder ones."""
