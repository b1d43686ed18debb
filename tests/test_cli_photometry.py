"""`tinsley photometry` and `tinsley simulate`, as a user runs them."""

import sys

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest

from tinsley.cli.main import run
from tinsley.io.catalogs import open_catalog
from tinsley.io.surveys import load_survey

HEADER = (
    "log10_mstar_msun,beta_1,beta_2,beta_3,beta_4,f_burst,t_burst_gyr,log10_z_zsun,"
    "tau_bc,tau_ism,n_dust,redshift\n"
)
ROWS = f"""{HEADER}10.5,0.1,0.2,0.3,0.4,0.1,2.0,0.0,1.0,0.5,-0.7,0.1
11.0,0.7,0.1,0.1,0.1,0.0,0.05,-1.0,0.0,0.0,0.0,0.11
9.0,0.0,0.0,0.0,1.0,1.0,0.3,0.4,3.0,4.5,-2.5,0.12
"""


def tinsley(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["tinsley", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        run()
    return ended.value.code or 0


@pytest.fixture
def photometry(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def call(text, *options):
        source, out = tmp_path / "parameters.csv", tmp_path / "magnitudes.csv"
        source.write_text(text)
        code = tinsley(monkeypatch, "photometry", source, "--out", out, *options)
        return code, pyarrow.csv.read_csv(out).to_pydict() if out.exists() else None

    return call


def test_fast_and_exact_agree_also_outside_the_prior(photometry):
    code, fast = photometry(ROWS)
    assert code == 0
    code, exact = photometry(ROWS, "--exact")
    assert code == 0
    assert list(fast) == ["mag_u", "mag_g", "mag_r", "mag_i", "mag_z"]
    for band in fast:
        np.testing.assert_allclose(fast[band], exact[band], atol=0.01)
    assert 15 < fast["mag_r"][0] < 20


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("10.5,", "nan,", "row 1: expected finite"),
        ("11.0,0.7", "11.0,0.9", "row 2: expected beta_1"),
        ("0.4,3.0,4.5", "0.9,3.0,4.5", "row 3: expected log10_z_zsun"),
        ("-0.7,0.1\n", "-0.7,2.5\n", "row 1: expected redshift"),
        ("0.1,2.0,", "1.1,2.0,", "row 1: expected f_burst"),
        ("0.0,0.05,", "0.0,14.0,", "row 2: expected t_burst_gyr"),
        ("tau_bc", "tau_bx", "no column tau_bc"),
    ],
)
def test_rows_that_can_not_be_are_refused_by_number(photometry, capsys, old, new, words):
    code, out = photometry(ROWS.replace(old, new, 1))
    assert code == 2
    assert out is None
    assert words in capsys.readouterr().err.replace("\n", " ")


def test_gammas_need_the_papers_bases(photometry, capsys):
    code, _ = photometry(ROWS.replace("log10_z_zsun", "gamma_1"))
    assert code == 2
    assert "no column log10_z_zsun" in capsys.readouterr().err


def test_simulated_galaxies_are_a_catalogue_with_their_truth(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    out = tmp_path / "simulated.parquet"
    options = ["--number", 400, "--redshift-min", 0.1, "--redshift-max", 0.12, "--seed", 5]
    assert tinsley(monkeypatch, "simulate", "--out", out, *options) == 0
    survey = load_survey("sdss")
    photometry = next(open_catalog(out, survey).chunks(400))
    assert photometry.usable.all()
    table = pyarrow.parquet.read_table(out)
    assert {"true_log10_mstar_msun", "true_beta_4", "true_age_mw_gyr"} <= set(table.column_names)
    snr = photometry.flux / photometry.sigma
    assert np.median(snr) > 2
    assert snr.max() < 1.01 / (0.4 * np.log(10) * survey.error_floor_mag.min())


@pytest.mark.slow
def test_simulated_scatter_is_what_infer_will_assume(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    out, parameters = tmp_path / "simulated.parquet", tmp_path / "truth.csv"
    options = ["--number", 2000, "--redshift-min", 0.1, "--redshift-max", 0.12]
    assert tinsley(monkeypatch, "simulate", "--out", out, *options) == 0
    table = pyarrow.parquet.read_table(out)
    names = [n for n in HEADER.strip().split(",") if n != "redshift"]
    columns = {name: table[f"true_{name}"] for name in names} | {"redshift": table["redshift"]}
    pyarrow.csv.write_csv(pyarrow.table(columns), parameters)
    assert tinsley(monkeypatch, "photometry", parameters, "--out", tmp_path / "mags.csv") == 0
    magnitudes = pyarrow.csv.read_csv(tmp_path / "mags.csv")
    survey = load_survey("sdss")
    seen = next(open_catalog(out, survey).chunks(2000))
    for b, band in enumerate(survey.bands):
        true = 10 ** (0.4 * (22.5 - magnitudes[f"mag_{band}"].to_numpy()))
        pull = (seen.flux[:, b] - true) / seen.sigma[:, b]
        # standard errors of mean and deviation of 2,000 normal numbers: 0.022 and 0.016
        assert abs(pull.mean()) < 0.1
        assert abs(pull.std() - 1) < 0.07


def test_redshift_ends_must_be_in_order(tmp_path, monkeypatch, capsys):
    options = ["--redshift-min", 0.3, "--redshift-max", 0.2]
    assert tinsley(monkeypatch, "simulate", "--out", tmp_path / "s.csv", *options) == 2
    assert "--redshift-min below --redshift-max" in capsys.readouterr().err
