"""Photometry by band tables: exact stellar population synthesis at the speed of an emulator.

Flux in a band is linear in the SSPs; only dust bends it, and dust is smooth. So each band gets a
few wavelength nodes (Gauss nodes of its own response), and each SSP's flux is tabulated in the
Lagrange polynomials of those nodes: `T[z, met, age, node]`. Then

    flux = sum over nodes of exp(-tau(node / (1 + z))) * sum over SSPs of weight * T

is exact wherever exp(-tau) is a polynomial across the band, and within mmag elsewhere. The ages are
contracted with the bases of the star-formation history when the table is made.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tinsley.observe.filters import AB_ZERO_ERG_S_CM2_HZ, C_AA_S, Filter
from tinsley.observe.nodes import Panel, band_panels, lagrange
from tinsley.parameters import MASS, Theta
from tinsley.sps.dust import TwoComponentDust
from tinsley.sps.galaxy import GalaxyModel, History, RedshiftGrid, make_history
from tinsley.sps.interpolate import locate
from tinsley.sps.metallicity import AbstractMetallicity, ConstantMetallicity
from tinsley.sps.sfh import N_BINS, n_young_bins
from tinsley.sps.ssp import SspGrid, age_weights

MASS_UNIT_LOG10_MSUN = 10.0
"""Unit fluxes are for this formed mass, so that float32 holds them."""
CHUNK = 2048
"""Galaxies computed together: enough that both cores work on a chunk, few enough that its gathered
rows stay in the cache; 2.3 times faster than 256 on two cores."""
_FLOOR = 1e-20
_PC_CM = 3.0856775814913673e18


class BandTables(eqx.Module):
    """Everything that `unit_flux` needs, made by `make_band_tables`.

    Attributes:
        history: Mass per basis and bin, on the same redshift grid.
        metallicity: Metallicity history.
        dust: Attenuation.
        node_aa: Observed wavelength of each node, all bands in a row, [node].
        basis: SSPs contracted with the bases, young then old, [z, met, 8, node].
        burst: SSPs, [z, met, age, node].
        bins: SSPs at the middle of each bin, [z, met, 42, node]; None for constant metallicity.
        log10_z_zsun: Metallicity of each grid node, [met].
        log10_age_yr: Age of each grid node, [age].
        band_of_node: For each node, its band, as a tuple.
        n_young: Number of bins inside birth clouds.
    """

    history: History
    metallicity: AbstractMetallicity
    dust: TwoComponentDust
    node_aa: Array
    basis: Array
    burst: Array
    bins: Array | None
    log10_z_zsun: Array
    log10_age_yr: Array
    band_of_node: tuple[int, ...] = eqx.field(static=True)
    n_young: int = eqx.field(static=True)

    @property
    def n_bands(self) -> int:
        """Number of bands."""
        return self.band_of_node[-1] + 1

    def at_redshift(self, redshift: Float[Array, ""]) -> BandTables:
        """The same for galaxies that all are at one redshift: twice as fast."""
        history, blend = self.history.at_redshift(redshift), self.history.grid.blend
        basis, burst = blend(self.basis, redshift), blend(self.burst, redshift)
        bins = None if self.bins is None else blend(self.bins, redshift)
        return dataclasses.replace(self, history=history, basis=basis, burst=burst, bins=bins)


def photometry(tables: BandTables, theta: Theta) -> Float[Array, "batch band"]:
    """Observed flux of galaxies, nanomaggies (AB).

    Args:
        tables: From `make_band_tables`.
        theta: Every parameter and `redshift`, each [batch]; redshifts inside the table's range.

    Returns:
        Flux in each band, positive and finite.

    Source:
        DESIGN section 4. Agrees with `tinsley.observe.exact`, which shares nothing with it but the
        SSP grid, to the figures in benchmarks/results/photometry.json.
    """
    scale = 10.0 ** (theta[MASS] - MASS_UNIT_LOG10_MSUN)
    return unit_flux(tables, theta) * scale[:, None]


@eqx.filter_jit
def unit_flux(tables: BandTables, theta: Theta) -> Float[Array, "batch band"]:
    """`photometry` for a formed mass of 1e10 Msun; `theta` needs no mass."""
    theta = {name: value for name, value in theta.items() if name != MASS}
    return map_chunks(jax.checkpoint(lambda t: _unit_flux(tables, t)), theta, CHUNK)


def map_chunks(function: Callable[[Theta], Array], theta: Theta, size: int) -> Array:
    """Apply `function` to `size` galaxies at a time; the last chunk repeats its last galaxy."""
    number = theta["redshift"].shape[0]
    if number <= size:
        return function(theta)
    padding = -number % size

    def split(value: Array) -> Array:
        return jnp.pad(value, (0, padding), mode="edge").reshape(-1, size)

    out = jax.lax.map(function, {name: split(value) for name, value in theta.items()})
    return out.reshape(-1, *out.shape[2:])[:number]


@eqx.filter_jit
def rest_flux(tables: BandTables, theta: Theta) -> Float[Array, "batch band"]:
    """Light in bands at rest with the galaxy, after dust, for a formed mass of 1e10 Msun.

    Args:
        tables: Whose SSP fluxes are of redshift 0 at every node of the grid.
        theta: Every parameter and `redshift`, which tells the age, each [batch].

    Returns:
        In units of one's own: only ratios mean something.
    """
    return _after_dust(tables, theta, tables.node_aa[None])


def _unit_flux(tables: BandTables, theta: Theta) -> Array:
    """One chunk, [batch, band]."""
    redshift = theta["redshift"][:1] if tables.history.grid.is_fixed else theta["redshift"]
    per_band = _after_dust(tables, theta, tables.node_aa / (1 + redshift)[:, None])
    log10_dl_10pc = tables.history.cosmology.log10_dl_mpc(redshift) + 5.0
    distance = 10.0 ** (MASS_UNIT_LOG10_MSUN + 9.0 - 2.0 * log10_dl_10pc)
    return jnp.maximum(per_band, _FLOOR) * distance[:, None]


def _after_dust(tables: BandTables, theta: Theta, wave_rest_aa: Array) -> Array:
    """Starlight through both kinds of dust, at 10 pc, [batch, band]."""
    young = jnp.exp(-tables.dust.optical_depth_birth_cloud(wave_rest_aa, theta["tau_bc"]))
    diffuse = jnp.exp(
        -tables.dust.optical_depth_ism(wave_rest_aa, theta["tau_ism"], theta["n_dust"])
    )
    if tables.bins is None:
        stars = _stars_constant(tables, theta, young)
    else:
        stars = _stars_evolving(tables, tables.bins, theta, young)
    return _sum_by_band(diffuse * stars, tables.band_of_node)


def _stars_constant(tables: BandTables, theta: Theta, young: Array) -> Array:
    """Light of all stars before diffuse dust, one metallicity for all, [batch, node]."""
    n_met, n_basis, n_node = tables.basis.shape[1:]
    basis = tables.basis.reshape(-1, n_node)
    c = tables.history.coefficients(theta)
    log10_z = theta["log10_z_zsun"]
    total = jnp.zeros(())
    for row, weight in _corners(tables, theta, log10_z):
        light = _burst_light(tables, theta, row)
        for k in range(n_basis // 2):
            pair = young * basis[row * n_basis + k] + basis[row * n_basis + n_basis // 2 + k]
            light = light + c[:, k, None] * pair
        total = total + weight[:, None] * light
    return total


def _stars_evolving(tables: BandTables, bins: Array, theta: Theta, young: Array) -> Array:
    """The same where each bin has its own metallicity."""
    n_node = tables.basis.shape[-1]
    mass, centre_gyr = tables.history.bins(theta)
    log10_z = tables.metallicity.of_bins(theta, centre_gyr, mass)
    rows = jnp.arange(N_BINS)
    light_young, light_old, burst = jnp.zeros(()), jnp.zeros(()), jnp.zeros(())
    flat = bins.reshape(-1, n_node)
    for row, weight in _corners(tables, theta, log10_z):
        light = flat[row * N_BINS + rows]
        share = mass * weight
        light_young = light_young + jnp.einsum(
            "nb,nbp->np", share[:, : tables.n_young], light[:, : tables.n_young]
        )
        light_old = light_old + jnp.einsum(
            "nb,nbp->np", share[:, tables.n_young :], light[:, tables.n_young :]
        )
    for row, weight in _corners(
        tables, theta, tables.metallicity.of_burst(theta, centre_gyr, mass)
    ):
        burst = burst + weight[:, None] * _burst_light(tables, theta, row)
    return young * light_young + light_old + burst


def _burst_light(tables: BandTables, theta: Theta, row: Array) -> Array:
    """The burst's light at one corner in redshift and metallicity, [batch, node]."""
    n_age, n_node = tables.burst.shape[2:]
    log10_age_yr = 9.0 + jnp.log10(jnp.maximum(theta["t_burst_gyr"], 1e-9))
    low, share = locate(tables.log10_age_yr, log10_age_yr)
    flat = tables.burst.reshape(-1, n_node)
    at = row * n_age + low
    light = flat[at] * (1 - share)[:, None] + flat[at + 1] * share[:, None]
    return tables.history.f_burst(theta)[:, None] * light


