"""What a trained posterior of properties is, less its weights."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tinsley.density.encoders import ENCODERS
from tinsley.density.flow_matching import MATCHINGS, SCHEDULES
from tinsley.density.properties import SPLINE
from tinsley.density.train import Schedule, UntilNoGainAdamW


class PropertyConfig(NamedTuple):
    """A way to train: the density, the encoder of images, and the schedule."""

    matching: dict[str, Any]
    encoder: dict[str, Any]
    schedule: Schedule | UntilNoGainAdamW


_DENSITY_OF = {"tinsley": "tinsley", "convolutions": "tinsley", "yunus2025": "yunus2025"}

PROPERTY_CONFIGS = {
    name: PropertyConfig(MATCHINGS[density], ENCODERS[name], SCHEDULES[density])
    for name, density in _DENSITY_OF.items()
}
"""Tinsley's default; the same with an encoder that is learnt; that of Yunus, Wu & Holwerda
(2025)."""

POSTERIOR_CONFIGS = {
    name: PropertyConfig(
        SPLINE, ENCODERS[name], Schedule(steps=3000, batch=128, rate=3e-3, average=0.995)
    )
    for name in ("tinsley", "convolutions")
}
"""Of posteriors of SPS parameters from a table of simulated galaxies: exact densities."""


@dataclass(frozen=True)
class PropertySpec:
    """Plain description of a posterior of properties; the header of its file.

    Attributes:
        name: The user's name for it.
        properties: Columns of the training table, in order.
        matching: Shape of the density, as `tinsley.density.properties.make_density` takes it.
        target: Where the density lives, `tinsley.infer.property_targets.target_from_dict`.
        survey: Whose photometry it takes; "" for none.
        bands: Short names, in order.
        filters: Filter names, in order.
        redshift: Whether it is told the redshift.
        redshift_range: Of the training galaxies; empty where it is not told.
        feature: Mean and standard deviation of the features.
        encoder: Shape of the encoder, as `make_encoder` takes it; empty without images.
        image: What an image must be like, `tinsley.io.images.ImageForm`; empty without images.
        image_scale: `scale_to_dict`.
        training: How it came to be.
        test: How right it is about the galaxies held out to the end, `judge_properties`.
    """

    name: str
    properties: tuple[str, ...]
    matching: dict[str, Any]
    target: dict[str, Any]
    survey: str = ""
    bands: tuple[str, ...] = ()
    filters: tuple[str, ...] = ()
    redshift: bool = False
    redshift_range: tuple[float, ...] = ()
    feature: dict[str, list[float]] = field(default_factory=lambda: {"mean": [], "std": []})
    encoder: dict[str, Any] = field(default_factory=dict)
    image: dict[str, Any] = field(default_factory=dict)
    image_scale: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    test: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)


def property_spec_from_dict(plain: dict[str, Any]) -> PropertySpec:
    """The inverse of `PropertySpec.to_dict`; TypeError where entries are missing or unknown."""
    tuples = ("properties", "bands", "filters", "redshift_range")
    entries: dict[str, Any] = {k: tuple(v) if k in tuples else v for k, v in plain.items()}
    return PropertySpec(**entries)
