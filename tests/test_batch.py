"""Batches of fixed shape: a galaxy's posterior is its own, whoever is beside it."""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tinsley.catalog.batch import BATCH, infer_batch
from tinsley.infer.amortized import draw_posterior
from tinsley.infer.likelihood import Observation
from tinsley.observe.survey import Photometry
from tinsley.rng import object_key, split_id
from tinsley.sps.derived import DERIVED

RUN_KEY = jax.random.key(0)
N_DRAWS = 64


@pytest.fixture(scope="module")
def photometry(small_simulator) -> Photometry:
    made = small_simulator.sample(BATCH + 6, key=jax.random.key(2)).seen
    flux, sigma, mask, redshift = (np.asarray(a) for a in made[:4])
    number = len(flux)
    return Photometry(
        object_id=np.arange(number) * 2**33 + 5,
        redshift=redshift.astype(float),
        flux=np.where(mask, flux, 0.0).astype(float),
        sigma=np.where(mask, sigma, 1.0).astype(float),
        mask=mask,
        status=np.full(number, ""),
    )


@pytest.fixture(scope="module")
def infer(small_posterior):
    def infer(photometry, *, keep_draws=True):
        return infer_batch(small_posterior, photometry, N_DRAWS, RUN_KEY, keep_draws=keep_draws)

    return infer


@pytest.fixture(scope="module")
def whole(infer, photometry):
    return infer(photometry)


def assert_rows(result, whole, rows):
    for a, b in zip(jax.tree.leaves(result), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(a, b[rows])


def test_shapes(whole, small_posterior, photometry):
    names = {*small_posterior.space.names, *DERIVED}
    assert whole.draws.keys() == names
    assert whole.summary.keys() == {
        f"{name}_{label}" for name in names for label in ("mean", "std", "q16", "q50", "q84")
    }
    number = len(photometry)
    assert {v.shape for v in whole.draws.values()} == {(number, N_DRAWS)}
    assert {v.shape for v in whole.summary.values()} == {(number,)}
    assert whole.log_weight.shape == (number, N_DRAWS)
    assert whole.ess.shape == whole.khat.shape == whole.log_evidence.shape == (number,)


@pytest.mark.parametrize(
    "rows",
    [[0], [BATCH + 5], [3, 1, 2], range(5), range(BATCH), range(BATCH + 5, -1, -1)],
    ids=["first", "last", "some", "few", "one_batch", "reversed"],
)
def test_neighbours_change_nothing(rows, infer, whole, photometry):
    rows = np.array(list(rows))
    assert_rows(infer(photometry.take(rows)), whole, rows)


def test_wild_neighbours_change_nothing(infer, whole, photometry):
    flux = photometry.flux.copy()
    flux[1::2] *= -1e6
    other = infer(dataclasses.replace(photometry, flux=flux))
    for a, b in zip(jax.tree.leaves(other), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(a[::2], b[::2])


def test_name_makes_the_draws(infer, whole, photometry):
    renamed = infer(dataclasses.replace(photometry, object_id=photometry.object_id + 2**32))
    assert not np.any(renamed.log_evidence == whole.log_evidence)
    words = infer(dataclasses.replace(photometry, object_id=photometry.object_id.astype(str)))
    assert not np.any(words.log_evidence == whole.log_evidence)


def test_a_row_is_draw_posterior_with_its_own_key(small_posterior, whole, photometry):
    row = 7
    arrays = (photometry.flux, photometry.sigma, photometry.mask, photometry.redshift)
    seen = Observation(*(jnp.asarray(a[row], dtype=bool if a.dtype == bool else float)
                         for a in arrays))  # fmt: skip
    words = jnp.asarray(split_id(photometry.object_id[[row]])[0])
    drawn = eqx.filter_jit(draw_posterior)(
        small_posterior, seen, N_DRAWS, key=object_key(RUN_KEY, words)
    )
    np.testing.assert_allclose(whole.log_evidence[row], drawn.log_evidence, rtol=1e-4)
    for name, values in whole.draws.items():
        np.testing.assert_allclose(values[row], drawn.theta[name], rtol=2e-3, atol=2e-3)


def test_summaries_are_of_the_weighted_draws(whole):
    weight = np.exp(whole.log_weight.astype(float))
    np.testing.assert_allclose(weight.sum(axis=1), 1.0, rtol=1e-5)
    for name, values in whole.draws.items():
        mean = np.sum(weight * values, axis=1)
        np.testing.assert_allclose(whole.summary[f"{name}_mean"], mean, rtol=1e-4, atol=1e-4)
        for row in (0, 11, 40):
            order = np.argsort(values[row])
            reached = np.cumsum(weight[row][order])
            for label, level in (("q16", 0.16), ("q84", 0.84)):
                expected = values[row][order][np.searchsorted(reached, level)]
                assert whole.summary[f"{name}_{label}"][row] == pytest.approx(
                    expected, rel=1e-4, abs=1e-5
                )


def test_without_draws_the_rest_is_the_same(infer, whole, photometry):
    """Another compiled program, so up to rounding."""
    lean = infer(photometry.take(slice(0, 8)), keep_draws=False)
    assert lean.draws is None
    assert lean.log_weight is None
    for name in ("ess", "khat", "log_evidence"):
        np.testing.assert_allclose(getattr(lean, name), getattr(whole, name)[:8], rtol=1e-3)
    for name, values in lean.summary.items():
        np.testing.assert_allclose(values, whole.summary[name][:8], rtol=1e-3, atol=1e-3)
