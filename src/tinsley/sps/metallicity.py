"""Metallicity of the stars formed at each lookback time."""

from __future__ import annotations

import abc

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from tinsley.parameters import AbstractPrior, LogUniform, Theta, Uniform
from tinsley.sps.bases import SfhBases
from tinsley.sps.ssp import Z_SUN

Z_MIST = (4.49043431e-5, 4.49043431e-2)
"""Limits that PROVABGS clips Z(t) to."""


class AbstractMetallicity(eqx.Module):
    """A metallicity history."""

    @abc.abstractmethod
    def of_bins(
        self, theta: Theta, centre_gyr: Float[Array, "batch bins"], mass: Float[Array, "batch bins"]
    ) -> Float[Array, "batch bins"]:
        """log10(Z / 0.019) of the stars of each bin.

        Args:
            theta: Parameters, each [batch].
            centre_gyr: Middle of each bin, lookback time, Gyr.
            mass: Share of the galaxy's formed mass in each bin; without the burst.
        """

    @abc.abstractmethod
    def of_burst(
        self, theta: Theta, centre_gyr: Float[Array, "batch bins"], mass: Float[Array, "batch bins"]
    ) -> Float[Array, " batch"]:
        """log10(Z / 0.019) of the burst's stars."""

    @abc.abstractmethod
    def priors(self) -> tuple[AbstractPrior, ...]:
        """Default priors on its parameters."""


class ConstantMetallicity(AbstractMetallicity):
    """One metallicity, `log10_z_zsun`, for all stars (PopSED)."""

    def of_bins(self, theta: Theta, centre_gyr: Array, mass: Array) -> Array:
        return jnp.broadcast_to(theta["log10_z_zsun"][:, None], mass.shape)

    def of_burst(self, theta: Theta, centre_gyr: Array, mass: Array) -> Array:
        return theta["log10_z_zsun"]

    def priors(self) -> tuple[AbstractPrior, ...]:
        return (Uniform("log10_z_zsun", -2.2, 0.4),)


class NmfMetallicity(AbstractMetallicity):
    """Z(t) = clip(gamma_1 z_1(t) + gamma_2 z_2(t)) (PROVABGS, SEDflow).

    The bases are piecewise linear, drawn on linearly beyond their ends, and evaluated at the middle
    of each bin; the burst takes Z(t_burst).
    """

    time_gyr: Array
    bases: Array

    def __init__(self, bases: SfhBases) -> None:
        self.time_gyr = jnp.asarray(bases.lookback_gyr, dtype=float)
        self.bases = jnp.asarray(bases.sfr, dtype=float)

    def of_bins(self, theta: Theta, centre_gyr: Array, mass: Array) -> Array:
        gammas = (theta["gamma_1"][:, None], theta["gamma_2"][:, None])
        return self._log10_z(gammas, centre_gyr)

    def of_burst(self, theta: Theta, centre_gyr: Array, mass: Array) -> Array:
        return self._log10_z((theta["gamma_1"], theta["gamma_2"]), theta["t_burst_gyr"])

    def priors(self) -> tuple[AbstractPrior, ...]:
        return (LogUniform("gamma_1", 4.5e-5, 1.5e-2), LogUniform("gamma_2", 4.5e-5, 1.5e-2))

    def _log10_z(self, gammas: tuple[Array, Array], lookback_gyr: Array) -> Array:
        last = len(self.time_gyr) - 2
        low = jnp.clip(jnp.searchsorted(self.time_gyr, lookback_gyr, side="right") - 1, 0, last)
        width = self.time_gyr[low + 1] - self.time_gyr[low]
        share = (lookback_gyr - self.time_gyr[low]) / width
        z = sum(
            g * (row[low] * (1 - share) + row[low + 1] * share)
            for g, row in zip(gammas, self.bases, strict=True)
        )
        return jnp.log10(jnp.clip(z, *Z_MIST) / Z_SUN)


class Enrichment(AbstractMetallicity):
    """Metallicity grows with the mass formed, from Z = 1e-4 to `log10_z_zsun` today.

    Z(t) = Z_0 + (Z_now - Z_0) M_formed(before t) / M_formed: the linear "mass map" of ProSpect
    (Robotham et al. 2020, section 3.3). A bin has the Z of its middle in mass; the burst counts.
    """

    z_start: float = eqx.field(static=True, default=1e-4)

    def of_bins(self, theta: Theta, centre_gyr: Array, mass: Array) -> Array:
        older = jnp.flip(jnp.cumsum(jnp.flip(mass, -1), -1), -1) - 0.5 * mass
        burst_mass = jnp.maximum(1.0 - jnp.sum(mass, axis=-1), 0.0)[:, None]
        before = theta["t_burst_gyr"][:, None] > centre_gyr
        return self._log10_z(theta["log10_z_zsun"][:, None], older + burst_mass * before)

    def of_burst(self, theta: Theta, centre_gyr: Array, mass: Array) -> Array:
        burst_mass = jnp.maximum(1.0 - jnp.sum(mass, axis=-1), 0.0)
        older = jnp.sum(mass * (centre_gyr > theta["t_burst_gyr"][:, None]), axis=-1)
        return self._log10_z(theta["log10_z_zsun"], older + 0.5 * burst_mass)

    def priors(self) -> tuple[AbstractPrior, ...]:
        return (Uniform("log10_z_zsun", -2.2, 0.4),)

    def _log10_z(self, log10_z_now: Array, formed: Array) -> Array:
        z_now = Z_SUN * 10**log10_z_now
        return jnp.log10((self.z_start + (z_now - self.z_start) * formed) / Z_SUN)
