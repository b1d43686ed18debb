"""Simulated galaxies whose truth is known: a bulge and a disc, each with its own stars and dust.

Candidates are drawn from a mass function and a volume, with the hyper-distributions of
`SceneHyper`; those that a flux limit would pass are kept. Then they get sizes
(`tinsley.observe.morphology`) and images (`tinsley.observe.images`). Looks and stars are tied: a
bulge is old and round and little dimmed, a disc is younger, and dustier the more it is inclined.
Nothing is deterministic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tinsley.observe.morphology import apparent_axis_ratio, inclined_depth
from tinsley.observe.noise import AbstractNoise
from tinsley.observe.photometry import BandTables, photometry
from tinsley.observe.survey import AB_ZEROPOINT_MAG
from tinsley.parameters import BETAS, MASS, Theta

BLOCK = 4096
"""Candidates drawn together."""
LOG10_Z_RANGE = (-2.0, 0.6)
N_DUST_RANGE = (-1.2, 0.4)
INDEX_RANGE = (1.0, 6.0)
_MAX_DEPTH = 4.0
_PIVOT_LOG10_MSUN = 10.9


@dataclass(frozen=True)
class SceneHyper:
    """Hyper-distributions. Masses are formed masses; "m" is log10 mass - 10.9; N(a, s) is normal.

    Made to look like the nearby Universe, not fitted to it; every link has a scatter.

    Attributes:
        mass_range: log10 formed mass follows Baldry et al. (2012), 0.3 dex above their masses.
        bulge_logit: Bulge share of the mass: logit = N(first + second m, third).
        quenched_logit: Chance that a disc is quenched, by m and the bulge's share of the mass:
            logit = first + second m + third (share - 0.35).
        disc_betas: Discs' betas: softmax of N(these, `disc_spread`) less `tilt` times the age tilt.
        bulge_betas: The same of bulges, with `bulge_spread`.
        disc_spread, bulge_spread: As above.
        tilt: Of the softmax from young to old, -1 to 1, per unit of the age tilt N(0.5 m, 0.9).
        quenching: Quenched discs' youngest beta loses U(these) in the softmax.
        burst_chance: Of a disc; a third of it of a bulge. Share 10^U(-3, -1), 0.02-2 Gyr ago.
        metallicity: log10 Z / 0.019 = N(first + second tanh((m + 0.5) / third), 0.18), for both.
        metallicity_step: Bulges have so much more than that, discs so much less; and each a
            scatter of 0.1 of its own.
        disc_depth: log10 face-on optical depth = N(first + 0.15 m, second).
        quenched_depth: Added to it where the disc is quenched.
        bulge_depth: log10 of a bulge's own optical depth = N(first, second).
        bulge_share: Of the disc's inclined depth, what a bulge is seen through.
        cloud_depth: log10 of the birth clouds' = N(first, second).
        slope: Of the attenuation curve, n_dust = N(first, second), inside -1.2 to 0.4.
        thickness: Discs' short over long axis: N(first, second), inside 0.1 to 0.4.
        flattening: The bulges': uniform between the two.
        index: ln of the Sersic index = N(ln first + second (m_bulge + 0.6), third), inside 1-6.
    """

    mass_range: tuple[float, float] = (8.8, 12.2)
    bulge_logit: tuple[float, float, float] = (-1.0, 1.5, 1.5)
    quenched_logit: tuple[float, float, float] = (-0.2, 1.5, 3.0)
    disc_betas: tuple[float, float, float, float] = (0.4, 0.4, 0.3, 0.0)
    bulge_betas: tuple[float, float, float, float] = (-5.0, -1.2, 0.2, 1.0)
    disc_spread: float = 0.7
    bulge_spread: float = 1.2
    tilt: float = 0.8
    quenching: tuple[float, float] = (1.0, 7.0)
    burst_chance: float = 0.15
    metallicity: tuple[float, float, float] = (-0.3, 0.37, 0.6)
    metallicity_step: float = 0.08
    disc_depth: tuple[float, float] = (-0.45, 0.25)
    quenched_depth: float = -0.7
    bulge_depth: tuple[float, float] = (-1.1, 0.3)
    bulge_share: float = 0.3
    cloud_depth: tuple[float, float] = (-0.1, 0.25)
    slope: tuple[float, float] = (-0.3, 0.25)
    thickness: tuple[float, float] = (0.2, 0.05)
    flattening: tuple[float, float] = (0.5, 1.0)
    index: tuple[float, float, float] = (3.0, 0.25, 0.3)


class Scenes(NamedTuple):
    """Galaxies and what a survey measures of them.

    Attributes:
        disc: Parameters of the discs, with mass and `redshift`, each [n].
        bulge: The same of the bulges.
        looks: The rest, each [n]: bulge_fraction (of the mass formed), cos_inclination,
            disc_axis_ratio, bulge_axis_ratio, sersic_index, position_angle_rad, offset_x_pixels,
            offset_y_pixels; and standard normal draws for radii and seeing (disc_size, bulge_size,
            seeing).
        disc_flux: Total flux, nanomaggies, [n, band].
        bulge_flux: Total flux, nanomaggies, [n, band].
        flux: Measured flux of both, [n, band].
        error: Its error as quoted, without the survey's floor, [n, band].
    """

    disc: dict[str, Array]
    bulge: dict[str, Array]
    looks: dict[str, Array]
    disc_flux: Array
    bulge_flux: Array
    flux: Array
    error: Array


def _floats(values: Sequence[float]) -> Array:
    return jnp.asarray(values, dtype=float)


class SceneModel(eqx.Module):
    """What galaxies there are, and which of them a survey takes.

    Attributes:
        tables: The forward model, in the survey's bands.
        noise: Quoted errors of the photometry.
        floor: Systematic error of each band as a share of the flux, added in quadrature.
        hyper: Hyper-distributions.
        redshift_range: Redshifts are uniform in z^3 in it.
        mag_range: Galaxies are kept whose measured magnitude is in it,
        selection_band: in this band, by its number.
    """

    tables: BandTables
    noise: AbstractNoise
    floor: tuple[float, ...] = eqx.field(static=True)
    hyper: SceneHyper = eqx.field(static=True, default=SceneHyper())
    redshift_range: tuple[float, float] = eqx.field(static=True, default=(0.02, 0.15))
    mag_range: Array = eqx.field(converter=_floats, default=(16.0, 17.78))
    selection_band: int = eqx.field(static=True, default=2)


def sample_scenes(model: SceneModel, number: int, *, key: Array) -> Scenes:
    """The first `number` galaxies of an endless run that pass: more begin with the same ones.

    Raises:
        ValueError: Hardly any candidate passes.
    """
    kept: list[Scenes] = []
    found, block = 0, 0
    while found < number:
        scenes = candidates(model, BLOCK, key=jax.random.fold_in(key, block))
        rows = np.flatnonzero(np.asarray(passes(model, scenes)))
        kept.append(jax.tree.map(lambda values, rows=rows: np.asarray(values)[rows], scenes))
        found, block = found + len(rows), block + 1
        if block >= 25 and found < block:
            raise ValueError(
                f"{found} of {block * BLOCK} candidates pass: expected one in 4,000 or more. "
                "Widen the ranges of magnitude and redshift."
            )
    whole = jax.tree.map(lambda *parts: np.concatenate(parts)[:number], *kept)
    return jax.tree.map(jnp.asarray, whole)


def passes(model: SceneModel, scenes: Scenes) -> Array:
    """True where the measured magnitude is in the range, [n]."""
    bright, faint = (10 ** (0.4 * (AB_ZEROPOINT_MAG - mag)) for mag in model.mag_range)
    flux = scenes.flux[:, model.selection_band]
    return (flux <= bright) & (flux >= faint)


@eqx.filter_jit
def candidates(model: SceneModel, number: int, *, key: Array) -> Scenes:
    """Galaxies before any selection."""
    key_stars, key_looks, key_sigma, key_noise = jax.random.split(key, 4)
    disc, bulge, fraction = _stars(model, number, key_stars)
    looks = {"bulge_fraction": fraction} | _looks(model.hyper, bulge, key_looks)
    depth = jnp.minimum(inclined_depth(disc["tau_ism"], looks["disc_axis_ratio"]), _MAX_DEPTH)
    behind = jnp.minimum(bulge["tau_ism"] + model.hyper.bulge_share * depth, _MAX_DEPTH)
    disc, bulge = disc | {"tau_ism": depth}, bulge | {"tau_ism": behind}
    disc_flux, bulge_flux = photometry(model.tables, disc), photometry(model.tables, bulge)
    total = disc_flux + bulge_flux
    error = model.noise.sample_sigma(total, key=key_sigma)
    sigma = jnp.hypot(error, total * jnp.asarray(model.floor, dtype=float))
    flux = total + sigma * jax.random.normal(key_noise, sigma.shape)
    return Scenes(disc, bulge, looks, disc_flux, bulge_flux, flux, error)


def _stars(model: SceneModel, number: int, key: Array) -> tuple[dict, dict, Array]:
    """Discs and bulges with their dust as seen face-on, and the bulges' share of the mass."""
    hyper = model.hyper
    keys = iter(jax.random.split(key, 24))
    low, high = (z**3 for z in model.redshift_range)
    redshift = jnp.cbrt(jax.random.uniform(next(keys), (number,), minval=low, maxval=high))
    log10_mass = _masses(hyper, jax.random.uniform(next(keys), (number,)))
    m = log10_mass - _PIVOT_LOG10_MSUN
    at, per_m, spread = hyper.bulge_logit
    fraction = jax.nn.sigmoid(at + per_m * m + spread * jax.random.normal(next(keys), (number,)))
    fraction = jnp.clip(fraction, 1e-3, 1 - 1e-3)
    at, per_m, per_share = hyper.quenched_logit
    chance = jax.nn.sigmoid(at + per_m * m + per_share * (fraction - 0.35))
    quenched = jax.random.uniform(next(keys), (number,)) < chance
    tilt = 0.5 * m + 0.9 * jax.random.normal(next(keys), (number,))
    loss = quenched * jax.random.uniform(
        next(keys), (number,), minval=hyper.quenching[0], maxval=hyper.quenching[1]
    )
    at, step, width = hyper.metallicity
    metals = at + step * jnp.tanh((m + 0.5) / width)
    metals = metals + 0.18 * jax.random.normal(next(keys), (number,))
    slope = _normal(next(keys), number, *hyper.slope)
    both = {"redshift": redshift, "n_dust": jnp.clip(slope, *N_DUST_RANGE)}
    depth = _normal(next(keys), number, *hyper.disc_depth) + 0.15 * m
    disc = both | {
        MASS: log10_mass + jnp.log10(1 - fraction),
        "log10_z_zsun": _metals(next(keys), metals - hyper.metallicity_step),
        "tau_ism": 10 ** (depth + hyper.quenched_depth * quenched),
        "tau_bc": 10 ** _normal(next(keys), number, *hyper.cloud_depth),
        **_betas(next(keys), hyper.disc_betas, hyper.disc_spread, hyper.tilt * tilt, loss),
        **_burst(next(keys), number, hyper.burst_chance),
    }
    bulge = both | {
        MASS: log10_mass + jnp.log10(fraction),
        "log10_z_zsun": _metals(next(keys), metals + hyper.metallicity_step),
        "tau_ism": 10 ** _normal(next(keys), number, *hyper.bulge_depth),
        "tau_bc": 10 ** _normal(next(keys), number, *hyper.cloud_depth),
        **_betas(next(keys), hyper.bulge_betas, hyper.bulge_spread, hyper.tilt * tilt, 0 * loss),
        **_burst(next(keys), number, hyper.burst_chance / 3),
    }
    return disc, bulge, fraction


