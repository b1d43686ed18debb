"""The error that a survey quotes for a flux: three models to draw it from.

Two are fitted to a catalogue: `fit_sigma_given_flux` (SEDflow) and `fit_snr_given_flux` (PopSED).
`BroadNoise` is for training: its S/N is log-uniform, so that an error tells nothing of the true
flux. All take the true flux; whether the errors include a survey's floor is up to whoever fits.
"""

from __future__ import annotations

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from tinsley.observe.survey import AB_ZEROPOINT_MAG, FLUX_PER_MAG

MAX_NODES = 40
MIN_PER_NODE = 25
"""Nodes hold equal numbers of galaxies: not so few that their spread is noise."""


class AbstractNoise(eqx.Module):
    """p(sigma | true flux), band by band."""

    @abc.abstractmethod
    def sample_sigma(
        self, flux: Float[Array, "*n band"], *, key: PRNGKeyArray
    ) -> Float[Array, "*n band"]:
        """Draw the error of each flux.

        Args:
            flux: True flux, nanomaggies, positive.
            key: Random key.

        Returns:
            Standard deviation, nanomaggies, positive.
        """

    @abc.abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Plain lists and numbers for JSON; `noise_from_dict` is the way back."""


class SigmaGivenFlux(AbstractNoise):
    """Error in magnitudes, normal about a mean that depends on the magnitude.

    Between nodes mean and scatter are linear in magnitude; beyond the first or last node they keep
    its value.

    Attributes:
        mag: Nodes, AB magnitude, increasing, [band, node].
        mean_mag: Median error at each node, mag.
        scatter_mag: Standard deviation of the error at each node, mag.

    Source:
        Hahn & Melchior (2022), section 3.2 and equation 12.
    """

    mag: Float[Array, "band node"]
    mean_mag: Float[Array, "band node"]
    scatter_mag: Float[Array, "band node"]

    def sample_sigma(
        self, flux: Float[Array, "*n band"], *, key: PRNGKeyArray
    ) -> Float[Array, "*n band"]:
        mean, scatter = self.mean_and_scatter(flux)
        return mean + scatter * _normal_above(-mean / scatter, key)

    def mean_and_scatter(
        self, flux: Float[Array, "*n band"]
    ) -> tuple[Float[Array, "*n band"], Float[Array, "*n band"]]:
        """Mean and standard deviation of the error of a flux, nanomaggies."""
        mag = _magnitude(flux)
        mag_error = FLUX_PER_MAG * flux
        return (
            _at_nodes(mag, self.mag, self.mean_mag) * mag_error,
            _at_nodes(mag, self.mag, self.scatter_mag) * mag_error,
        )

    def log_prob(
        self, sigma: Float[Array, "*n band"], flux: Float[Array, "*n band"]
    ) -> Float[Array, "*n band"]:
        """Ln of the density of an error given the true flux, per nanomaggy."""
        mean, scatter = self.mean_and_scatter(flux)
        return norm.logpdf(sigma, mean, scatter) - norm.logcdf(mean / scatter)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "sigma_given_flux"} | _lists(self)


class SnrGivenFlux(AbstractNoise):
    """log10 S/N, normal about a mean that depends on the magnitude.

    Between nodes mean and scatter are linear in magnitude. Beyond the brightest they keep its
    value; beyond the faintest the error does, for there the sky makes it, and the S/N falls with
    the flux.

    Attributes:
        mag: Nodes, AB magnitude, increasing, [band, node].
        mean_log10_snr: Median of log10 S/N at each node.
        scatter_log10_snr: Standard deviation of log10 S/N at each node.

    Source:
        Li et al. (2023), section 2.4.
    """

    mag: Float[Array, "band node"]
    mean_log10_snr: Float[Array, "band node"]
    scatter_log10_snr: Float[Array, "band node"]

    def sample_sigma(
        self, flux: Float[Array, "*n band"], *, key: PRNGKeyArray
    ) -> Float[Array, "*n band"]:
        mean, scatter = self.mean_and_scatter(flux)
        log10_snr = mean + scatter * jax.random.normal(key, flux.shape, flux.dtype)
        return flux * 10**-log10_snr

    def mean_and_scatter(
        self, flux: Float[Array, "*n band"]
    ) -> tuple[Float[Array, "*n band"], Float[Array, "*n band"]]:
        """Mean and standard deviation of log10 S/N of a flux."""
        mag = _magnitude(flux)
        fainter = jnp.maximum(mag - self.mag[:, -1].astype(mag.dtype), 0.0)
        return (
            _at_nodes(mag, self.mag, self.mean_log10_snr) - 0.4 * fainter,
            _at_nodes(mag, self.mag, self.scatter_log10_snr),
        )

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "snr_given_flux"} | _lists(self)


class BroadNoise(AbstractNoise):
    """S/N log-uniform between two limits, the same at every flux.

    Attributes:
        snr_min: Least flux over error.
        snr_max: Greatest flux over error, one for all bands or one each.
    """

    snr_min: float = eqx.field(static=True)
    snr_max: float | tuple[float, ...] = eqx.field(static=True)

    def __check_init__(self) -> None:
        highest = np.asarray(self.snr_max)
        if not np.all((0 < self.snr_min) & (self.snr_min < highest) & (highest < np.inf)):
            raise ValueError(
                f"expected 0 < snr_min < snr_max; got {self.snr_min} and {self.snr_max}."
            )

    def sample_sigma(
        self, flux: Float[Array, "*n band"], *, key: PRNGKeyArray
    ) -> Float[Array, "*n band"]:
        high = jnp.asarray(np.log(self.snr_max), flux.dtype)
        low = float(np.log(self.snr_min))
        log_snr = jax.random.uniform(key, flux.shape, flux.dtype, low, high)
        return flux * jnp.exp(-log_snr)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "broad", "snr_min": self.snr_min, "snr_max": self.snr_max}


def fit_sigma_given_flux(flux: np.ndarray, sigma: np.ndarray, mask: np.ndarray) -> SigmaGivenFlux:
    """Fit the error in magnitudes as a function of magnitude: SEDflow's noise model.

    Args:
        flux: Observed fluxes, nanomaggies, [n, band].
        sigma: Their errors, nanomaggies, [n, band].
        mask: True where measured, [n, band]. Fluxes that are not positive have no magnitude and
            are left out.

    Raises:
        ValueError: A band has fewer than 25 positive measured fluxes.
    """
    return SigmaGivenFlux(*_fit(flux, sigma, mask, lambda f, s: s / (FLUX_PER_MAG * f)))


def fit_snr_given_flux(flux: np.ndarray, sigma: np.ndarray, mask: np.ndarray) -> SnrGivenFlux:
    """Fit log10 S/N as a function of magnitude: PopSED's noise model.

    Arguments as for `fit_sigma_given_flux`.
    """
    return SnrGivenFlux(*_fit(flux, sigma, mask, lambda f, s: np.log10(f / s)))


def noise_from_dict(values: dict[str, Any]) -> AbstractNoise:
    """The noise model that `to_dict` described.

    Raises:
        ValueError: The kind is unknown.
    """
    settings = {name: value for name, value in values.items() if name != "kind"}
    if values.get("kind") == "broad":
        return BroadNoise(**settings)
    arrays = {name: jnp.asarray(value, dtype=float) for name, value in settings.items()}
    if values.get("kind") == "sigma_given_flux":
        return SigmaGivenFlux(**arrays)
    if values.get("kind") == "snr_given_flux":
        return SnrGivenFlux(**arrays)
    raise ValueError(
        f"unknown kind of noise {values.get('kind')!r}; "
        "expected broad, sigma_given_flux or snr_given_flux."
    )


def flux_range(flux: np.ndarray, mask: np.ndarray) -> tuple[tuple[float, float], ...]:
    """Least and greatest positive measured flux of each band, nanomaggies: arguments [n, band]."""
    there = np.where(mask & (flux > 0), flux, np.nan)
    ends = zip(np.nanmin(there, axis=0), np.nanmax(there, axis=0), strict=True)
    return tuple((float(low), float(high)) for low, high in ends)


def unusual_error(
    noise: SigmaGivenFlux,
    flux: Float[Array, "*n band"],
    sigma: Float[Array, "*n band"],
    mask: Bool[Array, "*n band"],
) -> Bool[Array, "*n"]:
    """True where a band's error is more than 3 sigma above the usual for its flux."""
    return error_excess(noise, flux, sigma, mask) > 3


