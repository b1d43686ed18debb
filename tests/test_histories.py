"""Bases and histories from files: the shipped ones are sound, bad ones are refused."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tinsley.errors import InputError
from tinsley.io.histories import (
    PROVABGS_METALLICITY_FILE,
    PROVABGS_SFH_FILE,
    PROVABGS_TIME_FILE,
    load_diffstarpop_histories,
    load_provabgs_bases,
    load_sfh_bases,
)
from tinsley.sps.sfh import EDGES_GYR, basis_mass, mass_before_gyr

HEADER = "lookback_gyr,basis_1,basis_2,basis_3,basis_4"
ROOT = Path(__file__).resolve().parents[1]
PAPERS = ROOT.parent / "shared" / "reference" / "provabgs_nmf"


@pytest.fixture(scope="module")
def bases():
    return load_sfh_bases()


def test_default_bases_form_equal_mass_over_the_age_of_the_universe(bases):
    assert bases.sfr.shape == (4, len(bases.lookback_gyr))
    assert bases.lookback_gyr[0] == 0.0
    assert bases.lookback_gyr[-1] == 13.8
    np.testing.assert_allclose(basis_mass(bases, 13.8).sum(axis=1), 1.0, atol=1e-6)


def test_default_bases_run_from_young_to_old(bases):
    middle = 0.5 * (EDGES_GYR[1:] + EDGES_GYR[:-1])
    mean_age = basis_mass(bases, 13.8) @ middle
    assert np.all(np.diff(mean_age) > 1.5)
    assert mean_age[0] < 2.5


@pytest.mark.parametrize("recent_gyr", [0.1, 1.0])
def test_the_first_basis_carries_recent_star_formation(bases, recent_gyr):
    formed = mass_before_gyr(bases, np.array(recent_gyr))
    assert formed[0] > 0.95 * formed.sum()
    assert formed[0] > 0.25 * recent_gyr


def test_flat_dirichlet_betas_span_quenched_and_star_forming_galaxies(bases):
    beta = np.random.default_rng(0).dirichlet(np.ones(4), 20_000)
    mass = beta @ basis_mass(bases, 13.0).sum(axis=1)
    ssfr_yr = beta @ mass_before_gyr(bases, np.array(0.1)) / mass / 1e8
    assert np.mean(ssfr_yr < 1e-11) > 0.05
    assert np.mean(ssfr_yr > 1e-10) > 0.2


def test_own_bases_are_read_and_must_run_from_young_to_old(tmp_path, bases):
    table = np.column_stack([bases.lookback_gyr, bases.sfr.T])
    np.savetxt(tmp_path / "own.csv", table, delimiter=",", header=HEADER, comments="")
    np.testing.assert_allclose(load_sfh_bases(tmp_path / "own.csv").sfr, bases.sfr)
    np.savetxt(tmp_path / "bad.csv", table[::-1], delimiter=",", header=HEADER, comments="")
    with pytest.raises(InputError, match=r"bad.csv: lookback times must be finite and increase"):
        load_sfh_bases(tmp_path / "bad.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lookback_gyr,basis_1\n0,1\n1,1\n", "the first line must be"),
        ("", "the first line must be"),
        (HEADER + "\n", "expected rows of numbers; got none"),
        (HEADER + "\n0,1,1,1,1\n1,1,1,1\n", "equally long rows"),
        (HEADER + "\n0,1,1,one,1\n1,1,1,1,1\n", "equally long rows"),
        (HEADER + "\n0,1,1,1,1,1\n1,1,1,1,1,1\n", "expected 4 bases; got 5"),
        (HEADER + "\n0,1,1,1,1\n1,1,-1,1,1\n", "not negative"),
    ],
)
def test_a_bad_bases_file_is_refused(tmp_path, text, message):
    path = tmp_path / "bases.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        load_sfh_bases(path)


def test_missing_and_binary_bases_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="expected a readable text file"):
        load_sfh_bases(tmp_path / "absent.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="expected a readable text file"):
        load_sfh_bases(tmp_path / "binary.csv")


@pytest.fixture
def papers_folder(tmp_path):
    """Three files as provabgs writes them: time from old to young, rows in its own order."""
    np.savetxt(tmp_path / PROVABGS_TIME_FILE, [3.0, 2.0, 1.0])
    rows = [[0, 2, 1], [0, 3, 1], [0, 1, 1], [0, 4, 1]]
    np.savetxt(tmp_path / PROVABGS_SFH_FILE, np.array(rows, float))
    np.savetxt(tmp_path / PROVABGS_METALLICITY_FILE, [[0.1, 0.2, 0.3], [0.6, 0.5, 0.4]])
    return tmp_path


def test_provabgs_files_are_turned_and_reordered(papers_folder):
    sfh, metallicity = load_provabgs_bases(papers_folder)
    np.testing.assert_array_equal(sfh.lookback_gyr, [1, 2, 3])
    np.testing.assert_array_equal(sfh.sfr, [[1, 1, 0], [1, 2, 0], [1, 3, 0], [1, 4, 0]])
    np.testing.assert_array_equal(metallicity.lookback_gyr, [1, 2, 3])
    np.testing.assert_array_equal(metallicity.sfr, [[0.3, 0.2, 0.1], [0.4, 0.5, 0.6]])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (PROVABGS_SFH_FILE, "1 2 3\n", "expected 4 bases"),
        (PROVABGS_SFH_FILE, "1 2\n" * 4, "need shape"),
        (PROVABGS_METALLICITY_FILE, "1 2 3\n", "expected 2 bases"),
        (PROVABGS_METALLICITY_FILE, "1 2 x\n", "equally long rows"),
        (PROVABGS_TIME_FILE, "1\n2\n3\n", "must be finite and increase"),
        (PROVABGS_TIME_FILE, "\n", "got none"),
    ],
)
def test_bad_provabgs_files_are_refused(papers_folder, name, text, message):
    (papers_folder / name).write_text(text)
    with pytest.raises(InputError, match=message):
        load_provabgs_bases(papers_folder)


def test_a_folder_without_provabgs_files_is_refused(tmp_path):
    with pytest.raises(InputError, match=f"{PROVABGS_TIME_FILE}: expected a readable text file"):
        load_provabgs_bases(tmp_path)


def test_the_papers_own_files():
    if not PAPERS.exists():
        pytest.skip(f"the papers' bases are not at {PAPERS}")
    sfh, metallicity = load_provabgs_bases(PAPERS)
    peaks_gyr = sfh.lookback_gyr[np.argmax(sfh.sfr, axis=1)]
    np.testing.assert_allclose(peaks_gyr, [1.17, 5.60, 8.37, 11.14], atol=0.01)
    np.testing.assert_allclose(metallicity.sfr[:, 0], [5.458, 0.0], atol=1e-3)
    assert metallicity.sfr.shape == (2, 50)


def test_held_out_histories_are_complete_and_end_at_the_age(make_age_gyr):
    histories = load_diffstarpop_histories()
    assert histories.mass_fraction.shape == (1500, 42)
    np.testing.assert_allclose(histories.mass_fraction.sum(axis=1), 1.0, atol=1e-6)
    assert histories.mass_fraction.min() >= 0
    beyond = EDGES_GYR[:-1] >= make_age_gyr(histories.redshift)[:, None]
    assert beyond.any()
    assert np.all(histories.mass_fraction[beyond] == 0)


def test_held_out_histories_are_balanced():
    histories = load_diffstarpop_histories()
    low, high = histories.redshift.min(), histories.redshift.max()
    assert 0.01 <= low < 0.02
    assert 0.59 < high <= 0.6
    assert np.all(np.histogram(histories.redshift, np.linspace(0, 0.6, 7))[0] >= 230)
    assert np.ptp(np.quantile(histories.log10_mstar_formed_msun, [0.05, 0.95])) > 3
    ssfr_yr = histories.mass_fraction[:, :20].sum(axis=1) / (EDGES_GYR[20] * 1e9)
    assert 0.3 < np.mean(ssfr_yr > 1e-11) < 0.7


@pytest.fixture(scope="module")
def make_age_gyr():
    from astropy.cosmology import FlatLambdaCDM

    return lambda redshift: FlatLambdaCDM(H0=67.7, Om0=0.307).age(redshift).to_value("Gyr")


def test_bad_history_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="expected a Parquet table"):
        load_diffstarpop_histories(tmp_path / "absent.parquet")
    (tmp_path / "text.parquet").write_text("no table")
    with pytest.raises(InputError, match="expected a Parquet table"):
        load_diffstarpop_histories(tmp_path / "text.parquet")
    columns = {"redshift": [0.1], "log10_mstar_formed": [10.0]}
    pq.write_table(pa.table(columns), tmp_path / "columns.parquet")
    with pytest.raises(InputError, match="expected a Parquet table"):
        load_diffstarpop_histories(tmp_path / "columns.parquet")
    pq.write_table(pa.table(columns | {"mass_fraction": [[1.0]]}), tmp_path / "bins.parquet")
    with pytest.raises(InputError, match="needs 42 bins"):
        load_diffstarpop_histories(tmp_path / "bins.parquet")


@pytest.mark.parametrize("name", ["sfh_nmf.csv", "diffstarpop_histories.parquet"])
def test_sources_and_benchmark_describe_the_files_that_ship(name):
    data = ROOT / "src" / "tinsley" / "data"
    digest = hashlib.sha256((data / name).read_bytes()).hexdigest()
    assert digest in (data / "SOURCES.md").read_text()
    report = json.loads((ROOT / "benchmarks" / "results" / "sfh_nmf.json").read_text())
    assert report["sha256"][name] == digest


def test_four_bases_reproduce_held_out_histories_as_reported():
    report = json.loads((ROOT / "benchmarks" / "results" / "sfh_nmf.json").read_text())
    fit = report["tinsley"]["fit_light"]
    assert report["draws"] >= 500
    assert fit["mass_last_100myr_dex"]["star_forming"]["p95"] < 0.4
    assert fit["mass_last_1gyr_dex"]["star_forming"]["p95"] < 0.2
    assert fit["age_mw_dex"]["p95"] < 0.05
    assert fit["mag"]["r"]["p95"] < 0.17
