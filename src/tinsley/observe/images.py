"""Images of galaxies: a bulge and a disc, seen through a point-spread function and with noise.

A galaxy is drawn in Fourier space (`tinsley.observe.profiles`) on a grid half as large again as the
stamp, and cropped: light beyond the stamp is lost, as from a cutout of a survey, while the fluxes
in `Shapes` are total. A Fourier grid is periodic: what its other periods shine into the stamp is
computed and taken off again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt32

from tinsley.observe.profiles import (
    AbstractPsf,
    MoffatPsf,
    SersicTable,
    exponential_transform,
    sersic_brightness,
)
from tinsley.rng import object_key

SDSS_PIXEL_ARCSEC = 0.396
SDSS_PSF_FWHM_ARCSEC = {"u": 1.56, "g": 1.43, "r": 1.32, "i": 1.24, "z": 1.18}
"""r: the median of the imaging survey; the others by wavelength^-0.3 (Xin et al. 2018)."""
SDSS_PSF_SCATTER = 0.145
"""Standard deviation of ln(FWHM): quartiles of 1.30 and 1.58 arcsec in r (Adelman-McCarthy et al.
2008, SDSS DR7, "Seeing and sky brightness")."""
SDSS_SKY_NMGY = {"u": 0.037, "g": 0.024, "r": 0.032, "i": 0.047, "z": 0.195}
"""Noise of the sky in one pixel, nanomaggies: the softening of SDSS's asinh magnitudes (Stoughton
et al. 2002, table 21: 1.4, 0.9, 1.2, 1.8 and 7.4e-10 maggies), which is the noise of the sky under
a point source in 1 arcsec seeing (Lupton, Gunn & Szalay 1999), over the square root of the 14.45
pixels that such a source covers."""
SDSS_ELECTRONS_PER_NMGY = {"u": 145.0, "g": 1060.0, "r": 950.0, "i": 690.0, "z": 110.0}
"""Photoelectrons of a nanomaggy: 53.9 s with the 2.5 m telescope, 27 % of it obscured (Gunn et al.
2006), through the responses of Doi et al. (2010), at airmass 1.3."""
MIN_FWHM_PIXELS = 1.8
"""Narrower point-spread functions are not sampled by the pixels; SDSS's are 3 or wider."""
_BATCH = 16
_PADDING = 1.5
_PERIODS = 6
"""Periods of the Fourier grid, to each side, whose light is taken off the stamp."""
_COARSE = 12
"""Nodes a side on which that light, which is smooth, is computed."""


class Camera(eqx.Module):
    """What turns shapes into images.

    Attributes:
        sky_nmgy: Standard deviation of the sky's noise in a pixel, nanomaggies, [band].
        electrons_per_nmgy: Photoelectrons of a nanomaggy, [band].
        sersic: Profiles of bulges.
        psf: Shape of the point-spread function; its width is the image's.
        n_pixels: Side of the stamp.
        pixel_arcsec: Side of a pixel.
    """

    sky_nmgy: Array
    electrons_per_nmgy: Array
    sersic: SersicTable
    psf: AbstractPsf = MoffatPsf(3.5)
    n_pixels: int = eqx.field(static=True, default=128)
    pixel_arcsec: float = eqx.field(static=True, default=SDSS_PIXEL_ARCSEC)

    def __check_init__(self) -> None:
        if not 8 <= self.n_pixels <= 512:
            raise ValueError(f"a stamp has 8 to 512 pixels a side; got {self.n_pixels}.")
        if self.sky_nmgy.shape != self.electrons_per_nmgy.shape:
            raise ValueError("sky_nmgy and electrons_per_nmgy need one number a band each.")


class Shapes(NamedTuple):
    """What galaxies look like: bulge and disc share their centre and the direction they point in.

    Radii hold half of a component's light (to infinity) and are measured along the major axis.

    Attributes:
        bulge_flux: Total flux, nanomaggies, [n, band].
        disc_flux: Total flux, nanomaggies, [n, band].
        bulge_radius_arcsec: Half-light radius, [n].
        disc_radius_arcsec: Half-light radius of an exponential, 1.678 scale lengths, [n].
        bulge_axis_ratio: Apparent minor over major axis, [n].
        disc_axis_ratio: The same of the disc, [n].
        sersic_index: Of the bulge; the disc's is 1, [n].
        position_angle_rad: Of the major axes, from +x towards +y, [n].
        offset_pixels: Centre less the middle of the stamp, in x and y, [n, 2].
        psf_fwhm_arcsec: [n, band].
    """

    bulge_flux: Array
    disc_flux: Array
    bulge_radius_arcsec: Array
    disc_radius_arcsec: Array
    bulge_axis_ratio: Array
    disc_axis_ratio: Array
    sersic_index: Array
    position_angle_rad: Array
    offset_pixels: Array
    psf_fwhm_arcsec: Array