def _looks(hyper: SceneHyper, bulge: Theta, key: Array) -> dict[str, Array]:
    """Where galaxies point, how thick they are, and draws for sizes and seeing."""
    number = len(bulge[MASS])
    keys = iter(jax.random.split(key, 12))

    def uniform(low: float = 0.0, high: float = 1.0) -> Array:
        return jax.random.uniform(next(keys), (number,), minval=low, maxval=high)

    cosine, flattening = uniform(), uniform(*hyper.flattening)
    thickness = jnp.clip(_normal(next(keys), number, *hyper.thickness), 0.1, 0.4)
    at, per_m, spread = hyper.index
    m = bulge[MASS] - _PIVOT_LOG10_MSUN
    ln_index = np.log(at) + per_m * (m + 0.6) + _normal(next(keys), number, 0.0, spread)
    return {
        "cos_inclination": cosine,
        "disc_axis_ratio": apparent_axis_ratio(cosine, thickness),
        "bulge_axis_ratio": apparent_axis_ratio(cosine, flattening),
        "sersic_index": jnp.clip(jnp.exp(ln_index), *INDEX_RANGE),
        "position_angle_rad": uniform(0.0, np.pi),
        "offset_x_pixels": uniform(-0.5, 0.5),
        "offset_y_pixels": uniform(-0.5, 0.5),
        "disc_size": _normal(next(keys), number, 0.0, 1.0),
        "bulge_size": _normal(next(keys), number, 0.0, 1.0),
        "seeing": jnp.clip(_normal(next(keys), number, 0.0, 1.0), -2.0, 2.0),
    }


