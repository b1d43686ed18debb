"""Conditional flow matching: a density as the flow of a learnt velocity field."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jax.scipy.stats import norm
from jaxtyping import Array, Float

from tinsley.density.ode import Solver, solve
from tinsley.density.train import Schedule, UntilNoGainAdamW
from tinsley.density.velocity import AbstractVelocity, make_velocity

_LOG_PRECISION = (-3.0, 6.0)
"""Logs of a frame's inverse widths: from 20 to 1/400 standard deviations of the training set."""


class Frame(eqx.Module):
    """Where a normal density of the condition is N(0, 1): what is left to the flow is its shape.

    Attributes:
        network: From the condition to the mean, the logs of the diagonal of the factor of the
            precision, and what is below the diagonal, in this order.
    """

    network: eqx.nn.MLP

    def __call__(
        self, condition: Float[Array, " c"]
    ) -> tuple[Float[Array, " d"], Float[Array, "d d"]]:
        """Mean, and the lower triangular factor P: P (theta - mean) is N(0, 1)."""
        out = self.network(condition)
        n_dim = round((np.sqrt(9 + 8 * out.shape[0]) - 3) / 2)
        mean, log_diagonal, below = out[:n_dim], out[n_dim : 2 * n_dim], out[2 * n_dim :]
        diagonal = jnp.exp(jnp.clip(log_diagonal, *_LOG_PRECISION))
        factor = jnp.diag(diagonal).at[jnp.tril_indices(n_dim, -1)].set(below)
        return mean, factor


