"""How many training galaxies? Tinsley's flow on SEDflow's simulator: fixed sets, and on the fly.

    python benchmarks/ablations.py --model sedflow.tinsley [--steps 6000] [--work runs/ablations]
        [--fresh MODEL]

The model named gives priors, noise and simulator. For 100,000, 500,000 and 1,000,000 galaxies and
for fresh ones in every batch the same flow is trained for as many steps on batches of one size, by
one schedule; the weights with the lowest validation loss are kept, the validation galaxies being
the same for all (but of a model given by --fresh, which had its own). Then benchmarks/sedflow.py's
measures on other galaxies, with right and wrong errors. Trainings go on from checkpoints in --work.

Writes benchmarks/results/ablations.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from machine import machine
from sedflow import NUMBER, judged
from tinsley.cli.console import console
from tinsley.density.flows import COUPLING, ConditionalFlow, make_flow
from tinsley.density.train import Schedule, start_training, train_block
from tinsley.infer.features import n_features
from tinsley.infer.pairs import FreshPairs, StoredPairs, posterior_pairs, store_pairs, training_loss
from tinsley.io.checkpoints import TrainingFolder
from tinsley.io.models import LoadedPosterior, load_posterior
from tinsley.io.results import write_json

OUT = Path(__file__).resolve().parent / "results" / "ablations.json"
SIZES = (100_000, 500_000, 1_000_000, None)
"""None: every batch is new."""
FRESH = "on-the-fly"
SHAPE = COUPLING | {"layers": 8, "width": 128}
"""The flow of sedflow.json, larger than the default."""
N_VALIDATION = 8192
BLOCK = 500


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="whose simulator is used")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--number", type=int, default=NUMBER)
    parser.add_argument("--work", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--fresh", help="a model trained on the fly for as many steps, not again")
    options = parser.parse_args()
    loaded = load_posterior(options.model)
    base = dataclasses.replace(loaded.posterior, mass="integrated")
    report: dict[str, Any] = {"machine": machine(), "steps": options.steps}
    report |= {"batch": Schedule().batch, "galaxies": options.number, "trained_on": {}}
    for size in SIZES:
        name = str(size or FRESH)
        if size is None and options.fresh:
            flow, history = already_trained(options.fresh, options.steps)
        else:
            flow, history = train(loaded, size, options.steps, options.work / name)
        posterior = dataclasses.replace(base, flow=flow)
        found = judged(
            dataclasses.replace(loaded, posterior=posterior), loaded.simulator(1.0), options.number
        )
        report["trained_on"][name] = {"history": history} | found
        write_json(options.out, report)
    console.print_json(data=report)


def train(
    loaded: LoadedPosterior, size: int | None, steps: int, folder: Path
) -> tuple[ConditionalFlow, list[dict[str, float]]]:
    """Tinsley's flow after so many steps on a fixed set, or on fresh galaxies; its validations."""
    keys = jax.random.split(jax.random.key(0), 4)
    simulator, schedule = loaded.simulator(), Schedule(steps=steps)
    n_dim = loaded.posterior.space.without_mass().n_unit
    flow = make_flow(SHAPE, n_features(len(loaded.spec.bands)), n_dim, key=keys[0])
    fresh = FreshPairs(simulator, posterior_pairs, schedule.batch)
    kept = TrainingFolder(folder, {"size": size, "steps": steps, "model": loaded.sha256})
    state, history = kept.resume(start_training(flow, schedule))
    if int(state.step) < steps:
        source = fresh if size is None else stored(fresh, size, keys[1])
        held_out = posterior_pairs(simulator, N_VALIDATION, keys[2])
    while (done := int(state.step)) < steps:
        started = time.process_time()
        fixed = (source, training_loss, schedule, min(BLOCK, steps - done))
        state, losses = train_block(fixed, state, keys[3])
        spent = time.process_time() - started + (history[-1]["cpu_seconds"] if history else 0.0)
        entry = {"step": int(state.step), "cpu_seconds": round(spent, 1)}
        entry |= {"train_loss": float(losses.mean())}
        history.append(entry | {"validation_loss": float(validate(state.average, *held_out))})
        kept.save(state, history)
        console.print(folder.name, history[-1])
    return kept.best(flow), history


def already_trained(model: str, steps: int) -> tuple[ConditionalFlow, list[dict[str, float]]]:
    """The flow of a model that `tinsley train posterior` has trained, and its validations."""
    fresh = load_posterior(model)
    training = fresh.spec.training
    if training["last"]["step"] != steps or "galaxies" in training:
        raise SystemExit(f"{model} was not trained on the fly for {steps} steps.")
    return fresh.posterior.flow, [training["best"], training["last"]]


def stored(fresh: FreshPairs, size: int, key: jax.Array) -> StoredPairs:
    x, told = (jnp.asarray(np.asarray(part)) for part in store_pairs(fresh, size, key))
    return StoredPairs(x, told, fresh.number)


@eqx.filter_jit
def validate(flow: ConditionalFlow, x: jax.Array, told: jax.Array) -> jax.Array:
    each = jax.lax.map(lambda pair: flow.log_prob(*pair), (x, told), batch_size=1024)
    return -jnp.mean(each)


if __name__ == "__main__":
    main()
