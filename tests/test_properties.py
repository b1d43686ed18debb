"""Posteriors of properties where the answer is known, and what they are made of."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tinsley.density.encoders import AsinhScale
from tinsley.density.flow_matching import TINSLEY
from tinsley.density.train import Schedule, start_training, train_steps
from tinsley.infer.likelihood import Observation
from tinsley.infer.properties import (
    Galaxies,
    PropertyPosterior,
    StoredGalaxies,
    draw_properties,
    fit_stretched_scale,
    held_out_loss,
    judge_properties,
    make_property_network,
    property_loss,
    scale_from_dict,
    scale_to_dict,
    summaries,
)
from tinsley.infer.property_targets import Standard, fit_standard

SIDE, SKY = 8, 4.0
"""The mean of 8 x 8 pixels of noise 4 errs by 0.5."""
SMALL_MATCHING = TINSLEY | {"width": 16, "depth": 1, "frame_width": 16, "frame_depth": 1}
SMALL_ENCODER = {"encoder": "plain", "widths": [8, 8]}
NONE = Standard((), ())


def measured(number: int, key: jax.Array) -> tuple[jax.Array, Galaxies]:
    """A property x ~ N(0, 1), told with an error of 0.5, and shown as a level of the image."""
    keys = jax.random.split(key, 3)
    x = jax.random.normal(keys[0], (number, 1))
    told = x + 0.5 * jax.random.normal(keys[1], (number, 1))
    noise = SKY * jax.random.normal(keys[2], (number, 1, SIDE, SIDE))
    return x, Galaxies(told, x[:, :, None, None] + noise)


@pytest.fixture(scope="module")
def learnt() -> PropertyPosterior:
    """A posterior trained as all are, on what `measured` makes."""
    x, galaxies = measured(4096, jax.random.key(1))
    scale = AsinhScale(jnp.full(1, SKY))
    network = make_property_network(SMALL_MATCHING, SMALL_ENCODER, (1, 1, 1), key=jax.random.key(2))
    source = StoredGalaxies(x, galaxies, scale, number=128, max_shift=1)
    schedule = Schedule(steps=700, batch=128, rate=5e-3, warmup=50, average=0.98)
    state, _ = train_steps(
        (source, property_loss, schedule, 700), start_training(network, schedule), jax.random.key(3)
    )
    unit = Standard((0.0,), (1.0,))
    return PropertyPosterior(state.average, unit, unit, scale, None)


def drawn(posterior: PropertyPosterior, galaxies: Galaxies) -> np.ndarray:
    words = jnp.asarray(np.arange(2 * len(galaxies.told)).reshape(-1, 2), jnp.uint32)
    return np.asarray(draw_properties(posterior, galaxies, words, jax.random.key(0), 400))


@pytest.mark.slow
def test_photometry_and_image_together_give_the_known_posterior(learnt):
    """x ~ N(0, 1) measured twice with errors of 0.5: precision 1 + 4 + 4, mean 4 (a + b) / 9."""
    x, galaxies = measured(600, jax.random.key(4))
    draws = drawn(learnt, galaxies)
    exact = 4 * (galaxies.told[:, 0] + galaxies.images.mean((1, 2, 3))) / 9
    assert draws.std(axis=1).mean() == pytest.approx(1 / 3, rel=0.12)
    assert np.sqrt(np.mean((draws.mean(axis=1)[:, 0] - exact) ** 2)) < 0.12
    judged = judge_properties(("x",), np.asarray(x), draws)["x"]
    assert judged["rmse"] == pytest.approx(1 / 3, rel=0.12)
    assert abs(judged["bias"]) < 0.05
    assert judged["coverage_68"] == pytest.approx(0.68, abs=0.06)
    assert judged["coverage_95"] == pytest.approx(0.95, abs=0.03)


@pytest.mark.slow
def test_density_is_that_of_the_draws(learnt):
    _, galaxies = measured(1, jax.random.key(5))
    condition = learnt.condition(galaxies.told[0], galaxies.images[0])
    other = PropertyPosterior(learnt.network, Standard((7.0,), (3.0,)), NONE, learnt.scale, None)
    place = jnp.linspace(7.0 - 9.0, 7.0 + 9.0, 121)
    density = np.exp(jax.vmap(lambda v: other.log_prob(v[None], condition))(place))
    draws = other.sample(4000, condition, key=jax.random.key(6))
    step = float(place[1] - place[0])
    assert density.sum() * step == pytest.approx(1.0, abs=0.01)
    assert (density * np.asarray(place)).sum() * step == pytest.approx(float(draws.mean()), abs=0.1)


@pytest.mark.slow
def test_neighbours_change_nothing_and_names_decide(learnt):
    _, galaxies = measured(4, jax.random.key(7))
    turned = jax.tree.map(lambda a: a[::-1], galaxies)
    words = jnp.arange(8, dtype=jnp.uint32).reshape(4, 2)
    args = (jax.random.key(0), 50)
    one = draw_properties(learnt, galaxies, words, *args)
    other = draw_properties(learnt, turned, words[::-1], *args)
    np.testing.assert_allclose(one, other[::-1], atol=1e-5)
    assert not np.allclose(one, draw_properties(learnt, galaxies, words + 9, *args))


@pytest.mark.slow
def test_validation_is_the_same_each_time(learnt):
    x, galaxies = measured(70, jax.random.key(8))
    held_out = StoredGalaxies(x, galaxies, learnt.scale, number=1, max_shift=0)
    one, other = (held_out_loss(learnt.network, held_out, jax.random.key(k)) for k in (1, 1))
    assert float(one) == float(other)
    worse = StoredGalaxies(-x, galaxies, learnt.scale, number=1, max_shift=0)
    assert float(held_out_loss(learnt.network, worse, jax.random.key(1))) > float(one) + 0.5


def test_a_batch_is_of_matching_galaxies():
    """Level, told and property are the same number; turned and shifted images keep their level."""
    x = jnp.arange(1.0, 33.0)[:, None]
    images = jnp.broadcast_to(x[:, :, None, None], (32, 1, SIDE, SIDE)).astype(jnp.uint8)
    source = StoredGalaxies(x, Galaxies(2 * x, images), None, number=64, max_shift=2)
    theta, told, shown = source.batch(jax.random.key(0))
    np.testing.assert_array_equal(told, 2 * theta)
    np.testing.assert_array_equal(shown.max((1, 2, 3)), theta[:, 0])
    assert (np.asarray(shown) == 0).any()
    assert len(np.unique(theta)) > 20


def test_standard():
    values = np.random.default_rng(0).normal((3.0, -1e3, 5.0), (0.1, 50.0, 0.0), (500, 3))
    standard = fit_standard(values)
    inward = standard.inward(jnp.asarray(values, float))
    np.testing.assert_allclose(inward.mean(axis=0), 0.0, atol=1e-3)
    np.testing.assert_allclose(inward.std(axis=0), [1.0, 1.0, 0.0], atol=1e-3)
    np.testing.assert_allclose(standard.outward(inward), values, rtol=1e-4)


def test_stretched_images_have_the_sky_at_zero():
    noise = np.random.default_rng(1).integers(8, 13, (20, 3, SIDE, SIDE))
    noise[:, :, 6:10, 6:10] += 100
    scale = fit_stretched_scale(noise.astype(np.uint8))
    shown = np.asarray(scale(jnp.asarray(noise, float)))
    assert np.abs(shown[:, :, 0]).max() < 0.1
    assert 1 < shown.max() < 10
    for one in (scale, AsinhScale(jnp.asarray([1.0, 2.5, 0.3]))):
        again = scale_from_dict(scale_to_dict(one))
        np.testing.assert_array_equal(one(jnp.asarray(noise, float)),
                                      again(jnp.asarray(noise, float)))  # fmt: skip
    assert scale_from_dict(scale_to_dict(None)) is None


@pytest.mark.slow
def test_features_of_photometry(learnt):
    """Any subset of bands; a feature far outside the training set's is brought near."""
    seen = Observation(jnp.ones((3, 5)), jnp.full((3, 5), 0.1), jnp.ones((3, 5), bool), jnp.ones(3))
    standard = Standard((0.0,) * 16, (1e-3,) * 16)
    told = PropertyPosterior(learnt.network, NONE, standard, None, None).told(seen)
    assert told.shape == (3, 16)
    assert np.abs(told).max() == 10.0


