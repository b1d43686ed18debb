"""Runs that refine: which rows, what they say, and the same bits however they are cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from test_run import EXPECTED, N, assert_same, columns, draws, galaxies, run  # noqa: F401
from tinsley.catalog import refine as refine_module
from tinsley.infer.importance import is_weak
from tinsley.infer.refine import MORE_DRAWS
from tinsley.status import Method, Redshift, Refine

pytestmark = pytest.mark.slow  # the sampler takes a minute to compile
FIRST_DRAWS = 1500
HARD = slice(0, 2)
"""Rows made too well measured for an untrained flow."""
FEW = 9


def table() -> dict[str, np.ndarray]:
    """Some faint galaxies, two well-measured ones that no mixture does, and a bad row."""
    made = {name: values[[0, 1, 2, 3, 4, 5, 6, 7, N - 5]] for name, values in columns().items()}
    for k, band in enumerate("ugriz"):
        flux = made[f"flux_{band}"]
        flux[HARD] = 10 * np.array([8.0, 25.0, 40.0, 50.0, 55.0])[k] * np.array([1.0, 3.0])
        made[f"flux_err_{band}"][HARD] = flux[HARD] / 60
    return made


@pytest.fixture(scope="module")
def cut(run):  # noqa: F811
    def cut(made=None, **settings):
        return run(made or table(), draws=FIRST_DRAWS, **settings)

    return cut


@pytest.fixture(scope="module")
def never(cut) -> Path:
    return cut()


@pytest.fixture(scope="module")
def auto(cut) -> Path:
    return cut(refine=Refine.AUTO)


def test_each_row_names_its_method_and_draws(auto):
    found = galaxies(auto)
    method = np.array(found["method"])
    assert method[-1] == ""
    assert {"flow", "smc"} <= set(method[:-1]) <= {str(word) for word in Method}
    expected = [0 if m == "" else FIRST_DRAWS if m == "flow" else MORE_DRAWS for m in method]
    assert found["n_draws"] == expected
    assert found["status"][-1] == EXPECTED[2]


def test_only_the_weak_are_refined_and_the_others_keep_their_bits(never, auto):
    before, after = galaxies(never), galaxies(auto)
    weak = is_weak(np.array(before["ess"][:-1]), np.array(before["khat"][:-1]))
    flagged = weak | (np.array(before["status"][:-1]) != "ok")
    assert flagged.any()
    assert not flagged.all()
    np.testing.assert_array_equal(np.array(after["method"][:-1]) != "flow", flagged)
    for name, values in before.items():
        np.testing.assert_array_equal(
            np.array(values)[:-1][~flagged], np.array(after[name])[:-1][~flagged], err_msg=name
        )
    ess = np.array(after["ess"][:-1])
    assert np.all(ess[flagged] > np.array(before["ess"][:-1])[flagged])


def test_refined_rows_end_well_and_their_draws_agree_with_the_summary(auto):
    found, drawn = galaxies(auto), draws(auto)
    refined = np.flatnonzero(np.isin(found["method"], ["weighted", "smc", "hmc"]))
    weak = is_weak(*(np.array(found[name]) for name in ("ess", "khat", "rhat")))
    assert not weak[refined].any()
    weight = np.exp(drawn["log_weight"].astype(float)).reshape(-1, FIRST_DRAWS)
    np.testing.assert_allclose(weight[refined], 1 / FIRST_DRAWS, rtol=1e-5)
    for name in ("tau_ism", "log10_mstar_msun", "age_mw_gyr"):
        values = drawn[name].reshape(-1, FIRST_DRAWS)[refined].astype(float)
        spread = np.array(found[f"{name}_std"])[refined]
        off = values.mean(axis=1) - np.array(found[f"{name}_mean"])[refined]
        assert np.all(np.abs(off) < 5 * spread / np.sqrt(FIRST_DRAWS))
        np.testing.assert_allclose(values.std(axis=1), spread, rtol=0.2)


@pytest.mark.parametrize("chunk", [2, 4])
def test_chunks_and_order_change_nothing(chunk, cut, auto):
    order = np.random.default_rng(chunk).permutation(FEW)
    made = {name: values[order] for name, values in table().items()}
    assert_same(auto, cut(made, chunk=chunk, refine=Refine.AUTO), order)


def test_all_refines_all(cut, auto):
    found = galaxies(cut(refine=Refine.ALL))
    assert set(found["method"][:-1]) <= {"weighted", "smc", "hmc"}
    for row in np.flatnonzero(np.array(galaxies(auto)["method"]) == "smc"):
        assert found["ess"][row] == galaxies(auto)["ess"][row]


@pytest.mark.parametrize("share", [np.nan, 0.5])
def test_a_sampler_that_does_worse_changes_nothing(cut, monkeypatch, share):
    """The last way to draw gives up, or finds less: what was there stays, with its status."""

    def worse(posterior, seen, number, *, key):
        drawn = refine_module.draw_mixture(posterior, seen, number, key=key)
        return drawn._replace(
            log_weight=drawn.log_weight + 0 * share,
            log_evidence=drawn.log_evidence + share,
            psis=drawn.psis._replace(ess=share * drawn.psis.ess, khat=drawn.psis.khat + 1 + share),
        )

    mixture = refine_module.STAGES[Redshift.GIVEN][0]
    with monkeypatch.context() as patch:
        patch.setitem(refine_module.STAGES, Redshift.GIVEN, (mixture,))
        expected = cut(refine=Refine.AUTO)
    monkeypatch.setitem(refine_module.STAGES, Redshift.GIVEN, (mixture, (Method.SMC, worse)))
    found = cut(refine=Refine.AUTO)
    weak = np.array(galaxies(found)["status"]) == "low_ess"
    assert weak.any()
    assert_same(found, expected)
