"""What is wrong where the model does not fit: best fits with one assumption changed at a time.

    python benchmarks/misfit_variants.py [--number 1000]

The best of 2,048 prior draws' eight best, each then improved by 300 steps of Adam, for the first
galaxies of the embedded catalogue with all bands and usual errors: nothing of the trained posterior
is used. Variants: the u filter without its red leak (no response beyond 4,200 A), error floors left
out or doubled, SEDflow's dust (slopes to 1, the bump negative beyond 0.447), no dust, and each
band's magnitudes shifted by 0.03 mag either way. `replicas` are the
baseline's own best fits with fresh noise, fitted again: what a perfect model would reach.

Writes benchmarks/results/misfit_variants.json; minutes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array

from machine import machine
from tinsley.infer.likelihood import Observation
from tinsley.io.band_tables import load_band_tables
from tinsley.io.catalogs import load_sample_catalog_path, open_catalog
from tinsley.io.filters import load_filters
from tinsley.io.models import build_model
from tinsley.io.results import write_json
from tinsley.io.surveys import load_survey
from tinsley.observe.filters import Filter
from tinsley.observe.noise import fit_sigma_given_flux, unusual_error
from tinsley.observe.photometry import MASS_UNIT_LOG10_MSUN, BandTables, unit_flux
from tinsley.parameters import ParamSpace, default_space, sedflow_space
from tinsley.sps.dust import TwoComponentDust
from tinsley.sps.galaxy import redshift_grid

RESULT = Path(__file__).parent / "results" / "misfit_variants.json"
REDSHIFTS = (0.01, 0.6)
DRAWS, STARTS, STEPS, RATE = 2048, 8, 300, 0.05
BATCH = 50
LEAK_AA = 4200.0
MASS_RANGE = tuple(10 ** (x - MASS_UNIT_LOG10_MSUN) for x in (7.0, 12.5))


class Fitted(NamedTuple):
    """Residuals in sigma and the model's flux, [galaxy, band]."""

    residual: np.ndarray
    flux: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=1000)
    options = parser.parse_args()
    survey = load_survey("sdss")
    seen, quoted = galaxies(survey, options.number)
    filters = load_filters(survey.filters)
    model = build_model()
    papers_dust = dataclasses.replace(model, dust=TwoComponentDust(negative_bump=True))
    wide = dust_of_sedflow(default_space())

    def tables_of(galaxy, bands):
        return load_band_tables(galaxy, bands, redshift_grid(*REDSHIFTS))

    tables = tables_of(model, filters)
    floor = jnp.asarray(survey.floor_nmgy(np.asarray(seen.flux, float)))
    baseline = fit(tables, default_space(), seen)
    rng = np.random.default_rng(1)
    noisy = baseline.flux + np.asarray(seen.sigma) * rng.normal(size=baseline.flux.shape)
    no_leak = (without_leak(filters[0]), *filters[1:])
    variants = {
        "baseline": baseline,
        "replicas": fit(tables, default_space(), seen._replace(flux=jnp.asarray(noisy, float))),
        "u_without_red_leak": fit(tables_of(model, no_leak), default_space(), seen),
        "no_floors": fit(tables, default_space(), seen._replace(sigma=quoted)),
        "floors_doubled": fit(
            tables, default_space(), seen._replace(sigma=jnp.hypot(seen.sigma, np.sqrt(3) * floor))
        ),
        "sedflow_dust": fit(tables_of(papers_dust, filters), wide, seen),
        "no_dust": fit(tables, default_space(), seen, dusty=False),
    }
    for k, band in enumerate(survey.bands):
        for shift_mag in (-0.03, 0.03):
            factor = jnp.ones(len(survey.bands)).at[k].set(10 ** (-0.4 * shift_mag))
            moved = seen._replace(flux=seen.flux * factor)
            variants[f"{band}{shift_mag:+.2f}mag"] = fit(tables, default_space(), moved)
    result = {name: summary(found, survey.bands) for name, found in variants.items()}
    write_json(RESULT, {"galaxies": len(noisy), "variants": result, "machine": machine()})
    print(json.dumps(result, indent=1))


