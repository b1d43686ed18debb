"""Integrals of many functions of one variable at once, whose peaks may be sharp and several.

Nodes are added where a function has its mass, in a few rounds; the integral is then a sum over the
cells between them.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_ROUNDS = 4
"""How often nodes are added: each makes the cells at a peak some ten times finer, if need be."""
_ADDED = 32
_FLATTENED = 4.0
"""Nodes follow the function to the power 1 / 4, so that they reach into its wings."""
_LOWEST, _FAINT = -1e6, -1e3
"""Ln of a function that is 0, so that differences are finite; and of one of unused slope."""
_BUMP = 0.5
"""A cubic may rise above both ends of its cell by so much: by more, the cell is not resolved."""
_LEVEL = 1e-2
"""Smaller changes of ln f have the mean of their exponential by its series."""
_QUARTERS = np.linspace(0.0, 1.0, 5)[:, None]
_CUBIC = np.hstack(
    [
        (1 - _QUARTERS) ** 2 * (1 + 2 * _QUARTERS),
        _QUARTERS**2 * (3 - 2 * _QUARTERS),
        _QUARTERS * (1 - _QUARTERS) ** 2,
        -(_QUARTERS**2) * (1 - _QUARTERS),
    ]
)
"""Hermite's polynomials at the quarters of a cell: of both values, then both slopes."""

LogFunction = Callable[[Float[Array, "draw point"]], Float[Array, "draw point"]]


def add_nodes(
    log_function: LogFunction, nodes: Float[Array, "draw point"]
) -> Float[Array, "draw node"]:
    """Nodes enough to integrate each function between its first node and its last.

    Args:
        log_function: ln f of each draw at its own nodes.
        nodes: First nodes, increasing. A function with several peaks needs one within a few widths
            of each that matters.

    Returns:
        Nodes, increasing, which count as constants in derivatives.
    """
    log_f = jax.lax.stop_gradient(log_function(nodes))
    for _ in range(_ROUNDS):
        new, before = jax.vmap(_where_mass_is)(nodes, log_f)
        values = jax.lax.stop_gradient(log_function(new))
        nodes, log_f = jax.vmap(_merge)((nodes, log_f), (new, values), before)
    return jax.lax.stop_gradient(nodes)


def integrate_cells(
    log_function: LogFunction, nodes: Float[Array, "draw node"]
) -> tuple[Float[Array, "draw node"], Float[Array, " draw"], Float[Array, "draw cell"]]:
    """The integral of each function from node to node.

    Returns:
        ln f at the nodes over its highest there, that highest, and the integrals over it.

    Source:
        ln f as a cubic that has its values and slopes at the nodes, exponential between quarters of
        a cell; tested against float64 quadrature (tests/test_likelihoods.py).
    """
    log_f, slope = jax.jvp(log_function, (nodes,), (jnp.ones_like(nodes),))
    highest = jnp.max(log_f, axis=-1)
    log_f = jnp.maximum(log_f - highest[:, None], _LOWEST)
    rise = jnp.where(log_f > _FAINT, slope, 0.0)
    step, low, high = jnp.diff(nodes, axis=-1), log_f[:, :-1], log_f[:, 1:]
    ends = jnp.stack([low, high, step * rise[:, :-1], step * rise[:, 1:]], axis=-1)
    between = jnp.clip(
        ends @ _CUBIC.T,
        jnp.minimum(low, high)[..., None],
        jnp.maximum(low, high)[..., None] + _BUMP,
    )
    return log_f, highest, 0.25 * step * jnp.sum(_exponential(between), axis=-1)


def _exponential(log_f: Array) -> Array:
    """Means between neighbours of a function that is exponential between them."""
    change = jnp.abs(jnp.diff(log_f, axis=-1))
    steep = jnp.where(change > _LEVEL, change, 1.0)
    mean = jnp.where(change > _LEVEL, -jnp.expm1(-steep) / steep, 1.0 - 0.5 * change)
    return jnp.exp(jnp.maximum(log_f[..., 1:], log_f[..., :-1])) * mean


def _where_mass_is(nodes: Array, log_f: Array) -> tuple[Array, Array]:
    """Points that split the cells between nodes by how much of a flattened function they hold.

    Returns:
        The points, increasing, and which node each comes after.
    """
    below = (log_f - jnp.max(log_f)) / _FLATTENED
    most = jnp.exp(jnp.maximum(below[1:], below[:-1])) * jnp.diff(nodes)
    upto = jnp.concatenate([jnp.zeros_like(most[:1]), jnp.cumsum(most)])
    level = (np.arange(_ADDED) + 0.5) / _ADDED * upto[-1]
    cell = jnp.clip(jnp.searchsorted(upto, level, side="right") - 1, 0, len(most) - 1)
    share = jnp.clip((level - upto[cell]) / jnp.maximum(most[cell], 1e-30), 0.0, 1.0)
    return nodes[cell] + share * (nodes[cell + 1] - nodes[cell]), cell


def _merge(old: tuple[Array, ...], new: tuple[Array, ...], before: Array) -> list[Array]:
    """Each of the arrays with new values put in, in order, after the old ones at given places."""
    n_old, n_new = len(old[0]), len(before)
    inserted = jnp.zeros(n_old + 1, before.dtype).at[before + 1].add(1)
    at_old = jnp.arange(n_old) + jnp.cumsum(inserted)[:-1]
    at_new = before + 1 + jnp.arange(n_new)
    return [
        jnp.zeros(n_old + n_new, o.dtype).at[at_old].set(o).at[at_new].set(n)
        for o, n in zip(old, new, strict=True)
    ]
