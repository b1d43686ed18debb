"""Exact photometry: full spectra, float64, one galaxy at a time. The oracle of band tables.

It shares nothing with `tinsley.observe.photometry` but the grid, the bases and the filter curves
that both are given: bins, interpolation, dust, distance and integration are written again, plainly
and slowly, so that an error in one shows against the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tinsley.observe.filters import Filter
from tinsley.sps.galaxy import GalaxyModel
from tinsley.sps.metallicity import ConstantMetallicity, Enrichment, NmfMetallicity

Values = Mapping[str, float]


@dataclass(frozen=True)
class Stars:
    """Stars of one galaxy per mass formed: one entry per time bin, then the burst, [43]."""

    mass: np.ndarray
    age_gyr: np.ndarray
    log10_z_zsun: np.ndarray
    young: np.ndarray


def exact_photometry(
    model: GalaxyModel,
    filters: tuple[Filter, ...],
    theta: Values,
    population: Stars | None = None,
) -> np.ndarray:
    """Flux of one galaxy in each band, nanomaggies, by full-resolution integrals, [band].

    Its stars are those that `theta` describes, or `population` where that is given.
    """
    redshift = float(theta["redshift"])
    wave_rest_aa, lum_lsun_aa = rest_spectrum(model, theta, population)
    dl_cm = model.cosmology.luminosity_distance(redshift).to_value("cm")
    wave_aa = wave_rest_aa * (1 + redshift)
    flux_aa = lum_lsun_aa * model.ssp.lsun_erg_s / (4 * np.pi * dl_cm**2 * (1 + redshift))
    mass = 10 ** float(theta["log10_mstar_msun"])
    return np.asarray([1e9 * mass * maggies(wave_aa, flux_aa, f) for f in filters])


def maggies(wave_aa: np.ndarray, flux_erg_s_cm2_aa: np.ndarray, band: Filter) -> float:
    """AB maggies of a spectrum through a photon-counting filter.

    Trapezoids on the union of both tables' wavelengths, each interval cut in eight.
    """
    inside = (wave_aa > band.wave_aa[0]) & (wave_aa < band.wave_aa[-1])
    knots = np.union1d(wave_aa[inside], band.wave_aa)
    fine = np.interp(np.arange(8 * len(knots) - 7) / 8, np.arange(len(knots)), knots)
    response = np.interp(fine, band.wave_aa, band.response)
    counts = np.trapezoid(
        np.interp(fine, wave_aa, flux_erg_s_cm2_aa, left=0, right=0) * response * fine, fine
    )
    ab_counts = np.trapezoid(3.631e-20 * 2.99792458e18 / fine**2 * response * fine, fine)
    return float(counts / ab_counts)


def rest_spectrum(
    model: GalaxyModel, theta: Values, population: Stars | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Rest wavelengths, Angstrom, and luminosity after dust, Lsun/Angstrom per Msun formed."""
    wave = model.ssp.wave_rest_aa
    population = population or stars(model, theta)
    young = _light(model, population, population.young)
    old = _light(model, population, ~population.young)
    cloud = np.exp(-theta["tau_bc"] * 5500.0 / wave)
    total = (young * cloud + old) * np.exp(-_diffuse_depth(model, wave, theta))
    return wave, total


def stars(model: GalaxyModel, theta: Values) -> Stars:
    """The mass, age and metallicity of a galaxy's stars, bin by bin, then the burst."""
    age_gyr = _age_gyr(model, float(theta["redshift"]))
    edges = _edges_gyr(age_gyr)
    beta = np.array([theta[f"beta_{k}"] for k in (1, 2, 3, 4)])
    formed = np.array(
        [_integral(model, beta, a, b) for a, b in zip(edges, edges[1:], strict=False)]
    )
    centre = (edges[1:] + edges[:-1]) / 2
    t_burst = float(theta["t_burst_gyr"])
    f_burst = float(theta["f_burst"]) if t_burst <= age_gyr else 0.0
    mass = np.append((1 - f_burst) * formed / formed.sum(), f_burst)
    ages = np.append(centre, t_burst)
    limit_gyr = model.dust.t_birth_cloud_gyr
    young = np.append(edges[1:] <= limit_gyr * 1.0001, False)
    return Stars(mass, ages, _log10_z(model, theta, mass, ages), young)


