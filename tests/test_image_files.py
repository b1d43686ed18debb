"""Images from files: every kind reads the same, and what is wrong with one is its status."""

from __future__ import annotations

import h5py
import numpy as np
import PIL.Image
import pytest
from astropy.io import fits

from tinsley.errors import InputError
from tinsley.io.images import ImageForm, find_form, load_images, open_images

N, SIDE = 5, 32
FORM = ImageForm(SIDE, 3, stretched=False, pixels=SIDE)
BYTES = ImageForm(SIDE, 3, stretched=True, pixels=SIDE)


@pytest.fixture
def colours() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 200, (N, SIDE, SIDE, 3), dtype=np.uint8)


def save(image, path) -> None:
    if path.suffix == ".npy":
        np.save(path, image)
    elif path.suffix == ".fits":
        fits.PrimaryHDU(np.moveaxis(image, -1, 0)).writeto(path)
    else:
        PIL.Image.fromarray(image).save(path)


@pytest.fixture
def folder(colours, tmp_path):
    made = tmp_path / "cutouts"
    made.mkdir()
    for i, image in enumerate(colours):
        save(image, made / f"{i}.png")
    return made


def test_every_kind_of_file_reads_the_same(colours, tmp_path):
    expected = np.moveaxis(colours, -1, 1)
    for suffix in (".png", ".npy", ".fits"):
        made = tmp_path / suffix
        made.mkdir()
        for i, image in enumerate(colours):
            save(image, made / f"{i}{suffix}")
        read = load_images(open_images(made), range(N), BYTES)
        assert set(read.status) == {""}
        assert read.images.dtype == np.uint8
        np.testing.assert_array_equal(read.images, expected)
    with h5py.File(tmp_path / "all.h5", "w") as file:
        file["images"] = colours[::-1]
        file["object_id"] = np.arange(N)[::-1]
    read = load_images(open_images(tmp_path / "all.h5"), range(N), BYTES)
    np.testing.assert_array_equal(read.images, expected)


def test_a_folder_with_a_set_of_images_is_that_set(colours, tmp_path):
    with h5py.File(tmp_path / "images.h5", "w") as file:
        file["images"] = colours
        file["object_id"] = np.arange(N)
    save(colours[0], tmp_path / "cutouts.png")
    read = load_images(open_images(tmp_path), range(N), BYTES)
    np.testing.assert_array_equal(read.images, np.moveaxis(colours, -1, 1))


def test_jpeg_is_close_and_names_are_any_words(tmp_path):
    y, x = np.mgrid[:SIDE, :SIDE]
    image = np.stack([4 * x, 4 * y, 2 * x + 2 * y], -1).astype(np.uint8)
    save(image, tmp_path / "J1234+5.6.jpg")
    read = load_images(open_images(tmp_path), ["J1234+5.6"], BYTES).images[0]
    assert np.abs(read.astype(int) - np.moveaxis(image, -1, 0)).max() < 20


def test_real_numbers_and_one_channel(tmp_path):
    images = np.random.default_rng(2).normal(size=(N, SIDE, SIDE))
    with h5py.File(tmp_path / "all.h5", "w") as file:
        file["images"] = images
        file["object_id"] = [f"g{i}" for i in range(N)]
    source = open_images(tmp_path / "all.h5")
    names = [f"g{i}" for i in range(N)]
    form = find_form(source, names, 8)
    assert form == ImageForm(SIDE, 1, stretched=False, pixels=8)
    read = load_images(source, names, form)
    expected = images.reshape(N, 8, 4, 8, 4).mean((2, 4))
    np.testing.assert_allclose(read.images[:, 0], expected, atol=1e-6)


