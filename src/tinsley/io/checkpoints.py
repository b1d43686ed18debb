"""Checkpoints of a training: go on where it was killed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import equinox as eqx

from tinsley.density.train import TrainState
from tinsley.errors import InputError
from tinsley.io.results import make_folder, new_file, write_json

_STATE, _BEST, _SETUP, _HISTORY = "state.eqx", "best.eqx", "setup.json", "history.json"


class TrainingFolder:
    """The folder of one training: its settings, its last state, the best weights, its history."""

    def __init__(self, folder: Path, setup: dict[str, Any]) -> None:
        """Open or begin a training.

        Args:
            folder: Made if it is not there.
            setup: Settings, plain values.

        Raises:
            InputError: The folder can not be made, or was begun with other settings.
        """
        self.folder = make_folder(folder, "checkpoints")
        setup = json.loads(json.dumps(setup))
        path = folder / _SETUP
        if not path.exists():
            write_json(path, setup)
        elif (found := json.loads(path.read_text())) != setup:
            differs = set(found) ^ set(setup)
            differs |= {name for name in set(found) & set(setup) if found[name] != setup[name]}
            raise InputError(
                f"{folder} holds a training with other settings ({', '.join(sorted(differs))}); "
                "give the same settings to go on with it, or another folder to begin anew."
            )

    def resume(self, start: TrainState) -> tuple[TrainState, list[dict[str, float]]]:
        """The last state, or `start` where there is none, and the validations up to it.

        One validation is an entry of step, seconds, train_loss, validation_loss.
        """
        path = self.folder / _STATE
        if not path.exists():
            return start, []
        state = eqx.tree_deserialise_leaves(path, start)
        history = json.loads((self.folder / _HISTORY).read_text())
        return state, [entry for entry in history if entry["step"] <= int(state.step)]

    def best(self, like: Any) -> Any:
        """The weights with the lowest validation loss so far."""
        return load_best(self.folder, like)

    def save(self, state: TrainState, history: list[dict[str, float]]) -> None:
        """Write the weights when they are the best so far, then the history, then the state.

        In this order a kill between two of them loses nothing: what is ahead of the state comes
        again, the same, when training goes on.
        """
        losses = [entry["validation_loss"] for entry in history]
        if losses[-1] == min(losses):
            self._write(_BEST, state.average)
        write_json(self.folder / _HISTORY, history)
        self._write(_STATE, state)

    def _write(self, name: str, tree: Any) -> None:
        with new_file(self.folder / name) as file:
            eqx.tree_serialise_leaves(file, tree)


def load_best(folder: Path, like: Any) -> Any:
    """The best weights of a training, in the structure of `like`.

    Raises:
        InputError: There are none, or they are of another structure.
    """
    try:
        return eqx.tree_deserialise_leaves(folder / _BEST, like)
    except (OSError, RuntimeError, ValueError, EOFError) as problem:
        raise InputError(f"{folder / _BEST} does not hold the weights expected.") from problem
