"""The folder of a training: settings, states, the best weights."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest

from tinsley.density.train import Schedule, TrainState, start_training
from tinsley.errors import InputError
from tinsley.io.checkpoints import TrainingFolder

SETUP = {"survey": "sdss", "steps": 100, "snr_range": (0.7, 220.0), "flow": {"layers": 2}}
START = start_training({"w": jnp.zeros(3)}, Schedule())


def state_at(step: int) -> TrainState:
    weights = {"w": jnp.full(3, float(step))}
    return eqx.tree_at(
        lambda s: (s.model, s.average, s.step), START, (weights, weights, jnp.asarray(step))
    )


def history(*losses: float) -> list[dict[str, float]]:
    return [{"step": 10 * (i + 1), "validation_loss": loss} for i, loss in enumerate(losses)]


def saved(path, *losses: float) -> TrainingFolder:
    folder = TrainingFolder(path, SETUP)
    for i in range(len(losses)):
        folder.save(state_at(10 * (i + 1)), history(*losses[: i + 1]))
    return folder


def test_a_new_folder_starts_at_the_start(tmp_path):
    state, past = TrainingFolder(tmp_path / "deep" / "run", SETUP).resume(START)
    assert state is START
    assert past == []


def test_last_state_and_history_come_back(tmp_path):
    saved(tmp_path, 3.0, 2.0, 2.5)
    state, past = TrainingFolder(tmp_path, SETUP).resume(START)
    assert eqx.tree_equal(state, state_at(30))
    assert past == history(3.0, 2.0, 2.5)


@pytest.mark.parametrize(
    ("losses", "best"), [((3.0, 2.0, 2.5), 20), ((3.0, 2.0, 1.0), 30), ((1.0, 2.0, 3.0), 10)]
)
def test_best_weights_are_those_of_the_least_loss(losses, best, tmp_path):
    folder = saved(tmp_path, *losses)
    np.testing.assert_array_equal(folder.best({"w": jnp.zeros(3)})["w"], np.full(3, best))


@pytest.mark.parametrize("kill", ["best.eqx", "history.json", "state.eqx"])
def test_a_kill_between_two_files_loses_nothing(kill, tmp_path, monkeypatch):
    """The third validation is the best; the kill comes before one of its files is written."""
    saved(tmp_path, 3.0, 2.0)
    killed = TrainingFolder(tmp_path, SETUP)
    with monkeypatch.context() as patched:
        patched.setattr("tinsley.io.checkpoints.new_file", stopping("new_file", kill))
        patched.setattr("tinsley.io.checkpoints.write_json", stopping("write_json", kill))
        with pytest.raises(KeyboardInterrupt):
            killed.save(state_at(30), history(3.0, 2.0, 1.0))
    folder = TrainingFolder(tmp_path, SETUP)
    state, past = folder.resume(START)
    assert (int(state.step), past) == (20, history(3.0, 2.0))
    for i, loss in ((3, 1.0), (4, 1.5)):  # the same again, then a worse one
        past = [*past, {"step": 10 * i, "validation_loss": loss}]
        folder.save(state_at(10 * i), past)
    np.testing.assert_array_equal(folder.best({"w": jnp.zeros(3)})["w"], np.full(3, 30.0))


def stopping(function: str, name: str):
    from tinsley.io import results

    real = getattr(results, function)

    def wrapped(path, *rest):
        if path.name == name:
            raise KeyboardInterrupt
        return real(path, *rest)

    return wrapped


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"steps": 200}, "steps"),
        ({"flow": {"layers": 3}}, "flow"),
        ({"seed": 1}, "seed"),
        ({"of_a_later_version": None}, "of_a_later_version"),
    ],
)
def test_other_settings_are_refused(change, named, tmp_path):
    TrainingFolder(tmp_path, SETUP)
    with pytest.raises(InputError, match=rf"other settings \({named}\); give the same"):
        TrainingFolder(tmp_path, SETUP | change)
    TrainingFolder(tmp_path, SETUP)


def test_a_file_in_the_folders_place_is_refused(tmp_path):
    (tmp_path / "run").write_text("mine")
    with pytest.raises(InputError, match="can not be made a folder for checkpoints"):
        TrainingFolder(tmp_path / "run", SETUP)
