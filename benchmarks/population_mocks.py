"""Mock catalogues whose population is known: (redshift, mass) of a flux-limited survey.

The papers resample GAMA's redshifts and masses, which can not ship; here they follow a mass
function, so much volume as there is, and whatever is brighter than the survey's limit. The mock
"diffstarpop" has star-formation histories that the model's four bases can not make, and photometry
by full-resolution integrals, which share nothing with the band tables of the fit.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial import cKDTree
from scipy.stats import truncnorm

from tinsley.cosmology import default_cosmology
from tinsley.io.filters import load_filters
from tinsley.io.histories import load_diffstarpop_histories
from tinsley.io.models import build_model
from tinsley.io.priors import load_prior
from tinsley.io.results import write_parquet
from tinsley.io.surveys import load_survey
from tinsley.observe.exact import derived_of_history, exact_photometry, stars_of_history
from tinsley.observe.noise import SnrGivenFlux
from tinsley.observe.photometry import BandTables, photometry
from tinsley.observe.survey import AB_ZEROPOINT_MAG, Survey
from tinsley.parameters import BETAS, MASS
from tinsley.population.synthetic import Selection, parse_selection, record
from tinsley.sps.sfh import bin_edges_gyr

R_LIMIT_MAG = 19.8
SELECT = f"r < {R_LIMIT_MAG}, snr > 1"
"""The cut that every mock has passed, in the words of `--select`."""
MASS_FUNCTION = load_prior("volume_mass_function").entries["log10_mstar_surviving_msun"]
LOG10_MASS_STAR = MASS_FUNCTION["log10_m_star_msun"] + 0.2
"""Of the double Schechter function of Baldry et al. (2012): from surviving to formed mass."""
DEPTH_MAG = (22.0, 22.2, 22.2, 21.3, 20.5)
"""SDSS ugriz, 5 sigma, point sources; galaxies 0.7 mag less."""
FLOOR_MAG = (0.05, 0.02, 0.02, 0.02, 0.03)
LEAST_T_BURST_GYR = 0.01
"""Of Table 2. Younger bursts shine so much that a flux limit takes them first."""
_LEAST_MASS_TO_LIGHT = 0.1


@dataclass(frozen=True)
class Mock:
    """A catalogue and its truth.

    Attributes:
        theta: True parameters and redshift, each [n]; of "diffstarpop", which has not all of the
            model's parameters, derived properties too.
        flux: Nanomaggies, [n, band].
        sigma: [n, band].
    """

    theta: dict[str, np.ndarray]
    flux: np.ndarray
    sigma: np.ndarray


def gama_like_noise() -> SnrGivenFlux:
    """S/N of a survey of SDSS's depth, with its floors, scattered by 0.1 dex."""
    mag = np.linspace(10.0, 28.0, 73)
    sky_nmgy = 10 ** (0.4 * (AB_ZEROPOINT_MAG - np.array(DEPTH_MAG) + 0.7)) / 5
    flux = 10 ** (0.4 * (AB_ZEROPOINT_MAG - mag))
    error = np.hypot(sky_nmgy[:, None], 0.921 * np.array(FLOOR_MAG)[:, None] * flux)
    log10_snr = jnp.asarray(np.log10(flux / error), dtype=float)
    nodes = jnp.asarray(np.broadcast_to(mag, log10_snr.shape), dtype=float)
    return SnrGivenFlux(nodes, log10_snr, jnp.full(log10_snr.shape, 0.1))


def truncated_normal(rng, number, low, high, mean, sd):
    """Normal draws inside (low, high); `mean` is one number, or one for each."""
    return truncnorm.rvs((low - mean) / sd, (high - mean) / sd, mean, sd, number, random_state=rng)


