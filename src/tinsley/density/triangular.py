"""Cholesky factors of small matrices, and their inverses, in plain JAX.

JAX's own are LAPACK's, which on a processor wait for a thread of the pool that they run in:
galaxies inferred side by side, on as many threads, wait for each other for ever
(tests/test_triangular.py).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def cholesky(matrix: Float[Array, "*batch d d"]) -> Float[Array, "*batch d d"]:
    """Lower triangular L of L L^T = matrix, column by column; NaN where there is none.

    Args:
        matrix: Symmetric and positive definite.

    Source:
        Checked against NumPy (tests/test_triangular.py).
    """
    size = matrix.shape[-1]
    rows = jnp.arange(size)

    def column(k: Array, factor: Array) -> Array:
        known = jnp.einsum("...ij,...j->...i", factor, factor[..., k, :])
        left = matrix[..., :, k] - known
        return factor.at[..., :, k].set(
            jnp.where(rows >= k, left / jnp.sqrt(left[..., k, None]), 0.0)
        )

    return jax.lax.fori_loop(0, size, column, jnp.zeros_like(matrix))


def invert_lower(factor: Float[Array, "*batch d d"]) -> Float[Array, "*batch d d"]:
    """Inverse of a lower triangular matrix, row by row.

    Args:
        factor: No 0 on its diagonal.

    Source:
        Forward substitution; checked against NumPy (tests/test_triangular.py).
    """
    size = factor.shape[-1]
    one = jnp.eye(size)

    def row(k: Array, inverse: Array) -> Array:
        known = jnp.einsum("...j,...jk->...k", factor[..., k, :], inverse)
        return inverse.at[..., k, :].set((one[k] - known) / factor[..., k, k, None])

    return jax.lax.fori_loop(0, size, row, jnp.zeros_like(factor))
