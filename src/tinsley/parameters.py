"""A galaxy's parameters: names, units, priors, and the maps between three spaces.

unit cube (0, 1)  <->  unbounded space (normal quantiles, where densities live)
        |
physical values, a dict of arrays by name
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr, ndtri
from jaxtyping import Array, Float
from scipy import special

Theta = Mapping[str, Array]
"""Physical values by name; every array has the batch's shape."""

MASS = "log10_mstar_msun"
BETAS = ("beta_1", "beta_2", "beta_3", "beta_4")
_EDGE = 3e-7
"""Unit-cube coordinates stay this far from 0 and 1: float32's resolution near 1."""


class AbstractPrior(eqx.Module):
    """A prior on one parameter or a block of them.

    Attributes:
        names: The parameters that it yields.
    """

    names: eqx.AbstractVar[tuple[str, ...]]

    @property
    def n_unit(self) -> int:
        """How many unit-cube coordinates it takes."""
        return 1

    @abc.abstractmethod
    def from_unit(self, u: Float[Array, "*batch k"], age_gyr: Array) -> dict[str, Array]:
        """Physical values from unit-cube coordinates; `age_gyr` is the galaxy's age."""

    @abc.abstractmethod
    def to_unit(self, theta: Theta, age_gyr: Array) -> Float[Array, "*batch k"]:
        """The inverse of `from_unit`; values outside the prior give coordinates outside (0, 1)."""

    @abc.abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Plain description, for files."""


class AbstractBoundedPrior(AbstractPrior):
    """A prior on one parameter between fixed ends: one whose density is known by itself.

    Attributes:
        low: Least value.
        high: Greatest value.
    """

    low: eqx.AbstractVar[float]
    high: eqx.AbstractVar[float]

    @property
    def name(self) -> str:
        """The parameter."""
        return self.names[0]

    @abc.abstractmethod
    def log_prob(self, value: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        """Natural log of the density; -inf outside the ends."""

    def _inside(self, value: Array, log_density: Array | float) -> Array:
        """The log-density where a value is between the ends, -inf where not."""
        return jnp.where((value >= self.low) & (value <= self.high), log_density, -jnp.inf)


class Uniform(AbstractBoundedPrior):
    """Uniform from `low` to `high`."""

    names: tuple[str, ...] = eqx.field(static=True)
    low: float = eqx.field(static=True)
    high: float = eqx.field(static=True)

    def __init__(self, name: str, low: float, high: float) -> None:
        _check_range(name, low, high)
        self.names, self.low, self.high = (name,), low, high

    def from_unit(self, u: Array, age_gyr: Array) -> dict[str, Array]:
        return {self.names[0]: self.low + (self.high - self.low) * u[..., 0]}

    def to_unit(self, theta: Theta, age_gyr: Array) -> Array:
        return ((theta[self.names[0]] - self.low) / (self.high - self.low))[..., None]

    def log_prob(self, value: Array) -> Array:
        return self._inside(value, -np.log(self.high - self.low))

    def to_dict(self) -> dict[str, Any]:
        return {"prior": "uniform", "name": self.names[0], "low": self.low, "high": self.high}


class LogUniform(AbstractBoundedPrior):
    """Uniform in the logarithm from `low` to `high`."""

    names: tuple[str, ...] = eqx.field(static=True)
    low: float = eqx.field(static=True)
    high: float = eqx.field(static=True)

    def __init__(self, name: str, low: float, high: float) -> None:
        _check_range(name, low, high)
        if low <= 0:
            raise ValueError(f"{name}: a log-uniform prior needs low > 0; got {low}.")
        self.names, self.low, self.high = (name,), low, high

    def from_unit(self, u: Array, age_gyr: Array) -> dict[str, Array]:
        return {self.names[0]: self.low * jnp.exp(np.log(self.high / self.low) * u[..., 0])}

    def to_unit(self, theta: Theta, age_gyr: Array) -> Array:
        ratio = jnp.maximum(theta[self.names[0]], 1e-30) / self.low
        return (jnp.log(ratio) / np.log(self.high / self.low))[..., None]

    def log_prob(self, value: Array) -> Array:
        log_density = -jnp.log(jnp.maximum(value, 1e-30)) - np.log(np.log(self.high / self.low))
        return self._inside(value, log_density)

    def to_dict(self) -> dict[str, Any]:
        return {"prior": "log_uniform", "name": self.names[0], "low": self.low, "high": self.high}


class Normal(AbstractBoundedPrior):
    """Normal, cut off at `low` and `high`, between which its `mean` lies."""

    names: tuple[str, ...] = eqx.field(static=True)
    mean: float = eqx.field(static=True)
    std: float = eqx.field(static=True)
    low: float = eqx.field(static=True)
    high: float = eqx.field(static=True)

    def __init__(self, name: str, mean: float, std: float, low: float, high: float) -> None:
        _check_range(name, low, high)
        if std <= 0 or not low <= mean <= high:
            raise ValueError(
                f"{name}: a normal prior needs std > 0 and its mean from {low:g} to {high:g}; got "
                f"mean {mean:g} and std {std:g}."
            )
        self.names, self.mean, self.std, self.low, self.high = (name,), mean, std, low, high

    def from_unit(self, u: Array, age_gyr: Array) -> dict[str, Array]:
        below, share = self._ends()
        value = self.mean + self.std * ndtri(below + share * u[..., 0])
        return {self.names[0]: jnp.clip(value, self.low, self.high)}

    def to_unit(self, theta: Theta, age_gyr: Array) -> Array:
        below, share = self._ends()
        level = ndtr((theta[self.names[0]] - self.mean) / self.std)
        return ((level - below) / share)[..., None]

    def log_prob(self, value: Array) -> Array:
        x = (value - self.mean) / self.std
        constant = np.log(self.std * np.sqrt(2 * np.pi) * self._ends()[1])
        return self._inside(value, -0.5 * x**2 - constant)

    def _ends(self) -> tuple[float, float]:
        """Probability of the whole normal below `low`, and between the ends."""
        below, above = special.ndtr((np.array([self.low, self.high]) - self.mean) / self.std)
        return float(below), float(above - below)

    def to_dict(self) -> dict[str, Any]:
        plain = {"prior": "normal", "name": self.names[0], "mean": self.mean, "std": self.std}
        return plain | {"low": self.low, "high": self.high}


class Simplex(AbstractPrior):
    """Four numbers that sum to 1, by breaking a stick three times.

    With `power` (1/3, 1/2, 1) they follow the flat Dirichlet (Betancourt 2012); with (1, 1, 1) the
    papers' "warped" map, whose mean is (0.50, 0.25, 0.125, 0.125). The first is tested against a
    sampled Dirichlet.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    power: tuple[float, float, float] = eqx.field(static=True)

    @property
    def n_unit(self) -> int:
        return 3

    def from_unit(self, u: Array, age_gyr: Array) -> dict[str, Array]:
        k1, k2, k3 = (u[..., i] ** p for i, p in enumerate(self.power))
        shares = (1 - k1, k1 * (1 - k2), k1 * k2 * (1 - k3), k1 * k2 * k3)
        return dict(zip(self.names, shares, strict=True))

    def to_unit(self, theta: Theta, age_gyr: Array) -> Array:
        left = jnp.ones_like(theta[self.names[0]])
        out = []
        for name, power in zip(self.names[:3], self.power, strict=True):
            keep = 1 - theta[name] / jnp.maximum(left, 1e-12)
            out.append(jnp.clip(keep, 0.0, 1.0) ** (1 / power))
            left = left * keep
        return jnp.stack(out, axis=-1)

    def to_dict(self) -> dict[str, Any]:
        return {"prior": "simplex", "names": list(self.names), "power": list(self.power)}