def _masses(hyper: SceneHyper, u: Float[Array, " n"]) -> Float[Array, " n"]:
    """log10 formed mass by the inverse of the mass function's CDF."""
    nodes = np.linspace(*hyper.mass_range, 2048)
    x = 10 ** (nodes - 0.3 - 10.66)
    density = (3.96e-3 * x ** (-0.35 + 1) + 0.79e-3 * x ** (-1.47 + 1)) * np.exp(-x)
    cdf = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]))])
    return jnp.interp(u, jnp.asarray(cdf / cdf[-1], dtype=float), jnp.asarray(nodes, dtype=float))


def _betas(
    key: Array, centre: tuple[float, ...], spread: float, tilt: Array, loss: Array
) -> dict[str, Array]:
    """Shares of the four bases, young to old."""
    logits = _normal(key, (len(tilt), 4), jnp.asarray(centre, dtype=float), spread)
    logits = logits + tilt[:, None] * jnp.asarray([-1.0, -0.3, 0.3, 1.0], dtype=float)
    logits = logits.at[:, 0].add(-loss)
    return dict(zip(BETAS, jax.nn.softmax(logits, axis=-1).T, strict=True))


def _burst(key: Array, number: int, chance: float) -> dict[str, Array]:
    key_is, key_share, key_time = jax.random.split(key, 3)
    there = jax.random.uniform(key_is, (number,)) < chance
    share = 10 ** jax.random.uniform(key_share, (number,), minval=-3.0, maxval=-1.0)
    time = jax.random.uniform(key_time, (number,), minval=np.log10(0.02), maxval=np.log10(2.0))
    return {"f_burst": jnp.where(there, share, 0.0), "t_burst_gyr": 10**time}


def _metals(key: Array, mean: Array) -> Array:
    return jnp.clip(mean + 0.1 * jax.random.normal(key, mean.shape), *LOG10_Z_RANGE)


def _normal(key: Array, shape: int | tuple[int, ...], mean: Array | float, std: float) -> Array:
    shape = (shape,) if isinstance(shape, int) else shape
    return mean + std * jax.random.normal(key, shape)
