"""Laws of the densities, on every flow that has a name."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm
from paramax import unwrap

from conftest import SMALL_FLOW
from tinsley.density.flows import FLOWS, ConditionalFlow, make_flow

N_DIM, N_FEATURES = 2, 4
FEATURES = jnp.asarray([1.0, -2.0, 0.0, 3.0])


@pytest.fixture(scope="module", params=FLOWS)
def flow(request) -> ConditionalFlow:
    """A small flow of each kind, its weights shaken so that it is far from the identity."""
    config = FLOWS[request.param] | SMALL_FLOW | {"kind": request.param}
    flow = make_flow(config, N_FEATURES, N_DIM, key=jax.random.key(3))
    rng = np.random.default_rng(3)

    def shaken(leaf):
        if not eqx.is_inexact_array(leaf):
            return leaf
        return leaf + jnp.asarray(0.2 * rng.normal(size=leaf.shape), dtype=leaf.dtype)

    return jax.tree.map(shaken, flow)


@eqx.filter_jit
def sample(flow, number, features, key):
    return flow.sample_and_log_prob(number, features, key=key)


@eqx.filter_jit
def log_prob(flow, x, features):
    return jax.vmap(lambda point: flow.log_prob(point, features))(x)


def test_inverse_undoes_and_log_det_is_that_of_autodiff(flow, key):
    condition = flow.embedding(FEATURES)
    bijection = unwrap(flow.flow).bijection
    x = 1.5 * jax.random.normal(key, (16, N_DIM))

    def laws(point):
        there, log_det = bijection.transform_and_log_det(point, condition)
        back, log_det_back = bijection.inverse_and_log_det(there, condition)
        slope = jax.jacfwd(lambda p: bijection.transform(p, condition))(point)
        return there, back, log_det, log_det_back, jnp.linalg.slogdet(slope)[1]

    there, back, log_det, log_det_back, expected = jax.jit(jax.vmap(laws))(x)
    assert float(jnp.max(jnp.abs(there - x))) > 0.3  # not the identity
    np.testing.assert_allclose(back, x, atol=2e-3)
    np.testing.assert_allclose(log_det, expected, atol=2e-3)
    np.testing.assert_allclose(log_det_back, -log_det, atol=2e-3)


@pytest.mark.parametrize("features", [jnp.zeros(N_FEATURES), FEATURES], ids=["zeros", "others"])
def test_density_integrates_to_one(flow, features):
    axis = jnp.linspace(-20, 20, 401)
    points = jnp.stack(jnp.meshgrid(axis, axis), axis=-1).reshape(-1, N_DIM)
    density = jnp.exp(log_prob(flow, points, features))
    total = float(jnp.sum(density)) * float(axis[1] - axis[0]) ** N_DIM
    assert total == pytest.approx(1.0, abs=3e-3)


def test_log_prob_of_draws_is_what_sampling_says(flow, key):
    x, log_q = sample(flow, 20_000, FEATURES, key)
    assert x.shape == (20_000, N_DIM)
    np.testing.assert_allclose(log_prob(flow, x, FEATURES), log_q, atol=2e-2, rtol=1e-3)


def test_draws_follow_the_density(flow, key):
    """E_q[p / q] = 1 for any density p that q covers: a narrow normal in the middle of q here."""
    x, log_q = sample(flow, 20_000, FEATURES, key)
    middle, width = jnp.median(x, axis=0), 0.4 * jnp.std(x, axis=0)
    ratio = jnp.exp(jnp.sum(norm.logpdf(x, middle, width), axis=-1) - log_q)
    error = float(jnp.std(ratio)) / np.sqrt(len(ratio))
    assert error < 0.05
    assert abs(float(jnp.mean(ratio)) - 1.0) < 4.5 * error  # 1 in 150,000 by chance; key fixed


def test_wide_density_integrates_to_one_and_is_the_flows_at_width_one(flow):
    axis = jnp.linspace(-24, 24, 401)
    points = jnp.stack(jnp.meshgrid(axis, axis), axis=-1).reshape(-1, N_DIM)
    wide = eqx.filter_jit(lambda f, x: f.log_prob_wide(x, FEATURES, (1.0, 1.5)))(flow, points)
    np.testing.assert_allclose(wide[:, 0], log_prob(flow, points, FEATURES), atol=1e-3, rtol=1e-3)
    total = np.sum(np.exp(np.asarray(wide, float)), axis=0) * float(axis[1] - axis[0]) ** N_DIM
    np.testing.assert_allclose(total, 1.0, atol=3e-3)


def test_wide_draws_follow_the_wide_density(flow, key):
    draw = eqx.filter_jit(lambda f: f.sample_wide(20_000, FEATURES, 1.5, key=key))
    x = draw(flow)
    log_q = eqx.filter_jit(lambda f: f.log_prob_wide(x, FEATURES, (1.0, 1.5)))(flow)
    ratio = np.exp(np.asarray(log_q[:, 0] - log_q[:, 1], float))
    error = ratio.std() / np.sqrt(len(ratio))
    assert error < 0.02
    assert abs(ratio.mean() - 1.0) < 4.5 * error
    assert ratio.max() < 1.5**N_DIM + 0.01  # the bound of a wider normal base


def test_density_depends_on_the_features(flow):
    x = jnp.asarray([[0.3, -0.4]])
    one, other = (float(log_prob(flow, x, f)[0]) for f in (jnp.zeros(N_FEATURES), FEATURES))
    assert abs(one - other) > 1e-2


def test_far_from_the_origin_all_is_finite(flow):
    x = jnp.asarray([[-9.0, 9.0], [5.2, -5.2], [4.0, -4.0]])
    slope = jax.jit(jax.jacrev(lambda points: log_prob(flow, points, FEATURES)))(x)
    assert np.all(np.isfinite(log_prob(flow, x, FEATURES)))
    assert np.all(np.isfinite(slope))


def test_unknown_kind_is_refused(key):
    with pytest.raises(ValueError, match="unknown flow 'planar'; expected coupling or maf"):
        make_flow(SMALL_FLOW | {"kind": "planar"}, N_FEATURES, N_DIM, key=key)
