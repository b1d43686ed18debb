"""How large galaxies are, how round they look, and how much dust one looks through."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tinsley.cosmology import Cosmology

_LATE = {"gamma": 0.10, "alpha": 0.14, "beta": 0.39, "m0_msun": 3.98e10}
_EARLY = {"b": 2.88e-6, "a": 0.56}
_SCATTER = {"faint": 0.47, "bright": 0.34}
CIRCULARISED = 1.3
"""A disc's own radius over its circularised one, at the mean axis ratio of discs seen from
everywhere: the published radii are circularised."""
_ARCSEC_PER_RADIAN = 648_000.0 / np.pi


def late_type_radius_kpc(mass_msun: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Median half-light radius of late-type galaxies, circularised, kpc.

    Args:
        mass_msun: Stellar mass.

    Source:
        Shen et al. (2003), eq. 18 with the parameters of table 1, figure 11.
    """
    p = _LATE
    bend = (1 + mass_msun / p["m0_msun"]) ** (p["beta"] - p["alpha"])
    return p["gamma"] * mass_msun ** p["alpha"] * bend


def early_type_radius_kpc(mass_msun: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """The same of early-type galaxies.

    Source:
        Shen et al. (2003), eq. 17, with b = 2.88e-6 of the erratum (2007).
    """
    return _EARLY["b"] * mass_msun ** _EARLY["a"]


def radius_scatter(mass_msun: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Standard deviation of ln(radius) at a mass (Shen et al. 2003, eq. 19)."""
    faint, bright = _SCATTER["faint"], _SCATTER["bright"]
    return bright + (faint - bright) / (1 + (mass_msun / _LATE["m0_msun"]) ** 2)


def apparent_axis_ratio(
    cos_inclination: Float[Array, "*n"], thickness: Float[Array, "*n"]
) -> Float[Array, "*n"]:
    """Axis ratio on the sky of an oblate spheroid.

    Args:
        cos_inclination: 1 face-on, 0 edge-on.
        thickness: Its short over its long axis.

    Source:
        Hubble (1926): q^2 = cos^2 i + thickness^2 sin^2 i.
    """
    square = cos_inclination**2
    return jnp.sqrt(square + thickness**2 * (1 - square))


def inclined_depth(
    depth_face_on: Float[Array, "*n"], axis_ratio: Float[Array, "*n"]
) -> Float[Array, "*n"]:
    """Optical depth of a disc's dust as one looks through it.

    The path through an oblate spheroid is its face-on path over its apparent axis ratio: the slab's
    1 / cos i, which ends at 1 / thickness. A screen: where stars and dust mix, dust rises less
    (Tuffs et al. 2004; Chevallard et al. 2013).
    """
    return depth_face_on / axis_ratio


def arcsec_per_kpc(cosmology: Cosmology, redshift: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Angle of one kiloparsec at a redshift, arcsec."""
    distance_mpc = 10.0 ** cosmology.log10_dl_mpc(redshift) / (1 + redshift) ** 2
    return _ARCSEC_PER_RADIAN / 1e3 / distance_mpc
