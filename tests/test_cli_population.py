"""`tinsley population`: whole runs, killed runs, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import re
import sys

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest

from tinsley.catalog import population as ensemble
from tinsley.cli.main import run
from tinsley.cli.population import advice
from tinsley.io.catalogs import load_sample_catalog_path
from tinsley.io.checkpoints import TrainingFolder
from tinsley.io.populations import load_population
from tinsley.io.results import write_parquet
from tinsley.parameters import default_space
from tinsley.population import config as configs
from tinsley.population.density import FLOW
from tinsley.population.forecast import synthetic_catalog, true_flux
from tinsley.sps.derived import DERIVED

SMALL = FLOW | {"layers": 2, "width": 8, "depth": 1, "knots": 4}
N = 400


@pytest.fixture(scope="module")
def galaxies() -> dict[str, np.ndarray]:
    """Real galaxies, without their redshifts."""
    table = pq.read_table(load_sample_catalog_path())
    names = [name for name in table.column_names if name.startswith(("object", "flux"))]
    return {name: table[name].to_numpy()[:N] for name in names}


@pytest.fixture
def command(monkeypatch, own_cache, tmp_path, galaxies):
    """The real command, with a small network."""
    small = dataclasses.replace(configs.TINSLEY, density=SMALL, steps=8, batch=32, validations=4)
    monkeypatch.setitem(configs.CONFIGS, "tinsley", small)
    monkeypatch.setattr(ensemble, "_NEIGHBOURS", 500)

    def command(*options, table=None, out="out") -> int:
        path = tmp_path / "galaxies.parquet"
        write_parquet(path, galaxies | (table or {}), {})
        argv = ["tinsley", "population", path, "--out", tmp_path / out, "--members", 2]
        argv += ["--draws", 301, "--redshift-min", 0.05, "--redshift-max", 0.06, *options]
        monkeypatch.setattr(sys, "argv", [str(word) for word in argv])
        with pytest.raises(SystemExit) as stop:
            run()
        return stop.value.code or 0

    return command


def draws(folder) -> dict[str, np.ndarray]:
    table = pq.read_table(folder / "population.parquet")
    return {name: table[name].to_numpy() for name in table.column_names}


def made_from(fitted) -> dict[str, np.ndarray]:
    """A synthetic catalogue of the run's own survey: of a member as observed, for many pass."""
    x, _ = fitted.members[0].sample_and_log_prob(1000, key=jax.random.key(1))
    columns = {name: np.asarray(values) for name, values in fitted.space.theta(x).items()}
    survey, key = fitted.survey, jax.random.key(0)
    return synthetic_catalog(columns, fitted.tables, fitted.bands, survey, key=key)


@pytest.mark.slow
def test_a_run_leaves_what_it_should_however_it_is_interrupted(command, tmp_path, monkeypatch):
    assert command("--select", "r < 17.77") == 0
    columns, out = draws(tmp_path / "out"), tmp_path / "out"
    assert set(columns) == {
        "member", "selected_weight", "redshift", *default_space().names, *DERIVED,
    }  # fmt: skip
    assert np.bincount(columns["member"]).tolist() == [151, 150]
    assert columns["selected_weight"].mean(dtype=float) == pytest.approx(1, rel=1e-4)
    assert np.all((columns["redshift"] > 0.05) & (columns["redshift"] < 0.06))
    assert all(np.isfinite(values).all() for values in columns.values())
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["rows"]["rows"] == N
    assert manifest["rows"]["used"] + manifest["rows"]["below_cut"] == N
    assert [m["steps"] for m in manifest["members"]] == [8, 8]
    assert manifest["members"][0]["reference"] != manifest["members"][1]["reference"]
    assert 0 <= manifest["unreached_share"] <= 1
    assert (out / "corner.png").read_bytes().startswith(b"\x89PNG")
    again = load_population(out)
    assert len(again.members) == 2
    assert made_from(again)["flux_r"].min() > 10 ** (0.4 * (22.5 - 17.77))
    np.testing.assert_array_equal(again.columns["redshift"], columns["redshift"])

    with monkeypatch.context() as patched:
        patched.setattr(TrainingFolder, "save", killed_at(6, TrainingFolder.save))
        assert command("--select", "r < 17.77", out="again") == 130
    assert not (tmp_path / "again" / "population.parquet").exists()
    assert command("--select", "r < 17.77", out="again") == 0
    again = draws(tmp_path / "again")
    for name, values in columns.items():
        np.testing.assert_array_equal(values, again[name], err_msg=name)

    assert command("--select", "r < 17.5") == 2  # the same folder, another population


@pytest.mark.slow
def test_another_run_is_a_prior_and_a_survey_may_be_incomplete(command, tmp_path):
    out = tmp_path / "out"
    assert command("--select", "r < 17.77") == 0
    manifest = json.loads((out / "manifest.json").read_text())
    share = tmp_path / "share.csv"
    share.write_text("mag_r,completeness\n16,1\n17.77,0.4\n", encoding="utf-8")
    options = ("--select", "r < 17.77", "--from", out, "--completeness", share)
    assert command(*options, "--nebular", -3, out="informed") == 0
    informed = json.loads((tmp_path / "informed" / "manifest.json").read_text())
    assert informed["centre"]["mean"] != manifest["centre"]["mean"]
    assert informed["completeness"]["mag"] == pytest.approx([16, 17.77])
    assert informed["completeness"]["share"] == pytest.approx([1.0, 0.4])
    kept = load_population(tmp_path / "informed").selection.completeness
    assert float(kept(jax.numpy.full(5, 1e-3))) == pytest.approx(0.4)
    runs = [load_population(tmp_path / run) for run in ("out", "informed")]
    stars, lit = (true_flux(runs[0].columns, fitted.tables) for fitted in runs)
    assert np.all(lit >= stars * (1 - 1e-4))
    assert np.max(lit / stars) > 1.02


