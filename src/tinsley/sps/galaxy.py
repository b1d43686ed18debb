"""A galaxy: which stars, when, of which metallicity, behind which dust. Read this first.

`GalaxyModel` gathers the choices. `History` is what follows from them at every redshift, tabulated
once in float64 and interpolated linearly in ln(1 + z): the mass that each basis forms in each bin.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tinsley.cosmology import Cosmology, default_cosmology, make_cosmology
from tinsley.parameters import BETAS, Theta
from tinsley.sps.bases import SfhBases
from tinsley.sps.dust import TwoComponentDust
from tinsley.sps.metallicity import AbstractMetallicity, ConstantMetallicity
from tinsley.sps.sfh import basis_mass, bin_centres_gyr
from tinsley.sps.ssp import SspGrid

if TYPE_CHECKING:
    from astropy.cosmology import FLRW


@dataclass(frozen=True)
class GalaxyModel:
    """The physics of one run.

    Attributes:
        ssp: Simple stellar populations.
        bases: The four bases of the star-formation history.
        metallicity: How metallicity goes with lookback time.
        dust: Attenuation.
        cosmology: Distance and age: any astropy cosmology.
    """

    ssp: SspGrid
    bases: SfhBases
    metallicity: AbstractMetallicity = field(default_factory=ConstantMetallicity)
    dust: TwoComponentDust = field(default_factory=TwoComponentDust)
    cosmology: FLRW = field(default_factory=default_cosmology)


class RedshiftGrid(eqx.Module):
    """Nodes uniform in ln(1 + z) from `z_min` to `z_max`."""

    z_min: float = eqx.field(static=True)
    z_max: float = eqx.field(static=True)
    number: int = eqx.field(static=True)

    @property
    def nodes(self) -> np.ndarray:
        """Redshifts of the nodes, float64, [number]."""
        return np.expm1(np.linspace(np.log1p(self.z_min), np.log1p(self.z_max), self.number))

    @property
    def is_fixed(self) -> bool:
        """True where there is one redshift, that of every galaxy: see `History.at_redshift`."""
        return self.number == 1

    def blend(self, table: Float[Array, "z ..."], redshift: Float[Array, ""]) -> Array:
        """A table on this grid at one redshift, [1, ...]."""
        low, share = self.locate(redshift)
        return (table[low] * (1 - share) + table[low + 1] * share)[None]

    def locate(self, redshift: Float[Array, ...]) -> tuple[Array, Array]:
        """Node at or below each redshift, and the share of the way to the next."""
        start, stop = np.log1p(self.z_min), np.log1p(self.z_max)
        x = (jnp.log1p(redshift) - start) * ((self.number - 1) / (stop - start))
        low = jnp.clip(x.astype(jnp.int32), 0, self.number - 2)
        return low, jnp.clip(x - low, 0.0, 1.0)


REDSHIFT_STEP = 0.004
"""Spacing of `redshift_grid` in ln(1 + z): interpolating between nodes then errs by less than the
dust between wavelength nodes does (benchmarks/results/photometry.json), and the tables of a survey
to z = 0.6 stay in a processor's cache."""


def redshift_grid(z_min: float, z_max: float, step: float = REDSHIFT_STEP) -> RedshiftGrid:
    """Nodes at a spacing in ln(1 + z) over a range of redshifts, and a little more at both ends."""
    low, high = max(z_min - 0.002, 0.001), z_max + 0.005
    number = int(np.ceil((np.log1p(high) - np.log1p(low)) / step)) + 1
    return RedshiftGrid(low, high, number)


FIXED_GRID = RedshiftGrid(0.0, 0.0, 1)
"""The grid of tables at one redshift, which they need not know."""


class History(eqx.Module):
    """Mass that each basis forms in each bin, and the bins' middles, at every node of `grid`."""

    grid: RedshiftGrid
    mass: Array
    centre_gyr: Array
    cosmology: Cosmology

    def coefficients(self, theta: Theta) -> Float[Array, "batch basis"]:
        """Factor on each basis so that, burst aside, the bins hold 1 - f_burst of the mass.

        The betas weigh the bases before the cut at the galaxy's age; the sum is normalised after
        it (PROVABGS).
        """
        beta = jnp.stack([theta[name] for name in BETAS], axis=-1)
        total = jnp.sum(beta * self.at(jnp.sum(self.mass, axis=-1), theta), axis=-1)
        return beta * ((1 - self.f_burst(theta)) / total)[..., None]

    def f_burst(self, theta: Theta) -> Float[Array, " batch"]:
        """Share of the mass in the burst: none when it is older than the galaxy."""
        age_gyr = self.cosmology.age_gyr(theta["redshift"])
        return jnp.where(theta["t_burst_gyr"] <= age_gyr, theta["f_burst"], 0.0)

    def at_redshift(self, redshift: Float[Array, ""]) -> History:
        """The same for galaxies that all are at one redshift: nothing is left to interpolate."""
        mass, centre_gyr = (self.grid.blend(t, redshift) for t in (self.mass, self.centre_gyr))
        return History(FIXED_GRID, mass, centre_gyr, self.cosmology)

    def bins(self, theta: Theta) -> tuple[Float[Array, "batch 42"], Float[Array, "batch 42"]]:
        """Share of the formed mass in each bin (without the burst), and the bins' middles, Gyr."""
        coefficients = self.coefficients(theta)
        if self.grid.is_fixed:
            mass = coefficients @ self.mass[0]
            return mass, jnp.broadcast_to(self.centre_gyr, mass.shape)
        mass = jnp.einsum("nk,nkb->nb", coefficients, self.at(self.mass, theta))
        return mass, self.at(self.centre_gyr, theta)

    def at(self, table: Float[Array, "z ..."], theta: Theta) -> Array:
        """A table on `grid`, interpolated at the redshifts of `theta` [batch].

        Of galaxies at one redshift the table itself, [1, ...].
        """
        if self.grid.is_fixed:
            return table
        low, share = self.grid.locate(theta["redshift"])
        share = share.reshape(share.shape + (1,) * (table.ndim - 1))
        return table[low] * (1 - share) + table[low + 1] * share


def make_history(model: GalaxyModel, grid: RedshiftGrid) -> History:
    """Tabulate the bases' mass per bin on a redshift grid (float64, then stored as floats)."""
    ages = model.cosmology.age(grid.nodes).to_value("Gyr")
    mass = np.stack([basis_mass(model.bases, age) for age in ages])
    scale = 1.0 / basis_mass(model.bases, 13.8).sum()
    return History(
        grid=grid,
        mass=jnp.asarray(mass * scale, dtype=float),
        centre_gyr=jnp.asarray(np.stack([bin_centres_gyr(age) for age in ages]), dtype=float),
        cosmology=make_cosmology(model.cosmology, z_max=grid.z_max),
    )
