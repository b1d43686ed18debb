"""Posteriors from Python: arrays or a table in, summaries, draws and figures out.

    posterior = load_posterior("sdss")
    result = posterior.infer(flux, flux_err, redshift=redshift)
    result.summary()["log10_mstar_surviving_msun_q50"]

What `tinsley infer` does to a file, with the same numbers for the same ids and seed.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from astropy import units
from astropy.table import Table
from matplotlib.figure import Figure

from tinsley.catalog.closeup import close_up, resample
from tinsley.catalog.run import (
    RunSettings,
    infer_rows,
    refuse_free_redshifts,
    refuse_other_bands,
    with_likelihood,
)
from tinsley.errors import InputError
from tinsley.infer.importance import STATISTICS
from tinsley.infer.likelihood import AbstractLikelihood, StudentT
from tinsley.io import models
from tinsley.io.catalogs import load_usual_error, memory_catalog
from tinsley.io.filters import load_filters
from tinsley.io.priors import impose, load_prior
from tinsley.io.surveys import load_survey
from tinsley.observe.noise import SigmaGivenFlux
from tinsley.observe.survey import Photometry, Survey
from tinsley.plot.galaxy import CORNER, corner_plot, sed
from tinsley.status import HAS_POSTERIOR, Likelihood, Redshift, Refine

if TYPE_CHECKING:
    from xarray import DataTree

JY_PER_NMGY = 3.631e-6
_ALONE = "expected redshift_err beside numbers for redshift only."
_HEAD = (
    "object_id",
    "redshift",
    "status",
    "method",
    "n_draws",
    "ess",
    "ess_trained_prior",
    "khat",
    "rhat",
    "log_evidence",
    "best_chi2",
)


def load_posterior(name: str | Path = "sdss", survey: str | Path | None = None) -> Posterior:
    """A trained posterior, ready to infer.

    Args:
        name: A model that ships ("sdss") or a model file.
        survey: The survey that the photometry is of, name or TOML file; the model's own if None.

    Raises:
        InputError: No such model or survey, or the model is of other bands than the survey.
    """
    loaded = models.load_posterior(name)
    survey_ = load_survey(survey or loaded.spec.survey)
    refuse_other_bands(loaded.spec, survey_)
    return Posterior(loaded, survey_)


@dataclass(frozen=True, eq=False)
class Posterior:
    """A trained model and the survey that it is used on.

    Attributes:
        loaded: Network, physics and the header of the model file (`loaded.spec`).
        survey: Bands, error floors and layouts.
    """

    loaded: models.LoadedPosterior
    survey: Survey

    @property
    def bands(self) -> tuple[str, ...]:
        """The order of the bands in `infer`'s arrays."""
        return self.survey.bands

    def infer(
        self,
        flux: Any,
        flux_err: Any = None,
        *,
        redshift: Any = None,
        redshift_err: Any = None,
        object_id: Any = None,
        draws: int = 1000,
        seed: int = 0,
        refine: str = "auto",
        likelihood: str | AbstractLikelihood = "gaussian",
        prior: str | Path | Mapping[str, Any] | None = None,
    ) -> Result:
        """Weighted draws of the posterior of every galaxy.

        Args:
            flux: Either AB fluxes corrected for Galactic extinction, [galaxy, band] or [band], NaN
                where not measured: nanomaggies, or an astropy Quantity of flux density. Or a whole
                table (astropy Table, data frame, dictionary of columns) in one of the survey's
                layouts; then without `flux_err`. Upper limits need a table.
            flux_err: Standard deviations, as `flux`, without the survey's error floor (added here).
            redshift: [galaxy] or one number for all; or "free", with arrays or a table, where it is
                not known; or a tuple: redshifts [z], and p(z) there, [galaxy, z] or [z] for all, of
                any scale, taken as linear in between. p(z) must not stem from these fluxes, which
                would count twice. An uncertain redshift is inferred with all else and is among the
                draws.
            redshift_err: Standard deviations of `redshift`, [galaxy] or one number for all; 0 or
                NaN where it is exact.
            object_id: Names, integers or strings; 0, 1, ... if None. A galaxy's random numbers
                follow from its name and the seed alone.
            draws: Draws a galaxy.
            seed: Seed.
            refine: Which galaxies get more draws, or a sampler: "never", "auto" (those that need
                it), "chains" (as auto, and long chains, minutes of a core each, where that fails)
                or "all".
            likelihood: How errors are distributed: "gaussian", "student-t" (4 degrees of freedom)
                or an object of `tinsley.infer.likelihood`, as `StudentT(2.5)`.
            prior: Another prior than the trained one, which costs effective draws
                (`ess_trained_prior` is what there were without it): a name, a TOML file, or a
                dictionary of the same content; see docs/priors.md.

        Returns:
            One row per galaxy in the order given; those that can not be inferred have a status.

        Raises:
            InputError: Shapes or columns do not fit, ids occur twice, magnitudes for fluxes; there
                is no such likelihood; a prior that can not be; a model that was not taught
                redshifts gets none that are exact.
        """
        if draws < 100 or not 0 <= seed < 2**32:
            raise InputError(
                f"expected draws >= 100 and seed from 0 to 2**32 - 1; got {draws} and {seed}."
            )
        if refine not in set(Refine):
            raise InputError(f"expected refine to be {', '.join(Refine)}; got {refine!r}.")
        free = isinstance(redshift, str) and redshift == Redshift.FREE
        known = Redshift.FREE if free else Redshift.GIVEN
        if redshift_err is not None and (free or redshift is None):
            raise InputError(_ALONE)
        if flux_err is None and (redshift is None or free):
            catalog = memory_catalog(flux, self.survey, needs_redshift=not free)
        else:
            columns = _columns(self.bands, flux, flux_err, object_id)
            if not free:
                columns |= _redshift_columns(redshift, redshift_err, len(columns["object_id"]))
            catalog = memory_catalog(columns, self.survey, "native", needs_redshift=not free)
        refuse_free_redshifts(self.loaded, known, catalog.redshift_known_by)
        photometry = next(catalog.chunks(catalog.n_rows))
        settings = RunSettings(draws=draws, seed=seed, refine=Refine(refine), redshift=known)
        key = jax.random.key(seed)
        loaded = with_likelihood(self._under(prior), self.survey, _likelihood(likelihood))
        rows, drawn = infer_rows(loaded, photometry, self._usual_error, settings, key)
        return _result(self, photometry, rows, drawn, draws)

    def _under(self, prior: str | Path | Mapping[str, Any] | None) -> models.LoadedPosterior:
        """The model under a prior; a prior that was used before is not prepared again."""
        if prior is None:
            return self.loaded
        asked = load_prior(prior)
        name = asked.to_dict()["sha256"]
        if name not in self._imposed:
            self._imposed[name] = impose(self.loaded, asked)
        return self._imposed[name]

    @functools.cached_property
    def _imposed(self) -> dict[str, models.LoadedPosterior]:
        return {}

    @functools.cached_property
    def _usual_error(self) -> SigmaGivenFlux | None:
        return load_usual_error(self.survey)


