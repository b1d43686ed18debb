"""Weighted draws against brute force: exact photometry, quadrature in mass, plain NumPy."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

from conftest import SMALL_GRID
from tinsley.infer.amortized import AmortizedPosterior, draw_posterior
from tinsley.infer.likelihood import Observation
from tinsley.observe.exact import exact_derived, exact_photometry
from tinsley.parameters import MASS

REDSHIFT = float(SMALL_GRID.nodes[8])  # a node: the tables do not interpolate
N_DRAWS = 16_384
N_EXACT = 1200
LN_PRIOR_WIDTH = np.log(5.5)
GALAXIES = {
    # name: (flux in nanomaggies, S/N of each band, mask)
    "faint": ([4.0, 6.0, 9.0, 11.0, 12.0], [0.8, 1.5, 2.0, 2.0, 1.5], [1, 1, 1, 1, 1]),
    "red": ([2.0, 9.0, 30.0, 50.0, 70.0], [1.0, 3.0, 4.0, 4.0, 3.0], [1, 1, 1, 0, 1]),
}


class Normal(eqx.Module):
    """A proposal that knows nothing of the galaxy; with shift 0 and scale 1 it is the prior."""

    shift: jax.Array
    scale: jax.Array
    n_dim: int = eqx.field(static=True)

    def sample_and_log_prob(self, number, features, *, key):
        x = self.shift + self.scale * jax.random.normal(key, (number, self.n_dim))
        return x, jnp.sum(norm.logpdf(x, self.shift, self.scale), axis=-1)


def with_flow(posterior, shift=0.0, scale=1.0) -> AmortizedPosterior:
    flow = Normal(jnp.asarray(shift), jnp.asarray(scale), posterior.space.without_mass().n_unit)
    return eqx.tree_at(lambda p: p.flow, posterior, flow, is_leaf=lambda x: x is posterior.flow)


def galaxy(name: str) -> Observation:
    flux, snr, mask = (np.asarray(a, float) for a in GALAXIES[name])
    flux, sigma, redshift = (jnp.asarray(a, dtype=float) for a in (flux, flux / snr, REDSHIFT))
    return Observation(flux, sigma, jnp.asarray(mask > 0), redshift)


@eqx.filter_jit
def draw(posterior, seen, number, key):
    return draw_posterior(posterior, seen, number, key=key)


def mass_likelihood(unit_flux: np.ndarray, seen: Observation) -> tuple[np.ndarray, np.ndarray]:
    """A grid in log10 mass, and the ln-likelihood on it for each draw [draw, mass]; float64."""
    mask = np.asarray(seen.mask)
    flux, sigma = np.asarray(seen.flux, float)[mask], np.asarray(seen.sigma, float)[mask]
    log10_mass = np.linspace(7.0, 12.5, 1501)
    model = unit_flux[:, None, mask] * 10 ** (log10_mass - 10.0)[:, None]
    chi2 = np.sum(((model - flux) / sigma) ** 2, axis=-1)
    return log10_mass, -0.5 * chi2 - np.sum(np.log(sigma * np.sqrt(2 * np.pi)))


def integrate(log10_mass: np.ndarray, log_likelihood: np.ndarray) -> np.ndarray:
    """ln of the mean likelihood over the prior of mass, [draw]."""
    top = log_likelihood.max(axis=1, keepdims=True)
    area = np.trapezoid(np.exp(log_likelihood - top), log10_mass, axis=1)
    return top[:, 0] + np.log(area) - LN_PRIOR_WIDTH


def log_mean_exp(x: np.ndarray) -> float:
    return float(np.log(np.mean(np.exp(x - x.max()))) + x.max())


@pytest.fixture(scope="module")
def prior_posterior(small_posterior):
    return with_flow(small_posterior)


@pytest.fixture(scope="module")
def brute(small_model, small_filters):
    """Draws from the prior by NumPy's own generator: exact flux at 1e10 Msun, and properties."""
    rng = np.random.default_rng(5)
    age_gyr = float(small_model.cosmology.age(REDSHIFT).to_value("Gyr"))
    flux, values = [], []
    for _ in range(N_EXACT):
        theta = dict(zip(("beta_1", "beta_2", "beta_3", "beta_4"), rng.dirichlet(np.ones(4))))  # noqa: B905
        theta |= {"f_burst": rng.random(), "t_burst_gyr": rng.uniform(0.01, age_gyr)}
        theta |= {"log10_z_zsun": rng.uniform(-2.2, 0.4), "n_dust": rng.uniform(-2, 0.4)}
        theta |= {"tau_bc": rng.uniform(0, 3), "tau_ism": rng.uniform(0, 3)}
        theta |= {"redshift": REDSHIFT, MASS: 10.0}
        flux.append(exact_photometry(small_model, small_filters, theta))
        values.append(theta | exact_derived(small_model, theta))
    return np.array(flux), {name: np.array([v[name] for v in values]) for name in values[0]}


