"""Where a value stands among the nodes of a table."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array


def locate(nodes: Array, x: Array) -> tuple[Array, Array]:
    """Node at or below each x, and the share of the way to the next; x is clipped to the ends."""
    clipped = jnp.clip(x, nodes[0], nodes[-1])
    low = jnp.searchsorted(nodes[1:-1], clipped, side="right", method="compare_all")
    return low, (clipped - nodes[low]) / (nodes[low + 1] - nodes[low])