@dataclass(frozen=True, eq=False)
class Result:
    """Posteriors of some galaxies, in the order in which they were given.

    Attributes:
        posterior: The model that made them.
        photometry: The data, calibrated, with error floors.
        table: Every column of `galaxies.parquet`, each [galaxy].
        draws: Parameters and derived properties, each [galaxy, draw]; NaN without a posterior.
            To be used with `weight`.
        weight: Importance weights, smoothed; each row sums to 1, [galaxy, draw].
    """

    posterior: Posterior
    photometry: Photometry
    table: Mapping[str, np.ndarray]
    draws: Mapping[str, np.ndarray]
    weight: np.ndarray

    def __len__(self) -> int:
        return len(self.photometry)

    @property
    def status(self) -> np.ndarray:
        """One word a galaxy: "ok" is to be trusted, [galaxy]."""
        return self.table["status"]

    @property
    def ess(self) -> np.ndarray:
        """Effective sample size, [galaxy]."""
        return self.table["ess"]

    def summary(self, *names: str) -> Table:
        """Mean, std and quantiles of every property, or of some: an astropy table.

        Raises:
            InputError: No such property.
        """
        unknown = [name for name in names if name not in self.draws]
        if unknown:
            known = ", ".join(self.draws)
            raise InputError(f"no property {unknown[0]!r}; expected some of {known}.")
        wanted = {f"{name}_{end}" for name in names or self.draws for end in STATISTICS}
        kept = [name for name in self.table if name in _HEAD or name in wanted]
        return Table({name: self.table[name] for name in kept})

    def equal_weight_draws(self, number: int = 1000) -> dict[str, np.ndarray]:
        """Draws that need no weights, by systematic resampling; each [galaxy, number]."""
        index = np.stack([resample(row, number) for row in self.weight])
        return {name: np.take_along_axis(v, index, axis=1) for name, v in self.draws.items()}

    def plot_corner(self, galaxy: int, names: tuple[str, ...] = CORNER) -> Figure:
        """Corner plot of one galaxy, by its place."""
        self._refuse_empty(galaxy)
        theta = {name: values[galaxy] for name, values in self.draws.items()}
        return corner_plot(theta, self.weight[galaxy], names, self._title(galaxy))

    def plot_sed(self, galaxy: int) -> Figure:
        """One galaxy's photometry over the spectra that its posterior allows."""
        self._refuse_empty(galaxy)
        loaded, rows = self.posterior.loaded, self.photometry
        theta = {name: np.asarray(v[galaxy], float) for name, v in self.draws.items()}
        theta.setdefault("redshift", np.full(self.weight.shape[1], rows.redshift[galaxy]))
        close = close_up(loaded, loaded.model, theta, self.weight[galaxy])
        there = rows.mask[galaxy]
        flux, sigma = (np.where(there, x[galaxy], np.nan) for x in (rows.flux, rows.sigma))
        spectra, filters = (close.wave_aa, close.spectra_ujy), load_filters(loaded.spec.filters)
        return sed(spectra, (flux, sigma), close.flux_nmgy, filters, self._title(galaxy))

    def to_arviz(self, number: int = 1000) -> DataTree:
        """Equally weighted draws for ArviZ: dimensions chain (1), draw and galaxy.

        Galaxies without a posterior are left out; the coordinate `galaxy` holds the object ids.

        Raises:
            InputError: arviz-base is not installed.
        """
        try:
            from arviz_base import from_dict
        except ImportError as problem:
            raise InputError("to_arviz needs arviz-base: pip install arviz-base.") from problem
        there = np.isin(self.status, HAS_POSTERIOR)
        drawn = self.equal_weight_draws(number)
        values = {name: v[there].T[None] for name, v in drawn.items()}
        dims = {name: ["galaxy"] for name in values}
        coords = {"galaxy": self.photometry.object_id[there]}
        return from_dict({"posterior": values}, dims=dims, coords=coords)

    def _refuse_empty(self, galaxy: int) -> None:
        if not -len(self) <= galaxy < len(self):
            raise InputError(f"no galaxy {galaxy}; there are {len(self)}, counted from 0.")
        status = self.status[galaxy]
        if status not in HAS_POSTERIOR:
            raise InputError(f"galaxy {galaxy} has no posterior: its status is {status}.")

    def _title(self, galaxy: int) -> str:
        name = self.photometry.object_id[galaxy]
        redshift = self.table.get("redshift_q50", self.photometry.redshift)[galaxy]
        return f"galaxy {name}, z = {redshift:.3f}, {self.status[galaxy]}"


