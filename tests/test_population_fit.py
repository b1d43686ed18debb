"""The objective: what it finds where the truth is known, and what it leaves alone."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tinsley.catalog.population import (
    EnsembleSettings,
    Member,
    describe_ensemble,
    photometry_road,
)
from tinsley.density.train import start_training, train_block
from tinsley.observe.noise import SnrGivenFlux
from tinsley.observe.photometry import photometry
from tinsley.parameters import MASS, default_space
from tinsley.population.config import DISTANCES, TINSLEY
from tinsley.population.density import FLOW, make_population
from tinsley.population.fit import (
    draw_galaxies,
    draw_photometry,
    has_stopped,
    make_setup,
    member_problem,
    unreached_share,
    validate,
)
from tinsley.population.objective import Annealing, population_loss
from tinsley.population.reference import Reference, uniform_reference
from tinsley.population.space import PopulationSpace
from tinsley.population.synthetic import Selection, record

KEY = jax.random.key(4)
CONFIG = dataclasses.replace(
    TINSLEY, density=FLOW | {"layers": 3, "width": 24, "depth": 1, "knots": 6},
    steps=200, batch=512, rate=1e-2,
)  # fmt: skip
FREE = Selection((-np.inf,) * 5)


def noise() -> SnrGivenFlux:
    nodes = jnp.asarray([[5.0, 40.0]] * 5)
    return SnrGivenFlux(nodes, jnp.full((5, 2), np.log10(20.0)), jnp.full((5, 2), 0.05))


@pytest.fixture(scope="module")
def space(small_posterior) -> PopulationSpace:
    return PopulationSpace(default_space(), small_posterior.cosmology, (0.01, 0.6))


@pytest.fixture(scope="module")
def truth(space) -> Reference:
    """Redshift and mass narrow, the mass high; all else as in the prior."""
    mean = jnp.zeros(space.n_dim).at[:2].set(jnp.asarray([-0.5, 0.7]))
    width = jnp.ones(space.n_dim).at[:2].set(jnp.asarray([0.5, 0.4]))
    return Reference(mean, jnp.diag(width))


def catalog_of(reference, space, tables, number, selection=FREE):
    flux = photometry(tables, space.theta(reference.sample(number, key=KEY)))
    made = record(flux, noise(), FREE, key=jax.random.key(6))
    flux, sigma = np.asarray(made.flux, float), np.asarray(made.sigma, float)
    kept = selection.passes(flux, sigma)
    return flux[kept], sigma[kept]


@pytest.fixture(scope="module")
def setup(space, small_posterior, truth):
    tables = small_posterior.tables
    catalog = catalog_of(truth, space, tables, 5000)
    centre = uniform_reference(space.n_dim)
    return make_setup(CONFIG, (space, tables), (noise(), FREE), catalog, centre, key=KEY)


@pytest.fixture(scope="module")
def fitted(setup, space):
    """Three fits of other random numbers: the means of one scatter by up to 0.4 (of eight)."""
    schedule = CONFIG.schedule(CONFIG.rate)
    fixed = (setup.problem, population_loss, schedule, CONFIG.steps)
    fits = []
    for key in jax.random.split(jax.random.key(12), 3):
        start = start_training(make_population(CONFIG.density, space.n_dim, key=key), schedule)
        fits.append(train_block(fixed, start, key)[0].average)
    return fits


@pytest.fixture(scope="module")
def drawn(fitted):
    """Draws of all fits."""
    return np.concatenate([np.asarray(f.sample_and_log_prob(4000, key=KEY)[0]) for f in fitted])


def ratio(setup, parts) -> float:
    n_train, n_out = setup.problem.observed.shape[0], len(setup.held_out)
    return float(parts.distance) * n_out / (2 * float(setup.problem.temperature) * n_train)


@pytest.mark.slow
def test_a_population_is_found_from_its_photometry(setup, fitted, drawn, truth, space):
    """Photometry to within its sampling noise; redshift and mass, less well, for they trade."""

    def far(population) -> float:
        return ratio(setup, validate(population, setup.problem, setup.held_out, KEY)[1])

    assert far(make_population(CONFIG.density, space.n_dim, key=KEY)) > 50
    assert max(far(fit) for fit in fitted) < 4
    assert np.all(np.abs(drawn.mean(axis=0) - np.asarray(truth.mean))[:2] < 0.35)


@pytest.mark.slow
def test_what_the_photometry_does_not_say_stays_with_the_reference(drawn):
    """The time of the burst and the slope of the dust, of which these bands know little."""
    for column in (6, 10):
        assert abs(np.mean(drawn[:, column])) < 0.45
        assert 0.8 < np.std(drawn[:, column]) < 1.2


def as_population(truth, space):
    """A diagonal Gaussian as a density that can be judged."""
    one = make_population({"kind": "mixture", "components": 1}, space.n_dim, key=KEY)
    log_width = jnp.diag(jnp.log(jnp.diagonal(truth.factor)))[None]
    return dataclasses.replace(one, mean=truth.mean[None], factor=log_width)


@pytest.mark.slow
@pytest.mark.parametrize(("shift", "least", "most"), [(0.0, 0.4, 2.5), (0.08, 10.0, np.inf)])
def test_known_redshifts_must_be_the_populations(shift, least, most, space, small_posterior, truth):
    """The true population is at the noise with its own redshifts, and far from it with others."""
    tables = small_posterior.tables
    catalog = catalog_of(truth, space, tables, 5000)
    redshift = np.asarray(space.theta(truth.sample(5000, key=KEY))["redshift"]) + shift
    model, survey = (space, tables), (noise(), FREE)
    centre = uniform_reference(space.n_dim)
    own = make_setup(CONFIG, model, survey, catalog, centre, key=KEY, redshift=redshift)
    parts = validate(as_population(truth, space), own.problem, own.held_out, KEY)[1]
    assert least < ratio(own, parts) < most


@pytest.mark.slow
def test_a_calibration_within_the_floor_is_no_misfit_to_a_sharp_distance_that_is_told(
    space, small_posterior, truth
):
    """The true population is at the noise of 5,000 galaxies if told of the floor, else far."""
    tables = small_posterior.tables
    flux, sigma = catalog_of(truth, space, tables, 5000)
    floor = np.array([0.05, 0.02, 0.02, 0.02, 0.03])
    catalog = flux * 10 ** (0.4 * floor * np.array([0.6, -0.7, 0.7, -0.6, 0.5])), sigma
    sharp = dataclasses.replace(CONFIG, distance=DISTANCES["characteristic"])
    model, survey, centre = (space, tables), (noise(), FREE), uniform_reference(space.n_dim)

    def misfit(floor_mag) -> float:
        own = make_setup(sharp, model, survey, catalog, centre, key=KEY, floor_mag=floor_mag)
        problem = own.problem
        whole = dataclasses.replace(problem, distance=problem.distance.bound(problem.observed))
        points = draw_photometry(as_population(truth, space), problem, 50_000, KEY)
        value = whole.distance(points, problem.observed, key=KEY)
        return float(value / problem.temperature) / problem.distance.sharpness

    assert misfit(floor) < 1.3
    assert misfit(None) > 3


@pytest.mark.slow
def test_a_whole_catalogue_sees_what_a_tenth_of_it_does_not(setup, truth, space):
    """Masses 0.07 of the prior's width too high: 500 galaxies do not tell, 5,000 do."""
    heavy = Reference(truth.mean.at[1].add(0.07), truth.factor)

    def member(number: int, of: Reference) -> Member:
        population = as_population(of, space)
        parts = validate(population, setup.problem, setup.held_out, KEY)[1]
        best = {"validation_loss": 0.0, "distance": float(parts.distance), "step": 1}
        return Member(number, population, setup.problem, [best], 1e-3, 0)

    members = [member(0, truth), member(1, heavy)]
    right, wrong = describe_ensemble(members, setup, EnsembleSettings(2))["members"]
    assert 0.4 < right["catalog_ratio"] < 2.0
    assert wrong["catalog_ratio"] > 2.5
    assert wrong["photometry_ratio"] < 2.0


