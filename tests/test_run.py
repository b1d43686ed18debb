"""Whole runs: the same bits however they are cut, and a status for every row."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest

import tinsley
from tinsley.catalog.run import STATISTICS, RunSettings, judge, run_catalog
from tinsley.density.mixture import make_mixture
from tinsley.errors import InputError
from tinsley.infer.features import n_features_of_band
from tinsley.infer.likelihood import StudentT
from tinsley.infer.support import PhotometryDensity
from tinsley.io.catalogs import open_catalog
from tinsley.io.results import write_parquet
from tinsley.io.surveys import load_survey
from tinsley.observe.noise import SigmaGivenFlux
from tinsley.observe.survey import Photometry
from tinsley.sps.derived import DERIVED
from tinsley.status import Refine

DRAWS = 100
N = 20


def columns(ids=None) -> dict[str, np.ndarray]:
    """Faint galaxies, which the untrained flow can do, then one row of each kind of trouble."""
    rng = np.random.default_rng(4)
    flux = np.array([8.0, 25.0, 40.0, 50.0, 55.0]) * 10 ** rng.normal(0, 0.3, (N, 1))
    sigma = flux * 10 ** rng.uniform(-0.5, 0.3, (N, 5))
    redshift = rng.uniform(0.05, 0.06, N)
    flux[-7, 0], flux[-6, 1], sigma[-5, 2], sigma[-4, 3] = np.nan, -1e7, 0.0, -1.0
    redshift[-3], redshift[-2] = np.nan, 0.3
    flux[-1], sigma[-1] = np.nan, np.nan
    table = {"object_id": np.arange(N) * 2**32 + 9 if ids is None else ids, "redshift": redshift}
    for k, band in enumerate("ugriz"):
        table |= {f"flux_{band}": flux[:, k], f"flux_err_{band}": sigma[:, k]}
    return table


EXPECTED = ["bad_input"] * 4 + ["redshift_out_of_range"] * 2 + ["too_few_bands"]


@pytest.fixture(scope="module")
def run(small_loaded, tmp_path_factory):
    def run(table=None, out=None, on_chunk=lambda rows: None, loaded=small_loaded, **settings):
        folder = tmp_path_factory.mktemp("run")
        path = folder / "galaxies.parquet"
        write_parquet(path, table or columns(), {})
        out = out or folder / "out"
        usual = {"draws": DRAWS, "command": "tinsley infer", "refine": Refine.NEVER}
        chosen = RunSettings(**(usual | settings))
        catalog = open_catalog(path, load_survey("sdss"))
        run_catalog(loaded, catalog, None, out, chosen, on_chunk)
        return out

    return run


@pytest.fixture(scope="module")
def whole(run) -> Path:
    return run()


def galaxies(out) -> dict[str, np.ndarray]:
    return pq.read_table(out / "galaxies.parquet").to_pydict()


def draws(out) -> dict[str, np.ndarray]:
    tables = [pq.read_table(path) for path in sorted((out / "draws").glob("*.parquet"))]
    return {
        name: np.concatenate([t[name].to_numpy() for t in tables])
        for name in tables[0].column_names
    }


def assert_same(one, other, order=slice(None)):
    one, other = galaxies(one), galaxies(other)
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(
            np.array(one[name])[order], np.array(other[name]), err_msg=name
        )


def test_every_row_has_its_status_and_the_others_go_on(whole):
    table = galaxies(whole)
    status = np.array(table["status"])
    assert status[-7:].tolist() == EXPECTED
    done = np.isin(status[:-7], ["ok", "low_ess"])
    assert done.all()
    for name, values in table.items():
        if name == "method":
            assert values == ["flow"] * (N - 7) + [""] * 7
        elif name == "n_draws":
            assert values == [DRAWS] * (N - 7) + [0] * 7
        elif name == "rhat":
            assert np.all(np.isnan(values))  # there are no chains
        elif name not in ("object_id", "redshift", "status"):
            assert np.all(np.isnan(values[-7:])), name
            assert np.all(np.isfinite(values[:-7])), name


@pytest.mark.parametrize("limit", [0.0, np.inf])
def test_unusual_photometry_is_said(limit, run, whole, small_loaded):
    """An untrained density, of which everything or nothing is unusual; all else stays."""
    loaded = with_support(small_loaded, limit)
    before, after = galaxies(whole), galaxies(run(loaded=loaded))
    usual = before.pop("status")
    expected = ["unusual_photometry"] * (N - 7) if limit == 0 else usual[:-7]
    assert after.pop("status") == expected + EXPECTED
    for name, values in before.items():
        np.testing.assert_array_equal(np.array(after[name]), np.array(values), err_msg=name)


def test_the_first_word_that_applies_is_said(small_loaded):
    """All are unusual photometry; one is blue too, one of large error, one without weight."""
    loaded = with_support(small_loaded, 0.0)
    flux = np.tile([1.0, 2.0, 3.0, 4.0, 5.0], (5, 1))
    flux[2, 0], sigma = 20.0, 0.05 * flux
    sigma[3] = flux[3]
    rows = Photometry(np.arange(5), np.full(5, 0.055), flux, sigma, np.ones((5, 5), bool),
                      np.full(5, "", object))  # fmt: skip
    usual = SigmaGivenFlux(
        *(jnp.asarray([[a, b]] * 5) for a, b in ((10.0, 25.0), (0.05, 0.05), (0.05, 0.05)))
    )
    found = SimpleNamespace(
        ess=np.array([500.0, 5.0, 5.0, 5.0, np.nan]),
        khat=np.full(5, 0.1),
        rhat=np.full(5, np.nan),
        log_evidence=np.array([0.0, 0.0, 0.0, 0.0, np.nan]),
        summary={},
    )
    words = ["unusual_photometry", "unusual_photometry", "unusual_colour", "unusual_error"]
    assert judge(loaded, rows, usual, found).tolist() == [*words, "failed"]
    assert judge(loaded, rows, None, found).tolist() == [*words[:3], words[0], "failed"]
    assert judge(small_loaded, rows, None, found).tolist() == ["ok", "low_ess", *words[2:3],
                                                               "low_ess", "failed"]  # fmt: skip


def test_unusual_photometry_depends_on_nothing_but_the_galaxy(run, small_loaded):
    loaded = with_support(small_loaded, 0.23)
    status = galaxies(run(loaded=loaded))["status"]
    assert 0 < status.count("unusual_photometry") < N - 7
    assert galaxies(run(loaded=loaded, chunk=3))["status"] == status


def with_support(loaded, limit):
    mixture = make_mixture(
        {"components": 3, "width": 8, "depth": 1}, n_features_of_band(5), key=jax.random.key(1)
    )
    support = PhotometryDensity(mixture, loaded.posterior.cosmology, (limit,) * 4)
    return dataclasses.replace(loaded, support=support)


def test_columns_are_the_contracts(whole, small_loaded):
    names = (*small_loaded.posterior.space.names, *DERIVED)
    summary = [f"{name}_{statistic}" for name in names for statistic in STATISTICS]
    head = ["object_id", "redshift", "status", "method", "n_draws"]
    head += ["ess", "khat", "rhat", "log_evidence"]
    best = ["best_chi2", *(f"best_{name}" for name in small_loaded.posterior.space.names)]
    assert list(galaxies(whole)) == head + best + summary
    assert np.isnan(galaxies(whole)["rhat"]).all()  # nothing but weighted draws
    assert galaxies(whole)["object_id"] == columns()["object_id"].tolist()
    assert list(draws(whole)) == ["object_id", "log_weight", *names]


def test_draws_are_of_the_galaxies_that_have_a_posterior(whole):
    drawn = draws(whole)
    np.testing.assert_array_equal(drawn["object_id"], np.repeat(columns()["object_id"][:-7], DRAWS))
    weight = np.exp(drawn["log_weight"].astype(float)).reshape(-1, DRAWS)
    np.testing.assert_allclose(weight.sum(axis=1), 1.0, rtol=1e-5)
    mean = np.sum(weight * drawn["tau_ism"].reshape(-1, DRAWS), axis=1)
    np.testing.assert_allclose(galaxies(whole)["tau_ism_mean"][:-7], mean, rtol=1e-4)


@pytest.mark.parametrize("chunk", [1, 7, 13, N])
def test_chunk_size_changes_nothing(chunk, run, whole):
    other = run(chunk=chunk)
    assert_same(whole, other)
    one, two = draws(whole), draws(other)
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])


def test_order_of_the_rows_changes_nothing(run, whole):
    order = np.random.default_rng(1).permutation(N)
    assert_same(whole, run({k: v[order] for k, v in columns().items()}), order)


@pytest.mark.parametrize("after", [1, 2, 3])
def test_a_killed_run_goes_on(after, run, whole, tmp_path):
    seen = []

    def kill(rows):
        seen.append(rows)
        if len(seen) == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(out=tmp_path / "out", chunk=7, on_chunk=kill)
    assert not (tmp_path / "out" / "galaxies.parquet").exists()
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out" / "parts").iterdir()}
    assert len(before) == after
    assert_same(whole, run(out=tmp_path / "out", chunk=7))
    assert not (tmp_path / "out" / "parts").exists()


def test_a_finished_run_is_left_as_it_is(run, tmp_path):
    out = run(out=tmp_path / "out")
    files = [p for p in out.rglob("*.parquet")]
    before = {p: p.read_bytes() for p in files}
    run(out=out)
    assert {p: p.read_bytes() for p in files} == before


def test_seed_changes_the_draws(run, whole):
    assert galaxies(run(seed=1))["tau_ism_mean"] != galaxies(whole)["tau_ism_mean"]


def test_names_may_be_words(run, whole):
    names = np.array([f"SDSS J{i:03d}" for i in range(N)])
    table = galaxies(run(columns(names), chunk=6))
    assert table["object_id"] == names.tolist()
    assert table["status"][-7:] == EXPECTED


def test_no_draws(run, whole):
    out = run(keep_draws=False)
    assert not (out / "draws").exists()
    np.testing.assert_allclose(
        galaxies(out)["tau_ism_mean"][:-7], galaxies(whole)["tau_ism_mean"][:-7], rtol=1e-3
    )


def test_manifest_says_what_was_run(whole, small_loaded):
    manifest = json.loads((whole / "manifest.json").read_text())
    expected = {"version": tinsley.__version__, "command": "tinsley infer", "seed": 0,
                "model": "small", "model_sha256": small_loaded.sha256, "rows": N, "draws": DRAWS,
                "survey": "sdss", "layout": "native", "refine": "never"}  # fmt: skip
    assert expected.items() <= manifest.items()
    assert len(manifest["input_sha256"]) == 64
    assert sum(manifest["statuses"].values()) == N
    assert manifest["statuses"]["bad_input"] == 4
    assert "nebular" not in manifest


def test_manifest_says_the_model_s_gas(run, small_loaded):
    lit = dataclasses.replace(small_loaded.spec, nebular=-3.0)
    out = run(loaded=dataclasses.replace(small_loaded, spec=lit))
    assert json.loads((out / "manifest.json").read_text())["nebular"] == -3.0


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"draws": 101}, {"chunk": 5}, {"keep_draws": False}, {"refine": Refine.AUTO}],
)
def test_a_folder_of_other_settings_is_refused(change, run, whole):
    with pytest.raises(InputError, match=f"holds a run with another {next(iter(change))}; choose"):
        run(out=whole, **change)


def test_a_folder_of_another_catalogue_is_refused(run, whole):
    table = columns()
    table["flux_r"] = table["flux_r"] * 1.01
    with pytest.raises(InputError, match="holds a run with another input_sha256"):
        run(table, out=whole)


def test_foreign_results_are_not_taken_for_the_runs_own(run, tmp_path):
    write_parquet(tmp_path / "galaxies.parquet", {"status": np.array(["ok"])}, {})
    with pytest.raises(InputError, match="results that do not say what run they are of"):
        run(out=tmp_path)


def test_a_file_in_the_folders_place_is_refused(run, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="can not be made a folder for results"):
        run(out=tmp_path / "out")


@pytest.mark.parametrize(
    "file", ["parts/part-000000.parquet", "draws/draws-000000.parquet", "galaxies.parquet"]
)
def test_a_full_disk_is_said_and_the_run_goes_on_later(file, run, whole, tmp_path):
    """The kernel's own error: the file is written into /dev/full."""
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    out = tmp_path / "out"

    def fill(rows):
        (out / file).parent.mkdir(exist_ok=True)
        (out / f"{file}.part").symlink_to("/dev/full")

    def stop(rows):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(out=out, on_chunk=stop)
    for name in ("parts/part-000000.parquet", "draws/draws-000000.parquet"):
        if file != "galaxies.parquet":
            (out / name).unlink()
    fill(0)
    with pytest.raises(InputError, match=r"can not be written: the disk is full; free some space"):
        run(out=out)
    assert_same(whole, run(out=out))


