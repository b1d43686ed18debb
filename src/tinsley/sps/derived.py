"""Derived properties: what people ask of a galaxy, computed from its parameters."""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tinsley.parameters import MASS, Theta
from tinsley.sps.galaxy import GalaxyModel, History, RedshiftGrid, make_history
from tinsley.sps.interpolate import locate
from tinsley.sps.metallicity import AbstractMetallicity, ConstantMetallicity
from tinsley.sps.sfh import bin_edges_gyr
from tinsley.sps.ssp import age_weights

DERIVED = (
    "log10_sfr_100myr_msun_yr",
    "log10_sfr_1gyr_msun_yr",
    "log10_ssfr_100myr_yr",
    "age_mw_gyr",
    "log10_z_mw_zsun",
    "log10_mstar_surviving_msun",
)
"""Names of the derived properties, in order.

SFRs are means over the last 100 Myr and 1 Gyr; sSFR is per formed mass, floored at 1e-14/yr, and
the SFRs with it; age and metallicity are weighted by formed mass; the surviving mass is in living
stars and remnants.
"""
SSFR_FLOOR_YR = 1e-14
SPANS_GYR = (0.1, 1.0)


class DerivedTables(eqx.Module):
    """What `derived` needs, on the redshift grid of `history`.

    Attributes:
        recent: Mass that each basis forms in the last 0.1 and 1 Gyr, [z, 2, basis].
        living: Living fraction at the middle of each bin, [z, met, 42].
        living_ssp: Living fraction of the SSPs, [met, age].
        history, metallicity, log10_z_zsun, log10_age_yr: As in the band tables.
    """

    history: History
    metallicity: AbstractMetallicity
    recent: Array
    living: Array
    living_ssp: Array
    log10_z_zsun: Array
    log10_age_yr: Array

    def at_redshift(self, redshift: Float[Array, ""]) -> DerivedTables:
        """The same for galaxies that all are at one redshift."""
        history, blend = self.history.at_redshift(redshift), self.history.grid.blend
        recent, living = blend(self.recent, redshift), blend(self.living, redshift)
        return dataclasses.replace(self, history=history, recent=recent, living=living)


def make_derived_tables(model: GalaxyModel, grid: RedshiftGrid) -> DerivedTables:
    """Tabulate for a redshift grid, in float64 on the host."""
    history = make_history(model, grid)
    recent, living = [], []
    for i, redshift in enumerate(grid.nodes):
        age_gyr = float(model.cosmology.age(redshift).to_value("Gyr"))
        shares = np.stack([_share_before(bin_edges_gyr(age_gyr), span) for span in SPANS_GYR])
        recent.append(np.einsum("sb,kb->sk", shares, np.asarray(history.mass[i], float)))
        at_bins = age_weights(model.ssp, np.asarray(history.centre_gyr[i], float))
        living.append(model.ssp.live_fraction @ at_bins.T)
    return DerivedTables(
        history=history,
        metallicity=model.metallicity,
        recent=jnp.asarray(np.stack(recent), dtype=float),
        living=jnp.asarray(np.stack(living), dtype=float),
        living_ssp=jnp.asarray(model.ssp.live_fraction, dtype=float),
        log10_z_zsun=jnp.asarray(model.ssp.log10_z_zsun, dtype=float),
        log10_age_yr=jnp.asarray(model.ssp.log10_age_yr, dtype=float),
    )


