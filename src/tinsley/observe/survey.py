"""What a survey records: its bands, how its tables are laid out, and its photometry."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

import jax
import numpy as np

from tinsley.observe.redshift import LEAST_INSIDE, RedshiftPrior, truncated
from tinsley.status import Status

FLUX_PER_MAG = float(0.4 * np.log(10.0))
"""A small error in magnitudes times this is the error as a fraction of the flux."""

AB_ZEROPOINT_MAG = 22.5
"""AB magnitude of one nanomaggy."""


@dataclass(frozen=True, eq=False)
class Photometry:
    """Fluxes of galaxies, calibrated: AB, corrected for Galactic extinction.

    Rows with a status, and bands without a measurement or a limit, hold flux 0 and sigma 1, so that
    a kernel that meets them stays finite. The redshift is kept as read, NaN where there is none.

    Attributes:
        object_id: Name of each row, int64 or str, [n].
        redshift: Redshift as read, [n].
        flux: Nanomaggies, [n, band].
        sigma: Total error, the survey's floor included, nanomaggies, [n, band].
        mask: True where the band was measured, [n, band].
        status: A word of `Status`, or "" where the row can be used, [n].
        limit: True where `flux` is an upper limit and `sigma` its error, [n, band]; None where the
            table has no column of limits.
        redshift_prior: What is known of each redshift, NaN where `redshift` is exact; None where
            nothing is said about errors, so that all are.
    """

    object_id: np.ndarray
    redshift: np.ndarray
    flux: np.ndarray
    sigma: np.ndarray
    mask: np.ndarray
    status: np.ndarray
    limit: np.ndarray | None = None
    redshift_prior: RedshiftPrior | None = None

    def __post_init__(self) -> None:
        n_rows, shape = len(self.object_id), np.shape(self.flux)
        for name in ("redshift", "status"):
            if np.shape(getattr(self, name)) != (n_rows,):
                raise ValueError(f"photometry of {n_rows} galaxies needs {n_rows} of {name}.")
        if len(shape) != 2 or shape[0] != n_rows:
            raise ValueError(f"flux needs shape ({n_rows}, band); got {shape}.")
        for name in ("sigma", "mask") if self.limit is None else ("sigma", "mask", "limit"):
            if np.shape(getattr(self, name)) != shape:
                raise ValueError(f"{name} needs flux's shape {shape}.")

    def __len__(self) -> int:
        return len(self.object_id)

    @property
    def usable(self) -> np.ndarray:
        """True where a row has no status against it, [n]."""
        return self.status == ""

    @property
    def uncertain(self) -> np.ndarray:
        """True where the redshift has an error or a p(z), [n]."""
        if self.redshift_prior is None:
            return np.zeros(len(self), bool)
        return np.isfinite(self.redshift_prior.node[:, 0])

    def take(self, rows: np.ndarray | slice) -> Photometry:
        """Some rows, by index, slice or boolean mask, in that order."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return Photometry(**jax.tree.map(lambda array: array[rows], values))


def with_redshift_range(photometry: Photometry, low: float, high: float) -> Photometry:
    """The same rows, those outside `low` to `high` marked `redshift_out_of_range`.

    A row that is already `bad_input` stays so: it comes first in the order of `Status`. What is
    known of an uncertain redshift is cut to the range; if hardly anything is left (`LEAST_INSIDE`),
    it is outside.
    """
    inside = (photometry.redshift >= low) & (photometry.redshift <= high)
    if photometry.redshift_prior is not None:
        prior, share = truncated(photometry.redshift_prior, low, high)
        inside = np.where(photometry.uncertain, share >= LEAST_INSIDE, inside)
        photometry = dataclasses.replace(photometry, redshift_prior=prior)
    outside = ~inside & (photometry.status != Status.BAD_INPUT)
    return _refuse(photometry, outside, Status.REDSHIFT_OUT_OF_RANGE)


def _refuse(photometry: Photometry, rows: np.ndarray, status: Status) -> Photometry:
    refused = rows[:, None]
    return dataclasses.replace(
        photometry,
        flux=np.where(refused, 0.0, photometry.flux),
        sigma=np.where(refused, 1.0, photometry.sigma),
        mask=photometry.mask & ~refused,
        status=np.where(rows, str(status), photometry.status),
        limit=None if photometry.limit is None else photometry.limit & ~refused,
    )


@dataclass(frozen=True)
class Quality:
    """A cut on one integer column of bit flags; it applies where the table has that column.

    Attributes:
        column: The column's name.
        reject_any: A row with any of these bits set fails.
        reject_all: A row with all of these bits set fails; 0 for no such rule.
        require_all: A row that lacks one of these bits fails.
    """

    column: str
    reject_any: int = 0
    reject_all: int = 0
    require_all: int = 0

    def fails(self, flags: np.ndarray) -> np.ndarray:
        """True where a row is cut, [n]."""
        both = (flags & self.reject_all) == self.reject_all
        return (
            ((flags & self.reject_any) != 0)
            | (both & (self.reject_all != 0))
            | ((flags & self.require_all) != self.require_all)
        )


