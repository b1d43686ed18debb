"""Densities that a prior can ask for, of one quantity each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from astropy.cosmology import FLRW
from jaxtyping import Array, Float
from scipy import integrate

from tinsley.cosmology import default_cosmology
from tinsley.parameters import MASS, LogUniform, Normal, ParamSpace, Theta, Uniform
from tinsley.sps.derived import DERIVED

REDSHIFT = "redshift"
SSFR_1GYR = "log10_ssfr_1gyr_yr"
"""SFR over the last Gyr per formed mass: no column of a catalogue, but a prior may be on it."""

Entries = Mapping[str, Mapping[str, Any]]
"""By quantity: `prior`, one of `KINDS`, and its settings."""


class Kind(NamedTuple):
    """The settings of a kind of density.

    Attributes:
        required: Numbers (lists of them for `lists`).
        optional: Numbers that may be left out: then the trained prior's ends.
        lists: Those of `required` that are lists of numbers.
    """

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()


_ENDS = ("low", "high")
KINDS = {
    "uniform": Kind(_ENDS),
    "log_uniform": Kind(_ENDS),
    "normal": Kind(("mean", "std"), _ENDS),
    "schechter": Kind(("log10_m_star_msun", "phi", "alpha"), _ENDS, ("phi", "alpha")),
    "volume": Kind((), _ENDS),
}
"""What a prior file may ask for."""


class Marginal(Protocol):
    """A density of one quantity between two ends."""

    @property
    def name(self) -> str:
        """The quantity."""

    @property
    def low(self) -> float:
        """Least value."""

    @property
    def high(self) -> float:
        """Greatest value."""

    def log_prob(self, value: Array) -> Array:
        """Natural log of the density; -inf outside the ends."""


class Schechter(eqx.Module):
    """A mass function: a sum of Schechter functions of one characteristic mass, in log10 mass.

    Attributes:
        name: Which mass, log10 Msun.
        low, high: Its ends.
        log10_m_star_msun: Characteristic mass.
        phi: Amplitudes; only their ratios count.
        alpha: Slopes.
    """

    name: str = eqx.field(static=True)
    low: float = eqx.field(static=True)
    high: float = eqx.field(static=True)
    log10_m_star_msun: float = eqx.field(static=True)
    phi: tuple[float, ...] = eqx.field(static=True)
    alpha: tuple[float, ...] = eqx.field(static=True)

    def __check_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"{self.name}: expected low < high; got {self.low} and {self.high}.")
        if len(self.phi) != len(self.alpha) or not self.phi or min(self.phi) <= 0:
            raise ValueError(
                f"{self.name}: a mass function needs as many positive phi as alpha; got "
                f"{list(self.phi)} and {list(self.alpha)}."
            )

    def log_prob(self, value: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        """Natural log of the density per dex; -inf outside the ends."""
        inside = (value >= self.low) & (value <= self.high)
        return jnp.where(inside, self._log_height(value, jnp) - self._log_total(), -jnp.inf)

    def _log_height(self, value: Any, xp: Any) -> Any:
        x = np.log(10.0) * (value - self.log10_m_star_msun)
        each = [np.log(p) + (a + 1) * x for p, a in zip(self.phi, self.alpha, strict=True)]
        return xp.logaddexp.reduce(xp.stack(each)) - xp.exp(x)

    def _log_total(self) -> float:
        total, _ = integrate.quad(lambda y: np.exp(self._log_height(y, np)), self.low, self.high)
        return float(np.log(total))


class Volume(eqx.Module):
    """Redshifts of galaxies spread evenly over comoving volume.

    Attributes:
        low, high: Ends of the redshifts.
        log_density: At evenly spaced redshifts, [node].
    """

    low: float = eqx.field(static=True)
    high: float = eqx.field(static=True)
    log_density: Array

    @property
    def name(self) -> str:
        """The redshift."""
        return REDSHIFT

    def log_prob(self, value: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
        """Natural log of the density; -inf outside the ends."""
        at = jnp.interp(value, jnp.linspace(self.low, self.high, len(self.log_density)),
                        self.log_density)  # fmt: skip
        return jnp.where((value >= self.low) & (value <= self.high), at, -jnp.inf)


def make_volume(low: float, high: float, cosmology: FLRW | None = None) -> Volume:
    """Tabulate dV/dz of an astropy cosmology, Tinsley's own if none is given."""
    if not 0 < low < high:
        raise ValueError(f"{REDSHIFT}: expected 0 < low < high; got {low} and {high}.")
    grid = np.linspace(low, high, 1024)
    volume = (cosmology or default_cosmology()).differential_comoving_volume(grid).value
    log_density = np.log(volume / np.trapezoid(volume, grid))
    return Volume(low, high, jnp.asarray(log_density, dtype=float))


def properties(theta: Theta) -> dict[str, Array]:
    """All that a prior may be on: `theta`, with derived properties, and `SSFR_1GYR`."""
    return dict(theta) | {SSFR_1GYR: theta["log10_sfr_1gyr_msun_yr"] - theta[MASS]}


SAMPLED = {"uniform": Uniform, "log_uniform": LogUniform, "normal": Normal}
"""The kinds that a network can be trained with."""


def refuse_unknown(space: ParamSpace, entries: Entries) -> None:
    """Raise ValueError for a quantity that the model has not, or a density that is not for it."""
    names = (*space.names, *DERIVED, SSFR_1GYR, REDSHIFT)
    for name, entry in entries.items():
        if name not in names:
            raise ValueError(f"unknown quantity {name!r}; expected some of {', '.join(names)}.")
        if entry["prior"] == "volume" and name != REDSHIFT:
            raise ValueError(f"{name}: the prior 'volume' is of redshift alone.")
        if entry["prior"] == "schechter" and "mstar" not in name:
            raise ValueError(f"{name}: the prior 'schechter' is of masses alone.")


def marginal(name: str, entry: Mapping[str, Any], ends: tuple[float, float]) -> Any:
    """The density of an entry, between some ends where it gives none itself.

    Raises:
        ValueError: It can not be: no width, empty ends, a mean outside them.
    """
    low, high = entry.get("low", ends[0]), entry.get("high", ends[1])
    kind = entry["prior"]
    if kind == "volume":
        return make_volume(low, high)
    if kind == "schechter":
        shape = (entry["log10_m_star_msun"], tuple(entry["phi"]), tuple(entry["alpha"]))
        return Schechter(name, low, high, *shape)
    if kind == "normal":
        return Normal(name, entry["mean"], entry["std"], low, high)
    return SAMPLED[kind](name, low, high)


def too_wide(name: str, asked: tuple[float, float], ends: tuple[float, float]) -> ValueError:
    """What is to be raised where a prior reaches beyond the trained one."""
    return ValueError(
        f"{name}: a prior from {asked[0]:g} to {asked[1]:g} reaches beyond what the model was "
        f"trained on, {ends[0]:.4g} to {ends[1]:.4g}; weights can not give what was never drawn. "
        "Choose narrower ends, or train a model: `tinsley train posterior --prior`."
    )
