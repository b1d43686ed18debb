"""Flow matching: the density that a known field carries, and the field that training finds."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import multivariate_normal, norm

from tinsley.density.flow_matching import (
    MATCHINGS,
    SCHEDULES,
    FlowMatching,
    make_flow_matching,
)
from tinsley.density.ode import METHODS, Solver, solve
from tinsley.density.train import Schedule, start_training, train_block
from tinsley.density.velocity import AbstractVelocity, make_velocity

N_DIM, N_CONDITION = 5, 3
CONDITION = jnp.asarray([0.5, -1.0, 2.0])
SMALL = {"width": 32, "depth": 2, "density_solver": ["rk4", 8]}
SMALL_CONFIGS = {name: config | SMALL for name, config in MATCHINGS.items()}
SMALL_CONFIGS["tinsley"] = SMALL_CONFIGS["tinsley"] | {"frame_width": 16}


class GaussianField(AbstractVelocity):
    """The exact field of a normal target whose mean is a matrix times the condition.

    At a time t a point is normal, with mean t m and covariance (1 - t)^2 + t^2 C + sigma^2; the
    field is the mean of theta_1 - theta_0 given that point.
    """

    matrix: jax.Array
    covariance: jax.Array
    sigma: float = eqx.field(static=True)

    @property
    def n_dim(self):
        return self.matrix.shape[0]

    def context(self, condition):
        return self.matrix @ condition

    def __call__(self, theta, time, context):
        one = jnp.eye(self.n_dim)
        here = ((1 - time) ** 2 + self.sigma**2) * one + time**2 * self.covariance
        along = time * self.covariance - (1 - time) * one
        return context + along @ jnp.linalg.solve(here, theta - time * context)


@pytest.fixture(scope="module", params=[0.0, 0.05, 0.4], ids=["none", "the paper's", "much"])
def known(request):
    """A density whose field is exact, with its mean and covariance: target and noise together."""
    sigma = request.param
    rng = np.random.default_rng(1)
    matrix = jnp.asarray(0.4 * rng.normal(size=(N_DIM, N_CONDITION)), jnp.float32)
    root = jnp.asarray(np.eye(N_DIM) * 0.3 + 0.2 * rng.normal(size=(N_DIM, N_DIM)), jnp.float32)
    covariance = root @ root.T + 0.02 * jnp.eye(N_DIM)
    field = GaussianField(matrix, covariance, sigma)
    model = FlowMatching(field, None, sigma, Solver("rk4", 60), Solver("rk4", 60))
    return model, matrix @ CONDITION, covariance + sigma**2 * jnp.eye(N_DIM)


def draw_with_log_prob(model, number, condition, key):
    return eqx.filter_jit(lambda m: m.sample_and_log_prob(number, condition, key=key))(model)


def log_prob(model, points, condition):
    return eqx.filter_jit(lambda m: jax.vmap(lambda p: m.log_prob(p, condition))(points))(model)


def test_log_density_is_that_of_data_and_noise(known, key):
    model, mean, covariance = known
    points = jax.random.multivariate_normal(key, mean, 2.0 * covariance, (64,))
    found = log_prob(model, points, CONDITION)
    expected = multivariate_normal.logpdf(points, mean, covariance)
    np.testing.assert_allclose(found, expected, atol=5e-3)  # float32 over 60 steps; values are ~10


@pytest.mark.slow
def test_draws_have_the_moments_of_data_and_noise(known, key):
    model, mean, covariance = known
    number = 20_000
    draws = eqx.filter_jit(lambda m: m.sample(number, CONDITION, key=key))(model)
    white = np.linalg.solve(
        np.linalg.cholesky(np.asarray(covariance, float)), (draws - mean[None]).T
    )
    assert np.max(np.abs(white.mean(axis=1))) < 4.5 / np.sqrt(number)
    # the variance of a (co)variance of normal numbers is 2 (1) over their number
    assert np.max(np.abs(np.cov(white) - np.eye(N_DIM))) < 4.5 * np.sqrt(2 / number)


def test_draws_know_their_log_density(known, key):
    model, mean, covariance = known
    draws, log_q = draw_with_log_prob(model, 256, CONDITION, key)
    expected = multivariate_normal.logpdf(draws, mean, covariance)
    np.testing.assert_allclose(log_q, expected, atol=5e-3)


def shaken(model, amount=0.15):
    """The same with all weights moved, so that none is zero."""
    rng = np.random.default_rng(3)

    def move(leaf):
        if not eqx.is_inexact_array(leaf):
            return leaf
        return leaf + jnp.asarray(amount * rng.normal(size=leaf.shape), leaf.dtype)

    return jax.tree.map(move, model)


@pytest.fixture(scope="module", params=SMALL_CONFIGS)
def config(request):
    """Each named configuration, its networks small."""
    return SMALL_CONFIGS[request.param]


def test_log_density_is_the_volume_that_the_flow_map_leaves(config):
    """The exact trace in five dimensions, against finite differences of the map to the base."""
    fine = Solver("rk4", 32)
    config = config | {"frame_width": 0}
    amount = {"plain": 0.15, "residual": 0.3}[config["velocity"]]
    model = make_flow_matching(config, N_CONDITION, N_DIM, key=jax.random.key(0))
    model = shaken(model, amount)
    context = model.velocity.context(CONDITION)
    step = 0.02 * jnp.eye(N_DIM)

    @eqx.filter_jit
    def to_base(points):
        field = jax.vmap(model.velocity, (0, None, None))
        return solve(lambda time, now: field(now, time, context), points, (1.0, 0.0), fine)

    point = jnp.asarray([0.3, -0.5, 1.0, 0.1, -0.2])
    base = to_base(point[None])[0]
    slopes = (to_base(point + step) - to_base(point - step)) / 0.04
    volume = np.linalg.slogdet(np.asarray(slopes, float))[1]
    width = np.sqrt(1 + config["sigma"] ** 2)
    log_base = float(jnp.sum(norm.logpdf(base, 0.0, width)))
    found = float(eqx.filter_jit(lambda m: m.log_prob(point, CONDITION, solver=fine))(model))
    assert abs(volume) > 0.1  # the flow does something
    assert found - log_base == pytest.approx(volume, abs=0.02)  # steps of 0.02 in float32


@pytest.fixture(scope="module")
def plane(config):
    """A density of two dimensions, its weights shaken."""
    return shaken(make_flow_matching(config, N_CONDITION, 2, key=jax.random.key(2)))


def test_density_integrates_to_one(plane):
    axis = jnp.linspace(-9, 9, 121)
    points = jnp.stack(jnp.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    density = np.exp(np.asarray(log_prob(plane, points, CONDITION), float))
    assert density.sum() * float(axis[1] - axis[0]) ** 2 == pytest.approx(1.0, abs=5e-3)


def test_draws_follow_the_density(plane, key):
    """E_q[p / q] = 1 for any p that q covers; and both directions say the same of a draw."""
    x, log_q = draw_with_log_prob(plane, 8_000, CONDITION, key)
    np.testing.assert_allclose(log_prob(plane, x[:200], CONDITION), log_q[:200], atol=1e-2)
    middle, width = jnp.median(x, axis=0), 0.4 * jnp.std(x, axis=0)
    ratio = jnp.exp(jnp.sum(norm.logpdf(x, middle, width), axis=-1) - log_q)
    error = float(jnp.std(ratio)) / np.sqrt(len(ratio))
    assert error < 0.06
    assert abs(float(jnp.mean(ratio)) - 1.0) < 4.5 * error


def test_density_depends_on_the_condition(plane):
    point = jnp.asarray([[0.3, -0.4]])
    one, other = (float(log_prob(plane, point, c)[0]) for c in (CONDITION, -CONDITION))
    assert abs(one - other) > 1e-2


def test_loss_is_the_same_for_a_key_and_teaches_every_weight(config, key):
    model = shaken(make_flow_matching(config, N_CONDITION, 2, key=jax.random.key(2)))
    theta, condition = jnp.ones((16, 2)), jnp.ones((16, N_CONDITION))
    measure = eqx.filter_jit(
        eqx.filter_value_and_grad(lambda m, k: m.loss(theta, condition, key=k))
    )
    (one, slope), (again, _), (other, _) = (
        measure(model, k) for k in (key, key, jax.random.key(1))
    )
    assert one == again != other
    for leaf in jax.tree.leaves(slope):
        assert np.all(np.isfinite(leaf))
        assert np.any(leaf != 0)


def test_context_is_the_condition_s_share_of_the_perceptron():
    config = SMALL_CONFIGS["yunus2025"]
    velocity = make_velocity(config, N_CONDITION, N_DIM, key=jax.random.key(0))
    theta, time = jnp.arange(5.0), jnp.asarray(0.3)
    together = velocity.network(jnp.concatenate([theta, time[None], CONDITION]))
    found = velocity(theta, time, velocity.context(CONDITION))
    np.testing.assert_allclose(found, together, atol=1e-5)


ORDERS = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4, "tsit5": 5}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("times", [(0.0, 2.0), (2.0, 0.0)], ids=["forward", "backward"])
def test_halving_the_step_shrinks_the_error_by_the_method_s_order(method, times):
    """y' = y cos t, so that y = exp(sin t)."""
    start, end = (float(np.exp(np.sin(time))) for time in times)
    errors = [
        abs(float(solve(lambda t, y: y * jnp.cos(t), jnp.asarray(start), times, solver)) - end)
        for solver in (Solver(method, 4), Solver(method, 8))
    ]
    if errors[1] > 1e-5:  # above float32's own error
        assert np.log2(errors[0] / errors[1]) == pytest.approx(ORDERS[method], abs=0.8)
    assert errors[1] < {1: 0.3, 2: 0.05, 4: 1e-3, 5: 1e-4}[ORDERS[method]]


