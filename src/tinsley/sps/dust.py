"""Attenuation by dust: a diffuse component for all stars, a birth cloud for the young."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

R_V = 4.05
"""Calzetti et al. (2000)."""
BUMP_CENTRE_AA, BUMP_WIDTH_AA = 2175.0, 350.0
BUMP_AT_CALZETTI, BUMP_SLOPE = 0.85, -1.9
"""Strength of the 2175 A bump, E_b = 0.85 - 1.9 n (Kriek & Conroy 2013, eq. 3)."""
BIRTH_CLOUD_SLOPE = -1.0
"""FSPS's default dust1_index."""
PIVOT_AA = 5500.0


class TwoComponentDust(eqx.Module):
    """Charlot & Fall (2000): birth cloud and diffuse dust, slope and bump of Kriek & Conroy (2013).

    Attributes:
        t_birth_cloud_gyr: Stars younger than this sit in birth clouds; bins of the star-formation
            history are young when their upper edge is at most this. The burst never is.
        negative_bump: Keep FSPS's `dust_type = 4` to the letter, whose bump turns negative for
            n_dust > 0.447; otherwise the bump's strength stops at 0.
    """

    t_birth_cloud_gyr: float = eqx.field(static=True, default=0.0112202)
    negative_bump: bool = eqx.field(static=True, default=False)

    def optical_depth_ism(
        self,
        wave_rest_aa: Float[Array, "*#batch wave"],
        tau_ism: Float[Array, "*#batch"],
        n_dust: Float[Array, "*#batch"],
    ) -> Float[Array, "*batch wave"]:
        """Optical depth of the diffuse dust.

        Args:
            wave_rest_aa: Vacuum wavelength, Angstrom.
            tau_ism: Optical depth at 5500 A (of the Calzetti curve without the bump).
            n_dust: Offset of the slope from Calzetti's.

        Returns:
            tau(lambda) = tau_ism (k'(lambda) + D(lambda)) / 4.05 (lambda / 5500 A)^n_dust.

        Source:
            Kriek & Conroy (2013), eq. 1-3, as FSPS's dust_type = 4. Checked against an
            independent float64 integral and PROVABGS's spectra (tests/test_photometry.py).
        """
        slope = n_dust[..., None]
        strength = BUMP_AT_CALZETTI + BUMP_SLOPE * slope
        if not self.negative_bump:
            strength = jnp.maximum(strength, 0.0)
        curve = (_calzetti(wave_rest_aa) + strength * _drude(wave_rest_aa)) / R_V
        tilt = jnp.exp(slope * jnp.log(wave_rest_aa / PIVOT_AA))
        return tau_ism[..., None] * jnp.maximum(curve, 0.0) * tilt

    def optical_depth_birth_cloud(
        self, wave_rest_aa: Float[Array, "*#batch wave"], tau_bc: Float[Array, "*#batch"]
    ) -> Float[Array, "*batch wave"]:
        """Optical depth of the birth clouds: tau_bc (lambda / 5500 A)^-1, tau_bc at 5500 A."""
        return tau_bc[..., None] * (wave_rest_aa / PIVOT_AA) ** BIRTH_CLOUD_SLOPE


def _calzetti(wave_aa: Array) -> Array:
    """Calzetti et al. (2000), eq. 4: k'(lambda), 0 where it would be negative."""
    x = 1e4 / wave_aa
    red = 2.659 * (-1.857 + 1.040 * x) + R_V
    blue = 2.659 * (-2.156 + x * (1.509 + x * (-0.198 + x * 0.011))) + R_V
    return jnp.maximum(jnp.where(wave_aa > 6300.0, red, blue), 0.0)


def _drude(wave_aa: Array) -> Array:
    """The bump's Drude profile, 1 at 2175 A."""
    width = (wave_aa * BUMP_WIDTH_AA) ** 2
    return width / ((wave_aa**2 - BUMP_CENTRE_AA**2) ** 2 + width)