@pytest.mark.slow
def test_members_can_be_trained_at_once(command, tmp_path):
    cut = ("--select", "r < 17.77")
    assert command(*cut) == 0
    assert command(*cut, "--together", 2, out="both") == 0
    for number in range(2):
        alone, both = (
            json.loads((tmp_path / run / f"members/member-{number:02d}/history.json").read_text())
            for run in ("out", "both")
        )
        assert [entry["step"] for entry in both] == [2, 4, 6, 8]
        assert both[0]["validation_loss"] == pytest.approx(alone[0]["validation_loss"], rel=0.01)
    assert len(load_population(tmp_path / "both").members) == 2


@pytest.mark.slow
def test_known_redshifts_count(command, tmp_path):
    redshift = np.linspace(0.045, 0.06, N)
    assert command("--redshift", "given", table={"redshift": redshift}) == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["redshift"] == "given"
    assert manifest["rows"]["redshift_out_of_range"] == np.sum(redshift < 0.05)
    assert manifest["rows"]["used"] == np.sum(redshift >= 0.05)
    assert command(table={"redshift": redshift}) == 2  # the same folder, redshifts free


@pytest.mark.slow
def test_a_member_that_diverges_begins_anew_more_slowly(
    command, tmp_path, monkeypatch, galaxies, capsys
):
    real = ensemble.train_block

    def explode(fixed, state, key):
        state, losses = real(fixed, state, key)
        fast = fixed[2].rate > 0.5 * configs.TINSLEY.rate
        return state, losses * np.nan if fast and float(state.step) > 4 else losses

    monkeypatch.setattr(ensemble, "train_block", explode)
    options = ("--select", "r < 17.77", "--members", 1)
    holes = {"flux_u": np.where(np.arange(N) < 30, np.nan, galaxies["flux_u"])}
    assert command(*options, table=holes) == 0
    assert "begun anew: member 0" in capsys.readouterr().err.replace("\n", " ")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["rows"]["bad_input"] == 30
    (member,) = manifest["members"]
    assert member["restarts"] == 1
    assert member["rate"] == pytest.approx(0.3 * configs.TINSLEY.rate)
    monkeypatch.setattr(ensemble, "train_block", lambda *a: (real(*a)[0], np.array([np.nan])))
    assert command(*options, out="never") == 2


REFUSED = [
    (("--config", "magic"), None, "expected one of tinsley, popsed, mixture"),
    (("--distance", "far"), None, "expected one of sliced, sinkhorn, energy, char"),
    (("--select", "q < 17"), None, "'q < 17' is no cut"),
    (("--select", "r > 17"), None, "'r > 17' is no cut"),
    (("--select", "r < bright"), None, "is no cut"),
    (("--select", "r < 3"), None, "at least 200 galaxies"),
    (("--prior", "nowhere.parquet"), None, "nowhere.parquet"),
    (("--prior", "/"), None, "holds no finished run of `tinsley infer`"),
    (("--from", "nowhere"), None, "nowhere holds no population.parquet"),
    (("--from", "nowhere", "--prior", "mine.csv"), None, "--prior or --from, not both"),
    (("--completeness", "nowhere.csv"), None, "nowhere.csv"),
    (("--redshift", "given"), None, "redshift"),
    (("--redshift", "given"), {"redshift": np.full(N, 0.5)}, "at least 200 galaxies"),
    (("--redshift", "given"), {"redshift": np.full(N, 0.055), "redshift_err": np.full(N, 0.01)},
     "needs exact redshifts"),
    (("--redshift-min", 0.5), None, "expected --redshift-min below"),
    ((), {"flux_g": np.full(N, np.nan), "flux_err_g": np.full(N, np.nan)}, "measured in g"),
    ((), {f"flux_{b}": np.full(N, 5.0) for b in "ugriz"}
     | {f"flux_err_{b}": np.full(N, 0.1) for b in "ugriz"}, "does not vary"),
    ((), {"flux_r": np.full(N, -1e6)}, "no galaxy is measured|at least 200 galaxies"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "table", "message"), REFUSED, ids=lambda v: str(v)[:30])
def test_bad_input_is_refused_in_a_sentence(options, table, message, command, capsys):
    assert command(*options, table=table) == 2
    said = capsys.readouterr().err
    assert re.search(message, said.replace("\n", " ")), said
    assert "Traceback" not in said


def killed_at(number: int, save):
    """`save`, but for a kill instead of the call of that number."""
    calls = []

    def wrapped(self, state, history):
        calls.append(0)
        if len(calls) == number:
            raise KeyboardInterrupt
        save(self, state, history)

    return wrapped


def test_the_advice_on_a_bad_match_depends_on_the_distance():
    blunt = configs.TINSLEY
    sharp = dataclasses.replace(blunt, distance=configs.DISTANCES["characteristic"])

    def members(*ratios):
        return [
            {"member": i, "photometry_ratio": held_out, "catalog_ratio": catalog}
            for i, (held_out, catalog) in enumerate(ratios)
        ]

    assert "--steps 4000), or let the data count for more" in advice(members((1.5, 1)), blunt)
    assert "take --distance sliced" in advice(members((1, 1.5), (1, 1)), sharp)
    astray = advice(members((1, 1), (1, 1.49), (1, 1)), sharp)
    assert "member 1 (1.49)" in astray
    assert "leave these out (column `member`)" in astray
    assert not advice(members((1, 9)), blunt)
    assert not advice(members((9, 1)), sharp)
