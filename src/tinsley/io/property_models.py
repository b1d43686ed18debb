"""Trained posteriors of properties on disk: start at `load_properties`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import jax

from tinsley.cosmology import make_cosmology
from tinsley.errors import InputError
from tinsley.infer.features import n_features, n_features_without_redshift
from tinsley.infer.properties import (
    PropertyNetwork,
    PropertyPosterior,
    make_property_network,
    scale_from_dict,
)
from tinsley.infer.property_spec import PropertySpec, property_spec_from_dict
from tinsley.infer.property_targets import standard_from_dict, target_from_dict
from tinsley.io.images import ImageForm
from tinsley.io.model_files import PROPERTIES, read_model_file, refuse_kind, write_model_file


@dataclass(frozen=True)
class LoadedProperties:
    """A posterior of properties ready for use, with what its file says of it.

    Attributes:
        posterior: The posterior.
        spec: The header.
        sha256: Checksum of the file.
    """

    posterior: PropertyPosterior
    spec: PropertySpec
    sha256: str

    @property
    def form(self) -> ImageForm | None:
        """What an image must be like; None where it takes none."""
        return ImageForm(**self.spec.image) if self.spec.image else None


def load_properties(path: str | Path) -> LoadedProperties:
    """A posterior of properties from a file of `tinsley train properties`.

    Raises:
        InputError: No such file; not a model of properties; damaged or tampered with.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no model {str(path)!r}; expected a file.")
    file = read_model_file(path)
    refuse_kind(file, PROPERTIES)
    try:
        spec = property_spec_from_dict(file.spec)
    except TypeError as problem:
        raise InputError(f"model {path}: {problem}") from problem
    network = file.fill(empty_network(spec))
    return LoadedProperties(property_posterior(spec, network), spec, file.sha256)


def save_properties(path: Path, spec: PropertySpec, network: PropertyNetwork) -> None:
    """Write a model file; it appears whole or not at all."""
    write_model_file(path, PROPERTIES, spec.to_dict(), network)


def empty_network(spec: PropertySpec) -> PropertyNetwork:
    """A network of the shape that the header describes, with weights yet to be filled in."""
    channels = spec.image["channels"] if spec.image else 0
    n_dim = target_from_dict(spec.target).n_dim
    sizes = (n_told(len(spec.bands), redshift=spec.redshift), channels, n_dim)
    return make_property_network(spec.matching, spec.encoder, sizes, key=jax.random.key(0))


def n_told(n_bands: int, *, redshift: bool) -> int:
    """Number of features of the photometry."""
    if n_bands == 0:
        return 0
    return n_features(n_bands) if redshift else n_features_without_redshift(n_bands)


def property_posterior(spec: PropertySpec, network: PropertyNetwork) -> PropertyPosterior:
    """A trained network with what it needs to be used."""
    return PropertyPosterior(
        network=network,
        target=target_from_dict(spec.target),
        feature=standard_from_dict(spec.feature),
        scale=scale_from_dict(spec.image_scale),
        cosmology=make_cosmology() if spec.redshift else None,
    )
