"""`tinsley train`: learn posteriors from simulations."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from tinsley.cli.console import announce, progress

app = typer.Typer(no_args_is_help=True, help="Train a network on simulated galaxies.")

REDSHIFT_RANGE = (0.01, 0.6)
SNR_MARGIN = (0.7, 1.1)
"""The training S/N goes a little beyond the survey's, so that its ends are not edges."""
N_VALIDATION = 8192
BLOCK = 250
RATE_REDSHIFT = 1e-3


@app.callback()
def main() -> None:
    """Train a network on simulated galaxies."""


@app.command()
def posterior(
    survey: Annotated[str, typer.Option(help="Survey name or TOML file.")] = "sdss",
    out: Annotated[Path, typer.Option(help="Model file to write.")] = Path("posterior.tinsley"),
    run: Annotated[Path, typer.Option(help="Folder of checkpoints; resumes.")] = Path("runs/train"),
    name: Annotated[str, typer.Option(help="Name of the model.")] = "my-posterior",
    density: Annotated[
        str, typer.Option(help="coupling (default) or maf (SEDflow's).")
    ] = "coupling",
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 50_000,
    batch: Annotated[int, typer.Option(min=8, help="Fresh galaxies a step.")] = 1024,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the run.")] = 0,
) -> None:
    """Train an amortised posterior: photometry with errors and redshift to 12 parameters.

    Every batch is simulated anew; a fixed validation set decides which weights are kept. Kill it
    and start it again with the same options: it goes on from the last checkpoint.
    """
    import jax

    from tinsley.density.flows import FLOWS, make_flow
    from tinsley.density.train import Schedule, start_training
    from tinsley.errors import InputError
    from tinsley.infer.amortized import posterior_pairs
    from tinsley.infer.features import n_features
    from tinsley.infer.simulator import Simulator
    from tinsley.io.checkpoints import TrainingFolder
    from tinsley.io.models import Networks, build_tables, physics_checksums, save_model
    from tinsley.io.surveys import load_survey
    from tinsley.observe.noise import BroadNoise
    from tinsley.parameters import default_space

    if density not in FLOWS:
        raise InputError(f"no density {density!r}; expected one of {', '.join(FLOWS)}.")
    _refuse_missing_folder(out)
    survey_ = load_survey(survey)
    tables, _ = build_tables(survey_.filters, REDSHIFT_RANGE)
    snr_range = tuple(
        float(survey_.noise[k]) * m for k, m in zip(("snr_min", "snr_max"), SNR_MARGIN, strict=True)
    )
    simulator = Simulator(default_space(), tables, BroadNoise(*snr_range), REDSHIFT_RANGE)
    schedule = Schedule(steps=steps, batch=batch)
    key_flow, key_run, key_check = jax.random.split(jax.random.key(seed), 3)
    n_dim = simulator.space.without_mass().n_unit
    flow = make_flow(FLOWS[density], n_features(len(survey_.bands)), n_dim, key=key_flow)
    setup = {"survey": survey_.name, "flow": FLOWS[density], "steps": steps, "batch": batch}
    physics = physics_checksums() | {"filters": survey_.filters, "space": simulator.space.to_dict()}
    folder = TrainingFolder(run, setup | physics | {"seed": seed, "snr_range": snr_range})
    begun = folder.resume(start_training(flow, schedule))
    history = _train(begun, (simulator, posterior_pairs), schedule, folder, (key_run, key_check))
    spec = _spec(name, survey_, simulator, FLOWS[density], setup, history)
    save_model(out, spec, Networks(folder.best(flow)))
    announce(out, f"validation loss {history[-1]['validation_loss']:.4f}")


