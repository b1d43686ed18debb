"""Model files: what is written comes back; what is not as it was written is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json

import equinox as eqx
import jax
import numpy as np
import pytest

from tinsley.errors import InputError
from tinsley.io.models import (
    Networks,
    load_posterior,
    model_names,
    model_path,
    physics_checksums,
    read_model,
    save_model,
)


def changed(path, target, **header):
    """A copy of a model file with entries of its header replaced."""
    line, _, weights = path.read_bytes().partition(b"\n")
    target.write_bytes(json.dumps(json.loads(line) | header).encode() + b"\n" + weights)
    return target


def signed(spec: dict) -> dict:
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()
    return {"spec": spec, "spec_sha256": digest}


def test_round_trip(small_model_file, small_spec, small_posterior):
    spec, flow, sha256 = read_model(small_model_file)
    assert spec.to_dict() == small_spec.to_dict() or json.dumps(spec.to_dict()) == json.dumps(
        small_spec.to_dict()
    )
    assert sha256 == hashlib.sha256(small_model_file.read_bytes()).hexdigest()
    ours, theirs = (
        jax.tree.leaves(eqx.filter(f, eqx.is_array)) for f in (flow, Networks(small_posterior.flow))
    )
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_loaded_posterior_has_the_spec_s_space_and_redshifts(small_loaded, small_spec):
    assert small_loaded.posterior.space.to_dict() == small_spec.space
    grid = small_loaded.posterior.tables.history.grid
    assert grid.z_min < 0.05 < 0.06 < grid.z_max
    assert small_loaded.posterior.tables.n_bands == 5


def test_shipped_models_are_what_they_should_be():
    assert model_path("sdss") == model_path("sdss-v1")
    assert model_path("sdss-nebular") == model_path("sdss-nebular-v1")
    for name in model_names():
        path = model_path(name)
        spec, _, _ = read_model(path)
        assert spec.name == name
        assert path.stat().st_size <= 8e6


def test_unknown_name_lists_known_ones(tmp_path):
    for name in ("sdss-v9", tmp_path):
        with pytest.raises(InputError, match="expected a file, or one of .*sdss"):
            load_posterior(name)


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


DAMAGED = {
    "weights": (lambda c: flipped(c, len(c) - 50), "damaged or was changed"),
    "header": (lambda c: c.replace(b"[0.05, 0.06]", b"[0.01, 0.60]"), "damaged or was changed"),
    "cut_weights": (lambda c: c[:-100], "damaged or was changed"),
    "cut_header": (lambda c: c[:200], "is not a tinsley model file"),
    "empty": (lambda c: b"", "is not a tinsley model file"),
    "text": (lambda c: b"Dear reader\n", "is not a tinsley model file"),
    "binary": (lambda c: bytes(range(256)), "is not a tinsley model file"),
    "other_json": (lambda c: b'["tinsley_model"]\n', "is not a tinsley model file"),
    "bare_json": (lambda c: b'{"tinsley_model": 1}\n', "damaged or was changed"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_files_are_refused(damage, message, small_model_file, tmp_path):
    path = tmp_path / "bad.tinsley"
    path.write_bytes(damage(small_model_file.read_bytes()))
    with pytest.raises(InputError, match=message):
        load_posterior(path)


def test_another_format_is_refused(small_model_file, tmp_path):
    path = changed(small_model_file, tmp_path / "new.tinsley", tinsley_model=2, version="9.0")
    with pytest.raises(InputError, match=r"has format 2, made by tinsley 9\.0; this version reads"):
        load_posterior(path)


def test_entries_that_this_version_does_not_know_are_refused(small_model_file, tmp_path):
    spec = json.loads(small_model_file.read_bytes().partition(b"\n")[0])["spec"]
    path = changed(small_model_file, tmp_path / "odd.tinsley", **signed(spec | {"images": 1}))
    with pytest.raises(InputError, match=r"missing or unknown entries: \['images'\]"):
        load_posterior(path)


def test_weights_of_another_network_are_refused(small_model_file, tmp_path):
    spec = json.loads(small_model_file.read_bytes().partition(b"\n")[0])["spec"]
    spec["flow"]["layers"] += 1
    path = changed(small_model_file, tmp_path / "odd.tinsley", **signed(spec))
    with pytest.raises(InputError, match="weights do not fit the network"):
        load_posterior(path)


@pytest.mark.parametrize("which", ["ssp_sha256", "bases_sha256", "nebular_sha256"])
def test_a_model_of_other_physics_is_refused(which, small_spec, small_posterior, tmp_path):
    path = tmp_path / "other.tinsley"
    lit = dataclasses.replace(small_spec, nebular=-3.0, **physics_checksums(-3.0))
    spec = dataclasses.replace(lit, **{which: "0" * 64})
    save_model(path, spec, Networks(small_posterior.flow))
    with pytest.raises(InputError, match="trained on other stellar populations, gas or bases"):
        load_posterior(path)
