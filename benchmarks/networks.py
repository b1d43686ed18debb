"""Which network? Effective draws a second against the size of the flow, at equal training.

Every shape sees the same galaxies in the same order, for the same number of steps; then come 1,000
fresh galaxies of the embedded catalogue's S/N range with all bands. Of two networks the one that
reaches the wanted effective sample size sooner is better, whatever its loss. Trainings go on from
checkpoints in the work folder.

    python benchmarks/networks.py --steps 6000 --work runs/networks

Writes benchmarks/results/networks.json and docs/figures/networks.png. The speeds want a machine
that does nothing else.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from machine import machine, median_seconds
from tinsley.catalog.batch import infer_batch
from tinsley.density.flows import COUPLING, make_flow
from tinsley.density.train import Schedule, start_training, train_block
from tinsley.infer.features import n_features
from tinsley.infer.importance import ESS_GOOD
from tinsley.infer.pairs import FreshPairs, posterior_pairs, training_loss
from tinsley.io.checkpoints import TrainingFolder
from tinsley.io.models import LoadedPosterior, load_posterior
from tinsley.io.results import new_file, write_json
from tinsley.observe.survey import Photometry
from tinsley.plot.style import BLUE, GREY, VERMILION, new_figure

SHAPES = ((4, 64), (6, 64), (4, 128), (8, 96), (8, 128), (8, 192))
"""Couplings and units of each layer."""
RESULTS = Path(__file__).parent / "results" / "networks.json"
FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "networks.png"
BLOCK = 500
N_VALIDATION = 8192
N_GALAXIES = 1024
DRAWS = (256, 1000)
ROUNDS = 3
SHIPPED = "shipped"
"""The model that comes with the package: 6 x 64, trained eight times as long."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--work", type=Path, default=Path("runs/networks"))
    options = parser.parse_args()
    loaded = load_posterior("sdss")
    trained = {}
    for layers, width in SHAPES:
        name = f"{layers} x {width}"
        shape = COUPLING | {"layers": layers, "width": width}
        trained[name] = train(loaded, shape, options.steps, options.work / name.replace(" ", ""))
        print(name, trained[name][1])
    report = {"machine": machine(), "steps": options.steps, "batch": Schedule().batch}
    flows = {name: flow for name, (flow, _) in trained.items()}
    rows = measure(loaded, flows | {SHIPPED: loaded.posterior.flow})
    report["networks"] = {name: trained[name][1] | rows[name] for name in trained}
    report[SHIPPED] = {"sha256": loaded.sha256} | rows[SHIPPED]
    write_json(RESULTS, report)
    with new_file(FIGURE) as file:
        curve(rows).savefig(file, format="png")
    for name, row in report["networks"].items():
        print(name, row)


def train(
    loaded: LoadedPosterior, shape: dict[str, Any], steps: int, folder: Path
) -> tuple[Any, dict[str, Any]]:
    """A flow of this shape, and how its training went."""
    simulator = loaded.simulator()
    n_dim = loaded.posterior.flow_space.n_unit
    flow = make_flow(shape, n_features(len(loaded.spec.bands)), n_dim, key=jax.random.key(0))
    schedule = Schedule(steps=steps)
    source = FreshPairs(simulator, posterior_pairs, schedule.batch)
    kept = TrainingFolder(folder, {"shape": shape, "steps": steps})
    state, history = kept.resume(start_training(flow, schedule))
    x, told = posterior_pairs(simulator, N_VALIDATION, jax.random.key(2))

    @eqx.filter_jit
    def validate(density: Any) -> Any:
        each = jax.lax.map(lambda pair: density.log_prob(*pair), (x, told), batch_size=1024)
        return -jnp.mean(each)

    while int(state.step) < steps:
        fixed = (source, training_loss, schedule, min(BLOCK, steps - int(state.step)))
        state, losses = train_block(fixed, state, jax.random.key(1))
        entry = {"step": int(state.step), "train_loss": float(losses.mean())}
        history.append(entry | {"validation_loss": float(validate(state.average))})
        kept.save(state, history)
        print(folder.name, history[-1], flush=True)
    weights = sum(a.size for a in jax.tree.leaves(eqx.filter(flow, eqx.is_inexact_array)))
    outcome = {
        "weights": weights,
        "validation_loss": round(min(entry["validation_loss"] for entry in history), 4),
    }
    return kept.best(flow), outcome


def measure(loaded: LoadedPosterior, flows: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Efficiency and speed of each; the speeds are medians of rounds in which all take turns."""
    seen = loaded.simulator(1.0).sample(N_GALAXIES, key=jax.random.key(3)).seen
    flux, sigma, mask, redshift = (
        np.asarray(a) for a in (seen.flux, seen.sigma, seen.mask, seen.redshift)
    )
    status = np.full(N_GALAXIES, "", object)
    rows = Photometry(np.arange(N_GALAXIES), redshift, flux, sigma, mask, status)
    ess: dict[str, dict[int, np.ndarray]] = {name: {} for name in flows}

    def call(name: str, draws: int) -> Callable[[], None]:
        posterior = dataclasses.replace(loaded.posterior, flow=flows[name])

        def infer() -> None:
            found = infer_batch(posterior, rows, draws, jax.random.key(4), keep_draws=False)
            ess[name][draws] = np.asarray(found.ess)

        return infer

    calls = {(name, draws): call(name, draws) for name in flows for draws in DRAWS}
    seconds = median_seconds(calls, ROUNDS)
    return {n: _row({d: N_GALAXIES / seconds[n, d] for d in DRAWS}, ess[n]) for n in flows}


def _row(per_second: dict[int, float], ess: dict[int, np.ndarray]) -> dict[str, Any]:
    few, many = DRAWS
    efficiency = float(np.median(ess[many])) / many
    return {
        "galaxies_per_second": {str(d): round(rate, 1) for d, rate in per_second.items()},
        "median_efficiency": round(efficiency, 4),
        "share_below_1_percent": round(float(np.mean(ess[many] < 0.01 * many)), 4),
        "share_ess_100_of_256_draws": round(float(np.mean(ess[few] >= ESS_GOOD)), 4),
        "effective_draws_per_second": round(efficiency * many * per_second[many]),
    }


def curve(rows: dict[str, dict[str, Any]]) -> Figure:
    """What a draw is worth against what it costs; lines of equal effective draws a second."""
    figure, axes = new_figure(1, 1, 6.0, 4.2)
    ax = axes[0, 0]
    speed = {n: row["galaxies_per_second"][str(DRAWS[1])] * DRAWS[1] for n, row in rows.items()}
    for name, row in rows.items():
        at = (speed[name] / 1e3, row["median_efficiency"])
        ax.plot(*at, "*" if name == SHIPPED else "o", color=VERMILION if name == SHIPPED else BLUE)
        ax.annotate(name, at, xytext=(5, 4), textcoords="offset points", fontsize=9)
    x = np.linspace(0.85 * min(speed.values()), 1.15 * max(speed.values()), 50) / 1e3
    best = max(row["effective_draws_per_second"] for row in rows.values()) / 1e3
    low, high = ax.get_ylim()
    for share in (0.5, 0.75, 1.0):
        ax.plot(x, share * best / x, color=GREY, lw=0.8, zorder=0)
    ax.set_ylim(low - 0.02, high + 0.02)
    ax.set_xlabel("weighted draws a second, thousands")
    ax.set_ylabel("effective draws per draw, median")
    words = "Couplings × width. Grey: the best's effective draws a second × 1, 0.75, 0.5"
    ax.set_title(words, fontsize=9)
    return figure


if __name__ == "__main__":
    main()
