"""Images of galaxies, one a name, from a folder or an HDF5 file. Start at `open_images`.

What becomes of an image: `no_image` where there is none of a galaxy's name; `bad_image` where it
can not be read, is of another size, number of channels or kind than the others, has a pixel that is
not finite, or more than a tenth of a channel at its highest value, which is what black, constant
and saturated images have in common.
"""

from __future__ import annotations

import abc
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import PIL.Image
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning

from tinsley.errors import InputError
from tinsley.status import Status

SUFFIXES = (".jpg", ".jpeg", ".png", ".npy", ".fits", ".fits.gz")
"""Of image files; where a galaxy has several, the first counts."""

SET = "images.h5"
"""The file of a simulated set, which lies in a folder with its table."""
MAX_PIXELS = 4096
"""Of a side: larger ones are no cutouts."""
MAX_AT_HIGHEST = 0.1
"""Share of a channel's pixels. Of 500 cutouts of SDSS (stretched to 8 bits) none has 0.002."""
MIN_LEVELS = 8
"""An 8-bit image whose pixels span fewer is black; of the same 500 none spans less than 80."""

_UNREADABLE = (
    OSError, ValueError, TypeError, EOFError, SyntaxError, KeyError, Warning, fits.VerifyError,
    PIL.Image.DecompressionBombError,
)  # fmt: skip
"""What the libraries raise of a damaged file."""
_HEAD = 64
"""Images that are read to learn what they are like."""


class ImageProblem(Exception):
    """Why a galaxy has no usable image: a status and a clause for the reader."""

    def __init__(self, status: Status, words: str) -> None:
        super().__init__(words)
        self.status = status


@dataclass(frozen=True)
class ImageForm:
    """What images must be like to be used together.

    Attributes:
        pixels_read: Side of the square as it is in the file.
        channels: Of each pixel.
        stretched: True for 8 bits, which are stretched colours, not fluxes.
        pixels: Side after averaging, a divisor of `pixels_read`.
    """

    pixels_read: int
    channels: int
    stretched: bool
    pixels: int

    @property
    def dtype(self) -> np.dtype:
        """That holds the pixels: bytes as read, means of them as float16 (to 0.06), else float32.

        Means of 2 x 2 bytes are exact.
        """
        if not self.stretched:
            return np.dtype(np.float32)
        return np.dtype(np.uint8 if self.pixels == self.pixels_read else np.float16)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


class ImageSet(NamedTuple):
    """Images of some galaxies.

    Attributes:
        images: [n, channel, y, x], of the dtype of their form; 0 where there is none.
        status: A word of `Status`, or "" where the image can be used, [n].
        problem: Why the first image that can not be used can not; "" if all can.
    """

    images: np.ndarray
    status: np.ndarray
    problem: str


class AbstractImages(abc.ABC):
    """Images by the galaxies' names."""

    label: str

    @abc.abstractmethod
    def read(self, name: str) -> np.ndarray:
        """The image of a name as it is stored, [y, x, channel]; ImageProblem where it can not."""


class FolderImages(AbstractImages):
    """A folder of files `<object_id>.jpg`, `.png`, `.npy` or `.fits`."""

    def __init__(self, folder: Path) -> None:
        self.label = str(folder)
        self._files: dict[str, Path] = {}
        for suffix in reversed(SUFFIXES):
            found = (path for path in folder.iterdir() if path.name.lower().endswith(suffix))
            self._files |= {path.name[: -len(suffix)]: path for path in found}
        if not self._files:
            raise InputError(
                f"{folder} holds no image; expected files <object_id>{', '.join(SUFFIXES)}."
            )

    def read(self, name: str) -> np.ndarray:
        path = self._files.get(name)
        if path is None:
            raise ImageProblem(Status.NO_IMAGE, f"{self.label} has no image of {name!r}")
        return read_image(path)


