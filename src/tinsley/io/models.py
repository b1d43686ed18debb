"""Trained posteriors on disk; what their files are like is `tinsley.io.model_files`' matter."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax

from tinsley.density.flows import ConditionalFlow, make_flow
from tinsley.density.histogram import ConditionalHistogram, make_histogram
from tinsley.density.mixture import ConditionalMixture, make_mixture
from tinsley.errors import InputError
from tinsley.infer.amortized import AmortizedPosterior, flow_space
from tinsley.infer.features import (
    n_features,
    n_features_of_band,
    n_features_without_redshift,
)
from tinsley.infer.simulator import Simulator
from tinsley.infer.spec import PosteriorSpec, spec_from_dict
from tinsley.infer.support import PhotometryDensity
from tinsley.io.band_tables import load_band_tables
from tinsley.io.filters import load_filters
from tinsley.io.grids import load_nebular_grid, load_ssp_grid
from tinsley.io.histories import load_sfh_bases
from tinsley.io.model_files import POSTERIOR, read_model_file, refuse_kind, write_model_file
from tinsley.io.packaged import DATA, packaged_names
from tinsley.observe.filters import Filter, line_step
from tinsley.observe.noise import BroadNoise, SigmaGivenFlux, noise_from_dict
from tinsley.observe.photometry import BandTables
from tinsley.parameters import param_space_from_dict
from tinsley.sps.bases import SfhBases, sfh_bases_from_dict
from tinsley.sps.derived import DerivedTables, make_derived_tables
from tinsley.sps.galaxy import REDSHIFT_STEP, GalaxyModel, RedshiftGrid, redshift_grid
from tinsley.sps.metallicity import NmfMetallicity
from tinsley.sps.nebular import with_nebular

MODELS = DATA / "models"
ALIASES = {"sdss": "sdss-v1", "sdss-nebular": "sdss-nebular-v1"}
"""A survey's own name stands for its newest model; of stars alone, as the papers', or with gas."""

NmfBases = tuple[SfhBases, SfhBases]
"""Of star formation, and of metallicity."""


class Networks(NamedTuple):
    """What a model file holds the weights of.

    Attributes:
        flow: The posterior's density.
        redshift_density: Density of the redshift; None if the model needs it given.
        photometry_density: Density of one band's flux; None if the model can not judge photometry.
    """

    flow: ConditionalFlow
    redshift_density: ConditionalHistogram | None = None
    photometry_density: ConditionalMixture | None = None


@dataclass(frozen=True)
class LoadedPosterior:
    """A posterior ready for use, with what its file says of it.

    Attributes:
        posterior: Network and physics.
        spec: The header.
        sha256: Checksum of the file.
        prior: Plain description of the prior that was imposed on it; None for the trained one.
        support: Density of the photometry; None if the model was not taught one.
    """

    posterior: AmortizedPosterior
    spec: PosteriorSpec
    sha256: str
    prior: dict[str, Any] | None = None
    support: PhotometryDensity | None = None

    @property
    def networks(self) -> Networks:
        """All weights, as the file holds them."""
        mixture = None if self.support is None else self.support.mixture
        return Networks(self.posterior.flow, self.posterior.redshift_density, mixture)

    @property
    def model(self) -> GalaxyModel:
        """The physics that it was trained on, not tabulated."""
        return _model_of(self.spec)

    @property
    def snr_range(self) -> tuple[float, float] | None:
        """Range of the log-uniform S/N of the training galaxies; None where they had another."""
        return self.spec.snr_range or None

    def simulator(self, complete: float | None = None) -> Simulator:
        """The galaxies that it was trained on: its prior, redshifts and noise.

        Args:
            complete: Share with every band, in place of the training's; see `Simulator`.
        """
        posterior, spec = self.posterior, self.spec
        return Simulator(
            posterior.space,
            posterior.tables,
            posterior.noise or BroadNoise(*spec.snr_range),
            spec.redshift_range,
            spec.complete if complete is None else complete,
            flux_range=spec.flux_range,
        )


def model_names() -> list[str]:
    """Models that come with the package."""
    return packaged_names(MODELS, ".tinsley")


def model_path(name: str | Path) -> Path:
    """The file of a model: a name that ships ("sdss-v1", alias "sdss"), or a path.

    Raises:
        InputError: If there is none.
    """
    shipped = MODELS / f"{ALIASES.get(str(name), str(name))}.tinsley"
    path = shipped if shipped.exists() else Path(name)
    if not path.is_file():
        known = ", ".join([*model_names(), *ALIASES])
        raise InputError(f"no model {str(name)!r}: expected a file, or one of {known}.")
    return path


def load_posterior(name: str | Path) -> LoadedPosterior:
    """A trained posterior by name or from a file.

    Raises:
        InputError: No such model; not a model file; of another format; damaged or tampered with;
            or trained on other stellar populations than this package holds.
    """
    spec, networks, sha256 = read_model(model_path(name))
    _check_physics(spec)
    space = param_space_from_dict(spec.space)
    tables, derived_tables = build_tables(spec.filters, spec.redshift_range, _model_of(spec))
    posterior = AmortizedPosterior(
        flow=networks.flow,
        space=space,
        tables=tables,
        derived_tables=derived_tables,
        redshift_density=networks.redshift_density,
        noise=_noise_of(spec),
        mass=spec.mass,
    )
    if networks.photometry_density is None:
        return LoadedPosterior(posterior, spec, sha256)
    limits = tuple(spec.photometry_density["limits"])
    support = PhotometryDensity(networks.photometry_density, posterior.cosmology, limits)
    return LoadedPosterior(posterior, spec, sha256, support=support)


def read_model(path: Path) -> tuple[PosteriorSpec, Networks, str]:
    """Header, networks and checksum of a model file; see `load_posterior` for what it refuses."""
    file = read_model_file(path)
    refuse_kind(file, POSTERIOR)
    try:
        spec = spec_from_dict(file.spec)
    except (TypeError, ValueError) as problem:
        raise InputError(f"model {path}: {problem}") from problem
    return spec, file.fill(empty_networks(spec)), file.sha256


def save_model(path: Path, spec: PosteriorSpec, networks: Networks) -> None:
    """Write a model file; it appears whole or not at all."""
    write_model_file(path, POSTERIOR, spec.to_dict(), networks)


def empty_networks(spec: PosteriorSpec) -> Networks:
    """Networks of the shape that the header describes, with weights yet to be filled in."""
    space, n_bands = flow_space(param_space_from_dict(spec.space), spec.mass), len(spec.bands)
    flow = make_flow(spec.flow, n_features(n_bands), space.n_unit, key=jax.random.key(0))
    redshift = photometry = None
    if config := spec.redshift_density:
        number, ends = n_features_without_redshift(n_bands), spec.redshift_range
        redshift = make_histogram(config, number, ends, key=jax.random.key(0))
    if config := spec.photometry_density:
        photometry = make_mixture(config, n_features_of_band(n_bands), key=jax.random.key(0))
    return Networks(flow, redshift, photometry)


def build_model(bases: NmfBases | None = None, *, nebular: float | None = None) -> GalaxyModel:
    """The physics: the embedded grid, with the embedded bases and one metallicity for all stars.

    With bases of star formation and metallicity (`tinsley.io.histories.load_provabgs_bases`) in
    their place, the metallicity has a history, of gamma_1 and gamma_2.

    Args:
        bases: The papers'.
        nebular: Ionisation parameter, log10 U, of gas that shines around young stars
            (`tinsley.sps.nebular.with_nebular`); None for stars alone, as the papers have it.

    Raises:
        ValueError: The ionisation parameter is beyond the grid.
    """
    ssp = load_ssp_grid()
    if nebular is not None:
        ssp = with_nebular(ssp, load_nebular_grid(), nebular)
    if bases is None:
        return GalaxyModel(ssp, load_sfh_bases())
    return GalaxyModel(ssp, bases[0], NmfMetallicity(bases[1]))


def build_tables(
    filters: tuple[str, ...],
    redshift_range: tuple[float, float],
    model: GalaxyModel | None = None,
) -> tuple[BandTables, DerivedTables]:
    """Forward model of some physics (the embedded) in some bands, over a range of redshifts."""
    model, bands = model or build_model(), load_filters(filters)
    grid = model_grid(model, bands, redshift_range)
    return load_band_tables(model, bands, grid), make_derived_tables(model, grid)


def model_grid(
    model: GalaxyModel, bands: tuple[Filter, ...], redshift_range: tuple[float, float]
) -> RedshiftGrid:
    """Redshifts at which band tables are made: closer where lines go through sharp filters."""
    step = line_step(bands, REDSHIFT_STEP) if model.ssp.has_lines else REDSHIFT_STEP
    return redshift_grid(*redshift_range, step)


def bases_to_dict(bases: NmfBases | None) -> dict[str, Any]:
    """Plain lists, for a model's description; empty for the embedded bases."""
    if bases is None:
        return {}
    return {"sfh": bases[0].to_dict(), "metallicity": bases[1].to_dict()}