@pytest.mark.slow
def test_the_truth_is_at_the_noise_and_the_prior_is_not(setup, truth, space):
    """The temperature is measured rightly: the true population costs about what noise costs."""
    parts = validate(as_population(truth, space), setup.problem, setup.held_out, KEY)[1]
    assert 0.4 < ratio(setup, parts) < 2.5
    divergence = 0.5 * np.sum(
        np.diagonal(np.asarray(truth.factor)) ** 2 - 1 + np.asarray(truth.mean) ** 2
    ) - np.sum(np.log(np.diagonal(np.asarray(truth.factor))))
    assert float(parts.kl) == pytest.approx(float(divergence), abs=0.15)


@pytest.mark.slow
def test_a_member_is_judged_by_several_looks_at_it(setup, space):
    """By which its validation loss is the less noisy, to half in theory."""
    population = make_population(CONFIG.density, space.n_dim, key=KEY)
    judge, keys = photometry_road(setup).judge, jax.random.split(KEY, 12)
    once = [float(validate(population, setup.problem, setup.held_out, k)[0]) for k in keys]
    several = [judge(population, setup.problem, setup.problem, k)["validation_loss"] for k in keys]
    assert np.mean(several) == pytest.approx(np.mean(once), rel=0.1)
    assert np.std(several) < 0.75 * np.std(once)


