"""The space that a population lives in: redshift and every parameter, unbounded."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
from jax.scipy.special import ndtr, ndtri
from jaxtyping import Array, Float

from tinsley.cosmology import Cosmology
from tinsley.parameters import ParamSpace, Theta

REDSHIFT = "redshift"
_EDGE = 3e-7
"""Redshift keeps this share of its range from either end, as parameters do from theirs."""


class PopulationSpace(eqx.Module):
    """Redshift, then the parameters, mass included.

    Coordinates are normal quantiles of the prior's CDF, so that N(0, 1) in each is the prior:
    uniform over the box, redshift uniform in its range.

    Attributes:
        space: The parameters' box.
        cosmology: For the age at a redshift, on which bursts depend.
        redshift_range: Ends of the redshifts.
    """

    space: ParamSpace
    cosmology: Cosmology
    redshift_range: tuple[float, float] = eqx.field(static=True)

    @property
    def n_dim(self) -> int:
        """Number of coordinates."""
        return 1 + self.space.n_unit

    def theta(self, x: Float[Array, "*batch d"]) -> dict[str, Array]:
        """Physical values, `redshift` among them, of points in the unbounded space."""
        low, high = self.redshift_range
        redshift = low + (high - low) * jnp.clip(ndtr(x[..., 0]), _EDGE, 1 - _EDGE)
        age_gyr = self.cosmology.age_gyr(redshift)
        return self.space.from_unbounded(x[..., 1:], age_gyr) | {REDSHIFT: redshift}

    def unbounded(self, theta: Theta) -> Float[Array, "*batch d"]:
        """The inverse of `theta`."""
        low, high = self.redshift_range
        share = jnp.clip((theta[REDSHIFT] - low) / (high - low), _EDGE, 1 - _EDGE)
        rest = self.space.to_unbounded(theta, self.cosmology.age_gyr(theta[REDSHIFT]))
        return jnp.concatenate([ndtri(share)[..., None], rest], axis=-1)
