"""n(z) of tomographic bins, against distributions whose moments are known."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from tinsley.errors import InputError
from tinsley.population.summaries import Band
from tinsley.population.tomography import (
    assign_bins,
    mean_redshifts,
    redshift_distributions,
    to_qp,
)

EDGES = np.linspace(0, 2, 101)
MEANS, WIDTHS = np.array([0.4, 0.8, 1.2]), np.array([0.08, 0.1, 0.12])
SHIFTS = np.array([-0.02, 0.0, 0.01, 0.03])


@pytest.fixture(scope="module")
def columns():
    """Four members; three bins of normal redshifts, each member's shifted; some in no bin."""
    rng = np.random.default_rng(4)
    n = 30_000
    member, bin_ = np.repeat(np.arange(4), 3 * n), np.tile(np.repeat(np.arange(3), n), 4)
    z = MEANS[bin_] + SHIFTS[member] + WIDTHS[bin_] * rng.normal(size=12 * n)
    bin_ = np.where(rng.random(12 * n) < 0.1, -1, bin_)
    weight = np.where(z > MEANS[bin_] + SHIFTS[member], 2.0, 1.0)
    return {"member": member, "bin": bin_, "redshift": z, "selected_weight": weight}


def test_a_bin_is_from_its_lower_edge_to_below_the_next():
    values = np.array([0.0, 0.1, 0.5, 0.99, 1.0, -0.1, np.nan])
    assert assign_bins(values, np.array([0.1, 0.5, 1.0])).tolist() == [-1, 0, 1, 1, -1, -1, -1]


def test_n_of_z_has_the_moments_it_was_made_with(columns):
    n_of_z = redshift_distributions(columns, "bin", EDGES, None)
    middle, step = (EDGES[1:] + EDGES[:-1]) / 2, np.diff(EDGES)
    np.testing.assert_allclose(np.sum(n_of_z.each * step, axis=2), 1)
    mean = np.sum(n_of_z.each * step * middle, axis=2)
    expected = MEANS + SHIFTS[:, None]
    np.testing.assert_allclose(mean, expected, atol=0.003)
    var = np.sum(n_of_z.each * step * middle**2, axis=2) - mean**2
    np.testing.assert_allclose(np.sqrt(var), np.tile(WIDTHS, (4, 1)), atol=0.003)
    np.testing.assert_allclose(mean_redshifts(columns, "bin", None).each, expected, atol=0.002)
    band = mean_redshifts(columns, "bin", None).inner
    shift = Band(SHIFTS[:, None]).inner[:, 0]
    np.testing.assert_allclose(band, MEANS + shift[:, None], atol=0.003)


def test_the_weight_counts(columns):
    """Twice the weight above the mean moves it by (2 - 1) / (2 + 1) of the mean deviation."""
    lift = WIDTHS * np.sqrt(2 / np.pi) / 3
    expected = MEANS + lift + SHIFTS[:, None]
    np.testing.assert_allclose(mean_redshifts(columns, "bin").each, expected, atol=0.003)
    n_of_z = redshift_distributions(columns, "bin", EDGES)
    mean = np.sum(n_of_z.each * np.diff(EDGES) * (EDGES[1:] + EDGES[:-1]) / 2, axis=2)
    np.testing.assert_allclose(mean, expected, atol=0.003)


def test_a_member_without_galaxies_in_a_bin_says_nothing(columns):
    few = columns | {"bin": np.where(columns["member"] == 1, 0, columns["bin"])}
    each = redshift_distributions(few, "bin", EDGES).each
    assert np.isnan(each[1, 1:]).all()
    assert np.isfinite(np.delete(each, 1, axis=0)).all()
    with pytest.raises(InputError, match="negative throughout"):
        mean_redshifts(columns | {"bin": np.full(len(columns["bin"]), -1)}, "bin")


def test_without_qp_the_extra_is_named(columns, monkeypatch):
    monkeypatch.setitem(sys.modules, "qp", None)
    with pytest.raises(InputError, match=r"pip install 'tinsley\[qp\]'"):
        to_qp(redshift_distributions(columns, "bin", EDGES), EDGES)


def test_an_ensemble_has_the_moments(columns):
    pytest.importorskip("qp", reason="qp-prob is not installed: pip install 'tinsley[qp]'")
    ensemble = to_qp(redshift_distributions(columns, "bin", EDGES, None), EDGES)
    assert ensemble.npdf == 12
    assert ensemble.ancil["member"].tolist() == np.repeat(np.arange(4), 3).tolist()
    assert ensemble.ancil["bin"].tolist() == [0, 1, 2] * 4
    expected = MEANS + SHIFTS[:, None]
    np.testing.assert_allclose(np.ravel(ensemble.mean()), expected.ravel(), atol=0.003)
    np.testing.assert_allclose(np.ravel(ensemble.std()), np.tile(WIDTHS, 4), atol=0.004)
    np.testing.assert_allclose(np.ravel(ensemble.cdf(2.0)), 1, atol=1e-6)


def test_an_ensemble_of_nothing_is_refused(columns):
    pytest.importorskip("qp", reason="qp-prob is not installed: pip install 'tinsley[qp]'")
    few = columns | {"bin": np.where(columns["member"] == 1, 0, columns["bin"])}
    with pytest.raises(InputError, match="no galaxy in one of the bins"):
        to_qp(redshift_distributions(few, "bin", EDGES), EDGES)