def _columns(
    bands: tuple[str, ...], flux: Any, flux_err: Any, object_id: Any
) -> dict[str, np.ndarray]:
    """Arrays as a table in the layout `native`, but for the redshift."""
    if flux_err is None:
        raise InputError("expected flux, flux_err and redshift, or one table in the place of all.")
    flux, error = (np.atleast_2d(_nanomaggies(value)) for value in (flux, flux_err))
    shape = (len(flux), len(bands))
    if flux.shape != shape or error.shape != shape or flux.ndim != 2:
        raise InputError(
            f"expected flux and flux_err of shape (galaxies, {len(bands)}), bands "
            f"{' '.join(bands)}; got {flux.shape} and {error.shape}."
        )
    names = np.arange(shape[0]) if object_id is None else np.atleast_1d(object_id)
    if names.shape != (shape[0],):
        raise InputError(f"expected {shape[0]} values of object_id; got {names.shape}.")
    columns = {"object_id": names}
    for k, band in enumerate(bands):
        columns |= {f"flux_{band}": flux[:, k], f"flux_err_{band}": error[:, k]}
    return columns


def _likelihood(value: str | AbstractLikelihood) -> AbstractLikelihood | None:
    if isinstance(value, AbstractLikelihood):
        return value
    if value not in set(Likelihood):
        raise InputError(
            f"expected likelihood to be {' or '.join(Likelihood)}, or an object of "
            f"tinsley.infer.likelihood; got {value!r}."
        )
    return StudentT() if value == Likelihood.STUDENT_T else None


