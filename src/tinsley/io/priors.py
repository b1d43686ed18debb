"""Priors from TOML files: what is asked of each quantity, by its name (docs/priors.md)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Array

from tinsley.errors import InputError
from tinsley.infer.amortized import with_prior
from tinsley.infer.marginals import KINDS, Entries
from tinsley.infer.prior import draw_prior, replaced_space
from tinsley.io.models import LoadedPosterior
from tinsley.io.packaged import DATA, packaged_names, read_toml
from tinsley.parameters import ParamSpace

PRIORS = DATA / "priors"
_ABOUT = "about"


@dataclass(frozen=True)
class PriorFile:
    """What a prior file says.

    Attributes:
        name: Of the prior that ships, or of the file.
        entries: By quantity: `prior`, one of `KINDS`, and its settings.
    """

    name: str
    entries: Entries

    def to_dict(self) -> dict[str, Any]:
        """Plain values, with a checksum of the content, for manifests and models."""
        plain = json.loads(json.dumps(self.entries))
        digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
        return {"name": self.name, "quantities": plain, "sha256": digest}


def prior_names() -> list[str]:
    """Names of the priors that come with the package."""
    return packaged_names(PRIORS)


def load_prior(source: str | Path | Mapping[str, Any]) -> PriorFile:
    """A prior by name, from a TOML file, or from a dictionary of the same content.

    Raises:
        InputError: No such prior; a file that can not be read or is not a prior's.
    """
    if isinstance(source, Mapping):
        return _prior(dict(source), "dictionary", "the prior")
    table, path = read_toml(source, "prior", PRIORS)
    return _prior(table, path.stem, f"prior file {path}")


def impose(loaded: LoadedPosterior, prior: PriorFile) -> LoadedPosterior:
    """The model under another prior: its draws are weighted, its network is as it was.

    Raises:
        InputError: The model has no such quantity; the prior reaches beyond the trained one.
    """
    try:
        posterior = with_prior(loaded.posterior, loaded.spec.redshift_range, prior.entries)
    except ValueError as problem:
        raise InputError(f"prior {prior.name}: {problem}") from problem
    return dataclasses.replace(loaded, posterior=posterior, prior=prior.to_dict())


def space_to_train(
    space: ParamSpace, redshift_range: tuple[float, float], prior: PriorFile
) -> tuple[ParamSpace, tuple[float, float]]:
    """Parameters and redshifts of galaxies to train with.

    Raises:
        InputError: The prior can only be had by weights.
    """
    try:
        return replaced_space(space, redshift_range, prior.entries)
    except ValueError as problem:
        raise InputError(f"prior {prior.name}: {problem}") from problem


def sample_prior(
    loaded: LoadedPosterior, prior: PriorFile | None, number: int, key: Array
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Galaxies of a prior, or of the model's own: properties and weights, each [number].

    Raises:
        InputError: As `impose`.
    """
    posterior, entries = loaded.posterior, {} if prior is None else prior.entries
    parts = (posterior.space, posterior.derived_tables, loaded.spec.redshift_range, entries)
    try:
        values, weight = draw_prior(*parts, number, key=key)
    except ValueError as problem:
        raise InputError(f"prior {prior.name if prior else 'trained'}: {problem}") from problem
    return {name: np.asarray(v) for name, v in values.items()}, np.asarray(weight, float)


def _prior(table: dict[str, Any], name: str, where: str) -> PriorFile:
    table.pop(_ABOUT, None)
    if not table:
        raise InputError(
            f"{where} names no quantity; expected tables such as [log10_z_zsun] with prior = "
            '"normal", mean = -0.2 and std = 0.3.'
        )
    return PriorFile(name, {key: _entry(entry, f"{where}: {key}") for key, entry in table.items()})


def _entry(entry: Any, where: str) -> dict[str, Any]:
    """One quantity's settings, checked: all that is needed, nothing unknown, numbers."""
    kind = entry.get("prior") if isinstance(entry, Mapping) else None
    if not isinstance(kind, str) or kind not in KINDS:
        raise InputError(
            f"{where}: expected a table whose prior is one of {', '.join(KINDS)}; got "
            f"{kind if isinstance(entry, Mapping) else entry!r}."
        )
    required, optional, lists = KINDS[kind]
    missing = [key for key in required if key not in entry]
    unknown = [key for key in entry if key not in ("prior", *required, *optional)]
    if missing or unknown:
        may = f", and may have {', '.join(optional)}" if optional else ""
        raise InputError(
            f"{where}: a {kind} prior has {', '.join(required) or 'no settings'}{may}; "
            + (f"{missing[0]} is missing." if missing else f"{unknown[0]!r} is not known.")
        )
    settings = {key: value for key, value in entry.items() if key != "prior"}
    for key, value in settings.items():
        numbers = value if key in lists and isinstance(value, list) else [value]
        if (key in lists) != isinstance(value, list) or not all(map(_is_real, numbers)):
            wanted = "a list of numbers" if key in lists else "a finite number"
            raise InputError(f"{where}: {key} should be {wanted}; got {value!r}.")
    real = {k: [float(x) for x in v] if k in lists else float(v) for k, v in settings.items()}
    return {"prior": kind} | real


def _is_real(value: Any) -> bool:
    return type(value) in (int, float) and bool(np.isfinite(value))
