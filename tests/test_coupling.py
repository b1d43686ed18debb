"""The fast evaluation of coupling and autoregressive flows gives flowjax's numbers."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from paramax import unwrap
from scipy import stats

from conftest import SMALL_FLOW
from tinsley.density.autoregressive import autoregressive_layers
from tinsley.density.coupling import coupling_layers
from tinsley.density.flows import make_flow

N_DIM, N_FEATURES = 5, 4
FEATURES = jnp.asarray([1.0, -2.0, 0.0, 3.0])
FALSE_ALARM = 1e-5


@pytest.fixture(scope="module", params=[1, 3], ids=["depth 1", "depth 3"])
def flow(request):
    """A coupling flow far from the identity, and from a standard base."""
    return shaken(SMALL_FLOW | {"depth": request.param, "layers": 3})


def shaken(config):
    """A flow with weights that no initialisation gives."""
    flow = make_flow(config, N_FEATURES, N_DIM, key=jax.random.key(3))
    rng = np.random.default_rng(3)

    def moved(leaf):
        if not eqx.is_inexact_array(leaf):
            return leaf
        return leaf + jnp.asarray(0.1 * rng.normal(size=leaf.shape), dtype=leaf.dtype)

    return jax.tree.map(moved, flow)


def library(flow, points, condition, direction):
    bijection = unwrap(flow.flow).bijection
    return jax.vmap(lambda p: getattr(bijection, direction)(p, condition))(points)


@pytest.mark.parametrize("number", [1, 256, 300, 1000])
def test_both_directions_are_flowjaxs(flow, key, number):
    points = 2.5 * jax.random.normal(key, (number, N_DIM))  # some lie beyond the splines
    condition = flow.embedding(FEATURES)
    layers = coupling_layers(flow.flow)
    there, log_det = eqx.filter_jit(layers.to_data)(points, condition)
    expected, expected_det = library(flow, points, condition, "transform_and_log_det")
    assert float(jnp.max(jnp.abs(there - points))) > 0.5
    np.testing.assert_allclose(there, expected, atol=2e-4)
    np.testing.assert_allclose(log_det, expected_det, atol=1e-3)
    back, log_det_back = eqx.filter_jit(layers.to_base)(expected, condition)
    np.testing.assert_allclose(back, points, atol=2e-3)
    np.testing.assert_allclose(log_det_back, -expected_det, atol=2e-3)


def test_one_condition_each(flow, key):
    told = FEATURES + jax.random.normal(key, (300, N_FEATURES))
    condition = jax.vmap(flow.embedding)(told)
    points = jax.random.normal(key, (300, N_DIM))
    found = eqx.filter_jit(coupling_layers(flow.flow).to_data)(points, condition)
    expected = jax.vmap(unwrap(flow.flow).bijection.transform_and_log_det)(points, condition)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


@pytest.mark.slow
def test_slopes_of_the_training_loss_are_flowjaxs(flow, key):
    """To 1e-4 of each array's largest: what training by either would do."""
    told = FEATURES + jax.random.normal(key, (300, N_FEATURES))
    points = 2.5 * jax.random.normal(jax.random.key(4), (300, N_DIM))

    @eqx.filter_jit
    @eqx.filter_grad
    def fast(flow):
        return jnp.mean(flow.log_prob_each(points, told))

    @eqx.filter_jit
    @eqx.filter_grad
    def slow(flow):
        return jnp.mean(jax.vmap(flow.log_prob)(points, told))

    for one, other in zip(*(jax.tree.leaves(g(flow)) for g in (fast, slow)), strict=True):
        largest = float(jnp.max(jnp.abs(other)))
        np.testing.assert_allclose(one, other, atol=1e-4 * max(largest, 1e-3))


def test_draws_follow_their_density(flow, key):
    """Pulled back to the base by flowjax they are normal, and the density given is flowjax's."""
    x, log_q = eqx.filter_jit(flow.sample_and_log_prob)(3000, FEATURES, key=key)
    expected = jax.vmap(lambda point: flow.log_prob(point, FEATURES))(x)
    np.testing.assert_allclose(log_q, expected, atol=2e-3)
    base, _ = library(flow, x, flow.embedding(FEATURES), "inverse_and_log_det")
    distribution = unwrap(flow.flow).base_dist
    for column in ((np.asarray(base) - distribution.loc) / distribution.scale).T:
        assert stats.kstest(column, "norm").pvalue > FALSE_ALARM


@pytest.mark.slow
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("width", [4, 17])
def test_an_autoregressive_flow_is_flowjaxs(width, depth, key):
    """With one condition and with one each, fewer hidden units than dimensions and more."""
    flow = shaken(SMALL_FLOW | {"kind": "maf", "layers": 3, "width": width, "depth": depth})
    base = jax.random.normal(key, (30, N_DIM))
    told = FEATURES + jax.random.normal(key, (30, N_FEATURES))
    layers = autoregressive_layers(flow.flow)
    for condition in (flow.embedding(FEATURES), jax.vmap(flow.embedding)(told)):
        found = eqx.filter_jit(layers.to_data)(base, condition)
        each = jnp.broadcast_to(condition, (30, condition.shape[-1]))
        expected = jax.vmap(unwrap(flow.flow).bijection.transform_and_log_det)(base, each)
        assert float(jnp.max(jnp.abs(found[0] - base))) > 0.5
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)
    x, log_q = flow.sample_and_log_prob(20, FEATURES, key=key)
    by_library = jax.vmap(lambda point: flow.log_prob(point, FEATURES))(x)
    np.testing.assert_allclose(log_q, by_library, atol=1e-3)


@pytest.mark.slow
def test_other_flows_are_left_to_flowjax(key):
    maf = make_flow(SMALL_FLOW | {"kind": "maf"}, N_FEATURES, N_DIM, key=key)
    assert coupling_layers(maf.flow) is None
    assert autoregressive_layers(make_flow(SMALL_FLOW, N_FEATURES, N_DIM, key=key).flow) is None
    assert coupling_layers(make_flow(SMALL_FLOW, N_FEATURES, 2, key=key).flow) is None
    x, log_q = maf.sample_and_log_prob(20, FEATURES, key=key)
    np.testing.assert_allclose(
        log_q, jax.vmap(lambda point: maf.log_prob(point, FEATURES))(x), atol=1e-3
    )
