"""A conditional density of one number: a histogram whose heights a network gives."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class ConditionalHistogram(eqx.Module):
    """q(y | features): constant in each of many bins of equal width, zero outside `low` to `high`.

    Sharp edges and many peaks are no trouble to it; what happens within a bin is left to importance
    weights.

    Attributes:
        network: From features to the unnormalised log heights.
        low, high: Ends of the range.
    """

    network: eqx.nn.MLP
    low: float = eqx.field(static=True)
    high: float = eqx.field(static=True)

    @property
    def edges(self) -> Float[Array, " edge"]:
        """Ends of the bins."""
        return jnp.linspace(self.low, self.high, self.n_bins + 1)

    @property
    def n_bins(self) -> int:
        """How many bins there are."""
        return int(self.network.out_size)

    def log_prob(self, y: Float[Array, ...], features: Float[Array, " f"]) -> Float[Array, ...]:
        """Log-density at points, for one galaxy; -inf outside the range."""
        position = (y - self.low) / (self.high - self.low) * self.n_bins
        index = jnp.clip(position.astype(jnp.int32), 0, self.n_bins - 1)
        inside = (y >= self.low) & (y <= self.high)
        return jnp.where(inside, self.log_height(features)[index], -jnp.inf)

    def sample_and_log_prob(
        self, number: int, features: Float[Array, " f"], *, key: Array
    ) -> tuple[Float[Array, " number"], Float[Array, " number"]]:
        """Draws for one galaxy, with their log-densities.

        The draws are stratified: one in each of `number` equal parts of the probability, in order.
        """
        log_height = self.log_height(features)
        width = (self.high - self.low) / self.n_bins
        index, share = sample_bins(jnp.exp(log_height) * width, number, key=key)
        y = self.low + (index + share) * width
        return jnp.clip(y, self.low, self.high), log_height[index]

    def log_height(self, features: Float[Array, " f"]) -> Float[Array, " bin"]:
        """Log-density in each bin, for one galaxy."""
        width = (self.high - self.low) / self.n_bins
        return jax.nn.log_softmax(self.network(features)) - jnp.log(width)


def sample_bins(
    mass: Float[Array, " bin"], number: int, *, key: Array
) -> tuple[Float[Array, " number"], Float[Array, " number"]]:
    """Draws of bins by their probability masses, and of places in them from 0 to 1.

    Stratified: one draw in each of `number` equal parts of the mass, in order.
    """
    cumulative = jnp.cumsum(mass)
    level = (jnp.arange(number) + jax.random.uniform(key, (number,))) / number
    level = level * cumulative[-1]
    index = jnp.clip(jnp.searchsorted(cumulative, level), 0, len(mass) - 1)
    below = jnp.where(index > 0, cumulative[index - 1], 0.0)
    share = (level - below) / jnp.maximum(cumulative[index] - below, 1e-30)
    return index, jnp.clip(share, 0.0, 1.0)


def make_histogram(
    config: dict[str, Any], n_features: int, ends: tuple[float, float], *, key: Array
) -> ConditionalHistogram:
    """Build one from its plain description.

    Args:
        config: `bins`, `width` and `depth` of the network.
        n_features: Length of the feature vector.
        ends: The range.
        key: For the initial weights.
    """
    network = eqx.nn.MLP(
        n_features, config["bins"], config["width"], config["depth"], jax.nn.silu, key=key
    )
    return ConditionalHistogram(network, *ends)


REDSHIFT: dict[str, Any] = {"bins": 256, "width": 256, "depth": 3}
"""For redshifts of 0.01-0.6: bins of 0.0023."""
