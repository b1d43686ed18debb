"""`tinsley hierarchy`: from a run of `tinsley infer` to a population, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import sys

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.special import ndtr, ndtri

from tinsley.catalog import population as ensemble
from tinsley.catalog.hierarchy import TRUSTED, informed, make_posterior_setup
from tinsley.catalog.run import RunSettings, run_catalog
from tinsley.cli.main import run as run_command
from tinsley.errors import InputError
from tinsley.io.catalogs import load_sample_catalog_path, open_catalog
from tinsley.io.populations import load_population
from tinsley.io.results import write_parquet
from tinsley.io.runs import load_draws, load_galaxies
from tinsley.io.surveys import load_survey
from tinsley.population import config as configs
from tinsley.population.density import FLOW
from tinsley.population.synthetic import Selection
from tinsley.status import Refine

SMALL = FLOW | {"layers": 2, "width": 8, "depth": 1, "knots": 4}
N, DRAWS = 400, 100
COMMON = dataclasses.replace(configs.TINSLEY, density=SMALL, steps=8, batch=16, validations=4)
CONFIG = configs.HierarchyConfig(COMMON, draws=32, chosen=2, own_draws=32, held_out=32)
FREE = Selection((-np.inf,) * 5)


@pytest.fixture(scope="module")
def folder(small_loaded, tmp_path_factory):
    """Real galaxies, all at redshifts of the small model, and posteriors of them."""
    folder = tmp_path_factory.mktemp("hierarchy")
    table = pq.read_table(load_sample_catalog_path())
    columns = {name: table[name].to_numpy()[:N] for name in table.column_names}
    columns["redshift"] = np.linspace(0.051, 0.059, N)
    write_parquet(folder / "galaxies.parquet", columns, {})
    catalog = open_catalog(folder / "galaxies.parquet", load_survey("sdss"))
    settings = RunSettings(draws=DRAWS, refine=Refine.NEVER, chunk=150)
    run_catalog(small_loaded, catalog, None, folder / "run", settings)
    return folder


@pytest.fixture
def command(monkeypatch, small_model_file, folder, tmp_path):
    """The real command, with a small network."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(small_model_file.parent / "cache"))
    monkeypatch.setattr(configs, "HIERARCHY", CONFIG)
    monkeypatch.setattr(ensemble, "_NEIGHBOURS", 500)

    def command(*options, run="run") -> int:
        argv = ["tinsley", "hierarchy", folder / run, "--out", tmp_path / "out", "--members", 2]
        argv += ["--draws", 301, "--model", small_model_file, *options]
        monkeypatch.setattr(sys, "argv", [str(word) for word in argv])
        with pytest.raises(SystemExit) as stop:
            run_command()
        return stop.value.code or 0

    return command


@pytest.mark.slow
def test_a_run_of_posteriors_becomes_a_population(command, tmp_path):
    assert command("--select", "r < 17.77") == 0
    found = load_population(tmp_path / "out")
    assert found.space.redshift_range == (0.05, 0.06)
    assert len(found.members) == 2
    assert len(found.columns["redshift"]) == 301
    assert found.columns["selected_weight"].mean(dtype=float) == pytest.approx(1, rel=1e-4)
    assert found.manifest["road"] == "posteriors"
    rows = found.manifest["rows"]
    assert rows["used"] + rows["below_cut"] + rows["no_trusted_posterior"] == N
    for member in found.manifest["members"]:
        best = member["best"]
        assert 1 <= best["ess_q05"] <= best["ess_q50"] <= best["ess_q95"] <= CONFIG.draws
        assert best["evidence_noise"] > 0
        assert 0 <= best["reference_reach"] <= 1
    assert (tmp_path / "out" / "corner.png").read_bytes().startswith(b"\x89PNG")


