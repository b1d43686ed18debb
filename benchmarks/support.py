"""Are strangers found? Planted cases against the three tests of support, and the real catalogue.

    python benchmarks/support.py [--number 4000]

Two populations, both with all five bands. `simulated`: galaxies of the prior at the redshifts and r
fluxes of the embedded catalogue, errors drawn from what is usual for each flux there. `real`: the
catalogue itself; where its fluxes are changed, the measured error stays and the floor follows. In
both, false alarms are counted among the unchanged simulated galaxies.

    blue_u-g ...  one colour bluer by 1 mag, the others kept: all bluer bands 1 mag brighter
    blue_all      all four colours bluer by 1 mag
    red_u-g ...   one colour redder by 1 mag: all bluer bands 1 mag fainter
    swapped_u_z   fluxes and errors of u and z exchanged
    stars         Planck's law at 3,000-30,000 K, log-uniform
    quasars       power laws f_nu ~ nu^alpha, alpha uniform in -1 to 0.5
    errors_x_10   all errors ten times too large

Stars and quasars have the r flux and redshift of the galaxy whose place they take.

Writes benchmarks/results/support.json, docs/figures/support_roc.png and docs/figures/
training_support.png; minutes.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import tinsley
from efficiency import drop_bands, real_galaxies
from machine import machine
from tinsley.catalog.batch import as_observation, infer_batch
from tinsley.catalog.run import unusual_data
from tinsley.cli.demo import support_figure
from tinsley.infer.likelihood import Observation
from tinsley.infer.support import FALSE_ALARMS, colour_limits_from_dict, has_redder
from tinsley.io.catalogs import load_usual_error
from tinsley.io.filters import load_filters
from tinsley.io.models import LoadedPosterior, load_posterior
from tinsley.io.surveys import load_survey
from tinsley.observe.filters import Filter
from tinsley.observe.noise import AbstractNoise, BroadNoise, SigmaGivenFlux, error_excess
from tinsley.observe.photometry import photometry
from tinsley.observe.survey import FLUX_PER_MAG, Photometry, Survey
from tinsley.plot.style import BLACK, GREEN, GREY, ORANGE, PURPLE, VERMILION, new_figure
from tinsley.status import Redshift

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "results" / "support.json"
FIGURES = ROOT / "docs" / "figures"
MAG = 10**0.4
SWAPPED = [4, 1, 2, 3, 0]
TESTS = ("unusual_error", "unusual_colour", "unusual_photometry")
COLOURS = dict(zip((*TESTS, "union"), (ORANGE, VERMILION, PURPLE, BLACK), strict=True))
SNR = (1.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0)
SNR_BINS = (0.7, 2.0, 5.0, 10.0, 20.0, 40.0, 80.0, 220.0)
R = 2
STYLES = {"simulated": "-", "real": "--"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="sdss")
    parser.add_argument("--number", type=int, default=4000, help="simulated galaxies of a case")
    options = parser.parse_args()
    loaded = load_posterior(options.model)
    survey = load_survey(loaded.spec.survey)
    usual = load_usual_error(survey)
    every = real_galaxies(loaded, survey)
    whole = every.take(every.mask.all(axis=1))
    sets = {
        "simulated": simulated_cases(loaded, usual, whole, options.number),
        "real": real_cases(survey, whole),
    }
    scores = {
        kind: {name: score(loaded, usual, seen) for name, seen in cases.items()}
        for kind, cases in sets.items()
    }
    null = scores["simulated"]["unchanged"]
    result = {
        "tinsley": tinsley.__version__,
        "machine": machine(),
        "model": {"name": loaded.spec.name, "sha256": loaded.sha256},
        "false_alarms_wanted": FALSE_ALARMS,
        "limits": loaded.spec.photometry_density["limits"],
        "galaxies": {"simulated": options.number, "real": len(whole)},
        "false_alarms": false_alarms(loaded, usual, sets["simulated"]["unchanged"]),
        "cases": {
            kind: {
                name: rates(loaded, usual, sets[kind][name], found, null)
                for name, found in cases.items()
            }
            for kind, cases in scores.items()
        },
        "against_snr": against_snr(loaded, whole, options.number),
        "real_by_u_snr": {
            name: by_u_snr(loaded, whole, seen) for name, seen in sets["real"].items()
        },
        "real_catalogue": real_flags(loaded, usual, every),
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    roc_figure(scores).savefig(FIGURES / "support_roc.png")
    flags = {str(k): v for k, v in unusual_data(loaded, as_observation(every), usual).items()}
    support_figure(loaded, survey, every, flags).savefig(FIGURES / "training_support.png", dpi=80)


# --- cases ---


def simulated_cases(
    loaded: LoadedPosterior, noise: AbstractNoise, rows: Photometry, number: int
) -> dict[str, Observation]:
    """Each case of galaxies of its own noise, all of the same true galaxies."""
    flux, redshift = prior_galaxies(loaded, rows, number, seed=1)
    planted = {"unchanged": flux} | planted_colours(flux, loaded.spec.bands)
    planted["swapped_u_z"] = flux[:, SWAPPED]
    filters, rng = load_filters(loaded.spec.filters), np.random.default_rng(2)
    temperature_k = np.exp(rng.uniform(np.log(3e3), np.log(3e4), number))
    planted["stars"] = in_place_of(flux, [planck(filters, t) for t in temperature_k])
    slope = rng.uniform(-1.0, 0.5, number)
    planted["quasars"] = in_place_of(flux, [power_law(filters, a) for a in slope])
    planted["errors_x_10"] = flux
    cases = {
        name: observe(noise, f, redshift, seed) for seed, (name, f) in enumerate(planted.items())
    }
    cases["errors_x_10"] = _with_errors(cases["errors_x_10"], 10.0)
    return cases


def real_cases(survey: Survey, rows: Photometry) -> dict[str, Observation]:
    """The catalogue itself and changed copies of it."""
    measured = survey.measured_sigma(rows.flux, rows.sigma)

    def seen(flux: np.ndarray) -> Observation:
        sigma = np.hypot(measured, survey.error_floor_mag * FLUX_PER_MAG * np.abs(flux))
        return as_arrays(flux, sigma, rows.redshift)

    unchanged = seen(rows.flux)
    planted = planted_colours(rows.flux, survey.bands)
    cases = {"unchanged": unchanged} | {name: seen(flux) for name, flux in planted.items()}
    cases["swapped_u_z"] = unchanged._replace(
        flux=unchanged.flux[:, SWAPPED], sigma=unchanged.sigma[:, SWAPPED]
    )
    cases["errors_x_10"] = _with_errors(unchanged, 10.0)
    return cases


def planted_colours(flux: np.ndarray, bands: tuple[str, ...]) -> dict[str, np.ndarray]:
    """One colour bluer, or redder, by 1 mag and the others as they were; and all of them bluer."""
    n_bands = len(bands)
    found = {}
    for name, factor in (("blue", MAG), ("red", 1 / MAG)):
        for c in range(n_bands - 1):
            changed = np.where(np.arange(n_bands) <= c, factor, 1.0)
            found[f"{name}_{bands[c]}-{bands[c + 1]}"] = flux * changed
    return found | {"blue_all": flux * MAG ** np.arange(n_bands - 1, -1, -1)}


def prior_galaxies(
    loaded: LoadedPosterior, rows: Photometry, number: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Noiseless fluxes of prior galaxies at the redshifts and r fluxes of some rows."""
    chosen = rows.take(np.random.default_rng(seed).choice(len(rows), number))
    posterior, redshift = loaded.posterior, jnp.asarray(chosen.redshift, dtype=float)
    age_gyr = posterior.cosmology.age_gyr(redshift)
    theta = posterior.space.sample(number, age_gyr, key=jax.random.key(seed))
    flux = np.asarray(photometry(posterior.tables, theta | {"redshift": redshift}), float)
    return flux * (np.maximum(chosen.flux[:, R], 1.0) / flux[:, R])[:, None], chosen.redshift


