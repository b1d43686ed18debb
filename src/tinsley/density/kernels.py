"""A density around given points: equal kernels, each shaped by its neighbours."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln
from jaxtyping import Array, Float

from tinsley.density.triangular import cholesky, invert_lower

_DOF = 8.0
"""Degrees of freedom of a kernel: tails heavy enough to bound the weights, light enough to hit."""
_NEIGHBOURS = 64
_MEAN_SHARE, _GLOBAL_SHARE = 0.05, 0.002
"""A kernel's covariance is its neighbours', and these shares of the mean kernel's and of all
points', so that it is nowhere flat."""
_BLOCK = 256


class KernelMixture(eqx.Module):
    """An equal mixture of multivariate Student-t kernels, whose density is known exactly.

    Attributes:
        centre: [kernel, d].
        scale: Lower Cholesky factors of the kernels' shapes, [kernel, d, d].
    """

    centre: Float[Array, "kernel d"]
    scale: Float[Array, "kernel d d"]

    def sample(self, number: int, *, key: Array) -> Float[Array, "number d"]:
        """Draws, as nearly as many from each kernel as can be."""
        key_kernel, key_normal, key_gamma = jax.random.split(key, 3)
        n_kernel, n_dim = self.centre.shape
        place = (jnp.arange(number) + jax.random.uniform(key_kernel)) * (n_kernel / number)
        kernel = jnp.minimum(place.astype(int), n_kernel - 1)
        normal = jax.random.normal(key_normal, (number, n_dim))
        spread = jax.random.gamma(key_gamma, 0.5 * _DOF, (number, 1)) / (0.5 * _DOF)
        step = normal / jnp.sqrt(spread)
        return self.centre[kernel] + jnp.einsum("nij,nj->ni", self.scale[kernel], step)

    def log_prob(self, x: Float[Array, "point d"]) -> Float[Array, " point"]:
        """Log-density of each point."""
        n_kernel, n_dim = self.centre.shape
        inverse = invert_lower(self.scale)
        power = 0.5 * (_DOF + n_dim)
        constant = (
            gammaln(power)
            - gammaln(0.5 * _DOF)
            - 0.5 * n_dim * np.log(_DOF * np.pi)
            - np.log(n_kernel)
            + jnp.sum(jnp.log(jnp.diagonal(inverse, axis1=1, axis2=2)), axis=-1)
        )

        def one(point: Array) -> Array:
            distance = jnp.einsum("kij,kj->ki", inverse, point - self.centre)
            squared = jnp.sum(distance**2, axis=-1)
            return jax.nn.logsumexp(constant - power * jnp.log1p(squared / _DOF))

        return jax.lax.map(one, x, batch_size=_BLOCK)


def fit_kernel_mixture(points: Float[Array, "point d"]) -> KernelMixture:
    """A kernel at each point, with the covariance of the 64 points nearest to it.

    Shapes that follow the neighbours fit bent regions. "Nearest" is measured in the metric of all
    points' covariance: of the metrics tried on hard posteriors it gave the evenest weights.

    Args:
        points: Equally weighted; at least 65.
    """
    n_dim = points.shape[1]
    covariance = jnp.cov(points, rowvar=False).reshape(n_dim, n_dim) + 1e-6 * jnp.eye(n_dim)
    white = points @ invert_lower(cholesky(covariance)).T
    apart = jnp.sum((white[:, None] - white[None]) ** 2, axis=-1)
    near = points[jax.lax.top_k(-apart, _NEIGHBOURS)[1]]
    offset = near - jnp.mean(near, axis=1, keepdims=True)
    local = jnp.einsum("pki,pkj->pij", offset, offset) / _NEIGHBOURS
    shape = local + _MEAN_SHARE * jnp.mean(local, axis=0) + _GLOBAL_SHARE * covariance
    return KernelMixture(points, cholesky(shape))
