"""What an amortised posterior is trained on, and how: Tinsley's own way and a paper's, by name."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from tinsley.density.flows import COUPLING, MAF
from tinsley.density.train import Schedule, UntilNoGain
from tinsley.parameters import ParamSpace, default_space, sedflow_space

Mass = Literal["integrated", "drawn"]
"""What a flow makes of the mass: leaves it to the exact integral, or draws it as all else."""


@dataclass(frozen=True)
class PosteriorConfig:
    """A way to train an amortised posterior.

    Attributes:
        space: The prior.
        redshift_range: Redshifts are uniform in it.
        noise: "broad": S/N log-uniform beyond the survey's; "survey": p(sigma | flux) as in the
            survey's catalogue, and galaxies outside that catalogue's range of flux left out.
        complete: Share of galaxies with every band.
        flow: Shape of the network, as `tinsley.density.flows.make_flow` takes it.
        mass: Integrated out, or one of the flow's dimensions.
        schedule: How long and how fast to train; whether on fresh galaxies or on a fixed set.
    """

    space: ParamSpace
    redshift_range: tuple[float, float]
    noise: Literal["broad", "survey"]
    complete: float
    flow: dict[str, Any]
    mass: Mass
    schedule: Schedule | UntilNoGain

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return plain | {
            "space": self.space.to_dict(),
            "schedule": dataclasses.asdict(self.schedule),
        }


TINSLEY = PosteriorConfig(
    space=default_space(),
    redshift_range=(0.01, 0.6),
    noise="broad",
    complete=0.5,
    flow=COUPLING,
    mass="integrated",
    schedule=Schedule(),
)
"""Every batch fresh, any subset of bands, any error."""

SEDFLOW = PosteriorConfig(
    space=sedflow_space(),
    redshift_range=(0.002, 0.2),
    noise="survey",
    complete=1.0,
    flow=MAF,
    mass="drawn",
    schedule=UntilNoGain(),
)
"""SEDflow (Hahn & Melchior 2022): its priors, two coefficients of the metallicity's history, z
below 0.2 (from 0.002, where the paper has 0), errors as in the survey, 1,131,561 galaxies of which
a tenth is kept back, its flow and its stopping rule. Unlike the paper's, the flow lives where the
prior is normal, so that no draw leaves it, and sees colours, log errors and luminosity, which hold
the same as magnitudes, their errors and redshift."""

CONFIGS = {"tinsley": TINSLEY, "sedflow": SEDFLOW}
