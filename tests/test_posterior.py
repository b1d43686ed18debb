"""Python's way in: arrays or tables, the same numbers as from a file, figures, ArviZ."""

from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy import units
from astropy.table import Table
from matplotlib.figure import Figure

import tinsley
from test_run import DRAWS, EXPECTED, N, columns
from tinsley.catalog.run import RunSettings, run_catalog
from tinsley.errors import InputError
from tinsley.infer.likelihood import StudentT
from tinsley.io.catalogs import load_usual_error, open_catalog
from tinsley.io.results import write_parquet
from tinsley.io.surveys import load_survey
from tinsley.posterior import JY_PER_NMGY, Posterior, load_posterior
from tinsley.status import Refine

BANDS = "ugriz"
QUICK = {"draws": DRAWS, "refine": "never"}


@pytest.fixture(scope="module")
def posterior(small_loaded):
    return Posterior(small_loaded, load_survey("sdss"))


def arrays():
    table = columns()
    flux, error = (np.stack([table[f"{n}_{b}"] for b in BANDS], 1) for n in ("flux", "flux_err"))
    return flux, error, {"redshift": table["redshift"], "object_id": table["object_id"]}


@pytest.fixture(scope="module")
def result(posterior):
    flux, error, names = arrays()
    return posterior.infer(flux, error, **names, **QUICK)


def test_numbers_are_those_of_a_run_on_a_file(result, small_loaded, tmp_path):
    write_parquet(tmp_path / "galaxies.parquet", columns(), {})
    survey = load_survey("sdss")
    catalog = open_catalog(tmp_path / "galaxies.parquet", survey)
    settings, usual = RunSettings(draws=DRAWS, refine=Refine.NEVER), load_usual_error(survey)
    run_catalog(small_loaded, catalog, usual, tmp_path / "out", settings)
    expected = pq.read_table(tmp_path / "out" / "galaxies.parquet").to_pydict()
    assert list(expected) == list(result.table)
    for name, values in expected.items():
        np.testing.assert_array_equal(np.array(values), result.table[name], err_msg=name)
    drawn = pq.read_table(tmp_path / "out" / "draws").to_pydict()
    there = np.isfinite(result.weight[:, 0])
    np.testing.assert_array_equal(drawn["tau_ism"], result.draws["tau_ism"][there].ravel())
    np.testing.assert_allclose(np.exp(drawn["log_weight"]), result.weight[there].ravel())


def test_rows_without_a_posterior_say_why(result):
    assert len(result) == N
    assert result.status[-7:].tolist() == EXPECTED
    assert np.isnan(result.weight[-7:]).all()
    np.testing.assert_allclose(result.weight[:-7].sum(axis=1), 1.0, rtol=1e-5)
    assert np.isnan(result.draws["n_dust"][-1]).all()
    with pytest.raises(InputError, match="galaxy 19 has no posterior: its status is too_few_bands"):
        result.plot_corner(N - 1)
    with pytest.raises(InputError, match="no galaxy 20; there are 20"):
        result.plot_sed(N)


@pytest.mark.parametrize("kind", [dict, Table])
def test_a_table_is_as_good_as_arrays(kind, posterior, result):
    other = posterior.infer(kind(columns()), **QUICK)
    np.testing.assert_array_equal(other.weight, result.weight)


def test_units_are_converted(posterior, result):
    flux, error, names = arrays()
    flux, error = (x * JY_PER_NMGY * 1e6 * units.uJy for x in (flux, error))
    other = posterior.infer(flux, error, **names, **QUICK)
    mass = "log10_mstar_msun_q50"
    np.testing.assert_allclose(other.table[mass][:5], result.table[mass][:5], atol=0.02)


def test_one_galaxy_alone(posterior, result):
    flux, error, names = arrays()
    other = posterior.infer(flux[0], error[0], redshift=names["redshift"][0],
                            object_id=names["object_id"][0], **QUICK)  # fmt: skip
    np.testing.assert_array_equal(other.weight[0], result.weight[0])


def test_summary_is_a_table(result):
    table = result.summary("tau_ism", "age_mw_gyr")
    assert len(table) == N
    assert table.colnames[:4] == ["object_id", "redshift", "status", "method"]
    assert "age_mw_gyr_q84" in table.colnames
    assert "n_dust_mean" not in table.colnames
    assert set(result.table) - set(result.summary().colnames) == {
        name for name in result.table if name.startswith("best_") and name != "best_chi2"
    }
    with pytest.raises(InputError, match="no property 'mass'; expected some of log10_mstar_msun"):
        result.summary("mass")