def test_bytes_are_averaged_exactly_by_two(folder, colours):
    form = find_form(open_images(folder), range(N), SIDE // 2)
    read = load_images(open_images(folder), range(N), form).images
    half = SIDE // 2
    expected = colours.reshape(N, half, 2, half, 2, 3).mean((2, 4))
    assert read.dtype == np.float16
    np.testing.assert_array_equal(read, np.moveaxis(expected, -1, 1))


HALF = np.arange(SIDE)[:, None, None] < SIDE // 2
SPECK = np.random.default_rng(0).random((SIDE, SIDE, 1)) < 0.02
EDITS = {
    "black": lambda image: 0 * image,
    "nearly_black": lambda image: 0 * image + 3 * SPECK,
    "white": lambda image: 0 * image + 255,
    "half_saturated": lambda image: np.where(HALF, 255, image),
    "dead_channel": lambda image: image * np.array([1, 0, 1]),
    "other_size": lambda image: image[:-1, :-1],
    "one_channel": lambda image: image[..., 0],
}
CONTENTS = {
    "truncated": lambda content: content[:-900],
    "no_picture": lambda content: b"<html>busy</html>",
    "empty": lambda content: b"",
}


@pytest.mark.parametrize("kind", [*EDITS, *CONTENTS])
def test_a_bad_image_is_a_status_and_the_others_are_read(kind, folder, colours):
    path = folder / "2.png"
    if kind in EDITS:
        save(EDITS[kind](colours[2]).astype(np.uint8), path)
    else:
        path.write_bytes(CONTENTS[kind](path.read_bytes()))
    read = load_images(open_images(folder), range(N), BYTES)
    assert read.status.tolist() == ["", "", "bad_image", "", ""]
    assert read.problem.startswith("2: ")
    assert not read.images[2].any()
    np.testing.assert_array_equal(read.images[3], np.moveaxis(colours[3], -1, 0))


@pytest.mark.parametrize("suffix", [".npy", ".fits"])
@pytest.mark.parametrize("kind", ["nan", "cut", "bytes"])
def test_bad_arrays(suffix, kind, tmp_path):
    image = np.random.default_rng(3).normal(size=(SIDE, SIDE, 3)).astype(np.float32)
    for name in ("0", "1"):
        save(image, tmp_path / f"{name}{suffix}")
    path = tmp_path / f"1{suffix}"
    content = path.read_bytes()
    path.unlink()
    if kind == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "bytes":
        save((image * 10 + 100).astype(np.uint8), path)
    else:
        image[3, 4, 1] = np.nan
        save(image, path)
    read = load_images(open_images(tmp_path), [0, 1], FORM)
    assert read.status.tolist() == ["", "bad_image"]


def test_a_name_without_an_image(folder):
    names = ["0", "7", "../cutouts/1", "1"]
    read = load_images(open_images(folder), names, BYTES)
    assert read.status.tolist() == ["", "no_image", "no_image", ""]


def test_most_images_decide_what_they_are_like(folder, colours):
    save(colours[0][:16, :16], folder / "a.png")
    assert find_form(open_images(folder), ["a", "gone", *range(N)]) == BYTES


def test_refusals(folder, colours, tmp_path):
    with pytest.raises(InputError, match="do not exist"):
        open_images(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no image"):
        open_images(tmp_path / "empty")
    with pytest.raises(InputError, match="expected HDF5"):
        open_images(folder / "0.png")
    with h5py.File(tmp_path / "short.h5", "w") as file:
        file["images"], file["object_id"] = colours, np.arange(2)
    with pytest.raises(InputError, match=r"expected \[N, H, W, C\]"):
        open_images(tmp_path / "short.h5")
    with pytest.raises(InputError, match="no image of the table's galaxies"):
        find_form(open_images(folder), ["x", "y"])
    with pytest.raises(InputError, match="give a divisor of 32"):
        find_form(open_images(folder), range(N), 20)
    np.save(tmp_path / "empty" / "0.npy", np.zeros((3, SIDE, SIDE)))
    with pytest.raises(InputError, match="expected squares"):
        find_form(open_images(tmp_path / "empty"), [0])
