"""Factors of small matrices; and that nothing which galaxies run side by side waits for a thread.

jaxlib's LAPACK calls and XLA's Fourier transform wait, on a processor, for tasks that they give to
the pool of threads that they run in. Two galaxies at once, on two cores, have stood still for ever.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from conftest import SMALL_GRID
from tinsley.catalog.refine import STAGES
from tinsley.density.triangular import cholesky, invert_lower
from tinsley.infer.amortized import draw_posterior
from tinsley.infer.likelihood import Gaussian, Observation
from tinsley.status import Redshift

NUMBER = 512


@pytest.mark.parametrize("shape", [(1, 1), (5, 5), (3, 11, 11)])
def test_factors_and_inverses_are_numpys(shape):
    half = np.random.default_rng(0).normal(size=shape)
    matrix = half @ np.swapaxes(half, -1, -2) + 0.1 * np.eye(shape[-1])
    exact = np.linalg.cholesky(matrix)
    factor = cholesky(jnp.asarray(matrix, dtype=float))
    np.testing.assert_allclose(factor, exact, rtol=2e-4, atol=2e-5)
    inverse = invert_lower(jnp.asarray(exact, dtype=float))
    np.testing.assert_allclose(inverse, np.linalg.inv(exact), rtol=2e-4, atol=2e-4)


def test_no_factor_is_nan_and_not_an_error():
    assert np.isnan(cholesky(jnp.asarray([[1.0, 2.0], [2.0, 1.0]]))).any()


def waits(function, *given) -> bool:
    """True where a computation holds calls that wait for the pool of threads."""
    text = jax.jit(function).lower(*given).as_text()
    return any(word in text for word in ("lapack", "blas_", "stablehlo.fft"))


def test_what_waits_is_recognised():
    assert waits(jnp.linalg.cholesky, jnp.eye(3))
    assert waits(jnp.linalg.inv, jnp.eye(3))
    assert waits(jnp.fft.rfft, jnp.ones(8))
    assert not waits(cholesky, jnp.eye(3))


@pytest.fixture(scope="module")
def seen() -> Observation:
    flux, redshift = jnp.asarray([3.0, 9.0, 16.0, 21.0, 26.0]), jnp.asarray(SMALL_GRID.nodes[8])
    return Observation(flux, flux / 20, jnp.ones(5, bool), redshift)


@pytest.mark.parametrize("draw", [stage[1] for stage in STAGES[Redshift.GIVEN]])
def test_refining_a_galaxy_waits_for_no_other(draw, small_posterior, seen):
    assert not waits(lambda key: draw(small_posterior, seen, NUMBER, key=key), jax.random.key(0))


def test_bands_that_are_correlated_wait_for_no_other(small_posterior, seen):
    likelihood = Gaussian(0.5 * jnp.eye(5) + 0.5)
    posterior = dataclasses.replace(small_posterior, likelihood=likelihood)

    def draw(key: jax.Array) -> jax.Array:
        return draw_posterior(posterior, seen, NUMBER, key=key).log_weight

    assert not waits(draw, jax.random.key(0))
