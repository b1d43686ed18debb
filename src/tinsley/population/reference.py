"""Reference populations: what a population is believed to be before the data speak."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

WIDTHS = (0.4, 0.95)
"""Range of a drawn reference's standard deviation in each coordinate; the prior's is 1."""
FACTORS = 3
"""Common factors behind the random correlations."""


class Reference(eqx.Module):
    """A Gaussian in the unbounded space: in the box, correlated and truncated by construction.

    Attributes:
        mean: [d].
        factor: Cholesky factor of the covariance, [d, d].
    """

    mean: Float[Array, " d"]
    factor: Float[Array, "d d"]

    def log_prob(self, x: Float[Array, "n d"]) -> Float[Array, " n"]:
        """Log-density in the unbounded space."""
        d = self.mean.shape[0]
        whiten = solve_triangular(self.factor, jnp.eye(d), lower=True)  # not of x: that is slow
        residual = (x - self.mean) @ whiten.T
        log_det = jnp.sum(jnp.log(jnp.diagonal(self.factor)))
        return -0.5 * jnp.sum(residual**2, axis=1) - log_det - 0.5 * d * np.log(2 * np.pi)

    def sample(self, number: int, *, key: Array) -> Float[Array, "number d"]:
        """Draws in the unbounded space."""
        noise = jax.random.normal(key, (number, self.mean.shape[0]))
        return self.mean + noise @ self.factor.T

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, for files."""
        return {"mean": np.asarray(self.mean).tolist(), "factor": np.asarray(self.factor).tolist()}


def reference_from_dict(plain: dict[str, Any]) -> Reference:
    """The inverse of `Reference.to_dict`.

    Raises:
        ValueError: It is no mean [d] and factor [d, d] of finite numbers.
    """
    try:
        mean, factor = (np.asarray(plain[name], float) for name in ("mean", "factor"))
    except (KeyError, TypeError, ValueError) as problem:
        raise ValueError("a reference needs `mean` [d] and `factor` [d, d].") from problem
    sound = mean.ndim == 1 and factor.shape == (len(mean), len(mean))
    if not (sound and np.isfinite(mean).all() and np.isfinite(factor).all()):
        raise ValueError("a reference needs `mean` [d] and `factor` [d, d] of finite numbers.")
    if not (np.diagonal(factor) > 0).all() or np.triu(factor, 1).any():
        raise ValueError("a reference's `factor` must be lower triangular, its diagonal positive.")
    return Reference(jnp.asarray(mean, dtype=float), jnp.asarray(factor, dtype=float))


def uniform_reference(n_dim: int) -> Reference:
    """The prior itself: uniform in the box."""
    return Reference(jnp.zeros(n_dim), jnp.eye(n_dim))


def fit_reference(x: Float[Array, "n d"], weight: Float[Array, " n"] | None = None) -> Reference:
    """The Gaussian of the same mean and covariance as draws in the unbounded space.

    Args:
        x: The draws.
        weight: Of each, which sum to 1; None where all count the same.
    """
    share = jnp.full(x.shape[0], 1 / x.shape[0]) if weight is None else weight
    mean = share @ x
    offset = x - mean
    covariance = (offset * share[:, None]).T @ offset + 1e-4 * jnp.eye(x.shape[1])
    return Reference(mean, jnp.linalg.cholesky(covariance))


def draw_reference(centre: Reference, *, key: Array) -> Reference:
    """A reference from the hyperprior about `centre`.

    In the space where `centre` is N(0, 1) each standard deviation s is uniform in `WIDTHS`, the
    mean is N(0, 1 - s^2), and correlations come from three common factors with normal loadings. So
    averaged over the hyperprior each coordinate is distributed as in `centre`: the references
    disagree about everything, yet together say no more than it.
    """
    d = centre.mean.shape[0]
    key_width, key_mean, key_load, key_own = jax.random.split(key, 4)
    width = jax.random.uniform(key_width, (d,), minval=WIDTHS[0], maxval=WIDTHS[1])
    mean = jnp.sqrt(1 - width**2) * jax.random.normal(key_mean, (d,))
    loading = jax.random.normal(key_load, (d, FACTORS)) / np.sqrt(FACTORS)
    own = jax.random.uniform(key_own, (d,), minval=0.3, maxval=1.0)
    covariance = loading @ loading.T + jnp.diag(own)
    scale = width / jnp.sqrt(jnp.diagonal(covariance))
    factor = jnp.linalg.cholesky(covariance * scale[:, None] * scale)
    return Reference(centre.mean + centre.factor @ mean, centre.factor @ factor)


def towards(reference: Reference, centre: Reference, share: float) -> Reference:
    """Part of the way from `centre`, share 0, to a reference, share 1: both moments are mixed."""
    mean = centre.mean + share * (reference.mean - centre.mean)
    covariances = (one.factor @ one.factor.T for one in (reference, centre))
    covariance = sum(c * w for c, w in zip(covariances, (share, 1.0 - share), strict=True))
    return Reference(mean, jnp.linalg.cholesky(jnp.asarray(covariance)))
