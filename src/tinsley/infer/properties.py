"""Posteriors of any properties that a table lists, from photometry, an image, or both.

Start at `PropertyPosterior`. What is learnt is p(properties | data) over the galaxies of the table:
its prior is their distribution, and draws may go where the table has none.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, Num, UInt32

from tinsley.cosmology import Cosmology
from tinsley.density.encoders import AbstractEncoder, AsinhScale, augment, make_encoder
from tinsley.density.properties import Density, make_density
from tinsley.infer.features import features, features_without_redshift
from tinsley.infer.importance import STATISTICS
from tinsley.infer.likelihood import Observation
from tinsley.infer.property_targets import Standard, Target
from tinsley.rng import object_key

_FARTHEST = 10.0
"""Standard deviations from the training set's mean: a feature beyond is taken to be there."""
_PIECE = 256
"""Images that are encoded together."""
_VALIDATION_DRAWS = 16_384
"""Times and noises in a validation, so that its loss is not noisier for a small held-out set."""


class StretchedScale(eqx.Module):
    """8-bit colours to numbers of order 1 with the sky at 0; they are stretched already.

    Attributes:
        sky: Level of the sky in each channel.
        width: Standard deviation of each channel's pixels.
    """

    sky: Float[Array, " channel"]
    width: Float[Array, " channel"]

    def __call__(self, images: Float[Array, "*n channel y x"]) -> Float[Array, "*n channel y x"]:
        ends = (jax.lax.stop_gradient(v)[:, None, None] for v in (self.sky, self.width))
        sky, width = (jnp.broadcast_to(v, images.shape) for v in ends)
        return (images - sky) / width


