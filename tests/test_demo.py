"""`tinsley demo` from end to end, on 40 galaxies, with a small untrained network."""

from __future__ import annotations

import json

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from conftest import SMALL_FLOW
from tinsley.cli import demo as demo_module
from tinsley.cli.main import app
from tinsley.density.flows import make_flow
from tinsley.errors import InputError
from tinsley.infer.features import n_features
from tinsley.infer.spec import PosteriorSpec
from tinsley.io.models import Networks, physics_checksums, save_model
from tinsley.io.surveys import load_survey
from tinsley.parameters import default_space

pytestmark = pytest.mark.slow  # the whole demo, from compiling to figures

FIGURES = {
    "star_forming_sequence", "galaxy_corner", "galaxy_sed", "residuals", "training_support",
    "trust",
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    survey, space = load_survey("sdss"), default_space()
    n_dim = space.without_mass().n_unit
    spec = PosteriorSpec(
        name="small",
        survey="sdss",
        bands=survey.bands,
        filters=survey.filters,
        space=space.to_dict(),
        redshift_range=(0.01, 0.6),
        snr_range=(1.0, 200.0),
        flow=SMALL_FLOW,
        colour_limits={"redshift": [0.1, 0.5], "ratio": [[2.0] * 4] * 2},
        **physics_checksums(),
    )
    path = tmp_path_factory.mktemp("model") / "small.tinsley"
    flow = make_flow(SMALL_FLOW, n_features(5), n_dim, key=jax.random.key(2))
    save_model(path, spec, Networks(flow))
    return path


@pytest.fixture(scope="module")
def demo(model):
    def run(out, *options):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(demo_module, "N_SIMULATED", 2000)
            arguments = ["demo", "--out", str(out), "--model", str(model),
                         "--refine", "never", *options]  # fmt: skip
            return CliRunner().invoke(app, arguments, catch_exceptions=True)

    return run


@pytest.fixture(scope="module")
def finished(demo, tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "new" / "folder"
    return out, demo(out, "--number", "40", "--draws", "100")


def test_every_figure_and_table_is_there(finished):
    out, result = finished
    assert result.exit_code == 0, result.output
    assert {path.stem for path in (out / "figures").glob("*.png")} == FIGURES
    assert not list(out.rglob("*.part"))
    assert pq.read_table(out / "galaxies.parquet").num_rows == 40


def test_the_summary_agrees_with_the_table(finished):
    out, result = finished
    summary = json.loads((out / "demo.json").read_text())
    galaxies = pq.read_table(out / "galaxies.parquet")
    assert sum(summary["statuses"].values()) == summary["galaxies"] == 40
    share = galaxies["ess"].to_numpy() / 100
    np.testing.assert_allclose(
        summary["efficiency_quantiles"]["0.5"], np.nanmedian(share), atol=1e-4
    )
    assert summary["galaxies_per_second"] == pytest.approx(
        40 / summary["inference_seconds"], rel=0.1
    )
    assert set(summary["misfit"]) == set("ugriz")
    words = result.output
    assert all(word in words for word in ("low_ess", "galaxies/s", "figures", "galaxies.parquet"))


def test_the_same_command_again_finds_its_results(finished, demo):
    out, _ = finished
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}
    summary = (out / "demo.json").read_text()
    assert demo(out, "--number", "40", "--draws", "100").exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.png")} == before
    assert (out / "demo.json").read_text() == summary


def test_lost_figures_are_drawn_again_without_a_false_speed(finished, demo, monkeypatch):
    monkeypatch.setattr(demo_module, "_save_figures", lambda *_: {"u": "drawn again"})
    out, _ = finished
    (out / "demo.json").unlink()
    assert demo(out, "--number", "40", "--draws", "100").exit_code == 0
    summary = json.loads((out / "demo.json").read_text())
    assert summary["galaxies_per_second"] is None
    assert summary["misfit"] == {"u": "drawn again"}


def test_another_seed_needs_another_folder(finished, demo):
    out, _ = finished
    result = demo(out, "--number", "40", "--draws", "100", "--seed", "1")
    assert isinstance(result.exception, InputError)
    assert "another seed" in str(result.exception)


def test_a_folder_that_can_not_be_made_is_said_in_a_sentence(demo, tmp_path):
    (tmp_path / "file").write_text("")
    result = demo(tmp_path / "file" / "out", "--number", "40")
    assert isinstance(result.exception, InputError)
    assert "can not be made a folder" in str(result.exception)