class Hdf5Images(AbstractImages):
    """An HDF5 file: `images` [n, y, x, channel] or [n, y, x], and `object_id` [n]."""

    def __init__(self, path: Path) -> None:
        self.label = str(path)
        try:
            self._file = h5py.File(path)
            self._images, names = self._file["images"], np.asarray(self._file["object_id"])
        except (OSError, KeyError) as problem:
            raise InputError(
                f"{path} can not be read; expected HDF5 with `images` [N, H, W, C] and "
                "`object_id` [N]."
            ) from problem
        if self._images.ndim not in (3, 4) or names.shape != self._images.shape[:1]:
            raise InputError(
                f"{path} has `images` {list(self._images.shape)} and `object_id` "
                f"{list(names.shape)}; expected [N, H, W, C] and [N]."
            )
        words = [v.decode() if isinstance(v, bytes) else str(v) for v in names.tolist()]
        self._row = {word.strip(): row for row, word in enumerate(words)}

    def read(self, name: str) -> np.ndarray:
        row = self._row.get(name)
        if row is None:
            raise ImageProblem(Status.NO_IMAGE, f"{self.label} has no image of {name!r}")
        try:
            return _with_channel(np.asarray(self._images[row]), f"{self.label}, row {row}")
        except OSError as problem:
            words = f"row {row} of {self.label} can not be read"
            raise ImageProblem(Status.BAD_IMAGE, words) from problem


def open_images(path: str | Path) -> AbstractImages:
    """Images in a folder, or in an HDF5 file; `images.h5` in a folder stands for all of it.

    Raises:
        InputError: There is no such thing, or nothing in it that could be an image.
    """
    path = Path(path)
    if (path / SET).is_file():
        return Hdf5Images(path / SET)
    if path.is_dir():
        return FolderImages(path)
    if path.is_file():
        return Hdf5Images(path)
    raise InputError(f"images {path} do not exist; expected a folder of cutouts or an HDF5 file.")


def read_image(path: Path) -> np.ndarray:
    """One file, [y, x, channel]; FITS cubes are [channel, y, x] on disk.

    Raises:
        ImageProblem: It can not be read.
    """
    name = path.name.lower()
    kinds = {".npy": _read_npy, ".fits": _read_fits, ".fits.gz": _read_fits}
    read = next((kinds[suffix] for suffix in kinds if name.endswith(suffix)), _read_picture)
    try:
        return _with_channel(read(path), str(path))
    except _UNREADABLE as problem:
        said = " ".join(str(problem).split())[:120]
        raise ImageProblem(Status.BAD_IMAGE, f"{path} can not be read ({said})") from problem


def _read_picture(path: Path) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with PIL.Image.open(path) as picture:
            if max(picture.size) > MAX_PIXELS:
                raise ValueError(f"{picture.size} pixels")
            deep = picture.mode.startswith(("I", "F"))
            plain = picture if deep or picture.mode in ("L", "RGB") else picture.convert("RGB")
            return np.asarray(plain, np.float32 if deep else np.uint8)


def _read_npy(path: Path) -> np.ndarray:
    return np.load(path, allow_pickle=False)


def _read_fits(path: Path) -> np.ndarray:
    with warnings.catch_warnings(), path.open("rb") as file:  # astropy leaves damaged files open
        warnings.simplefilter("error", AstropyWarning)
        with fits.open(file, memmap=False) as hdus:
            for hdu in hdus:
                if hdu.is_image and hdu.data is not None and hdu.data.ndim in (2, 3):
                    image = np.asarray(hdu.data)
                    return image if image.ndim == 2 else np.moveaxis(image, 0, -1)
    raise ValueError("no image of 2 or 3 axes in it")


def _with_channel(image: np.ndarray, label: str) -> np.ndarray:
    """[y, x, channel], bytes or float32."""
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.dtype.kind not in "uif" or max(image.shape) > MAX_PIXELS:
        words = f"{label} is {image.dtype} {list(image.shape)}, not numbers [y, x, channel]"
        raise ImageProblem(Status.BAD_IMAGE, words)
    return image if image.dtype == np.uint8 else image.astype(np.float32)


