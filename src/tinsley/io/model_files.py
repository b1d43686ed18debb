"""The file of a trained model: one JSON line that says what it is, then the weights.

No pickle: the weights are `equinox.tree_serialise_leaves` of the networks that the header
describes.
"""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx

import tinsley
from tinsley.errors import InputError
from tinsley.io.results import new_file

FORMAT = 1
POSTERIOR, PROPERTIES = "posterior", "properties"
"""Kinds of models: of the physics, and of the columns of some table."""


class ModelFile(NamedTuple):
    """A file as it was read.

    Attributes:
        path: Where it is.
        kind: `POSTERIOR` or `PROPERTIES`.
        spec: Plain description of the model.
        weights: What `fill` takes.
        sha256: Of the whole file.
    """

    path: Path
    kind: str
    spec: dict[str, Any]
    weights: bytes
    sha256: str

    def fill(self, empty: Any) -> Any:
        """Networks with their weights.

        Raises:
            InputError: The weights are of other networks; libraries of another version may build
                them otherwise.
        """
        try:
            return eqx.tree_deserialise_leaves(io.BytesIO(self.weights), empty)
        except (RuntimeError, ValueError, TypeError, KeyError, EOFError) as problem:
            raise InputError(
                f"model {self.path}: its weights do not fit the network that it describes, as this "
                "version of tinsley and flowjax builds it; train it anew or install those that "
                "made it."
            ) from problem


def read_model_file(path: Path) -> ModelFile:
    """Any model.

    Raises:
        InputError: Not a model file; of another format; damaged or tampered with.
    """
    content = path.read_bytes()
    line, _, weights = content.partition(b"\n")
    header = _header(line, path)
    if hashlib.sha256(weights).hexdigest() != header["weights_sha256"] or (
        _digest(header["spec"]) != header["spec_sha256"]
    ):
        raise InputError(f"model {path} is damaged or was changed: its checksums do not match.")
    kind = header.get("kind", POSTERIOR)
    return ModelFile(path, kind, header["spec"], weights, hashlib.sha256(content).hexdigest())


def model_kind(path: Path) -> str:
    """The kind of a model; only the first line is read."""
    with path.open("rb") as file:
        return str(_header(file.readline(), path).get("kind", POSTERIOR))


def refuse_kind(file: ModelFile, kind: str) -> None:
    """Refuse a model of another kind than the wanted one, with a word about what reads it."""
    if file.kind == kind:
        return
    reads = {PROPERTIES: "tinsley.io.property_models.load_properties", POSTERIOR: "load_posterior"}
    raise InputError(
        f"model {file.path} is one of {file.kind}, not of {kind}; `tinsley infer` takes either, in "
        f"Python {reads.get(file.kind, 'a newer version')} does."
    )


def write_model_file(path: Path, kind: str, spec: dict[str, Any], networks: Any) -> None:
    """Write a model file; it appears whole or not at all."""
    buffer = io.BytesIO()
    eqx.tree_serialise_leaves(buffer, networks)
    plain = json.loads(json.dumps(spec))
    header = {
        "tinsley_model": FORMAT,
        "version": tinsley.__version__,
        "spec": plain,
        "spec_sha256": _digest(plain),
        "weights_sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
    }
    header |= {} if kind == POSTERIOR else {"kind": kind}
    with new_file(path) as file:
        file.write(json.dumps(header).encode() + b"\n" + buffer.getvalue())


def _header(line: bytes, path: Path) -> dict[str, Any]:
    try:
        header = json.loads(line)
        found = header["tinsley_model"]
        complete = {"spec", "spec_sha256", "weights_sha256"} <= set(header)
    except (ValueError, TypeError, KeyError) as problem:
        raise InputError(f"{path} is not a tinsley model file.") from problem
    if found == FORMAT and not complete:
        raise InputError(f"model {path} is damaged or was changed: its header is not whole.")
    if found != FORMAT:
        raise InputError(
            f"model {path} has format {found}, made by tinsley {header.get('version', 'unknown')}; "
            f"this version reads format {FORMAT}. Install the version that made it, or train anew."
        )
    return header


def _digest(plain: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
