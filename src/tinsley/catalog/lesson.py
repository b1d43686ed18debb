"""What a posterior of properties is taught: a table, its photometry and images, in memory."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from tinsley.catalog.batch import as_observation
from tinsley.cosmology import make_cosmology
from tinsley.density.encoders import RingEncoder, fit_asinh_scale
from tinsley.density.rings import ring_numbers
from tinsley.errors import InputError
from tinsley.infer.properties import (
    Galaxies,
    ImageScale,
    PropertyNetwork,
    StoredGalaxies,
    fit_stretched_scale,
    raw_features,
    scale_to_dict,
    scaled,
    standard_features,
)
from tinsley.infer.property_spec import PropertySpec
from tinsley.infer.property_targets import (
    fit_standard,
    fit_target,
    inside,
    spread_zeros,
    target_from_dict,
)
from tinsley.io.images import ImageForm, ImageSet, find_form, load_images, open_images
from tinsley.io.property_tables import (
    SHARES,
    open_galaxies,
    place_by_name,
    read_properties,
    split_by_name,
)
from tinsley.observe.survey import Photometry, Survey
from tinsley.parameters import ParamSpace

Light = tuple[Survey | None, str | None, bool]
"""A survey or none, a layout or none, whether redshifts are used."""
Pictures = tuple[Path | None, int | None]
"""Images or none, and the side to average them to."""
_PIECE = 65_536
_PIECE_OF_IMAGES = 512


@dataclass(frozen=True, eq=False)
class Lesson:
    """Galaxies with all that is needed, in the order of a hash of their names.

    Attributes:
        object_id: [n].
        properties: As in the table, [n, d]; of SPS parameters, without zeros: `spread_zeros`.
        told: Standardised features, [n, f].
        images: As read, [n, channel, y, x]; None without.
        scale: Of the images.
        rows: Indices of the galaxies of each set: "training", "validation", "test".
        spec: The model's description as far as the data decide it.
        counts: Galaxies of each set, and rows left out by why.
        problem: What is wrong with the first bad image; "" if none is.
        checksum: Of the table.
    """

    object_id: np.ndarray
    properties: np.ndarray
    told: np.ndarray
    images: np.ndarray | None
    scale: ImageScale | None
    rows: dict[str, np.ndarray]
    spec: PropertySpec
    counts: dict[str, int]
    problem: str
    checksum: str

    def stored(self, which: str, number: int, max_shift: int) -> StoredGalaxies:
        """One of the sets, to draw batches of `number` from."""
        rows = self.rows[which]
        target = target_from_dict(self.spec.target)
        theta = target.inward(jnp.asarray(self.properties[rows], float))
        images = None if self.images is None else jnp.asarray(self.images[rows])
        galaxies = Galaxies(jnp.asarray(self.told[rows]), images)
        return StoredGalaxies(theta, galaxies, self.scale, number, max_shift)


def measured(lesson: Lesson, network: PropertyNetwork) -> tuple[Lesson, PropertyNetwork]:
    """Images seen once and for all, by an encoder that has nothing to learn.

    Returns:
        The lesson, with the encoder's vectors beside the features in place of images, which is what
        the network's condition is; and the network, its encoder standardised by the training set.
        Both as they were where the encoder learns, or there are no images.
    """
    encoder = network.encoder
    if lesson.images is None or not isinstance(encoder, RingEncoder):
        return lesson, network
    pieces = range(0, len(lesson.images), _PIECE_OF_IMAGES)
    some = (jnp.asarray(lesson.images[low : low + _PIECE_OF_IMAGES]) for low in pieces)
    rings = [np.asarray(_ring_numbers(encoder, scaled(lesson.scale, images))) for images in some]
    numbers = np.concatenate(rings)
    fitted = encoder.fitted(numbers[lesson.rows["training"]])
    told = np.concatenate([lesson.told, np.asarray(fitted.standard(jnp.asarray(numbers)))], axis=1)
    network = eqx.tree_at(lambda n: n.encoder, network, fitted)
    return dataclasses.replace(lesson, told=told, images=None), network


@eqx.filter_jit
def _ring_numbers(encoder: RingEncoder, images: Array) -> Array:
    return jax.vmap(lambda image: ring_numbers(image, encoder.n_rings))(images)


def read_lesson(
    path: Path,
    names: tuple[str, ...],
    light: Light,
    pictures: Pictures,
    on_images: Callable[[int, int], None] = lambda done, total: None,
    space: ParamSpace | None = None,
) -> Lesson:
    """Read all that a posterior is to be taught.

    Args:
        path: The table.
        names: Columns to learn.
        light: The photometry to learn them from.
        pictures: The images to learn them from.
        on_images: Called with the images read since the last call, and the number of all.
        space: Names and ranges of the columns where they are SPS parameters.

    Raises:
        InputError: A column is missing; no galaxy is usable; images are unlike each other.
    """
    survey, layout, redshift = light
    table = open_galaxies(path, survey, layout, redshift=redshift)
    properties = read_properties(path, names)
    photometry = _together(list(table.chunks(_PIECE)))
    sets, order = split_by_name(photometry.object_id)
    photometry, properties, sets = photometry.take(order), properties[order], sets[order]
    status = np.where(np.isnan(properties).any(axis=1), "without a property", photometry.status)
    if space is not None:
        properties = sps_parameters(space, properties, photometry.object_id)
        status = np.where((status == "") & ~inside(space, properties), "out of range", status)
    kept, form, scale, problem = np.flatnonzero(status == ""), None, None, ""
    images = None
    if pictures[0] is not None:
        read, form = _images(photometry.object_id[kept], pictures, on_images)
        status[kept], problem = read.status, read.problem
        good = read.status == ""
        images, kept = read.images if good.all() else read.images[good], kept[good]
    if not len(kept):
        raise InputError(f"no row of {path} can be learnt from: {_words(status, sets)}. {problem}")
    photometry, properties, sets_kept = photometry.take(kept), properties[kept], sets[kept]
    learnt = np.flatnonzero(sets_kept == "training")
    cosmology = make_cosmology() if redshift else None
    raw = np.asarray(raw_features(as_observation(photometry), cosmology))
    feature, target = fit_standard(raw[learnt]), fit_target(properties[learnt], space)
    _refuse_constant(properties[learnt], names, path)
    if images is not None and form is not None:
        scale = fit_image_scale(images[learnt], form)
    known = photometry.redshift[learnt]
    spec = PropertySpec(
        name="",
        properties=names,
        matching={},
        target=target.to_dict(),
        survey="" if survey is None else survey.name,
        bands=() if survey is None else survey.bands,
        filters=() if survey is None else survey.filters,
        redshift=redshift,
        redshift_range=(float(known.min()), float(known.max())) if redshift else (),
        feature=feature.to_dict(),
        image={} if form is None else form.to_dict(),
        image_scale=scale_to_dict(scale),
    )
    return Lesson(
        object_id=photometry.object_id,
        properties=properties,
        told=np.asarray(standard_features(feature, jnp.asarray(raw))),
        images=images,
        scale=scale,
        rows={word: np.flatnonzero(sets_kept == word) for word in SHARES},
        spec=spec,
        counts=_counts(status, sets),
        problem=problem,
        checksum=table.checksum,
    )


def sps_parameters(space: ParamSpace, values: np.ndarray, object_id: np.ndarray) -> np.ndarray:
    """SPS parameters as they are learnt and judged: `spread_zeros`, by the galaxies' names."""
    share = np.stack([place_by_name(object_id, name) for name in space.names], axis=-1)
    return spread_zeros(space, values, share)