def test_summaries():
    draws = np.random.default_rng(2).normal((1.0, -2.0), (0.5, 2.0), (3, 20_000, 2))
    found = summaries(("a", "b"), draws)
    for name, mean, std in (("a", 1.0, 0.5), ("b", -2.0, 2.0)):
        expected = {"mean": mean, "std": std, "q16": mean - 0.9945 * std, "q50": mean,
                    "q84": mean + 0.9945 * std}  # fmt: skip
        for what, value in expected.items():
            np.testing.assert_allclose(found[f"{name}_{what}"], value, atol=0.04 * std)


def test_judgement_knows_too_narrow_from_too_wide():
    rng = np.random.default_rng(3)
    truth = rng.normal(size=(2000, 1))
    seen = truth + rng.normal(size=(2000, 1))
    for width, expected in ((0.5, 0.45), (1.0, 0.84), (0.7071, 0.68)):
        draws = seen[:, None] / 2 + width * rng.normal(size=(2000, 400, 1))
        judged = judge_properties(("x",), truth, draws)["x"]
        assert judged["rmse"] == pytest.approx(0.7071, abs=0.04)
        assert judged["std"] == pytest.approx(width, rel=0.01)
        low, high = expected - 0.1, expected + 0.1
        assert low < judged["coverage_68"] < high
