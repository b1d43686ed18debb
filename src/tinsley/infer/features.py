"""What the networks see of a galaxy: asinh magnitudes, log errors, masks; and the redshift."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from tinsley.cosmology import Cosmology
from tinsley.infer.likelihood import Observation

_SOFTENING = 0.1
_BAND_SOFTENING = 0.05
"""Share of the mean flux, and so about a twentieth of a magnitude: below the scatter of colours."""


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
    extra = _place(log10_scale, seen.redshift, cosmology)
    return jnp.concatenate([measured, extra], axis=-1)


def features_without_redshift(seen: Observation) -> Float[Array, "*batch f"]:
    """The same without the redshift, which is not looked at: the mean flux is given as it is."""
    measured, log10_scale = _measured(seen)
    return jnp.concatenate([measured, log10_scale[..., None]], axis=-1)


def n_features_of_band(n_bands: int) -> int:
    """Length of the feature vector of one band."""
    return n_features(n_bands) + n_bands + 1


def features_of_band(
    seen: Observation, band: Int[Array, "*batch"], cosmology: Cosmology
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch f"]]:
    """One band's flux, and what may be known when it is predicted from the redder bands.

    Args:
        seen: The galaxies.
        band: Which band of each; bands are in the order of wavelength, blue to red.
        cosmology: For the luminosity.

    Returns:
        asinh of the flux, in units that depend on nothing but what is known: at low S/N the error,
        at high S/N the mean flux of the redder bands. And the features: those of the galaxy as if
        it had the redder bands alone, the band's own log error, and which band it is.
    """
    places = jnp.arange(seen.flux.shape[-1])
    redder = seen._replace(mask=seen.mask & (places > band[..., None]))
    measured, log10_scale = _measured(redder)
    scale = 10.0**log10_scale
    which = (places == band[..., None]).astype(seen.flux.dtype)
    on = jnp.sum(which * seen.mask, axis=-1) > 0
    flux = jnp.where(on, jnp.sum(jnp.where(which > 0, seen.flux, 0.0), axis=-1), 0.0)
    sigma = jnp.where(on, jnp.sum(jnp.where(which > 0, seen.sigma, 0.0), axis=-1), 1.0)
    y = jnp.arcsinh(flux / jnp.hypot(sigma, _BAND_SOFTENING * scale))
    told = [measured, _place(log10_scale, seen.redshift, cosmology)]
    return y, jnp.concatenate([*told, _log10_error(sigma, scale)[..., None], which], axis=-1)


def _place(log10_scale: Array, redshift: Array, cosmology: Cosmology) -> Float[Array, "*batch 3"]:
    """The redshift in two forms, and the luminosity."""
    luminosity = log10_scale + 2.0 * cosmology.log10_dl_mpc(redshift) - 7.0
    return jnp.stack([4.0 * (redshift - 0.3), jnp.log10(redshift) + 0.7, luminosity], axis=-1)


def _log10_error(sigma: Array, scale: Array) -> Array:
    return jnp.clip(jnp.log10(sigma / scale) + 1.0, -3.0, 3.0)


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
    log10_error = _log10_error(sigma, scale[..., None])
    on = seen.mask.astype(flux.dtype)
    return jnp.concatenate([colour * on, log10_error * on, on], axis=-1), jnp.log10(scale)
