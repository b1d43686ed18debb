"""Integrals kept on disk: done once, under a key of all they depend on."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from tinsley.io import band_tables
from tinsley.io.band_tables import cache_folder, load_band_tables
from tinsley.observe.photometry import make_band_tables
from tinsley.sps.galaxy import RedshiftGrid

GRID = RedshiftGrid(0.1, 0.2, 3)


def assert_same(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)


def count(monkeypatch) -> list[int]:
    calls, real = [], band_tables.tabulate_ssps

    def counted(*args):
        calls.append(1)
        return real(*args)

    monkeypatch.setattr(band_tables, "tabulate_ssps", counted)
    return calls


def test_second_call_reads_the_first_ones_integrals(
    small_model, small_filters, tmp_path, monkeypatch
):
    calls = count(monkeypatch)
    one, two = (load_band_tables(small_model, small_filters, GRID, tmp_path) for _ in range(2))
    assert len(calls) == 1
    assert_same(one, two)
    assert_same(one, make_band_tables(small_model, small_filters, GRID))


def test_whatever_they_depend_on_makes_them_anew(small_model, small_filters, tmp_path, monkeypatch):
    calls = count(monkeypatch)
    ssp = small_model.ssp
    brighter = dataclasses.replace(ssp, lum_lsun_aa=1.1 * ssp.lum_lsun_aa)
    solar = dataclasses.replace(ssp, lsun_erg_s=3.9e33)
    wide = dataclasses.replace(small_filters[0], wave_aa=1.001 * small_filters[0].wave_aa)
    for model, filters, grid in [
        (small_model, small_filters, GRID),
        (dataclasses.replace(small_model, ssp=brighter), small_filters, GRID),
        (dataclasses.replace(small_model, ssp=solar), small_filters, GRID),
        (small_model, (wide, *small_filters[1:]), GRID),
        (small_model, small_filters, RedshiftGrid(0.1, 0.21, 3)),
    ]:
        load_band_tables(model, filters, grid, tmp_path)
    assert len(calls) == 5


@pytest.mark.parametrize("content", [b"", b"no array", None])
def test_a_damaged_file_is_made_anew(content, small_model, small_filters, tmp_path):
    good = load_band_tables(small_model, small_filters, GRID, tmp_path)
    (path,) = tmp_path.glob("*.npy")
    whole = path.read_bytes()
    path.write_bytes(whole[:-100] if content is None else content)
    assert_same(good, load_band_tables(small_model, small_filters, GRID, tmp_path))
    assert path.read_bytes() == whole


def test_a_folder_that_can_not_be_written_costs_only_time(small_model, small_filters, tmp_path):
    (tmp_path / "file").write_text("mine")
    load_band_tables(small_model, small_filters, GRID, tmp_path / "file")


def test_the_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "tinsley"
