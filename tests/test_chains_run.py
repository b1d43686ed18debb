"""Runs that end with chains: the galaxies that nothing else does, and what is said of them."""

from __future__ import annotations

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from test_refine_run import FIRST_DRAWS, table
from test_run import draws, galaxies, run  # noqa: F401
from tinsley.catalog import refine as refine_module
from tinsley.catalog.run import judge
from tinsley.infer.importance import is_weak
from tinsley.infer.refine import MORE_DRAWS, draw_hmc, draw_mixture, draw_smc
from tinsley.infer.smc import EFFORT
from tinsley.observe.survey import Photometry
from tinsley.sps.derived import DERIVED
from tinsley.status import Method, Redshift, Refine

HARD, FAINT = 0, 1


def gives_up(posterior, seen, number, *, key):
    drawn = draw_mixture(posterior, seen, number, key=key)
    return drawn._replace(psis=drawn.psis._replace(ess=jnp.asarray(jnp.nan)))


def in_haste(posterior, seen, number, *, key):
    """A sampler that is not given the time to reach the posterior."""
    effort = EFFORT._replace(particles=128, steps=1, most_temperatures=1)
    return draw_smc(posterior, seen, number, effort, key=key)


STAGES = ((Method.WEIGHTED, gives_up), (Method.SMC, in_haste), (Method.HMC, draw_hmc))


@pytest.fixture(scope="module")
def cut(run):  # noqa: F811
    """A run over a well-measured galaxy that no mixture does, and a faint one that any does."""

    def cut(stages):
        made = {name: values[[0, 2]] for name, values in table().items()}
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(refine_module.STAGES, Redshift.GIVEN, stages)
            return run(made, draws=FIRST_DRAWS, refine=Refine.ALL)

    return cut


@pytest.fixture(scope="module")
def weighted(cut):
    return galaxies(cut(((Method.WEIGHTED, draw_mixture),)))


@pytest.fixture(scope="module")
def chains(cut):
    return cut(STAGES)


@pytest.mark.slow
def test_chains_do_what_mixture_and_sampler_do_not(weighted, chains):
    found = galaxies(chains)
    assert weighted["status"][HARD] == "low_ess"
    assert found["method"] == ["hmc", "hmc"]
    assert found["status"] == ["ok", "ok"]
    assert found["n_draws"] == [MORE_DRAWS] * 2
    assert np.isnan(found["khat"]).all()
    assert (np.array(found["rhat"]) < 1.01).all()
    assert (np.array(found["ess"]) >= 100).all()
    np.testing.assert_allclose(draws(chains)["log_weight"], -np.log(FIRST_DRAWS), rtol=1e-6)


@pytest.mark.slow
def test_chains_agree_with_weighted_draws(weighted, chains, small_loaded):
    """5 standard errors in each of some 40 numbers: a false alarm in 40,000 runs."""
    found = galaxies(chains)
    sizes = [table["ess"][FAINT] for table in (weighted, found)]
    assert min(sizes) > 500
    assert weighted["status"][FAINT] == "ok"
    error = np.sqrt(np.sum(1 / np.array(sizes)))
    for name in (*small_loaded.posterior.space.names, *DERIVED):
        mean, std = (weighted[f"{name}_{end}"][FAINT] for end in ("mean", "std"))
        assert abs(found[f"{name}_mean"][FAINT] - mean) < 5 * error * std, name
        assert abs(found[f"{name}_std"][FAINT] / std - 1) < 5 * error, name
    assert found["log_evidence"][FAINT] == pytest.approx(weighted["log_evidence"][FAINT], abs=0.3)


def test_the_status_of_chains_goes_by_r_hat(small_loaded):
    flux = np.tile([1.0, 2.0, 3.0, 4.0, 5.0], (4, 1))
    rows = Photometry(np.arange(4), np.full(4, 0.055), flux, 0.05 * flux, np.ones((4, 5), bool),
                      np.full(4, "", object))  # fmt: skip
    found = SimpleNamespace(
        ess=np.array([500.0, 500.0, 50.0, 500.0]),
        khat=np.full(4, np.nan),
        rhat=np.array([1.005, 1.02, 1.005, 1.005]),
        log_evidence=np.array([0.0, 0.0, 0.0, -np.inf]),
        summary={},
    )
    words = ["ok", "low_ess", "low_ess", "failed"]
    assert judge(small_loaded, rows, None, found).tolist() == words
    assert is_weak(found.ess, found.khat, found.rhat).tolist() == [False, True, True, False]
