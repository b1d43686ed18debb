"""What is known of a galaxy's redshift before its photometry is looked at: a density p(z)."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

N_NODES = 257
"""Of a Gaussian: the density at the nodes is exact, and between them within 0.03 % of its peak."""
REACH = 6.0
"""A Gaussian ends this many standard deviations from its middle."""
LEAST_INSIDE = 1e-3
"""A redshift of which less than this share lies in a model's range is out of range."""

_TINY = 1e-30


class RedshiftPrior(eqx.Module):
    """A density of redshift: linear between nodes, zero beyond them.

    One for each galaxy, as NumPy arrays with a leading axis in `Photometry`; as JAX arrays where it
    is drawn from, for one galaxy.

    Attributes:
        node: Redshifts, nowhere falling, [..., node].
        density: Of any scale, [..., node].
        cumulative: The probability below each node, from 0 to 1, [..., node].
    """

    node: Float[np.ndarray | Array, "*batch node"]
    density: Float[np.ndarray | Array, "*batch node"]
    cumulative: Float[np.ndarray | Array, "*batch node"]

    def cdf(self, redshift: Float[Array, " z"]) -> Float[Array, " z"]:
        """The probability below some redshifts, for one galaxy."""
        cell = self._cell(jnp.searchsorted(self.node, redshift, side="right"))
        low, high = self.node[cell], self.node[cell + 1]
        place = jnp.clip((redshift - low) / jnp.maximum(high - low, _TINY), 0.0, 1.0)
        left, right = self._ends(cell)
        share = place * (2.0 * left + place * (right - left)) / (left + right)
        below = self.cumulative[cell]
        return below + share * (self.cumulative[cell + 1] - below)

    def quantile(self, level: Float[Array, " z"]) -> Float[Array, " z"]:
        """The redshifts below which some probabilities lie, for one galaxy: the inverse of `cdf`.

        In float32 levels near 1 are resolved to 6e-8, which is 5 standard deviations of a Gaussian.
        """
        cell = self._cell(jnp.searchsorted(self.cumulative, level, side="right"))
        below = self.cumulative[cell]
        inside = jnp.maximum(self.cumulative[cell + 1] - below, _TINY)
        share = jnp.clip((level - below) / inside, 0.0, 1.0)
        left, right = self._ends(cell)
        root = left + jnp.sqrt(left**2 + share * (right**2 - left**2))
        place = share * (left + right) / jnp.maximum(root, _TINY)
        return self.node[cell] + place * (self.node[cell + 1] - self.node[cell])

    def _cell(self, after: Array) -> Array:
        return jnp.clip(after - 1, 0, self.node.shape[-1] - 2)

    def _ends(self, cell: Array) -> tuple[Array, Array]:
        """Density at both ends of a cell, over the higher of them."""
        left, right = self.density[cell], self.density[cell + 1]
        top = jnp.maximum(jnp.maximum(left, right), _TINY)
        return left / top, jnp.maximum(right / top, _TINY)


def uniform(low: float, high: float) -> RedshiftPrior:
    """Every redshift of a range alike, for one galaxy."""
    ends = jnp.asarray([low, high])
    return RedshiftPrior(ends, jnp.ones_like(ends), jnp.asarray([0.0, 1.0]))


def tabulated(
    node: Float[np.ndarray, "n node"], density: Float[np.ndarray, "n node"]
) -> RedshiftPrior:
    """The prior that a table of p(z) stands for.

    Args:
        node: Redshifts, nowhere falling; NaN where there is no prior.
        density: p(z) there, not negative, of any scale but not zero everywhere.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        density = density / np.max(density, axis=1, keepdims=True)
        cell = np.diff(node, axis=1) * (density[:, 1:] + density[:, :-1])
        total = np.cumsum(np.pad(cell, ((0, 0), (1, 0))), axis=1)
        return RedshiftPrior(node, density, total / total[:, -1:])


def gaussian(redshift: Float[np.ndarray, " n"], error: Float[np.ndarray, " n"]) -> RedshiftPrior:
    """N(redshift, error), cut at 6 standard deviations; NaN where the error is not above 0.

    Source:
        Tested against SciPy (tests/test_redshift_prior.py): 0.1-99.9 % agree to 6e-4 of the error.
    """
    offset = np.linspace(-REACH, REACH, N_NODES)
    error = np.where(error > 0, error, np.nan)
    node = redshift[:, None] + error[:, None] * offset
    return tabulated(node, np.where(np.isnan(node), np.nan, np.exp(-0.5 * offset**2)))


def joined(first: RedshiftPrior, second: RedshiftPrior) -> RedshiftPrior:
    """For each galaxy the first prior if there is one, else the second."""
    width = max(first.node.shape[1], second.node.shape[1])
    there = np.isfinite(first.node[:, :1])
    node, density = (
        np.where(there, _wide(one, width), _wide(other, width))
        for one, other in ((first.node, second.node), (first.density, second.density))
    )
    return tabulated(node, density)


def truncated(
    prior: RedshiftPrior, low: float, high: float
) -> tuple[RedshiftPrior, Float[np.ndarray, " n"]]:
    """The priors inside a range, and the share of each that was inside; NaN where there is none."""
    node = np.clip(prior.node, low, high)
    density = np.stack(
        [np.interp(at, *whole) for at, *whole in zip(node, prior.node, prior.density, strict=True)]
    )
    with np.errstate(invalid="ignore"):
        inside = np.trapezoid(density, node) / np.trapezoid(prior.density, prior.node)
    return tabulated(node, density), inside


def _wide(values: np.ndarray | Array, width: int) -> np.ndarray:
    """The same with the last column repeated: nodes that add nothing."""
    return np.pad(values, ((0, 0), (0, width - values.shape[1])), mode="edge")
