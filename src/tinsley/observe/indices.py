"""What a spectrum tells of age and dust: the 4000 A break, and attenuation at 5500 A.

Both are of the whole galaxy, all components and their dust together. For many galaxies the few
windows that they need are tabulated like bands, at rest (`make_index_tables`).
"""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tinsley.observe.filters import Filter
from tinsley.observe.photometry import (
    MASS_UNIT_LOG10_MSUN,
    BandTables,
    make_band_tables,
    rest_flux,
    tabulate_ssps,
)
from tinsley.parameters import MASS, Theta
from tinsley.sps.galaxy import FIXED_GRID, GalaxyModel, RedshiftGrid

BREAK_BLUE_AA = (3850.0, 3950.0)
BREAK_RED_AA = (4000.0, 4100.0)
"""The narrow bands of Balogh et al. (1999), here in vacuum."""
VISUAL_AA = (5450.0, 5550.0)


def dn4000(wave_rest_aa: np.ndarray, lum_aa: np.ndarray) -> float:
    """The 4000 A break of a spectrum: mean F_nu of 4000-4100 A over that of 3850-3950 A.

    Args:
        wave_rest_aa: Vacuum, Angstrom, increasing, over both bands, [wave].
        lum_aa: Luminosity or flux per Angstrom, linear between wavelengths, [wave].

    Raises:
        ValueError: The spectrum does not hold both bands.

    Source:
        Balogh et al. (1999). 1 for a spectrum flat in F_nu.
    """
    if wave_rest_aa[0] > BREAK_BLUE_AA[0] or wave_rest_aa[-1] < BREAK_RED_AA[1]:
        raise ValueError(
            f"the 4000 A break needs {BREAK_BLUE_AA[0]:.0f} to {BREAK_RED_AA[1]:.0f} A; the "
            f"spectrum has {wave_rest_aa[0]:.0f} to {wave_rest_aa[-1]:.0f} A."
        )
    blue, red = (_mean_nu(wave_rest_aa, lum_aa, *ends) for ends in (BREAK_BLUE_AA, BREAK_RED_AA))
    return red / blue


def make_index_tables(model: GalaxyModel, grid: RedshiftGrid) -> BandTables:
    """Tables of the three windows for `indices`; the redshifts of `grid` matter for ages alone."""
    windows = (
        _window("break-blue", BREAK_BLUE_AA, 1.0),
        _window("break-red", BREAK_RED_AA, 1.0),
        _window("visual", VISUAL_AA, -1.0),
    )
    at_rest = tabulate_ssps(model.ssp, windows, FIXED_GRID)
    everywhere = np.broadcast_to(at_rest, (grid.number, *at_rest.shape[1:]))
    return make_band_tables(model, windows, grid, everywhere)


@eqx.filter_jit
def indices(tables: BandTables, components: Sequence[Theta]) -> dict[str, Float[Array, " batch"]]:
    """`dn4000` and `a_v_mag` of galaxies that are made of one or more components.

    Args:
        tables: From `make_index_tables`.
        components: The parameters of each, with mass and `redshift`, every value [batch].

    Returns:
        dn4000: Of the total light after dust.
        a_v_mag: -2.5 log10 of the total light with dust over that without, 5450-5550 A. Of one
            component behind a screen: 1.086 tau (of young stars, both depths).

    Source:
        Checked against full spectra (tests/test_indices.py).
    """
    seen, clear = jnp.zeros(()), jnp.zeros(())
    for theta in components:
        mass = 10.0 ** (theta[MASS] - MASS_UNIT_LOG10_MSUN)[:, None]
        none = {name: jnp.zeros_like(theta[name]) for name in ("tau_bc", "tau_ism")}
        seen = seen + mass * rest_flux(tables, theta)
        clear = clear + mass * rest_flux(tables, {**theta, **none})
    a_v_mag = -2.5 * jnp.log10(seen[:, 2] / clear[:, 2])
    return {"dn4000": seen[:, 1] / seen[:, 0], "a_v_mag": a_v_mag}


def _mean_nu(wave_aa: np.ndarray, lum_aa: np.ndarray, low: float, high: float) -> float:
    """Mean of F_nu over a band, up to a constant: the integral of wave^2 F_lambda."""
    inside = wave_aa[(wave_aa > low) & (wave_aa < high)]
    knots = np.concatenate([[low], inside, [high]])
    fine = np.interp(np.arange(8 * len(knots) - 7) / 8, np.arange(len(knots)), knots)
    return float(np.trapezoid(fine**2 * np.interp(fine, wave_aa, lum_aa), fine))


def _window(name: str, ends_aa: tuple[float, float], power: float) -> Filter:
    """A band of constant weight, up to wave^power on top of the photons' wave."""
    wave_aa = np.linspace(*ends_aa, 41)
    return Filter(name, wave_aa, (wave_aa / ends_aa[0]) ** power)