@eqx.filter_jit
def derived(tables: DerivedTables, theta: Theta) -> dict[str, Float[Array, " batch"]]:
    """The properties in `DERIVED` for each galaxy.

    Args:
        tables: From `make_derived_tables`.
        theta: Every parameter and `redshift`, each [batch].

    Source:
        PROVABGS's definitions (Hahn et al. 2023). Checked against
        `tinsley.observe.exact.exact_derived` and against provabgs itself (tests/test_provabgs.py).
    """
    log10_mass = theta[MASS]
    history = tables.history
    mass, centre_gyr = history.bins(theta)
    f_burst, t_burst = history.f_burst(theta), theta["t_burst_gyr"]
    log10_z = tables.metallicity.of_bins(theta, centre_gyr, mass)
    log10_z_burst = tables.metallicity.of_burst(theta, centre_gyr, mass)

    log10_ssfr = _log10_recent(tables, theta, f_burst)
    age_gyr = jnp.sum(mass * centre_gyr, axis=-1) + f_burst * t_burst
    z_mean = jnp.sum(mass * 10**log10_z, axis=-1) + f_burst * 10**log10_z_burst
    if isinstance(tables.metallicity, ConstantMetallicity):
        log10_z_mean = theta["log10_z_zsun"]
    else:
        log10_z_mean = jnp.log10(z_mean)
    living = jnp.sum(mass * _living_bins(tables, theta, log10_z), axis=-1)
    living = living + f_burst * _living_burst(tables, t_burst, log10_z_burst)
    return {
        "log10_sfr_100myr_msun_yr": log10_ssfr[0] + log10_mass,
        "log10_sfr_1gyr_msun_yr": log10_ssfr[1] + log10_mass,
        "log10_ssfr_100myr_yr": log10_ssfr[0],
        "age_mw_gyr": age_gyr,
        "log10_z_mw_zsun": log10_z_mean,
        "log10_mstar_surviving_msun": jnp.log10(living) + log10_mass,
    }


def _log10_recent(tables: DerivedTables, theta: Theta, f_burst: Array) -> list[Array]:
    """log10 of the mass formed in each span per year and per formed mass, floored."""
    c = tables.history.coefficients(theta)
    out = []
    for s, span_gyr in enumerate(SPANS_GYR):
        smooth = jnp.sum(c * tables.history.at(tables.recent[:, s], theta), axis=-1)
        formed = smooth + f_burst * (theta["t_burst_gyr"] < span_gyr)
        out.append(jnp.log10(jnp.maximum(formed / (span_gyr * 1e9), SSFR_FLOOR_YR)))
    return out


def _living_bins(tables: DerivedTables, theta: Theta, log10_z: Array) -> Array:
    """Living fraction of each bin, [batch, 42]."""
    table = tables.history.at(tables.living, theta)
    if isinstance(tables.metallicity, ConstantMetallicity):
        log10_z = log10_z[:, :1]
    low, share = locate(tables.log10_z_zsun, log10_z)
    if tables.history.grid.is_fixed:
        bins = jnp.arange(table.shape[2])
        below, above = table[0, low, bins], table[0, low + 1, bins]
        return below * (1 - share) + above * share
    below = jnp.take_along_axis(table, low[:, None, :], axis=1)[:, 0]
    above = jnp.take_along_axis(table, low[:, None, :] + 1, axis=1)[:, 0]
    return below * (1 - share) + above * share


def _living_burst(tables: DerivedTables, t_burst_gyr: Array, log10_z: Array) -> Array:
    low_m, m = locate(tables.log10_z_zsun, log10_z)
    log10_age_yr = 9.0 + jnp.log10(jnp.maximum(t_burst_gyr, 1e-9))
    low_a, a = locate(tables.log10_age_yr, log10_age_yr)
    ssp = tables.living_ssp
    below = ssp[low_m, low_a] * (1 - a) + ssp[low_m, low_a + 1] * a
    above = ssp[low_m + 1, low_a] * (1 - a) + ssp[low_m + 1, low_a + 1] * a
    return below * (1 - m) + above * m


def _share_before(edges_gyr: np.ndarray, span_gyr: float) -> np.ndarray:
    """Share of each bin that is younger than `span_gyr`, [42]."""
    width = np.maximum(np.diff(edges_gyr), 1e-12)
    return np.clip((span_gyr - edges_gyr[:-1]) / width, 0.0, 1.0)