def test_draws_become_points_of_the_population(folder, small_loaded):
    """With known redshifts in their place, of the galaxies of the catalogue, in its order."""
    catalog = open_catalog(folder / "galaxies.parquet", load_survey("sdss"))
    setup = make_posterior_setup(folder / "run", small_loaded, catalog, FREE, CONFIG, seed=0)
    x = np.asarray(setup.problem.draws.x, float)
    assert x.shape == (setup.rows["used"] - len(setup.photometry.held_out), CONFIG.draws, 11)
    redshift = 0.05 + 0.01 * ndtr(x[..., 0])
    np.testing.assert_allclose(redshift, np.broadcast_to(redshift[:, :1], redshift.shape))
    known = np.linspace(0.051, 0.059, N)
    place = np.abs(redshift[:, :1] - known).argmin(axis=1)
    np.testing.assert_allclose(redshift[:, 0], known[place], atol=1e-6)
    assert len(np.unique(place)) == len(place)
    # the photometry of the set-up is that of the same galaxies
    rows = next(catalog.chunks(N))
    view = np.asarray(setup.photometry.problem.view(jax.numpy.asarray(rows.flux, dtype=float)))
    np.testing.assert_allclose(setup.photometry.problem.observed, view[place], atol=1e-4)
    # and each point is one of the galaxy's draws
    first = load_draws(folder / "run", 0, DRAWS)
    here = np.flatnonzero(place < 100)[0]
    own = {k: v[np.flatnonzero(first.object_id == rows.object_id[place[here]])[0]]
           for k, v in first.theta.items()}  # fmt: skip
    mass = np.asarray(setup.photometry.problem.space.theta(setup.problem.draws.x[here])[
        "log10_mstar_msun"])  # fmt: skip
    nearest = np.abs(mass[:, None] - own["log10_mstar_msun"]).min(axis=1)
    assert nearest.max() < 1e-4


@pytest.mark.slow
def test_posteriors_become_the_centre_of_the_other_roads_hyperprior(
    folder, small_loaded, monkeypatch
):
    """Redshifts, which are known, with their own mean and scatter; too few galaxies are refused."""
    catalog = open_catalog(folder / "galaxies.parquet", load_survey("sdss"))
    setup = make_posterior_setup(folder / "run", small_loaded, catalog, FREE, CONFIG, seed=0)
    with pytest.raises(InputError, match="does not ship: run `tinsley hierarchy`"):
        informed(setup.photometry, folder / "run", seed=0)
    monkeypatch.setattr("tinsley.catalog.hierarchy.load_posterior", lambda name: small_loaded)
    centre = informed(setup.photometry, folder / "run", seed=0).problem.reference
    galaxies = load_galaxies(folder / "run", ("redshift", "status"))
    x = ndtri((galaxies["redshift"][np.isin(galaxies["status"], TRUSTED)] - 0.05) / 0.01)
    assert float(centre.mean[0]) == pytest.approx(x.mean(), abs=1e-3)
    assert float(centre.factor[0, 0]) == pytest.approx(np.sqrt(x.var() + 1e-4), abs=1e-3)
    assert np.asarray(centre.mean)[1:].any()
    run = folder / copy_of(folder, "cut-short")
    few = load_galaxies(run)
    write_parquet(run / "galaxies.parquet", {k: v[:50] for k, v in few.items()}, {})
    with pytest.raises(InputError, match="holds 50 galaxies .* at least 220"):
        informed(setup.photometry, run, seed=0)


def copy_of(folder, name, **changes):
    """The run with another manifest."""
    if not (folder / name).exists():
        shutil.copytree(folder / "run", folder / name)
    manifest = json.loads((folder / "run" / "manifest.json").read_text())
    (folder / name / "manifest.json").write_text(json.dumps(manifest | changes))
    return name


REFUSED = [
    ({"keep_draws": False}, (), "holds no draws; run `tinsley infer` again"),
    ({"model_sha256": "0"}, (), "was inferred with another model"),
    ({"input_sha256": "0"}, (), "is of another catalogue"),
    ({"prior": {"name": "mine"}}, (), "under a prior of its own"),
    ({}, ("--select", "r < 3"), "at least 200 galaxies"),
    ({}, ("--select", "q < 3"), "'q < 3' is no cut"),
]


@pytest.mark.parametrize(("changes", "options", "message"), REFUSED, ids=lambda v: str(v)[:30])
def test_bad_input_is_refused_in_a_sentence(changes, options, message, command, folder, capsys):
    assert command(*options, run=copy_of(folder, "other", **changes)) == 2
    said = capsys.readouterr().err
    assert re.search(message, said.replace("\n", " ")), said
    assert "Traceback" not in said


def test_a_folder_without_a_run_is_refused(command, folder, capsys):
    (folder / "empty").mkdir(exist_ok=True)
    assert command(run="empty") == 2
    assert "holds no finished run" in capsys.readouterr().err.replace("\n", " ")
