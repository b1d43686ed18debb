"""Profiles of galaxies and of point sources, as Fourier transforms.

Convolutions are products there, an ellipse is a circle after a stretch, and the light of a cusp
needs no fine pixels. Transforms are of unit flux, so 1 at zero frequency; all are real, for all
profiles are symmetric. Wavenumbers are angular.
"""

from __future__ import annotations

import abc
from math import factorial

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln
from jaxtyping import Array, Float
from scipy.fft import fht, fhtoffset
from scipy.special import gamma, gammaincinv

EXPONENTIAL_SCALES = 1.6783469900166605
"""Half-light radius of an exponential disc in scale lengths."""
_LN_Q = np.linspace(np.log(1e-3), np.log(3e3), 1024)
_LN_RANGE, _LN_NODES = 20.0, 4096
_INDEX_STEP = 0.125


class SersicTable(eqx.Module):
    """Transforms of Sersic profiles, linear in index and in ln(wavenumber x half-light radius).

    Profiles are not truncated: unit flux is the flux to infinity.

    Attributes:
        values: [index, node].
        index_min: Least Sersic index.
        index_max: Greatest.
    """

    values: Array
    index_min: float = eqx.field(static=True)
    index_max: float = eqx.field(static=True)

    def transform(self, sersic_index: Float[Array, ""], q: Float[Array, "*k"]) -> Array:
        """The transform at q = wavenumber x half-light radius.

        Args:
            sersic_index: Between the table's ends, else the nearer end counts.
            q: Not negative; above 3000 the last value counts.

        Source:
            Sersic (1968); half-light radius as Graham & Driver (2005). Table by FFTLog (Hamilton
            2000). Within 2e-4 of GalSim's, and 2e-5 of the closed form of n = 1
            (tests/test_profiles.py).
        """
        steps = self.values.shape[0] - 1
        at = (sersic_index - self.index_min) * (steps / (self.index_max - self.index_min))
        low = jnp.clip(at.astype(jnp.int32), 0, steps - 1)
        share = jnp.clip(at - low, 0.0, 1.0)
        row = self.values[low] * (1 - share) + self.values[low + 1] * share
        x = (jnp.log(jnp.maximum(q, 1e-12)) - _LN_Q[0]) / (_LN_Q[1] - _LN_Q[0])
        node = jnp.clip(x.astype(jnp.int32), 0, len(_LN_Q) - 2)
        between = jnp.clip(x - node, 0.0, 1.0)
        value = row[node] * (1 - between) + row[node + 1] * between
        return jnp.where(q > 0, value, 1.0)


def make_sersic_table(index_min: float = 0.5, index_max: float = 8.0) -> SersicTable:
    """Tabulate Sersic profiles, in float64 on the host.

    Args:
        index_min: Least index, 0.5 or more.
        index_max: Greatest, 8 or less.
    """
    if not 0.5 <= index_min < index_max <= 8.0:
        raise ValueError(
            f"expected Sersic indices 0.5 <= least < greatest <= 8; got {index_min}, {index_max}."
        )
    steps = int(np.ceil((index_max - index_min) / _INDEX_STEP))
    rows = [_sersic_transform(n) for n in np.linspace(index_min, index_max, steps + 1)]
    return SersicTable(jnp.asarray(np.stack(rows), dtype=float), index_min, index_max)


def sersic_b(sersic_index: float) -> float:
    """B of exp(-b (r / r_half)^(1 / n)): the solution of half the light inside r_half."""
    return float(gammaincinv(2 * sersic_index, 0.5))


def sersic_brightness(
    sersic_index: Float[Array, "*#k"], radius: Float[Array, "*#k"]
) -> Float[Array, "*k"]:
    """Brightness of a round Sersic profile of unit flux and unit half-light radius.

    Args:
        sersic_index: 0.5 or more.
        radius: In half-light radii.

    Source:
        Graham & Driver (2005), eq. 1-4; b as the series of Ciotti & Bertin (1999), eq. 18, within
        1e-4 of `sersic_b` from n = 1 on (tests/test_profiles.py).
    """
    n = sersic_index
    b = 2 * n - 1 / 3 + (4 / 405 + (46 / 25515 + 131 / 1148175 / n) / n) / n
    ln_flux = np.log(2 * np.pi) + jnp.log(n) - 2 * n * jnp.log(b) + gammaln(2 * n)
    return jnp.exp(-b * jnp.exp(jnp.log(radius) / n) - ln_flux)


def exponential_transform(q: Float[Array, "*k"]) -> Float[Array, "*k"]:
    """Transform of an exponential disc at q = wavenumber x half-light radius, in closed form."""
    square = 1 + (q / EXPONENTIAL_SCALES) ** 2
    return 1 / (square * jnp.sqrt(square))


class AbstractPsf(eqx.Module):
    """A round point-spread function of unit flux."""

    @abc.abstractmethod
    def transform(self, q: Float[Array, "*k"]) -> Float[Array, "*k"]:
        """Its transform at q = wavenumber x full width at half maximum."""


class GaussianPsf(AbstractPsf):
    """A Gaussian."""

    def transform(self, q: Array) -> Array:
        return jnp.exp(-0.5 * (q / np.sqrt(8 * np.log(2))) ** 2)


class MoffatPsf(AbstractPsf):
    """(1 + (r / a)^2)^-beta with beta 2.5, 3.5 or 4.5: half-integers have a closed form.

    Attributes:
        beta: Steepness of the wings.

    Source:
        Moffat (1969). Its transform is x^(beta - 1) K_(beta - 1)(x) up to a constant, x = k a: for
        half-integer order a polynomial times exp(-x) (DLMF 10.49.12). GalSim agrees
        (tests/test_profiles.py).
    """

    beta: float = eqx.field(static=True, default=3.5)

    def __check_init__(self) -> None:
        if self.beta not in (2.5, 3.5, 4.5):
            raise ValueError(f"a Moffat profile here has beta 2.5, 3.5 or 4.5; got {self.beta}.")

    def transform(self, q: Array) -> Array:
        order = int(self.beta - 1.5)
        x = q / (2 * np.sqrt(2 ** (1 / self.beta) - 1))
        polynomial = jnp.zeros_like(x)
        for j in range(order + 1):
            top = factorial(order + j) / (2**j * factorial(j) * factorial(order - j))
            polynomial = polynomial + top * x ** (order - j)
        full = factorial(2 * order) / (2**order * factorial(order))
        return polynomial / full * jnp.exp(-x)


def _sersic_transform(n: float) -> np.ndarray:
    """Transform of a Sersic profile of unit half-light radius at `_LN_Q`."""
    ln_r = np.linspace(-_LN_RANGE, _LN_RANGE, _LN_NODES)
    step = ln_r[1] - ln_r[0]
    b, radius = sersic_b(n), np.exp(ln_r)
    flux = 2 * np.pi * n * gamma(2 * n) * b ** (-2 * n)
    offset = fhtoffset(step, 0.0)
    profile = 2 * np.pi * radius * np.exp(-b * radius ** (1 / n)) / flux
    wavenumber = np.exp(offset) / radius[::-1]
    value = fht(profile, step, 0.0, offset=offset) / wavenumber
    return np.interp(_LN_Q, np.log(wavenumber), value)
