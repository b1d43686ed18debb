"""Synthetic catalogues: noise, the cut, and the view in which they are compared."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import ks_2samp

from tinsley.observe.noise import SnrGivenFlux
from tinsley.population.synthetic import (
    CompletenessTable,
    Selection,
    asinh_magnitude,
    make_view,
    parse_selection,
    recalibrated,
    record,
)

KEY = jax.random.key(3)
LIMIT = 10.0
NODES = jnp.asarray([[10.0, 30.0]] * 2)
NOISE = SnrGivenFlux(NODES, jnp.full((2, 2), np.log10(2.0)), jnp.full((2, 2), 0.1))
"""S/N about 2: half of what is near the cut is on the wrong side of it."""
CUT = Selection((-np.inf, LIMIT))


def truth(number: int, seed: int):
    """Steeply more faint galaxies than bright ones, in two bands of like flux."""
    rng = np.random.default_rng(seed)
    flux = 4.0 * rng.pareto(1.5, (number, 1)) + 2.0
    return jnp.asarray(flux * rng.uniform(0.8, 1.2, (number, 2)), dtype=float)


@pytest.fixture(scope="module")
def survey():
    """What a survey keeps: noise first, then the cut."""
    everything = record(truth(400_000, 0), NOISE, Selection((-np.inf,) * 2), key=KEY)
    return np.asarray(everything.flux)[np.asarray(everything.flux[:, 1] > LIMIT)]


def resampled(flux, weight, number=20_000):
    rng = np.random.default_rng(1)
    weight = np.asarray(weight, float)
    return np.asarray(flux)[rng.choice(len(flux), number, p=weight / weight.sum())]


def test_truncated_noise_with_the_probability_of_passing_is_the_survey(survey):
    made = record(truth(200_000, 1), NOISE, CUT, key=jax.random.key(9))
    assert np.all(made.flux[:, 1][made.pass_probability > 1e-12] >= LIMIT * (1 - 1e-5))
    ours = resampled(made.flux, made.pass_probability)
    for band in range(2):
        assert ks_2samp(ours[:, band], survey[:20_000, band]).statistic < 0.02
    assert np.median(ours) == pytest.approx(np.median(survey), rel=0.02)


def test_the_probability_alone_on_free_noise_is_biased(survey):
    """The soft weight that one would write first: it keeps fluxes that no survey would."""
    free = record(truth(200_000, 1), NOISE, Selection((-np.inf,) * 2), key=jax.random.key(9))
    weight = record(truth(200_000, 1), NOISE, CUT, key=jax.random.key(9)).pass_probability
    soft = resampled(free.flux, weight)
    assert ks_2samp(soft[:, 1], survey[:20_000, 1]).statistic > 0.15
    assert np.mean(soft[:, 1] < LIMIT) > 0.15
    assert np.median(soft[:, 1]) < 0.9 * np.median(survey[:, 1])


def test_probability_of_passing_is_the_share_that_pass():
    flux = truth(20, 4)
    many = jnp.repeat(flux, 4000, axis=0)
    passed = record(many, NOISE, Selection((-np.inf,) * 2), key=KEY).flux[:, 1] > LIMIT
    share = np.asarray(passed).reshape(20, 4000).mean(axis=1)
    predicted = record(many, NOISE, CUT, key=jax.random.key(1)).pass_probability
    np.testing.assert_allclose(predicted.reshape(20, 4000).mean(axis=1), share, atol=0.035)


MAGS, SHARES = jnp.asarray([18.5, 19.5, 20.5]), jnp.asarray([0.9, 0.6, 0.05])
PARTLY = Selection((-np.inf, LIMIT / 3), completeness=CompletenessTable(1, MAGS, SHARES))
"""A survey that keeps fewer and fewer, from 40 to 6 nanomaggies, and none below 3."""


def kept_by_luck(flux_true, seed):
    """Noise first, then the cut, then a throw of dice each."""
    everything = record(flux_true, NOISE, Selection((-np.inf,) * 2), key=jax.random.key(seed))
    flux, sigma = np.asarray(everything.flux), np.asarray(everything.sigma)
    return flux, PARTLY.keeps(flux, sigma, key=jax.random.key(seed + 1))


@pytest.mark.slow
def test_an_incomplete_survey_is_what_dice_leave_of_it():
    flux, kept = kept_by_luck(truth(400_000, 0), 3)
    assert 0.1 < kept.mean() < 0.5
    made = record(truth(200_000, 1), NOISE, PARTLY, key=jax.random.key(9))
    ours = resampled(made.flux, made.pass_probability)
    for band in range(2):
        assert ks_2samp(ours[:, band], flux[kept][:20_000, band]).statistic < 0.02


@pytest.mark.slow
def test_the_probability_of_being_kept_is_the_share_that_are():
    many = jnp.repeat(truth(20, 4), 4000, axis=0)
    share = kept_by_luck(many, 5)[1].reshape(20, 4000).mean(axis=1)
    predicted = record(many, NOISE, PARTLY, key=jax.random.key(1)).pass_probability
    np.testing.assert_allclose(predicted.reshape(20, 4000).mean(axis=1), share, atol=0.035)


@pytest.mark.slow
def test_weights_of_one_over_the_probability_undo_the_selection():
    """PopSED's reweighting after the fact."""
    flux_true = truth(300_000, 6)
    flux_true = flux_true[np.asarray(flux_true[:, 1]) > 8]
    _, kept = kept_by_luck(flux_true, 7)
    seen = flux_true[kept]
    weight = 1 / np.asarray(record(seen, NOISE, PARTLY, key=jax.random.key(8)).pass_probability)
    assert np.sum(weight) == pytest.approx(len(flux_true), rel=0.02)
    undone, all_of_them = resampled(seen, weight)[:, 1], np.asarray(flux_true)[:, 1]
    assert ks_2samp(undone, all_of_them).statistic < 0.02
    assert ks_2samp(np.asarray(seen)[:, 1], all_of_them).statistic > 0.1