def table_2(rng, number, log10_mass, redshift) -> dict[str, np.ndarray]:
    """PopSED's Table 2: broad and uncorrelated; the kappas straight into the warped map.

    Metallicities and slopes of the dust end where the default prior does, -2.2 and 0.4, not at -2.6
    and 1; bursts older than the galaxy are drawn anew, uniformly (`make_mock`).
    """
    k1 = truncated_normal(rng, number, 0, 1, 0.5, 0.3)
    k2, k3 = rng.uniform(size=(2, number))
    shares = (1 - k1, k1 * (1 - k2), k1 * k2 * (1 - k3), k1 * k2 * k3)
    return dict(zip(BETAS, shares, strict=True)) | {
        "f_burst": truncated_normal(rng, number, 0, 1, 0.1, 0.7),
        "t_burst_gyr": truncated_normal(rng, number, LEAST_T_BURST_GYR, 13.27, 12, 7),
        "log10_z_zsun": truncated_normal(rng, number, -2.2, 0.3, -1.2, 0.9),
        "tau_bc": truncated_normal(rng, number, 0, 3, 1, 0.8),
        "tau_ism": truncated_normal(rng, number, 0, 3, 0.6, 0.8),
        "n_dust": truncated_normal(rng, number, -2, 0.4, 2, 2),
    }


def narrow(rng, number, log10_mass, redshift) -> dict[str, np.ndarray]:
    """The harder one: little dust, weak bursts, a mass-metallicity relation, and a main sequence.

    Massive galaxies are old; among the others star formation scatters little about its mean.
    """
    young = 1 / (1 + np.exp(2.5 * (log10_mass - 10.6)))
    concentration = 25.0
    mean = np.stack([0.1 + 0.45 * young, 0.2 + 0.1 * young, 0.3 - 0.2 * young, 0.4 - 0.35 * young])
    gamma = rng.gamma(concentration * mean)
    shares = gamma / gamma.sum(axis=0)
    metallicity = -0.4 + 0.35 * (log10_mass - 10) + rng.normal(0, 0.12, number)
    return dict(zip(BETAS, shares, strict=True)) | {
        "f_burst": truncated_normal(rng, number, 0, 1, 0.0, 0.05),
        "t_burst_gyr": rng.uniform(0.5, 11, number),
        "log10_z_zsun": np.clip(metallicity, -2.1, 0.28),
        "tau_bc": truncated_normal(rng, number, 0, 3, 0.6, 0.2),
        "tau_ism": truncated_normal(rng, number, 0, 3, 0.15 + 0.25 * young, 0.1),
        "n_dust": truncated_normal(rng, number, -2, 0.4, -0.4, 0.2),
    }


KINDS = {"table-2": table_2, "narrow": narrow, "diffstarpop": narrow}
"""What each is drawn from; of "diffstarpop" metallicity and dust alone."""
HISTORIES = "diffstarpop"
HOPELESS = 6.0
"""Galaxies that the model's own histories leave so many times too faint are given up at once."""
NEIGHBOURS = 8
"""A galaxy's history is one of so many that are near its redshift and mass."""


