"""A spline coupling flow, evaluated at many points of one condition at once.

The numbers are flowjax's, which evaluates point by point; this takes 0.37 of its time for draws and
0.68 for slopes (benchmarks/flow_speed.py). The condition's share of each first layer is computed
once. A spline's bin is picked by sums over all bins, not by gathers. Points lie along the last
axis, in pieces that stay in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flowjax.bijections import Chain, Coupling, Invert, Permute, Scan
from flowjax.distributions import AbstractTransformed
from jax.scipy.stats import norm
from jaxtyping import Array, Float
from paramax import unwrap

INTERVAL = 4.0
"""The splines act on (-INTERVAL, INTERVAL) and are the identity beyond."""
MIN_WIDTH = 1e-3
MIN_SLOPE = 1e-3
_SLOPE_OFFSET = float(np.log(np.expm1(1 - MIN_SLOPE)))
"""Where a network gives 0 the slope is 1."""
_PIECE = 256
"""Points evaluated at a time: of more, the layers' values do not fit into a core's cache."""


def _silu(x: Array) -> Array:
    """`jax.nn.silu`, x / (1 + exp(-x)), by a hyperbolic tangent, which costs less."""
    half = 0.5 * x
    return half + half * jnp.tanh(half)


_FASTER: dict[Callable, Callable] = {jax.nn.silu: _silu}

Layer = tuple[Array, Array]
"""Weight and bias of one layer of every network, stacked: [layer, out, in] and [layer, out]."""


class CouplingLayers(eqx.Module):
    """The arrays of a coupling flow, stacked over its couplings.

    Attributes:
        loc, scale: Of the normal base, [d].
        first: Of the dimensions that a coupling leaves as they are, [coupling, width, fixed].
        told: Of the condition, with the first layer's bias.
        hidden: Further layers.
        last: Layer that gives the splines, outputs ordered by [spline parameter, dimension].
        forward, backward: Permutation after each coupling and its inverse, [coupling, d].
        activation: Between layers.
        inverted: True where the couplings are written from data to base.
    """

    loc: Array
    scale: Array
    first: Array
    told: Layer
    hidden: tuple[Layer, ...]
    last: Layer
    forward: Array
    backward: Array
    activation: Callable[[Array], Array] = eqx.field(static=True)
    inverted: bool = eqx.field(static=True)

    @property
    def n_dim(self) -> int:
        """Dimensions of the density."""
        return self.forward.shape[1]

    @property
    def n_fixed(self) -> int:
        """Dimensions that a coupling leaves as they are."""
        return self.first.shape[2]

    def log_base(self, base: Float[Array, "point d"]) -> Float[Array, " point"]:
        """Log-density of the base."""
        return jnp.sum(norm.logpdf(base, self.loc, self.scale), axis=-1)

    def to_data(
        self, base: Float[Array, "point d"], condition: Float[Array, "*point c"]
    ) -> tuple[Float[Array, "point d"], Float[Array, " point"]]:
        """From base to data, with ln of the determinant; one condition for all, or one each."""
        return self._in_pieces(base, condition, undo=self.inverted)

    def to_base(
        self, x: Float[Array, "point d"], condition: Float[Array, "*point c"]
    ) -> tuple[Float[Array, "point d"], Float[Array, " point"]]:
        """The inverse of `to_data`, with ln of its determinant."""
        return self._in_pieces(x, condition, undo=not self.inverted)

    def _in_pieces(self, points: Array, condition: Array, *, undo: bool) -> tuple[Array, Array]:
        weight, bias = self.told
        shared = condition.ndim == 1
        number = len(points)
        pieces = -(-number // _PIECE)
        padded = pieces * -(-number // pieces)

        def split(values: Array) -> Array:
            filled = jnp.concatenate([values, jnp.repeat(values[-1:], padded - number, axis=0)])
            return filled.reshape(pieces, -1, values.shape[1])

        if shared:
            once = weight @ condition + bias

            def piece(part: Array) -> tuple[Array, Array]:
                return self._through(part.T, once[..., None], undo=undo)

            out, log_det = jax.lax.map(piece, split(points))
        else:

            def piece_each(part: tuple[Array, Array]) -> tuple[Array, Array]:
                each = jnp.einsum("kwc,pc->kwp", weight, part[1]) + bias[..., None]
                return self._through(part[0].T, each, undo=undo)

            out, log_det = jax.lax.map(piece_each, (split(points), split(condition)))
        return out.reshape(padded, -1)[:number], log_det.reshape(padded)[:number]

    def _through(self, y: Array, told: Array, *, undo: bool) -> tuple[Array, Array]:
        """All couplings, or their inverses: y [d, point], told [coupling, width, point or 1]."""

        def couple(carry: tuple[Array, Array], layer: tuple) -> tuple[tuple[Array, Array], None]:
            (y, log_det), (first, told, hidden, last, forward, backward) = carry, layer
            y = y[backward] if undo else y
            fixed, free = y[: self.n_fixed], y[self.n_fixed :]
            values = self.activation(first @ fixed + told)
            for weight, bias in hidden:
                values = self.activation(weight @ values + bias[:, None])
            raw = (last[0] @ values + last[1][:, None]).reshape(-1, *free.shape)
            moved, added = spline(raw, free, inverse=undo)
            out = jnp.concatenate([fixed, moved])
            return (out if undo else out[forward], log_det + added), None

        layers = (self.first, told, self.hidden, self.last, self.forward, self.backward)
        # for slopes each coupling is computed again: its values leave the cache before they return
        couple = jax.checkpoint(couple)
        start = (y, jnp.zeros(y.shape[1]))
        (y, log_det), _ = jax.lax.scan(couple, start, layers, reverse=undo)
        return y.T, log_det


def spline(
    raw: Float[Array, "n d point"], y: Float[Array, "d point"], *, inverse: bool
) -> tuple[Float[Array, "d point"], Float[Array, " point"]]:
    """Monotonic rational-quadratic spline on (-INTERVAL, INTERVAL), the identity beyond.

    Args:
        raw: Unbounded widths, heights and slopes: 9 + 9 + 10 of them for 8 inner knots.
        y: Where.
        inverse: From heights to widths, instead of from widths to heights.

    Returns:
        The image, and ln of the slope summed over the dimensions.

    Source:
        Durkan et al. (2019), equations 4-8, as flowjax has it; tested against flowjax
        (tests/test_coupling.py).
    """
    at = jnp.clip(y, -INTERVAL, INTERVAL)
    x_k, y_k, width, height, d_k, d_next = _bin(raw, at, inverse=inverse)
    ratio = height / width
    curve = d_next + d_k - 2 * ratio
    if inverse:
        term = (at - y_k) * curve
        a, b, c = height * (ratio - d_k) + term, height * d_k - term, -ratio * (at - y_k)
        share = 2 * c / (-b - jnp.sqrt(jnp.maximum(b**2 - 4 * a * c, 1e-20)))
        out = x_k + share * width
    else:
        share = (at - x_k) / width
        rise = ratio * share**2 + d_k * share * (1 - share)
        out = y_k + height * rise / (ratio + curve * share * (1 - share))
    top = d_next * share**2 + 2 * ratio * share * (1 - share) + d_k * (1 - share) ** 2
    slope = ratio**2 * top / (ratio + curve * share * (1 - share)) ** 2
    inside = jnp.abs(y) <= INTERVAL
    log_slope = jnp.sum(jnp.where(inside, jnp.log(slope), 0.0), axis=0)
    out = jnp.where(inside, jnp.clip(out, -INTERVAL, INTERVAL), y)
    return out, -log_slope if inverse else log_slope


def _bin(raw: Array, at: Array, *, inverse: bool) -> tuple[Array, ...]:
    """Lower corner, width, height and the two slopes of the bin that each point is in."""
    number = (raw.shape[0] - 1) // 3
    width, height = _extents(raw[:number]), _extents(raw[number : 2 * number])
    slope = raw[2 * number :]
    left, low = (jnp.cumsum(e, axis=0) - e - INTERVAL for e in (width, height))
    beyond = (at > (low if inverse else left)).at[0].set(True)
    next_beyond = jnp.concatenate([beyond[1:], jnp.zeros_like(beyond[:1])])
    here = (beyond & ~next_beyond).astype(raw.dtype)

    def pick(values: Array) -> Array:
        return jnp.sum(here * values, axis=0)

    d_k, d_next = (
        jax.nn.softplus(pick(values) + _SLOPE_OFFSET) + MIN_SLOPE
        for values in (slope[:-1], slope[1:])
    )
    return pick(left), pick(low), pick(width), pick(height), d_k, d_next


def _extents(raw: Array) -> Array:
    """Positive numbers that fill the interval."""
    free = 2 * INTERVAL - MIN_WIDTH * raw.shape[0]
    return MIN_WIDTH + free * jax.nn.softmax(raw, axis=0)


def repeated_layer(flow: AbstractTransformed) -> tuple[Any, Permute | None, bool]:
    """What a flow of flowjax's is made of.

    Returns:
        The bijection that is repeated, its arrays stacked; the permutation after it, None if there
        is no such pair; whether all is written from data to base.
    """
    whole = unwrap(flow).bijection
    inverted = isinstance(whole, Invert)
    scanned = whole.bijection if inverted else whole
    chain = scanned.bijection if isinstance(scanned, Scan) else None
    pair = chain.bijections if isinstance(chain, Chain) else ()
    if len(pair) != 2 or not isinstance(pair[1], Permute):
        return whole, None, inverted
    return pair[0], pair[1], inverted


def coupling_layers(flow: AbstractTransformed) -> CouplingLayers | None:
    """The arrays of a coupling flow of flowjax's; None if it is no coupling.

    None, too, for one or two dimensions, whose couplings flowjax mixes otherwise.
    """
    coupling, permute, inverted = repeated_layer(flow)
    if not isinstance(coupling, Coupling) or permute is None:
        return None
    base, n_fixed = unwrap(flow).base_dist, coupling.untransformed_dim
    first, *hidden, last = (arrays_of(layer) for layer in coupling.conditioner.layers)
    by_parameter = np.arange(last[0].shape[1]).reshape(coupling.dim - n_fixed, -1).T.ravel()
    return CouplingLayers(
        loc=base.loc,
        scale=base.scale,
        first=first[0][:, :, :n_fixed],
        told=(first[0][:, :, n_fixed:], first[1]),
        hidden=tuple(hidden),
        last=(last[0][:, by_parameter], last[1][:, by_parameter]),
        forward=permute.permutation[0],
        backward=permute.inverse_permutation[0],
        activation=_FASTER.get(coupling.conditioner.activation, coupling.conditioner.activation),
        inverted=inverted,
    )


def arrays_of(layer: eqx.nn.Linear) -> Layer:
    """Weight and bias of a layer that has both."""
    if layer.bias is None:
        raise ValueError("expected a conditioner whose layers have biases; got one without.")
    return layer.weight, layer.bias
