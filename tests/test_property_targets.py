"""Bounded targets: what goes in comes out, densities are of the table's units, nothing leaks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import ndtri

from tinsley.infer.property_targets import (
    Bounded,
    Standard,
    fit_target,
    inside,
    spread_zeros,
    target_from_dict,
)
from tinsley.parameters import BETAS, FLAT_POWER, ParamSpace, Simplex, Uniform, whole_space

SPACE = whole_space()


def parameters(number: int, seed: int = 0) -> np.ndarray:
    """Parameters all over their ranges, but for the lowest decades, which stand for zero."""
    theta = SPACE.sample(number, jnp.full(number, jnp.inf), key=jax.random.key(seed))
    values = np.stack([np.asarray(theta[name], float) for name in SPACE.names], axis=-1)
    return spread_zeros(SPACE, values, np.full(values.shape, 0.5))


@pytest.fixture(scope="module")
def target() -> Bounded:
    return fit_target(parameters(2000), SPACE)


def test_what_goes_in_comes_out(target):
    values = parameters(500, 1)
    inward = target.inward(jnp.asarray(values, float))
    assert inward.shape == (500, target.n_dim)
    assert target.n_dim == values.shape[1] - 1
    np.testing.assert_allclose(inward.mean(axis=0), 0.0, atol=0.2)
    np.testing.assert_allclose(inward.std(axis=0), 1.0, atol=0.1)
    np.testing.assert_allclose(target.outward(inward), values, rtol=2e-3, atol=2e-4)
    again = target_from_dict(target.to_dict())
    np.testing.assert_array_equal(again.inward(jnp.asarray(values, float)), inward)
    plain = Standard((1.0, 2.0), (3.0, 4.0))
    assert target_from_dict(plain.to_dict()) == plain


def test_no_draw_leaves_the_ranges(target):
    wild = 5 * jax.random.normal(jax.random.key(2), (2000, target.n_dim))
    values = np.asarray(target.outward(wild), float)
    assert inside(SPACE, values).all()
    np.testing.assert_allclose(values[:, 1:5].sum(axis=1), 1.0, atol=1e-5)


def test_density_is_of_the_tables_units():
    """A uniform is the normal of its quantiles; flat shares have a density of 3! over 3 of them."""
    narrow = ParamSpace((Uniform("a", 2.0, 6.0), Uniform("b", -1.0, 1.0)))
    value = jnp.asarray([3.0, 0.2])
    target = Bounded(narrow, Standard((0.5, 0.0), (2.0, 1.0)))
    x = ndtri(jnp.asarray([0.25, 0.6]))
    exact = np.log(1 / 4 / 2) - jax.scipy.stats.norm.logpdf(x).sum() - np.log(2.0)
    assert float(target.log_slope(value)) == pytest.approx(float(exact), abs=1e-4)
    shares = Bounded(ParamSpace((Simplex(BETAS, FLAT_POWER),)), Standard((0.0,) * 3, (1.0,) * 3))
    value = jnp.asarray([0.4, 0.3, 0.2, 0.1])
    base = jax.scipy.stats.norm.logpdf(shares.inward(value)).sum()
    assert float(base + shares.log_slope(value)) == pytest.approx(np.log(6.0), abs=1e-3)
    plain = Standard((7.0, 1.0), (3.0, 0.5))
    assert float(plain.log_slope(jnp.zeros(2))) == pytest.approx(-np.log(1.5), abs=1e-6)


def test_zeros_are_spread_over_the_lowest_decade_and_nothing_else_is():
    values = parameters(400, 3)
    column = list(SPACE.names).index("f_burst")
    values[:200, column] = 0.0
    values[200:210, column] = -0.1
    share = np.random.default_rng(0).uniform(size=values.shape)
    found = spread_zeros(SPACE, values, share)
    zeros = found[:200, column]
    assert np.all((zeros >= 1e-4) & (zeros < 1e-3))
    assert np.mean(np.log10(zeros) < -3.5) == pytest.approx(0.5, abs=0.12)
    np.testing.assert_array_equal(found[200:210, column], -0.1)
    other = values >= np.array([[0, 0, 0, 0, 0, 1e-3, 1e-2, -9, 1e-2, 1e-2, -9]])
    other[:, column] &= values[:, column] >= 1e-3
    np.testing.assert_array_equal(found[other], values[other])
    np.testing.assert_array_equal(inside(SPACE, found), ~np.isin(np.arange(400), range(200, 210)))


@pytest.mark.parametrize(
    ("name", "value"), [("beta_2", 1.5), ("n_dust", 1.2), ("tau_ism", 11.0), ("f_burst", np.nan)]
)
def test_what_is_out_of_range_is_known(name, value):
    values = parameters(3)
    values[1, list(SPACE.names).index(name)] = value
    np.testing.assert_array_equal(inside(SPACE, values), [True, False, True])