@dataclass(frozen=True)
class Least:
    """A cut on a number, or on the difference of two; it applies where the table has the columns.

    Attributes:
        column: The column's name.
        value: A row below it, or without a number, fails.
        minus: Column to subtract; None for none.
        missing: Numbers that stand for no number, in either column.
    """

    column: str
    value: float
    minus: str | None = None
    missing: tuple[float, ...] = ()

    def fails(self, number: np.ndarray, subtracted: np.ndarray | None) -> np.ndarray:
        """True where a row is cut, [n]."""
        there = ~np.isin(number, self.missing)
        if subtracted is not None:
            there &= ~np.isin(subtracted, self.missing)
            number = number - subtracted
        return ~(there & (number >= self.value))


@dataclass(frozen=True)
class Layout:
    """How one kind of table holds a survey's photometry.

    A column name with "{band}" in it stands for one column per band; one without stands for a
    vector column, in which band b is at position `index[b]`.

    Attributes:
        name: What `--layout` calls it. Two layouts may share a name: variants of one kind.
        redshift: Column names, the first that exists counts.
        flux: Column(s) of flux.
        error: Column(s) of its error.
        error_kind: "sigma" for a standard deviation, "ivar" for an inverse variance.
        object_id: Column of names; None for the row number, counted from 0.
        index: Positions of the bands in vector columns.
        extinction: Column(s) of Galactic extinction to correct for, mag; None where done already.
        ebv: Column of E(B-V) to correct for instead, mag.
        unit_nmgy: The table's unit of flux, nanomaggies.
        limit: Column(s) of upper limits, which may be absent. One counts where its band has no
            flux; its error is the band's error, or where that is missing too a fraction of itself.
        limit_sigmas: The limits are so many of their errors.
        needs: Which of the survey's "ab_offset" and "error_floor" the table still lacks.
        quality: Cuts on bits; a row that fails one is `bad_input`.
        least: Cuts on numbers, likewise.
        redshift_err: Names of the column of standard deviations of the redshifts, the first that
            exists counts; a table may lack it.
        redshift_pdf: Vector column of p(z), which a table may lack.
        redshift_grid: Vector column of the redshifts that it is given at, or these redshifts.
    """

    name: str
    redshift: tuple[str, ...]
    flux: str
    error: str
    error_kind: Literal["sigma", "ivar"]
    object_id: str | None = None
    index: tuple[int, ...] | None = None
    extinction: str | None = None
    ebv: str | None = None
    unit_nmgy: float = 1.0
    limit: str | None = None
    limit_sigmas: float = 3.0
    needs: tuple[str, ...] = ()
    quality: tuple[Quality, ...] = ()
    least: tuple[Least, ...] = ()
    redshift_err: tuple[str, ...] = ()
    redshift_pdf: str | None = None
    redshift_grid: str | tuple[float, ...] | None = None


NATIVE = Layout(
    name="native",
    redshift=("redshift",),
    flux="flux_{band}",
    error="flux_err_{band}",
    error_kind="sigma",
    object_id="object_id",
    limit="flux_limit_{band}",
    needs=("error_floor",),
    redshift_err=("redshift_err",),
    redshift_pdf="redshift_pdf",
    redshift_grid="redshift_grid",
)
"""Every survey's own layout: AB nanomaggies, dereddened, errors without the floor, limits of 3."""


@dataclass(frozen=True, eq=False)
class Survey:
    """A survey's bands and calibration. See `tinsley.io.surveys` for the TOML file.

    Attributes:
        name: Short name.
        bands: Short names of the bands, from blue to red.
        filters: speclite's name, or a file, of each band's filter.
        error_floor_mag: Systematic error to add in quadrature, mag, [band].
        ab_offset_mag: To add to the survey's magnitudes to make them AB, mag, [band].
        extinction_mag_per_ebv: Galactic extinction per E(B-V), mag, [band].
        error_correlation: Correlation of the total errors of the bands, symmetric and positive
            definite, [band, band]; None where they are independent.
        noise: Settings for simulated errors: snr_min, snr_max, catalog.
        layouts: The kinds of table it comes in; `NATIVE` is the first.
    """

    name: str
    bands: tuple[str, ...]
    filters: tuple[str, ...]
    error_floor_mag: np.ndarray
    ab_offset_mag: np.ndarray
    extinction_mag_per_ebv: np.ndarray
    noise: dict[str, Any] = field(default_factory=dict)
    layouts: tuple[Layout, ...] = (NATIVE,)
    error_correlation: np.ndarray | None = None

    @property
    def layout_names(self) -> tuple[str, ...]:
        """Names for `--layout`, each once."""
        return tuple(dict.fromkeys(layout.name for layout in self.layouts))

    def floor_nmgy(self, flux: np.ndarray) -> np.ndarray:
        """Error floor at an observed flux, nanomaggies, [n, band]."""
        return self.error_floor_mag * FLUX_PER_MAG * np.abs(flux)

    def total_sigma(self, flux: np.ndarray, error: np.ndarray) -> np.ndarray:
        """Measured error and the floor in quadrature, nanomaggies, [n, band]."""
        return np.hypot(error, self.floor_nmgy(flux))

    def measured_sigma(self, flux: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        """What `total_sigma` was made from: the error without the floor, nanomaggies."""
        return np.sqrt(np.maximum(sigma**2 - self.floor_nmgy(flux) ** 2, 0.0))
