"""The loop of every training: blocks of steps, validations, checkpoints, a bar."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tinsley.cli.console import progress

BLOCK = 250
"""Steps from one look at the loss to the next."""


def train_until_over(
    begun: Any,
    lesson: Any,
    schedule: Any,
    folder: Any,
    run_key: Any,
    hours: float | None = None,
    go_on: Any = None,
) -> list[dict]:
    """Go on from (state, history) until the schedule is over; a checkpoint at every validation.

    `lesson` is what makes the batches, the loss of one, and the validation loss of a model; `go_on`
    is `train_block` or `train_steps`. Returns the validations.
    """
    import jax.numpy as jnp

    from tinsley.density.train import train_block
    from tinsley.errors import InputError

    go_on = go_on or train_block

    source, loss_of, validation_loss = lesson
    state, history = begun
    before = history[-1] if history else {"seconds": 0.0, "cpu_seconds": 0.0}
    started, worked, loss = time.monotonic(), time.process_time(), 0.0
    count = "{task.completed:,} steps  loss {task.fields[loss]}"
    with progress("{task.description}", count) as bar:
        task = bar.add_task("training", total=schedule.steps, completed=int(state.step), loss="")
        while not schedule.is_over(history) and not _spent(hours, started):
            done = int(state.step)
            left = schedule.validate_every - done % schedule.validate_every
            n = min(BLOCK, left, (schedule.steps or done + left) - done)
            state, losses = go_on((source, loss_of, schedule, n), state, run_key)
            loss = float(jnp.mean(losses))
            bar.update(task, completed=done + n, loss=f"{loss:.3f}")
            if n == left or done + n == schedule.steps:
                history.append(
                    {
                        "step": done + n,
                        "seconds": round(before["seconds"] + time.monotonic() - started, 1),
                        "cpu_seconds": round(
                            before.get("cpu_seconds", 0.0) + time.process_time() - worked, 1
                        ),
                        "train_loss": loss,
                        "validation_loss": float(validation_loss(state.average)),
                    }
                )
                folder.save(state, history)
    if not history:
        raise InputError("stopped before the first validation; give it more --hours.")
    return history


def outcome(history: list[dict]) -> dict[str, Any]:
    """The best validation and the last."""
    best = min(history, key=lambda entry: entry["validation_loss"])
    return {"best": best, "last": history[-1]}


def _spent(hours: float | None, started: float) -> bool:
    return hours is not None and time.monotonic() - started > 3600 * hours


def refuse_missing_folder(out: Path) -> None:
    """Before the training, not after it."""
    from tinsley.errors import InputError

    if not out.parent.is_dir():
        raise InputError(f"{out} can not be written: its folder does not exist; make it first.")