def _corners(tables: BandTables, theta: Theta, log10_z: Array) -> list[tuple[Array, Array]]:
    """The (redshift, metallicity) rows around each point, with their weights: four, or two."""
    n_met = len(tables.log10_z_zsun)
    low_m, share_m = locate(tables.log10_z_zsun, log10_z)
    if tables.history.grid.is_fixed:
        return [(low_m, 1 - share_m), (low_m + 1, share_m)]
    low_z, share_z = tables.history.grid.locate(theta["redshift"])
    extra = (1,) * (log10_z.ndim - 1)
    low_z, share_z = low_z.reshape(-1, *extra), share_z.reshape(-1, *extra)
    return [
        ((low_z + dz) * n_met + low_m + dm, weight_z * weight_m)
        for dz, weight_z in ((0, 1 - share_z), (1, share_z))
        for dm, weight_m in ((0, 1 - share_m), (1, share_m))
    ]


def _sum_by_band(values: Array, band_of_node: tuple[int, ...]) -> Array:
    """Sum over the nodes of each band, [batch, band]."""
    bands = np.asarray(band_of_node)
    starts = np.flatnonzero(np.diff(bands, prepend=-1))
    stops = np.append(starts[1:], len(bands))
    return jnp.stack(
        [jnp.sum(values[:, a:b], axis=-1) for a, b in zip(starts, stops, strict=True)], axis=-1
    )