def galaxies(survey, number: int) -> tuple[Observation, Array]:
    """The first galaxies with all bands and usual errors, and their errors without floors."""
    chunks = open_catalog(load_sample_catalog_path(), survey).chunks(4 * number)
    rows = next(iter(chunks))
    usual = fit_sigma_given_flux(rows.flux, rows.sigma, rows.mask)
    unusual = unusual_error(usual, *(jnp.asarray(x) for x in (rows.flux, rows.sigma, rows.mask)))
    inside = rows.mask.all(axis=1) & (rows.redshift > REDSHIFTS[0]) & ~np.asarray(unusual)
    rows = rows.take(np.flatnonzero(inside)[:number])
    quoted = survey.measured_sigma(rows.flux, rows.sigma)
    seen = Observation(rows.flux, rows.sigma, rows.mask, rows.redshift)
    return jax.tree.map(jnp.asarray, seen), jnp.asarray(quoted)


def without_leak(band: Filter) -> Filter:
    keep = band.wave_aa <= LEAK_AA
    return dataclasses.replace(band, wave_aa=band.wave_aa[keep], response=band.response[keep])


def dust_of_sedflow(space: ParamSpace) -> ParamSpace:
    """The default prior, with SEDflow's range of dust slopes."""
    slope = next(p for p in sedflow_space().priors if p.names == ("n_dust",))
    return ParamSpace(tuple(slope if p.names == ("n_dust",) else p for p in space.priors))


def fit(tables: BandTables, space: ParamSpace, seen: Observation, *, dusty: bool = True) -> Fitted:
    parts = []
    for start in range(0, len(seen.redshift), BATCH):
        index = np.minimum(np.arange(start, start + BATCH), len(seen.redshift) - 1)
        part = jax.tree.map(lambda x, index=index: x[index], seen)
        found = _fit_batch(tables, space.without_mass(), part, dusty, jax.random.key(0))
        parts.append([np.asarray(x)[: len(seen.redshift) - start] for x in found])
    return Fitted(*(np.concatenate(x) for x in zip(*parts, strict=True)))


@eqx.filter_jit
def _fit_batch(tables, space, seen, dusty, key):
    number = len(seen.redshift)
    inverse = 1.0 / seen.sigma[:, None]

    def residual(x):  # [galaxy, point, dim] -> [galaxy, point, band]
        redshift = jnp.repeat(seen.redshift, x.shape[1])
        age_gyr = tables.history.cosmology.age_gyr(redshift)
        theta = space.from_unbounded(x.reshape(-1, x.shape[-1]), age_gyr) | {"redshift": redshift}
        if not dusty:
            theta |= {name: 0.0 * theta[name] for name in ("tau_bc", "tau_ism")}
        model = unit_flux(tables, theta).reshape(*x.shape[:2], -1) * inverse
        data = seen.flux[:, None] * inverse
        mass = jnp.sum(model * data, -1) / jnp.maximum(jnp.sum(model**2, -1), 1e-30)
        return data - jnp.clip(mass, *MASS_RANGE)[..., None] * model

    def loss(x):
        return jnp.sum(residual(x) ** 2)

    tried = jax.random.normal(key, (1, DRAWS, space.n_unit)).repeat(number, 0)
    chi2 = jnp.sum(residual(tried) ** 2, -1)
    best = jnp.argsort(chi2, axis=1)[:, :STARTS, None]
    x = jnp.take_along_axis(tried, best, axis=1)
    optimizer = optax.adam(optax.cosine_decay_schedule(RATE, STEPS))

    def step(carry, _):
        x, state, least, where = carry
        chi2, slope = jnp.sum(residual(x) ** 2, -1), jax.grad(loss)(x)
        where = jnp.where((chi2 < least)[..., None], x, where)
        updates, state = optimizer.update(slope, state)
        x = jnp.clip(optax.apply_updates(x, updates), -4.0, 4.0)
        return (x, state, jnp.minimum(chi2, least), where), None

    start = (x, optimizer.init(x), jnp.full(x.shape[:2], jnp.inf), x)
    (_, _, least, where), _ = jax.lax.scan(step, start, None, length=STEPS)
    best = jnp.take_along_axis(where, jnp.argmin(least, 1)[:, None, None], axis=1)
    left = residual(best)[:, 0]
    return left, seen.flux - left * seen.sigma


def summary(found: Fitted, bands: tuple[str, ...]) -> dict:
    total = np.sum(found.residual**2, axis=1)
    out = {
        "chi2_total_median": float(np.median(total)),
        "chi2_total_mean": float(np.mean(total)),
        "above_9": float(np.mean(total > 9)),
    }
    for k, band in enumerate(bands):
        value = found.residual[:, k]
        out[band] = {
            "chi2_mean": float(np.mean(value**2)),
            "chi2_median": float(np.median(value**2)),
            "residual_mean": float(np.mean(value)),
        }
    return out


if __name__ == "__main__":
    main()
