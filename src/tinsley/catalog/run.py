"""Infer a whole catalogue: chunk by chunk, in bounded memory, to be gone on with when killed.

A run is a folder: finished chunks, then `galaxies.parquet`, `draws/` and `manifest.json`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq

import tinsley
from tinsley.catalog.batch import BatchResult, infer_batch
from tinsley.errors import InputError
from tinsley.infer.importance import ESS_GOOD, KHAT_GOOD
from tinsley.infer.likelihood import Observation
from tinsley.infer.support import colour_limits_from_dict
from tinsley.io.catalogs import Catalog
from tinsley.io.models import LoadedPosterior
from tinsley.io.results import new_file, write_json, write_parquet
from tinsley.observe.noise import SigmaGivenFlux, unusual_error
from tinsley.observe.survey import Photometry, with_redshift_range
from tinsley.sps.derived import DERIVED
from tinsley.status import Status

STATISTICS = ("mean", "std", "q16", "q50", "q84")


@dataclass(frozen=True)
class RunSettings:
    """What a run does, beside its input.

    Attributes:
        draws: Draws a galaxy.
        keep_draws: Write them.
        seed: Seed of the run.
        chunk: Rows of one chunk on disk.
        command: The command line, for the manifest.
    """

    draws: int = 1000
    keep_draws: bool = True
    seed: int = 0
    chunk: int = 1024
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
        InputError: The folder holds a run of other settings or input; the disk is full.
    """
    if set(loaded.spec.bands) != set(catalog.survey.bands):
        raise InputError(
            f"model {loaded.spec.name} needs bands {' '.join(loaded.spec.bands)}; survey "
            f"{catalog.survey.name} has {' '.join(catalog.survey.bands)}. Choose another model."
        )
    setup = _setup(loaded, catalog, settings)
    _open_folder(out, setup, settings)
    run_key = jax.random.key(settings.seed)
    chunks = catalog.chunks(settings.chunk)
    for number, photometry in enumerate(chunks):
        part = out / "parts" / f"part-{number:06d}.parquet"
        if not part.exists() and not (out / "galaxies.parquet").exists():
            columns = _infer_chunk(loaded, photometry, usual_error, out, number, settings, run_key)
            write_parquet(part, columns, setup["metadata"])
        on_chunk(len(photometry))
    _join(out, setup["metadata"])
    manifest = _manifest(out, setup, settings)
    write_json(out / "manifest.json", manifest)
    return manifest


def _infer_chunk(
    loaded: LoadedPosterior,
    photometry: Photometry,
    usual_error: SigmaGivenFlux | None,
    out: Path,
    number: int,
    settings: RunSettings,
    run_key: jax.Array,
) -> dict[str, np.ndarray]:
    """Infer the usable rows, write their draws, and return the table of all rows."""
    photometry = with_redshift_range(photometry, *loaded.spec.redshift_range)
    usable = np.flatnonzero(photometry.usable)
    names = (*loaded.posterior.space.names, *DERIVED)
    labels = ["ess", "khat", "log_evidence"]
    labels += [f"{name}_{statistic}" for name in names for statistic in STATISTICS]
    columns = {label: np.full(len(photometry), np.nan, np.float32) for label in labels}
    status = photometry.status.astype(object)
    if len(usable):
        rows = photometry.take(usable)
        result = infer_batch(
            loaded.posterior, rows, settings.draws, run_key, keep_draws=settings.keep_draws
        )
        status[usable] = judge(loaded, rows, usual_error, result)
        good = np.isfinite(result.log_evidence)
        values = {"ess": result.ess, "khat": result.khat, "log_evidence": result.log_evidence}
        for label in labels:
            column = (values | dict(result.summary))[label]
            columns[label][usable] = np.where(good, column, np.nan)
        if settings.keep_draws:
            path = out / "draws" / f"draws-{number:06d}.parquet"
            write_parquet(path, _draw_columns(rows, result, good, names), {})
    head = {"object_id": photometry.object_id, "redshift": photometry.redshift}
    return head | {"status": np.asarray(status, str)} | columns


def judge(
    loaded: LoadedPosterior,
    rows: Photometry,
    usual_error: SigmaGivenFlux | None,
    result: BatchResult,
) -> np.ndarray:
    """The status of each inferred galaxy, the first that applies in the order of `Status`."""
    seen = Observation(
        jnp.asarray(rows.flux, dtype=float),
        jnp.asarray(rows.sigma, dtype=float),
        jnp.asarray(rows.mask),
        jnp.asarray(rows.redshift, dtype=float),
    )
    status = np.full(len(rows), Status.OK, object)
    weak = np.asarray((result.ess < ESS_GOOD) | ~(result.khat <= KHAT_GOOD))
    status[weak] = Status.LOW_ESS
    limits = colour_limits_from_dict(loaded.spec.colour_limits)
    status[np.asarray(limits.unusual(seen))] = Status.UNUSUAL_COLOUR
    if usual_error is not None:
        unusual = unusual_error(usual_error, seen.flux, seen.sigma, seen.mask)
        status[np.asarray(unusual)] = Status.UNUSUAL_ERROR
    status[~np.isfinite(result.log_evidence)] = Status.FAILED
    return status


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
    units = {"flux": "nanomaggies, AB", "log10_mstar_msun": "formed mass", "format": "1"}
    return {
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
        "metadata": {"tinsley": tinsley.__version__, "units": json.dumps(units)},
    }


def _open_folder(out: Path, setup: dict[str, Any], settings: RunSettings) -> None:
    """Make the folder, or see that the run in it is this one."""
    try:
        (out / "parts").mkdir(parents=True, exist_ok=True)
        if settings.keep_draws:
            (out / "draws").mkdir(exist_ok=True)
    except OSError as problem:
        raise InputError(f"{out} can not be made a folder for results: {problem}.") from problem
    begun = out / "run.json"
    if not begun.exists():
        write_json(begun, setup)
        return
    found = json.loads(begun.read_text())
    changed = sorted(key for key in setup if found.get(key) != setup[key] and key != "input")
    if changed:
        raise InputError(
            f"{out} holds a run with another {', '.join(changed)}; choose another --out, or "
            "remove it to begin anew."
        )


def _join(out: Path, metadata: dict[str, str]) -> None:
    """One table from the finished chunks."""
    parts = sorted((out / "parts").glob("part-*.parquet"))
    if (out / "galaxies.parquet").exists() or not parts:
        return
    schema = pq.read_schema(parts[0])
    with new_file(out / "galaxies.parquet") as file, pq.ParquetWriter(file, schema) as writer:
        for part in parts:
            writer.write_table(pq.read_table(part).cast(schema))
    shutil.rmtree(out / "parts")


def _manifest(out: Path, setup: dict[str, Any], settings: RunSettings) -> dict[str, Any]:
    """The run in one file: what, from what, and how it ended."""
    status = pq.read_table(out / "galaxies.parquet", columns=["status"])["status"]
    words, counts = np.unique(status.to_numpy(zero_copy_only=False), return_counts=True)
    ended = {str(word): int(count) for word, count in zip(words, counts, strict=True)}
    return setup | {"command": settings.command, "statuses": ended}
