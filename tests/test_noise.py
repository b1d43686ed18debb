"""Noise models: laws over all of them, the catalogue's own S/N, and the way to JSON and back."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from tinsley.io.catalogs import load_noise_catalog
from tinsley.io.surveys import load_survey
from tinsley.observe.noise import (
    BroadNoise,
    SigmaGivenFlux,
    fit_sigma_given_flux,
    fit_snr_given_flux,
    noise_from_dict,
    unusual_error,
)


def made_catalogue(n_rows=4000, seed=1):
    """Fluxes, and errors of a known law: sky and source counts, with 10 % scatter."""
    rng = np.random.default_rng(seed)
    flux = 10 ** rng.uniform(0, 3, (n_rows, 2))
    sigma = np.sqrt(0.5**2 + 0.01 * flux) * 10 ** rng.normal(0, 0.04, flux.shape)
    return flux, sigma, np.ones_like(flux, dtype=bool)


MODELS = {
    "sigma_given_flux": lambda: fit_sigma_given_flux(*made_catalogue()),
    "snr_given_flux": lambda: fit_snr_given_flux(*made_catalogue()),
    "broad": lambda: BroadNoise(1.0, 200.0),
}
FITS = {"sigma_given_flux": fit_sigma_given_flux, "snr_given_flux": fit_snr_given_flux}


@pytest.fixture(scope="module")
def sdss():
    survey = load_survey("sdss")
    return survey, load_noise_catalog(survey)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())
class TestLaws:
    def test_errors_are_positive_and_finite_far_beyond_the_catalogue(self, make):
        flux = jnp.broadcast_to(jnp.logspace(-6, 6, 1000)[:, None], (1000, 2))
        sigma = make().sample_sigma(flux, key=jax.random.key(0))
        assert sigma.shape == flux.shape
        assert sigma.dtype == flux.dtype
        assert bool(jnp.all(jnp.isfinite(sigma) & (sigma > 0)))

    def test_same_key_same_errors_under_jit(self, make):
        noise, flux = make(), jnp.full((50, 2), 30.0)
        draw = eqx.filter_jit(lambda key: noise.sample_sigma(flux, key=key))
        one = draw(jax.random.key(3))
        np.testing.assert_allclose(one, noise.sample_sigma(flux, key=jax.random.key(3)), rtol=1e-5)
        assert not np.allclose(one, draw(jax.random.key(4)))

    def test_json_and_back(self, make):
        noise = make()
        back = noise_from_dict(json.loads(json.dumps(noise.to_dict())))
        assert eqx.tree_equal(noise, back)


@pytest.mark.parametrize("fit", FITS.values(), ids=FITS.keys())
def test_a_known_law_is_found_again(fit):
    flux, sigma, mask = made_catalogue()
    noise = fit(flux, sigma, mask)
    truth = jnp.full((20_000, 2), 50.0)
    drawn = np.asarray(noise.sample_sigma(truth, key=jax.random.key(1)))
    assert np.median(drawn) == pytest.approx(np.sqrt(0.25 + 0.5), rel=0.02)
    assert np.std(np.log10(drawn)) == pytest.approx(0.04, rel=0.15)


@pytest.mark.parametrize("flux", [0.5, 0.05, 1e-3])
def test_beyond_the_faintest_galaxy_the_error_is_the_skys(flux):
    """S/N that kept its value there would make the noise of a faint band too small."""
    noise = fit_snr_given_flux(*made_catalogue())
    drawn = noise.sample_sigma(jnp.full((20_000, 2), flux), key=jax.random.key(1))
    assert np.median(np.asarray(drawn)) == pytest.approx(0.5, rel=0.04)


def test_negative_errors_are_drawn_again():
    """Where the scatter is as wide as the mean, a plain Gaussian is negative one time in six."""
    nodes = jnp.array([[15.0, 25.0]])
    noise = SigmaGivenFlux(nodes, jnp.full((1, 2), 0.1), jnp.full((1, 2), 0.1))
    flux = jnp.full((50_000, 1), 10.0)
    drawn = np.asarray(noise.sample_sigma(flux, key=jax.random.key(6))) / (0.4 * np.log(10) * 10)
    assert np.all(drawn > 0)
    # the mean of a normal cut one sigma below its centre: 1 + phi(1) / Phi(1) = 1.2876 sigma
    assert drawn.mean() == pytest.approx(0.1 * 1.2876, rel=0.01)


def test_density_of_errors_is_that_of_a_cut_normal():
    nodes = jnp.array([[15.0, 25.0]])
    noise = SigmaGivenFlux(nodes, jnp.array([[0.05, 0.2]]), jnp.array([[0.05, 0.1]]))
    flux, sigma = jnp.array([[100.0], [10.0], [1.0]]), jnp.array([[9.0], [1.5], [0.05]])
    mag = 22.5 - 2.5 * np.log10(np.asarray(flux, float))
    unit = 0.4 * np.log(10) * np.asarray(flux, float)
    mean, scatter = (0.05 + 0.015 * (mag - 15)) * unit, (0.05 + 0.005 * (mag - 15)) * unit
    law = stats.truncnorm(-mean / scatter, np.inf, mean, scatter)
    np.testing.assert_allclose(noise.log_prob(sigma, flux), law.logpdf(sigma), atol=1e-4)


@pytest.mark.parametrize("fit", FITS.values(), ids=FITS.keys())
def test_masked_and_negative_fluxes_are_left_out(fit):
    flux, sigma, mask = made_catalogue()
    spoiled, wrong, there = flux.copy(), sigma.copy(), mask.copy()
    spoiled[:500], wrong[:1000], there[500:1000] = -1.0, 1e6, False
    assert eqx.tree_equal(fit(spoiled, wrong, there), fit(flux[1000:], sigma[1000:], mask[1000:]))


@pytest.mark.parametrize(
    ("fit", "edges"), [(fit_sigma_given_flux, 0.15), (fit_snr_given_flux, 0.06)]
)
def test_sdss_signal_to_noise_per_band(sdss, fit, edges):
    """Quantiles of S/N: the median within 7 %, the 16th and 84th within `edges`.

    SDSS's errors at given flux are skewed (large galaxies have more sky under them): a Gaussian in
    sigma about the median (SEDflow) does not follow that as well as one in log S/N (PopSED) does.
    """
    survey, seen = sdss
    error = survey.measured_sigma(seen.flux, seen.sigma)
    noise = fit(seen.flux, error, seen.mask)
    positive = seen.flux > 0
    flux = jnp.asarray(np.where(positive, seen.flux, 1.0), dtype=jnp.float32)
    drawn = np.asarray(noise.sample_sigma(flux, key=jax.random.key(2)))
    for band in range(len(survey.bands)):
        rows = positive[:, band]
        real = np.quantile((seen.flux / error)[rows, band], [0.16, 0.5, 0.84])
        model = np.quantile((np.asarray(flux) / drawn)[rows, band], [0.16, 0.5, 0.84])
        assert np.all(np.abs(model / real - 1) <= [edges, 0.07, edges])


def test_broad_noise_is_log_uniform():
    flux = jnp.logspace(-2, 4, 30_000).reshape(-1, 2)
    snr = flux / BroadNoise(1.0, 200.0).sample_sigma(flux, key=jax.random.key(5))
    u = np.sort(np.log(np.asarray(snr)).ravel() / np.log(200.0))
    assert np.max(np.abs(u - np.linspace(0, 1, u.size))) < 0.012  # Kolmogorov-Smirnov, p = 4e-4
    faint, bright = np.split(np.log(np.asarray(snr)).ravel(), 2)
    assert abs(faint.mean() - bright.mean()) < 0.08  # S/N tells nothing of the flux


class TestUnusualError:
    noise = staticmethod(lambda: fit_sigma_given_flux(*made_catalogue()))

    def limit(self, flux):
        mean, scatter = self.noise().mean_and_scatter(flux)
        return mean + 3 * scatter

    def test_it_is_three_sigma_in_any_measured_band(self):
        flux = jnp.full((4, 2), 50.0)
        limit = self.limit(flux)
        over = jnp.array([[0.99, 0.99], [1.01, 0.5], [0.5, 1.01], [0.5, 1.01]])
        mask = jnp.array([[True, True], [True, True], [True, True], [True, False]])
        found = unusual_error(self.noise(), flux, over * limit, mask)
        assert found.tolist() == [False, True, True, False]

    def test_faint_and_negative_fluxes_are_judged_by_the_faintest_known(self):
        flux = jnp.array([[-5.0, 50.0], [0.0, 50.0], [1e-3, 50.0]])
        usual = jnp.full((3, 2), 0.55)
        mask = jnp.ones((3, 2), dtype=bool)
        assert unusual_error(self.noise(), flux, usual, mask).tolist() == [False] * 3
        assert unusual_error(self.noise(), flux, 3 * usual, mask).tolist() == [True] * 3

    def test_few_sdss_galaxies_are_unusual(self, sdss):
        survey, seen = sdss
        error = survey.measured_sigma(seen.flux, seen.sigma)
        noise = fit_sigma_given_flux(seen.flux, error, seen.mask)
        arrays = [jnp.asarray(x, dtype=jnp.float32) for x in (seen.flux, error)]
        unusual = unusual_error(noise, *arrays, jnp.asarray(seen.mask))
        assert 0.02 < float(unusual.mean()) < 0.10


@pytest.mark.parametrize("limits", [(0.0, 10.0), (5.0, 5.0), (1.0, np.inf), (-1.0, 2.0)])
def test_broad_noise_refuses(limits):
    with pytest.raises(ValueError, match="expected 0 < snr_min < snr_max"):
        BroadNoise(*limits)


def test_too_small_a_catalogue_is_refused():
    flux, sigma, mask = made_catalogue(24)
    with pytest.raises(ValueError, match="at least 25 positive measured fluxes"):
        fit_sigma_given_flux(flux, sigma, mask)


def test_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="unknown kind of noise 'pink'"):
        noise_from_dict({"kind": "pink"})