def make_band_tables(
    model: GalaxyModel,
    filters: tuple[Filter, ...],
    grid: RedshiftGrid,
    ssp_flux: np.ndarray | None = None,
) -> BandTables:
    """Tabulate every SSP in every band on a redshift grid.

    Args:
        model: The physics.
        filters: The bands, in order.
        grid: Redshift nodes; the flux is linear in ln(1 + z) between them.
        ssp_flux: What `tabulate_ssps` gives for the same grid and filters, if at hand
            (`tinsley.io.band_tables` keeps it on disk).

    Returns:
        Tables in the default float type; integrals are done in float64.
    """
    ssp_flux = tabulate_ssps(model.ssp, filters, grid) if ssp_flux is None else ssp_flux
    nodes = [np.concatenate([p.nodes_aa for p in band_panels(f)]) for f in filters]
    history = make_history(model, grid)
    young = n_young_bins(model.dust.t_birth_cloud_gyr)
    evolving = not isinstance(model.metallicity, ConstantMetallicity)
    basis, bins = [], []
    for i, flux in enumerate(ssp_flux):
        at_bins = age_weights(model.ssp, np.asarray(history.centre_gyr[i], np.float64))
        mass = np.asarray(history.mass[i], np.float64)
        halves = [mass[:, :young] @ at_bins[:young], mass[:, young:] @ at_bins[young:]]
        basis.append(np.einsum("ka,man->mkn", np.concatenate(halves), flux))
        if evolving:
            bins.append(np.einsum("ba,man->mbn", at_bins, flux))
    return BandTables(
        history=history,
        metallicity=model.metallicity,
        dust=model.dust,
        node_aa=jnp.asarray(np.concatenate(nodes), dtype=float),
        basis=jnp.asarray(np.stack(basis), dtype=float),
        burst=jnp.asarray(ssp_flux, dtype=float),
        bins=jnp.asarray(np.stack(bins), dtype=float) if evolving else None,
        log10_z_zsun=jnp.asarray(model.ssp.log10_z_zsun, dtype=float),
        log10_age_yr=jnp.asarray(model.ssp.log10_age_yr, dtype=float),
        band_of_node=tuple(i for i, at in enumerate(nodes) for _ in at),
        n_young=young,
    )