@app.command()
def redshift(
    model: Annotated[str, typer.Argument(help="Model name or file to teach.")],
    out: Annotated[Path, typer.Option(help="Model file to write.")] = Path("posterior.tinsley"),
    run: Annotated[Path, typer.Option(help="Folder of checkpoints; resumes.")] = Path(
        "runs/redshift"
    ),
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 20_000,
    batch: Annotated[int, typer.Option(min=8, help="Fresh galaxies a step.")] = 1024,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the run.")] = 0,
) -> None:
    """Teach a posterior to do without redshifts: adds p(redshift | photometry) to MODEL.

    Galaxies are simulated as for MODEL itself. With the result, `tinsley infer --redshift free`
    gives photometric redshifts, and the other properties with their uncertainty in them.
    """
    import dataclasses

    import jax

    from tinsley.density.histogram import REDSHIFT, make_histogram
    from tinsley.density.train import Schedule, start_training
    from tinsley.infer.amortized import redshift_pairs
    from tinsley.infer.features import n_features_without_redshift
    from tinsley.io.checkpoints import TrainingFolder
    from tinsley.io.models import Networks, load_posterior, save_model

    _refuse_missing_folder(out)
    loaded = load_posterior(model)
    spec, posterior_ = loaded.spec, loaded.posterior
    simulator = loaded.simulator()
    schedule = Schedule(steps=steps, batch=batch, rate=RATE_REDSHIFT)
    key_net, key_run, key_check = jax.random.split(jax.random.key(seed), 3)
    n_features = n_features_without_redshift(len(spec.bands))
    density = make_histogram(REDSHIFT, n_features, spec.redshift_range, key=key_net)
    setup = {"steps": steps, "batch": batch, "seed": seed, "model_sha256": loaded.sha256}
    folder = TrainingFolder(run, setup | {"density": REDSHIFT})
    begun = folder.resume(start_training(density, schedule))
    history = _train(begun, (simulator, redshift_pairs), schedule, folder, (key_run, key_check))
    taught = dataclasses.replace(
        spec, redshift_density=REDSHIFT, redshift_training=setup | _outcome(history)
    )
    save_model(out, taught, Networks(posterior_.flow, folder.best(density)))
    announce(out, f"validation loss {history[-1]['validation_loss']:.4f}")


def _refuse_missing_folder(out: Path) -> None:
    """Before the training, not after it."""
    from tinsley.errors import InputError

    if not out.parent.is_dir():
        raise InputError(f"{out} can not be written: its folder does not exist; make it first.")


def _train(begun: Any, taught: Any, schedule: Any, folder: Any, keys: Any) -> list[dict]:
    """Go on from (state, history) to the end; a checkpoint at every validation.

    `taught` is a simulator and what a density is to learn from it.
    """
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    from tinsley.density.train import train_block
    from tinsley.infer.amortized import training_loss

    simulator, pairs = taught
    x, condition = pairs(simulator, N_VALIDATION, keys[1])

    @eqx.filter_jit
    def validation_loss(density: Any) -> Any:
        each = jax.lax.map(lambda pair: density.log_prob(*pair), (x, condition), batch_size=1024)
        return -jnp.mean(each)

    state, history = begun
    before = history[-1]["seconds"] if history else 0.0
    started = time.monotonic()
    every = max(1, min(8, schedule.steps // BLOCK // 10)) * BLOCK
    count = "{task.completed}/{task.total} steps  loss {task.fields[loss]}"
    with progress("{task.description}", count) as bar:
        task = bar.add_task("training", total=schedule.steps, completed=int(state.step), loss="")
        while (done := int(state.step)) < schedule.steps:
            n = min(BLOCK, schedule.steps - done)
            fixed = ((simulator, schedule.batch, pairs), training_loss, schedule, n)
            state, losses = train_block(fixed, state, keys[0])
            bar.update(task, completed=done + n, loss=f"{float(jnp.mean(losses)):.3f}")
            if (done + n) % every == 0 or done + n == schedule.steps:
                history.append(
                    {
                        "step": done + n,
                        "seconds": round(before + time.monotonic() - started, 1),
                        "train_loss": float(jnp.mean(losses)),
                        "validation_loss": float(validation_loss(state.average)),
                    }
                )
                folder.save(state, history)
    return history


def _spec(
    name: str, survey: Any, simulator: Any, flow: dict, setup: dict, history: list[dict]
) -> Any:
    """The header of the model file."""
    import jax
    import numpy as np

    from tinsley.infer.spec import PosteriorSpec
    from tinsley.infer.support import fit_colour_limits
    from tinsley.io.models import physics_checksums

    made = simulator.sample(200_000, key=jax.random.key(0))
    limits = fit_colour_limits(np.asarray(made.flux_true), np.asarray(made.theta["redshift"]))
    sums: dict[str, Any] = dict(physics_checksums())
    return PosteriorSpec(
        name=name,
        survey=survey.name,
        bands=survey.bands,
        filters=survey.filters,
        space=simulator.space.to_dict(),
        redshift_range=simulator.redshift_range,
        snr_range=(simulator.noise.snr_min, simulator.noise.snr_max),
        flow=flow,
        colour_limits=limits.to_dict(),
        training=setup | _outcome(history),
        **sums,
    )


def _outcome(history: list[dict]) -> dict[str, Any]:
    """The best validation and the last."""
    best = min(history, key=lambda entry: entry["validation_loss"])
    return {"best": best, "last": history[-1]}
