"""What a trained posterior is, less its weights: all that must match when it is used again."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from tinsley.infer.config import Mass


@dataclass(frozen=True)
class PosteriorSpec:
    """Plain description of an amortised posterior; the header of its file.

    Attributes:
        name: e.g. "sdss-v1".
        survey: Survey that it was trained for.
        bands: Short names, in order.
        filters: Filter names, in order.
        space: The prior, `ParamSpace.to_dict`.
        redshift_range: Redshifts of the training galaxies.
        snr_range: Range of the log-uniform S/N of the training galaxies; empty where they have
            `noise` instead.
        flow: Shape of the network, as `tinsley.density.flows.make_flow` takes it.
        ssp_sha256, bases_sha256: Checksums of the physics it was trained on.
        colour_limits: `ColourLimits.to_dict`.
        training: Steps, batch, minutes, validation loss: how it came to be.
        redshift_density: Shape of the network that gives redshifts, as
            `tinsley.density.histogram.make_histogram` takes it; empty if there is none.
        redshift_training: How that one came to be.
        noise: p(sigma | flux) of the training galaxies, `AbstractNoise.to_dict`; empty where
            `snr_range` says it.
        flux_range: (low, high) of each band that they were kept to, nanomaggies; empty for all.
        complete: Share of them with every band.
        mass: Whether the flow leaves the mass to an exact integral, "integrated", or draws it.
        bases: NMF bases of a user's own, `tinsley.io.models.bases_to_dict`; empty for the embedded.
        nebular: Ionisation parameter, log10 U, of the gas around young stars; None without gas.
        nebular_sha256: Checksum of the gas that it was trained on.
        photometry_density: Shape of the network that judges photometry, as
            `tinsley.density.mixture.make_mixture` takes it, and its `false_alarms` and `limits`;
            empty if there is none.
        photometry_training: How that one came to be.
    """

    name: str
    survey: str
    bands: tuple[str, ...]
    filters: tuple[str, ...]
    space: list[dict[str, Any]]
    redshift_range: tuple[float, float]
    snr_range: tuple[float, float] | tuple[()]
    flow: dict[str, Any]
    ssp_sha256: str
    bases_sha256: str
    colour_limits: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    redshift_density: dict[str, Any] = field(default_factory=dict)
    redshift_training: dict[str, Any] = field(default_factory=dict)
    noise: dict[str, Any] = field(default_factory=dict)
    flux_range: tuple[tuple[float, float], ...] = ()
    complete: float = 0.5
    mass: Mass = "integrated"
    bases: dict[str, Any] = field(default_factory=dict)
    nebular: float | None = None
    nebular_sha256: str = ""
    photometry_density: dict[str, Any] = field(default_factory=dict)
    photometry_training: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)


def spec_from_dict(plain: dict[str, Any]) -> PosteriorSpec:
    """The inverse of `PosteriorSpec.to_dict`; ValueError where entries are missing or unknown."""
    fields = dataclasses.fields(PosteriorSpec)
    needed = {f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING}
    wrong = sorted((set(plain) - {f.name for f in fields}) | (needed - set(plain)))
    if wrong:
        raise ValueError(f"a model's description has missing or unknown entries: {wrong}.")
    tuples = ("bands", "filters", "redshift_range", "snr_range")
    entries: dict[str, Any] = {k: tuple(v) if k in tuples else v for k, v in plain.items()}
    entries["flux_range"] = tuple((low, high) for low, high in entries.get("flux_range", ()))
    return PosteriorSpec(**entries)
