"""`tinsley infer` as a user meets it: one sentence and exit code 2 for what he can mend."""

from __future__ import annotations

import json
import os
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.text import Text
from typer.main import get_command

from test_run import DRAWS, N, columns
from tinsley.cli.main import app, run
from tinsley.io.models import load_posterior
from tinsley.io.results import write_csv, write_parquet


@pytest.fixture
def tinsley(monkeypatch, capsys):
    """Run a command; return exit code and what it said."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["tinsley", *map(str, words)])
        code = 0
        try:
            run()
        except SystemExit as stop:
            code = stop.code or 0
        said = capsys.readouterr()
        return code, said.out, " ".join(said.err.split())

    return call


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "galaxies.parquet"
    write_parquet(path, columns(), {})
    return path


@pytest.fixture
def ready(monkeypatch, small_loaded):
    monkeypatch.setattr("tinsley.io.models.load_posterior", lambda name: small_loaded)


def refused(result, *parts):
    code, out, err = result
    assert code == 2
    assert out == ""
    assert "Traceback" not in err
    assert "tinsley: " in err
    for part in parts:
        assert part in err


def test_a_run(tinsley, ready, table, tmp_path):
    code, _, err = tinsley(
        "infer", table, "--survey", "sdss", "--out", tmp_path / "o", "--draws", DRAWS,
        "--refine", "never",
    )  # fmt: skip
    assert code == 0
    assert "bad_input" in err
    assert len(pq.read_table(tmp_path / "o" / "galaxies.parquet")) == N
    manifest = json.loads((tmp_path / "o" / "manifest.json").read_text())
    assert manifest["command"].startswith("tinsley infer")


def edited(path, **changes):
    made = {k: v for k, v in (columns() | changes).items() if v is not None}
    write_parquet(path, made, {})
    return path


def magnitudes():
    made = {}
    for k, band in enumerate("ugriz"):
        made |= {f"flux_{band}": np.full(N, 19.0 - 0.4 * k), f"flux_err_{band}": np.full(N, 0.02)}
    return made


def test_bad_tables(tinsley, table, tmp_path):
    ids = columns()["object_id"]
    twice = np.where(np.arange(N) == 3, ids[4], ids)
    cases = {
        "lacks column redshift": edited(tmp_path / "a.parquet", redshift=None),
        "more than once": edited(tmp_path / "b.parquet", object_id=twice),
        "seems to hold magnitudes": edited(tmp_path / "c.parquet", **magnitudes()),
    }
    empty = tmp_path / "d.csv"
    write_csv(empty, {k: v[:0] for k, v in columns().items()})
    cut = tmp_path / "e.parquet"
    cut.write_bytes(table.read_bytes()[:-300])
    text = tmp_path / "f.fits"
    text.write_text("Dear reader,\n")
    cases |= {"has no rows": empty, "is not a Parquet file": cut, "is not a FITS file": text}
    cases |= {"does not exist": tmp_path / "none.csv"}
    for message, path in cases.items():
        refused(tinsley("infer", path, "--out", tmp_path / "o"), message)
    assert not (tmp_path / "o").exists()


def test_bad_options(tinsley, table, tmp_path):
    out = ("--out", tmp_path / "o")
    refused(tinsley("infer", table, *out, "--survey", "sloan"), "no survey 'sloan'", "sdss")
    refused(tinsley("infer", table, *out, "--layout", "x"), "has no layout 'x'", "native")
    refused(tinsley("infer", table, *out, "--model", "x"), "no model 'x'")
    code, _, err = tinsley("infer", table, *out, "--refine", "often")
    assert (code, "--refine" in err, "auto" in err) == (2, True, True)
    for words in (("infer", table), ("simulate",)):
        for seed in (-1, 2**32):
            code, _, err = tinsley(*words, *out, "--seed", seed)
            assert (code, "--seed" in err) == (2, True)


@pytest.mark.slow
def test_likelihoods(tinsley, ready, table, tmp_path):
    words = ("infer", table, "--draws", DRAWS, "--refine", "never")
    code, _, _ = tinsley(*words, "--out", tmp_path / "t", "--likelihood", "student-t", "--dof", 2.5)
    assert code == 0
    manifest = json.loads((tmp_path / "t" / "manifest.json").read_text())
    assert manifest["likelihood"] == {"kind": "student-t", "dof": 2.5}
    out = ("--out", tmp_path / "o")
    refused(tinsley(*words, *out, "--dof", 3), "--dof 3 is for --likelihood student-t", "leave")
    for wrong in (("--likelihood", "cauchy"), ("--likelihood", "student-t", "--dof", 0)):
        code, _, err = tinsley(*words, *out, *wrong)
        assert (code, wrong[-2] in err) == (2, True)
    assert not (tmp_path / "o").exists()


def test_errors_show_names_as_they_are(tinsley, tmp_path):
    refused(tinsley("infer", tmp_path / "[bold]none[/].csv", "--out", tmp_path), "[bold]none[/]")


def test_bad_models(tinsley, table, tmp_path, small_model_file):
    content = small_model_file.read_bytes()
    for change, message in {
        (b'"tinsley_model": 1', b'"tinsley_model": 7'): "has format 7",
        (b"[0.05, 0.06]", b"[0.01, 0.60]"): "is damaged or was changed",
    }.items():
        path = tmp_path / "bad.tinsley"
        path.write_bytes(content.replace(*change))
        refused(tinsley("infer", table, "--out", tmp_path / "o", "--model", path), message)
        with pytest.raises(ValueError, match=message):
            load_posterior(path)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk(tinsley, ready, table, tmp_path):
    out = tmp_path / "o"
    (out).mkdir()
    (out / "run.json.part").symlink_to("/dev/full")
    refused(tinsley("infer", table, "--out", out, "--draws", DRAWS), "the disk is full")


def command_words(command, words=()):
    """The words of every command and group below `command`, itself first."""
    yield list(words)
    for name, below in getattr(command, "commands", {}).items():
        yield from command_words(below, (*words, name))


def all_commands(command):
    yield command
    for below in getattr(command, "commands", {}).values():
        yield from all_commands(below)


def test_help_is_shown_as_it_is_written():
    """Words in brackets would be taken for markup, and left out."""
    helps = [
        option.help
        for command in all_commands(get_command(app))
        for option in command.params
        if getattr(option, "help", None)
    ]
    assert len(helps) > 100
    assert [help_ for help_ in helps if Text.from_markup(help_).plain != help_] == []


def test_every_command_has_help(tinsley):
    every = list(command_words(get_command(app)))
    assert ["infer"] in every
    assert ["simulate-images"] in every
    assert ["train", "posterior"] in every
    for words in every:
        code, out, _ = tinsley(*words, "--help")
        assert code == 0, words
        assert "Usage" in out
