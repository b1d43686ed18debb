"""The notebook in docs/ runs from top to bottom without a warning, and is kept without outputs."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

DOCS = Path(__file__).resolve().parents[1] / "docs"
NOTEBOOK = DOCS / "posterior_in_python.ipynb"


@pytest.fixture(scope="module")
def cells() -> list[dict]:
    return json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]


@pytest.fixture(scope="module")
def after(cells) -> dict:
    """What the code cells leave behind; the last value of each figure's cell is in `figures`."""
    pytest.importorskip("arviz_base", reason="arviz-base is not installed")
    matplotlib.use("agg")
    names: dict = {"__name__": "notebook", "figures": []}
    for number, cell in enumerate(c for c in cells if c["cell_type"] == "code"):
        *body, last = ast.parse("".join(cell["source"])).body
        exec(compile(ast.Module(body, []), f"cell {number}", "exec"), names)
        assert isinstance(last, ast.Expr), f"cell {number} shows nothing"
        shown = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names)
        if isinstance(shown, Figure):
            names["figures"].append(shown)
    return names


def test_it_is_the_only_one_and_has_no_outputs(cells):
    assert list(DOCS.rglob("*.ipynb")) == [NOTEBOOK]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)


@pytest.mark.slow
def test_it_runs_and_says_what_its_text_does(after):
    result, photoz, uncertain = after["result"], after["photoz"], after["uncertain"]
    assert np.mean(np.isin(result.status, ["ok", "unusual_error"])) > 0.8
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
