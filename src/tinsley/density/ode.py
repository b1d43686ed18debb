"""Ordinary differential equations in a fixed number of steps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

VectorField = Callable[[Float[Array, ""], Any], Any]
"""field(time, state): how fast the state changes; both are pytrees of the same shape."""


class RungeKutta4(diffrax.AbstractERK):
    """The classical method of fourth order, which diffrax does not have.

    Source:
        Kutta (1901). Its order is checked on an equation whose solution is known.
    """

    tableau: ClassVar[diffrax.ButcherTableau] = diffrax.ButcherTableau(
        c=np.array([0.5, 0.5, 1.0]),
        a_lower=(np.array([0.5]), np.array([0.0, 0.5]), np.array([0.0, 0.0, 1.0])),
        b_sol=np.array([1.0, 2.0, 2.0, 1.0]) / 6.0,
        b_error=np.zeros(4),  # the steps are given: no error is asked for
    )
    interpolation_cls: ClassVar[Callable[..., Any]] = (
        diffrax.ThirdOrderHermitePolynomialInterpolation.from_k
    )

    def order(self, terms: Any) -> int:
        del terms
        return 4


METHODS: dict[str, tuple[Callable[[], Any], int]] = {
    "euler": (diffrax.Euler, 1),
    "midpoint": (diffrax.Midpoint, 2),
    "heun": (diffrax.Heun, 2),
    "rk4": (RungeKutta4, 4),
    "tsit5": (diffrax.Tsit5, 6),
}
"""Each method, and how often it asks for the field in a step."""


@dataclass(frozen=True)
class Solver:
    """A method and its number of equal steps.

    Attributes:
        method: A name in `METHODS`.
        steps: How many.
    """

    method: str
    steps: int

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            known = ", ".join(METHODS)
            raise ValueError(f"unknown method {self.method!r}; expected one of {known}.")
        if self.steps < 1:
            raise ValueError(f"a solver needs at least 1 step; got {self.steps}.")

    @property
    def evaluations(self) -> int:
        """How often the field is asked for in all."""
        return METHODS[self.method][1] * self.steps


def solve(field: VectorField, state: Any, times: tuple[float, float], solver: Solver) -> Any:
    """The state at the second of two times, from the state at the first.

    The steps are diffrax's, one after the other in one compiled loop: its own loop, made for steps
    whose number is not known beforehand, costs more than a small network.

    Args:
        field: What to integrate.
        state: Where it starts.
        times: First and last; backward where the last is the smaller.
        solver: Method and number of steps.
    """
    method = METHODS[solver.method][0]()
    term = diffrax.ODETerm(lambda time, now, _: field(jnp.asarray(time), now))
    grid = jnp.linspace(*times, solver.steps + 1)
    inner = method.init(term, grid[0], grid[1], state, None)

    def one_step(carry: Any, ends: tuple[Array, Array]) -> tuple[Any, None]:
        now, inner = carry
        after, _, _, inner, _ = method.step(term, *ends, now, None, inner, made_jump=False)
        return (after, inner), None

    return jax.lax.scan(one_step, (state, inner), (grid[:-1], grid[1:]))[0][0]
