"""Where a density of properties lives: columns of a table to numbers of order 1, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tinsley.parameters import LogUniform, ParamSpace, Simplex, param_space_from_dict

ZERO_DECADE = 10.0
"""Values below so many times the low end of a logarithmic range are not told from zero."""


@dataclass(frozen=True)
class Standard:
    """The mean and the standard deviation of some numbers over the training set.

    Attributes:
        mean: Of each number.
        std: Of each number, positive.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def n_dim(self) -> int:
        """Dimensions of the density."""
        return len(self.mean)

    def inward(self, values: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
        """Values with mean 0 and standard deviation 1."""
        mean, std = self._like(values)
        return (values - mean) / std

    def outward(self, values: Float[Array, "*n d"]) -> Float[Array, "*n d"]:
        """The inverse of `inward`."""
        mean, std = self._like(values)
        return values * std + mean

    def log_slope(self, value: Float[Array, " d"]) -> Float[Array, ""]:
        """Ln of the density of a value over that of its image."""
        return jnp.asarray(-np.sum(np.log(self.std)), value.dtype)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; `standard_from_dict` is the inverse."""
        return {"mean": list(self.mean), "std": list(self.std)}

    def _like(self, values: Array) -> tuple[Array, Array]:
        both = (jnp.asarray(v, values.dtype).reshape(-1) for v in (self.mean, self.std))
        mean, std = (jnp.broadcast_to(v, values.shape) for v in both)
        return mean, std


def fit_standard(values: np.ndarray) -> Standard:
    """Mean and standard deviation of each column of [n, d]; 1 where all are the same."""
    values = np.asarray(values, np.float64)
    std = values.std(axis=0)
    scale = np.where(std > 1e-6 * (np.abs(values).max(axis=0, initial=0.0) + 1e-12), std, 1.0)
    return Standard(tuple(values.mean(axis=0).tolist()), tuple(scale.tolist()))


@dataclass(frozen=True)
class Bounded:
    """Parameters of a space: no density leaks out of their ranges, and shares sum to 1.

    Attributes:
        space: Names and ranges; none may depend on the galaxy's age.
        standard: Of its unbounded coordinates over the training set.
    """

    space: ParamSpace
    standard: Standard

    @property
    def n_dim(self) -> int:
        """Dimensions of the density: one less than columns for each set of shares."""
        return self.space.n_unit

    def inward(self, values: Float[Array, "*n p"]) -> Float[Array, "*n d"]:
        """Standardised unbounded coordinates of columns in the order of the space's names."""
        return self.standard.inward(unbounded(self.space, values))

    def outward(self, values: Float[Array, "*n d"]) -> Float[Array, "*n p"]:
        """The inverse of `inward`."""
        theta = self.space.from_unbounded(self.standard.outward(values), jnp.asarray(jnp.inf))
        return jnp.stack([theta[name] for name in self.space.names], axis=-1)

    def log_slope(self, value: Float[Array, " p"]) -> Float[Array, ""]:
        """Ln of the density of a value over that of its image; of shares, all but the last count.

        The determinant of the map, by automatic differentiation.
        """
        last = {p.names[-1]: p.names[:-1] for p in self.space.priors if isinstance(p, Simplex)}
        names = self.space.names
        free = [i for i, name in enumerate(names) if name not in last]

        def inward(some: Array) -> Array:
            theta = dict(zip((names[i] for i in free), some, strict=True))
            for name, others in last.items():
                theta[name] = 1 - sum((theta[other] for other in others), jnp.zeros(()))
            return self.inward(jnp.stack([theta[name] for name in names]))

        return jnp.linalg.slogdet(jax.jacfwd(inward)(value[np.asarray(free)]))[1]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; `target_from_dict` is the inverse."""
        return self.standard.to_dict() | {"space": self.space.to_dict()}


Target = Standard | Bounded


def fit_target(values: np.ndarray, space: ParamSpace | None) -> Target:
    """The target of a training set [n, property], of any columns or of a space's parameters."""
    if space is None:
        return fit_standard(values)
    inner = np.asarray(unbounded(space, jnp.asarray(values, float)))
    return Bounded(space, fit_standard(inner))


def standard_from_dict(plain: dict[str, Any]) -> Standard:
    """The inverse of `Standard.to_dict`."""
    return Standard(tuple(plain["mean"]), tuple(plain["std"]))


def target_from_dict(plain: dict[str, Any]) -> Target:
    """The inverse of `to_dict`, of either kind."""
    standard = standard_from_dict(plain)
    if "space" not in plain:
        return standard
    return Bounded(param_space_from_dict(plain["space"]), standard)


def unbounded(space: ParamSpace, values: Float[Array, "*n p"]) -> Float[Array, "*n d"]:
    """Coordinates of columns in the order of the space's names, where its ranges have no ends."""
    theta = dict(zip(space.names, jnp.moveaxis(values, -1, 0), strict=True))
    return space.to_unbounded(theta, jnp.asarray(jnp.inf))


def spread_zeros(
    space: ParamSpace, values: Float[np.ndarray, "n p"], share: Float[np.ndarray, "n p"]
) -> Float[np.ndarray, "n p"]:
    """Values that stand for none, somewhere in the lowest decade of their logarithmic range.

    A galaxy without a burst has a share of 0, and many have none: a density would grow a spike
    there, without end. So what is below 10 times the low end is put log-uniformly between the two,
    and a draw there says "none". Values below 0 stay as they are, outside.

    Args:
        space: Names and ranges.
        values: Columns in the order of the names.
        share: Uniform random numbers from 0 to 1, which should follow from the galaxies' names.
    """
    values, column = np.array(values, float), list(space.names)
    for prior in space.priors:
        if isinstance(prior, LogUniform):
            i = column.index(prior.name)
            small = (values[:, i] >= 0) & (values[:, i] < ZERO_DECADE * prior.low)
            values[small, i] = prior.low * ZERO_DECADE ** share[small, i]
    return values


def inside(space: ParamSpace, values: Float[np.ndarray, "n p"]) -> np.ndarray:
    """Where all parameters are within their ranges and shares sum to 1, to 0.001, [n]."""
    good = np.ones(len(values), bool)
    start = 0
    for prior in space.priors:
        some = values[:, start : start + len(prior.names)]
        start += len(prior.names)
        if isinstance(prior, Simplex):
            good &= (some >= 0).all(axis=1) & (np.abs(some.sum(axis=1) - 1) < 1e-3)
        else:
            theta = dict(zip(prior.names, jnp.asarray(some.T, float), strict=True))
            unit = np.asarray(prior.to_unit(theta, jnp.asarray(jnp.inf)))
            good &= ((unit >= 0) & (unit <= 1)).all(axis=1)
    return good