def planck(filters: tuple[Filter, ...], temperature_k: float) -> np.ndarray:
    """Relative band fluxes of a black body."""
    return band_fluxes(filters, lambda w: w**-3.0 / np.expm1(1.4388e8 / (w * temperature_k)))


def power_law(filters: tuple[Filter, ...], slope: float) -> np.ndarray:
    """Relative band fluxes of f_nu ~ nu^slope."""
    return band_fluxes(filters, lambda w: w**-slope)


def band_fluxes(filters: tuple[Filter, ...], flux_nu: Any) -> np.ndarray:
    """AB band fluxes of a spectrum per frequency, photon-counting."""
    each = []
    for band in filters:
        wave, response = np.asarray(band.wave_aa, float), np.asarray(band.response, float)
        weight = response / wave
        each.append(np.trapezoid(weight * flux_nu(wave), wave) / np.trapezoid(weight, wave))
    return np.array(each)


def in_place_of(flux: np.ndarray, shapes: list[np.ndarray]) -> np.ndarray:
    """Spectra with the r flux of some galaxies."""
    stacked = np.stack(shapes)
    return stacked * (flux[:, R] / stacked[:, R])[:, None]


def observe(noise: AbstractNoise, flux: np.ndarray, redshift: np.ndarray, seed: int) -> Observation:
    key_sigma, key_noise = jax.random.split(jax.random.key(100 + seed))
    true = jnp.asarray(flux, dtype=float)
    sigma = noise.sample_sigma(true, key=key_sigma)
    return as_arrays(true + sigma * jax.random.normal(key_noise, true.shape), sigma, redshift)


