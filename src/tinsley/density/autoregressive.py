"""Draws of a masked autoregressive flow, each unit of its networks computed once.

To invert a masked autoregressive layer is to find one dimension after another. flowjax runs the
whole network for each. But a hidden unit sees only the first so many dimensions, and never changes
again once these are known: with the units sorted by how many they see, each step computes its own,
and a draw of d dimensions costs less than one run of the network in place of d + 1. The numbers are
flowjax's.
"""

from __future__ import annotations

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flowjax.bijections import MaskedAutoregressive
from flowjax.distributions import AbstractTransformed
from jaxtyping import Array, Float
from paramax import unwrap

from tinsley.density.coupling import Layer, arrays_of, repeated_layer


class AutoregressiveLayers(eqx.Module):
    """The arrays of a masked autoregressive flow, stacked over its layers; hidden units are sorted.

    Attributes:
        first: Of the dimensions, [layer, width, d].
        told: Of the condition, with the first layer's bias.
        hidden: Further layers.
        last: Layer that gives the parameters of each dimension's transformation.
        backward: Inverse of the permutation after each layer, [layer, d].
        activation: Between layers.
        transformer: From its parameters to the transformation of one dimension.
        seen: Hidden units that see the condition and the first 0, 1, ... dimensions, at most.
    """

    first: Array
    told: Layer
    hidden: tuple[Layer, ...]
    last: Layer
    backward: Array
    activation: Callable[[Array], Array] = eqx.field(static=True)
    transformer: Callable[[Array], eqx.Module] = eqx.field(static=True)
    seen: tuple[int, ...] = eqx.field(static=True)

    def to_data(
        self, base: Float[Array, "point d"], condition: Float[Array, "*point c"]
    ) -> tuple[Float[Array, "point d"], Float[Array, " point"]]:
        """From base to data, with ln of the determinant; one condition for all, or one each."""
        weight, bias = self.told
        told = jnp.einsum("lwc,pc->lwp", weight, jnp.atleast_2d(condition)) + bias[..., None]

        def undo(carry: tuple[Array, Array], layer: tuple) -> tuple[tuple[Array, Array], None]:
            (y, log_det), (arrays, backward) = carry, layer
            x, added = self._invert(y[backward], arrays)
            return (x, log_det + added), None

        arrays = (self.first, told, self.hidden, self.last)
        start = (base.T, jnp.zeros(len(base)))
        (x, log_det), _ = jax.lax.scan(undo, start, (arrays, self.backward), reverse=True)
        return x.T, log_det

    def _invert(self, y: Array, arrays: tuple) -> tuple[Array, Array]:
        """One layer: y [d, point], dimension by dimension."""
        first, told, hidden, (last, last_bias) = arrays
        size = last.shape[0] // len(y)
        known: list[list[Array]] = [[] for _ in range(1 + len(hidden))]
        x: list[Array] = []
        log_det = jnp.zeros(y.shape[1])
        for k, below in enumerate(self.seen):
            new = slice(self.seen[k - 1] if k else 0, below)
            values = told[new] if k == 0 else told[new] + first[new, :k] @ jnp.stack(x)
            known[0].append(jnp.broadcast_to(self.activation(values), (len(values), y.shape[1])))
            for depth, (weight, bias) in enumerate(hidden):
                values = weight[new, :below] @ jnp.concatenate(known[depth]) + bias[new, None]
                known[depth + 1].append(self.activation(values))
            own = slice(k * size, (k + 1) * size)
            raw = last[own, :below] @ jnp.concatenate(known[-1]) + last_bias[own, None]
            value, added = jax.vmap(self._invert_one)(raw.T, y[k])
            x.append(value)
            log_det = log_det + added
        return jnp.stack(x), log_det

    def _invert_one(self, raw: Array, y: Array) -> tuple[Array, Array]:
        return unwrap(self.transformer(raw)).inverse_and_log_det(y)


def autoregressive_layers(flow: AbstractTransformed) -> AutoregressiveLayers | None:
    """The arrays of a masked autoregressive flow of flowjax's; None if it is another, or unusual.

    Unusual is one whose density is the slow direction, without a condition or of one dimension.
    """
    masked, permute, inverted = repeated_layer(flow)
    if not isinstance(masked, MaskedAutoregressive) or permute is None:
        return None
    if not inverted or masked.cond_shape is None:
        return None
    d, network = masked.shape[0], masked.masked_autoregressive_mlp
    rank = np.arange(network.width_size) % d  # dimensions that a unit sees, as flowjax has it
    order = np.argsort(rank, kind="stable")
    first, *hidden, last = (arrays_of(layer) for layer in network.layers)
    return AutoregressiveLayers(
        first=first[0][:, order, :d],
        told=(first[0][:, order, d:], first[1][:, order]),
        hidden=tuple((w[:, order][:, :, order], b[:, order]) for w, b in hidden),
        last=(last[0][:, :, order], last[1]),
        backward=permute.inverse_permutation[0],
        activation=network.activation,
        transformer=masked.transformer_constructor,
        seen=tuple(int(np.sum(rank <= k)) for k in range(d)),
    )