def with_histories(
    rng: np.random.Generator, theta: dict[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """DiffstarPop's histories in the place of the model's; all properties, and exact fluxes.

    By full-resolution integrals: tens of galaxies a second.
    """
    model, known = build_model(), load_diffstarpop_histories()
    filters = load_filters(load_survey("sdss").filters)
    kept = {n: v for n, v in theta.items() if n not in (*BETAS, "f_burst", "t_burst_gyr")}
    scale, number = np.array([0.05, 0.2]), len(kept[MASS])
    tree = cKDTree(np.stack([known.redshift, known.log10_mstar_formed_msun], axis=1) / scale)
    near = tree.query(np.stack([kept["redshift"], kept[MASS]], axis=1) / scale, NEIGHBOURS)[1]
    rows = near[np.arange(number), rng.integers(0, NEIGHBOURS, number)]
    flux, made = [], []
    for i, history in enumerate(known.mass_fraction[rows]):
        one = {name: float(values[i]) for name, values in kept.items()}
        share = within_age(history, float(model.cosmology.age(one["redshift"]).to_value("Gyr")))
        flux.append(exact_photometry(model, filters, one, stars_of_history(model, one, share)))
        made.append(derived_of_history(model, one, share))
    return kept | {n: np.array([row[n] for row in made]) for n in made[0]}, np.stack(flux)


def within_age(share: np.ndarray, age_gyr: float) -> np.ndarray:
    """A history of another redshift with nothing before the galaxy's own beginning."""
    left = np.where(bin_edges_gyr(age_gyr)[:-1] < age_gyr, share, 0.0)
    return left / left.sum()


def make_mock(tables: BandTables, kind: str, number: int, z_max: float, seed: int) -> Mock:
    """A catalogue of `number` galaxies with r < 19.8 and S/N > 1 in every band."""
    rng = np.random.default_rng(seed)
    limit = 10 ** (0.4 * (AB_ZEROPOINT_MAG - R_LIMIT_MAG))
    selection = parse_selection(SELECT, mock_survey().bands)
    draw_mass, noise, parts, have = _mass_sampler(z_max), gama_like_noise(), [], 0
    key = jax.random.key(seed)
    while have < number:
        log10_mass, redshift = draw_mass(rng, 4_000 if kind == HISTORIES else 40_000)
        theta = KINDS[kind](rng, len(redshift), log10_mass, redshift)
        age = np.asarray(tables.history.cosmology.age_gyr(jnp.asarray(redshift, dtype=float)))
        younger = rng.uniform(LEAST_T_BURST_GYR, age)
        theta["t_burst_gyr"] = np.where(theta["t_burst_gyr"] < age, theta["t_burst_gyr"], younger)
        theta |= {MASS: log10_mass, "redshift": redshift}
        true = photometry(tables, {k: jnp.asarray(v, dtype=float) for k, v in theta.items()})
        if kind == HISTORIES:
            bright = np.flatnonzero(np.asarray(true)[:, 2] > limit / HOPELESS)
            theta, exact = with_histories(rng, {k: v[bright] for k, v in theta.items()})
            true = jnp.asarray(exact, dtype=float)
        key, one = jax.random.split(key)
        everything = record(true, noise, Selection((-np.inf,) * 5), key=one)
        flux, sigma = np.asarray(everything.flux, float), np.asarray(everything.sigma, float)
        kept = selection.passes(flux, sigma)
        columns = {k: v[kept] for k, v in theta.items()}
        parts.append(Mock(columns, flux[kept], sigma[kept]))
        have += int(kept.sum())
    theta = {k: np.concatenate([p.theta[k] for p in parts])[:number] for k in parts[0].theta}
    flux, sigma = (np.concatenate([getattr(p, n) for p in parts]) for n in ("flux", "sigma"))
    return Mock(theta, flux[:number], sigma[:number])


def mock_survey() -> Survey:
    """The survey of the mocks: their errors have their floors already."""
    survey = load_survey("sdss")
    return dataclasses.replace(survey, error_floor_mag=np.zeros(len(survey.bands)))


def write_mock(path: Path, mock: Mock, number: int) -> None:
    """The first galaxies of a mock as a table: photometry, redshift, and the truth beside."""
    columns = {"object_id": np.arange(number), "redshift": mock.theta["redshift"][:number]}
    for b, band in enumerate(mock_survey().bands):
        columns[f"flux_{band}"] = mock.flux[:number, b]
        columns[f"flux_err_{band}"] = mock.sigma[:number, b]
    truth = {f"true_{k}": v[:number] for k, v in mock.theta.items()}
    write_parquet(path, columns | truth, {})


def _mass_sampler(z_max: float):
    """(log10 mass, redshift) in proportion to mass function and volume, as far as can be seen."""
    cosmology = default_cosmology()
    grid_z = np.linspace(0.01, z_max, 400)
    volume = cosmology.comoving_volume(grid_z).to_value("Mpc3")
    volume -= volume[0]
    distance = cosmology.luminosity_distance(grid_z).to_value("Mpc")
    mass = np.linspace(7.6, 12.4, 480)
    brightest = 4.65 - 2.5 * (mass - np.log10(_LEAST_MASS_TO_LIGHT))
    reach = 10 ** (0.2 * (R_LIMIT_MAG + 1.0 - brightest - 25))
    visible = np.interp(np.interp(reach, distance, grid_z), grid_z, volume)
    x = 10 ** (mass - LOG10_MASS_STAR)
    terms = zip(MASS_FUNCTION["phi"], MASS_FUNCTION["alpha"], strict=True)
    density = sum(p * x ** (1 + a) for p, a in terms) * np.exp(-x)
    share = density * visible / np.sum(density * visible)

    def draw(rng: np.random.Generator, number: int) -> tuple[np.ndarray, np.ndarray]:
        bin_ = rng.choice(len(mass), number, p=share)
        log10_mass = mass[bin_] + rng.uniform(-0.005, 0.005, number)
        redshift = np.interp(rng.uniform(size=number) * visible[bin_], volume, grid_z)
        return log10_mass, np.maximum(redshift, 0.0101)

    return draw