def test_completeness_is_linear_between_its_nodes_and_flat_beyond():
    mags = np.array([15.0, 18.5, 19.0, 20.0, 25.0])
    flux = np.stack([np.ones(5), 10 ** (0.4 * (22.5 - mags))], axis=1)
    share = PARTLY.completeness(jnp.asarray(flux, dtype=float))
    np.testing.assert_allclose(share, [0.9, 0.9, 0.75, 0.325, 0.05], atol=1e-4)
    assert float(PARTLY.completeness(jnp.asarray([1.0, -3.0]))) == pytest.approx(0.05)
    assert PARTLY.selects
    assert parse_selection("", ("g", "r"), PARTLY.completeness).selects


@pytest.mark.parametrize(
    ("mag", "share", "words"),
    [
        ([18.0], [1.0], "at least two"),
        ([18.0, 17.0], [1.0, 0.5], "increasing"),
        ([17.0, 18.0], [1.0, 1.5], "from 0 to 1"),
        ([17.0, 18.0], [0.0, 0.0], "not 0 everywhere"),
    ],
)
def test_no_completeness(mag, share, words):
    with pytest.raises(ValueError, match=words):
        CompletenessTable(0, jnp.asarray(mag), jnp.asarray(share))


def test_a_cut_in_signal_to_noise_passes_what_it_should():
    cut = Selection((-np.inf,) * 2, 1.0)
    made = record(truth(5000, 2), NOISE, cut, key=KEY)
    assert cut.selects
    assert np.all(made.flux / made.sigma > 1 - 1e-4)
    assert cut.passes(np.array([[3.0, 1.0], [3.0, 3.0]]), np.full((2, 2), 2.0)).tolist() == [
        False,
        True,
    ]


@pytest.mark.slow
def test_a_galaxy_far_below_the_cut_weighs_nothing_and_harms_nothing():
    faint = jnp.full((10, 2), 1e-6)

    def total(scale):
        made = record(faint * scale, NOISE, CUT, key=KEY)
        return jnp.sum(made.flux) + jnp.sum(made.pass_probability)

    assert np.isfinite(jax.grad(total)(jnp.ones(())))
    assert np.isfinite(jax.grad(total)(jnp.asarray(1e9)))
    assert np.all(record(faint, NOISE, CUT, key=KEY).pass_probability < 1e-6)


