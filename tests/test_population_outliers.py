"""Rare draws and the observed galaxies like them, in a plane where both are known."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal, norm

from tinsley.observe.survey import Photometry
from tinsley.parameters import default_space
from tinsley.population.density import MixturePopulation
from tinsley.population.outliers import (
    column_log_density,
    ensemble_log_density,
    find_outliers,
    match_to_observed,
    outlier_table,
    rarest,
)
from tinsley.population.space import PopulationSpace

CLUMP = np.array([4.0, 4.0])


def gaussian(mean, width):
    factor = jnp.broadcast_to(jnp.log(width) * jnp.eye(2), (1, 2, 2))
    return MixturePopulation(jnp.asarray([mean]), factor)


@pytest.fixture
def plane():
    """Most galaxies about 0; a twentieth of the draws, and nine observed ones, in a clump."""
    rng = np.random.default_rng(2)
    draws = np.concatenate([rng.normal(size=(1900, 2)), CLUMP + 0.3 * rng.normal(size=(100, 2))])
    seen = np.concatenate([rng.normal(size=(2991, 2)), CLUMP + 0.3 * rng.normal(size=(9, 2))])
    return draws, seen


def test_the_density_is_the_members_mean(plane):
    members = [gaussian([0.0, 0.0], 1.0), gaussian([0.5, 0.0], 1.2)]
    found = ensemble_log_density(members, jnp.asarray(plane[0], dtype=float))
    each = [
        multivariate_normal([0, 0], 1.0).pdf(plane[0]),
        multivariate_normal([0.5, 0], 1.44).pdf(plane[0]),
    ]
    np.testing.assert_allclose(found, np.log(np.mean(each, axis=0)), atol=1e-3)


def test_a_share_is_of_the_weight():
    log_density = np.array([0.0, -5.0, -1.0, -9.0, -2.0])
    assert rarest(log_density, 0.4).tolist() == [3, 1]
    weight = np.array([1.0, 0.1, 1.0, 0.1, 1.0])
    assert rarest(log_density, 0.4, weight).tolist() == [3, 1, 4]
    with pytest.raises(ValueError, match="above 0 and below 1"):
        rarest(log_density, 1.0)


def test_rare_draws_lead_to_the_galaxies_like_them(plane):
    draws, seen = plane
    log_density = ensemble_log_density([gaussian([0.0, 0.0], 1.0)], jnp.asarray(draws, dtype=float))
    rows = rarest(log_density, 0.045)
    assert (rows >= 1900).mean() > 0.9, "the clump is where the population is thin"
    matches = match_to_observed(rows, draws[rows], seen)
    table = outlier_table(matches, np.arange(3000) + 7, log_density, {"x": draws[:, 0]})
    assert set(table) == {"object_id", "log_density", "distance", "draws", "x"}
    clump = set(range(2998, 3007))
    assert len(clump & set(table["object_id"].tolist())) >= 8
    assert len(set(table["object_id"].tolist())) == len(table["object_id"])
    assert np.all(np.diff(table["log_density"]) >= 0)
    assert table["draws"].sum() == matches.near.sum()
    np.testing.assert_allclose(
        table["distance"],
        [np.linalg.norm(draws[log_density.tolist().index(d)] - seen[i - 7])
         for d, i in zip(table["log_density"], table["object_id"], strict=True)],
    )  # fmt: skip


def test_a_draw_like_nothing_observed_is_not_matched(plane):
    far = np.array([[20.0, -20.0], [0.0, 0.1]])
    matches = match_to_observed(np.array([5, 6]), far, plane[1])
    assert matches.near.tolist() == [False, True]
    table = outlier_table(matches, np.arange(3000), np.zeros(10), {})
    assert table["object_id"].tolist() == [matches.observed[1]]


@pytest.fixture
def rare_and_red(small_posterior):
    """600 galaxies, the last six far out in one coordinate and of a colour apart."""
    space = PopulationSpace(default_space(), small_posterior.cosmology, (0.02, 0.6))
    rng = np.random.default_rng(4)
    x = 0.5 * rng.normal(size=(600, space.n_dim))
    x[-6:, 1] = 4.0
    theta = {name: np.asarray(v) for name, v in space.theta(jnp.asarray(x, dtype=float)).items()}
    flux = np.stack([10 * rng.lognormal(0, 0.1, 600), 20 * rng.lognormal(0, 0.1, 600)], axis=1)
    flux[-6:, 0] /= 30
    table = {"flux_g": flux[:, 0], "flux_r": flux[:, 1], "object_id": np.arange(600)}
    return space, x, table | theta


def test_the_density_of_columns_is_that_of_their_points(rare_and_red):
    space, x, table = rare_and_red
    prior = MixturePopulation(jnp.zeros((1, space.n_dim)), jnp.zeros((1, space.n_dim, space.n_dim)))
    found = column_log_density([prior], space, table)
    np.testing.assert_allclose(found, norm.logpdf(x).sum(axis=1), atol=0.02)


def test_observed_galaxies_like_the_rare_ones_are_found(rare_and_red):
    space, _, table = rare_and_red
    prior = MixturePopulation(jnp.zeros((1, space.n_dim)), jnp.zeros((1, space.n_dim, space.n_dim)))
    rows = np.r_[0:400, 594:597]  # three of the six, among 400 others
    rng = np.random.default_rng(5)
    flux = np.stack([table["flux_g"], table["flux_r"]], axis=1)[rows]
    flux = flux * rng.lognormal(0, 0.01, flux.shape)
    names, number = 1000 + np.arange(len(rows)), len(rows)
    observed = Photometry(
        names, np.full(number, 0.1), flux, 0.02 * flux, np.ones((number, 2), bool),
        np.full(number, "", object),
    )  # fmt: skip
    found = find_outliers([prior], space, table, observed, ("g", "r"), share=0.01)
    assert set(found["object_id"].tolist()) == {1400, 1401, 1402}
    assert found["draws"].sum() == 6
    assert (found["flux_g"] < 1).all()