class FlowMatching(eqx.Module):
    """p(theta | condition), with theta standardised: mean 0, standard deviation 1.

    A point drawn from the base follows the velocity field from time 0 to 1. The field is learnt by
    regression on the straight paths from draws of the base to the training set, and carries exactly
    the distributions that these paths have at each time. Where noise of constant
    `sigma` blurs the paths, that is from N(0, 1 + sigma^2) to the data convolved with
    N(0, sigma^2): base and log-density here are those.

    Draws of the base and points are paired at random. Pairing them by the cheapest assignment of a
    batch makes the base depend on the condition, and the posterior wrong: 3.14 nats from a known
    one where random pairs came to 1.13. With the condition in the cost, as Cheng & Schwing (2025)
    put it, nothing was gained: 1.11 (benchmarks/flow_matching.py).

    Attributes:
        velocity: The field.
        frame: Where the field lives, or nothing: in the space of theta itself.
        sigma: Standard deviation of the paths' noise.
        solver: For draws.
        density_solver: For log-densities.

    Source:
        Lipman et al. (2023); Tong et al. (2024), eq. 14-15 with independent pairs; Yunus, Wu &
        Holwerda (2025). Log-density by the instantaneous change of variables (Chen et al. 2018)
        with the exact trace. Checked on fields that are known: tests/test_flow_matching.py.
    """

    velocity: AbstractVelocity
    frame: Frame | None
    sigma: float = eqx.field(static=True)
    solver: Solver = eqx.field(static=True)
    density_solver: Solver = eqx.field(static=True)

    def loss(
        self, theta: Float[Array, "n d"], condition: Float[Array, "n c"], *, key: Array
    ) -> Float[Array, ""]:
        """What training makes small: mean squared error of the velocity, and the frame's misfit.

        With one fixed key it is the same times and noise each time: a validation loss.
        """
        key_base, key_time, key_noise = jax.random.split(key, 3)
        place, misfit = jax.vmap(self._to_frame)(theta, condition)
        base = jax.random.normal(key_base, theta.shape)
        noise = self.sigma * jax.random.normal(key_noise, theta.shape)
        # one time in each of n equal intervals: as uniform as independent ones, and less noisy
        number = float(len(theta))
        time = (jnp.arange(number) + jax.random.uniform(key_time, (len(theta),))) / number
        ends = (base, jax.lax.stop_gradient(place))
        return jnp.mean(jax.vmap(self.path_error)(*ends, noise, time, condition)) + jnp.mean(misfit)

    def path_error(
        self,
        base: Float[Array, " d"],
        place: Float[Array, " d"],
        noise: Float[Array, " d"],
        time: Float[Array, ""],
        condition: Float[Array, " c"],
    ) -> Float[Array, ""]:
        """Squared error of the velocity on one path, per dimension.

        Args:
            base: Where the path begins.
            place: Where it ends: a point of the data, in the frame.
            noise: How far it is off.
            time: How far along it is.
            condition: Of the place.
        """
        point = (1.0 - time) * base + time * place + noise
        found = self.velocity(point, time, self.velocity.context(condition))
        return jnp.mean((found - (place - base)) ** 2)

    def sample(
        self,
        number: int,
        condition: Float[Array, " c"],
        *,
        key: Array,
        solver: Solver | None = None,
    ) -> Float[Array, "number d"]:
        """Draws for one galaxy."""
        mean, factor = self._affine(condition)
        context = self.velocity.context(condition)
        base = self._base_scale * jax.random.normal(key, (number, mean.shape[0]))
        at = jax.vmap(self.velocity, (0, None, None))
        place = solve(lambda t, z: at(z, t, context), base, (0.0, 1.0), solver or self.solver)
        return out_of_frame(place, mean, factor)

    def log_prob(
        self,
        theta: Float[Array, " d"],
        condition: Float[Array, " c"],
        *,
        solver: Solver | None = None,
    ) -> Float[Array, ""]:
        """Log-density of one point for one galaxy."""
        mean, factor = self._affine(condition)
        field = self._field_and_trace(condition)
        start = (factor @ (theta - mean), jnp.zeros(()))
        base, change = solve(field, start, (1.0, 0.0), solver or self.density_solver)
        return self._log_base(base) + change + log_det(factor)

    def sample_and_log_prob(
        self,
        number: int,
        condition: Float[Array, " c"],
        *,
        key: Array,
        solver: Solver | None = None,
    ) -> tuple[Float[Array, "number d"], Float[Array, " number"]]:
        """Draws for one galaxy, with their log-densities."""
        mean, factor = self._affine(condition)
        field = self._field_and_trace(condition)
        base = self._base_scale * jax.random.normal(key, (number, mean.shape[0]))
        start = (base, jnp.zeros(number))
        place, change = solve(
            jax.vmap(field, (None, 0)), start, (0.0, 1.0), solver or self.density_solver
        )
        log_q = jax.vmap(self._log_base)(base) - change + log_det(factor)
        return out_of_frame(place, mean, factor), log_q

    @property
    def _base_scale(self) -> float:
        return float(np.sqrt(1.0 + self.sigma**2))

    def _log_base(self, base: Array) -> Array:
        return jnp.sum(norm.logpdf(base, 0.0, self._base_scale))

    def _affine(self, condition: Array) -> tuple[Array, Array]:
        if self.frame is None:
            n_dim = self.velocity.n_dim
            return jnp.zeros(n_dim), jnp.eye(n_dim)
        return self.frame(condition)

    def _to_frame(self, theta: Array, condition: Array) -> tuple[Array, Array]:
        """A point in the frame, and the misfit of the frame's normal: -log N, per dimension."""
        if self.frame is None:
            return theta, jnp.zeros(())
        mean, factor = self.frame(condition)
        place = factor @ (theta - mean)
        return place, -(jnp.sum(norm.logpdf(place)) + log_det(factor)) / place.shape[0]

    def _field_and_trace(self, condition: Array) -> Callable[[Array, Any], Any]:
        context = self.velocity.context(condition)

        def field(time: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
            value, slope = jax.linearize(lambda z: self.velocity(z, time, context), state[0])
            return value, jnp.trace(jax.vmap(slope)(jnp.eye(value.shape[0])))

        return field


def out_of_frame(
    place: Float[Array, "n d"], mean: Float[Array, " d"], factor: Float[Array, "d d"]
) -> Float[Array, "n d"]:
    """Many points of a frame, as theta."""
    return mean[None] + solve_triangular(factor, place.T, lower=True).T


def log_det(factor: Float[Array, "d d"]) -> Float[Array, ""]:
    """Ln of the determinant of a frame's factor."""
    return jnp.sum(jnp.log(jnp.diagonal(factor)))


def make_flow_matching(
    config: dict[str, Any], n_condition: int, n_dim: int, *, key: Array
) -> FlowMatching:
    """Build a conditional density from its plain description.

    Args:
        config: `sigma`, `solver` and `density_solver` (method and steps), `frame_width` and
            `frame_depth` (width 0 for no frame), and the velocity's (see
            `tinsley.density.velocity.make_velocity`).
        n_condition: Length of the condition.
        n_dim: Dimensions of the density.
        key: For the initial weights.

    Raises:
        ValueError: If the velocity or a solver's method is unknown.
    """
    key_velocity, key_frame = jax.random.split(key)
    return FlowMatching(
        velocity=make_velocity(config, n_condition, n_dim, key=key_velocity),
        frame=make_frame(config, n_condition, n_dim, key=key_frame),
        sigma=config["sigma"],
        solver=Solver(*config["solver"]),
        density_solver=Solver(*config["density_solver"]),
    )


def make_frame(config: dict[str, Any], n_condition: int, n_dim: int, *, key: Array) -> Frame | None:
    """A frame with initial weights, of `frame_width` and `frame_depth`; none of width 0."""
    if not config["frame_width"]:
        return None
    size = n_dim * (n_dim + 3) // 2
    shape = (n_condition, size, config["frame_width"], config["frame_depth"])
    return Frame(eqx.nn.MLP(*shape, activation=jax.nn.silu, key=key))


YUNUS2025: dict[str, Any] = {
    "velocity": "plain",
    "width": 256,
    "depth": 3,
    "activation": "relu",
    "sigma": 0.05,
    "frame_width": 0,
    "solver": ["rk4", 100],
    "density_solver": ["rk4", 100],
}
"""Yunus, Wu & Holwerda (2025): straight paths with noise of constant sigma, 3 x 256, Runge-Kutta of
fourth order in 100 steps."""

TINSLEY: dict[str, Any] = {
    "velocity": "residual",
    "width": 128,
    "depth": 3,
    "frequencies": 4,
    "sigma": 0.0,
    "frame_width": 128,
    "frame_depth": 2,
    "solver": ["heun", 4],
    "density_solver": ["rk4", 8],
}
"""Tinsley's default: the flow has but to bend the normal that a network makes of the condition.

On a known posterior of five properties (benchmarks/flow_matching.py) the frame brought a small
network from 1.13 to 0.41 nats of the truth at equal training, and four steps of Heun could not be
told from a hundred of Runge-Kutta (a classifier's accuracy is 0.501) at 31 times the draws in the
same CPU time."""

MATCHINGS = {"yunus2025": YUNUS2025, "tinsley": TINSLEY}

SCHEDULES: dict[str, Schedule | UntilNoGainAdamW] = {
    "yunus2025": UntilNoGainAdamW(),
    "tinsley": Schedule(steps=6000, batch=256, rate=1e-3),
}
"""How each is trained."""
