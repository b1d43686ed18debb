"""Encoders: an image of a galaxy in several bands to a short vector."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from tinsley.density.rings import number_of_numbers, ring_numbers
from tinsley.errors import InputError

_GROUPS = 8
"""Groups of channels that are normalised together; all widths are multiples of it."""
_MAD_TO_STD = 1.4826
_MOST_IMAGES = 4096
"""So many tell the sky's noise as well as all."""
_DIHEDRAL = 8
_FARTHEST = 10.0
"""Standard deviations: a number of `RingEncoder` beyond is taken to be there."""


class AbstractEncoder(eqx.Module):
    """A network from one image to a vector, whatever the image's size."""

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """Length of the vector."""

    @abc.abstractmethod
    def __call__(self, image: Float[Array, "channel y x"]) -> Float[Array, " size"]:
        """The vector of one image."""


class PlainEncoder(AbstractEncoder):
    """Convolutions of stride 1, each followed by average pooling; at the end the mean image.

    Attributes:
        convolutions: Each 3 x 3.
    """

    convolutions: tuple[eqx.nn.Conv2d, ...]

    @property
    def size(self) -> int:
        return self.convolutions[-1].out_channels

    def __call__(self, image: Float[Array, "channel y x"]) -> Float[Array, " size"]:
        halve = eqx.nn.AvgPool2d(kernel_size=2, stride=2)
        for convolution in self.convolutions:
            image = halve(jax.nn.relu(convolution(image)))
        return jnp.mean(image, axis=(1, 2))


class ResidualBlock(eqx.Module):
    """Half the size, other channels: a smooth shortcut and what two convolutions add to it.

    The normalisation is of the added part alone, so that the shortcut carries brightness through.

    Attributes:
        norms: Of each image by itself, in groups of channels.
        convolutions: The first of stride 2.
        shortcut: 1 x 1.
    """

    norms: tuple[eqx.nn.GroupNorm, eqx.nn.GroupNorm]
    convolutions: tuple[eqx.nn.Conv2d, eqx.nn.Conv2d]
    shortcut: eqx.nn.Conv2d

    def __call__(self, image: Float[Array, "channel y x"]) -> Float[Array, "other half rest"]:
        halve = eqx.nn.AvgPool2d(kernel_size=3, stride=2, padding=1)
        added = image
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            added = convolution(jax.nn.silu(norm(added)))
        return self.shortcut(halve(image)) + added


