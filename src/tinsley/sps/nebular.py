"""Nebular emission: lines and continuum of the gas around young stars."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from tinsley.sps.ssp import SspGrid, linear_weights


@dataclass(frozen=True)
class NebularGrid:
    """What gas emits that takes up every ionising photon of a simple stellar population.

    Linear between nodes in log U, log metallicity and log age, as the stars are. Stars younger than
    the first age count as of that age; around those older than the last there is no such gas.

    Attributes:
        log10_u: Ionisation parameter, increasing, [u].
        log10_z_zsun: Metallicity of stars and gas, log10(Z / 0.019), increasing, [met].
        log10_age_yr: Age of the stars, log10 years, increasing, [age].
        line_wave_aa: Vacuum wavelength of each line, Angstrom, increasing, [line].
        line_lum_lsun: Luminosity, Lsun per Msun formed, [u, met, age, line].
        wave_aa: Vacuum wavelengths of the continuum, Angstrom, increasing, [wave].
        lum_lsun_aa: Continuum, Lsun/Angstrom per Msun formed, [u, met, age, wave].
        lsun_erg_s: The solar luminosity that they count in, erg/s.
        about: Where it comes from.
    """

    arrays: ClassVar[tuple[str, ...]] = (
        *("log10_u", "log10_z_zsun", "log10_age_yr"),
        *("line_wave_aa", "line_lum_lsun", "wave_aa", "lum_lsun_aa"),
    )
    log10_u: np.ndarray
    log10_z_zsun: np.ndarray
    log10_age_yr: np.ndarray
    line_wave_aa: np.ndarray
    line_lum_lsun: np.ndarray
    wave_aa: np.ndarray
    lum_lsun_aa: np.ndarray
    lsun_erg_s: float
    about: dict[str, str] = field(default_factory=dict)


def with_nebular(ssp: SspGrid, gas: NebularGrid, log10_u: float) -> SspGrid:
    """Stars with the nebular emission of their gas, which ages and is dimmed with them.

    Each line is put on the two wavelengths of the stars' grid around it, so that integrals over a
    band have its luminosity and its wavelength; its width is the grid's. Emission of stars that
    have left their birth clouds, the last thousandth of it, is not behind these.

    Args:
        ssp: The stars, of any grid; their own light is left as it is.
        gas: Of stars like these.
        log10_u: Ionisation parameter; -3 is usual in galaxies nearby.

    Raises:
        ValueError: The ionisation parameter is beyond the grid.

    Source:
        As bagpipes has it (Carnall et al. 2018; Byler et al. 2017 tell how such grids are made),
        against whose photometry it is checked in tests/test_bagpipes.py; H-alpha of constant star
        formation against a published one in tests/test_nebular.py.
    """
    low, high = gas.log10_u[0], gas.log10_u[-1]
    if not low <= log10_u <= high:
        raise ValueError(f"expected log10 U between {low:g} and {high:g}; got {log10_u:g}.")
    lines = _of_ssps(gas.line_lum_lsun, ssp, gas, log10_u) @ _on_wave(ssp, gas.line_wave_aa)
    continuum = _of_ssps(gas.lum_lsun_aa, ssp, gas, log10_u)
    smooth = continuum @ _inside(ssp.wave_rest_aa, gas.wave_aa).T
    light = (lines + smooth) * (gas.lsun_erg_s / ssp.lsun_erg_s)
    about = ssp.about | {"nebular": f"log U = {log10_u:g}; " + gas.about.get("source", "")}
    lit = ssp.lum_lsun_aa + light
    return dataclasses.replace(ssp, lum_lsun_aa=lit, about=about, has_lines=True)


def _of_ssps(table: np.ndarray, ssp: SspGrid, gas: NebularGrid, log10_u: float) -> np.ndarray:
    """A table [u, met, age, wave] at the nodes of the stars' grid, [met, age, wave]."""
    at_u = np.tensordot(linear_weights(gas.log10_u, np.array(log10_u)), table, axes=1)
    at_met = linear_weights(gas.log10_z_zsun, ssp.log10_z_zsun)
    at_age = linear_weights(gas.log10_age_yr, ssp.log10_age_yr)
    at_age[ssp.log10_age_yr > gas.log10_age_yr[-1] + 1e-4] = 0.0
    return np.einsum("mz,zaw,na->mnw", at_met, at_u, at_age, optimize=True)


def _on_wave(ssp: SspGrid, line_wave_aa: np.ndarray) -> np.ndarray:
    """Luminosity per Angstrom that lines of 1 Lsun add to each wavelength, [line, wave]."""
    return _inside(line_wave_aa, ssp.wave_rest_aa) / np.gradient(ssp.wave_rest_aa)


def _inside(x: np.ndarray, nodes: np.ndarray) -> np.ndarray:
    """Weights of linear interpolation, [x, node]: none beyond the ends."""
    return linear_weights(nodes, x) * ((x >= nodes[0]) & (x <= nodes[-1]))[:, None]