def test_noise_can_be_turned_down():
    flux = jnp.full((4000, 2), 50.0)
    free = Selection((-np.inf,) * 2)
    for share in (1.0, 0.1):
        made = record(flux, NOISE, free, key=KEY, noise_share=share)
        assert np.std(made.flux) == pytest.approx(share * 25, rel=0.1)


def test_asinh_magnitudes_are_magnitudes_where_the_flux_is_high():
    softening = jnp.asarray(0.2)
    flux = jnp.asarray([-1.0, 0.0, 0.1, 100.0, 1e4])
    mag = np.asarray(asinh_magnitude(flux, softening))
    np.testing.assert_allclose(mag[3:], 22.5 - 2.5 * np.log10([100, 1e4]), atol=1e-3)
    assert np.isfinite(mag).all()
    assert np.all(np.diff(mag) < 0)


@pytest.mark.parametrize("colours", [True, False])
def test_the_view_is_standardised_and_undone_by_nothing(colours):
    rng = np.random.default_rng(0)
    flux = 10 ** rng.normal(1, 0.3, (3000, 1)) * 10 ** rng.normal(0, 0.1, (3000, 3))
    view = make_view(flux, 0.01 * flux, colours=colours)
    columns = np.asarray(view(jnp.asarray(flux, dtype=float)))
    low, middle, high = np.quantile(columns, (0.16, 0.5, 0.84), axis=0)
    np.testing.assert_allclose(middle, 0, atol=0.01)
    np.testing.assert_allclose((high - low) / 2, 1, atol=0.02)
    brighter = np.asarray(view(jnp.asarray(1.5 * flux, dtype=float))) - columns
    assert np.all(brighter[:, 0] < 0)
    if colours:  # a colour does not know how bright a galaxy is
        assert np.abs(brighter[:, 1:]).max() < 0.02
        redder = np.asarray(view(jnp.asarray(flux * [1.0, 1.2, 1.4], dtype=float))) - columns
        assert np.all(redder[:, 1:] > 0)


def test_a_known_redshift_is_one_more_column():
    rng = np.random.default_rng(0)
    flux = 10 ** rng.normal(1, 0.3, (3000, 3))
    redshift = rng.uniform(0.1, 0.3, 3000)
    told, plain = make_view(flux, 0.01 * flux, redshift), make_view(flux, 0.01 * flux)
    flux, z = (jnp.asarray(a, dtype=float) for a in (flux, redshift))
    columns = np.asarray(told(flux, z))
    np.testing.assert_allclose(columns[:, :-1], plain(flux, z), rtol=1e-5)
    standard = (redshift - 0.2) / 0.068
    np.testing.assert_allclose(columns[:, -1], 4 * np.arcsinh(standard / 4), atol=0.1)


def test_another_calibration_is_off_by_the_floor_and_by_more_for_odd_colours():
    """Median galaxies by 1/sqrt 2 of the floor, those at one standard deviation by all of it."""
    colour = np.array([-3.0, -1.0, -1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 3.0]) * 0.2
    flux = jnp.asarray(10 ** (0.4 * np.stack([np.zeros(9), colour, 0.3 * colour], axis=1)) * 1e3)
    floor = jnp.array([0.05, 0.02, 0.03])
    view = make_view(np.asarray(flux), np.ones((9, 3)))
    keys = jax.random.split(KEY, 20_000)
    moved = jax.vmap(lambda key: recalibrated(flux, view, floor, key=key))(keys)
    error = -2.5 * np.log10(np.asarray(moved / flux)) / np.asarray(floor)  # [draw, galaxy, band]
    assert abs(error.mean(axis=0)).max() < 0.05  # five of its errors
    spread = error.std(axis=0)
    middle = np.sqrt(np.array([5.0, 2.0, 2.0, 1.0, 1.0, 1.0, 2.0, 2.0, 5.0]) / 2)
    np.testing.assert_allclose(spread, np.broadcast_to(middle[:, None], (9, 3)), rtol=0.04)
    assert abs(np.corrcoef(error[:, 3].T) - np.eye(3)).max() < 0.04  # bands are off on their own


def test_galaxies_that_are_all_the_same_are_refused():
    flux = np.full((50, 3), 7.0)
    with pytest.raises(ValueError, match="does not vary"):
        make_view(flux, 0.1 * flux)
