"""Every likelihood against scipy, float64 quadrature over mass, exact CDFs and derivatives."""

from __future__ import annotations

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats

from tinsley.infer.likelihood import (
    LN10,
    Gaussian,
    Observation,
    StudentT,
    sample_log10_mass,
)

PRIOR = (7.0, 12.5)
LOW, HIGH = (np.array(PRIOR) - 10) * LN10
FALSE_ALARM = 1e-4
"""Chance that a right program fails one of the sampling tests; keys are fixed."""
N_BANDS = 5
SHARED = np.full((N_BANDS, N_BANDS), 0.6) + 0.4 * np.eye(N_BANDS)
UNEQUAL = np.corrcoef(np.random.default_rng(0).normal(size=(8, N_BANDS)), rowvar=False)


def correlated(matrix) -> Gaussian:
    return Gaussian(jnp.asarray(matrix, dtype=float))


LIKELIHOODS = {
    "gaussian": Gaussian(),
    "shared": correlated(SHARED),
    "unequal": correlated(UNEQUAL),
    "cauchy": StudentT(1.0),
    "student_t": StudentT(4.0),
    "nearly_normal": StudentT(300.0),
}
every = pytest.mark.parametrize("likelihood", LIKELIHOODS.values(), ids=LIKELIHOODS.keys())


@dataclasses.dataclass
class Case:
    """A galaxy in float64: model and data [band]; the numbers fit float32 exactly."""

    model: np.ndarray
    flux: np.ndarray
    sigma: np.ndarray
    mask: np.ndarray
    limit: np.ndarray

    def __post_init__(self) -> None:
        for name in ("model", "flux", "sigma"):
            setattr(self, name, np.asarray(getattr(self, name), np.float32).astype(float))

    def seen(self, *, limits: bool = True) -> Observation:
        flux, sigma = (jnp.asarray(a, dtype=float) for a in (self.flux, self.sigma))
        limit = jnp.asarray(self.limit) if limits else None
        return Observation(flux, sigma, jnp.asarray(self.mask), jnp.asarray(0.1), limit)

    def unit(self) -> jax.Array:
        return jnp.asarray(self.model, dtype=float)[None]


def log_density(likelihood, case: Case, flux: np.ndarray) -> np.ndarray:
    """Log-likelihood of model fluxes [point, band], by scipy alone."""
    residual, mask, limit = (case.flux - flux) / case.sigma, case.mask, case.limit
    out = special.log_ndtr(residual[:, limit]).sum(axis=1) - np.log(case.sigma[mask]).sum()
    if isinstance(likelihood, StudentT):
        return out + stats.t.logpdf(residual[:, mask], likelihood.dof).sum(axis=1)
    if likelihood.correlation is None:
        return out + stats.norm.logpdf(residual[:, mask]).sum(axis=1)
    block = np.asarray(likelihood.correlation, float)[np.ix_(mask, mask)]
    return out + stats.multivariate_normal(cov=block).logpdf(
        residual[:, mask].reshape(-1, len(block))
    )


def on_grid(likelihood, case: Case) -> tuple[np.ndarray, np.ndarray]:
    """A fine grid in ln M, and the log-likelihood on it: thousands of points where it may peak."""
    told = case.mask | case.limit
    width = np.sort(np.sinh(np.linspace(-9, 9, 300)))
    at = (case.flux + width[:, None] * case.sigma)[:, told] / case.model[told]
    inverse = np.where(case.mask, 1 / case.sigma, 0.0)
    total = np.sum((case.model * inverse) ** 2)
    middle = (case.model * case.flux * inverse**2).sum() / total + width / np.sqrt(total)
    masses = np.concatenate([at.ravel(), middle])
    x = np.log(masses[masses > 0])
    x = np.union1d(np.clip(x, LOW, HIGH), np.linspace(LOW, HIGH, 1501))
    for power in (1 / 20, 1 / 3):
        log_f = log_density(likelihood, case, np.exp(x)[:, None] * case.model)
        f = np.exp(power * (log_f - log_f.max()))
        area = np.cumsum(np.maximum(f[1:], f[:-1]) * np.diff(x))
        more = np.interp(np.linspace(0, area[-1], 2000), np.append(0, area), x)
        x = np.union1d(x, more)
    return x, log_density(likelihood, case, np.exp(x)[:, None] * case.model)