@pytest.mark.parametrize("change", [{"bands": tuple("zirgu")}, {"filters": ("other",) * 5}])
def test_a_survey_of_other_bands_is_refused(change, small_loaded, tmp_path):
    write_parquet(tmp_path / "g.parquet", columns(), {})
    survey = dataclasses.replace(load_survey("sdss"), **change)
    catalog = open_catalog(tmp_path / "g.parquet", survey)
    with pytest.raises(InputError, match="Choose the survey sdss, another model, or train one"):
        run_catalog(small_loaded, catalog, None, tmp_path / "out", RunSettings(draws=DRAWS))


def limits_of_last_band(table) -> dict[str, np.ndarray]:
    """The last band of the galaxies that can be used, as an upper limit at a tenth of its flux."""
    table = {name: np.array(values) for name, values in table.items()}
    table["flux_limit_z"] = np.full(N, np.nan)
    table["flux_limit_z"][:-7] = 0.1 * table["flux_z"][:-7]
    table["flux_z"][:-7] = table["flux_err_z"][:-7] = np.nan
    return table


@pytest.mark.slow
def test_a_limit_lowers_the_mass_that_ignoring_it_gives(run):
    limited = limits_of_last_band(columns())
    ignored = {name: values for name, values in limited.items() if name != "flux_limit_z"}
    with_limit, without = (galaxies(run(table, draws=400)) for table in (limited, ignored))
    assert with_limit["status"][-7:] == without["status"][-7:] == EXPECTED
    mass = "log10_mstar_surviving_msun_q50"
    change = np.array(with_limit[mass][:-7]) - np.array(without[mass][:-7])
    assert np.all(change < 0.05)
    assert np.median(change) < -0.05
    lower = np.array(with_limit["log_evidence"][:-7]) - np.array(without["log_evidence"][:-7])
    assert np.all(lower <= 0)  # a probability at most 1, with the same draws


