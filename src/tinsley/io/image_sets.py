"""Sets of images on disk: an HDF5 file of cutouts, and beside it a table that says what they are.

`images.h5` holds `images` [N, y, x, band] float32 and `object_id` [N]; `galaxies.parquet` one row
an image, in the same order, in the layout `native`. While the set is made, `parts/` holds finished
chunks.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tinsley.errors import InputError
from tinsley.io.images import SET
from tinsley.io.results import make_folder, new_file, write_json, write_parquet

TABLE, RUN, PARTS = "galaxies.parquet", "run.json", "parts"
_ROWS = 16
"""Images of one HDF5 chunk: whole images, a few of them, can be read alone."""


class ImageSetFolder:
    """The folder of a set of images in the making, of which each file is whole or not there."""

    def __init__(self, folder: Path, setup: Mapping[str, Any]) -> None:
        """Begin a set, or open one that was begun with the same settings.

        Raises:
            InputError: The folder can not be made, or holds a set with other settings, or something
                else under the same names.
        """
        self.folder = make_folder(folder, "images")
        path = folder / RUN
        plain = json.loads(json.dumps(setup))
        if not path.exists():
            if any((folder / name).exists() for name in (SET, TABLE, PARTS)):
                raise self._holds("images that do not say how they were made")
            write_json(path, plain)
            return
        try:
            found = json.loads(path.read_text())
            changed = sorted(k for k in {*found, *plain} if found.get(k) != plain.get(k))
        except (ValueError, TypeError, OSError) as problem:
            raise self._holds(f"a {RUN} that can not be read") from problem
        if changed:
            raise self._holds(f"images made with another {', '.join(changed)}")

    @property
    def complete(self) -> bool:
        """True once both files are there."""
        return (self.folder / SET).exists() and (self.folder / TABLE).exists()

    def has(self, chunk: int) -> bool:
        """True if a chunk is finished."""
        return (self.folder / SET).exists() or self._part(chunk).exists()

    def save(self, chunk: int, images: np.ndarray) -> None:
        """Write a chunk of images, [n, band, y, x]."""
        self._part(chunk).parent.mkdir(exist_ok=True)
        with new_file(self._part(chunk)) as file:
            np.save(file, np.moveaxis(images, 1, -1).astype(np.float32), allow_pickle=False)

    def finish(self, table: Mapping[str, np.ndarray], attributes: Mapping[str, Any]) -> None:
        """Make one file of the chunks, and write the table.

        Args:
            table: Columns, of which `object_id` names the images too.
            attributes: Words and numbers about the images, kept with them.
        """
        if not (self.folder / SET).exists():
            self._join(table["object_id"], attributes)
        write_parquet(self.folder / TABLE, table, {k: str(v) for k, v in attributes.items()})
        shutil.rmtree(self.folder / PARTS, ignore_errors=True)

    def _join(self, object_id: np.ndarray, attributes: Mapping[str, Any]) -> None:
        parts = sorted((self.folder / PARTS).glob("images-*.npy"))
        shape = np.load(parts[0], mmap_mode="r").shape[1:]
        part = self.folder / f"{SET}.part"
        try:
            with h5py.File(part, "w") as file:
                rows = min(_ROWS, len(object_id))
                images = file.create_dataset(
                    "images", (len(object_id), *shape), np.float32, chunks=(rows, *shape)
                )
                images.attrs.update({"axes": "object, y, x, band", **attributes})
                file.create_dataset("object_id", data=object_id)
                start = 0
                for path in parts:
                    piece = np.load(path, allow_pickle=False)
                    images[start : start + len(piece)] = piece
                    start += len(piece)
            os.replace(part, self.folder / SET)
        except OSError as problem:
            raise InputError(
                f"{self.folder / SET} can not be written: {problem}; free some space, then run "
                "the same command again."
            ) from problem
        finally:
            part.unlink(missing_ok=True)

    def _part(self, chunk: int) -> Path:
        return self.folder / PARTS / f"images-{chunk:06d}.npy"

    def _holds(self, what: str) -> InputError:
        return InputError(
            f"{self.folder} holds {what}; choose another --out, or remove it to begin anew."
        )


def load_image_set(folder: Path, start: int = 0, stop: int | None = None) -> np.ndarray:
    """Some of the images of a finished set, [n, y, x, band].

    Raises:
        InputError: There is no finished set.
    """
    try:
        with h5py.File(folder / SET, "r") as file:
            return file["images"][start:stop]
    except (OSError, KeyError) as problem:
        raise InputError(f"{folder} holds no finished set of images: {problem}.") from problem