def fit_image_scale(images: np.ndarray, form: ImageForm) -> ImageScale:
    """How images become numbers of order 1: bytes are stretched already, fluxes are not."""
    return fit_stretched_scale(images) if form.stretched else fit_asinh_scale(images)


def _images(
    names: np.ndarray, pictures: Pictures, on_images: Callable[[int, int], None]
) -> tuple[ImageSet, ImageForm]:
    path, pixels = pictures
    source = open_images(str(path))
    form = find_form(source, names, pixels)
    return load_images(source, names, form, lambda done: on_images(done, len(names))), form


def _together(chunks: list[Photometry]) -> Photometry:
    """Chunks as one; what is known of uncertain redshifts is not used."""
    fields = ("object_id", "redshift", "flux", "sigma", "mask", "status")
    parts: Any = {name: np.concatenate([getattr(c, name) for c in chunks]) for name in fields}
    return Photometry(**parts)


def _refuse_constant(values: np.ndarray, names: tuple[str, ...], path: Path) -> None:
    for i, name in enumerate(names):
        if len(values) and np.ptp(values[:, i]) == 0:
            raise InputError(
                f"column {name!r} of {path} is {values[0, i]:g} for every galaxy: there is nothing "
                "to learn. Leave it out."
            )


def _counts(status: np.ndarray, sets: np.ndarray) -> dict[str, int]:
    found = Counter(np.where(status == "", sets, status).tolist())
    return {word: found.pop(word, 0) for word in SHARES} | dict(found)


def _words(status: np.ndarray, sets: np.ndarray) -> str:
    return ", ".join(f"{n} {word}" for word, n in _counts(status, sets).items() if n)