def as_arrays(flux: Any, sigma: Any, redshift: Any) -> Observation:
    flux, sigma, redshift = (jnp.asarray(x, dtype=float) for x in (flux, sigma, redshift))
    return Observation(flux, sigma, jnp.ones(flux.shape, bool), redshift)


def _with_errors(seen: Observation, factor: float) -> Observation:
    return seen._replace(sigma=factor * seen.sigma)


# --- tests ---


@eqx.filter_jit
def compiled(method: Any, seen: Observation) -> jax.Array:
    return method(seen)


def score(
    loaded: LoadedPosterior, usual: SigmaGivenFlux, seen: Observation
) -> dict[str, np.ndarray]:
    """What each test goes by, larger for stranger galaxies, each [n]."""
    limits = colour_limits_from_dict(loaded.spec.colour_limits)
    found = (
        error_excess(usual, seen.flux, seen.sigma, seen.mask),
        limits.excess(seen),
        compiled(loaded.support.largest, seen),
    )
    return {name: np.asarray(values) for name, values in zip(TESTS, found, strict=True)}


def tail(values: np.ndarray, null: np.ndarray) -> np.ndarray:
    """Share of unchanged galaxies that are at least as strange."""
    above = len(null) - np.searchsorted(np.sort(null), values, side="left")
    return (above + 1) / (len(null) + 1)


