"""Fit a population to a catalogue: an ensemble of members, each to be gone on with when killed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tinsley.density.train import Loss, start_training, train_block
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


@dataclass(frozen=True)
class EnsembleSettings:
    """What an ensemble is, beside what its members have in common.

    Attributes:
        members: Number of populations.
        draws: Galaxies to draw, from all members together.
        seed: Seed of the run.
    """

    members: int = 10
    draws: int = 100_000
    seed: int = 0


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
        return problem, problem

    def judge(
        population: AbstractPopulation, _: Problem, problem: Problem, key: jax.Array
    ) -> dict[str, float]:
        value, parts = validate(population, problem, setup.held_out, key)
        return {
            "validation_loss": float(value),
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
    members = []
    for number in range(settings.members):
        for restarts in range(RESTARTS + 1):
            rate = config.rate * SLOWER**restarts
            make_folder(out / "members")
            folder = TrainingFolder(
                member_folder(out, number, restarts), about | {"member": number, "rate": rate}
            )
            member = _train(road, config, folder, (number, rate, restarts), run_key, on_steps)
            if member is not None:
                members.append(member)
                break
    if not members:
        raise InputError(
            "no member of the ensemble converged; look for impossible fluxes in the catalogue, or "
            "choose another --config."
        )
    return members


def _train(
    road: Road,
    config: PopulationConfig,
    folder: TrainingFolder,
    who: tuple[int, float, int],
    run_key: jax.Array,
    on_steps: Callable[[int, int, float], None],
) -> Member | None:
    """Train one member to its end, from its last checkpoint; None if it diverges."""
    number, rate, restarts = who
    keys = jax.random.split(jax.random.fold_in(run_key, number), 4)
    fitted_to, problem = road.member(keys[0])
    schedule = config.schedule(rate)
    first = make_population(config.density, problem.space.n_dim, key=keys[1])
    state, history = folder.resume(start_training(first, schedule))
    block = max(1, config.steps // config.validations)
    while (done := int(state.step)) < config.steps:
        if has_stopped([entry["validation_loss"] for entry in history], config.patience):
            break
        steps = min(block, config.steps - done)
        state, losses = train_block((fitted_to, road.loss, schedule, steps), state, keys[2])
        judged = road.judge(state.average, fitted_to, problem, keys[3])
        if not (np.isfinite(losses).all() and np.isfinite(judged["validation_loss"])):
            return None
        history.append({"step": done + steps, "train_loss": float(jnp.mean(losses))} | judged)
        folder.save(state, history)
        on_steps(number, done + steps, judged["validation_loss"])
    return Member(number, folder.best(state.average), problem, history, rate, restarts)


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


def describe_ensemble(
    members: list[Member], setup: Setup, settings: EnsembleSettings
) -> dict[str, Any]:
    """How each member ended, for the manifest.

    `photometry_ratio` is the distance of a member's synthetic photometry from held-out galaxies
    over that between two samples of the catalogue as large: about 1 where the data are explained.
    """
    n_train, n_out = setup.problem.observed.shape[0], setup.held_out.shape[0]
    between_samples = float(setup.problem.temperature) * n_train * 2 / n_out
    key = jax.random.key(settings.seed)
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
                "photometry_ratio": m.best["distance"] / between_samples,
                "reference": m.problem.reference.to_dict(),
            }
            for m in members
        ],
        "members_left_out": settings.members - len(members),
    }