@eqx.filter_jit
def noiseless_images(camera: Camera, shapes: Shapes) -> Float[Array, "n band y x"]:
    """Images without noise, nanomaggies per pixel, sky subtracted.

    Args:
        camera: Its noise does not matter.
        shapes: The point-spread functions are at least `MIN_FWHM_PIXELS` wide.

    Source:
        Bulge: Sersic (1968). Disc: exponential. GalSim draws the same to the figures in
        benchmarks/results/image_model.json; it shares nothing with this (tests/test_images.py).
    """
    return _in_batches(lambda shape: _noiseless(camera, shape), shapes)


@eqx.filter_jit
def observed_images(
    camera: Camera, shapes: Shapes, words: UInt32[Array, "n 2"], *, key: Array
) -> Float[Array, "n band y x"]:
    """The same with the noise of sky and photons.

    The noise is normal and independent from pixel to pixel (a survey's resampled images have
    correlated noise), of variance sky^2 + image / electrons per nanomaggy.

    Args:
        camera: Pixels and noise.
        shapes: The galaxies.
        words: Their names, from `tinsley.rng.split_id`: the noise of a galaxy follows from its
            name, whatever others are drawn with it.
        key: Of the run.
    """

    def observe(one: tuple[Shapes, Array]) -> Array:
        image = _noiseless(camera, one[0])
        white = jax.random.normal(object_key(key, one[1]), image.shape, image.dtype)
        return image + white * jnp.sqrt(pixel_variance(camera, image))

    return _in_batches(observe, (shapes, words))


def pixel_variance(
    camera: Camera, image: Float[Array, "*n band y x"]
) -> Float[Array, "*n band y x"]:
    """Variance of the noise in each pixel of a noiseless image, nanomaggies squared."""
    photons = jnp.maximum(image, 0.0) / camera.electrons_per_nmgy[:, None, None]
    return camera.sky_nmgy[:, None, None] ** 2 + photons


def padded_size(n_pixels: int) -> int:
    """Side of the Fourier grid: even, 1.5 times the stamp or a little more, of small factors."""
    size = int(np.ceil(_PADDING * n_pixels / 2)) * 2
    while _largest_factor(size) > 5:
        size += 2
    return size


def _noiseless(camera: Camera, shape: Shapes) -> Array:
    """One galaxy, [band, y, x]."""
    n, size = camera.n_pixels, padded_size(camera.n_pixels)
    kx = jnp.asarray(2 * np.pi * np.fft.rfftfreq(size), dtype=float)
    ky = jnp.asarray(2 * np.pi * np.fft.fftfreq(size), dtype=float)[:, None]
    along, across = _turned(shape, kx, ky)

    def q(radius_arcsec: Array, axis_ratio: Array) -> Array:
        return radius_arcsec / camera.pixel_arcsec * jnp.hypot(along, axis_ratio * across)

    bulge = camera.sersic.transform(
        shape.sersic_index, q(shape.bulge_radius_arcsec, shape.bulge_axis_ratio)
    )
    disc = exponential_transform(q(shape.disc_radius_arcsec, shape.disc_axis_ratio))
    stars = _both(shape, bulge, disc)
    fwhm = shape.psf_fwhm_arcsec[:, None, None] / camera.pixel_arcsec
    light = stars * camera.psf.transform(fwhm * jnp.sqrt(kx**2 + ky**2))
    x, y = 0.5 * (n - 1) + shape.offset_pixels
    moved = _one_pixel(kx, x) * _one_pixel(ky, y)
    image = jnp.fft.irfft2(light * moved, s=(size, size))[:, :n, :n]
    return image - _other_periods(camera, shape)


