"""A galaxy of two components as one: the SPS parameters of the whole."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from tinsley.observe.scenes import Scenes
from tinsley.parameters import BETAS, MASS, Theta
from tinsley.sps.galaxy import History

RECENT = "log10_sfr_100myr_msun_yr"


@eqx.filter_jit
def whole_parameters(
    scenes: Scenes,
    history: History,
    recent: tuple[Float[Array, " n"], Float[Array, " n"]],
    r_band: int,
) -> dict[str, Float[Array, " n"]]:
    """The parameters that a galaxy of one history and one dust screen would have in its place.

    Mass and star-formation history are exact: histories add up, and their sum is of the same family
    (of the time of bursts only the mean is kept). Metallicity is the mean Z of the mass formed, as
    in the derived properties. Dust has no such sum: the diffuse depth is the mean over the r-band
    light as observed, the birth clouds' the mean over the star formation of the last 0.1 Gyr. The
    slope is common to both. Where neither component had a burst, its time is the disc's, and means
    nothing.

    Args:
        scenes: The galaxies.
        history: Bases of the same physics.
        recent: log10 of the star-formation rates of discs and of bulges, Msun / yr.
        r_band: Which band is r.

    Returns:
        Every parameter of `tinsley.parameters.whole_space`.

    Source:
        Definitions. That histories add up is tested on rates, ages and masses of the components
        (tests/test_scenes.py).
    """
    both = (scenes.disc, scenes.bulge)
    mass_msun = 10 ** jnp.stack([theta[MASS] for theta in both])
    share = mass_msun / jnp.sum(mass_msun, axis=0)
    burst = share * jnp.stack([history.f_burst(theta) for theta in both])
    formed = jnp.stack([history.coefficients(theta) for theta in both])
    smooth = jnp.sum(share[..., None] * formed, axis=0)
    betas = smooth / jnp.sum(smooth, axis=-1, keepdims=True)
    light = jnp.stack([flux[:, r_band] for flux in (scenes.disc_flux, scenes.bulge_flux)])
    log10_sfr = jnp.stack(recent)
    forming = 10 ** (log10_sfr - jnp.max(log10_sfr, axis=0))
    f_burst = jnp.sum(burst, axis=0)
    return {
        MASS: jnp.log10(jnp.sum(mass_msun, axis=0)),
        **dict(zip(BETAS, betas.T, strict=True)),
        "f_burst": f_burst,
        "t_burst_gyr": jnp.where(
            f_burst > 0, _mean(both, "t_burst_gyr", burst), scenes.disc["t_burst_gyr"]
        ),
        "log10_z_zsun": jnp.log10(
            jnp.sum(share * 10 ** jnp.stack([theta["log10_z_zsun"] for theta in both]), axis=0)
        ),
        "tau_bc": _mean(both, "tau_bc", forming),
        "tau_ism": _mean(both, "tau_ism", light),
        "n_dust": scenes.disc["n_dust"],
    }


def _mean(both: tuple[Theta, Theta], name: str, weight: Float[Array, "2 n"]) -> Float[Array, " n"]:
    values = jnp.stack([theta[name] for theta in both])
    return jnp.sum(weight * values, axis=0) / jnp.maximum(jnp.sum(weight, axis=0), 1e-30)
