"""Posteriors of properties for a whole table: chunk by chunk, to be gone on with when killed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import tinsley
from tinsley.catalog.batch import as_observation
from tinsley.errors import InputError
from tinsley.infer.importance import STATISTICS
from tinsley.infer.properties import (
    Galaxies,
    PropertyPosterior,
    draw_properties,
    summaries,
)
from tinsley.io.images import AbstractImages, load_images
from tinsley.io.property_models import LoadedProperties
from tinsley.io.property_tables import GalaxyTable
from tinsley.io.run_folder import RunFolder
from tinsley.observe.survey import Photometry, with_redshift_range
from tinsley.rng import split_id
from tinsley.status import Status

BATCH = 32
"""Galaxies of one compiled call; the last call is filled up, so that neighbours change nothing."""


@dataclass(frozen=True)
class PropertySettings:
    """What a run does, beside its input.

    Attributes:
        draws: Draws a galaxy.
        keep_draws: Write them.
        seed: Seed of the run.
        chunk: Rows of one chunk on disk.
        command: The command line, for the manifest.
    """

    draws: int = 1000
    keep_draws: bool = True
    seed: int = 0
    chunk: int = 1024
    command: str = ""


def run_properties(
    loaded: LoadedProperties,
    table: GalaxyTable,
    images: AbstractImages | None,
    out: Path,
    settings: PropertySettings,
    on_chunk: Callable[[int], None] = lambda rows: None,
) -> dict[str, Any]:
    """Infer every row of a table into `out`.

    Args:
        loaded: The model.
        table: The rows, with photometry if the model takes it.
        images: Where the images are, if the model takes them.
        out: Folder of the run; begun ones are gone on with.
        settings: Draws, seed and so on.
        on_chunk: Called with the number of rows after each chunk, computed or found.

    Returns:
        The manifest.

    Raises:
        InputError: The model takes images and there are none; the folder holds a run of other
            settings or input; the disk is full.
    """
    if (loaded.form is None) != (images is None):
        takes = "takes no images; leave --images out" if images else "needs images; give --images"
        raise InputError(f"model {loaded.spec.name} {takes}.")
    setup = {
        "version": tinsley.__version__,
        "model": loaded.spec.name,
        "model_sha256": loaded.sha256,
        "input_sha256": table.checksum,
        "images": "" if images is None else images.label,
        "rows": table.n_rows,
    }
    plain = dataclasses.asdict(settings)
    command = plain.pop("command")
    setup |= plain
    metadata = {"format": "1", "tinsley": tinsley.__version__, "seed": str(settings.seed)}
    folder = RunFolder(out, setup, metadata)
    run_key = jax.random.key(settings.seed)

    def infer(rows: Photometry) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray] | None]:
        return infer_rows(loaded, rows, images, settings, run_key)

    folder.fill(table.chunks(settings.chunk), infer, on_chunk)
    manifest = setup | {"command": command, "statuses": folder.join()}
    folder.write_manifest(manifest)
    return manifest


def infer_rows(
    loaded: LoadedProperties,
    photometry: Photometry,
    images: AbstractImages | None,
    settings: PropertySettings,
    run_key: jax.Array,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray] | None]:
    """Infer some rows: the usable ones get a posterior, all get a status.

    Returns:
        The table of all rows, by column; and the draws if they are kept and there are any.
    """
    spec = loaded.spec
    if spec.redshift:
        photometry = with_redshift_range(photometry, *spec.redshift_range)
    status = photometry.status.astype(object)
    form, pictures = loaded.form, None
    if form is not None and images is not None:
        pictures = load_images(images, photometry.object_id, form)
        status = np.where(status == "", pictures.status, status)
    labels = [f"{name}_{statistic}" for name in spec.properties for statistic in STATISTICS]
    columns = {label: np.full(len(photometry), np.nan, np.float32) for label in labels}
    usable, draws = np.flatnonzero(status == ""), None
    if len(usable):
        told = np.asarray(loaded.posterior.told(as_observation(photometry)))[usable]
        known = told, None if pictures is None else pictures.images[usable]
        names = photometry.object_id[usable]
        found = draw_all(loaded.posterior, known, names, settings.draws, run_key)
        good = np.isfinite(found).all(axis=(1, 2))
        status[usable] = np.where(good, str(Status.OK), str(Status.FAILED))
        usable, found = usable[good], found[good]
        for label, values in summaries(spec.properties, found).items():
            columns[label][usable] = values
        if settings.keep_draws:
            draws = {"object_id": np.repeat(photometry.object_id[usable], settings.draws)}
            draws |= {name: found[:, :, i].ravel() for i, name in enumerate(spec.properties)}
    head = {"object_id": photometry.object_id, "status": np.asarray(status, str)}
    return head | columns, draws


def draw_all(
    posterior: PropertyPosterior,
    known: tuple[np.ndarray, np.ndarray | None],
    object_id: np.ndarray,
    number: int,
    run_key: jax.Array,
    on_batch: Callable[[int], None] = lambda galaxies: None,
) -> np.ndarray:
    """Draws of many galaxies, in batches: what one gets does not depend on its neighbours.

    Args:
        posterior: The posterior.
        known: `Galaxies` in numpy, each [n, ...].
        object_id: Their names, [n]: with the key of the run they decide the draws.
        number: Draws of each.
        run_key: Key of the run.
        on_batch: Called with the number of galaxies after each batch.

    Returns:
        [n, number, property].
    """
    words, parts, count = split_id(object_id), [], len(object_id)
    for low in range(0, count, BATCH):
        rows = np.minimum(np.arange(low, low + BATCH), count - 1)
        some = Galaxies(*jax.tree.map(lambda part, rows=rows: jnp.asarray(part[rows]), known))
        drawn = draw_properties(posterior, some, jnp.asarray(words[rows]), run_key, number)
        parts.append(np.asarray(drawn))
        on_batch(min(BATCH, count - low))
    return np.concatenate(parts)[:count]