def test_equal_weights_stand_for_the_weights(result):
    drawn = result.equal_weight_draws(4000)["tau_ism"][:-7]
    np.testing.assert_allclose(drawn.mean(axis=1), result.table["tau_ism_mean"][:-7], atol=0.01)


def test_figures(result):
    for galaxy in (0, 1):
        assert isinstance(result.plot_corner(galaxy, ("tau_ism", "n_dust")), Figure)
    figure = result.plot_sed(0)
    assert any("z = 0.05" in ax.get_title() for ax in figure.axes)


def test_arviz(result):
    pytest.importorskip("arviz_base", reason="arviz-base is not installed")
    tree = result.to_arviz(50)
    assert dict(tree.posterior.sizes) == {"chain": 1, "draw": 50, "galaxy": N - 7}
    assert tree.posterior.galaxy.values.tolist() == columns()["object_id"][:-7].tolist()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"flux_err": None}, "expected flux, flux_err and redshift, or one table"),
        ({"redshift": None}, 'expected 20 values of redshift, one for all, or "free"; got none'),
        ({"redshift": "fre"}, "expected numbers for redshift, or \"free\"; got 'fre'"),
        ({"redshift": "free"}, "model small needs redshifts; teach it"),
        ({"flux": np.ones((3, 4)), "flux_err": np.ones((3, 4))}, "bands u g r i z; got"),
        ({"redshift": [0.1, 0.2]}, "expected 20 values of redshift"),
        ({"object_id": np.zeros(N, int)}, "more than once"),
        ({"flux": np.ones((N, 5)) * units.m}, "expected a flux density; got the unit m"),
        ({"flux": [["a"] * 5] * N}, "expected numbers"),
        ({"draws": 3}, "expected draws >= 100"),
        ({"seed": -1}, "seed from 0"),
        ({"refine": "often"}, "never, auto, chains, all; got 'often'"),
    ],
)
def test_wrong_arguments(change, words, posterior):
    flux, error, names = arrays()
    with pytest.raises(InputError, match=words):
        posterior.infer(**({"flux": flux, "flux_err": error} | QUICK | names | change))


def test_magnitudes_are_refused(posterior):
    rng = np.random.default_rng(0)
    mag = rng.uniform(16, 20, (N, 1)) - [0.0, 1.2, 1.8, 2.1, 2.3]
    error = rng.uniform(0.01, 0.05, (N, 5))
    with pytest.raises(InputError, match="seems to hold magnitudes"):
        posterior.infer(mag, error, redshift=0.055)


def test_a_model_of_another_survey_is_refused(small_model_file):
    with pytest.raises(InputError, match="no survey 'sloan'"):
        load_posterior(small_model_file, "sloan")


def test_the_package_offers_it():
    assert tinsley.load_posterior is load_posterior
    assert "load_posterior" in dir(tinsley)
    with pytest.raises(AttributeError, match="no attribute 'load'"):
        _ = tinsley.load


@pytest.mark.slow
def test_likelihoods(posterior, result):
    flux, error, names = arrays()
    flux = flux.copy()
    flux[:3, 2] *= 50.0  # outliers
    normal, robust = (
        posterior.infer(flux, error, **names, **QUICK, likelihood=likelihood)
        for likelihood in ("gaussian", StudentT(1.5))
    )
    untouched = slice(3, N - 7)
    np.testing.assert_array_equal(normal.weight[untouched], result.weight[untouched])
    chi2 = (r.table["best_chi2"][:3] for r in (normal, robust))
    assert np.all(next(chi2) > 3 * next(chi2))
    clean, pulled, kept = (r.table["log10_mstar_msun_q50"][:3] for r in (result, normal, robust))
    assert np.mean(np.abs(kept - clean)) < 0.7 * np.mean(np.abs(pulled - clean))
    word = posterior.infer(flux, error, **names, **QUICK, likelihood="student-t")
    four = posterior.infer(flux, error, **names, **QUICK, likelihood=StudentT(4.0))
    np.testing.assert_array_equal(word.weight, four.weight)
    with pytest.raises(InputError, match="gaussian or student-t, or an object of"):
        posterior.infer(flux, error, **names, **QUICK, likelihood="cauchy")