def test_the_paper_s_numbers():
    config = MATCHINGS["yunus2025"]
    model = make_flow_matching(config, 10, 5, key=jax.random.key(0))
    assert [layer.weight.shape for layer in model.velocity.network.layers] == [
        (256, 16), (256, 256), (256, 256), (5, 256)]  # fmt: skip
    assert (model.solver.evaluations, model.sigma, model.frame) == (400, 0.05, None)
    schedule = SCHEDULES["yunus2025"]
    assert (schedule.rate, schedule.batch, schedule.average) == (5e-5, 64, 0.0)


# --- training ---

MIX = jnp.asarray([[1.0, 0.5], [-0.3, 0.8], [0.2, 0.2]])
SIGMA = jnp.asarray([0.5, 0.7, 0.3])
LEARNERS = {
    "tinsley": SMALL_CONFIGS["tinsley"],
    "paths of the paper": SMALL_CONFIGS["yunus2025"] | {"width": 64, "sigma": 0.2},
}


def linear_gaussian(number, key):
    """theta ~ N(0, 1) in two dimensions, condition = MIX theta + SIGMA noise in three."""
    key_theta, key_noise = jax.random.split(key)
    theta = jax.random.normal(key_theta, (number, 2))
    return theta, theta @ MIX.T + SIGMA * jax.random.normal(key_noise, (number, 3))