def _redshift_columns(redshift: Any, error: Any, number: int) -> dict[str, np.ndarray]:
    """What is given of the redshifts, in the layout `native`."""
    if isinstance(redshift, tuple) and len(redshift) == 2 and np.ndim(redshift[0]) > 0:
        if error is not None:
            raise InputError(_ALONE)
        return _pdf_columns(*redshift, number)
    columns = {"redshift": _for_each(redshift, "redshift", number)}
    if error is not None:
        columns["redshift_err"] = _for_each(error, "redshift_err", number)
    return columns


def _pdf_columns(grid: Any, pdf: Any, number: int) -> dict[str, np.ndarray]:
    try:
        node, density = np.asarray(grid, float), np.atleast_2d(np.asarray(pdf, float))
    except (TypeError, ValueError) as problem:
        raise InputError("expected numbers for the redshifts and p(z).") from problem
    if (
        node.ndim != 1
        or len(node) < 2
        or density.shape not in ((number, len(node)), (1, len(node)))
    ):
        raise InputError(
            f"expected redshift=(z, pdf) of shapes (n,) and ({number}, n) or (n,), n at least 2; "
            f"got {node.shape} and {np.shape(pdf)}."
        )
    if not np.all(np.diff(node) > 0) or not np.all(np.isfinite(node)):
        raise InputError("expected the redshifts of p(z) to be finite and to increase.")
    shape = (number, len(node))
    return {
        "redshift_grid": np.broadcast_to(node, shape),
        "redshift_pdf": np.broadcast_to(density, shape),
    }


def _for_each(value: Any, name: str, number: int) -> np.ndarray:
    """One number for each galaxy."""
    also = ', or "free"' if name == "redshift" else ""
    try:
        values = np.atleast_1d(np.asarray(value, float))
    except (TypeError, ValueError) as problem:
        raise InputError(f"expected numbers for {name}{also}; got {value!r}.") from problem
    if value is None or values.shape not in ((1,), (number,)):
        raise InputError(
            f"expected {number} values of {name}, one for all{also}; got "
            f"{'none' if value is None else values.shape}."
        )
    return np.broadcast_to(values, (number,)).copy()


def _nanomaggies(value: Any) -> np.ndarray:
    if isinstance(value, units.Quantity):
        try:
            value = value.to_value(units.Jy) / JY_PER_NMGY
        except units.UnitConversionError as problem:
            raise InputError(f"expected a flux density; got the unit {value.unit}.") from problem
    try:
        return np.asarray(value, float)
    except (TypeError, ValueError) as problem:
        raise InputError("expected numbers for flux and flux_err.") from problem


def _result(
    posterior: Posterior,
    photometry: Photometry,
    rows: dict[str, np.ndarray],
    drawn: dict[str, np.ndarray] | None,
    number: int,
) -> Result:
    there = np.isin(rows["status"], HAS_POSTERIOR)
    found = {} if drawn is None else drawn
    names = [name.removesuffix("_mean") for name in rows if name.endswith("_mean")]

    def spread(name: str) -> np.ndarray:
        values = np.full((len(photometry), number), np.nan, np.float32)
        if name in found:
            values[there] = found[name].reshape(-1, number)
        return values

    weight = np.exp(spread("log_weight").astype(float))
    return Result(posterior, photometry, rows, {name: spread(name) for name in names}, weight)