def _model_of(spec: PosteriorSpec) -> GalaxyModel:
    """The physics that a posterior was trained on."""
    if not spec.bases:
        return build_model(nebular=spec.nebular)
    sfh, metallicity = (sfh_bases_from_dict(spec.bases[name]) for name in ("sfh", "metallicity"))
    return build_model((sfh, metallicity), nebular=spec.nebular)


def _noise_of(spec: PosteriorSpec) -> SigmaGivenFlux | None:
    """p(sigma | flux) of the training galaxies, if they had one."""
    if not spec.noise:
        return None
    noise = noise_from_dict(spec.noise)
    if not isinstance(noise, SigmaGivenFlux):
        raise InputError(f"model {spec.name} has a noise without a density: {spec.noise['kind']}.")
    return noise


def physics_checksums(nebular: float | None = None) -> dict[str, str]:
    """SHA-256 of the embedded stellar populations and bases, and of the gas where there is any."""
    data = MODELS.parent
    files = {"ssp_sha256": "ssp_bc03_miles.h5", "bases_sha256": "sfh_nmf.csv"}
    files |= {} if nebular is None else {"nebular_sha256": "nebular_bc03_miles.h5"}
    return {
        key: hashlib.sha256((data / name).read_bytes()).hexdigest() for key, name in files.items()
    }


def _check_physics(spec: PosteriorSpec) -> None:
    here = physics_checksums(spec.nebular)
    if any(getattr(spec, name) != checksum for name, checksum in here.items()):
        raise InputError(
            f"model {spec.name} was trained on other stellar populations, gas or bases than this "
            "version of tinsley holds; train it anew or install the version that made it."
        )