@pytest.mark.parametrize("name", GALAXIES)
def test_each_weight_is_the_exact_likelihood(
    name, prior_posterior, small_model, small_filters, key
):
    """The same draws by the other road: full integrals of the spectra, a grid in mass."""
    seen = galaxy(name)
    drawn = draw(prior_posterior, seen, N_DRAWS, key)
    some = np.argsort(-np.asarray(drawn.log_weight))[::128]
    theta = [{k: float(v[i]) for k, v in drawn.theta.items()} | {MASS: 10.0} for i in some]
    unit_flux = np.array([exact_photometry(small_model, small_filters, t) for t in theta])
    expected = integrate(*mass_likelihood(unit_flux, seen))
    got = np.asarray(drawn.log_weight, float)[some]
    # on 50 wavelengths dust is not smooth: fluxes differ by d < 2 %, and so ln L by n s d where
    # the misfit is n errors and the S/N is s
    for within, atol in ((0.5, 0.03), (3, 0.1), (15, 0.2)):
        likely = expected > expected.max() - within
        assert likely.sum() > 10
        np.testing.assert_allclose(got[likely], expected[likely], atol=atol)


@pytest.mark.parametrize("name", GALAXIES)
def test_posterior_and_evidence_are_those_of_brute_force(name, prior_posterior, brute, key):
    seen = galaxy(name)
    drawn = draw(prior_posterior, seen, N_DRAWS, key)
    unit_flux, values = brute
    log10_mass, log_likelihood = mass_likelihood(unit_flux, seen)
    log_weight = integrate(log10_mass, log_likelihood)
    weight = np.exp(log_weight - log_weight.max())
    ess = weight.sum() ** 2 / np.sum(weight**2)
    assert min(ess, float(drawn.psis.ess)) > 40
    error = np.sqrt(1 / ess + 1 / float(drawn.psis.ess))
    assert abs(float(drawn.log_evidence) - log_mean_exp(log_weight)) < 4 * error

    ours = np.exp(np.asarray(drawn.log_weight - jnp.max(drawn.log_weight), float))
    each = np.exp(log_likelihood - log_likelihood.max(axis=1, keepdims=True))
    mass = (each @ log10_mass) / each.sum(axis=1)
    theirs = values | {MASS: mass}
    for label in ("beta_1", "f_burst", "t_burst_gyr", "log10_z_zsun", "tau_ism", "n_dust",
                  "age_mw_gyr", MASS):  # fmt: skip
        here, there = np.asarray(drawn.theta[label], float), theirs[label]
        mean, other = np.average(here, weights=ours), np.average(there, weights=weight)
        spread = np.sqrt(np.average((here - mean) ** 2, weights=ours))
        assert abs(mean - other) < 4 * error * spread, label


@pytest.mark.parametrize("proposal", [(0.2, 1.0), (0.0, 1.2), (-0.1, 1.1)])
def test_answer_does_not_depend_on_the_proposal(proposal, small_posterior, prior_posterior, key):
    seen = galaxy("faint")
    one = draw(prior_posterior, seen, N_DRAWS, key)
    other = draw(with_flow(small_posterior, *proposal), seen, N_DRAWS, jax.random.key(8))
    error = np.sqrt(1 / float(one.psis.ess) + 1 / float(other.psis.ess))
    assert error < 0.2
    assert abs(float(one.log_evidence - other.log_evidence)) < 4 * error
    for label in ("tau_ism", "n_dust", MASS):
        mean = [np.average(d.theta[label], weights=np.exp(d.psis.log_weight)) for d in (one, other)]
        assert abs(mean[0] - mean[1]) < 4 * error * float(jnp.std(one.theta[label])), label


def test_draws_are_inside_the_prior_and_mass_fits_the_flux(small_posterior, key):
    seen = galaxy("red")
    drawn = draw(small_posterior, seen, 512, key)
    age_gyr = small_posterior.cosmology.age_gyr(seen.redshift)
    unit = small_posterior.space.to_unit(drawn.theta, jnp.broadcast_to(age_gyr, (512,)))
    assert float(jnp.min(unit)) >= -1e-6
    assert float(jnp.max(unit)) <= 1 + 1e-6
    assert all(np.all(np.isfinite(values)) for values in drawn.theta.values())
    assert drawn.theta.keys() >= {*small_posterior.space.names, "redshift", "age_mw_gyr"}


def test_a_galaxy_that_no_model_fits_has_no_evidence_but_breaks_nothing(prior_posterior, key):
    seen = galaxy("red")
    seen = seen._replace(flux=seen.flux * jnp.asarray([1e5, 1, 1, 1, 1]), sigma=seen.sigma * 1e-6)
    drawn = draw(prior_posterior, seen, N_DRAWS, key)
    assert not float(drawn.psis.ess) > 20
    assert np.all(np.isfinite(drawn.theta[MASS]))
    assert not jnp.isnan(drawn.log_evidence)


def test_same_key_same_draws(small_posterior):
    seen = galaxy("faint")
    one, same, other = (draw(small_posterior, seen, 512, jax.random.key(k)) for k in (1, 1, 2))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(same), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(one.log_weight, other.log_weight)