FLAT_POWER = (1 / 3, 1 / 2, 1.0)
WARPED_POWER = (1.0, 1.0, 1.0)


class UniformToAge(AbstractPrior):
    """Uniform from `low` to the galaxy's age (or `high`, when that is less), never above."""

    names: tuple[str, ...] = eqx.field(static=True)
    low: float = eqx.field(static=True)
    high: float = eqx.field(static=True)

    def __init__(self, name: str, low: float, high: float) -> None:
        _check_range(name, low, high)
        self.names, self.low, self.high = (name,), low, high

    def from_unit(self, u: Array, age_gyr: Array) -> dict[str, Array]:
        top = self._top(age_gyr)
        return {self.names[0]: jnp.minimum(self.low + (top - self.low) * u[..., 0], top)}

    def to_unit(self, theta: Theta, age_gyr: Array) -> Array:
        return ((theta[self.names[0]] - self.low) / (self._top(age_gyr) - self.low))[..., None]

    def _top(self, age_gyr: Array) -> Array:
        return jnp.minimum(age_gyr, self.high)

    def to_dict(self) -> dict[str, Any]:
        return {
            "prior": "uniform_to_age",
            "name": self.names[0],
            "low": self.low,
            "high": self.high,
        }


class ParamSpace(eqx.Module):
    """All parameters but redshift; the only code that knows column numbers."""

    priors: tuple[AbstractPrior, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Physical names, in order."""
        return tuple(name for prior in self.priors for name in prior.names)

    @property
    def n_unit(self) -> int:
        """Number of unit-cube coordinates."""
        return sum(prior.n_unit for prior in self.priors)

    def without_mass(self) -> ParamSpace:
        """The same space less the mass: what a flow learns."""
        return ParamSpace(tuple(p for p in self.priors if p.names != (MASS,)))

    def replaced(self, prior: AbstractBoundedPrior) -> ParamSpace:
        """The same space with another prior on one parameter.

        Raises:
            ValueError: No prior of this space is on that parameter alone.
        """
        if (prior.name,) not in [old.names for old in self.priors]:
            raise ValueError(f"{prior.name}: no prior of its own to replace.")
        return ParamSpace(tuple(prior if p.names == prior.names else p for p in self.priors))

    @property
    def mass_prior(self) -> Uniform:
        """The prior on log10 formed mass."""
        for prior in self.priors:
            if prior.names == (MASS,) and isinstance(prior, Uniform):
                return prior
        raise ValueError(f"a parameter space needs a uniform prior on {MASS}; this one has none.")

    def from_unit(self, u: Float[Array, "*batch d"], age_gyr: Array) -> dict[str, Array]:
        """Physical values of points in the unit cube, for galaxies of the given ages."""
        theta: dict[str, Array] = {}
        start = 0
        for prior in self.priors:
            theta |= prior.from_unit(u[..., start : start + prior.n_unit], age_gyr)
            start += prior.n_unit
        return theta

    def to_unit(self, theta: Theta, age_gyr: Array) -> Float[Array, "*batch d"]:
        """Unit-cube coordinates of physical values."""
        return jnp.concatenate([p.to_unit(theta, age_gyr) for p in self.priors], axis=-1)

    def from_unbounded(self, x: Float[Array, "*batch d"], age_gyr: Array) -> dict[str, Array]:
        """Physical values of points in the unbounded space, where the prior is N(0, 1)."""
        return self.from_unit(jnp.clip(ndtr(x), _EDGE, 1 - _EDGE), age_gyr)

    def to_unbounded(self, theta: Theta, age_gyr: Array) -> Float[Array, "*batch d"]:
        """Normal quantiles of the unit-cube coordinates."""
        return ndtri(jnp.clip(self.to_unit(theta, age_gyr), _EDGE, 1 - _EDGE))

    def sample(self, number: int, age_gyr: Array, *, key: Array) -> dict[str, Array]:
        """Draws from the prior, one for each galaxy of `age_gyr` [number]."""
        u = jax.random.uniform(key, (number, self.n_unit), minval=_EDGE, maxval=1 - _EDGE)
        return self.from_unit(u, age_gyr)

    def to_dict(self) -> list[dict[str, Any]]:
        """Plain description, for files; `param_space_from_dict` is its inverse."""
        return [prior.to_dict() for prior in self.priors]


def param_space_from_dict(plain: list[dict[str, Any]]) -> ParamSpace:
    """The space that `ParamSpace.to_dict` described."""
    return ParamSpace(tuple(_prior_from_dict(dict(entry)) for entry in plain))


def _prior_from_dict(entry: dict[str, Any]) -> AbstractPrior:
    kind = entry.pop("prior")
    if kind == "simplex":
        p1, p2, p3 = entry["power"]
        return Simplex(tuple(entry["names"]), (p1, p2, p3))
    kinds: dict[str, Callable[..., AbstractPrior]] = {
        "uniform": Uniform,
        "log_uniform": LogUniform,
        "normal": Normal,
        "uniform_to_age": UniformToAge,
    }
    if kind not in kinds:
        raise ValueError(f"unknown prior {kind!r}; expected simplex, {', '.join(kinds)}.")
    return kinds[kind](**entry)


def default_space(metallicity: tuple[AbstractPrior, ...] | None = None) -> ParamSpace:
    """Tinsley's default prior: SEDflow's ranges, without its dead volume.

    Flat Dirichlet on the betas, bursts up to the galaxy's age, constant metallicity inside the
    SSP grid unless other priors on metallicity are given. Slopes of the dust up to 0.4, where
    SEDflow goes to 1: beyond 0.447 Kriek & Conroy's (2013) bump, 0.85 - 1.9 n, would be negative,
    and such grey curves trade against mass without being seen in galaxies, whose slopes are on
    average far steeper (Salim et al. 2018).
    """
    return ParamSpace(
        (
            Uniform(MASS, 7.0, 12.5),
            Simplex(BETAS, FLAT_POWER),
            Uniform("f_burst", 0.0, 1.0),
            UniformToAge("t_burst_gyr", 0.01, 13.27),
            *(metallicity or (Uniform("log10_z_zsun", -2.2, 0.4),)),
            Uniform("tau_bc", 0.0, 3.0),
            Uniform("tau_ism", 0.0, 3.0),
            Uniform("n_dust", -2.0, 0.4),
        )
    )


def sedflow_space() -> ParamSpace:
    """SEDflow's priors as its code draws them (Hahn & Melchior 2022; its gammas log-uniform)."""
    return ParamSpace(
        (
            Uniform(MASS, 7.0, 12.5),
            Simplex(BETAS, WARPED_POWER),
            Uniform("f_burst", 0.0, 1.0),
            Uniform("t_burst_gyr", 0.01, 13.27),
            LogUniform("gamma_1", 4.5e-5, 1.5e-2),
            LogUniform("gamma_2", 4.5e-5, 1.5e-2),
            Uniform("tau_bc", 0.0, 3.0),
            Uniform("tau_ism", 0.0, 3.0),
            Uniform("n_dust", -2.0, 1.0),
        )
    )


def whole_space() -> ParamSpace:
    """Ranges of the parameters of whole galaxies that a table lists, whatever their distribution.

    Not a prior: the table's distribution is. Wide enough for `tinsley simulate-images`; none
    depends on the redshift. The lowest decade of a logarithmic range stands for zero:
    `tinsley.infer.property_targets.spread_zeros`.
    """
    return ParamSpace(
        (
            Uniform(MASS, 6.0, 13.0),
            Simplex(BETAS, FLAT_POWER),
            LogUniform("f_burst", 1e-4, 1.0),
            LogUniform("t_burst_gyr", 1e-3, 14.0),
            Uniform("log10_z_zsun", -2.5, 0.8),
            LogUniform("tau_bc", 1e-3, 10.0),
            LogUniform("tau_ism", 1e-3, 10.0),
            Uniform("n_dust", -2.0, 1.0),
        )
    )


def _check_range(name: str, low: float, high: float) -> None:
    if not low < high:
        raise ValueError(f"{name}: a prior needs low < high; got {low} and {high}.")
