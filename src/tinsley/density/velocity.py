"""Velocity networks: where a point of a conditional flow goes next.

What depends on the condition alone is computed once, for all draws and all steps.
"""

from __future__ import annotations

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class AbstractVelocity(eqx.Module):
    """A velocity field over points, time in 0-1 and conditions."""

    @property
    @abc.abstractmethod
    def n_dim(self) -> int:
        """Dimensions of the points."""

    @abc.abstractmethod
    def context(self, condition: Float[Array, " c"]) -> Any:
        """What of the condition the field needs: computed once for a galaxy."""

    @abc.abstractmethod
    def __call__(
        self, theta: Float[Array, " d"], time: Float[Array, ""], context: Any
    ) -> Float[Array, " d"]:
        """Velocity of one point."""


class PlainVelocity(AbstractVelocity):
    """A multilayer perceptron that reads point, time and condition side by side.

    Attributes:
        network: The perceptron; its inputs are in this order.
    """

    network: eqx.nn.MLP

    @property
    def n_dim(self) -> int:
        return self.network.layers[-1].weight.shape[0]

    def context(self, condition: Float[Array, " c"]) -> Float[Array, " width"]:
        first = self.network.layers[0]
        silent = jnp.zeros(first.weight.shape[1] - condition.shape[0])  # point and time: later
        return first(jnp.concatenate([silent, condition]))

    def __call__(
        self, theta: Float[Array, " d"], time: Float[Array, ""], context: Float[Array, " width"]
    ) -> Float[Array, " d"]:
        first, *others, last = self.network.layers
        n_dim = theta.shape[0]
        hidden = first.weight[:, :n_dim] @ theta + first.weight[:, n_dim] * time + context
        for layer in others:
            hidden = layer(self.network.activation(hidden))
        return last(self.network.activation(hidden))


class ResidualVelocity(AbstractVelocity):
    """Residual blocks, each told the time and the condition.

    Attributes:
        first: From the point to the width of the blocks.
        blocks: Pairs of layers.
        last: From the width to the velocity; zero at first.
        time: From sines and cosines of the time to a shift for each block.
        condition: Network from the condition to a shift for each block.
        frequencies: Number of sines.
    """

    first: eqx.nn.Linear
    blocks: tuple[tuple[eqx.nn.Linear, eqx.nn.Linear], ...]
    last: eqx.nn.Linear
    time: eqx.nn.MLP
    condition: eqx.nn.MLP
    frequencies: int = eqx.field(static=True)

    @property
    def n_dim(self) -> int:
        return self.last.weight.shape[0]

    def context(self, condition: Float[Array, " c"]) -> Float[Array, "block width"]:
        return self.condition(condition).reshape(len(self.blocks), -1)

    def __call__(
        self,
        theta: Float[Array, " d"],
        time: Float[Array, ""],
        context: Float[Array, "block width"],
    ) -> Float[Array, " d"]:
        shifts = context + self.time(time_features(time, self.frequencies)).reshape(context.shape)
        hidden = self.first(theta)
        for (one, other), shift in zip(self.blocks, shifts, strict=True):
            hidden = hidden + other(jax.nn.silu(one(jax.nn.silu(hidden + shift))))
        return self.last(jax.nn.silu(hidden))


def time_features(time: Float[Array, ""], frequencies: int) -> Float[Array, " feature"]:
    """The time in 0-1, and cosines and sines of its first few half waves."""
    angle = jnp.pi * jnp.arange(1.0, frequencies + 1.0) * time
    return jnp.concatenate([2 * time[None] - 1, jnp.cos(angle), jnp.sin(angle)])


def _plain(config: dict[str, Any], n_condition: int, n_dim: int, key: Array) -> PlainVelocity:
    activation = getattr(jax.nn, config["activation"])
    shape = (n_dim + 1 + n_condition, n_dim, config["width"], config["depth"])
    return PlainVelocity(eqx.nn.MLP(*shape, activation=activation, key=key))


def _residual(config: dict[str, Any], n_condition: int, n_dim: int, key: Array) -> ResidualVelocity:
    width, depth, frequencies = config["width"], config["depth"], config["frequencies"]
    keys = jax.random.split(key, 2 * depth + 4)
    pairs = [(eqx.nn.Linear(width, width, key=k) for k in pair) for pair in keys[4:].reshape(-1, 2)]
    last = eqx.nn.Linear(width, n_dim, key=keys[1])
    silent = eqx.tree_at(lambda a: (a.weight, a.bias), last, replace_fn=jnp.zeros_like)
    silu, shifts = jax.nn.silu, depth * width
    return ResidualVelocity(
        first=eqx.nn.Linear(n_dim, width, key=keys[0]),
        blocks=tuple((one, other) for one, other in pairs),
        last=silent,
        time=eqx.nn.MLP(2 * frequencies + 1, shifts, width, 1, silu, key=keys[2]),
        condition=eqx.nn.MLP(n_condition, shifts, 2 * width, 2, silu, key=keys[3]),
        frequencies=frequencies,
    )


VELOCITIES = {"plain": _plain, "residual": _residual}


def make_velocity(
    config: dict[str, Any], n_condition: int, n_dim: int, *, key: Array
) -> AbstractVelocity:
    """Build a velocity network from its plain description.

    Args:
        config: `velocity` ("plain" or "residual"), `width`, `depth` (hidden layers, or blocks), and
            `activation` of the plain one, `frequencies` of the residual one.
        n_condition: Length of the condition.
        n_dim: Dimensions of the points.
        key: For the initial weights.

    Raises:
        ValueError: If `velocity` is unknown.
    """
    if config["velocity"] not in VELOCITIES:
        known = " or ".join(VELOCITIES)
        raise ValueError(f"unknown velocity {config['velocity']!r}; expected {known}.")
    return VELOCITIES[config["velocity"]](config, n_condition, n_dim, key)