def _other_periods(camera: Camera, shape: Shapes) -> Array:
    """Light in the stamp that comes from the other periods of the Fourier grid, [band, y, x].

    From that far the point-spread function and the pixels make no difference.
    """
    n, size = camera.n_pixels, padded_size(camera.n_pixels)
    nodes, spread = _coarse_grid(n)
    shifts = size * np.arange(-_PERIODS, _PERIODS + 1)
    others = np.argwhere(np.ones((len(shifts), len(shifts)), bool))
    others = shifts[others[np.any(shifts[others] != 0, axis=1)]][:, :, None, None]
    at = jnp.asarray(nodes - 0.5 * (n - 1), dtype=float) - shape.offset_pixels[:, None]
    x = at[0] - jnp.asarray(others[:, 0], dtype=float)
    y = at[1][:, None] - jnp.asarray(others[:, 1], dtype=float)
    along, across = _turned(shape, x, y)

    def light(index: Array, radius_arcsec: Array, axis_ratio: Array) -> Array:
        radius = radius_arcsec / camera.pixel_arcsec
        far = jnp.hypot(along, across / axis_ratio) / radius
        total = jnp.sum(sersic_brightness(index, far), axis=0)
        return total / (radius**2 * axis_ratio)

    bulge = light(shape.sersic_index, shape.bulge_radius_arcsec, shape.bulge_axis_ratio)
    disc = light(jnp.ones(()), shape.disc_radius_arcsec, shape.disc_axis_ratio)
    matrix = jnp.asarray(spread, dtype=float)
    return _both(shape, matrix @ bulge @ matrix.T, matrix @ disc @ matrix.T)


def _turned(shape: Shapes, x: Array, y: Array) -> tuple[Array, Array]:
    """Coordinates along the major and the minor axes."""
    cosine, sine = jnp.cos(shape.position_angle_rad), jnp.sin(shape.position_angle_rad)
    return x * cosine + y * sine, y * cosine - x * sine


def _both(shape: Shapes, bulge: Array, disc: Array) -> Array:
    """Bulge and disc of unit flux, as bright as they are in each band, [band, ...]."""
    return shape.bulge_flux[:, None, None] * bulge + shape.disc_flux[:, None, None] * disc


def _coarse_grid(n_pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Chebyshev nodes across a stamp, and the matrix from them to its pixels."""
    x = np.cos(np.pi * (np.arange(_COARSE) + 0.5) / _COARSE)
    pixels = 2 * (np.arange(n_pixels) + 0.5) / n_pixels - 1
    to_coefficients = np.linalg.inv(np.polynomial.chebyshev.chebvander(x, _COARSE - 1))
    spread = np.polynomial.chebyshev.chebvander(pixels, _COARSE - 1) @ to_coefficients
    return 0.5 * n_pixels * (x + 1) - 0.5, spread


def _one_pixel(k: Array, centre: Array) -> Array:
    """Transform of a pixel's response along one axis, moved to `centre`."""
    width = jnp.sinc(k / (2 * np.pi))
    return jax.lax.complex(width * jnp.cos(k * centre), -width * jnp.sin(k * centre))


def _in_batches(function: Callable[[Any], Array], values: Any) -> Array:
    """`function` of each galaxy, in batches of one size: a galaxy's bits know no other galaxy."""
    number = jax.tree.leaves(values)[0].shape[0]
    padding = -number % _BATCH

    def split(value: Array) -> Array:
        padded = jnp.pad(value, ((0, padding),) + ((0, 0),) * (value.ndim - 1), mode="edge")
        return padded.reshape(-1, _BATCH, *value.shape[1:])

    out = jax.lax.map(jax.vmap(function), jax.tree.map(split, values))
    return out.reshape(-1, *out.shape[2:])[:number]


def _largest_factor(number: int) -> int:
    for prime in (2, 3, 5):
        while number % prime == 0:
            number //= prime
    return number


def sdss_camera(
    bands: str, n_pixels: int, sersic: SersicTable, *, noise_scale: float = 1.0
) -> Camera:
    """SDSS's camera at the survey's usual depth.

    Args:
        bands: Letters of "ugriz".
        n_pixels: Side of the stamps.
        sersic: From `tinsley.observe.profiles.make_sersic_table`.
        noise_scale: Factor on the noise of every pixel, sky and photons both.
    """
    sky = noise_scale * np.array([SDSS_SKY_NMGY[band] for band in bands])
    electrons = np.array([SDSS_ELECTRONS_PER_NMGY[band] for band in bands]) / noise_scale**2
    return Camera(
        sky_nmgy=jnp.asarray(sky, dtype=float),
        electrons_per_nmgy=jnp.asarray(electrons, dtype=float),
        sersic=sersic,
        n_pixels=n_pixels,
    )