def stars_of_history(model: GalaxyModel, theta: Values, mass_fraction: np.ndarray) -> Stars:
    """Stars of a history that no bases need describe.

    Args:
        model: The physics; its bases do not matter.
        theta: Metallicity and `redshift`.
        mass_fraction: Share of the formed mass in each PROVABGS bin, youngest first, 0 beyond the
            galaxy's age, [42].
    """
    edges = _edges_gyr(_age_gyr(model, float(theta["redshift"])))
    mass = np.asarray(mass_fraction, float)[: len(edges) - 1]
    centre = (edges[1:] + edges[:-1]) / 2
    young = edges[1:] <= model.dust.t_birth_cloud_gyr * 1.0001
    return Stars(mass, centre, _log10_z(model, theta, mass, centre), young)


def derived_of_history(
    model: GalaxyModel, theta: Values, mass_fraction: np.ndarray
) -> dict[str, float]:
    """Every property of `tinsley.sps.derived.DERIVED` for such a history, by the same conventions.

    Arguments as for `stars_of_history`; `theta` holds the formed mass too.
    """
    population = stars_of_history(model, theta, mass_fraction)
    edges = _edges_gyr(_age_gyr(model, float(theta["redshift"])))
    log10_mass = float(theta["log10_mstar_msun"])

    def log10_ssfr(span_gyr: float) -> float:
        recent = population.mass @ _younger(edges, span_gyr)
        return float(np.log10(max(recent / (1e9 * span_gyr), 1e-14)))

    return {
        "log10_sfr_100myr_msun_yr": log10_ssfr(0.1) + log10_mass,
        "log10_sfr_1gyr_msun_yr": log10_ssfr(1.0) + log10_mass,
        "log10_ssfr_100myr_yr": log10_ssfr(0.1),
    } | _means(model, population, 10**log10_mass)


def exact_derived(model: GalaxyModel, theta: Values) -> dict[str, float]:
    """Derived properties of one galaxy; names and units as in `tinsley.sps.derived`."""
    population = stars(model, theta)
    mass_formed = 10 ** float(theta["log10_mstar_msun"])
    age_gyr = _age_gyr(model, float(theta["redshift"]))
    beta = np.array([theta[f"beta_{k}"] for k in (1, 2, 3, 4)])
    smooth = population.mass[:-1].sum() / _integral(model, beta, 0.0, age_gyr)

    def sfr(span_gyr: float) -> float:
        recent = smooth * _bin_share(model, beta, span_gyr, age_gyr)
        recent += population.mass[-1] * (population.age_gyr[-1] < span_gyr)
        return mass_formed * recent / (1e9 * span_gyr)

    recent = {"sfr_100myr": sfr(0.1), "sfr_1gyr": sfr(1.0)}
    return recent | _means(model, population, mass_formed)


def _means(model: GalaxyModel, population: Stars, mass_formed: float) -> dict[str, float]:
    """Properties that are sums over all stars."""
    living = [
        _between(model, model.ssp.live_fraction[..., None], age, z)[0]
        for age, z in zip(population.age_gyr, population.log10_z_zsun, strict=True)
    ]
    surviving = mass_formed * float(population.mass @ living)
    z_mean = float(population.mass @ 10**population.log10_z_zsun)
    return {
        "age_mw_gyr": float(population.mass @ population.age_gyr),
        "log10_z_mw_zsun": float(np.log10(z_mean)),
        "log10_mstar_surviving_msun": float(np.log10(surviving)),
    }


def _bin_share(model: GalaxyModel, beta: np.ndarray, span_gyr: float, age_gyr: float) -> float:
    """Mass of the smooth history younger than `span_gyr`; the last bin shared in proportion."""
    edges = _edges_gyr(age_gyr)
    shares = _younger(edges, span_gyr)
    recent = zip(edges, edges[1:], shares[shares > 0], strict=False)
    return sum(share * _integral(model, beta, a, b) for a, b, share in recent)


def _younger(edges_gyr: np.ndarray, span_gyr: float) -> np.ndarray:
    """Share of each bin that is younger than `span_gyr`."""
    return ((span_gyr - edges_gyr[:-1]) / np.diff(edges_gyr)).clip(0, 1)


def _edges_gyr(age_gyr: float) -> np.ndarray:
    """Lookback times between bins, Gyr: PROVABGS's, then the galaxy's age."""
    uncut = [0.0] + [10 ** (6.05 + 0.1 * j) / 1e9 for j in range(41)] + [13.8]
    return np.array([e for e in uncut if e < age_gyr] + [age_gyr])


def _age_gyr(model: GalaxyModel, redshift: float) -> float:
    return float(model.cosmology.age(redshift).to_value("Gyr"))


