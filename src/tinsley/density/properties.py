"""Conditional densities of properties by their plain descriptions. Start at `make_density`."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tinsley.density.flow_matching import (
    FlowMatching,
    Frame,
    log_det,
    make_flow_matching,
    make_frame,
    out_of_frame,
)
from tinsley.density.flows import COUPLING, ConditionalFlow, make_flow


class SplineDensity(eqx.Module):
    """p(theta | condition) by a spline flow: log-densities are exact, and cost no more than draws.

    Attributes:
        frame: Where the flow lives: it has but to bend the normal that a network makes of the
            condition.
        flow: The flow.
    """

    frame: Frame
    flow: ConditionalFlow

    def loss(
        self, theta: Float[Array, "n d"], condition: Float[Array, "n c"], *, key: Array
    ) -> Float[Array, ""]:
        """Mean -ln p(theta | condition); nothing in it is random."""
        return -jnp.mean(jax.vmap(self.log_prob)(theta, condition))

    def sample(
        self, number: int, condition: Float[Array, " c"], *, key: Array
    ) -> Float[Array, "number d"]:
        """Draws for one galaxy."""
        place = self.flow.sample_and_log_prob(number, condition, key=key)[0]
        return out_of_frame(place, *self.frame(condition))

    def log_prob(
        self, theta: Float[Array, " d"], condition: Float[Array, " c"]
    ) -> Float[Array, ""]:
        """Log-density of one point for one galaxy."""
        mean, factor = self.frame(condition)
        return self.flow.log_prob(factor @ (theta - mean), condition) + log_det(factor)


Density = FlowMatching | SplineDensity


def make_density(config: dict[str, Any], n_condition: int, n_dim: int, *, key: Array) -> Density:
    """A density with initial weights.

    Args:
        config: With a `kind`, as `tinsley.density.flows.make_flow` takes it; otherwise as
            `tinsley.density.flow_matching.make_flow_matching` does.
        n_condition: Length of the condition.
        n_dim: Dimensions of the density.
        key: For the weights.
    """
    if "kind" in config:
        key_frame, key_flow = jax.random.split(key)
        frame = make_frame(config, n_condition, n_dim, key=key_frame)
        if frame is None:
            raise ValueError("a spline density needs a frame: frame_width above 0.")
        return SplineDensity(frame, make_flow(config, n_condition, n_dim, key=key_flow))
    return make_flow_matching(config, n_condition, n_dim, key=key)


SPLINE: dict[str, Any] = COUPLING | {"embedding_depth": 2, "frame_width": 128, "frame_depth": 2}
"""A flatter embedding than for endless simulations: a stored set is soon overfitted."""
