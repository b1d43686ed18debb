"""Fit a population to a catalogue: an ensemble of members, each to be gone on with when killed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tinsley.density.train import (
    Loss,
    OneCycle,
    TrainState,
    start_training,
    train_block,
    train_together,
)
from tinsley.errors import InputError
from tinsley.io.checkpoints import TrainingFolder
from tinsley.io.populations import member_folder
from tinsley.io.results import make_folder
from tinsley.population.config import PopulationConfig
from tinsley.population.density import AbstractPopulation, make_population
from tinsley.population.fit import (
    Setup,
    draw_galaxies,
    draw_photometry,
    has_stopped,
    member_problem,
    unreached_share,
    validate,
)
from tinsley.population.objective import Problem, population_loss
from tinsley.sps.derived import DerivedTables

RESTARTS = 2
"""A member that diverges begins anew at `SLOWER` times the rate, so many times at most."""
SLOWER = 0.3
_NEIGHBOURS = 20_000
_LOOKS = 4
"""Samples of a population that are held against the galaxies held out, for less noise."""


@dataclass(frozen=True)
class EnsembleSettings:
    """What an ensemble is, beside what its members have in common.

    Attributes:
        members: Number of populations.
        draws: Galaxies to draw, from all members together.
        seed: Seed of the run.
        together: Members to train at once, as one vectorised computation: on an accelerator.
    """

    members: int = 10
    draws: int = 100_000
    seed: int = 0
    together: int = 1


def at_once(members: int) -> int:
    """How many members to train at once: one on a CPU, whose cores one keeps busy; else all."""
    return 1 if jax.default_backend() == "cpu" else members


@dataclass(frozen=True)
class Road:
    """What one way from data to a population differs in from another.

    Attributes:
        member: From a key, what a member's loss is given, and the problem of its photometry, with
            its own reference: what it is described and drawn by.
        loss: Of a population, what `member` gave, and a key.
        judge: From a population, both of what `member` gave, and a key: `validation_loss`, by which
            it is chosen, with `distance` and `kl` as in `Parts`, and whatever else.
    """

    member: Callable[[jax.Array], tuple[Any, Problem]]
    loss: Loss
    judge: Callable[[AbstractPopulation, Any, Problem, jax.Array], dict[str, float]]


def photometry_road(setup: Setup) -> Road:
    """The first road: synthetic against observed photometry."""

    def member(key: jax.Array) -> tuple[Problem, Problem]:
        problem = member_problem(setup.problem, key=key)
        whole = problem.distance.bound(problem.observed)
        return dataclasses.replace(problem, distance=whole), problem

    against = setup.problem.distance.bound(setup.held_out)

    def judge(
        population: AbstractPopulation, _: Problem, problem: Problem, key: jax.Array
    ) -> dict[str, float]:
        parts = validate(population, problem, setup.held_out, key)[1]
        problem = dataclasses.replace(problem, distance=against)
        looks = [
            validate(population, problem, setup.held_out, one)[0]
            for one in jax.random.split(key, _LOOKS)
        ]
        return {
            "validation_loss": float(sum(looks)) / _LOOKS,
            "distance": float(parts.distance),
            "kl": float(parts.kl),
        }

    return Road(member, population_loss, judge)


@dataclass(frozen=True)
class Member:
    """One population of the ensemble, trained.

    Attributes:
        number: Which, from 0.
        population: The density.
        problem: Of its photometry, with its own reference, and bootstrap if it was fitted to that.
        history: Its validations.
        rate: Peak learning rate.
        restarts: How often it had to begin anew.
    """

    number: int
    population: AbstractPopulation
    problem: Problem
    history: list[dict[str, float]]
    rate: float
    restarts: int

    @property
    def best(self) -> dict[str, float]:
        """The validation that decided."""
        return min(self.history, key=lambda entry: entry["validation_loss"])


def fit_ensemble(
    setup: Setup,
    config: PopulationConfig,
    settings: EnsembleSettings,
    out: Path,
    about: dict[str, Any],
    on_steps: Callable[[int, int, float], None] = lambda member, step, loss: None,
    road: Road | None = None,
) -> list[Member]:
    """Train every member; those that diverge even at the lowest rate are left out.

    Args:
        setup: What they have in common.
        config: How to fit.
        settings: How many.
        out: Folder; `out/members/` holds a folder of checkpoints each.
        about: What must be the same for a member to be gone on with, plain values.
        on_steps: Called with member, steps done and loss after each validation.
        road: How; the first road, from photometry, if not given.

    Raises:
        InputError: The folder holds members of other settings; no member converged.
    """
    run_key, road = jax.random.key(settings.seed), road or photometry_road(setup)
    make_folder(out / "members")

    def begin(number: int, restarts: int) -> _Training:
        rate = config.rate * SLOWER**restarts
        folder = TrainingFolder(
            member_folder(out, number, restarts), about | {"member": number, "rate": rate}
        )
        return _Training(road, config, folder, (number, rate, restarts), run_key)

    members: list[Member] = []
    for first in range(0, settings.members, settings.together):
        last = min(first + settings.together, settings.members)
        begun = [begin(number, 0) for number in range(first, last)]
        _train(begun, on_steps)
        for restarts in range(1, RESTARTS + 1):
            for i in (i for i, one in enumerate(begun) if one.diverged):
                begun[i] = begin(begun[i].number, restarts)
                _train(begun[i : i + 1], on_steps)
        members += [one.member() for one in begun if not one.diverged]
    if not members:
        raise InputError(
            "no member of the ensemble converged; look for impossible fluxes in the catalogue, or "
            "choose another --config."
        )
    return members


class _Training:
    """One member on its way, from its last checkpoint."""

    def __init__(
        self,
        road: Road,
        config: PopulationConfig,
        folder: TrainingFolder,
        who: tuple[int, float, int],
        run_key: jax.Array,
    ) -> None:
        self.number, self.rate, self.restarts = who
        self.road, self.config, self.folder = road, config, folder
        keys = jax.random.split(jax.random.fold_in(run_key, self.number), 4)
        self.key_steps, self.key_judge = keys[2], keys[3]
        self.fitted_to, self.problem = road.member(keys[0])
        self.schedule: OneCycle = config.schedule(self.rate)
        first = make_population(config.density, self.problem.space.n_dim, key=keys[1])
        self.state, self.history = folder.resume(start_training(first, self.schedule))
        self.diverged = False

    @property
    def step(self) -> int:
        """Optimiser steps done."""
        return int(self.state.step)

    @property
    def is_over(self) -> bool:
        """True where nothing is left to do."""
        losses = [entry["validation_loss"] for entry in self.history]
        over = self.step >= self.config.steps or has_stopped(losses, self.config.patience)
        return self.diverged or over

    def after(self, state: TrainState, losses: jax.Array) -> None:
        """Judge and save what a block of steps has made, unless it diverged."""
        judged = self.road.judge(state.average, self.fitted_to, self.problem, self.key_judge)
        self.diverged = not (np.isfinite(losses).all() and np.isfinite(judged["validation_loss"]))
        if self.diverged:
            return
        self.state = state
        self.history.append({"step": self.step, "train_loss": float(jnp.mean(losses))} | judged)
        self.folder.save(state, self.history)

    def member(self) -> Member:
        """The population at its best validation."""
        best = self.folder.best(self.state.average)
        return Member(self.number, best, self.problem, self.history, self.rate, self.restarts)


def _train(begun: list[_Training], on_steps: Callable[[int, int, float], None]) -> None:
    """Train members to their ends, those that have come as far as each other at once."""
    while going := [one for one in begun if not one.is_over]:
        done = min(one.step for one in going)
        alike = [one for one in going if one.step == done]
        for one, (state, losses) in zip(alike, _advanced(alike), strict=True):
            one.after(state, losses)
            if not one.diverged:
                on_steps(one.number, one.step, one.history[-1]["validation_loss"])


def _advanced(alike: list[_Training]) -> list[tuple[TrainState, jax.Array]]:
    """Where a block of steps takes each of some members that have come as far as each other."""
    first = alike[0]
    block = max(1, first.config.steps // first.config.validations)
    fixed = first.road.loss, first.schedule, min(block, first.config.steps - first.step)
    if len(alike) == 1:
        return [train_block((first.fitted_to, *fixed), first.state, first.key_steps)]
    data, states = [one.fitted_to for one in alike], [one.state for one in alike]
    return train_together((data, *fixed), states, [one.key_steps for one in alike])


def draw_ensemble(
    members: list[Member], tables: DerivedTables, settings: EnsembleSettings
) -> dict[str, np.ndarray]:
    """Galaxies of the ensemble, the same number of each member.

    Returns:
        Every parameter and derived property, `redshift`, `member`, and `selected_weight`, whose
        mean is 1: with it the population as observed, without it selection undone.
    """
    parts = []
    for place, member in enumerate(members):
        share = len(range(place, settings.draws, len(members)))
        key = jax.random.fold_in(jax.random.key(settings.seed + 1), member.number)
        draws = draw_galaxies(member.population, member.problem, tables, share, key)
        columns = {name: np.asarray(value, np.float32) for name, value in draws.items()}
        parts.append(columns | {"member": np.full(share, member.number, np.int32)})
    names = ["member", "selected_weight", "redshift"]
    names += [name for name in parts[0] if name not in names]
    return {name: np.concatenate([part[name] for part in parts]) for name in names}


def _distance_from(member: Member, seen: jax.Array, key: jax.Array) -> float:
    return float(validate(member.population, member.problem, seen, key)[1].distance)


def describe_ensemble(
    members: list[Member], setup: Setup, settings: EnsembleSettings
) -> dict[str, Any]:
    """How each member ended, for the manifest.

    `photometry_ratio` is the distance of a member's synthetic photometry from held-out galaxies
    over that between two samples of the catalogue as large: about 1 where the data are explained.
    `catalog_ratio` is the same with up to 8,192 galaxies, those held out and others: of a catalogue
    of 10,000 it sees misfits that a tenth of the galaxies are too few for.
    """
    problem, held_out = setup.problem, setup.held_out
    n_train, n_out = problem.observed.shape[0], held_out.shape[0]
    noise = float(problem.temperature) * problem.distance.sharpness
    key = jax.random.key(settings.seed)
    seen = jnp.concatenate([held_out, problem.observed])[: problem.distance.most_points]

    def ratio(distance: float, size: int) -> float:
        return distance / (noise * n_train * 2 / size)

    made = draw_photometry(members[0].population, members[0].problem, _NEIGHBOURS, key)
    return {
        "galaxies": {"trained_on": n_train, "held_out": n_out},
        "temperature": float(setup.problem.temperature),
        "unreached_share": unreached_share(np.asarray(setup.held_out), np.asarray(made)),
        "members": [
            {
                "member": m.number,
                "rate": m.rate,
                "restarts": m.restarts,
                "steps": int(m.history[-1]["step"]),
                "best": m.best,
                "photometry_ratio": ratio(m.best["distance"], n_out),
                "catalog_ratio": ratio(_distance_from(m, seen, key), len(seen)),
                "reference": m.problem.reference.to_dict(),
            }
            for m in members
        ],
        "members_left_out": settings.members - len(members),
    }
