"""Outliers: Student's t weights are calibrated where errors have its wings."""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax
import pytest

from test_calibrate import WidePrior
from tinsley.infer.amortized import AmortizedPosterior
from tinsley.infer.calibrate import Effort, calibrate
from tinsley.infer.likelihood import StudentT
from tinsley.infer.ranks import WEIGHTED, WITH_TRUTH, holm, uniformity
from tinsley.infer.simulator import Simulation, Simulator
from tinsley.infer.truths import simulate_prior
from tinsley.observe.noise import BroadNoise

NUMBER = 384
SNR_RANGE = (0.5, 8.0)
EFFORT = Effort(draws=256, enough=20, most=8)
DOF = 1.5
"""One band in nine is off by more than three errors."""
FALSE_ALARM = 0.01
"""Chance that a calibrated posterior fails, for each kind of rank (Holm); keys are fixed."""


class OutlierSimulator(eqx.Module):
    """The same galaxies with Student's t noise, drawn by JAX's own generator."""

    inner: Simulator

    def sample(self, number: int, *, key: jax.Array) -> Simulation:
        key_inner, key_noise = jax.random.split(key)
        made = self.inner.sample(number, key=key_inner)
        noise = jax.random.t(key_noise, DOF, made.flux_true.shape)
        seen = made.seen._replace(flux=made.flux_true + made.seen.sigma * noise)
        return made._replace(seen=seen)


@pytest.fixture(scope="module")
def p_values(small_posterior, small_simulator):
    """Of the ranks of every property, by likelihood and kind of rank."""
    posterior = AmortizedPosterior(
        WidePrior(small_posterior.space.without_mass().n_unit),
        small_posterior.space,
        small_posterior.tables,
        small_posterior.derived_tables,
    )
    inner = dataclasses.replace(small_simulator, noise=BroadNoise(*SNR_RANGE))

    def of(likelihood):
        own = dataclasses.replace(posterior, likelihood=likelihood)
        simulator = OutlierSimulator(inner)
        truth = simulate_prior(own, simulator, NUMBER, SNR_RANGE, jax.random.key(1))
        ranks = calibrate(own, truth, SNR_RANGE, EFFORT, jax.random.key(2)).ranks
        return {
            kind: {name: uniformity(r)["p"] for name, r in ranks[kind].items()}
            for kind in (WEIGHTED, WITH_TRUTH)
        }

    return {"student_t": of(StudentT(DOF))}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [WEIGHTED, WITH_TRUTH])
def test_students_weights_are_calibrated(p_values, kind):
    assert not holm(p_values["student_t"][kind], FALSE_ALARM), p_values
