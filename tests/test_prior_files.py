"""Prior files, and what runs, trainings and figures make of them."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from matplotlib.colors import to_hex

from test_cli_infer import refused, table, tinsley  # noqa: F401
from test_run import DRAWS, N, assert_same, columns, draws, galaxies
from test_train import assert_same_bits, killed_at, train, without_seconds
from tinsley.catalog.run import RunSettings, run_catalog
from tinsley.cli import train as cli_train
from tinsley.cli import training
from tinsley.errors import InputError
from tinsley.infer.marginals import SSFR_1GYR
from tinsley.io.catalogs import open_catalog
from tinsley.io.checkpoints import TrainingFolder
from tinsley.io.models import load_posterior, read_model
from tinsley.io.priors import impose, load_prior, prior_names, sample_prior
from tinsley.io.results import write_parquet
from tinsley.io.surveys import load_survey
from tinsley.parameters import Normal, Uniform
from tinsley.plot.prior import SHOWN, implied
from tinsley.plot.style import BLUE
from tinsley.posterior import Posterior
from tinsley.status import Refine

TEXT = """
about = "less dust, more metals"
[tau_ism]
prior = "uniform"
low = 0
high = 1.5
[log10_z_zsun]
prior = "normal"
mean = -0.2
std = 0.5
[log10_ssfr_1gyr_yr]
prior = "uniform"
low = -11.5
high = -9.2
"""
PARAMETERS = TEXT.split("[log10_ssfr")[0]


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "dust.toml"
    path.write_text(TEXT)
    return path


# --- files ---


def test_a_file_and_a_dictionary_say_the_same(file):
    prior = load_prior(file)
    assert prior.name == "dust"
    assert list(prior.entries) == ["tau_ism", "log10_z_zsun", SSFR_1GYR]
    assert prior.entries["tau_ism"] == {"prior": "uniform", "low": 0.0, "high": 1.5}
    same = load_prior(dict(prior.entries))
    assert same.to_dict()["sha256"] == prior.to_dict()["sha256"]
    assert json.loads(json.dumps(prior.to_dict())) == prior.to_dict()
    file.write_text(TEXT.replace("0.5", "0.6"))
    assert load_prior(file).to_dict()["sha256"] != prior.to_dict()["sha256"]


def test_every_prior_that_ships_can_be_imposed(small_loaded):
    assert "volume_mass_function" in prior_names()
    for name in prior_names():
        ratio = impose(small_loaded, load_prior(name)).posterior.prior_ratio
        assert ratio.redshift is not None


BAD = {
    "empty": ("", "names no quantity; expected tables such as"),
    "syntax": ("[tau_ism\nprior = ", "is not valid TOML"),
    "no_table": (
        "tau_ism = 3",
        "tau_ism: expected a table whose prior is one of uniform, .* got 3",
    ),
    "no_kind": ("[tau_ism]\nlow = 0\nhigh = 1", "expected a table whose prior is one of uniform"),
    "kind": ('[tau_ism]\nprior = "beta"', "one of uniform, .*, volume; got 'beta'"),
    "missing": ('[tau_ism]\nprior = "uniform"\nlow = 0', "has low, high; high is missing"),
    "unknown": (
        '[tau_ism]\nprior = "normal"\nmean = 1\nstd = 1\nsigma = 2',
        "has mean, std, and may have low, high; 'sigma' is not known",
    ),
    "words": ('[tau_ism]\nprior = "uniform"\nlow = "0"\nhigh = 1', "low should be a finite number"),
    "nan": ('[tau_ism]\nprior = "uniform"\nlow = nan\nhigh = 1', "low should be a finite number"),
    "true": ('[tau_ism]\nprior = "uniform"\nlow = true\nhigh = 1', "a finite number; got True"),
    "list": (
        '[log10_mstar_msun]\nprior = "schechter"\nlog10_m_star_msun = 10\nphi = 1\nalpha = [-1]',
        "phi should be a list of numbers; got 1",
    ),
}


@pytest.mark.parametrize(("text", "words"), BAD.values(), ids=BAD)
def test_files_that_are_no_priors(text, words, tmp_path):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=f"prior file .*bad.toml.*{words}"):
        load_prior(path)


def test_priors_that_are_not_there(tmp_path):
    with pytest.raises(InputError, match="no prior 'filed': expected one of .*volume_mass_func"):
        load_prior("filed")
    for path in (tmp_path / "none.toml", tmp_path):
        with pytest.raises(InputError, match="can not be read|no prior"):
            load_prior(path)


# --- runs ---


@pytest.fixture(scope="module")
def under(small_loaded, tmp_path_factory):
    """The model under TEXT."""
    path = tmp_path_factory.mktemp("prior") / "dust.toml"
    path.write_text(TEXT)
    return impose(small_loaded, load_prior(path))


def run(loaded, folder, chunk=1024):
    write_parquet(folder / "g.parquet", columns(), {})
    catalog = open_catalog(folder / "g.parquet", load_survey("sdss"))
    settings = RunSettings(draws=DRAWS, refine=Refine.NEVER, chunk=chunk)
    return folder / "out", run_catalog(loaded, catalog, None, folder / "out", settings)


@pytest.fixture(scope="module")
def finished(under, tmp_path_factory):
    return run(under, tmp_path_factory.mktemp("run"))


def test_a_run_says_what_the_prior_is_and_costs(finished, under):
    out, manifest = finished
    assert manifest["prior"] == under.prior
    assert manifest["prior"]["quantities"]["tau_ism"]["high"] == 1.5
    found = {name: np.array(values) for name, values in galaxies(out).items()}
    cost = found["ess"] / found["ess_trained_prior"]
    assert np.isfinite(cost[:-7]).all()
    assert np.isnan(cost[-7:]).all()
    assert manifest["prior_efficiency"] == pytest.approx(np.nanmedian(cost))
    assert manifest["prior_efficiency"] < 0.9
    drawn = draws(out)
    kept = drawn["log_weight"] > -50
    assert drawn["tau_ism"][kept].max() <= 1.5
    assert drawn["tau_ism"].max() > 1.5
    assert found["best_tau_ism"][:-7].max() <= 1.5


def test_chunks_change_nothing(finished, under, tmp_path):
    assert_same(finished[0], run(under, tmp_path, chunk=7)[0])


def test_a_run_of_another_prior_is_not_gone_on_with(finished, small_loaded):
    for other in (small_loaded, impose(small_loaded, load_prior("volume_mass_function"))):
        with pytest.raises(InputError, match="holds a run with another prior; choose"):
            run(other, finished[0].parent)


def test_python_gives_the_same(finished, small_loaded, file, monkeypatch):
    posterior = Posterior(small_loaded, load_survey("sdss"))
    settings = {"draws": DRAWS, "refine": "never"}
    result = posterior.infer(columns(), prior=file, **settings)
    expected = galaxies(finished[0])
    for name in ("ess", "ess_trained_prior", "tau_ism_q50", "log_evidence"):
        np.testing.assert_array_equal(result.table[name], expected[name], err_msg=name)
    assert "ess_trained_prior" in result.summary().colnames
    monkeypatch.setattr("tinsley.posterior.impose", None)  # prepared once
    again = posterior.infer(columns(), prior=dict(load_prior(file).entries), **settings)
    np.testing.assert_array_equal(again.weight, result.weight)
    assert "ess_trained_prior" not in posterior.infer(columns(), **settings).table


@pytest.fixture
def ready(monkeypatch, small_loaded):
    monkeypatch.setattr("tinsley.io.models.load_posterior", lambda name: small_loaded)


def test_the_command(tinsley, ready, table, file, tmp_path):  # noqa: F811
    out = tmp_path / "o"
    code, _, err = tinsley(
        "infer", table, "--out", out, "--draws", DRAWS, "--refine", "never", "--prior", file
    )
    assert code == 0
    left = json.loads((out / "manifest.json").read_text())["prior_efficiency"]
    assert f"the new prior leaves {left:.2f} of the effective draws" in err
    assert len(pq.read_table(out / "galaxies.parquet")) == N


def test_bad_priors_on_the_command_line(tinsley, ready, table, file, tmp_path):  # noqa: F811
    wide = tmp_path / "wide.toml"
    wide.write_text('[tau_ism]\nprior = "uniform"\nlow = 0\nhigh = 4\n')
    odd = tmp_path / "odd.toml"
    odd.write_text('[dust]\nprior = "uniform"\nlow = 0\nhigh = 4\n')
    out = tmp_path / "o"
    for prior, words in {
        "none.toml": "can not be read",
        "field": "no prior 'field'",
        wide: "prior wide: tau_ism: a prior from 0 to 4 reaches beyond what the model was trained",
        odd: "prior odd: unknown quantity 'dust'; expected some of",
    }.items():
        refused(tinsley("infer", table, "--out", out, "--prior", prior), words)
        assert not out.exists()
        if prior != wide:  # a prior may be wider than MODEL's to be looked at
            refused(tinsley("prior", prior, "--out", tmp_path / "p.png"), words)
    refused(tinsley("prior", file, "--out", tmp_path / "no" / "p.png"), "can not be written")


# --- the figure ---


def test_the_figure_shows_both_priors(small_loaded, file):
    key = jax.random.key(0)
    drawn = {
        "trained": sample_prior(small_loaded, None, 5000, key),
        "new": sample_prior(small_loaded, load_prior(file), 5000, key),
    }
    figure = implied(drawn)
    assert len(figure.axes) == len(SHOWN)
    panel = figure.axes[SHOWN.index(SSFR_1GYR)]
    grey, blue = (patch.get_data() for patch in panel.patches)
    assert to_hex(panel.patches[1].get_edgecolor()) == BLUE.lower()
    middle = 0.5 * (blue.edges[1:] + blue.edges[:-1])
    inside = (middle > -11.4) & (middle < -9.3)
    assert np.std(blue.values[inside]) < 0.4 * np.std(grey.values[inside])
    assert blue.values[middle < -11.7].sum() == 0
    words = [text.get_text() for text in figure.axes[3].get_legend().get_texts()]
    assert words == ["trained", "new"]


def test_the_prior_command(tinsley, ready, file, tmp_path):  # noqa: F811
    for words in ([], [file], ["volume_mass_function"]):
        out = tmp_path / "prior.png"
        code, _, err = tinsley("prior", *words, "--out", out)
        assert code == 0
        assert out.read_bytes().startswith(b"\x89PNG")
        assert SSFR_1GYR in err
        out.unlink()


# --- training ---


@pytest.fixture
def short(monkeypatch, own_cache):
    monkeypatch.setattr(training, "BLOCK", 4)
    monkeypatch.setattr(cli_train, "N_VALIDATION", 64)


@pytest.mark.slow
def test_a_model_is_fine_tuned_to_another_prior(short, small_model_file, tmp_path, monkeypatch):
    prior = tmp_path / "dust.toml"
    prior.write_text(PARAMETERS)
    options = ["--from", small_model_file, "--prior", prior, "--steps", 8, "--batch", 16]
    options += ["--name", "tuned"]
    whole, resumed = tmp_path / "whole.tinsley", tmp_path / "resumed.tinsley"
    assert train(monkeypatch, *options, "--run", tmp_path / "a", "--out", whole) == 0
    again = [*options, "--run", tmp_path / "b", "--out", resumed]
    with monkeypatch.context() as patched:
        patched.setattr(TrainingFolder, "_write", killed_at(4, TrainingFolder._write))
        assert train(patched, *again) == 130
    assert train(monkeypatch, *again) == 0
    one, other, before = read_model(whole), read_model(resumed), read_model(small_model_file)
    assert_same_bits(one[1], other[1])
    assert without_seconds(one[0]) == without_seconds(other[0])
    assert one[0].training["from"] == before[2]
    assert one[0].training["prior"] == load_prior(prior).to_dict()
    moved = [
        float(np.max(np.abs(np.asarray(a) - np.asarray(b))))
        for a, b in zip(jax.tree.leaves(one[1]), jax.tree.leaves(before[1]), strict=True)
        if hasattr(a, "shape")
    ]
    assert 0 < max(moved) < 0.2  # it went on from the model's weights, and not far
    space = load_posterior(whole).posterior.space
    kinds = {prior.names[0]: prior for prior in space.priors}
    assert kinds["tau_ism"] == Uniform("tau_ism", 0.0, 1.5)
    assert kinds["log10_z_zsun"] == Normal("log10_z_zsun", -0.2, 0.5, -2.2, 0.4)
    assert kinds["n_dust"] == Uniform("n_dust", -2.0, 0.4)


def test_trainings_that_can_not_be(short, small_model_file, file, tmp_path, monkeypatch, capsys):
    out = ["--run", tmp_path / "run", "--out", tmp_path / "model.tinsley"]
    grid = tmp_path / "grid.toml"
    grid.write_text('[log10_z_zsun]\nprior = "uniform"\nlow = -3\nhigh = 0\n')
    far = tmp_path / "far.toml"
    far.write_text('[redshift]\nprior = "uniform"\nlow = 0.1\nhigh = 6\n')
    cases = {
        ("--from", small_model_file, "--prior", file): "no network can be trained with the prior",
        ("--from", small_model_file, "--prior", grid): "log10_z_zsun from -2.279 to",
        ("--from", small_model_file, "--prior", far): "redshift from 0.001 to 2",
        ("--from", small_model_file, "--density", "maf"): "leave these out",
        ("--from", tmp_path / "none.tinsley"): "no model",
        ("--prior", "field"): "no prior 'field'",
    }
    for words, message in cases.items():
        assert train(monkeypatch, *words, *out) == 2
        assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_refinement_is_under_the_new_prior(under, tmp_path):
    write_parquet(tmp_path / "g.parquet", {n: v[[0, 1, 2]] for n, v in columns().items()}, {})
    catalog = open_catalog(tmp_path / "g.parquet", load_survey("sdss"))
    settings = RunSettings(draws=DRAWS, refine=Refine.ALL)
    run_catalog(under, catalog, None, tmp_path / "out", settings)
    found = {name: np.array(values) for name, values in galaxies(tmp_path / "out").items()}
    assert set(found["method"]) <= {"weighted", "smc"}
    assert np.all(found["ess"] >= 100)
    assert np.all(np.isfinite(found["ess_trained_prior"]))
    assert draws(tmp_path / "out")["tau_ism"].max() <= 1.5
