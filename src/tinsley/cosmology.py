"""Distance and age of the Universe as functions of redshift."""

from __future__ import annotations

from typing import TYPE_CHECKING

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

if TYPE_CHECKING:
    from astropy.cosmology import FLRW

H0_KM_S_MPC = 67.7
OM0 = 0.307
"""Flat LCDM of PopSED (Li et al. 2023)."""

_NODES = 1024


class Cosmology(eqx.Module):
    """Tables of age and luminosity distance, uniform in redshift from 0 to `z_max`.

    Both are interpolated linearly; the distance as ln(d_L / z), which is smooth at z = 0.
    Made in float64 from astropy; interpolation errs by less than 1e-6 in age and distance.
    """

    age_table_gyr: Array
    ln_dl_over_z: Array
    z_max: float = eqx.field(static=True)

    def age_gyr(self, redshift: Float[Array, ...]) -> Float[Array, ...]:
        """Age of the Universe at `redshift`, Gyr."""
        return self._interpolate(self.age_table_gyr, redshift)

    def log10_dl_mpc(self, redshift: Float[Array, ...]) -> Float[Array, ...]:
        """Base-10 log of the luminosity distance in Mpc; `redshift` must be positive."""
        ln_ratio = self._interpolate(self.ln_dl_over_z, redshift)
        return (ln_ratio + jnp.log(redshift)) / np.log(10.0)

    def _interpolate(self, table: Array, redshift: Array) -> Array:
        x = jnp.clip(redshift / self.z_max, 0.0, 1.0) * (_NODES - 1)
        low = jnp.clip(x.astype(jnp.int32), 0, _NODES - 2)
        share = x - low
        return table[low] * (1 - share) + table[low + 1] * share


def default_cosmology() -> FLRW:
    """Flat LCDM with Om0 = 0.307, H0 = 67.7."""
    from astropy.cosmology import FlatLambdaCDM

    return FlatLambdaCDM(H0=H0_KM_S_MPC, Om0=OM0)


def make_cosmology(model: FLRW | None = None, *, z_max: float = 2.0) -> Cosmology:
    """Tabulate an astropy cosmology.

    Args:
        model: Any astropy cosmology; `default_cosmology` if not given.
        z_max: Largest redshift that will be asked for.
    """
    model = model or default_cosmology()
    redshift = np.linspace(0, z_max, _NODES)
    dl_mpc = model.luminosity_distance(redshift[1:]).to_value("Mpc")
    hubble_mpc = 299792.458 / model.H0.to_value("km/(s Mpc)")
    ratio = np.concatenate([[hubble_mpc], dl_mpc / redshift[1:]])
    return Cosmology(
        age_table_gyr=jnp.asarray(model.age(redshift).to_value("Gyr"), dtype=float),
        ln_dl_over_z=jnp.asarray(np.log(ratio), dtype=float),
        z_max=z_max,
    )