def quadrature(likelihood, case: Case) -> float:
    """Ln of the integral over log-uniform mass, float64."""
    x, log_f = on_grid(likelihood, case)
    area = integrate.trapezoid(np.exp(log_f - log_f.max()), x)
    return log_f.max() + np.log(area / (HIGH - LOW))


@eqx.filter_jit
def integrals(likelihood, unit, seen):
    return jax.vmap(lambda m, s: likelihood.integrate_mass(m, s, PRIOR).log_likelihood[0])(
        unit, seen
    )


def ours(likelihood, cases: list[Case], *, limits: bool = True) -> np.ndarray:
    seen = jax.tree.map(lambda *rows: jnp.stack(rows), *(c.seen(limits=limits) for c in cases))
    return np.asarray(integrals(likelihood, jnp.stack([c.unit() for c in cases]), seen), float)


def random_case(rng, kind: str) -> Case:
    """S/N 0.1-300, scattered colours, some bands missing, some of these with limits."""
    model = 10 ** rng.uniform(-1, 4) * 10 ** rng.normal(0, 0.3, N_BANDS)
    truth = model * 10 ** (rng.uniform(7, 12.5) - 10)
    if kind == "ends":
        truth = model * 10 ** (rng.choice([6.0, 6.8, 7.0, 12.5, 12.7, 13.5]) - 10)
    size = N_BANDS if kind in ("unlike", "one_and_limits") else ()
    sigma = truth / 10 ** rng.uniform(-1, 2.48, size) * 10 ** rng.normal(0, 0.2, N_BANDS)
    flux = truth + sigma * rng.normal(size=N_BANDS)
    if kind == "outlier":
        flux[rng.integers(N_BANDS)] += rng.choice([-50, 50]) * sigma.max()
    if kind == "disagree":
        flux += sigma * rng.normal(size=N_BANDS) * 10 ** rng.uniform(0, 2)
    if kind == "negative":
        flux = -sigma * rng.uniform(0, 9, N_BANDS)
    mask = rng.random(N_BANDS) > 0.3
    if kind == "one_and_limits":
        mask[:] = False
    mask[rng.integers(N_BANDS)] = True
    limit = ~mask & (rng.random(N_BANDS) > 0.3 if kind != "one_and_limits" else True)
    value = truth * 10 ** rng.normal(0, 0.7, N_BANDS)
    errors = 3 * 10 ** rng.uniform(-1, 1, N_BANDS)
    return Case(
        model, np.where(limit, value, flux), np.where(limit, value / errors, sigma), mask, limit
    )


KINDS = ("usual", "unlike", "ends", "outlier", "disagree", "negative", "one_and_limits")


EACH = 12


def random_cases(seed: int, *, limits: bool = True) -> list[Case]:
    """Some of every kind, always as many: one compilation serves all tests."""
    rng = np.random.default_rng(seed)
    cases = [random_case(rng, kind) for kind in KINDS for _ in range(EACH)]
    for case in cases:
        case.limit &= limits
    return cases


@every
def test_mass_integral_is_the_quadrature(likelihood):
    """With limits, so that normal likelihoods too are integrated on nodes."""
    cases = random_cases(1)
    expected = np.array([quadrature(likelihood, case) for case in cases])
    error = np.abs(ours(likelihood, cases) - expected)
    assert np.max(error - 1e-6 * np.abs(expected)) < 0.01  # float32 holds 6-7 digits of ln L
    assert np.median(error) < 1e-3


