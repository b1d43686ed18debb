"""The notebooks in docs/ run from top to bottom without a warning, and are kept without outputs."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

DOCS = Path(__file__).resolve().parents[1] / "docs"
POSTERIOR, POPULATION = "posterior_in_python", "population_in_python"
every = pytest.mark.parametrize("name", [POSTERIOR, POPULATION])


def cells(name: str, kind: str = "code") -> list[dict]:
    book = json.loads((DOCS / f"{name}.ipynb").read_text(encoding="utf-8"))
    return [cell for cell in book["cells"] if cell["cell_type"] == kind]


def run(name: str) -> dict:
    """What the code cells leave behind; the last value of each figure's cell is in `figures`.

    A cell with the tag `needs-<package>` is left out where that package is not installed.
    """
    matplotlib.use("agg")
    names: dict = {"__name__": "notebook", "figures": []}
    for number, cell in enumerate(cells(name)):
        tags = [t for t in cell["metadata"].get("tags", []) if t.startswith("needs-")]
        if any(importlib.util.find_spec(tag.removeprefix("needs-")) is None for tag in tags):
            continue
        *body, last = ast.parse("".join(cell["source"])).body
        exec(compile(ast.Module(body, []), f"cell {number}", "exec"), names)
        assert isinstance(last, ast.Expr), f"cell {number} shows nothing"
        shown = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names)
        if isinstance(shown, Figure):
            names["figures"].append(shown)
    return names


@pytest.fixture(scope="module")
def after() -> dict:
    pytest.importorskip("arviz_base", reason="arviz-base is not installed")
    return run(POSTERIOR)


@pytest.fixture(scope="module")
def after_population(tmp_path_factory) -> dict:
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(tmp_path_factory.mktemp("notebook"))
        return run(POPULATION)


def test_these_are_all():
    assert {file.stem for file in DOCS.rglob("*.ipynb")} == {POSTERIOR, POPULATION}


@every
def test_it_is_a_notebook_without_outputs(name):
    book = json.loads((DOCS / f"{name}.ipynb").read_text(encoding="utf-8"))
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in book["cells"]]
    assert len(ids) == len(set(ids))
    assert {cell["cell_type"] for cell in book["cells"]} == {"code", "markdown"}
    code = cells(name)
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)


@every
def test_what_it_imports_is_there(name):
    """So that a name that was changed is noticed without running all of it."""
    found = [node for cell in cells(name) for node in ast.walk(ast.parse("".join(cell["source"])))]
    named = [
        (node.module, alias.name)
        for node in found
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    assert len(named) > 1
    for module, asked in named:
        assert hasattr(importlib.import_module(module), asked), f"{module} has no {asked}"


@pytest.mark.slow
def test_it_runs_and_says_what_its_text_does(after):
    result, photoz, uncertain = after["result"], after["photoz"], after["uncertain"]
    assert np.isin(result.status, ["ok", "unusual_error"]).sum() >= 6  # of eight, unrefined
    assert len(after["figures"]) == 3
    assert dict(after["tree"].posterior.sizes)["draw"] == 1000
    assert "redshift" not in result.draws
    true = after["redshift"]
    for found in (photoz, uncertain, after["either"]):
        trusted = found.status != "low_ess"  # eight galaxies, and no refinement
        assert trusted.sum() >= 6
        away = np.abs(found.table["redshift_mean"] - true)
        assert np.all((away < 4 * found.table["redshift_std"] + 1e-6)[trusted])
    np.testing.assert_array_equal(uncertain.table["redshift_std"][0], 0.0)
    assert uncertain.table["redshift_std"][1] == pytest.approx(1e-5, rel=0.1)
    same = ("ess", "log_evidence", "tau_ism_q50")  # exact redshifts are those of the first call
    for name in same:
        assert uncertain.table[name][0] == result.table[name][0]


@pytest.mark.slow
def test_a_population_is_put_to_every_use(after_population):
    left = after_population
    draws, observed, made = left["draws"], left["observed"], left["made"]
    assert len(left["figures"]) == 10
    ratios = [member["photometry_ratio"] for member in left["fitted"].manifest["members"]]
    assert len(ratios) == 3
    assert max(ratios) < 3
    mean = np.average(draws["redshift"], weights=draws["selected_weight"])
    assert mean == pytest.approx(observed["redshift"].mean(), abs=0.04)
    for catalogue in (made, observed):  # the redder, the farther
        of_bin = [catalogue["redshift"][catalogue["bin"] == i].mean() for i in range(3)]
        assert of_bin[0] < of_bin[2]
    assert left["sequence"].slope.each.shape == (3,)
    assert np.isfinite(left["phi"].median).all()
    nearer = dict(
        zip(left["as_observed"]["property"], left["as_observed"]["difference"], strict=True)
    )
    assert nearer["redshift"] < 0, "the brighter cut keeps nearer galaxies"
    usual = np.mean(observed["redshift"] > 0.13)
    completeness, purity = left["judged"]["real galaxies"]
    assert completeness.each[0] > 0.2
    assert purity.each[0] > usual + 0.2
    assert len(set(left["rare"]["object_id"])) == len(left["rare"]["object_id"]) > 0
    assert np.nanmedian(left["after"]["ess_share"]) < 1, "another prior costs draws"
    assert set(left["after"]["object_id"]) <= set(left["before"]["object_id"])


@pytest.mark.slow
def test_an_ensemble_of_qp_holds_every_member_and_bin(after_population):
    pytest.importorskip("qp", reason="qp-prob is not installed: pip install 'tinsley[qp]'")
    assert after_population["ensemble"].npdf == 9
