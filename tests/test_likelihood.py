"""The Gaussian likelihood with mass integrated out, against float64 quadrature and exact CDFs."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from tinsley.infer.likelihood import LN10, Observation, chi2, integrate_mass, sample_log10_mass

PRIOR = (7.0, 12.5)
UNIT_FLUX = np.array([12.0, 40.0, 66.0, 75.0, 90.0])
ALL = np.ones(5, bool)
FALSE_ALARM = 1e-4
"""Chance that a right program fails one of the sampling tests; keys are fixed."""


def observation(flux, sigma, mask=ALL, redshift=0.1) -> Observation:
    flux, sigma = (jnp.asarray(a, dtype=float) for a in (flux, sigma))
    return Observation(flux, sigma, jnp.asarray(mask), jnp.asarray(redshift, dtype=float))


def single(a) -> np.ndarray:
    """Float64 values that float32 holds exactly, so that both sides see the same numbers."""
    return np.asarray(np.asarray(a, np.float32), float)


def limits_in_ln_mass(model, sigma, snr_range):
    low, high = (np.array(PRIOR) - 10) * LN10
    if snr_range is not None:
        low = max(low, np.max(np.log(snr_range[0] * sigma / model)))
        high = min(high, np.min(np.log(snr_range[1] * sigma / model)))
    return low, high


def integrand(model, flux, sigma, low, high):
    """-2 ln of it at its peak between low and high, and itself over its peak, as functions of x."""
    precision = np.sum((model / sigma) ** 2)
    best = np.sum(model * flux / sigma**2) / precision
    peak = np.clip(best, np.exp(low), np.exp(high))
    lowest = np.sum(((flux - peak * model) / sigma) ** 2)

    def relative(x):
        mass = np.exp(x)
        return np.exp(-0.5 * precision * (mass - peak) * (mass + peak - 2 * best))

    steepness = max(precision * peak * abs(best - peak), np.sqrt(precision) * peak, 1e-3)
    return lowest, relative, np.log(peak), 1 / steepness


def quadrature(model, flux, sigma, mask, snr_range=None) -> float:
    """ln of the integral over mass, by adaptive quadrature in float64."""
    model, flux, sigma = model[mask], flux[mask], sigma[mask]
    low, high = limits_in_ln_mass(model, sigma, snr_range)
    if high <= low:
        return -np.inf
    lowest, relative, middle, width = integrand(model, flux, sigma, low, high)
    cuts = np.clip(middle + width * np.array([-1e9, -60, -12, -3, 0, 3, 12, 60, 1e9]), low, high)
    area = sum(
        integrate.quad(relative, a, b, epsabs=1e-13, epsrel=1e-9, limit=200)[0]
        for a, b in zip(cuts, cuts[1:], strict=False)
        if b > a
    )
    constant = -np.sum(np.log(sigma)) - 0.5 * len(flux) * np.log(2 * np.pi)
    return constant - 0.5 * lowest + np.log(area) - np.log(LN10 * (PRIOR[1] - PRIOR[0]))


def random_case(rng, log10_mass):
    """A galaxy of a given best mass: S/N 0.1-300, scattered colours, some bands missing."""
    snr = 10 ** rng.uniform(-1, 2.48)
    model = 10 ** rng.uniform(-1, 4) * 10 ** rng.normal(0, 0.3, 5)
    truth = model * 10 ** (log10_mass - 10)
    sigma = truth / snr * 10 ** rng.normal(0, 0.2, 5)
    flux = truth + sigma * rng.normal(size=5)
    mask = rng.random(5) > 0.3
    mask[rng.integers(5)] = True
    return single(model), single(flux), single(sigma), mask


@functools.partial(jax.jit, static_argnums=(2, 3))
def compiled(unit, seen, prior, snr_range):
    return integrate_mass(unit, seen, prior, snr_range)


def log_likelihood(model, flux, sigma, mask, snr_range=None) -> float:
    unit = jnp.asarray(model, dtype=float)[None]
    return float(compiled(unit, observation(flux, sigma, mask), PRIOR, snr_range).log_likelihood[0])


def test_mass_integral_is_the_quadrature_inside_the_prior():
    rng = np.random.default_rng(1)
    cases = [random_case(rng, rng.uniform(8.0, 11.5)) for _ in range(150)]
    expected = np.array([quadrature(*case) for case in cases])
    got = np.array([log_likelihood(*case) for case in cases])
    error = np.abs(got - expected)
    assert np.max(error - 3e-7 * np.abs(expected)) < 1e-3  # float32 holds 7 digits of ln L
    assert np.median(error) < 1e-4


@pytest.mark.parametrize(
    ("log10_mass", "bound"),
    [(5.5, 0.15), (6.5, 0.03), (7.0, 0.03), (12.5, 0.03), (12.8, 0.03), (14.0, 0.15)],
)
def test_mass_integral_at_and_beyond_the_ends_of_the_prior(log10_mass, bound):
    """Worst where the integrand is flat over the prior but for a steep rise at its very end."""
    rng = np.random.default_rng(int(10 * log10_mass))
    cases = [random_case(rng, log10_mass + rng.normal(0, 0.05)) for _ in range(30)]
    expected = np.array([quadrature(*case) for case in cases])
    got = np.array([log_likelihood(*case) for case in cases])
    assert np.max(np.abs(got - expected) - 1e-6 * np.abs(expected)) < bound


def test_mass_integral_between_limits_of_true_snr():
    rng = np.random.default_rng(3)
    cases = [random_case(rng, rng.uniform(6.5, 13.0)) for _ in range(100)]
    expected = np.array([quadrature(*case, (0.7, 220.0)) for case in cases])
    got = np.array([log_likelihood(*case, (0.7, 220.0)) for case in cases])
    possible = np.isfinite(expected)
    assert 10 < possible.sum() < 100
    np.testing.assert_array_equal(np.isfinite(got), possible)
    error = np.abs(got[possible] - expected[possible])
    assert np.max(error - 1e-6 * np.abs(expected[possible])) < 0.02


@jax.jit
@functools.partial(jax.value_and_grad, argnums=0)
def _slope(shift, seen):
    unit = jnp.asarray(UNIT_FLUX, float).at[1].multiply(jnp.exp(shift))
    return integrate_mass(unit[None], seen, PRIOR).log_likelihood[0]


@pytest.mark.parametrize("snr", [0.3, 3.0, 30.0])
def test_gradient_is_the_slope(snr):
    """Of one band's model flux, also where masses down to the prior's end are possible."""
    flux = UNIT_FLUX * np.array([1.3, 0.9, 1.1, 0.8, 1.0])
    seen, step = observation(flux, UNIT_FLUX / snr), 0.05
    (_, slope), (high, _), (low, _) = (_slope(0.1 + shift, seen) for shift in (0.0, step, -step))
    assert float(slope) == pytest.approx(float(high - low) / (2 * step), rel=0.03, abs=2e-3)


def test_negative_fluxes_are_only_unlikely():
    sigma = single(UNIT_FLUX / 5)
    for offset in (-1.0, -4.0, -9.0):
        flux = single(offset * sigma)
        got = log_likelihood(single(UNIT_FLUX), flux, sigma, ALL)
        assert got == pytest.approx(quadrature(single(UNIT_FLUX), flux, sigma, ALL), abs=1e-3)


def test_masked_bands_do_not_matter():
    mask = np.array([True, False, True, True, False])
    flux, sigma = UNIT_FLUX.copy(), 0.1 * UNIT_FLUX
    clean = compiled(jnp.asarray(UNIT_FLUX[None]), observation(flux, sigma, mask), PRIOR, None)
    flux[~mask], sigma[~mask] = -1e7, 1e-8
    wild = compiled(jnp.asarray(UNIT_FLUX[None]), observation(flux, sigma, mask), PRIOR, None)
    for a, b in zip(clean, wild, strict=True):
        np.testing.assert_array_equal(a, b)


def test_evidence_does_not_depend_on_the_unit_of_flux():
    seen = (1.3 * UNIT_FLUX, 0.05 * UNIT_FLUX)
    here = log_likelihood(UNIT_FLUX, *seen, ALL)
    there = log_likelihood(1e3 * UNIT_FLUX, 1e3 * seen[0], 1e3 * seen[1], ALL)
    assert there == pytest.approx(here - 5 * np.log(1e3), abs=1e-3)


SAMPLED = {
    # name: (S/N per band, log10 best mass, offset of the fluxes in errors)
    "prior": (0.1, 10.0, 0.0),
    "faint": (1.0, 10.0, 0.0),
    "negative": (1.0, 10.0, -3.0),
    "widest_step": (2.65, 12.3, 0.0),
    "just_bounded": (3.0, 11.0, 0.0),
    "usual": (30.0, 9.0, 0.0),
    "sharp": (300.0, 10.0, 0.0),
    "at_the_low_end": (10.0, 7.0, 0.0),
    "at_the_high_end": (10.0, 12.5, 0.0),
    "beyond_the_high_end": (20.0, 12.8, 0.0),
    "beyond_the_low_end": (20.0, 6.6, 0.0),
}


@pytest.mark.parametrize(("snr", "log10_mass", "offset"), SAMPLED.values(), ids=SAMPLED.keys())
def test_sampled_mass_follows_its_exact_cdf(snr, log10_mass, offset, key):
    truth = UNIT_FLUX * 10 ** (log10_mass - 10)
    sigma = truth / snr
    flux = truth + offset * sigma
    low, high = limits_in_ln_mass(UNIT_FLUX, sigma, None)
    _, relative, middle, width = integrand(UNIT_FLUX, flux, sigma, low, high)
    near = np.clip(middle + width * np.linspace(-60, 60, 20001), low, high)
    x = np.union1d(np.linspace(low, high, 20001), near)
    cdf = integrate.cumulative_trapezoid(relative(x), x, initial=0)
    unit = jnp.tile(jnp.asarray(UNIT_FLUX, dtype=float), (40_000, 1))
    integral = compiled(unit, observation(flux, sigma), PRIOR, None)
    drawn = np.asarray(sample_log10_mass(integral, key=key), float)
    assert drawn.min() >= PRIOR[0] - 2e-6
    assert drawn.max() <= PRIOR[1] + 2e-6
    test = stats.kstest((drawn - 10) * LN10, lambda t: np.interp(t, x, cdf / cdf[-1]))
    assert test.pvalue > FALSE_ALARM / len(SAMPLED)


def test_mass_of_an_impossible_draw_is_finite(key):
    """Its weight is 0, and 0 times NaN would spoil the sums of the others."""
    seen = observation(UNIT_FLUX, UNIT_FLUX * np.array([1e-4, 1.0, 1.0, 1.0, 1e4]))
    integral = compiled(jnp.asarray(UNIT_FLUX[None]), seen, PRIOR, (1.0, 100.0))
    assert integral.log_likelihood[0] == -jnp.inf
    assert jnp.isfinite(sample_log10_mass(integral, key=key)[0])


def test_each_draw_has_a_mass_of_its_own(key):
    unit = jnp.asarray(UNIT_FLUX, dtype=float) * jnp.asarray([1.0, 10.0, 100.0])[:, None]
    integral = compiled(unit, observation(UNIT_FLUX, UNIT_FLUX / 200), PRIOR, None)
    drawn = sample_log10_mass(integral, key=key)
    np.testing.assert_allclose(drawn, [10.0, 9.0, 8.0], atol=0.01)


def test_chi2_counts_measured_bands():
    mask = np.array([True, True, False, True, True])
    seen = observation(UNIT_FLUX, np.array([1.0, 2.0, 1.0, 4.0, 5.0]), mask)
    flux = jnp.asarray(UNIT_FLUX[None] + 2.0, dtype=float)
    np.testing.assert_allclose(chi2(flux, seen)[0], [4.0, 1.0, 0.0, 0.25, 0.16], rtol=1e-5)


def test_mass_integral_is_the_same_compiled():
    unit = jnp.asarray(UNIT_FLUX[None], dtype=float)
    seen = observation(1.1 * UNIT_FLUX, 0.03 * UNIT_FLUX)
    plain = integrate_mass(unit, seen, PRIOR).log_likelihood
    np.testing.assert_allclose(plain, compiled(unit, seen, PRIOR, None).log_likelihood, rtol=1e-5)
