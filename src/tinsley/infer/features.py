"""What the networks see of a galaxy: asinh magnitudes, log errors, masks; and the redshift."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from tinsley.cosmology import Cosmology
from tinsley.infer.likelihood import Observation

_SOFTENING = 0.1


def n_features(n_bands: int) -> int:
    """Length of the feature vector."""
    return 3 * n_bands + 3


def n_features_without_redshift(n_bands: int) -> int:
    """Length of the feature vector where the redshift is not given."""
    return 3 * n_bands + 1


def features(seen: Observation, cosmology: Cosmology) -> Float[Array, "*batch f"]:
    """Feature vector of each galaxy.

    Fluxes count relative to the galaxy's own mean flux, weighted by how well each band is
    measured: the mass, an amplitude, is not for the network to find. The mean itself is given as a
    luminosity, which matters only near the ends of the mass prior.

    Args:
        seen: The galaxies; entries of bands without a measurement do not matter.
        cosmology: For the luminosity.
    """
    measured, log10_scale = _measured(seen)
    luminosity = log10_scale + 2.0 * cosmology.log10_dl_mpc(seen.redshift) - 7.0
    extra = jnp.stack(
        [4.0 * (seen.redshift - 0.3), jnp.log10(seen.redshift) + 0.7, luminosity], axis=-1
    )
    return jnp.concatenate([measured, extra], axis=-1)


def features_without_redshift(seen: Observation) -> Float[Array, "*batch f"]:
    """The same without the redshift, which is not looked at: the mean flux is given as it is."""
    measured, log10_scale = _measured(seen)
    return jnp.concatenate([measured, log10_scale[..., None]], axis=-1)


def _measured(seen: Observation) -> tuple[Array, Array]:
    """Colours, errors and masks; and log10 of the mean flux, nanomaggies."""
    flux = jnp.where(seen.mask, seen.flux, 0.0)
    sigma = jnp.where(seen.mask, seen.sigma, 1.0)
    trust = jnp.where(seen.mask, flux**2 / (flux**2 + sigma**2) + 1e-3, 0.0)
    mean = jnp.sum(trust * jnp.abs(flux), axis=-1) / jnp.maximum(jnp.sum(trust, axis=-1), 1e-6)
    noise = jnp.min(jnp.where(seen.mask, sigma, jnp.inf), axis=-1)
    scale = jnp.maximum(mean, 0.1 * jnp.where(jnp.isfinite(noise), noise, 1.0))
    relative = flux / scale[..., None]
    colour = jnp.arcsinh(relative / _SOFTENING) - jnp.arcsinh(1.0 / _SOFTENING)
    log10_error = jnp.clip(jnp.log10(sigma / scale[..., None]) + 1.0, -3.0, 3.0)
    on = seen.mask.astype(flux.dtype)
    return jnp.concatenate([colour * on, log10_error * on, on], axis=-1), jnp.log10(scale)