@pytest.mark.parametrize("matrix", [SHARED, UNEQUAL], ids=["shared", "unequal"])
def test_correlated_errors_in_closed_form(matrix):
    """Without limits: no nodes are looked for. Masked bands and their correlations drop out."""
    cases = random_cases(2, limits=False)
    expected = np.array([quadrature(correlated(matrix), case) for case in cases])
    error = np.abs(ours(correlated(matrix), cases, limits=False) - expected)
    inside = np.repeat([kind != "ends" for kind in KINDS], EACH)
    assert np.max((error - 1e-6 * np.abs(expected))[inside]) < 0.01
    assert np.max(error - 1e-6 * np.abs(expected)) < 0.15  # as in test_likelihood.py


def test_no_correlation_is_independence():
    cases = random_cases(3, limits=False)
    plain, white = (
        ours(likelihood, cases, limits=False)
        for likelihood in (Gaussian(), correlated(np.eye(N_BANDS)))
    )
    np.testing.assert_allclose(white, plain, rtol=1e-6, atol=1e-4)


def test_nodes_agree_with_the_closed_form():
    """The same integral by both roads: limits that are none."""
    cases = random_cases(4, limits=False)
    closed, nodes = (ours(Gaussian(), cases, limits=limits) for limits in (False, True))
    inside = np.repeat([kind != "ends" for kind in KINDS], EACH)
    assert np.max((np.abs(nodes - closed) - 1e-6 * np.abs(closed))[inside]) < 0.005


@every
def test_log_likelihood_is_scipys(likelihood):
    rng = np.random.default_rng(6)
    log_prob = eqx.filter_jit(likelihood.log_prob)
    for kind in KINDS:
        case = random_case(rng, kind)
        flux = case.model * 10 ** rng.uniform(-0.5, 0.5, (20, 1))
        flux = np.asarray(flux, np.float32).astype(float)
        expected = log_density(likelihood, case, flux)
        got = log_prob(jnp.asarray(flux, dtype=float), case.seen())
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-3)


def test_many_degrees_of_freedom_are_normal():
    """Ln of t over normal is of the order of chi^4 / (4 dof)."""
    cases = random_cases(8)
    normal, nearly = (ours(likelihood, cases) for likelihood in (Gaussian(), StudentT(1e6)))
    fits = normal > -100
    assert fits.sum() > 30
    np.testing.assert_allclose(nearly[fits], normal[fits], atol=0.01)


def test_a_hopeless_limit_costs_what_its_tail_says():
    """ln Phi(-z) = -z^2 / 2 - ln(z sqrt(2 pi)) + ...: 100 sigma above a limit, still finite."""
    seen = Observation(
        jnp.array([50.0, 1.0]), jnp.array([1e-3, 0.5]), jnp.array([True, False]), jnp.array(0.1),
        jnp.array([False, True]),
    )  # fmt: skip
    got = Gaussian().log_prob(jnp.array([[50.0, 51.0]]), seen) - Gaussian().log_norm(seen)
    z = 100.0
    assert float(got[0]) == pytest.approx(-(z**2) / 2 - np.log(z * np.sqrt(2 * np.pi)), rel=1e-6)


@pytest.mark.parametrize("name", ["gaussian", "shared", "student_t"])
def test_gradients_are_those_of_the_quadrature(name):
    """With respect to model, data and errors, by differences of the float64 oracle."""
    likelihood = LIKELIHOODS[name]
    rng = np.random.default_rng(11)

    def value(model, flux, sigma, seen):
        seen = seen._replace(flux=flux, sigma=sigma)
        return likelihood.integrate_mass(model[None], seen, PRIOR).log_likelihood[0]

    slopes = eqx.filter_jit(jax.grad(value, argnums=(0, 1, 2)))
    for kind in ("usual", "unlike", "outlier", "one_and_limits"):
        case = random_case(rng, kind)
        inputs = {name: getattr(case, name) for name in ("model", "flux", "sigma")}
        found = slopes(*(jnp.asarray(a, dtype=float) for a in inputs.values()), case.seen())
        for (label, values), got in zip(inputs.items(), found, strict=True):
            for band in np.flatnonzero(case.mask | case.limit):
                step = 1e-3 * case.sigma[band]
                if label == "model":
                    step *= case.model[band] / max(abs(case.flux[band]), case.sigma[band])
                ends = []
                for sign in (-1.0, 1.0):
                    moved = values.copy()
                    moved[band] += sign * step
                    other = dataclasses.replace(case)
                    setattr(other, label, moved)
                    ends.append(quadrature(likelihood, other))
                change = (ends[1] - ends[0]) / 2
                assert float(got[band]) * step == pytest.approx(change, rel=0.02, abs=3e-5), (
                    kind, label, band,
                )  # fmt: skip


