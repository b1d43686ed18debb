"""A run of `tinsley infer` under a population, where the answer is known."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from tinsley.catalog.reweight import reweight_run
from tinsley.errors import InputError
from tinsley.io.populations import FittedPopulation
from tinsley.io.results import write_parquet
from tinsley.observe.noise import SnrGivenFlux
from tinsley.parameters import MASS, default_space
from tinsley.population.density import MixturePopulation
from tinsley.population.reweight import log_prior_ratio, pass_probability
from tinsley.population.space import PopulationSpace
from tinsley.population.synthetic import Selection

DRAWS = 8000
SIGMA, WIDTH = 0.5, 0.5
SEEN, CENTRES = np.array([-0.3, 0.4, 1.0, 0.1]), (0.2, 1.0)
REDSHIFT = np.array([0.1, 0.2, 0.3, 0.4])
FREE, KEY = Selection((-np.inf,) * 5), jax.random.key(5)


@pytest.fixture(scope="module")
def space(small_posterior) -> PopulationSpace:
    return PopulationSpace(default_space(), small_posterior.cosmology, (0.01, 0.6))


@pytest.fixture
def population(space):
    """Two members, Gaussian in the coordinate of mass and the prior in all others."""

    def make(selection=FREE, weight=(1.0, 1.0)) -> FittedPopulation:
        n_dim = space.n_dim
        factor = jnp.zeros((1, n_dim, n_dim)).at[0, 1, 1].set(np.log(WIDTH))
        members = tuple(
            MixturePopulation(jnp.zeros((1, n_dim)).at[0, 1].set(centre), factor)
            for centre in CENTRES
        )
        nodes = jnp.asarray([[5.0, 40.0]] * 5)
        noise = SnrGivenFlux(nodes, jnp.full((5, 2), 1.0), jnp.full((5, 2), 1e-3))
        columns = {"member": np.array([0, 1]), "selected_weight": np.array(weight)}
        return FittedPopulation(columns, {}, space, members, noise, selection)

    return make


@pytest.fixture(scope="module")
def theta(space):
    """Posteriors of four galaxies, each mass seen with a Gaussian error, under the prior."""
    x = np.random.default_rng(1).normal(size=(4, DRAWS, space.n_dim))
    x[..., 1] = (SEEN / (1 + SIGMA**2))[:, None] + SIGMA / np.sqrt(1 + SIGMA**2) * x[..., 1]
    x[..., 0] = norm.ppf((REDSHIFT - 0.01) / 0.59)[:, None]
    return {n: np.asarray(v) for n, v in space.theta(jnp.asarray(x, dtype=float)).items()}


@pytest.fixture
def run(tmp_path, theta):
    """As `tinsley infer` would leave them, redshifts given, in two chunks of two."""
    names = np.array([11, 12, 13, 14])
    (tmp_path / "draws").mkdir()
    manifest = {"draws": DRAWS, "keep_draws": True, "prior": None}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    table = {"object_id": names[::-1].copy(), "redshift": REDSHIFT[::-1].copy()}
    write_parquet(tmp_path / "galaxies.parquet", table, {})
    for chunk in (0, 1):
        rows = slice(2 * chunk, 2 * chunk + 2)
        columns = {n: v[rows].ravel() for n, v in theta.items() if n != "redshift"}
        columns["object_id"] = np.repeat(names[rows], DRAWS)
        columns["log_weight"] = np.full(2 * DRAWS, -np.log(DRAWS), np.float32)
        write_parquet(tmp_path / "draws" / f"draws-{chunk:06d}.parquet", columns, {})
    return tmp_path


def mean_mass(space, weight_of):
    """Of each galaxy by quadrature; `weight_of` is the prior density in the coordinate of mass."""
    grid = np.linspace(-4, 4, 2001)
    x = np.zeros((len(grid), space.n_dim))
    x[:, 1] = grid
    mass = np.asarray(space.theta(jnp.asarray(x, dtype=float))[MASS])
    weight = norm.pdf(grid, SEEN[:, None], SIGMA) * weight_of(grid)
    return weight @ mass / weight.sum(axis=1)


def test_galaxies_follow_the_members_mean_and_their_spread(run, population, space):
    found = reweight_run(population(), run, (MASS,), key=KEY)
    assert found["object_id"].tolist() == [11, 12, 13, 14]
    of_each = [mean_mass(space, lambda x, c=c: norm.pdf(x, c, WIDTH)) for c in CENTRES]
    both = mean_mass(space, lambda x: sum(norm.pdf(x, c, WIDTH) for c in CENTRES))
    spread = np.std([mean_mass(space, norm.pdf)])
    assert np.ptp(of_each, axis=0).min() > 0.1 * spread, "the members matter"
    np.testing.assert_allclose(found[f"{MASS}_mean"], both, atol=0.03)
    np.testing.assert_allclose(found[f"{MASS}_members_std"], np.std(of_each, axis=0), atol=0.02)
    gain = np.mean([norm.pdf(SEEN, c, np.hypot(WIDTH, SIGMA)) for c in CENTRES], axis=0)
    expected = np.log(gain / norm.pdf(SEEN, 0, np.hypot(1, SIGMA)))
    np.testing.assert_allclose(found["log_evidence_gain"], expected, atol=0.05)
    np.testing.assert_allclose(found["ess"], found["ess_share"] * DRAWS, rtol=1e-3)
    assert np.all(found[f"{MASS}_q16"] < found[f"{MASS}_q50"])
    assert np.all(found[f"{MASS}_q50"] < found[f"{MASS}_q84"])


def test_what_is_rarely_seen_weighs_more(run, population, space, theta, small_posterior):
    cut = Selection((-np.inf, -np.inf, 1.0, -np.inf, -np.inf))
    fitted = population(cut, weight=(4.0, 2.0))  # shares of 1/4 and 1/2
    vars(fitted)["tables"] = small_posterior.tables  # in the place of the embedded physics
    found = reweight_run(fitted, run, (MASS,), key=KEY)
    passing = pass_probability(small_posterior.tables, fitted.survey, theta, key=KEY)
    assert 0.02 < np.mean(passing < 0.5) < 0.98
    ratio = log_prior_ratio(fitted.members, space, theta, (passing, np.array([0.25, 0.5])))
    weight = np.exp(ratio).mean(axis=0)
    expected = np.sum(weight * theta[MASS], axis=1) / np.sum(weight, axis=1)
    np.testing.assert_allclose(found[f"{MASS}_mean"], expected, atol=0.05)
    free = reweight_run(population(), run, (MASS,), key=KEY)
    assert np.all(found[f"{MASS}_mean"] < free[f"{MASS}_mean"])


def test_runs_that_will_not_do_are_refused(run, population):
    with pytest.raises(InputError, match="no draws of age_mw_gyr"):
        reweight_run(population(), run, ("age_mw_gyr",), key=KEY)
    manifest = {"draws": DRAWS, "keep_draws": True, "prior": None, "nebular": -3.0}
    (run / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="of log U = -3, where the population has stars alone"):
        reweight_run(population(), run, (MASS,), key=KEY)
    manifest |= {"prior": {"name": "mine"}}
    (run / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="prior of its own"):
        reweight_run(population(), run, (MASS,), key=KEY)
    (run / "manifest.json").write_text(json.dumps(manifest | {"keep_draws": False}))
    with pytest.raises(InputError, match="holds no draws"):
        reweight_run(population(), run, (MASS,), key=KEY)
