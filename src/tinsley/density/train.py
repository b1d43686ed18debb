"""Training on simulations made on the fly: every batch is new, a fixed set decides."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

Loss = Callable[[Any, Any, Array], Array]
"""loss(model, data, key): mean loss of one fresh batch; `data` is whatever makes the batch."""

_VALIDATIONS_AN_EPOCH = 4


class AbstractAnnealed(eqx.Module):
    """Data that change as a training goes."""

    @abc.abstractmethod
    def at(self, step: Int[Array, ""]) -> AbstractAnnealed:
        """What they are at some step."""


class AnySchedule(Protocol):
    """How long and how fast to train: what `train_block` asks of a schedule."""

    @property
    def average(self) -> float:
        """Decay of the exponential moving average of the weights, which is what is kept."""

    def optimizer(self) -> optax.GradientTransformation:
        """The optimiser that the schedule describes."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train: Adam, warm-up, then a cosine down.

    Attributes:
        steps: Optimiser steps.
        batch: Simulations a step.
        rate: Peak learning rate; the last is a thousandth of it.
        warmup: Steps of linear warm-up.
        average: Decay of the exponential moving average of the weights, which is what is kept.
        clip: Largest norm of the gradient.
    """

    steps: int = 50_000
    batch: int = 1024
    rate: float = 3e-3
    warmup: int = 500
    average: float = 0.999
    clip: float = 5.0

    @property
    def validate_every(self) -> int:
        """Steps from one validation to the next."""
        return max(1, min(2000, self.steps // 8))

    def is_over(self, history: Sequence[Mapping[str, float]]) -> bool:
        """True where the last step is done."""
        return bool(history) and history[-1]["step"] >= self.steps

    def optimizer(self) -> optax.GradientTransformation:
        """The optimiser that this schedule describes."""
        rate = optax.warmup_cosine_decay_schedule(
            0.0, self.rate, min(self.warmup, self.steps // 10), self.steps, self.rate * 1e-3
        )
        return optax.chain(optax.clip_by_global_norm(self.clip), optax.adam(rate))


@dataclass(frozen=True)
class UntilNoGain:
    """Adam at one rate on a fixed set, until its validation loss has stopped falling.

    Attributes:
        batch: Galaxies a step.
        rate: Learning rate.
        galaxies: Size of the set, a tenth of which is kept back for validation.
        patience: Epochs without gain after which to stop.
        average: As `Schedule`'s; 0 for none.
        clip: Largest norm of the gradient.

    Source:
        The sbi package's rule, with SEDflow's numbers (Hahn & Melchior 2022).
    """

    batch: int = 50
    rate: float = 5e-4
    galaxies: int = 1_131_561
    patience: int = 20
    average: float = 0.0
    clip: float = 5.0

    steps = None
    """There is no limit."""

    @property
    def validate_every(self) -> int:
        """Steps from one validation to the next: a quarter of an epoch."""
        return max(1, round(0.9 * self.galaxies / self.batch / _VALIDATIONS_AN_EPOCH))

    def is_over(self, history: Sequence[Mapping[str, float]]) -> bool:
        """True where the last validations brought no gain."""
        return _no_gain(history, self.patience * _VALIDATIONS_AN_EPOCH)

    def optimizer(self) -> optax.GradientTransformation:
        """The optimiser that this schedule describes."""
        return optax.chain(optax.clip_by_global_norm(self.clip), optax.adam(self.rate))


@dataclass(frozen=True)
class UntilNoGainAdamW:
    """AdamW at one rate on a fixed set, until its validation loss has stopped falling.

    Attributes:
        batch: Galaxies a step.
        rate: Learning rate.
        decay: Share of a weight, times the rate, that each step takes from it. Vectors are spared:
            biases, and what standardises the data.
        galaxies: Size of the training set, without what is kept back for validation.
        patience: Epochs without gain after which to stop.
        average: As `Schedule`'s; 0 for none.

    Source:
        Yunus, Wu & Holwerda (2025): AdamW, batch, rate and early stopping. Decay and patience are
        ours: PyTorch's default, and a usual number.
    """

    batch: int = 64
    rate: float = 5e-5
    decay: float = 0.01
    galaxies: int = 80_000
    patience: int = 10
    average: float = 0.0

    steps = None
    """There is no limit."""

    @property
    def validate_every(self) -> int:
        """Steps from one validation to the next: an epoch."""
        return max(1, round(self.galaxies / self.batch))

    def is_over(self, history: Sequence[Mapping[str, float]]) -> bool:
        """True where the last epochs brought no gain."""
        return _no_gain(history, self.patience)

    def optimizer(self) -> optax.GradientTransformation:
        """The optimiser that this schedule describes."""
        return optax.adamw(self.rate, weight_decay=self.decay, mask=_are_matrices)


def _are_matrices(weights: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.ndim > 1, weights)


def _no_gain(history: Sequence[Mapping[str, float]], validations: int) -> bool:
    """True where more than so many validations have passed since the one with the lowest loss."""
    losses = [entry["validation_loss"] for entry in history]
    return len(losses) - _first_best(losses) > validations


def _first_best(losses: Sequence[float]) -> int:
    """Where the lowest is, counted from 0; 0 where there is none."""
    return min(range(len(losses)), key=losses.__getitem__, default=0)


@dataclass(frozen=True)
class OneCycle:
    """Adam whose rate goes up along a cosine, and down along another to a tenth of its beginning.

    Attributes:
        steps: Optimiser steps.
        rate: Peak learning rate; the first is a tenth of it, the last a hundredth.
        rise: Share of the steps on the way up.
        memory: Of the moving average of the weights, as a share of the steps.
        clip: Largest norm of the gradient.

    Source:
        Smith & Topin (2019).
    """

    steps: int
    rate: float
    rise: float = 0.3
    memory: float = 0.07
    clip: float = 5.0

    @property
    def average(self) -> float:
        """Decay of the moving average of the weights, which is what is kept."""
        return 1.0 - 1.0 / max(1.0, self.memory * self.steps)

    def optimizer(self) -> optax.GradientTransformation:
        """The optimiser that this schedule describes."""
        rate = optax.cosine_onecycle_schedule(self.steps, self.rate, self.rise, 10.0, 10.0)
        return optax.chain(optax.clip_by_global_norm(self.clip), optax.adam(rate))


class TrainState(eqx.Module):
    """All that a resumed training needs.

    Attributes:
        model: Weights being trained.
        average: Their moving average: the model to use.
        optimizer_state: Adam's moments.
        step: Steps done.
    """

    model: Any
    average: Any
    optimizer_state: Any
    step: Int[Array, ""]


def start_training(model: Any, schedule: AnySchedule) -> TrainState:
    """A state at step 0."""
    weights = eqx.filter(model, eqx.is_inexact_array)
    state = schedule.optimizer().init(weights)
    return TrainState(model, model, state, jnp.asarray(0, jnp.int32))


@eqx.filter_jit
def train_block(
    fixed: tuple[Any, Loss, AnySchedule, int],
    state: TrainState,
    run_key: Array,
) -> tuple[TrainState, Float[Array, " steps"]]:
    """A block of optimiser steps in one compiled loop.

    The key of a step follows from its number, so a resumed run equals an uninterrupted one.

    Args:
        fixed: What makes a batch (of the step, where it is annealed), the loss, the schedule, the
            number of steps.
        state: Where training stands.
        run_key: Key of the run.

    Returns:
        The state after the block, and each step's loss.
    """
    arrays, static = eqx.partition(state, eqx.is_array)

    def one_step(carry: Any, _: None) -> tuple[Any, Array]:
        after, value = _step(fixed, eqx.combine(carry, static), run_key)
        return eqx.filter(after, eqx.is_array), value

    carry, losses = jax.lax.scan(one_step, arrays, None, length=fixed[3])
    return eqx.combine(carry, static), losses


def train_together(
    fixed: tuple[Sequence[Any], Loss, AnySchedule, int],
    states: Sequence[TrainState],
    run_keys: Sequence[Array],
) -> list[tuple[TrainState, Float[Array, " steps"]]]:
    """`train_block` of several trainings at once, as one vectorised computation.

    What is the same array in the data of all is not copied.

    Args:
        fixed: As `train_block`'s, but for the data: of each training.
        states: Where each stands.
        run_keys: Of each.

    Returns:
        What `train_block` gives for each, to rounding.
    """
    pile = _piled(fixed[0], share=True), _piled(states, share=False)
    after, losses = _train_piled(fixed[1:], pile, jnp.stack(list(run_keys)))
    each = [jax.tree.map(lambda leaf, i=i: leaf[i], after) for i in range(len(states))]
    return [(eqx.combine(one, pile[1].static), losses[i]) for i, one in enumerate(each)]


class _Pile(NamedTuple):
    """Like trees as one: their arrays, along which axes they lie, and what is no array."""

    arrays: Any
    axes: Any
    static: Any


def _piled(trees: Sequence[Any], *, share: bool) -> _Pile:
    """Arrays stacked, but for those that are one and the same where these may be shared."""
    split = [eqx.partition(tree, eqx.is_array) for tree in trees]

    def is_shared(*leaves: Array) -> bool:
        return share and all(leaf is leaves[0] for leaf in leaves)

    arrays = [part[0] for part in split]
    piled = jax.tree.map(lambda *a: a[0] if is_shared(*a) else jnp.stack(a), *arrays)
    axes = jax.tree.map(lambda *a: None if is_shared(*a) else 0, *arrays)
    return _Pile(piled, axes, split[0][1])


@eqx.filter_jit
def _train_piled(
    rest: tuple[Loss, AnySchedule, int], pile: tuple[_Pile, _Pile], run_keys: Array
) -> tuple[Any, Array]:
    data, state = pile

    def one(data_arrays: Any, state_arrays: Any, key: Array) -> tuple[Any, Array]:
        fixed = (eqx.combine(data_arrays, data.static), *rest)
        after, losses = train_block(fixed, eqx.combine(state_arrays, state.static), key)
        return eqx.filter(after, eqx.is_array), losses

    axes = (data.axes, state.axes, 0)
    return eqx.filter_vmap(one, in_axes=axes)(data.arrays, state.arrays, run_keys)


def train_steps(
    fixed: tuple[Any, Loss, AnySchedule, int],
    state: TrainState,
    run_key: Array,
) -> tuple[TrainState, Float[Array, " steps"]]:
    """`train_block` with a compiled step in place of a compiled loop: for convolutions.

    Inside a loop XLA does not give them to its fast kernels on a CPU: a step of the encoder of
    images took 11 to 20 times longer there.
    """
    losses = []
    for _ in range(fixed[3]):
        state, value = _compiled_step((*fixed[:3], 1), state, run_key)
        losses.append(value)
    return state, jnp.stack(losses)


def _step(
    fixed: tuple[Any, Loss, AnySchedule, int], state: TrainState, run_key: Array
) -> tuple[TrainState, Float[Array, ""]]:
    """One step, and its loss."""
    data, loss, schedule, _ = fixed
    key = jax.random.fold_in(run_key, state.step)
    data_now = data.at(state.step) if isinstance(data, AbstractAnnealed) else data
    value, slope = eqx.filter_value_and_grad(loss)(state.model, data_now, key)
    weights = eqx.filter(state.model, eqx.is_inexact_array)
    updates, optimizer_state = schedule.optimizer().update(slope, state.optimizer_state, weights)
    model = eqx.apply_updates(state.model, updates)
    average = _blend(state.average, model, schedule.average, state.step)
    return TrainState(model, average, optimizer_state, state.step + 1), value


_compiled_step = eqx.filter_jit(_step)


def _blend(old: Any, new: Any, decay: float, step: Array) -> Any:
    """Moving average, whose memory grows with the first steps."""
    keep = jnp.minimum(decay, (1.0 + step) / (10.0 + step))

    def mix(a: Any, b: Any) -> Any:
        return keep * a + (1 - keep) * b if eqx.is_inexact_array(b) else b

    return jax.tree.map(mix, old, new)
