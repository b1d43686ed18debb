"""Published relations to compare a population with, as formulas.

Two that are often drawn beside these are not here because not every coefficient could be verified:
McGaugh, Schombert & Lelli (2017), of which the abstract gives the slope, 1.04 +- 0.06, but not the
zero point, and Sánchez et al. (2019).
"""

from __future__ import annotations

import numpy as np

SALPETER_TO_KROUPA = 0.67
"""What star-formation rates are multiplied by to change the IMF (Madau & Dickinson 2014, sec. 3);
Tinsley's embedded SSPs are of Kroupa's."""


def renzini_peng_2015(log10_mstar_msun: np.ndarray) -> np.ndarray:
    """Star-forming sequence of SDSS galaxies at 0.02 < z < 0.085: log10 SFR, Msun/yr.

    Args:
        log10_mstar_msun: Mass in living stars and remnants.

    Source:
        Renzini & Peng (2015), eq. 1: (0.76 +- 0.01) log10 M - (7.64 +- 0.02); the ridge of the
        number of galaxies in the plane. Coefficients as in
        public codes that cite it; within 0.25 dex of GAMA's (tests/test_summaries.py).
    """
    return 0.76 * np.asarray(log10_mstar_msun) - 7.64


def madau_dickinson_2014(redshift: np.ndarray, sfr_share: float = SALPETER_TO_KROUPA) -> np.ndarray:
    """Cosmic star-formation history: Msun/yr per comoving Mpc^3 (H0 = 70).

    Args:
        redshift: 0-8.
        sfr_share: From the paper's Salpeter IMF to another; 1 for the paper's own.

    Source:
        Madau & Dickinson (2014), eq. 15. Coefficients as in public codes that cite it; within
        the scatter of published points (tests/test_volume.py).
    """
    one_plus_z = 1 + np.asarray(redshift, float)
    return sfr_share * 0.015 * one_plus_z**2.7 / (1 + (one_plus_z / 2.9) ** 5.6)
