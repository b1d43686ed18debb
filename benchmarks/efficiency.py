"""How good a proposal the trained flow is, and how fast it gives posteriors.

    python benchmarks/efficiency.py [--model sdss] [--number 2000] [--rows 10000] [--part speed]

Efficiency: effective sample size over draws, 1,000 draws a galaxy, on fresh simulations with SDSS
errors (two noise models fitted to the embedded catalogue, total errors with the survey's floor, and
only galaxies inside the range of magnitudes that the models were fitted to), on simulations with
the broad errors of the training, on the real catalogue; each with all bands and with each band
dropped with 40 % probability.

Speed: galaxies per second to an effective sample size of 100. All get a first round of draws; those
below 100 get further rounds, pooled, up to 24. The wall time of all rounds counts, with derived
properties, smoothed weights, summaries and all draws in memory; compilation does not. Then the
same for 1,000 and for 10,000 draws a galaxy, without keeping them, and what that makes for as many
galaxies as SEDflow's catalogue has.

Writes benchmarks/results/efficiency.json; minutes. With --part the other part of the file is kept,
if it is of the same model.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import tinsley
from machine import machine
from tinsley.catalog.batch import infer_batch
from tinsley.infer.amortized import AmortizedPosterior, draw_posterior
from tinsley.infer.importance import ESS_GOOD, KHAT_GOOD
from tinsley.infer.likelihood import Observation
from tinsley.infer.simulator import Simulation, Simulator
from tinsley.io.catalogs import load_noise_catalog, load_sample_catalog_path, open_catalog
from tinsley.io.models import LoadedPosterior, load_posterior
from tinsley.io.surveys import load_survey
from tinsley.observe.noise import (
    AbstractNoise,
    BroadNoise,
    SigmaGivenFlux,
    SnrGivenFlux,
    fit_sigma_given_flux,
    fit_snr_given_flux,
)
from tinsley.observe.survey import (
    AB_ZEROPOINT_MAG,
    FLUX_PER_MAG,
    Photometry,
    Survey,
    with_redshift_range,
)

OUT = Path(__file__).resolve().parent / "results" / "efficiency.json"
DRAWS = 1000
BATCH = 64
ROUND = 256
"""Draws of one round of the speed test: an efficiency of 39 % is done after the first."""
FIXED = {1000: 10_000, 10_000: 3_000}
"""Draws a galaxy, and how many galaxies get them."""
NSA = 34_000
"""Galaxies of SEDflow's catalogue, with 10,000 draws each: under 12 processor hours there."""
MOST_ROUNDS = 24
MARGIN = 1.15
"""A first round is a noisy measure of the need."""
DROPPED = 0.4
SETS = {"complete": 1.0, "dropped": 0.0}


class WithFloor(AbstractNoise):
    """A measured error and a floor in quadrature, both of the true flux.

    The total is what the noise is drawn with and what the likelihood uses.
    """

    measured: SigmaGivenFlux | SnrGivenFlux
    floor: jax.Array

    def sample_sigma(self, flux: jax.Array, *, key: jax.Array) -> jax.Array:
        return jnp.hypot(self.measured.sample_sigma(flux, key=key), self.floor * flux)

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "with_floor", "measured": self.measured.to_dict()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="sdss")
    parser.add_argument("--number", type=int, default=2000, help="galaxies of each set")
    parser.add_argument("--rows", type=int, default=10_000, help="galaxies of the speed test")
    parser.add_argument("--part", choices=["efficiency", "speed"], help="[both]")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    loaded = load_posterior(options.model)
    survey = load_survey(loaded.spec.survey)
    real = real_galaxies(loaded, survey)
    model = {"name": loaded.spec.name, "sha256": loaded.sha256}
    results = {"tinsley": tinsley.__version__, "model": model} | kept(options.out, model)
    if options.part != "speed":
        found = all_efficiencies(loaded, survey, real, options.number)
        results["efficiency"] = {"draws": DRAWS, "machine": machine(), "sets": found}
    if options.part != "efficiency":
        results["speed"] = {"machine": machine()} | all_speeds(loaded, survey, real, options.rows)
    options.out.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


def kept(path: Path, model: dict[str, str]) -> dict[str, Any]:
    """Both parts of an earlier run, if it was of the same model."""
    earlier = json.loads(path.read_text()) if path.exists() else {}
    same = earlier.get("model") == model
    return {part: earlier[part] for part in ("efficiency", "speed") if same and part in earlier}


# --- galaxies ---


def real_galaxies(loaded: LoadedPosterior, survey: Survey) -> Photometry:
    """The usable rows of the embedded catalogue."""
    catalog = open_catalog(load_sample_catalog_path(), survey)
    photometry = next(catalog.chunks(catalog.n_rows))
    photometry = with_redshift_range(photometry, *loaded.spec.redshift_range)
    return photometry.take(photometry.usable)