@pytest.mark.slow
def test_limits_that_say_nothing_change_nothing(run, whole):
    """A column of limits that are not used: the weights go the other road to the same place."""
    limit = np.where(np.arange(N) < N - 7, 1e6, np.nan)
    table = galaxies(run(columns() | {"flux_limit_u": limit}))
    assert table["status"][-7:] == EXPECTED
    for name in ("log_evidence", "log10_mstar_msun_q50", "best_chi2", "ess"):
        one, other = (np.array(t[name])[:-7] for t in (table, galaxies(whole)))
        np.testing.assert_allclose(one, other, atol=0.01, rtol=0.02, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [7])
def test_chunks_change_nothing_with_limits_and_students_weights(chunk, run):
    settings = {"likelihood": StudentT(3.0), "refine": Refine.NEVER}
    one, other = (run(limits_of_last_band(columns()), chunk=c, **settings) for c in (N, chunk))
    assert_same(one, other)


def test_manifest_and_folder_know_the_likelihood(run, whole, tmp_path):
    assert json.loads((whole / "manifest.json").read_text())["likelihood"] == {
        "kind": "gaussian",
        "correlation": None,
    }
    with pytest.raises(InputError, match="holds a run with another likelihood"):
        run(out=whole, likelihood=StudentT(4.0))


@pytest.mark.slow
def test_correlated_errors_come_from_the_survey(small_loaded, tmp_path):
    write_parquet(tmp_path / "g.parquet", columns(), {})
    matrix = 0.5 * np.eye(5) + 0.5
    survey = dataclasses.replace(load_survey("sdss"), error_correlation=matrix)
    catalog = open_catalog(tmp_path / "g.parquet", survey)
    settings = RunSettings(draws=DRAWS, refine=Refine.NEVER)
    manifest = run_catalog(small_loaded, catalog, None, tmp_path / "out", settings)
    assert manifest["likelihood"]["correlation"] == matrix.tolist()
    outlier = dataclasses.replace(settings, likelihood=StudentT(4.0))
    with pytest.raises(InputError, match="has correlated errors .* choose gaussian"):
        run_catalog(small_loaded, catalog, None, tmp_path / "other", outlier)