def matching_loss(model, number, key):
    key_pairs, key_paths = jax.random.split(key)
    return model.loss(*linear_gaussian(number, key_pairs), key=key_paths)


@pytest.mark.slow
@pytest.mark.parametrize("config", LEARNERS.values(), ids=LEARNERS.keys())
def test_training_finds_the_known_posterior(config):
    """Means and covariances of draws for several conditions.

    2,000 draws know a mean to 0.022 standard deviations; the rest of the tolerance is for a
    training of 600 steps. Without the conditions the means would be off by 1.5 and more.
    """
    schedule = Schedule(steps=600, batch=256, rate=5e-3, warmup=30, average=0.98)
    model = make_flow_matching(config, 3, 2, key=jax.random.key(0))
    state = start_training(model, schedule)
    state, _ = train_block((256, matching_loss, schedule, 600), state, jax.random.key(1))
    precision = np.eye(2) + np.asarray(MIX.T / SIGMA**2 @ MIX, float)
    covariance = np.linalg.inv(precision) + config["sigma"] ** 2 * np.eye(2)
    root = np.linalg.cholesky(covariance)
    draw = eqx.filter_jit(lambda m, c, k: m.sample(2000, c, key=k))
    for condition in linear_gaussian(4, jax.random.key(8))[1]:
        mean = np.linalg.solve(precision, np.asarray(MIX.T / SIGMA**2 @ condition, float))
        draws = np.asarray(draw(state.average, condition, jax.random.key(9)), float)
        white = np.linalg.solve(root, (draws - mean).T)
        assert np.max(np.abs(white.mean(axis=1))) < 0.2
        assert np.max(np.abs(np.cov(white) - np.eye(2))) < 0.25


