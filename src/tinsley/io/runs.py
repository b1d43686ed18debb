"""A finished run read back: the table of galaxies whole, the draws a chunk at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tinsley.errors import InputError


@dataclass(frozen=True)
class ChunkDraws:
    """Weighted draws of the galaxies of one chunk that have a posterior, in input order.

    Attributes:
        object_id: [n].
        log_weight: Smoothed; logsumexp = 0 for each galaxy, [n, draw].
        theta: Parameters and derived properties, each [n, draw].
    """

    object_id: np.ndarray
    log_weight: np.ndarray
    theta: dict[str, np.ndarray]


def load_manifest(run: Path) -> dict[str, Any]:
    """What a finished run of `tinsley infer` was.

    Raises:
        InputError: The folder holds no finished run.
    """
    path = run / "manifest.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, json.JSONDecodeError) as problem:
        raise InputError(
            f"{run} holds no finished run of `tinsley infer`: {path.name} can not be read."
        ) from problem


def refuse_without_draws(run: Path, manifest: dict[str, Any]) -> None:
    """Raise InputError where a run kept no draws, or had none to keep."""
    if not manifest.get("keep_draws") or not any((run / "draws").glob("draws-*.parquet")):
        raise InputError(f"{run} holds no draws; run `tinsley infer` again, without --no-draws.")


def refuse_own_prior(run: Path, manifest: dict[str, Any]) -> None:
    """Raise InputError where draws were weighted with a prior other than the trained one."""
    if manifest["prior"] is not None:
        raise InputError(
            f"{run} was inferred under a prior of its own; run `tinsley infer` without --prior: "
            "the population takes the prior's place."
        )


def refuse_other_gas(run: Path, manifest: dict[str, Any], nebular: float | None) -> None:
    """Raise InputError where the draws' likelihood has other nebular emission than `nebular`."""
    own = manifest.get("nebular")
    if own != nebular:
        was, wanted = (
            "stars alone" if log10_u is None else f"nebular emission of log U = {log10_u:g}"
            for log10_u in (own, nebular)
        )
        raise InputError(
            f"{run} was inferred with {was}, where the population has {wanted}: run `tinsley "
            "infer` with a --model of the population's, as sdss (stars alone) or sdss-nebular "
            "(log U = -3)."
        )


def load_galaxies(run: Path, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """Every column of `galaxies.parquet`, or some, each [row].

    Raises:
        InputError: The folder holds no finished run.
    """
    return _columns(run / "galaxies.parquet", names)


def load_draws(run: Path, chunk: int, draws: int) -> ChunkDraws | None:
    """The draws of one chunk; None if no galaxy in it has a posterior, or none were kept.

    Args:
        run: Folder of a finished run.
        chunk: Number of the chunk, from 0.
        draws: Draws a galaxy, as the manifest has it.
    """
    path = run / "draws" / f"draws-{chunk:06d}.parquet"
    if not path.exists():
        return None
    columns = {name: column.reshape(-1, draws) for name, column in _columns(path).items()}
    object_id, log_weight = columns.pop("object_id")[:, 0], columns.pop("log_weight")
    return ChunkDraws(object_id, log_weight, columns)


def iterate_draws(run: Path, draws: int) -> Iterator[ChunkDraws]:
    """Every chunk's draws, one chunk in memory at a time."""
    for path in sorted((run / "draws").glob("draws-*.parquet")):
        chunk = load_draws(run, int(path.stem.removeprefix("draws-")), draws)
        if chunk is not None:
            yield chunk


def _columns(path: Path, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    try:
        table = pq.read_table(path, columns=None if names is None else list(names))
    except (OSError, pa.ArrowException) as problem:
        raise InputError(f"{path} can not be read; expected the result of a run.") from problem
    return {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}