def tails(found: dict[str, np.ndarray], null: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Of each test and of their union, whose score is the least of the three tails."""
    each = {name: tail(found[name], null[name]) for name in TESTS}
    own = np.min([tail(null[name], null[name]) for name in TESTS], axis=0)
    return each | {"union": tail(-np.min(list(each.values()), axis=0), -own)}


def rates(
    loaded: LoadedPosterior,
    usual: SigmaGivenFlux,
    seen: Observation,
    found: dict[str, np.ndarray],
    null: dict[str, np.ndarray],
) -> dict[str, Any]:
    """Found at 1 % false alarms, by each test alone and all; area under the curve; as shipped."""
    by_tail = tails(found, null)
    flags = {str(k): v for k, v in unusual_data(loaded, seen, usual).items()}
    flags["union"] = np.any(list(flags.values()), axis=0)
    return {
        name: {
            "found_at_1_percent": _share(by_tail[name] <= FALSE_ALARMS),
            "auc": round(float(1 - by_tail[name].mean()), 4),
            "found_as_shipped": _share(flags[name]),
        }
        for name in by_tail
    }


def false_alarms(
    loaded: LoadedPosterior, usual: SigmaGivenFlux, unchanged: Observation
) -> dict[str, Any]:
    """Unusual photometry among galaxies that the model made itself, by S/N and by bands."""
    found: dict[str, Any] = {}
    simulator, rounds = loaded.simulator(), []
    for seed in range(16):
        made = simulator.sample(2**14, key=jax.random.key(500 + seed))
        flagged = compiled(loaded.support.unusual, made.seen)
        mean = jnp.where(made.seen.mask, jnp.log10(made.flux_true / made.seen.sigma), 0.0)
        snr = 10 ** (jnp.sum(mean, axis=1) / jnp.sum(made.seen.mask, axis=1))
        rounds.append(
            (flagged, snr, jnp.sum(has_redder(made.seen.mask), axis=1), made.seen.redshift)
        )
    flagged, snr, n_tested, redshift = (np.concatenate(x) for x in zip(*rounds, strict=True))
    some = n_tested > 0
    found["training"] = {"galaxies": int(some.sum()), "share": _share(flagged[some])}
    found["training_by_tested_bands"] = {
        str(n): _share(flagged[n_tested == n]) for n in range(1, 5)
    }
    found["training_by_mean_snr"] = _binned(flagged[some], snr[some], SNR_BINS)
    found["training_by_redshift"] = _binned(
        flagged[some], redshift[some], (0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
    )
    survey_like = {"complete": unchanged, "bands_dropped": drop_bands(unchanged, 3)}
    for label, seen in survey_like.items():
        flags = unusual_data(loaded, jax.tree.map(jnp.asarray, seen), usual)
        shares = {str(word): _share(rows) for word, rows in flags.items()}
        shares["union"] = _share(np.any(list(flags.values()), axis=0))
        found[f"sdss_errors_{label}"] = shares
    found["sdss_errors_redshift_free"] = free_redshift_alarms(loaded, unchanged)
    return found


def free_redshift_alarms(loaded: LoadedPosterior, unchanged: Observation) -> dict[str, Any]:
    """The same galaxies, judged at the median of an inferred redshift."""
    number = min(1000, len(unchanged.redshift))
    flux, sigma, mask, redshift = (np.asarray(x[:number]) for x in unchanged[:4])
    rows = Photometry(np.arange(number), redshift, flux, sigma, mask, np.full(number, "", object))
    found = infer_batch(
        loaded.posterior, rows, 300, jax.random.key(3), keep_draws=False, redshift=Redshift.FREE
    )
    seen = as_observation(rows)._replace(redshift=jnp.asarray(found.summary["redshift_q50"]))
    return {"galaxies": number, "share": _share(compiled(loaded.support.unusual, seen))}


def against_snr(loaded: LoadedPosterior, rows: Photometry, number: int) -> dict[str, Any]:
    """Unusual photometry as shipped where every band has the same S/N."""
    flux, redshift = prior_galaxies(loaded, rows, number, seed=5)
    planted = {"unchanged": flux} | planted_colours(flux, loaded.spec.bands)
    planted["swapped_u_z"] = flux[:, SWAPPED]
    return {
        name: {
            f"{snr:g}": _share(
                compiled(
                    loaded.support.unusual,
                    observe(BroadNoise(snr, snr * 1.001), f, redshift, seed),
                )
            )
            for seed, snr in enumerate(SNR)
        }
        for name, f in planted.items()
    }


def by_u_snr(loaded: LoadedPosterior, rows: Photometry, seen: Observation) -> dict[str, Any]:
    """Unusual photometry as shipped, in bins of the unchanged S/N of u."""
    snr = rows.flux[:, 0] / rows.sigma[:, 0]
    return _binned(np.asarray(compiled(loaded.support.unusual, seen)), snr, SNR_BINS)


def real_flags(loaded: LoadedPosterior, usual: SigmaGivenFlux, rows: Photometry) -> dict[str, Any]:
    """What the tests say of the catalogue, and in which band its photometry is unusual."""
    seen = as_observation(rows)
    flags = {str(k): v for k, v in unusual_data(loaded, seen, usual).items()}
    deviates = np.asarray(compiled(loaded.support.deviates, seen))[flags["unusual_photometry"]]
    worst = np.argmax(np.abs(deviates), axis=1)
    sign = np.sign(deviates[np.arange(len(worst)), worst])
    alone = flags["unusual_photometry"] & ~flags["unusual_error"] & ~flags["unusual_colour"]
    return {
        "rows": len(rows),
        "share": {word: _share(found) for word, found in flags.items()},
        "unusual_photometry_alone": _share(alone),
        "union": _share(np.any(list(flags.values()), axis=0)),
        "furthest_band": {
            band: {"too_bright": int(np.sum((worst == k) & (sign > 0))),
                   "too_faint": int(np.sum((worst == k) & (sign < 0)))}
            for k, band in enumerate(loaded.spec.bands)
        },
    }  # fmt: skip


def _binned(flagged: np.ndarray, values: np.ndarray, edges: tuple[float, ...]) -> dict[str, Any]:
    pairs = zip(edges[:-1], edges[1:], strict=True)
    return {f"{a:g}-{b:g}": _share(flagged[(values >= a) & (values < b)]) for a, b in pairs}


def _share(rows: Any) -> float:
    return round(float(np.mean(np.asarray(rows))), 4)


# --- figure ---


def roc_figure(scores: dict[str, dict[str, dict[str, np.ndarray]]]) -> Figure:
    """Share found against false alarms, a panel a case; full for simulated, dashed for real."""
    null = scores["simulated"]["unchanged"]
    names = [name for name in scores["simulated"] if name != "unchanged"]
    figure, axes = new_figure(3, 5, 17.0, 10.5)
    level = np.geomspace(5e-4, 1.0, 200)
    for ax, name in zip(axes.ravel(), names, strict=False):
        there = [kind for kind in scores if name in scores[kind]]
        lines = [(kind, line) for kind in there for line in tails(scores[kind][name], null).items()]
        for kind, (test, values) in lines:
            share = [np.mean(values <= x) for x in level]
            ax.plot(level, share, STYLES[kind], color=COLOURS[test], lw=1.4)
        ax.axvline(FALSE_ALARMS, color=GREEN, lw=0.8)
        ax.set(xscale="log", title=name.replace("_", " "), ylim=(-0.02, 1.02))
    for ax in axes[-1]:
        ax.set_xlabel("false alarms")
    for ax in axes[:, 0]:
        ax.set_ylabel("found")
    last = axes.ravel()[len(names) :]
    for ax in last:
        ax.set_axis_off()
    for test, colour in COLOURS.items():
        last[0].plot([], [], color=colour, label=test)
    for kind, style in STYLES.items():
        last[0].plot([], [], style, color=GREY, label=kind)
    last[0].legend(frameon=False, loc="center")
    return figure


if __name__ == "__main__":
    main()
