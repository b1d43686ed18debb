import errno

import h5py
import numpy as np
import pytest

from tinsley.errors import InputError
from tinsley.io.grids import load_ssp_grid, save_ssp_grid
from tinsley.sps.ssp import SspGrid

LSUN_HZ_PER_AA = 2.99792458e18  # times 1 / wave_aa^2


@pytest.fixture
def saved(tiny_ssp, tmp_path):
    path = tmp_path / "tiny.h5"
    save_ssp_grid(tiny_ssp, path)
    return path


def write_dsps(path, grid: SspGrid, **extra):
    with h5py.File(path, "w") as file:
        file["ssp_lgmet"] = grid.log10_z_zsun + np.log10(0.019)
        file["ssp_lg_age_gyr"] = grid.log10_age_yr - 9
        file["ssp_wave"] = grid.wave_rest_aa
        file["ssp_flux"] = grid.lum_lsun_aa * grid.wave_rest_aa**2 / LSUN_HZ_PER_AA
        for name, values in extra.items():
            file[name] = values


def test_saved_and_loaded_is_the_original(tiny_ssp, saved):
    back = load_ssp_grid(saved)
    for name in ("log10_z_zsun", "log10_age_yr", "wave_rest_aa", "live_fraction"):
        np.testing.assert_array_equal(getattr(back, name), getattr(tiny_ssp, name))
    seen = tiny_ssp.lum_lsun_aa > 1e-20 * tiny_ssp.lum_lsun_aa.max(axis=-1, keepdims=True)
    np.testing.assert_allclose(back.lum_lsun_aa[seen], tiny_ssp.lum_lsun_aa[seen], rtol=4e-4)
    assert (back.name, back.lsun_erg_s, back.about) == ("tiny", 3.828e33, {"source": "made up"})
    assert back.lum_lsun_aa.dtype == np.float64


def test_darkness_stays_dark(tiny_ssp, tmp_path):
    lum = tiny_ssp.lum_lsun_aa.copy()
    lum[0, 0] = 0.0
    lum[1, 1, :10] = 0.0
    lum[2, 2] = 3.0  # a flat spectrum has no range to scale by
    dark = SspGrid(**{**vars(tiny_ssp), "lum_lsun_aa": lum})
    save_ssp_grid(dark, tmp_path / "dark.h5")
    back = load_ssp_grid(tmp_path / "dark.h5").lum_lsun_aa
    assert not back[0, 0].any()
    assert not back[1, 1, :10].any()
    np.testing.assert_allclose(back[2, 2], 3.0, rtol=1e-9)


def test_a_full_disk_leaves_the_old_file_and_no_part(tiny_ssp, saved, monkeypatch):
    before = saved.read_bytes()

    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(h5py.File, "create_dataset", full)
    with pytest.raises(OSError, match="No space left"):
        save_ssp_grid(tiny_ssp, saved)
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == ["tiny.h5"]


def test_dsps_grid_in_tinsleys_units(tiny_ssp, tmp_path):
    write_dsps(tmp_path / "dsps.h5", tiny_ssp, live_fraction=tiny_ssp.live_fraction)
    grid = load_ssp_grid(tmp_path / "dsps.h5")
    np.testing.assert_allclose(grid.log10_z_zsun, tiny_ssp.log10_z_zsun, atol=1e-12)
    np.testing.assert_allclose(grid.log10_age_yr, tiny_ssp.log10_age_yr, atol=1e-12)
    np.testing.assert_allclose(grid.lum_lsun_aa, tiny_ssp.lum_lsun_aa, rtol=1e-12)
    np.testing.assert_array_equal(grid.live_fraction, tiny_ssp.live_fraction)
    assert grid.name == "dsps"
    assert "live_fraction" not in grid.about


def test_dsps_grid_without_living_fractions_takes_the_embedded_ones(tiny_ssp, tmp_path):
    write_dsps(tmp_path / "dsps.h5", tiny_ssp)
    grid = load_ssp_grid(tmp_path / "dsps.h5")
    own = load_ssp_grid()
    assert "embedded" in grid.about["live_fraction"]
    met, age = 1, 5
    at_age = [
        np.interp(tiny_ssp.log10_age_yr[age], own.log10_age_yr, row) for row in own.live_fraction
    ]
    expected = np.interp(tiny_ssp.log10_z_zsun[met], own.log10_z_zsun, at_age)
    assert grid.live_fraction[met, age] == pytest.approx(expected, rel=1e-12)


def change(path, action):
    with h5py.File(path, "r+") as file:
        action(file)


def shorten(file):
    values = file["live_fraction"][:2]
    del file["live_fraction"]
    file["live_fraction"] = values


def turn_wavelengths(file):
    file["wave_rest_aa"][...] = file["wave_rest_aa"][()][::-1]


BROKEN = {
    "text": (lambda p: p.write_text("wave,flux\n1,2\n"), "expected an HDF5 file"),
    "empty": (lambda p: p.write_bytes(b""), "expected an HDF5 file"),
    "absent": (lambda p: p.unlink(), "no such file"),
    "folder": (lambda p: (p.unlink(), p.mkdir()), "no such file"),
    "other HDF5": (lambda p: h5py.File(p, "w").close(), "expected a Tinsley or a DSPS grid"),
    "other version": (
        lambda p: change(p, lambda f: f.attrs.modify("format_number", 99)),
        "expected format number 1; got 99",
    ),
    "missing dataset": (
        lambda p: change(p, lambda f: f.pop("ln_lum_step")),
        "'ln_lum_step' is missing",
    ),
    "missing name": (lambda p: change(p, lambda f: f.attrs.pop("name")), "'name' is missing"),
    "wrong shape": (lambda p: change(p, shorten), r"need shape \(3, 8\)"),
    "wrong order": (lambda p: change(p, turn_wavelengths), "must increase"),
}


@pytest.mark.parametrize(("spoil", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_files_are_refused_in_one_sentence(saved, spoil, message):
    spoil(saved)
    with pytest.raises(InputError, match=message) as caught:
        load_ssp_grid(saved)
    assert str(saved) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.9999])
def test_truncated_files_are_refused(saved, share):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match="cut short"):
        load_ssp_grid(saved)


def test_damaged_luminosities_are_refused(saved):
    with h5py.File(saved) as file:
        where = file["lum_code"].id.get_chunk_info(0)
    content = bytearray(saved.read_bytes())
    middle = where.byte_offset + where.size // 2
    content[middle : middle + 8] = bytes(255 - b for b in content[middle : middle + 8])
    saved.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        load_ssp_grid(saved)


@pytest.mark.parametrize("name", ["ssp_lgmet", "ssp_lg_age_gyr", "ssp_wave"])
def test_incomplete_dsps_files_are_refused(tiny_ssp, tmp_path, name):
    write_dsps(tmp_path / "dsps.h5", tiny_ssp)
    change(tmp_path / "dsps.h5", lambda f: f.pop(name))
    with pytest.raises(InputError, match=f"{name!r} is missing"):
        load_ssp_grid(tmp_path / "dsps.h5")
