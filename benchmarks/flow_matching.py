"""Flow matching: what each choice is worth, how few steps will do, and how fast draws are made.

All networks learn the same made-up posterior of five properties, whose density is known: bent,
skewed, two-peaked, of widths that depend on the condition, one property close behind another.
Times are CPU seconds of this process: a busy machine hardly matters. Goes on from the work folder.

    python benchmarks/flow_matching.py --work runs/flow_matching
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from scipy.optimize import linear_sum_assignment

from c2st import c2st
from machine import machine
from tinsley.density.flow_matching import MATCHINGS, TINSLEY, make_flow_matching
from tinsley.density.flows import COUPLING, make_flow
from tinsley.density.ode import Solver
from tinsley.density.train import AbstractAnnealed, Schedule, start_training, train_block
from tinsley.io.checkpoints import TrainingFolder
from tinsley.io.results import write_json

RESULTS = Path(__file__).parent / "results" / "flow_matching.json"
N_DIM, N_CONDITION = 5, 6
BATCH = 256
STEPS, STEPS_SMALL = 800, 1000
SMALL = {"width": 64}
LARGE = COUPLING | {"layers": 8, "width": 128}
"""The spline flow beside the full flow matching, which has as wide a network."""
N_TEST = 2048
N_DRAWS = 2000
GALAXIES = {"full": 3, "small": 4}
ROUNDS = 3
REFERENCE, FINE = Solver("rk4", 100), Solver("rk4", 24)
FEW = [
    *[("euler", steps) for steps in (4, 8, 16)],
    *[(method, steps) for method in ("midpoint", "heun") for steps in (2, 4, 8)],
    *[("rk4", steps) for steps in (1, 2, 4)],
    ("tsit5", 2),
]
PLAIN = TINSLEY | {"frame_width": 0}
CHOICES: dict[str, dict[str, Any]] = {
    "default": TINSLEY,
    "time as a number": TINSLEY | {"frequencies": 0},
    "perceptron": TINSLEY | {"velocity": "plain", "depth": 4, "activation": "silu"},
    "no frame": PLAIN,
    "no frame, sigma 0.05": PLAIN | {"sigma": 0.05},
}
PAIRINGS = {"no frame, paired blindly": 0.0, "no frame, paired by condition too": 10.0}
"""Weight of the squared distance of conditions in the cost of a pair."""


# --- the posterior to learn ---


def parts(condition: jax.Array) -> tuple[jax.Array, ...]:
    """What the condition decides: place, width of the first, which peak, width of the last."""
    place = jnp.sin(condition[:N_DIM]) + 0.3 * condition[1:]
    width = 0.15 + 0.35 * jax.nn.sigmoid(2 * condition[0])
    return (
        place,
        width,
        jax.nn.sigmoid(1.5 * condition[2]),
        0.06 + 0.1 * jax.nn.sigmoid(condition[5]),
    )


def from_normal(normal: jax.Array, uniform: jax.Array, condition: jax.Array) -> jax.Array:
    """Five properties from as many normal numbers."""
    place, width, upper, narrow = parts(condition)
    one = width * normal[0]
    two = 0.35 * (normal[0] ** 2 - 1) + 0.2 * normal[1]
    three = jnp.where(uniform < upper, 0.6, -0.6) + 0.2 * normal[2]
    four = 0.4 * jnp.sinh(0.7 * normal[3] + 0.5)
    five = 0.7 * four + narrow * normal[4]
    return place + jnp.stack([one, two, three, four, five])


def log_posterior(theta: jax.Array, condition: jax.Array) -> jax.Array:
    """Log-density of `from_normal`'s."""
    place, width, upper, narrow = parts(condition)
    one, two, three, four, five = theta - place
    first = one / width
    asinh = jnp.arcsinh(four / 0.4)
    jacobian = -jnp.log(0.4 * 0.7) - jnp.log(jnp.cosh(asinh))
    peaks = jnp.stack([jnp.log(upper), jnp.log1p(-upper)])
    peaks = peaks + norm.logpdf(three - jnp.asarray([0.6, -0.6]), 0.0, 0.2)
    return (
        norm.logpdf(one, 0.0, width)
        + norm.logpdf(two - 0.35 * (first**2 - 1), 0.0, 0.2)
        + jax.nn.logsumexp(peaks)
        + norm.logpdf((asinh - 0.5) / 0.7)
        + jacobian
        + norm.logpdf(five - 0.7 * four, 0.0, narrow)
    )


