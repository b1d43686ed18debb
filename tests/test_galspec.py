"""The MPA-JHU tables in the form that SDSS publishes them, joined by the spectrum's name."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from astropy.table import Table

from tinsley.cli.main import run
from tinsley.errors import InputError
from tinsley.io.galspec import PROPERTIES, load_galspec
from tinsley.io.results import write_csv, write_parquet
from tinsley.io.tables import open_table

IDS = np.array([299489677444933632 + 2048 * i for i in range(8)])
"""Too long for a float64: neighbours would be the same galaxy."""
BPT = np.array([1, 1, 2, 4, 1, 1, 1, -1])
R_MAG = np.array([16.5, 17.0, 17.0, 17.0, 17.9, 15.9, 17.7, 17.0])
LGM = np.array([9.5, 10.1, 10.0, 11.0, 10.0, 10.0, -9999.0, 10.0])
OH = np.array([8.6, 9.0, -9999.0, -9999.0, 8.9, 8.9, 8.8, -9999.0])
KEPT = [0, 1]


def extra() -> dict[str, np.ndarray]:
    columns = {"lgm_tot_p50": LGM, "sfr_tot_p50": LGM / 10 - 1, "oh_p50": OH, "bptclass": BPT}
    return {"specObjID": IDS} | columns


def indx() -> dict[str, np.ndarray]:
    return {"specObjID": IDS, "d4000_n": 1.2 + np.arange(8) / 10, "tauv_cont": np.full(8, 0.5)}


def photometry() -> dict[str, np.ndarray]:
    order = np.array([6, 3, 0, 1, 2, 4, 5, 7])
    columns = {"specObjID": IDS, "petroMag_r": R_MAG, "modelMag_u": R_MAG + 2, "ra": R_MAG * 10}
    columns |= {"objID": IDS + 7, "survey": np.full(8, "legacy")}
    return {name: values[order] for name, values in columns.items()}


def as_fits(columns, path, *, blanks: int) -> None:
    """Upper case, names as padded text, rows of -9999 without a name, as in galSpec*-dr8.fits."""
    names = np.array([f"{v:>22}" for v in columns["specObjID"]] + [" " * 22] * blanks, dtype="S22")
    pad = {k: np.r_[v.astype(np.float32), np.full(blanks, -9999.0, np.float32)]
           for k, v in columns.items() if k != "specObjID"}  # fmt: skip
    Table({"SPECOBJID": names} | {k.upper(): v for k, v in pad.items()}).write(path)


@pytest.fixture(params=["fits", "csv", "parquet"])
def tables(request, tmp_path):
    paths = [tmp_path / f"{name}.{request.param}" for name in ("extra", "indx")]
    for path, columns in zip(paths, (extra(), indx()), strict=True):
        if request.param == "fits":
            as_fits(columns, path, blanks=3)
        elif request.param == "csv":
            write_csv(path, columns)
        else:
            write_parquet(path, columns, {})
    write_csv(tmp_path / "phot.csv", photometry())
    return tmp_path / "phot.csv", *paths


def test_rows_are_joined_by_name_and_cut_as_in_the_paper(tables):
    joined = load_galspec(*tables)
    columns = joined.columns
    assert columns["specObjID"].tolist() == [str(IDS[i]) for i in KEPT]
    assert columns["object_id"].tolist() == [str(IDS[i]) for i in KEPT]
    np.testing.assert_allclose(columns["log10_mstar_msun"], LGM[KEPT], rtol=1e-6)
    np.testing.assert_allclose(columns["log10_sfr_msun_yr"], LGM[KEPT] / 10 - 1, rtol=1e-5)
    np.testing.assert_allclose(columns["oh_12_log10"], OH[KEPT], rtol=1e-6)
    np.testing.assert_allclose(columns["dn4000"], [1.2, 1.3], rtol=1e-6)
    np.testing.assert_allclose(columns["a_v_mag"], 0.5 * 2.5 * np.log10(np.e), rtol=1e-6)
    np.testing.assert_allclose(columns["modelMag_u"], R_MAG[KEPT] + 2)
    assert columns["survey"].tolist() == ["legacy"] * 2
    assert list(joined.counts.values()) == [8, 8, 6, 3, 2]


def test_cuts_can_be_moved(tables):
    joined = load_galspec(*tables, star_forming=False, r_range_mag=(10.0, 20.0))
    assert set(joined.columns["specObjID"]) == {str(IDS[i]) for i in (0, 1, 4, 5)}


def test_galaxies_without_a_spectrum_are_left_out(tmp_path, tables):
    some = {k: v[4:] for k, v in photometry().items()}
    some["specObjID"] = np.array(["", "5", *some["specObjID"][2:].astype(str)])
    write_csv(tmp_path / "some.csv", some)
    joined = load_galspec(tmp_path / "some.csv", *tables[1:], star_forming=False,
                          r_range_mag=(10.0, 20.0))  # fmt: skip
    assert joined.counts["with a spectrum"] == 2


def test_refusals(tmp_path, tables):
    phot, extra_path, indx_path = tables
    lacking = tmp_path / "lacking.csv"
    write_csv(lacking, {k: v for k, v in photometry().items() if k != "petroMag_r"})
    with pytest.raises(InputError, match="no column petroMag_r"):
        load_galspec(lacking, extra_path, indx_path)
    with pytest.raises(InputError, match="no column d4000_n"):
        load_galspec(phot, extra_path, extra_path)
    twice = {k: np.r_[v, v[:1]] for k, v in photometry().items()}
    write_csv(lacking, twice)
    with pytest.raises(InputError, match="1 spectra more than once"):
        load_galspec(lacking, extra_path, indx_path)
    write_csv(lacking, {k: np.r_[v, v[:1]] for k, v in extra().items()})
    with pytest.raises(InputError, match="names a spectrum twice"):
        load_galspec(phot, lacking, indx_path)
    with pytest.raises(InputError, match=r"no galaxy .* is left: 8 photometry, 8 with a spectrum"):
        load_galspec(phot, extra_path, indx_path, r_range_mag=(1.0, 2.0))
    write_parquet(tmp_path / "real.parquet", extra() | {"specObjID": IDS.astype(float)}, {})
    with pytest.raises(InputError, match="lost the last digits"):
        load_galspec(phot, tmp_path / "real.parquet", indx_path)


def test_the_command(tables, tmp_path, monkeypatch, capsys):
    phot, extra_path, indx_path = tables
    words = ["galspec", phot, "--extra", extra_path, "--indx", indx_path, "--out"]
    monkeypatch.setattr(sys, "argv", ["tinsley", *map(str, [*words, tmp_path / "joined.parquet"])])
    with pytest.raises(SystemExit) as stop:
        run()
    assert not stop.value.code
    assert "2 galaxies" in capsys.readouterr().err
    assert set(PROPERTIES) < set(open_table(tmp_path / "joined.parquet").columns)