def fit_stretched_scale(images: Num[np.ndarray, "n channel y x"]) -> StretchedScale:
    """The scale of a set of 8-bit images; the sky is the median of their outermost pixels."""
    some = np.asarray(images[:: -(-len(images) // 4096)], np.float32)
    edge = np.concatenate([some[:, :, 0], some[:, :, -1], some[..., 0], some[..., -1]], axis=2)
    sky, width = np.median(edge, axis=(0, 2)), some.std(axis=(0, 2, 3))
    return StretchedScale(jnp.asarray(sky, float), jnp.asarray(np.maximum(width, 1.0), float))


ImageScale = AsinhScale | StretchedScale


def scale_to_dict(scale: ImageScale | None) -> dict[str, Any]:
    """Plain values, for JSON; empty where there are no images."""
    if scale is None:
        return {}
    if isinstance(scale, AsinhScale):
        return {"kind": "asinh", "softening": scale.softening.tolist()}
    return {"kind": "stretched", "sky": scale.sky.tolist(), "width": scale.width.tolist()}


def scale_from_dict(plain: dict[str, Any]) -> ImageScale | None:
    """The inverse of `scale_to_dict`."""
    if not plain:
        return None
    arrays = {k: jnp.asarray(v, float) for k, v in plain.items() if k != "kind"}
    return AsinhScale(**arrays) if plain["kind"] == "asinh" else StretchedScale(**arrays)


class PropertyNetwork(eqx.Module):
    """What is trained.

    Attributes:
        density: Of the standardised properties.
        encoder: From the scaled image to a vector; None where there are no images.
    """

    density: Density
    encoder: AbstractEncoder | None

    def condition(
        self, told: Float[Array, " f"], image: Float[Array, "channel y x"] | None
    ) -> Float[Array, " c"]:
        """What the density is told of a galaxy: its features, and its encoded image."""
        if self.encoder is None or image is None:
            return told
        return jnp.concatenate([told, self.encoder(image)])


def make_property_network(
    matching: dict[str, Any],
    encoder: dict[str, Any],
    sizes: tuple[int, int, int],
    *,
    key: Key[Array, ""],
) -> PropertyNetwork:
    """A network with initial weights.

    Args:
        matching: As `tinsley.density.properties.make_density` takes it.
        encoder: As `make_encoder` takes it; not looked at where there are no channels.
        sizes: Number of features, of the image's channels (0 for no image), of the
            density's dimensions.
        key: For the weights.
    """
    n_features, n_channels, n_dim = sizes
    key_density, key_encoder = jax.random.split(key)
    eye = make_encoder(encoder, n_channels, key=key_encoder) if n_channels else None
    n_condition = n_features + (0 if eye is None else eye.size)
    return PropertyNetwork(make_density(matching, n_condition, n_dim, key=key_density), eye)


class Galaxies(NamedTuple):
    """What is known of galaxies.

    Attributes:
        told: Features of the photometry, standardised, [n, f]; f is 0 without photometry.
        images: As read, [n, channel, y, x]; None without.
    """

    told: Array
    images: Array | None


class StoredGalaxies(eqx.Module):
    """Batches of a training set, each galaxy drawn from all, with replacement.

    Attributes:
        theta: Properties, standardised.
        galaxies: What is known of them.
        scale: Of the images.
        number: Galaxies in a batch.
        max_shift: Of the augmented images, pixels.
    """

    theta: Float[Array, "n d"]
    galaxies: Galaxies
    scale: ImageScale | None
    number: int = eqx.field(static=True)
    max_shift: int = eqx.field(static=True)

    def batch(self, key: Key[Array, ""]) -> tuple[Array, Array, Array | None]:
        """Properties, features and images, these turned, mirrored and shifted at random."""
        key_rows, key_images = jax.random.split(key)
        rows = jax.random.randint(key_rows, (self.number,), 0, len(self.theta))
        images = None
        if self.galaxies.images is not None:
            images = scaled(self.scale, self.galaxies.images[rows])
            images = augment(images, max_shift=self.max_shift, key=key_images)
        return self.theta[rows], self.galaxies.told[rows], images


def scaled(scale: ImageScale | None, images: Array) -> Array:
    """Images as the encoder takes them, from those as read."""
    real = images.astype(jnp.result_type(float))
    return real if scale is None else scale(real)


def property_loss(
    network: PropertyNetwork, source: StoredGalaxies, key: Key[Array, ""]
) -> Float[Array, ""]:
    """Flow-matching loss of one batch."""
    key_batch, key_flow = jax.random.split(key)
    theta, told, images = source.batch(key_batch)
    condition = jax.vmap(network.condition)(told, images)
    return network.density.loss(theta, condition, key=key_flow)


def held_out_loss(
    network: PropertyNetwork, held_out: StoredGalaxies, key: Key[Array, ""]
) -> Float[Array, ""]:
    """The same of a whole set, as its images are; one key makes it the same noise each time."""
    told, images = held_out.galaxies
    parts = []
    for low in range(0, len(told), _PIECE):
        some = slice(low, low + _PIECE)
        piece = None if images is None else scaled(held_out.scale, images[some])
        parts.append(_conditions(network, told[some], piece))
    return _loss_of(network, held_out.theta, jnp.concatenate(parts), key)


@eqx.filter_jit
def _conditions(network: PropertyNetwork, told: Array, images: Array | None) -> Array:
    """Of many galaxies at once: in a loop, convolutions are slow (`tinsley.density.train`)."""
    return jax.vmap(network.condition)(told, images)


@eqx.filter_jit
def _loss_of(network: PropertyNetwork, theta: Array, condition: Array, key: Array) -> Array:
    number = min(max(_VALIDATION_DRAWS // len(theta), 1), 64)
    keys = jax.random.split(key, number)
    return jnp.mean(jax.lax.map(lambda k: network.density.loss(theta, condition, key=k), keys))


class PropertyPosterior(eqx.Module):
    """p(properties | photometry, image), trained.

    Attributes:
        network: The trained part.
        target: Of the properties, over the training set.
        feature: Of the photometry's features.
        scale: Of the images; None where they are not used.
        cosmology: For the luminosity, which goes with the redshift; None where neither is told.

    Source:
        Yunus, Wu & Holwerda (2025). Posterior widths and coverage are checked where the posterior
        is known: tests/test_properties.py.
    """

    network: PropertyNetwork
    target: Target = eqx.field(static=True)
    feature: Standard = eqx.field(static=True)
    scale: ImageScale | None
    cosmology: Cosmology | None

    def told(self, seen: Observation) -> Float[Array, "n f"]:
        """Standardised features of photometry."""
        return standard_features(self.feature, raw_features(seen, self.cosmology))

    def condition(
        self, told: Float[Array, " f"], image: Num[Array, "channel y x"] | None
    ) -> Float[Array, " c"]:
        """What the density is told of one galaxy, from its features and its image as read."""
        image = None if image is None else scaled(self.scale, image)
        return self.network.condition(told, image)

    def sample(
        self, number: int, condition: Float[Array, " c"], *, key: Key[Array, ""]
    ) -> Float[Array, "number p"]:
        """Draws of one galaxy's properties, in the units of the table."""
        return self.target.outward(self.network.density.sample(number, condition, key=key))

    def log_prob(
        self, properties: Float[Array, " p"], condition: Float[Array, " c"]
    ) -> Float[Array, ""]:
        """Natural log of the density of some properties, in the units of the table."""
        inner = self.network.density.log_prob(self.target.inward(properties), condition)
        return inner + self.target.log_slope(properties)


def raw_features(seen: Observation, cosmology: Cosmology | None) -> Float[Array, "n f"]:
    """Colours, log errors, masks and the mean flux; with a cosmology the redshift too."""
    if seen.flux.shape[-1] == 0:
        return seen.flux
    return features_without_redshift(seen) if cosmology is None else features(seen, cosmology)


def standard_features(standard: Standard, raw: Float[Array, "n f"]) -> Float[Array, "n f"]:
    """Features with mean 0 and standard deviation 1, none of them out of all reach."""
    return jnp.clip(standard.inward(raw), -_FARTHEST, _FARTHEST)


@eqx.filter_jit
def draw_properties(
    posterior: PropertyPosterior,
    galaxies: Galaxies,
    words: UInt32[Array, "n 2"],
    run_key: Key[Array, ""],
    number: int,
) -> Float[Array, "n number p"]:
    """Draws of each galaxy's properties; its key follows from its name, `tinsley.rng.split_id`."""
    condition = jax.vmap(posterior.condition)(*galaxies)

    def one(galaxy: tuple[Array, Array]) -> Array:
        return posterior.sample(number, galaxy[0], key=object_key(run_key, galaxy[1]))

    return jax.lax.map(one, (condition, words))


def summaries(
    names: tuple[str, ...], draws: Float[np.ndarray, "n number d"]
) -> dict[str, np.ndarray]:
    """`<property>_mean`, `_std`, `_q16`, `_q50` and `_q84`, each [n]."""
    quantiles = np.quantile(draws, (0.16, 0.5, 0.84), axis=1)
    each = dict(zip(STATISTICS, (draws.mean(axis=1), draws.std(axis=1), *quantiles), strict=True))
    return {f"{n}_{s}": each[s][:, i] for i, n in enumerate(names) for s in STATISTICS}


def judge_properties(
    names: tuple[str, ...],
    truth: Float[np.ndarray, "n d"],
    draws: Float[np.ndarray, "n number d"],
) -> dict[str, dict[str, float]]:
    """How right the posteriors of galaxies with known properties are.

    Returns:
        For each property: root mean square error and mean error ("bias") of the posterior means;
        the known values' own standard deviation ("spread"); the mean posterior standard deviation
        ("std"); and the share of galaxies whose central 68 % and 95 % intervals hold the truth.
    """
    error = draws.mean(axis=1) - truth
    rank = (draws < truth[:, None]).mean(axis=1)
    values = {
        "rmse": np.sqrt((error**2).mean(axis=0)),
        "bias": error.mean(axis=0),
        "spread": truth.std(axis=0),
        "std": draws.std(axis=1).mean(axis=0),
        "coverage_68": (np.abs(rank - 0.5) < 0.34).mean(axis=0),
        "coverage_95": (np.abs(rank - 0.5) < 0.475).mean(axis=0),
    }
    return {
        name: {what: round(float(v[i]), 5) for what, v in values.items()}
        for i, name in enumerate(names)
    }
