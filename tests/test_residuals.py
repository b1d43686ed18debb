"""Best fits, stacks and close-ups of a run, on made-up physics."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tinsley.catalog.closeup import choose_example, look_closely, observed_spectrum, resample
from tinsley.catalog.residuals import best_fit_residuals, misfit_by_band
from tinsley.catalog.stack import stacked_density
from tinsley.errors import InputError
from tinsley.infer.spec import PosteriorSpec
from tinsley.io.catalogs import Catalog
from tinsley.io.models import LoadedPosterior
from tinsley.io.results import write_parquet
from tinsley.io.runs import ChunkDraws, iterate_draws, load_draws, load_galaxies
from tinsley.io.surveys import load_survey
from tinsley.io.tables import MemoryTable
from tinsley.observe.exact import exact_photometry
from tinsley.observe.photometry import photometry
from tinsley.observe.survey import Photometry
from tinsley.parameters import MASS

BANDS = tuple("ugriz")
N_DRAWS = 100
CHUNK = 3


@pytest.fixture(scope="module")
def truth(small_posterior):
    redshift = jnp.linspace(0.05, 0.3, 7)
    age_gyr = small_posterior.cosmology.age_gyr(redshift)
    theta = small_posterior.space.sample(7, age_gyr, key=jax.random.key(5))
    theta |= {MASS: jnp.full(7, 10.5), "redshift": redshift}
    return theta, np.asarray(photometry(small_posterior.tables, theta), float)


@pytest.fixture(scope="module")
def catalog(truth) -> Catalog:
    """Noiseless galaxies; number 4 lacks r, number 5 has no redshift."""
    theta, flux = truth
    columns = {"object_id": np.arange(100, 107), "redshift": np.asarray(theta["redshift"], float)}
    columns["redshift"][5] = np.nan
    for i, band in enumerate(BANDS):
        columns[f"flux_{band}"], columns[f"flux_err_{band}"] = flux[:, i], 0.05 * flux[:, i]
    columns["flux_r"][4] = columns["flux_err_r"][4] = np.nan
    return Catalog(MemoryTable(columns), load_survey("sdss"), None)


@pytest.fixture(scope="module")
def run(small_posterior, catalog, truth, tmp_path_factory):
    """Draws on disk: those of the prior, and the truth, of another mass, among them."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "draws").mkdir()
    for number, rows in enumerate(catalog.chunks(CHUNK)):
        index = np.flatnonzero(rows.usable) + CHUNK * number
        rows = rows.take(rows.usable)
        columns = {"object_id": np.repeat(rows.object_id, N_DRAWS)}
        columns["log_weight"] = np.full(len(rows) * N_DRAWS, -np.log(N_DRAWS))
        age_gyr = jnp.full((len(rows), N_DRAWS), 10.0)
        u = jax.random.uniform(jax.random.key(number), (*age_gyr.shape, 11))
        for name, values in small_posterior.space.from_unit(u, age_gyr).items():
            values = np.array(values)
            values[:, 17] = np.asarray(truth[0][name])[index] + (name == MASS)
            columns[name] = values.ravel()
        write_parquet(folder / "draws" / f"draws-{number:06d}.parquet", columns, {})
    return folder


def test_the_best_draw_is_found_and_its_mass_does_not_count(small_posterior, catalog, run):
    manifest = {"chunk": CHUNK, "draws": N_DRAWS}
    posterior = small_posterior
    residual = best_fit_residuals(posterior.tables, posterior.space, catalog, run, manifest)
    assert residual.shape == (7, 5)
    assert np.isnan(residual[5]).all()
    assert np.isnan(residual[4]).tolist() == [False, False, True, False, False]
    np.testing.assert_allclose(np.nan_to_num(residual), 0, atol=2e-3)


def test_misfit_tells_a_shift_from_a_spread():
    rng = np.random.default_rng(0)
    residual = np.stack([rng.normal(1, 1, 20_000), rng.normal(0, 2, 20_000)], axis=-1)
    residual[:100, 0] = np.nan
    misfit = misfit_by_band(np.c_[residual, np.full(20_000, np.nan)], ("u", "g", "r"))
    assert set(misfit) == {"u", "g"}
    assert misfit["u"]["n"] == 19_900
    assert misfit["u"]["chi2_mean"] == pytest.approx(2, rel=0.05)
    assert misfit["u"]["residual_median"] == pytest.approx(1, abs=0.05)
    assert misfit["g"]["residual_scatter"] == pytest.approx(2, rel=0.05)
    assert misfit["g"]["chi2_median"] == pytest.approx(4 * 0.455, rel=0.05)


