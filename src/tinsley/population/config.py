"""How to fit a population: configurations by name."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from tinsley.density.train import OneCycle
from tinsley.population.characteristic import CharacteristicDistance
from tinsley.population.density import FLOW, MIXTURE, POPSED
from tinsley.population.distance import AbstractDistance, Energy, Sinkhorn, SlicedWasserstein
from tinsley.population.objective import Annealing

_POPSED_BLUR = (
    (0.0, 0.3), (60 / 800, 0.25), (120 / 800, 0.2), (180 / 800, 0.15), (240 / 800, 0.1),
    (300 / 800, 0.05), (360 / 800, 0.002),
)  # fmt: skip

DISTANCES: dict[str, AbstractDistance] = {
    "sliced": SlicedWasserstein(64),
    "sinkhorn": Sinkhorn(((0.0, 0.3), (0.1, 0.2), (0.2, 0.1))),
    "energy": Energy(),
    "characteristic": CharacteristicDistance(),
}


@dataclass(frozen=True)
class PopulationConfig:
    """A configuration.

    Attributes:
        density: As `tinsley.population.density.make_population` takes it.
        distance: Between synthetic and observed photometry.
        steps: Optimiser steps of a member.
        batch: Galaxies of either kind a step.
        rate: Peak learning rate.
        kl_weight: 1, or 0 for no reference population.
        colours: Compare one magnitude and colours, not magnitudes.
        annealing: What changes on the way.
        validations: In a whole training.
        patience: It stops when so many validations have brought nothing better.
    """

    density: dict[str, Any]
    distance: AbstractDistance
    steps: int
    batch: int
    rate: float
    kl_weight: float = 1.0
    colours: bool = True
    annealing: Annealing = Annealing()  # noqa: RUF009
    validations: int = 40
    patience: int = 12

    def schedule(self, rate: float) -> OneCycle:
        """The optimiser's schedule, with some peak rate."""
        return OneCycle(self.steps, rate)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for files."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return plain | {
            "distance": [type(self.distance).__name__, vars(self.distance)],
            "annealing": vars(self.annealing),
        }


TINSLEY = PopulationConfig(FLOW, DISTANCES["sliced"], steps=2000, batch=2048, rate=3e-3)
"""The default."""

POPSED_CONFIG = PopulationConfig(
    POPSED,
    Sinkhorn(_POPSED_BLUR),
    steps=800,
    batch=10_000,
    rate=3e-4,
    kl_weight=0.0,
    colours=False,
    annealing=Annealing(heat=0.0),
    patience=40,
)
"""PopSED's (Li et al. 2023, section 2.5): its flow, blur, noise and rates, and no reference
population. Its batches of 10,000 want a GPU."""

CONFIGS = {
    "tinsley": TINSLEY,
    "popsed": POPSED_CONFIG,
    "mixture": dataclasses.replace(TINSLEY, density=MIXTURE, rate=1e-2),
}
"""What `--config` can be; "mixture" is the baseline."""


@dataclass(frozen=True)
class HierarchyConfig:
    """How to fit a population to posteriors.

    Attributes:
        common: What both roads have; its batch counts galaxies, and its distance only describes.
        draws: Kept of each galaxy.
        chosen: Of these, how many the slope is taken from, each step.
        own_draws: Draws of the population a step.
        held_out: Most galaxies that a validation looks at.
    """

    common: PopulationConfig = dataclasses.replace(TINSLEY, steps=1500, batch=64)  # noqa: RUF009
    draws: int = 256
    chosen: int = 4
    own_draws: int = 256
    held_out: int = 512

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for files."""
        own = ("draws", "chosen", "own_draws", "held_out")
        return self.common.to_dict() | {"hierarchy": {name: getattr(self, name) for name in own}}


HIERARCHY = HierarchyConfig()
"""The default of the second road."""