def error_excess(
    noise: SigmaGivenFlux,
    flux: Float[Array, "*n band"],
    sigma: Float[Array, "*n band"],
    mask: Bool[Array, "*n band"],
) -> Float[Array, "*n"]:
    """How far the most unusual error is above the usual for its flux, in sigma.

    Fluxes below the faintest that the model was fitted to, negative ones too, are judged by the
    errors usual there.

    Source:
        Hahn & Melchior (2022), appendix A, case 1.
    """
    faintest = 10 ** (0.4 * (AB_ZEROPOINT_MAG - noise.mag[:, -1])).astype(flux.dtype)
    mean, scatter = noise.mean_and_scatter(
        jnp.maximum(flux, jnp.broadcast_to(faintest, flux.shape))
    )
    return jnp.max(jnp.where(mask, (sigma - mean) / scatter, -jnp.inf), axis=-1)


def _fit(
    flux: np.ndarray, sigma: np.ndarray, mask: np.ndarray, value: Any
) -> tuple[Array, Array, Array]:
    """Nodes, medians and standard deviations of `value(flux, sigma)`, each [band, node].

    A few failed measurements would make the standard deviation of a node theirs alone (plain, it
    puts 1 % of the faint i-band draws at a tenth of the least S/N seen in SDSS), so values further
    than 10 sigma (1.48 MAD) from the median are left out of it.
    """
    there = mask & (flux > 0) & (sigma > 0)
    fewest = int(there.sum(axis=0).min())
    if fewest < MIN_PER_NODE:
        raise ValueError(
            f"fitting a noise model needs at least {MIN_PER_NODE} positive measured fluxes in "
            f"every band; got {fewest}. Use a larger catalogue or drop the band."
        )
    n_nodes = min(MAX_NODES, fewest // MIN_PER_NODE)
    rows = []
    for band in range(flux.shape[1]):
        f, s = flux[there[:, band], band], sigma[there[:, band], band]
        parts = np.array_split(np.argsort(-f), n_nodes)
        mag, values = AB_ZEROPOINT_MAG - 2.5 * np.log10(f), value(f, s)
        rows.append([(np.median(mag[p]), *_median_and_scatter(values[p])) for p in parts])
    nodes = jnp.asarray(np.array(rows), dtype=float)
    return nodes[..., 0], nodes[..., 1], nodes[..., 2]


def _median_and_scatter(values: np.ndarray) -> tuple[float, float]:
    median = np.median(values)
    distance = np.abs(values - median)
    kept = values[distance <= 10 * 1.4826 * np.median(distance)]
    return float(median), float(np.std(kept))


def _magnitude(flux: Float[Array, "*n band"]) -> Float[Array, "*n band"]:
    return AB_ZEROPOINT_MAG - 2.5 * jnp.log10(flux)


def _at_nodes(
    mag: Float[Array, "*n band"],
    nodes: Float[Array, "band node"],
    values: Float[Array, "band node"],
) -> Float[Array, "*n band"]:
    interpolate = jax.vmap(jnp.interp, in_axes=(-1, 0, 0), out_axes=-1)
    return interpolate(mag, nodes.astype(mag.dtype), values.astype(mag.dtype))


def _normal_above(lowest: Float[Array, "*n"], key: PRNGKeyArray) -> Float[Array, "*n"]:
    """Standard normal draws, redrawn (by the inverse CDF) until they are above `lowest`."""
    return jax.random.truncated_normal(key, lowest, jnp.inf, dtype=lowest.dtype)


def _lists(noise: SigmaGivenFlux | SnrGivenFlux) -> dict[str, Any]:
    return {name: np.asarray(value).tolist() for name, value in vars(noise).items()}
