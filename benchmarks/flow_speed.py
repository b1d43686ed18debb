"""How much faster are flows evaluated for many points at once than by flowjax, point by point?

    python benchmarks/flow_speed.py

Draws with their densities for one galaxy, and slopes of the mean log-density of pairs, which is
what training asks for; Tinsley's default flow and SEDflow's. Processor time, for runs keep every
core busy with galaxies of its own; medians of rounds in which the two ways take turns. Writes
benchmarks/results/flow_speed.json.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from machine import machine, median_seconds
from tinsley.cli.console import console
from tinsley.density.flows import COUPLING, MAF, ConditionalFlow, make_flow
from tinsley.io.results import write_json

OUT = Path(__file__).parent / "results" / "flow_speed.json"
N_FEATURES, N_DIM = 16, 11
DRAWS, PAIRS = 4096, 1024
ROUNDS = 7


def main() -> None:
    report: dict[str, Any] = {"machine": machine(), "draws": DRAWS, "pairs": PAIRS}
    for name, shape in (("tinsley", COUPLING), ("sedflow", MAF)):
        flow = make_flow(shape, N_FEATURES, N_DIM, key=jax.random.key(0))
        told = jax.random.normal(jax.random.key(1), (PAIRS, N_FEATURES))
        x = jax.random.normal(jax.random.key(2), (PAIRS, N_DIM))
        report[name] = {
            "draws": compare(draw, draw_by_flowjax, flow, told[0]),
            "slopes": compare(slopes, slopes_by_flowjax, flow, (x, told)),
        }
        console.print_json(data=report[name])
    write_json(OUT, report)


def compare(ours: Callable, theirs: Callable, *given: Any) -> dict[str, float]:
    """Processor seconds of a call of both, and their ratio."""
    calls = {
        "tinsley": lambda: jax.block_until_ready(ours(*given)),
        "flowjax": lambda: jax.block_until_ready(theirs(*given)),
    }
    seconds = median_seconds(calls, ROUNDS, time.process_time)
    return seconds | {"ratio": seconds["flowjax"] / seconds["tinsley"]}


@eqx.filter_jit
def draw(flow: ConditionalFlow, told: jax.Array) -> Any:
    return flow.sample_and_log_prob(DRAWS, told, key=jax.random.key(3))


@eqx.filter_jit
def draw_by_flowjax(flow: ConditionalFlow, told: jax.Array) -> Any:
    condition = flow.embedding(told)
    return flow.flow.sample_and_log_prob(jax.random.key(3), (DRAWS,), condition)


@eqx.filter_jit
@eqx.filter_grad
def slopes(flow: ConditionalFlow, pairs: tuple[jax.Array, jax.Array]) -> jax.Array:
    return jnp.mean(flow.log_prob_each(*pairs))


@eqx.filter_jit
@eqx.filter_grad
def slopes_by_flowjax(flow: ConditionalFlow, pairs: tuple[jax.Array, jax.Array]) -> jax.Array:
    return jnp.mean(jax.vmap(flow.log_prob)(*pairs))


if __name__ == "__main__":
    main()