def two_moons(number, key):
    """Two half circles with blurred radius, the second turned about; the condition moves both."""
    keys = jax.random.split(key, 4)
    angle = jnp.pi * jax.random.uniform(keys[0], (number,))
    radius = 1.0 + 0.1 * jax.random.normal(keys[1], (number,))
    upper = jnp.where(jax.random.bernoulli(keys[2], 0.5, (number,)), 1.0, -1.0)
    moon = upper[:, None] * jnp.stack(
        [radius * jnp.cos(angle) - 0.5, radius * jnp.sin(angle) - 0.25], axis=1
    )
    condition = jax.random.uniform(keys[3], (number, 1), minval=-1.0, maxval=1.0)
    return moon + jnp.concatenate([condition, -condition], axis=1), condition


def log_two_moons(theta, condition):
    """Their density; a radius is in the half plane of its moon only."""
    moved = np.asarray(theta - np.concatenate([condition, -condition], axis=1), float)
    density = 0.0
    for upper in (1.0, -1.0):
        x, y = (upper * moved + [0.5, 0.25]).T
        radius = np.hypot(x, y)
        blur = np.exp(-0.5 * ((radius - 1) / 0.1) ** 2) / (0.1 * np.sqrt(2 * np.pi))
        density = density + 0.5 * (y > 0) * blur / (radius * np.pi)
    return np.log(density)


@pytest.mark.slow
@pytest.mark.parametrize("name", MATCHINGS)
def test_two_moons(name):
    """KL(exact || learnt): 0 where all is learnt, and 0.9 for the best normal density.

    The moons' ends are edges, which cost a flow the most; the paper's noise of 0.05 alone, against
    a radius of 0.1, costs some 0.02 nats, and more at the edges.
    """

    def loss(model, number, key):
        key_pairs, key_paths = jax.random.split(key)
        return model.loss(*two_moons(number, key_pairs), key=key_paths)

    config = MATCHINGS[name] | {"width": 128, "density_solver": ["rk4", 32]}
    schedule = Schedule(steps=4000, batch=512, rate=2e-3, warmup=100, average=0.99)
    state = start_training(make_flow_matching(config, 1, 2, key=jax.random.key(0)), schedule)
    state, _ = train_block((512, loss, schedule, 4000), state, jax.random.key(1))
    theta, condition = two_moons(2000, jax.random.key(5))
    found = eqx.filter_jit(lambda m: jax.vmap(m.log_prob)(theta, condition))(state.average)
    assert -0.05 < np.mean(log_two_moons(theta, condition) - np.asarray(found)) < 0.25


# --- refusals ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"velocity": "cnn"}, "unknown velocity 'cnn'; expected plain or residual"),
        ({"solver": ["rk9", 4]}, "unknown method 'rk9'; expected one of euler, "),
        ({"solver": ["rk4", 0]}, "a solver needs at least 1 step; got 0"),
    ],
)
def test_what_is_unknown_is_refused(changes, message, key):
    with pytest.raises(ValueError, match=message):
        make_flow_matching(SMALL_CONFIGS["tinsley"] | changes, N_CONDITION, N_DIM, key=key)