def sdss_noise(survey: Survey) -> dict[str, WithFloor]:
    """Both noise models, fitted to the measured errors of the survey's catalogue."""
    known = load_noise_catalog(survey)
    measured = survey.measured_sigma(known.flux, known.sigma)
    floor = jnp.asarray(survey.error_floor_mag * FLUX_PER_MAG, dtype=float)
    fits = {"sigma_given_flux": fit_sigma_given_flux, "snr_given_flux": fit_snr_given_flux}
    return {k: WithFloor(fit(known.flux, measured, known.mask), floor) for k, fit in fits.items()}


def simulate(
    loaded: LoadedPosterior, noise: AbstractNoise, complete: float, number: int, seed: int
) -> Simulation:
    """Prior galaxies; with fitted noise only those within the magnitudes that it was fitted to."""
    posterior, spec = loaded.posterior, loaded.spec
    simulator = Simulator(
        posterior.space, posterior.tables, noise, spec.redshift_range, complete, DROPPED
    )
    key, kept, found = jax.random.key(seed), [], 0
    while found < number:
        key, key_now = jax.random.split(key)
        made = jax.tree.map(np.asarray, simulator.sample(20_000, key=key_now))
        inside = np.ones(20_000, bool)
        if isinstance(noise, WithFloor):
            mag = AB_ZEROPOINT_MAG - 2.5 * np.log10(made.flux_true)
            nodes = np.asarray(noise.measured.mag)
            inside = np.all((mag >= nodes[:, 0]) & (mag <= nodes[:, -1]), axis=1)
        kept.append(jax.tree.map(lambda a, rows=inside: a[rows], made))
        found += int(inside.sum())
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:number], *kept)


def observation(photometry: Photometry) -> Observation:
    return Observation(photometry.flux, photometry.sigma, photometry.mask, photometry.redshift)


def drop_bands(seen: Observation, seed: int) -> Observation:
    """Drop each band with 40 % probability, but never all that a galaxy has."""
    kept = np.random.default_rng(seed).random(seen.mask.shape) >= DROPPED
    left = seen.mask & kept
    return seen._replace(mask=np.where(left.any(axis=1, keepdims=True), left, seen.mask))


# --- efficiency ---