def test_draws_are_read_chunk_by_chunk(run, catalog):
    ids = np.concatenate([chunk.object_id for chunk in iterate_draws(run, N_DRAWS)])
    assert ids.tolist() == [100, 101, 102, 103, 104, 106]
    assert load_draws(run, 99, N_DRAWS) is None
    part = load_draws(run, 0, N_DRAWS)
    assert part.theta[MASS].shape == (3, N_DRAWS)
    np.testing.assert_allclose(np.exp(part.log_weight).sum(axis=1), 1, rtol=1e-3)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"galaxies.parquet can not be read"):
        load_galaxies(tmp_path)


def test_a_stack_counts_each_galaxy_once():
    weight = np.array([[0.25, 0.75], [1.0, 0.0]])
    with np.errstate(divide="ignore"):
        log_weight = np.log(weight)
    theta = {"x": np.array([[0.5, 1.5], [0.5, 1.5]]), "y": np.full((2, 2), 0.5)}
    chunk = ChunkDraws(np.array([7, 8]), log_weight, theta)
    edges = (np.arange(3.0), np.arange(2.0))
    both = stacked_density([chunk], np.array([7, 8]), ("x", "y"), edges)
    np.testing.assert_allclose(both, [[1.25], [0.75]])
    one = stacked_density([chunk, chunk], np.array([7]), ("x", "y"), edges)
    np.testing.assert_allclose(one, [[0.5], [1.5]])


def test_resampling_follows_the_weights():
    weight = np.array([0.1, 0.0, 0.6, 0.3])
    assert np.bincount(resample(weight, 10), minlength=4).tolist() == [1, 0, 6, 3]


def test_the_spectrum_integrates_to_the_photometry(small_model, small_filters, truth):
    theta = {name: float(values[0]) for name, values in truth[0].items()}
    wave_aa, flux_ujy = observed_spectrum(small_model, theta)
    expected = exact_photometry(small_model, small_filters, theta) * 3.631
    for band, flux in zip(small_filters, expected, strict=True):
        fine = np.linspace(band.wave_aa[0], band.wave_aa[-1], 2001)
        response = np.interp(fine, band.wave_aa, band.response) / fine
        mean = np.sum(np.interp(fine, wave_aa, flux_ujy) * response) / np.sum(response)
        assert mean == pytest.approx(flux, rel=0.01)


def test_a_closer_look_is_at_the_same_posterior(small_posterior, small_model, catalog):
    spec = PosteriorSpec("small", "sdss", BANDS, BANDS, [], (0.01, 0.6), (1, 100), {}, "", "")
    loaded = LoadedPosterior(small_posterior, spec, "")
    row = next(catalog.chunks(7)).take(slice(2, 3))
    close = look_closely(loaded, small_model, row, draws=100)
    assert close.spectra_ujy.shape == (60, len(close.wave_aa))
    assert close.flux_nmgy.shape == (60, 5)
    assert close.weight.sum() == pytest.approx(1, rel=1e-3)
    assert len(np.unique(close.theta["tau_ism"])) > 6000
    assert close.wave_aa[0] == pytest.approx(912 * (1 + row.redshift[0]), rel=1e-5)
    middle = np.median(close.flux_nmgy[:, 2])
    assert middle == pytest.approx(row.flux[0, 2], rel=0.5)


def test_the_example_is_ok_well_measured_and_of_high_ess():
    n = 40
    flux = np.ones((n, 5))
    sigma = np.linspace(1, 0.02, n)[:, None] * np.ones(5)
    mask = np.ones((n, 5), bool)
    mask[39, 0] = False
    rows = Photometry(np.arange(n), np.full(n, 0.1), flux, sigma, mask, np.full(n, ""))
    galaxies = {"status": np.full(n, "ok", object), "ess": np.arange(n)[::-1].astype(float)}
    galaxies["status"][36] = "low_ess"
    assert choose_example(galaxies, rows) == 34  # of 34, 35, 37, 38: the tenth of best S/N
    galaxies["status"][:] = "low_ess"
    assert choose_example(galaxies, rows) == 35
    galaxies["status"][:] = "failed"
    assert choose_example(galaxies, rows) is None
