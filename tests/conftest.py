"""Fixtures that several test modules share."""

from __future__ import annotations

import numpy as np
import pytest

from tinsley.sps.ssp import SspGrid


@pytest.fixture
def tiny_ssp() -> SspGrid:
    """A made-up grid of black bodies that fade and redden: 3 metallicities, 8 ages, 50 waves."""
    log10_z_zsun = np.array([-1.5, -0.5, 0.3])
    log10_age_yr = np.linspace(6.0, 10.2, 8)
    wave_rest_aa = np.geomspace(912.0, 50_000.0, 50)
    temperature_k = 25_000 * 10 ** (-0.17 * (log10_age_yr - 6) - 0.05 * log10_z_zsun[:, None])
    x = 1.4388e8 / (wave_rest_aa * temperature_k[..., None])
    shape = wave_rest_aa**-5.0 / np.expm1(x)
    bolometric_lsun = 1e3 * 10 ** (-0.8 * (log10_age_yr - 6))
    scale = bolometric_lsun[:, None] / np.trapezoid(shape, wave_rest_aa)[..., None]
    return SspGrid(
        log10_z_zsun=log10_z_zsun,
        log10_age_yr=log10_age_yr,
        wave_rest_aa=wave_rest_aa,
        lum_lsun_aa=scale * shape,
        live_fraction=np.tile(np.linspace(1.0, 0.45, 8), (3, 1)),
        name="tiny",
        about={"source": "made up"},
    )