def _integral(model: GalaxyModel, beta: np.ndarray, start_gyr: float, stop_gyr: float) -> float:
    """Integral of the smooth SFH over an interval: trapezoids between its own knots."""
    time, sfr = model.bases.lookback_gyr, beta @ model.bases.sfr
    knots = np.concatenate([[start_gyr], time[(time > start_gyr) & (time < stop_gyr)], [stop_gyr]])
    value = np.interp(knots, time, sfr)
    below, above = knots < time[0], knots > time[-1]
    value[below] = sfr[0] + (knots[below] - time[0]) * (sfr[1] - sfr[0]) / (time[1] - time[0])
    slope = (sfr[-1] - sfr[-2]) / (time[-1] - time[-2])
    value[above] = sfr[-1] + (knots[above] - time[-1]) * slope
    return float(np.trapezoid(value, knots))


def _log10_z(model: GalaxyModel, theta: Values, mass: np.ndarray, ages: np.ndarray) -> np.ndarray:
    """log10 Z / 0.019 of every bin and of the burst."""
    history = model.metallicity
    if isinstance(history, ConstantMetallicity):
        return np.full(len(ages), float(theta["log10_z_zsun"]))
    if isinstance(history, NmfMetallicity):
        time = np.asarray(history.time_gyr, float)
        z1, z2 = (_extrapolated(ages, time, np.asarray(b, float)) for b in history.bases)
        z = theta["gamma_1"] * z1 + theta["gamma_2"] * z2
        return np.log10(np.clip(z, 4.49043431e-5, 4.49043431e-2) / 0.019)
    if isinstance(history, Enrichment):
        before = np.array([mass[ages > t].sum() + 0.5 * m for t, m in zip(ages, mass, strict=True)])
        z_now = 0.019 * 10 ** theta["log10_z_zsun"]
        return np.log10((history.z_start + (z_now - history.z_start) * before) / 0.019)
    raise TypeError(f"no exact form of {type(history).__name__}; add it to tinsley.observe.exact.")


def _extrapolated(x: np.ndarray, time: np.ndarray, value: np.ndarray) -> np.ndarray:
    out = np.interp(x, time, value)
    low, high = x < time[0], x > time[-1]
    out[low] = value[0] + (x[low] - time[0]) * (value[1] - value[0]) / (time[1] - time[0])
    end = (value[-1] - value[-2]) / (time[-1] - time[-2])
    out[high] = value[-1] + (x[high] - time[-1]) * end
    return out


def _light(model: GalaxyModel, population: Stars, which: np.ndarray) -> np.ndarray:
    """Sum of the SSP spectra of some of the stars, Lsun/Angstrom per Msun formed."""
    total = np.zeros(len(model.ssp.wave_rest_aa))
    for mass, age, z in zip(
        population.mass[which],
        population.age_gyr[which],
        population.log10_z_zsun[which],
        strict=True,
    ):
        if mass != 0:
            total += mass * _between(model, model.ssp.lum_lsun_aa, age, z)
    return total


def _between(model: GalaxyModel, table: np.ndarray, age_gyr: float, log10_z: float) -> np.ndarray:
    """Bilinear in log age and log Z, clipped to the grid; table [met, age, ...]."""
    i, a = _bracket(model.ssp.log10_age_yr, np.log10(max(age_gyr, 1e-9)) + 9)
    j, b = _bracket(model.ssp.log10_z_zsun, log10_z)
    low = (1 - a) * table[j, i] + a * table[j, i + 1]
    high = (1 - a) * table[j + 1, i] + a * table[j + 1, i + 1]
    return (1 - b) * low + b * high


def _bracket(nodes: np.ndarray, x: float) -> tuple[int, float]:
    x = min(max(x, nodes[0]), nodes[-1])
    i = max(i for i in range(len(nodes) - 1) if nodes[i] <= x)
    return i, (x - nodes[i]) / (nodes[i + 1] - nodes[i])


def _diffuse_depth(model: GalaxyModel, wave_aa: np.ndarray, theta: Values) -> np.ndarray:
    """Kriek & Conroy (2013) optical depth."""
    micron = wave_aa / 1e4
    k = np.where(
        wave_aa > 6300,
        2.659 * (-1.857 + 1.040 / micron) + 4.05,
        2.659 * (-2.156 + 1.509 / micron - 0.198 / micron**2 + 0.011 / micron**3) + 4.05,
    ).clip(min=0)
    bump = 0.85 - 1.9 * theta["n_dust"]
    if not model.dust.negative_bump:
        bump = max(bump, 0.0)
    drude = (350 * wave_aa) ** 2 / ((wave_aa**2 - 2175**2) ** 2 + (350 * wave_aa) ** 2)
    curve = ((k + bump * drude) / 4.05).clip(min=0)
    return theta["tau_ism"] * curve * (wave_aa / 5500) ** theta["n_dust"]