def pairs(number: int, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Properties with their conditions."""
    keys = jax.random.split(key, 3)
    condition = jax.random.normal(keys[0], (number, N_CONDITION))
    normal = jax.random.normal(keys[1], (number, N_DIM))
    uniform = jax.random.uniform(keys[2], (number,))
    return jax.vmap(from_normal)(normal, uniform, condition), condition


# --- training ---


def matching_loss(model: Any, data: int, key: jax.Array) -> jax.Array:
    key_pairs, key_paths = jax.random.split(key)
    return model.loss(*pairs(data, key_pairs), key=key_paths)


def flow_loss(model: Any, data: int, key: jax.Array) -> jax.Array:
    return -jnp.mean(jax.vmap(model.log_prob)(*pairs(data, key)))


class Paired(AbstractAnnealed):
    """Batches whose draws of the base were given to points by the cheapest assignment."""

    base: jax.Array
    theta: jax.Array
    condition: jax.Array

    def at(self, step: jax.Array) -> Any:
        return (self.base[step], self.theta[step], self.condition[step])


def paired_loss(model: Any, data: Any, key: jax.Array) -> jax.Array:
    base, theta, condition = data
    time_ = jax.random.uniform(key, (BATCH,))
    return jnp.mean(jax.vmap(model.path_error)(base, theta, jnp.zeros_like(base), time_, condition))


def make_paired(steps: int, weight: float) -> Paired:
    """The base has conditions of its own: those of another random order of the batch."""
    theta, condition = pairs(steps * BATCH, jax.random.key(5))
    theta, condition = (np.asarray(a).reshape(steps, BATCH, -1) for a in (theta, condition))
    rng = np.random.default_rng(5)
    base = rng.normal(size=theta.shape).astype(np.float32)
    for step in range(steps):
        own = condition[step][rng.permutation(BATCH)]
        cost = squared(base[step], theta[step]) + weight * squared(own, condition[step])
        base[step] = base[step][linear_sum_assignment(cost.T)[1]]
    return Paired(jnp.asarray(base), jnp.asarray(theta), jnp.asarray(condition))


def squared(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Squared distances, [one, other]."""
    return (one**2).sum(1)[:, None] + (other**2).sum(1) - 2 * one @ other.T


def train(
    name: str, model: Any, loss: Callable[..., Any], data: Any, steps: int, work: Path
) -> tuple[Any, float]:
    """The model and the CPU seconds that its training took; from the work folder where it is."""
    schedule = Schedule(steps=steps, batch=BATCH, rate=2e-3, warmup=100, average=0.99)
    kept = TrainingFolder(work / name.replace(" ", "-").replace(",", ""), {"steps": steps})
    state, history = kept.resume(start_training(model, schedule))
    if not history:
        started = time.process_time()
        state, losses = train_block((data, loss, schedule, steps), state, jax.random.key(1))
        last = float(jnp.mean(losses[-100:]))
        spent = time.process_time() - started
        entry = {"step": steps, "seconds": spent, "train_loss": last, "validation_loss": last}
        history = [entry]
        kept.save(state, history)
    return state.average, history[0]["seconds"]


# --- measures ---


@eqx.filter_jit
def divergence(model: Any, theta: jax.Array, condition: jax.Array) -> jax.Array:
    """log p - log q of points from p: their mean is KL(p || q)."""
    found = jax.lax.map(lambda pair: model.log_prob(*pair), (theta, condition), batch_size=256)
    return jax.vmap(log_posterior)(theta, condition) - found


@eqx.filter_jit
def draw(model: Any, solver: Solver | None, condition: jax.Array, key: jax.Array) -> jax.Array:
    if solver is None:
        return model.sample_and_log_prob(N_DRAWS, condition, key=key)[0]
    return model.sample(N_DRAWS, condition, key=key, solver=solver)


def kullback_leibler(model: Any) -> dict[str, float]:
    each = np.asarray(divergence(model, *pairs(N_TEST, jax.random.key(2))))
    return {
        "kl_nats": round(float(each.mean()), 4),
        "error": round(float(each.std() / np.sqrt(len(each))), 4),
    }


def step_errors(model: Any, conditions: jax.Array, few: list[tuple[str, int]]) -> dict[str, float]:
    """Distance of draws from where many steps take them, in the posterior's widths: rms."""
    exact = [np.asarray(draw(model, FINE, c, jax.random.key(3))) for c in conditions]
    found = {}
    for method, steps in few:
        solver = Solver(method, steps)
        each = [np.asarray(draw(model, solver, c, jax.random.key(3))) for c in conditions]
        rms = [
            np.sqrt(np.mean(((a - b) / b.std(0)) ** 2)) for a, b in zip(each, exact, strict=True)
        ]
        found[f"{method} x {steps}"] = round(float(np.mean(rms)), 4)
    return found


def distinguishable(model: Any, conditions: jax.Array) -> dict[str, float]:
    """Mean accuracy of a classifier between draws in the default's steps and in many; and in many
    and other such, where 0.5 is the truth."""
    many = [np.asarray(draw(model, REFERENCE, c, jax.random.key(10))) for c in conditions]
    found = {}
    for solver, name in ((model.solver, "default"), (FINE, "control")):
        each = [np.asarray(draw(model, solver, c, jax.random.key(11))) for c in conditions]
        found[name] = np.mean([c2st(a, b) for a, b in zip(each, many, strict=True)])
    return {name: round(float(value), 4) for name, value in found.items()}


def draws_per_second(model: Any, solver: Solver | None, condition: jax.Array) -> dict[str, float]:
    """Draws a second, by the clock and by this process's CPU time; medians of rounds."""
    draw(model, solver, condition, jax.random.key(0)).block_until_ready()
    clock, cpu = [], []
    for turn in range(ROUNDS):
        started, spent = time.perf_counter(), time.process_time()
        draw(model, solver, condition, jax.random.key(turn)).block_until_ready()
        clock.append(N_DRAWS / (time.perf_counter() - started))
        cpu.append(N_DRAWS / (time.process_time() - spent))
    return {"clock": round(float(np.median(clock))), "cpu_second": round(float(np.median(cpu)))}


# --- the report ---


def choices(work: Path) -> dict[str, Callable[[], dict[str, Any]]]:
    """What to measure of each choice, with a small network."""

    def chosen(name: str, config: dict[str, Any]) -> dict[str, Any]:
        model = make_flow_matching(config | SMALL, N_CONDITION, N_DIM, key=jax.random.key(0))
        return outcome(*train(name, model, matching_loss, BATCH, STEPS_SMALL, work))

    def paired(name: str, weight: float) -> dict[str, Any]:
        model = make_flow_matching(PLAIN | SMALL, N_CONDITION, N_DIM, key=jax.random.key(0))
        data = make_paired(STEPS_SMALL, weight)
        return outcome(*train(name, model, paired_loss, data, STEPS_SMALL, work))

    rows = {name: partial(chosen, name, config) for name, config in CHOICES.items()}
    return rows | {name: partial(paired, name, weight) for name, weight in PAIRINGS.items()}


def outcome(model: Any, seconds: float) -> dict[str, Any]:
    conditions = pairs(GALAXIES["small"], jax.random.key(4))[1]
    few = [("heun", 2), ("heun", 4), ("heun", 8)]
    report = {"training_cpu_seconds": round(seconds, 1)} | kullback_leibler(model)
    return report | {"step_error": step_errors(model, conditions, few)}


def configurations(work: Path) -> dict[str, Callable[[], dict[str, Any]]]:
    """What to measure of each configuration, whole, and of a spline flow."""
    conditions = pairs(GALAXIES["full"], jax.random.key(4))[1]

    def matching(name: str) -> dict[str, Any]:
        model = make_flow_matching(MATCHINGS[name], N_CONDITION, N_DIM, key=jax.random.key(0))
        model, seconds = train(f"full {name}", model, matching_loss, BATCH, STEPS, work)
        found = {"training_cpu_seconds": round(seconds)} | kullback_leibler(model)
        found["draws_per_second"] = {
            f"{solver.method} x {solver.steps}": draws_per_second(model, solver, conditions[0])
            for solver in {model.solver, REFERENCE}
        }
        if name == "tinsley":
            found["step_error"] = step_errors(model, conditions, FEW)
            found["c2st_against_many_steps"] = distinguishable(model, conditions)
        return found

    def spline() -> dict[str, Any]:
        flow = make_flow(LARGE, N_CONDITION, N_DIM, key=jax.random.key(0))
        flow, seconds = train("full spline", flow, flow_loss, BATCH, STEPS, work)
        found = {"training_cpu_seconds": round(seconds)} | kullback_leibler(flow)
        return found | {"draws_per_second": draws_per_second(flow, None, conditions[0])}

    return {name: partial(matching, name) for name in MATCHINGS} | {"spline flow": spline}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/flow_matching"))
    work = parser.parse_args().work
    kept = work / "report.json"
    report: dict[str, Any] = {"machine": machine(), "batch": BATCH, "draws": N_DRAWS}
    report |= {"galaxies": GALAXIES, "test_pairs": N_TEST, "small_width": SMALL["width"]}
    report |= {"steps": {"full": STEPS, "small": STEPS_SMALL}, "full": {}, "small": {}}
    report = json.loads(kept.read_text()) if kept.exists() else report
    for part, rows in (("full", configurations(work)), ("small", choices(work))):
        for name, measure in rows.items():
            if name not in report[part]:
                report[part][name] = measure()
                print(name, report[part][name], flush=True)
                write_json(kept, report)
    write_json(RESULTS, report)


if __name__ == "__main__":
    main()
