"""What can be measured on an image of a galaxy without learning: `ring_numbers`."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_WINDOWS = (1 / 8, 1 / 16, 1 / 20, 1 / 20, 1 / 20)
"""Widths of the Gaussians that the centre is looked for under, one after the other, of the side."""
_FARTHEST_CENTRE = 0.1
"""From the middle of the image, of the side."""
_OUTERMOST = 0.44
_BRIGHTEST = 20.0


def number_of_numbers(n_rings: int, n_channels: int) -> int:
    """How many `ring_numbers` there are."""
    return n_rings * (1 + (n_channels - 1) + 2 * n_channels) + n_rings - 1


def ring_numbers(image: Float[Array, "channel y x"], n_rings: int) -> Float[Array, " number"]:
    """Light, colours and shapes of a galaxy in rings around its centre.

    Pixels become fluxes again, in units of the sky's noise. The centre is the centroid under a
    Gaussian. Rings have radii in equal ratios, from a pixel to 0.44 of the side, and soft edges. Of
    each: the light in the middle channel (asinh of signal over noise) and its step from the ring
    within, colours between neighbouring channels, and in every channel the second and fourth cosine
    along the direction in which the whole image is long, over the light. So nothing changes when
    the image is turned or mirrored, and little when it is moved (tests/test_encoders.py).

    Args:
        image: asinh of fluxes over the sky's noise, as `tinsley.density.encoders.AsinhScale` gives.
        n_rings: Number of rings.
    """
    flux = jnp.sinh(jnp.clip(image, -_BRIGHTEST, _BRIGHTEST))
    x, y = _from_centre(jnp.sum(flux, axis=0))
    r_squared = x**2 + y**2 + 1e-6
    ring = _rings(jnp.sqrt(r_squared), n_rings)
    cos, sin = (x**2 - y**2) / r_squared, 2 * x * y / r_squared
    waves = jnp.stack([jnp.ones_like(x), cos, sin, 2 * cos**2 - 1, 2 * cos * sin])
    light, *moments = jnp.einsum("kyx,wyx,cyx->wkc", ring, waves, flux)
    noise = jnp.sqrt(jnp.sum(ring**2, axis=(1, 2)))[:, None]
    along = jnp.arctan2(jnp.sum(moments[1]), jnp.sum(moments[0]))
    second = moments[0] * jnp.cos(along) + moments[1] * jnp.sin(along)
    fourth = moments[2] * jnp.cos(2 * along) + moments[3] * jnp.sin(2 * along)
    shapes = jnp.stack([second, fourth]) / jnp.sqrt(light**2 + noise**2)
    bright, middle = jnp.arcsinh(light / (2 * noise)), image.shape[0] // 2
    step = jnp.diff(bright[:, middle] + jnp.log(noise[:, 0]))
    parts = bright[:, middle], step, jnp.diff(bright, axis=1), shapes
    return jnp.concatenate([part.ravel() for part in parts])


def _from_centre(light: Float[Array, "y x"]) -> tuple[Array, Array]:
    """Each pixel's place from the galaxy's centre, in pixels."""
    side = min(light.shape)
    y, x = (jnp.arange(n) - (n - 1) / 2 for n in light.shape)
    x, y = jnp.meshgrid(x, y)
    for width in _WINDOWS:
        window = jnp.exp(-0.5 * (x**2 + y**2) / (width * side) ** 2) * light
        total = jnp.maximum(jnp.sum(window), 1e-3)
        # under a window as wide as the galaxy a centroid comes half of the way
        x, y = (_moved(axis, 2 * jnp.sum(window * axis) / total, side) for axis in (x, y))
    return x, y


def _moved(axis: Float[Array, "y x"], by: Float[Array, ""], side: int) -> Float[Array, "y x"]:
    """Places from a centre that has moved, but not far from the middle of the image."""
    middle, limit = jnp.mean(axis), _FARTHEST_CENTRE * side
    return axis - middle + jnp.clip(middle - by, -limit, limit)


def _rings(r: Float[Array, "y x"], number: int) -> Float[Array, "ring y x"]:
    """Which share of each pixel is in each ring, nearly."""
    edge = np.geomspace(1.0, _OUTERMOST * min(r.shape), number)
    inside = jnp.clip(edge[:, None, None] - r + 0.5, 0.0, 1.0)
    return jnp.diff(inside, axis=0, prepend=0.0)
