"""`tinsley simulate-images` as a user runs it, and the folder that it writes."""

import sys

import h5py
import numpy as np
import pytest

from tinsley.cli.main import run
from tinsley.errors import InputError
from tinsley.io.catalogs import open_catalog
from tinsley.io.image_sets import ImageSetFolder, load_image_set
from tinsley.io.runs import load_galaxies
from tinsley.io.surveys import load_survey
from tinsley.observe.gallery import PROPERTIES

SMALL = (
    "--number", "18", "--pixels", "32", "--redshift-min", "0.05", "--redshift-max", "0.06",
    "--seed", "3",
)  # fmt: skip


def simulate(monkeypatch, out, *options):
    monkeypatch.setattr(sys, "argv", ["tinsley", "simulate-images", "--out", str(out), *options])
    with pytest.raises(SystemExit) as ended:
        run()
    return ended.value.code or 0


@pytest.mark.slow
def test_a_set_is_written_and_comes_again_the_same(tmp_path, monkeypatch, own_cache, capsys):
    out = tmp_path / "set"
    assert simulate(monkeypatch, out, *SMALL) == 0
    with h5py.File(out / "images.h5") as file:
        images, object_id = file["images"][:], file["object_id"][:]
        assert file["images"].attrs["bands"] == "gri"
    assert images.shape == (18, 32, 32, 3)
    assert images.dtype == np.float32
    np.testing.assert_array_equal(object_id, np.arange(18))
    galaxies = load_galaxies(out)
    assert set(PROPERTIES) <= set(galaxies)
    seen = images[..., 1].sum(axis=(1, 2))
    assert np.all((seen > 0.4 * galaxies["flux_r"]) & (seen < 1.2 * galaxies["flux_r"]))
    mag = 22.5 - 2.5 * np.log10(galaxies["flux_r"])
    assert np.all((mag >= 16.0) & (mag <= 17.78))
    assert (out / "cutouts.png").stat().st_size > 10_000
    assert not (out / "parts").exists()
    survey = load_survey("sdss")
    photometry = next(open_catalog(out / "galaxies.parquet", survey).chunks(18))
    assert np.all(photometry.usable)
    np.testing.assert_allclose(photometry.flux, np.stack(
        [galaxies[f"flux_{band}"] for band in survey.bands], axis=1
    ))  # fmt: skip

    before = (out / "images.h5").stat().st_mtime_ns
    assert simulate(monkeypatch, out, *SMALL) == 0
    assert (out / "images.h5").stat().st_mtime_ns == before
    assert simulate(monkeypatch, out, *SMALL, "--noise-scale", "2") == 2
    assert "another noise_scale" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--bands", "gxi"), 'letters of "ugriz"'),
        (("--bands", "gg"), 'letters of "ugriz"'),
        (("--redshift-min", "0.2"), "--redshift-min below --redshift-max"),
        (("--mag-min", "18"), "--mag-min below --mag-max"),
        (("--noise-scale", "0"), "--noise-scale above 0"),
        (("--size-scale", "-1"), "--size-scale above 0"),
        (("--pixels", "4"), "pixels"),
        (("--number", "0"), "number"),
    ],
)
def test_bad_options_are_refused_in_a_sentence(tmp_path, monkeypatch, capsys, options, words):
    assert simulate(monkeypatch, tmp_path / "set", *options) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


def test_a_stopped_set_goes_on(tmp_path, rng_images):
    setup = {"number": 5, "seed": 1}
    ImageSetFolder(tmp_path, setup).save(0, rng_images[:3])
    again = ImageSetFolder(tmp_path, setup)
    assert again.has(0)
    assert not again.has(1)
    again.save(1, rng_images[3:])
    assert not again.complete
    again.finish({"object_id": np.arange(5)}, {"bands": "gr"})
    assert again.complete
    np.testing.assert_array_equal(load_image_set(tmp_path), np.moveaxis(rng_images, 1, -1))
    np.testing.assert_array_equal(load_image_set(tmp_path, 1, 2), load_image_set(tmp_path)[1:2])
    assert ImageSetFolder(tmp_path, setup).has(1)


def test_other_settings_and_strange_folders_are_refused(tmp_path, rng_images):
    folder = ImageSetFolder(tmp_path / "a", {"seed": 1})
    with pytest.raises(InputError, match="images made with another seed"):
        ImageSetFolder(tmp_path / "a", {"seed": 2})
    (folder.folder / "run.json").write_text("{")
    with pytest.raises(InputError, match="can not be read"):
        ImageSetFolder(tmp_path / "a", {"seed": 1})
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "images.h5").write_bytes(b"")
    with pytest.raises(InputError, match="do not say how they were made"):
        ImageSetFolder(tmp_path / "b", {"seed": 1})
    with pytest.raises(InputError, match="no finished set"):
        load_image_set(tmp_path / "b")


@pytest.fixture
def rng_images():
    return np.random.default_rng(0).normal(size=(5, 2, 16, 16)).astype(np.float32)
