"""Infer a whole catalogue: chunk by chunk, in bounded memory, to be gone on with when killed.

What a run leaves on disk is `tinsley.io.run_folder`'s matter.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import tinsley
from tinsley.catalog.batch import (
    BatchResult,
    as_observation,
    find_unusual,
    infer_batch,
    with_redshift,
)
from tinsley.catalog.refine import Refined, refine
from tinsley.errors import InputError
from tinsley.infer.importance import STATISTICS, is_weak
from tinsley.infer.likelihood import AbstractLikelihood, Gaussian, Observation
from tinsley.infer.property_spec import PropertySpec
from tinsley.infer.spec import PosteriorSpec
from tinsley.infer.support import colour_limits_from_dict
from tinsley.io.catalogs import Catalog
from tinsley.io.models import LoadedPosterior
from tinsley.io.run_folder import RunFolder
from tinsley.io.runs import load_galaxies
from tinsley.observe.noise import SigmaGivenFlux, unusual_error
from tinsley.observe.survey import Photometry, Survey, with_redshift_range
from tinsley.sps.derived import DERIVED
from tinsley.status import Redshift, Refine, Status


@dataclass(frozen=True)
class RunSettings:
    """What a run does, beside its input.

    Attributes:
        draws: Draws a galaxy.
        keep_draws: Write them.
        seed: Seed of the run.
        chunk: Rows of one chunk on disk.
        refine: Which galaxies get more draws, or a sampler.
        redshift: Whether the catalogue's redshifts are used.
        likelihood: What weighs the draws; None for normal errors, correlated as the survey says.
        command: The command line, for the manifest.
    """

    draws: int = 1000
    keep_draws: bool = True
    seed: int = 0
    chunk: int = 1024
    refine: Refine = Refine.AUTO
    redshift: Redshift = Redshift.GIVEN
    likelihood: AbstractLikelihood | None = None
    command: str = ""


def run_catalog(
    loaded: LoadedPosterior,
    catalog: Catalog,
    usual_error: SigmaGivenFlux | None,
    out: Path,
    settings: RunSettings,
    on_chunk: Callable[[int], None] = lambda rows: None,
) -> dict[str, Any]:
    """Infer every row of a catalogue into `out`.

    Args:
        loaded: The model.
        catalog: The input.
        usual_error: p(sigma | flux) of the survey, to flag unusual errors; None to flag none.
        out: Folder of the run; begun ones are gone on with.
        settings: Draws, seed and so on.
        on_chunk: Called with the number of rows after each chunk, computed or found.

    Returns:
        The manifest.

    Raises:
        InputError: The model is of other bands than the survey, or needs redshifts and gets none;
            the survey's errors are correlated and the likelihood's are not; the folder holds a run
            of other settings or input; the disk is full.
    """
    refuse_other_bands(loaded.spec, catalog.survey)
    refuse_free_redshifts(loaded, settings.redshift, catalog.redshift_known_by)
    loaded = with_likelihood(loaded, catalog.survey, settings.likelihood)
    setup = _setup(loaded, catalog, settings)
    folder = RunFolder(out, setup, _metadata(settings))
    run_key = jax.random.key(settings.seed)

    def infer(rows: Photometry) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray] | None]:
        return infer_rows(loaded, rows, usual_error, settings, run_key)

    folder.fill(catalog.chunks(settings.chunk), infer, on_chunk)
    manifest = setup | {"command": settings.command, "statuses": folder.join()}
    if loaded.prior is not None:
        manifest["prior_efficiency"] = _prior_efficiency(out)
    folder.write_manifest(manifest)
    return manifest


def refuse_other_bands(spec: PosteriorSpec | PropertySpec, survey: Survey) -> None:
    """A network knows its bands by their places, and the filters by what it was trained on.

    Raises:
        InputError: The survey has others.
    """
    if spec.bands != survey.bands or spec.filters != survey.filters:
        raise InputError(
            f"model {spec.name} needs bands {' '.join(spec.bands)} through "
            f"{' '.join(spec.filters)}; survey {survey.name} has {' '.join(survey.bands)} through "
            f"{' '.join(survey.filters)}. Choose the survey {spec.survey}, another model, or "
            "train one for this survey."
        )


def refuse_free_redshifts(
    loaded: LoadedPosterior, redshift: Redshift, known_by: tuple[str, ...] = ()
) -> None:
    """Only a model that was taught redshifts can do without exact ones.

    Args:
        loaded: The model.
        redshift: Whether redshifts are given.
        known_by: Columns that say how uncertain they are.
    """
    if loaded.posterior.redshift_density is not None:
        return
    if redshift == Redshift.FREE:
        raise InputError(
            f"model {loaded.spec.name} needs redshifts; teach it to do without with "
            "`tinsley train redshift`, or choose a model that can."
        )
    if known_by:
        raise InputError(
            f"model {loaded.spec.name} needs exact redshifts; the catalogue has "
            f"{' and '.join(known_by)}. Teach it with `tinsley train redshift`, choose a model "
            "that was taught, or drop the column to take the redshifts as exact."
        )


def with_likelihood(
    loaded: LoadedPosterior, survey: Survey, likelihood: AbstractLikelihood | None
) -> LoadedPosterior:
    """The same model, its draws weighted by a likelihood; None for the survey's normal errors.

    Raises:
        InputError: The survey's errors are correlated, which only normal ones can be.
    """
    correlation = survey.error_correlation
    if likelihood is None:
        matrix = None if correlation is None else jnp.asarray(correlation, dtype=float)
        likelihood = Gaussian(matrix)
    elif correlation is not None and not isinstance(likelihood, Gaussian):
        raise InputError(
            f"survey {survey.name} has correlated errors (error_correlation), which the likelihood "
            f"{likelihood.to_dict()['kind']} has not: choose gaussian, or take the key out of a "
            "copy of the survey's TOML file."
        )
    posterior = dataclasses.replace(loaded.posterior, likelihood=likelihood)
    return dataclasses.replace(loaded, posterior=posterior)


def infer_rows(
    loaded: LoadedPosterior,
    photometry: Photometry,
    usual_error: SigmaGivenFlux | None,
    settings: RunSettings,
    run_key: jax.Array,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray] | None]:
    """Infer some rows: the usable ones get a posterior, all get a status.

    Args:
        loaded: The model, with the likelihood that is to weigh its draws.
        photometry: The rows.
        usual_error: As in `run_catalog`.
        settings: As in `run_catalog`; its chunks and its likelihood do not count.
        run_key: Key of the run.

    Returns:
        The table of all rows, by column, each [row]; and the draws if they are kept and there are
        any: `object_id`, `log_weight`, parameters and derived properties, each [row and draw].
    """
    names = (*loaded.posterior.space.names, *DERIVED)
    fitted = loaded.posterior.space.names
    if settings.redshift == Redshift.GIVEN:
        photometry = with_redshift_range(photometry, *loaded.spec.redshift_range)
    if settings.redshift == Redshift.FREE or photometry.redshift_prior is not None:
        names, fitted = (*names, "redshift"), (*fitted, "redshift")
    usable = np.flatnonzero(photometry.usable)
    labels = ["ess", "khat", "rhat", "log_evidence", "best_chi2"]
    labels += [] if loaded.prior is None else ["ess_trained_prior"]
    labels += [f"best_{name}" for name in fitted]
    labels += [f"{name}_{statistic}" for name in names for statistic in STATISTICS]
    columns = {label: np.full(len(photometry), np.nan, np.float32) for label in labels}
    status, draws = photometry.status.astype(object), None
    method = np.full(len(photometry), "", object)
    n_draws = np.zeros(len(photometry), np.int32)
    if len(usable):
        rows = photometry.take(usable)
        result, method[usable], n_draws[usable] = _posteriors(
            loaded, rows, usual_error, settings, run_key
        )
        status[usable] = judge(loaded, rows, usual_error, result)
        good = np.isfinite(result.log_evidence)
        values = _result_columns(result)
        for label in labels:
            columns[label][usable] = np.where(good, values[label], np.nan)
        if settings.keep_draws:
            draws = _draw_columns(rows, result, good, names)
    head = {"object_id": photometry.object_id, "redshift": photometry.redshift}
    head |= {"status": np.asarray(status, str), "method": np.asarray(method, str)}
    return head | {"n_draws": n_draws} | columns, draws


def _posteriors(
    loaded: LoadedPosterior,
    rows: Photometry,
    usual_error: SigmaGivenFlux | None,
    settings: RunSettings,
    run_key: jax.Array,
) -> Refined:
    """Posteriors of usable rows: those of exact and of uncertain redshifts, each by its own way."""
    if rows.redshift_prior is None:
        return _alike(loaded, rows, usual_error, settings, run_key, settings.redshift)
    kinds = np.flatnonzero(~rows.uncertain), np.flatnonzero(rows.uncertain)
    parts = []
    if len(kinds[0]):
        exact = dataclasses.replace(rows.take(kinds[0]), redshift_prior=None)
        found = _alike(loaded, exact, usual_error, settings, run_key, Redshift.GIVEN)
        parts.append(found._replace(result=with_redshift(found.result, exact.redshift)))
    if len(kinds[1]):
        own = rows.take(kinds[1])
        parts.append(_alike(loaded, own, usual_error, settings, run_key, Redshift.FREE))
    order = np.argsort(np.concatenate(kinds))
    return jax.tree.map(lambda *part: np.concatenate(part)[order], *parts)


def _alike(
    loaded: LoadedPosterior,
    rows: Photometry,
    usual_error: SigmaGivenFlux | None,
    settings: RunSettings,
    run_key: jax.Array,
    redshift: Redshift,
) -> Refined:
    """Posteriors of rows of which as much is known, refined as the settings say."""
    result = infer_batch(
        loaded.posterior,
        rows,
        settings.draws,
        run_key,
        keep_draws=settings.keep_draws,
        redshift=redshift,
    )
    if settings.refine in (Refine.AUTO, Refine.CHAINS):
        wanted = judge(loaded, rows, usual_error, result) != Status.OK
    else:
        wanted = np.full(len(rows), settings.refine == Refine.ALL)
    chains = settings.refine != Refine.AUTO
    return refine(
        loaded.posterior, rows, result, wanted, settings.draws, run_key, redshift, chains=chains
    )


def _result_columns(result: BatchResult) -> dict[str, Any]:
    """All columns but the words, by their labels on disk."""
    best = {f"best_{name}": values for name, values in result.best.items()}
    scalars = ("ess", "khat", "rhat", "log_evidence", "best_chi2", "ess_trained_prior")
    return {label: getattr(result, label) for label in scalars} | best | dict(result.summary)


def _prior_efficiency(out: Path) -> float | None:
    """Median of the effective draws that a new prior leaves, over those of the trained one."""
    columns = load_galaxies(out, ("ess", "ess_trained_prior"))
    share = columns["ess"] / columns["ess_trained_prior"]
    share = share[np.isfinite(share)]
    return float(np.median(share)) if len(share) else None


def judge(
    loaded: LoadedPosterior,
    rows: Photometry,
    usual_error: SigmaGivenFlux | None,
    result: BatchResult,
) -> np.ndarray:
    """The status of each inferred galaxy, the first that applies in the order of `Status`."""
    seen = as_observation(rows)
    if "redshift_q50" in result.summary:
        seen = seen._replace(redshift=jnp.asarray(result.summary["redshift_q50"]))
    status = np.full(len(rows), Status.OK, object)
    status[is_weak(result.ess, result.khat, result.rhat)] = Status.LOW_ESS
    for word, unusual in reversed(unusual_data(loaded, seen, usual_error).items()):
        status[unusual] = word
    status[~np.isfinite(result.log_evidence)] = Status.FAILED
    return status


def unusual_data(
    loaded: LoadedPosterior, seen: Observation, usual_error: SigmaGivenFlux | None
) -> dict[Status, np.ndarray]:
    """Which galaxies are unlike the training set, by the word for it, each [n] of bool.

    All that apply, in the order of `Status`; a test that the model or the survey lacks is left out.
    """
    found = {}
    if usual_error is not None:
        unusual = unusual_error(usual_error, seen.flux, seen.sigma, seen.mask)
        found[Status.UNUSUAL_ERROR] = np.asarray(unusual)
    limits = colour_limits_from_dict(loaded.spec.colour_limits)
    found[Status.UNUSUAL_COLOUR] = np.asarray(limits.unusual(seen))
    if loaded.support is not None:
        found[Status.UNUSUAL_PHOTOMETRY] = find_unusual(loaded.support, seen)
    return found


def _draw_columns(
    rows: Photometry, result: BatchResult, good: np.ndarray, names: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """Draws of the galaxies that have a posterior, one row a draw."""
    if result.draws is None or result.log_weight is None:
        raise ValueError("draws were not kept; call infer_batch with keep_draws=True.")
    number = result.log_weight.shape[1]
    columns: dict[str, Any] = {"object_id": np.repeat(rows.object_id[good], number)}
    columns["log_weight"] = result.log_weight[good].ravel()
    return columns | {name: result.draws[name][good].ravel() for name in names}


def _setup(loaded: LoadedPosterior, catalog: Catalog, settings: RunSettings) -> dict[str, Any]:
    """What must be the same for a run to be gone on with."""
    gas = {} if loaded.spec.nebular is None else {"nebular": loaded.spec.nebular}
    return gas | {
        "version": tinsley.__version__,
        "model": loaded.spec.name,
        "model_sha256": loaded.sha256,
        "survey": catalog.survey.name,
        "layout": catalog.layout.name,
        "input": str(catalog.path),
        "input_sha256": catalog.checksum,
        "rows": catalog.n_rows,
        "draws": settings.draws,
        "keep_draws": settings.keep_draws,
        "seed": settings.seed,
        "chunk": settings.chunk,
        "refine": str(settings.refine),
        "redshift": str(settings.redshift),
        "likelihood": loaded.posterior.likelihood.to_dict(),
        "prior": loaded.prior,
    }


def _metadata(settings: RunSettings) -> dict[str, str]:
    """Words that go with every table: units are in the columns' names, but for these."""
    units = {"log_evidence": "ln(nanomaggies^-bands), AB", "log10_mstar_msun": "formed mass"}
    return {
        "format": "1",
        "tinsley": tinsley.__version__,
        "seed": str(settings.seed),
        "units": json.dumps(units),
    }