class ResidualEncoder(AbstractEncoder):
    """Residual blocks on an image that is made small at once.

    Attributes:
        stem: 4 x 4 of stride 2.
        blocks: Each halves the image.
        head: From each channel's mean and its value at the image's centre to the vector.
    """

    stem: eqx.nn.Conv2d
    blocks: tuple[ResidualBlock, ...]
    head: eqx.nn.Linear

    @property
    def size(self) -> int:
        return self.head.weight.shape[0]

    def __call__(self, image: Float[Array, "channel y x"]) -> Float[Array, " size"]:
        image = self.stem(image)
        for block in self.blocks:
            image = block(image)
        y, x = (length // 2 for length in image.shape[1:])
        centre = jnp.mean(image[:, max(y - 1, 0) : y + 1, max(x - 1, 0) : x + 1], axis=(1, 2))
        return self.head(jnp.concatenate([jnp.mean(image, axis=(1, 2)), centre]))


class RingEncoder(AbstractEncoder):
    """`ring_numbers`, standardised: what it says of an image is measured, not learnt.

    Convolutions have to learn fluxes and colours to a percent before they say something of the
    stars, and on 60,000 simulated galaxies they found a third of what these numbers tell
    (docs/properties.md).

    Attributes:
        n_rings: Number of rings.
        mean: Of each number over the training set; `fitted` sets it.
        std: Likewise.
    """

    n_rings: int = eqx.field(static=True)
    mean: Float[Array, " size"]
    std: Float[Array, " size"]

    @property
    def size(self) -> int:
        return self.mean.shape[0]

    def __call__(self, image: Float[Array, "channel y x"]) -> Float[Array, " size"]:
        return self.standard(ring_numbers(image, self.n_rings))

    def standard(self, numbers: Float[Array, "*n size"]) -> Float[Array, "*n size"]:
        """Numbers of any images in units of the training set's."""
        mean, std = jax.lax.stop_gradient((self.mean, self.std))
        mean, std = (jnp.broadcast_to(end, numbers.shape) for end in (mean, std))
        return jnp.clip((numbers - mean) / std, -_FARTHEST, _FARTHEST)

    def fitted(self, numbers: Float[np.ndarray, "n size"]) -> RingEncoder:
        """The same with the mean and the width of what was measured on a training set."""
        std = np.std(numbers, axis=0)
        ends = np.mean(numbers, axis=0), np.where(std > 1e-6, std, 1.0)
        return RingEncoder(self.n_rings, *(jnp.asarray(end, float) for end in ends))


def _ringed(config: dict[str, Any], n_channels: int, key: Array) -> RingEncoder:
    size = number_of_numbers(config["rings"], n_channels)
    return RingEncoder(config["rings"], jnp.zeros(size), jnp.ones(size))


def _plain(config: dict[str, Any], n_channels: int, key: Array) -> PlainEncoder:
    widths = (n_channels, *config["widths"])
    keys = jax.random.split(key, len(config["widths"]))
    return PlainEncoder(
        tuple(
            eqx.nn.Conv2d(before, after, 3, padding=1, key=key)
            for before, after, key in zip(widths[:-1], widths[1:], keys, strict=True)
        )
    )


def _residual(config: dict[str, Any], n_channels: int, key: Array) -> ResidualEncoder:
    key_stem, key_head, *keys = jax.random.split(key, len(config["widths"]) + 1)
    widths = config["widths"]
    return ResidualEncoder(
        stem=eqx.nn.Conv2d(n_channels, widths[0], 4, stride=2, padding=1, key=key_stem),
        blocks=tuple(
            _residual_block(before, after, key)
            for before, after, key in zip(widths[:-1], widths[1:], keys, strict=True)
        ),
        head=eqx.nn.Linear(2 * widths[-1], config["size"], key=key_head),
    )


def _residual_block(before: int, after: int, key: Array) -> ResidualBlock:
    one, other, shortcut = jax.random.split(key, 3)
    return ResidualBlock(
        norms=(eqx.nn.GroupNorm(_GROUPS, before), eqx.nn.GroupNorm(_GROUPS, after)),
        convolutions=(
            eqx.nn.Conv2d(before, after, 3, stride=2, padding=1, key=one),
            eqx.nn.Conv2d(after, after, 3, padding=1, key=other),
        ),
        shortcut=eqx.nn.Conv2d(before, after, 1, key=shortcut),
    )


_KINDS: dict[str, Callable[[dict[str, Any], int, Array], AbstractEncoder]] = {
    "plain": _plain,
    "residual": _residual,
    "rings": _ringed,
}


def make_encoder(config: dict[str, Any], n_channels: int, *, key: Array) -> AbstractEncoder:
    """Build an encoder from its plain description.

    Args:
        config: `encoder`: "rings", with `rings`, their number; "plain" or "residual", with `widths`
            (channels after each step; multiples of 8 for the residual one), and `size` of the
            residual one's vector.
        n_channels: Bands of the images.
        key: For the initial weights.

    Raises:
        ValueError: If `encoder` is unknown.
    """
    if config["encoder"] not in _KINDS:
        known = ", ".join(_KINDS)
        raise ValueError(f"unknown encoder {config['encoder']!r}; expected one of {known}.")
    return _KINDS[config["encoder"]](config, n_channels, key)


YUNUS2025: dict[str, Any] = {"encoder": "plain", "widths": [32, 64, 128, 256]}
"""Yunus, Wu & Holwerda (2025): four blocks of stride 1 with average pooling, 256 numbers. The
channels before the last are ours."""

CONVOLUTIONS: dict[str, Any] = {"encoder": "residual", "widths": [24, 32, 64, 128], "size": 128}
"""An encoder that learns, with a fifth of the paper's multiplications, and more layers."""

TINSLEY: dict[str, Any] = {"encoder": "rings", "rings": 12}
"""Tinsley's default."""

ENCODERS = {"yunus2025": YUNUS2025, "convolutions": CONVOLUTIONS, "tinsley": TINSLEY}


def dihedral(
    image: Float[Array, "channel y x"], which: Int[Array, ""]
) -> Float[Array, "channel x y"]:
    """One of the eight ways (0-7) to turn or mirror a square image; 0 leaves it as it is."""
    image = jnp.where(which % 2 == 1, image[:, ::-1], image)
    image = jnp.where(which // 2 % 2 == 1, image[:, :, ::-1], image)
    return jnp.where(which // 4 == 1, jnp.swapaxes(image, 1, 2), image)


def augment(
    images: Float[Array, "n channel y x"], *, max_shift: int, key: Array
) -> Float[Array, "n channel y x"]:
    """Images turned or mirrored, and shifted, each in its own way: what no property depends on.

    Args:
        images: Square, with the sky subtracted: what a shift brings in is 0.
        max_shift: Largest shift along each axis, pixels.
        key: Decides it all.

    Raises:
        ValueError: If the images are not square, or `max_shift` is not in 0 to their size.
    """
    number, _, y, x = images.shape
    if y != x:
        raise ValueError(f"images must be square to be turned; got {y} x {x} pixels.")
    if not 0 <= max_shift < x:
        raise ValueError(f"max_shift must be 0 or more, and less than {x} pixels; got {max_shift}.")
    key_which, key_shift = jax.random.split(key)
    which = jax.random.randint(key_which, (number,), 0, _DIHEDRAL)
    start = jax.random.randint(key_shift, (number, 2), 0, 2 * max_shift + 1)

    def one(image: Array, which: Array, start: Array) -> Array:
        edge = (max_shift, max_shift)
        wide = jnp.pad(dihedral(image, which), ((0, 0), edge, edge))
        return jax.lax.dynamic_slice(wide, (0, start[0], start[1]), image.shape)

    return jax.vmap(one)(images, which, start)


class AsinhScale(eqx.Module):
    """Fluxes to numbers of order 1: linear near the sky's noise, logarithmic far above it.

    Not trained.

    Attributes:
        softening: Of each band, in the images' unit: the sky's standard deviation.

    Source:
        Lupton, Gunn & Szalay (1999).
    """

    softening: Float[Array, " band"]

    def __call__(self, images: Float[Array, "*n band y x"]) -> Float[Array, "*n band y x"]:
        softening = jax.lax.stop_gradient(self.softening)[:, None, None]
        return jnp.arcsinh(images / jnp.broadcast_to(softening, images.shape))


def fit_asinh_scale(images: Float[np.ndarray, "n band y x"]) -> AsinhScale:
    """The scale whose softening is the sky's noise in each band, robustly.

    From the second differences of pixels along the upper and lower edges: there is least of a
    galaxy there, and of what there is the smooth part cancels. Median over images. Noise that is
    correlated between neighbours counts less than it is.

    Args:
        images: Finite, in any unit; at least 8 pixels wide.

    Raises:
        InputError: A band has no noise there, or pixels that are not finite.
    """
    images = np.asarray(images)[:: -(-len(images) // _MOST_IMAGES)]
    if not np.all(np.isfinite(images)):
        raise InputError("images hold pixels that are not finite; set these to 0 first.")
    rows = max(images.shape[2] // 8, 1)
    edge = np.concatenate([images[:, :, :rows], images[:, :, -rows:]], axis=2)
    bends = np.diff(edge, n=2, axis=3).reshape(*images.shape[:2], -1) / np.sqrt(6.0)
    sigma = np.median(_MAD_TO_STD * np.median(np.abs(bends), axis=2), axis=0)
    if not np.all(sigma > 0):
        band = int(np.argmin(sigma))
        raise InputError(
            f"band {band} (counted from 0) has no noise at the edges of most images; expected "
            "images with sky, not padded or cut out. Leave that band out, or give wider images."
        )
    return AsinhScale(jnp.asarray(sigma, jnp.result_type(float)))