def all_efficiencies(
    loaded: LoadedPosterior, survey: Survey, real: Photometry, number: int
) -> dict[str, Any]:
    noises = {f"sdss_{k}": noise for k, noise in sdss_noise(survey).items()}
    noises["broad"] = BroadNoise(*loaded.spec.snr_range)
    out: dict[str, Any] = {}
    for name, noise in noises.items():
        limits = loaded.spec.snr_range if name == "broad" else None
        for label, complete in SETS.items():
            seen = simulate(loaded, noise, complete, number, seed=7).seen
            out[f"{name}_{label}"] = efficiency(loaded.posterior, seen, limits)
    step = max(1, len(real) // number)
    seen = observation(real.take(slice(0, step * number, step)))
    out["real_catalogue_complete"] = efficiency(loaded.posterior, seen, None)
    out["real_catalogue_dropped"] = efficiency(loaded.posterior, drop_bands(seen, 7), None)
    return out


@eqx.filter_jit
def measure(
    posterior: AmortizedPosterior,
    seen: Observation,
    keys: jax.Array,
    snr_range: tuple[float, float] | None,
) -> tuple[jax.Array, jax.Array]:
    """Effective sample size and k-hat of each galaxy."""

    def one(galaxy: tuple[Observation, jax.Array]) -> tuple[jax.Array, jax.Array]:
        psis = draw_posterior(posterior, galaxy[0], DRAWS, key=galaxy[1], snr_range=snr_range).psis
        return psis.ess, psis.khat

    return jax.lax.map(one, (seen, keys))


def efficiency(
    posterior: AmortizedPosterior, seen: Observation, snr_range: tuple[float, float] | None
) -> dict[str, Any]:
    number = len(seen.redshift)
    seen = jax.tree.map(
        lambda a: jnp.asarray(a, dtype=bool if a.dtype == bool else float), Observation(*seen)
    )
    keys = jax.random.split(jax.random.key(11), number)
    pieces = []
    for start in range(0, number, BATCH):
        rows = np.minimum(np.arange(start, start + BATCH), number - 1)
        batch = jax.tree.map(lambda a, rows=rows: a[rows], seen)
        pieces.append(jax.tree.map(np.asarray, measure(posterior, batch, keys[rows], snr_range)))
    ess, khat = (np.concatenate(parts)[:number] for parts in zip(*pieces, strict=True))
    share = np.nan_to_num(ess) / DRAWS
    q5, q16, median, q84 = np.quantile(share, [0.05, 0.16, 0.5, 0.84])
    return {
        "galaxies": number,
        "median": float(median),
        "q05": float(q5),
        "q16": float(q16),
        "q84": float(q84),
        "share_below_1_percent": float(np.mean(share < 0.01)),
        "share_ess_below_100": float(np.mean(share * DRAWS < ESS_GOOD)),
        "share_khat_above_0.7": float(np.mean(~(khat <= KHAT_GOOD))),
        "failed": int(np.sum(~np.isfinite(ess))),
    }


# --- speed ---


def all_speeds(
    loaded: LoadedPosterior, survey: Survey, real: Photometry, rows: int
) -> dict[str, Any]:
    noise = sdss_noise(survey)["sigma_given_flux"]
    made = simulate(loaded, noise, 1.0, rows, seed=8)
    simulated = Photometry(
        object_id=np.arange(rows),
        redshift=made.theta["redshift"],
        flux=made.seen.flux,
        sigma=made.seen.sigma,
        mask=made.seen.mask,
        status=np.full(rows, "", dtype=object),
    )
    sets = {"real_catalogue": real.take(slice(0, rows)), "simulations_with_sdss_errors": simulated}
    infer_batch(
        loaded.posterior, simulated.take(slice(0, 1)), ROUND, jax.random.key(0), keep_draws=True
    )
    found: dict[str, Any] = {
        n: speed(loaded.posterior, photometry) for n, photometry in sets.items()
    }
    return found | {"fixed_draws": fixed_draws(loaded.posterior, sets["real_catalogue"])}


def fixed_draws(posterior: AmortizedPosterior, photometry: Photometry) -> dict[str, Any]:
    """Real galaxies a second where each gets so many draws, weights and summaries with them."""
    found = {}
    for draws, number in FIXED.items():
        rows = photometry.take(slice(0, number))
        infer_batch(posterior, rows.take(slice(0, 1)), draws, jax.random.key(0), keep_draws=False)
        started, worked = time.monotonic(), time.process_time()
        infer_batch(posterior, rows, draws, jax.random.key(5), keep_draws=False)
        seconds, cpu_seconds = time.monotonic() - started, time.process_time() - worked
        found[str(draws)] = {
            "galaxies": len(rows),
            "seconds": round(seconds, 2),
            "cpu_seconds": round(cpu_seconds, 2),
            "galaxies_per_second": round(len(rows) / seconds, 1),
            "draws_per_second": round(draws * len(rows) / seconds),
            f"minutes_for_{NSA}": round(seconds / len(rows) * NSA / 60, 1),
        }
    return found


class Pool:
    """Rounds of draws of the same galaxies, pooled: what they have reached so far.

    The sum of a round's weights is its evidence, the sum of their squares follows from its ESS.
    """

    def __init__(self, number: int) -> None:
        self.log_sum, self.log_squares = np.full((2, number), -np.inf)
        self.rounds = np.zeros(number, int)

    def add(self, rows: np.ndarray, log_evidence: np.ndarray, ess: np.ndarray) -> None:
        ok = np.isfinite(log_evidence)
        evidence = np.where(ok, log_evidence, -np.inf)
        squares = 2 * evidence - np.log(np.where(ok, ess, 1.0))
        np.logaddexp.at(self.log_sum, rows, evidence)
        np.logaddexp.at(self.log_squares, rows, squares)
        np.add.at(self.rounds, rows, 1)

    @property
    def ess(self) -> np.ndarray:
        known = np.isfinite(self.log_sum)
        log_ess = 2 * np.where(known, self.log_sum, 0) - np.where(known, self.log_squares, 0)
        return np.where(known, np.exp(log_ess), 0.0)

    def wanted(self) -> np.ndarray:
        """Further rounds that should bring each galaxy to an ESS of 100, up to 24 in all."""
        a_round = np.maximum(self.ess / self.rounds, 1e-3)
        total = np.clip(np.ceil(MARGIN * ESS_GOOD / a_round), self.rounds + 1, MOST_ROUNDS)
        return np.where(self.ess < ESS_GOOD, total.astype(int) - self.rounds, 0).clip(min=0)


def speed(posterior: AmortizedPosterior, photometry: Photometry) -> dict[str, Any]:
    """A round of draws for all, then as many as each seems to need, until all have got them."""
    number = len(photometry)
    pool, steps = Pool(number), []
    tasks, started = np.arange(number), time.monotonic()
    while len(tasks):
        turn = pool.rounds[tasks] + _place_among_equals(tasks)
        found = infer_batch(
            posterior,
            dataclasses.replace(photometry.take(tasks), object_id=tasks + number * turn),
            ROUND,
            jax.random.key(5),
            keep_draws=True,
        )
        pool.add(tasks, found.log_evidence, found.ess)
        waiting = int(np.sum(pool.ess < ESS_GOOD))
        seconds = round(time.monotonic() - started, 2)
        steps.append({"rounds_drawn": len(tasks), "seconds": seconds, "waiting": waiting})
        tasks = np.repeat(np.arange(number), pool.wanted())
    reached = int(np.sum(pool.ess >= ESS_GOOD))
    return {
        "galaxies": number,
        "seconds": seconds,
        "reached_ess_100": reached,
        "never_reached_share": 1 - reached / number,
        "galaxies_per_second": round(reached / seconds, 1),
        "draws_per_second": round(ROUND * int(pool.rounds.sum()) / seconds),
        "first_round_galaxies_per_second": round(number / steps[0]["seconds"], 1),
        "draws_a_round": ROUND,
        "most_rounds": MOST_ROUNDS,
        "steps": steps,
    }


def _place_among_equals(tasks: np.ndarray) -> np.ndarray:
    """0, 1, 2 … along each run of equal values."""
    first = np.searchsorted(tasks, tasks, side="left")
    return np.arange(len(tasks)) - first


if __name__ == "__main__":
    main()