def test_annealing_ends():
    annealing = Annealing()
    assert float(annealing.noise_share(0.0)) == pytest.approx(1 / 31)
    assert float(annealing.noise_share(1.0)) == 1.0
    assert float(annealing.heating(0.0)) == pytest.approx(101)
    assert float(annealing.heating(1.0)) == 1.0
    assert float(Annealing(heat=0.0).heating(0.0, 200.0)) == 1.0
    shares = [float(annealing.noise_share(p)) for p in np.linspace(0, 1, 9)]
    assert np.all(np.diff(shares) > 0)


def test_the_heat_of_a_sharp_distance_is_more_and_over_as_soon():
    annealing = Annealing()
    assert float(annealing.heating(0.0, 200.0)) == pytest.approx(20_001)
    over = np.log1p(100) / annealing.heat_rate
    for sharpness in (1.0, 200.0):
        assert float(annealing.heating(over, sharpness)) == pytest.approx(2.0, rel=0.02)


def test_a_sharp_distance_soon_sees_the_errors_as_they_are():
    """To 1 % when the heat is over, where the paper's are wrong by a fifth."""
    annealing = Annealing()
    over = np.log1p(100) / annealing.heat_rate
    assert float(annealing.noise_share(over)) < 0.8
    assert float(annealing.noise_share(over, 200.0)) > 0.99
    assert float(annealing.noise_share(0.0, 200.0)) == pytest.approx(1 / 31)


def test_a_problem_knows_how_far_the_training_is(setup):
    assert float(setup.problem.progress) == 1.0
    assert float(setup.problem.at(jnp.asarray(50)).progress) == pytest.approx(0.25)


def test_members_see_other_galaxies_and_believe_other_things(setup):
    one, other = (member_problem(setup.problem, key=jax.random.key(k)) for k in (0, 1))
    assert not np.array_equal(one.observed, other.observed)
    assert not np.allclose(one.reference.mean, other.reference.mean, atol=0.1)
    known = {row.tobytes() for row in np.asarray(setup.problem.observed)}
    seen = {row.tobytes() for row in np.asarray(one.observed)}
    assert seen <= known
    assert len(seen) / len(known) == pytest.approx(1 - np.exp(-1), abs=0.03)  # a bootstrap's share
    held = {row.tobytes() for row in np.asarray(setup.held_out)}
    assert not held & known


@pytest.mark.parametrize(
    ("losses", "stopped"),
    [([3, 2, 1], False), ([1, 2, 3, 4], True), ([1, 2, 0.5, 3], False), ([1, 2, 3], False)],
)
def test_training_stops_when_nothing_gets_better(losses, stopped):
    assert has_stopped(losses, 3) is stopped


# --- the selection undone ---


@pytest.mark.slow
def test_weights_make_the_galaxies_those_observed(setup, small_posterior, space):
    """Here the density is the prior, as if that had been observed above some flux."""
    centre = uniform_reference(space.n_dim)
    flux = catalog_of(centre, space, small_posterior.tables, 2000)[0][:, 2]
    cut = Selection((-np.inf, -np.inf, float(np.quantile(flux, 0.05)), -np.inf, -np.inf))
    problem = dataclasses.replace(setup.problem, selection=cut)
    population = make_population(CONFIG.density, space.n_dim, key=KEY)
    tables = small_posterior.derived_tables
    drawn = draw_galaxies(population, problem, tables, 4000, KEY)
    weight, mass = (np.asarray(drawn[name], float) for name in ("selected_weight", MASS))
    assert weight.mean() == pytest.approx(1, rel=1e-3)
    mean = np.average(mass, weights=weight)
    error = np.sqrt(np.sum((weight * (mass - mean)) ** 2)) / weight.sum()
    assert error < 0.1
    assert mean == pytest.approx(9.75, abs=4 * error)  # the prior's
    assert mass.mean() < 9.75 - 0.5  # there are more of what is seldom seen
    assert weight.max() / weight.min() == pytest.approx(100, rel=0.01)
    plain = draw_galaxies(population, setup.problem, tables, 500, KEY)
    np.testing.assert_array_equal(plain["selected_weight"], 1.0)
    flux_view = draw_photometry(population, problem, 500, KEY)
    assert np.isfinite(flux_view).all()


def test_galaxies_out_of_reach_are_counted():
    rng = np.random.default_rng(0)
    made = rng.normal(size=(4000, 3))
    observed = rng.normal(size=(1000, 3))
    assert unreached_share(observed, made) < 0.005
    observed[:100] += 30
    assert unreached_share(rng.permutation(observed), made) == pytest.approx(0.1, abs=0.01)


def test_too_few_galaxies_are_refused(space, small_posterior, truth):
    tables = small_posterior.tables
    few = catalog_of(truth, space, tables, 50)
    with pytest.raises(ValueError, match="at least 200 galaxies .* got 50"):
        make_setup(CONFIG, (space, tables), (noise(), FREE), few, uniform_reference(2), key=KEY)