SAMPLED = {
    "two_peaks": (StudentT(1.0), [30.0, 30, 30, 30, 30], [1.0, 1.0, 3.0, 3.0, 3.0], ""),
    "outlier": (StudentT(4.0), [40.0, 40, 40, 40, 40], [1.0, 1.0, 1.0, 1.0, 3.0], ""),
    "faint": (StudentT(4.0), [0.5, 0.5, 1.0, 1.0, 0.5], [1.0, -1.0, 2.0, 1.0, 1.0], ""),
    "limit_above": (Gaussian(), [10.0, 3, 3, 3, 3], [1.0, 1.0, 1.0, 1.0, 1.0], "z"),
    "limit_far_below": (Gaussian(), [10.0, 10, 10, 10, 3], [1.0, 1.0, 1.0, 1.0, 0.2], "z"),
    "limits_and_one_faint": (Gaussian(), [0.3, 3, 3, 3, 3], [1.0, 0.3, 0.1, 2.0, 1.0], "griz"),
    "correlated": (correlated(SHARED), [10.0, 10, 10, 10, 10], [1.0, 1.1, 0.9, 1.0, 1.2], ""),
}


@pytest.mark.parametrize(
    ("likelihood", "snr", "ratio", "limits"),
    [
        pytest.param(*case, id=name, marks=[pytest.mark.slow] * (name != "outlier"))
        for name, case in SAMPLED.items()
    ],
)
def test_sampled_mass_follows_its_exact_cdf(likelihood, snr, ratio, limits, key):
    flux = np.array([12.0, 40.0, 66.0, 75.0, 90.0]) * ratio
    limit = np.array([band in limits for band in "ugriz"])
    sigma = np.abs(flux) / np.array(snr)
    case = Case(np.array([12.0, 40.0, 66.0, 75.0, 90.0]), flux, sigma, ~limit, limit)
    x, log_f = on_grid(likelihood, case)
    cdf = integrate.cumulative_trapezoid(np.exp(log_f - log_f.max()), x, initial=0)
    unit = jnp.tile(case.unit(), (20_000, 1))
    seen = case.seen(limits=bool(limits))
    integral = eqx.filter_jit(likelihood.integrate_mass)(unit, seen, PRIOR)
    drawn = np.asarray(sample_log10_mass(integral, key=key), float)
    assert drawn.min() >= PRIOR[0] - 2e-6
    assert drawn.max() <= PRIOR[1] + 2e-6
    test = stats.kstest((drawn - 10) * LN10, lambda t: np.interp(t, x, cdf / cdf[-1]))
    assert test.pvalue > FALSE_ALARM / len(SAMPLED)


@every
def test_what_is_not_told_does_not_matter(likelihood):
    """Bands with neither a measurement nor a limit, whatever they hold."""
    mask, limit = (np.array([b in bands for b in "ugriz"]) for bands in ("gr", "z"))
    model = np.array([12.0, 40.0, 66.0, 75.0, 90.0])
    clean, wild = (Case(model, model.copy(), model / 10, mask, limit) for _ in range(2))
    wild.flux[[0, 3]], wild.sigma[[0, 3]] = -1e7, 1e-8
    one, other = ours(likelihood, [clean, wild, *random_cases(5)[2:]])[:2]
    assert one == other


@pytest.mark.parametrize("dof", [0.0, 0.5, -1.0, 1e7, np.nan, np.inf])
def test_degrees_of_freedom_have_a_range(dof):
    with pytest.raises(ValueError, match="dof needs to be from 1"):
        StudentT(dof)