def find_form(
    source: AbstractImages, names: Sequence[Any] | np.ndarray, pixels: int | None = None
) -> ImageForm:
    """What most of the images of some galaxies are like, judged by the first that can be read.

    Args:
        source: The images.
        names: Of the galaxies.
        pixels: Side to average to; None to leave them as they are.

    Raises:
        InputError: There is no image of any of them; most are not square; `pixels` is no divisor.
    """
    shapes: Counter[tuple[int, int, int, bool]] = Counter()
    first = "no names were given"
    for name in names:
        try:
            image = source.read(str(name))
            shapes[(*image.shape, image.dtype == np.uint8)] += 1
        except ImageProblem as problem:
            first = str(problem) if first.startswith("no names") else first
        if shapes.total() >= _HEAD:
            break
    if not shapes:
        raise InputError(f"no image of the table's galaxies in {source.label}: {first}.")
    y, x, channels, stretched = shapes.most_common(1)[0][0]
    if y != x:
        raise InputError(
            f"the images of {source.label} are {y} x {x} x {channels}; expected squares "
            "[y, x, channel]. Cut or transpose them."
        )
    if pixels is not None and (pixels > x or x % pixels):
        raise InputError(
            f"images of {x} pixels can not be averaged to {pixels}; give a divisor of {x}."
        )
    return ImageForm(x, channels, bool(stretched), pixels or x)


def load_images(
    source: AbstractImages,
    names: Sequence[Any] | np.ndarray,
    form: ImageForm,
    on_images: Callable[[int], None] = lambda number: None,
) -> ImageSet:
    """The images of some galaxies in memory; what is wrong with one is in its status.

    Args:
        source: Where they are.
        names: Of the galaxies, in order.
        form: What they must be like.
        on_images: Called with 1 after each.
    """
    shape = (len(names), form.channels, form.pixels, form.pixels)
    images, status = np.zeros(shape, form.dtype), np.full(len(names), "", dtype="<U32")
    first = ""
    for i, name in enumerate(names):
        try:
            images[i] = _averaged(_sound(source.read(str(name)), form), form)
        except ImageProblem as problem:
            status[i], first = str(problem.status), first or f"{name}: {problem}"
        on_images(1)
    return ImageSet(images, status, first)


def _sound(image: np.ndarray, form: ImageForm) -> np.ndarray:
    """The same image, if it is of that form and can be of a galaxy."""
    expected = (form.pixels_read, form.pixels_read, form.channels)
    stretched = image.dtype == np.uint8
    if image.shape != expected or stretched != form.stretched:
        kinds = {True: "bytes", False: "real numbers"}
        raise ImageProblem(
            Status.BAD_IMAGE,
            f"{list(image.shape)} of {kinds[stretched]} where {list(expected)} of "
            f"{kinds[form.stretched]} were expected",
        )
    if not np.isfinite(image).all():
        raise ImageProblem(Status.BAD_IMAGE, "some pixels are not finite")
    highest = image.max(axis=(0, 1))
    if (np.mean(image == highest, axis=(0, 1)) > MAX_AT_HIGHEST).any():
        raise ImageProblem(Status.BAD_IMAGE, "a channel is black, constant or saturated")
    if stretched and int(image.max()) - int(image.min()) < MIN_LEVELS:
        raise ImageProblem(Status.BAD_IMAGE, "it is black")
    return image


def _averaged(image: np.ndarray, form: ImageForm) -> np.ndarray:
    """[channel, y, x] with blocks of pixels averaged."""
    image = np.moveaxis(image, -1, 0)
    if form.pixels == form.pixels_read:
        return image
    size = form.pixels_read // form.pixels
    blocks = image.reshape(form.channels, form.pixels, size, form.pixels, size)
    return blocks.mean(axis=(2, 4), dtype=np.float32)