def tabulate_ssps(ssp: SspGrid, filters: tuple[Filter, ...], grid: RedshiftGrid) -> np.ndarray:
    """Flux of each SSP at each node of each band, maggies at 10 pc, [z, met, age, node]."""
    bands = [(f, band_panels(f)) for f in filters]
    return np.stack(
        [
            np.concatenate([_node_flux(ssp, f, panels, z) for f, panels in bands], axis=-1)
            for z in grid.nodes
        ]
    )


def _node_flux(ssp: SspGrid, band: Filter, panels: list[Panel], redshift: float) -> np.ndarray:
    """Flux of each SSP in each Lagrange polynomial of a band, maggies at 10 pc, [met, age, node].

    Product integration: between all knots of spectrum and filter the integrand is smooth, and two
    Gauss-Legendre points a piece integrate it.
    """
    rest = ssp.wave_rest_aa
    wave, weight = _quadrature(rest * (1 + redshift), band.wave_aa)
    response = np.interp(wave, band.wave_aa, band.response)
    photons = weight * response * wave
    index = np.clip(np.searchsorted(rest, wave / (1 + redshift)) - 1, 0, len(rest) - 2)
    share = (wave / (1 + redshift) - rest[index]) / (rest[index + 1] - rest[index])
    inside = (share >= 0) & (share <= 1)
    polynomials = lagrange(panels, wave) * (photons * inside)[:, None]
    first, last = index.min(), index.max() + 2
    on_rest = np.zeros((last - first, polynomials.shape[1]))
    np.add.at(on_rest, index - first, polynomials * (1 - share)[:, None])
    np.add.at(on_rest, index - first + 1, polynomials * share[:, None])
    zero_point = AB_ZERO_ERG_S_CM2_HZ * C_AA_S * np.sum(weight * response / wave)
    lum_to_flux = ssp.lsun_erg_s / (4 * np.pi * (10 * _PC_CM) ** 2 * (1 + redshift))
    return ssp.lum_lsun_aa[:, :, first:last] @ on_rest * (lum_to_flux / zero_point)


def _quadrature(spectrum_aa: np.ndarray, filter_aa: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two Gauss-Legendre points in every interval between knots inside the filter."""
    low, high = filter_aa[0], filter_aa[-1]
    inside = spectrum_aa[(spectrum_aa > low) & (spectrum_aa < high)]
    knots = np.union1d(filter_aa, inside)
    x, w = np.polynomial.legendre.leggauss(2)
    half = 0.5 * np.diff(knots)[:, None]
    middle = 0.5 * (knots[1:] + knots[:-1])[:, None]
    return (middle + half * x).ravel(), (half * w).ravel()
