"""Training: the right answer where it is known, and the same bits however it is interrupted."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from conftest import SMALL_FLOW
from tinsley.cli import train as cli_train
from tinsley.cli import training
from tinsley.cli.main import run
from tinsley.density import flows, mixture
from tinsley.density.flows import make_flow, standardised
from tinsley.density.train import (
    Schedule,
    UntilNoGain,
    UntilNoGainAdamW,
    start_training,
    train_block,
)
from tinsley.infer import pairs as pairs_module
from tinsley.infer.config import CONFIGS
from tinsley.infer.features import n_features
from tinsley.infer.pairs import FreshPairs, StoredPairs, posterior_pairs, store_pairs
from tinsley.infer.support import fit_colour_limits
from tinsley.io.checkpoints import TrainingFolder
from tinsley.io.histories import (
    PROVABGS_METALLICITY_FILE,
    PROVABGS_SFH_FILE,
    PROVABGS_TIME_FILE,
    load_sfh_bases,
)
from tinsley.io.models import load_posterior, read_model
from tinsley.parameters import MASS

MIX = jnp.asarray([[1.0, 0.5], [-0.3, 0.8], [0.2, 0.2]])
SIGMA = jnp.asarray([0.5, 0.7, 0.3])


def linear_gaussian(number, key):
    """theta ~ N(0, 1) in two dimensions, data = MIX theta + SIGMA noise in three."""
    key_theta, key_noise = jax.random.split(key)
    theta = jax.random.normal(key_theta, (number, 2))
    return theta, theta @ MIX.T + SIGMA * jax.random.normal(key_noise, (number, 3))


def exact_log_posterior(theta, data):
    precision = np.eye(2) + np.asarray(MIX.T / SIGMA**2 @ MIX, float)
    mean = np.linalg.solve(precision, np.asarray(MIX.T / SIGMA**2 @ data.T, float)).T
    offset = np.asarray(theta, float) - mean
    chi2 = np.einsum("ni,ij,nj->n", offset, precision, offset)
    return 0.5 * np.linalg.slogdet(precision)[1] - np.log(2 * np.pi) - 0.5 * chi2


def loss(flow, number, key):
    theta, data = linear_gaussian(number, key)
    return -jnp.mean(jax.vmap(flow.log_prob)(theta, data))


@pytest.fixture(scope="module")
def flow():
    return make_flow(SMALL_FLOW, 3, 2, key=jax.random.key(0))


@eqx.filter_jit
def divergence(flow, theta, data):
    return jax.vmap(flow.log_prob)(theta, data)


def test_training_finds_the_known_posterior(flow):
    """KL(exact || learnt), averaged over data; its standard error here is about 0.003 nats."""
    theta, data = linear_gaussian(8192, jax.random.key(99))
    exact = exact_log_posterior(theta, data)
    schedule = Schedule(steps=1000, batch=256, rate=5e-3, warmup=50, average=0.98)
    state = start_training(flow, schedule)
    assert np.mean(exact - divergence(flow, theta, data)) > 0.5
    state, _ = train_block((256, loss, schedule, 1000), state, jax.random.key(1))
    for model in (state.average, state.model):
        assert 0 - 0.005 < np.mean(exact - divergence(model, theta, data)) < 0.02


SHORT = Schedule(steps=12, batch=32, warmup=4)


def blocks(state, number):
    for _ in range(number):
        state, losses = train_block((32, loss, SHORT, 4), state, jax.random.key(7))
    return state, losses


def assert_same_bits(one, other):
    leaves = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    for a, b in leaves:
        if eqx.is_array(a):
            np.testing.assert_array_equal(a, b)


def test_resumed_training_is_the_uninterrupted_one(flow, tmp_path):
    whole, whole_losses = blocks(start_training(flow, SHORT), 3)
    half, losses = blocks(start_training(flow, SHORT), 1)
    folder = TrainingFolder(tmp_path, {"seed": 0})
    folder.save(half, [entry(4, float(losses[-1]))])
    state, history = TrainingFolder(tmp_path, {"seed": 0}).resume(start_training(flow, SHORT))
    assert int(state.step) == 4
    assert [e["step"] for e in history] == [4]
    after, after_losses = blocks(state, 2)
    assert_same_bits(whole, after)
    np.testing.assert_array_equal(whole_losses, after_losses)


def test_every_step_has_a_key_of_its_own():
    def noise(model, data, key):
        return data * jax.random.uniform(key) + 0 * jnp.sum(model["w"])

    start = start_training({"w": jnp.zeros(2)}, SHORT)
    fixed = (jnp.ones(()), noise, SHORT, 4)
    state, first = train_block(fixed, start, jax.random.key(7))
    _, then = train_block(fixed, state, jax.random.key(7))
    _, other = train_block(fixed, start, jax.random.key(8))
    assert len(np.unique([first, then, other])) == 12


def test_average_follows_the_weights(flow):
    state, _ = blocks(start_training(flow, SHORT), 1)
    weights = [eqx.filter(m, eqx.is_inexact_array) for m in (flow, state.model, state.average)]
    first, last, mean = (np.concatenate([np.ravel(a) for a in jax.tree.leaves(w)]) for w in weights)
    moved = np.abs(last - first) > 1e-5
    share = (mean - first)[moved] / (last - first)[moved]
    assert 0.2 < np.median(share) < 0.99


def test_rate_warms_up_and_comes_down():
    for steps in (1, 2, 5, 11, 100):  # the shortest too must make a schedule
        Schedule(steps=steps).optimizer()
    schedule = Schedule(steps=100, rate=0.1, warmup=10)
    optimizer = schedule.optimizer()
    weight, sizes = jnp.zeros(1), []
    state = optimizer.init(weight)
    for _ in range(100):
        update, state = optimizer.update(jnp.ones(1), state, weight)
        sizes.append(abs(float(update[0])))  # Adam's steps are of the size of the rate
    assert np.argmax(sizes) in (10, 11)
    assert sizes[0] == 0.0
    assert max(sizes) == pytest.approx(0.1, rel=0.01)
    assert sizes[-1] < 0.001


def test_adamw_takes_from_matrices_and_spares_vectors():
    optimizer = UntilNoGainAdamW(rate=0.1, decay=0.5).optimizer()
    weights = {"matrix": jnp.ones((2, 2)), "vector": jnp.ones(2)}
    nothing = jax.tree.map(jnp.zeros_like, weights)
    update, _ = optimizer.update(nothing, optimizer.init(weights), weights)
    np.testing.assert_allclose(update["matrix"], -0.05, rtol=1e-6)
    np.testing.assert_array_equal(update["vector"], [0.0, 0.0])


def test_adamw_ends_after_so_many_epochs_without_gain():
    schedule = UntilNoGainAdamW(batch=64, galaxies=6400, patience=3)
    assert schedule.validate_every == 100
    losses = [3.0, 2.0, 1.0, 1.5, 1.2, 1.1, 1.0]
    history = [{"step": 100 * n, "validation_loss": loss} for n, loss in enumerate(losses)]
    ended = [schedule.is_over(history[:n]) for n in range(len(losses) + 1)]
    assert ended == [False] * 6 + [True] * 2


# --- the command, killed and started again ---


@pytest.fixture
def small_training(monkeypatch, own_cache):
    """The real command on a narrow range of redshifts, with a small network, compiled once."""
    config = SMALL_FLOW | {"kind": "maf"}  # compiles faster than the default
    without = config | {"embedding_size": 0}
    first = functools.cache(
        lambda size, *shape: make_flow(config if size else without, *shape, key=jax.random.key(0))
    )
    monkeypatch.setattr(
        flows, "make_flow", lambda config, *shape, key: first(config["embedding_size"], *shape)
    )
    monkeypatch.setattr(training, "BLOCK", 4)
    monkeypatch.setattr(cli_train, "N_VALIDATION", 64)
    monkeypatch.setitem(flows.FLOWS, "maf", config)
    for name, changes in (
        ("tinsley", {"flow": config}),
        ("sedflow", {"flow": without, "schedule": UntilNoGain(patience=2)}),
    ):
        small = dataclasses.replace(CONFIGS[name], redshift_range=(0.05, 0.06), **changes)
        monkeypatch.setitem(CONFIGS, name, small)


def train(monkeypatch, *options, kind="posterior") -> int:
    monkeypatch.setattr(sys, "argv", ["tinsley", "train", kind, *map(str, options)])
    with pytest.raises(SystemExit) as stop:
        run()
    return stop.value.code or 0


@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_same_model(small_training, tmp_path, monkeypatch):
    options = ["--steps", 16, "--batch", 16, "--name", "small"]
    whole, resumed = tmp_path / "whole.tinsley", tmp_path / "resumed.tinsley"
    assert train(monkeypatch, *options, "--run", tmp_path / "a", "--out", whole) == 0
    again = [*options, "--run", tmp_path / "b", "--out", resumed]
    with monkeypatch.context() as patched:
        patched.setattr(TrainingFolder, "_write", killed_at(4, TrainingFolder._write))
        assert train(patched, *again) == 130
    assert not resumed.exists()
    assert train(monkeypatch, *again) == 0
    one, other = read_model(whole), read_model(resumed)
    assert_same_bits(one[1], other[1])
    assert without_seconds(one[0]) == without_seconds(other[0])
    history = json.loads((tmp_path / "b/history.json").read_text())
    assert [e["step"] for e in history] == [2, 4, 6, 8, 10, 12, 14, 16]


@pytest.fixture
def papers_folder(tmp_path):
    """The embedded bases, and metallicities that rise and that do not, in provabgs' files."""
    bases = load_sfh_bases()
    times, rows = bases.lookback_gyr[::-1], bases.sfr[[1, 2, 0, 3], ::-1]
    np.savetxt(tmp_path / PROVABGS_TIME_FILE, times)
    np.savetxt(tmp_path / PROVABGS_SFH_FILE, rows)
    np.savetxt(tmp_path / PROVABGS_METALLICITY_FILE, [5.0 * np.exp(-times), 0 * times + 2.0])
    return tmp_path


@pytest.mark.slow
def test_sedflows_way_is_trained_on_a_fixed_set_and_kept_with_its_physics(
    small_training, papers_folder, tmp_path, monkeypatch
):
    out = tmp_path / "sedflow.tinsley"
    options = ["--config", "sedflow", "--provabgs-bases", papers_folder, "--galaxies", 400]
    options += ["--batch", 40, "--nebular", -2.5, "--run", tmp_path / "run", "--out", out]
    assert train(monkeypatch, *options) == 0
    loaded = load_posterior(out)
    assert loaded.model.ssp.about["nebular"].startswith("log U = -2.5")
    spec, history = loaded.spec, json.loads((tmp_path / "run/history.json").read_text())
    losses = [entry["validation_loss"] for entry in history]
    assert len(losses) == 8 + 1 + int(np.argmin(losses))  # two epochs of four, no gain
    assert [e["step"] for e in history[:3]] == [2, 4, 6]  # a quarter of 9 batches, rounded
    assert loaded.posterior.flow_space.names == loaded.posterior.space.names
    assert {"gamma_1", "gamma_2", MASS} <= set(loaded.posterior.space.names)
    made = loaded.simulator().sample(200_000, key=jax.random.key(0))
    limits = fit_colour_limits(np.asarray(made.flux_true), np.asarray(made.theta["redshift"]))
    assert spec.colour_limits == limits.to_dict()  # of the galaxies that it was trained on
    low, high = np.asarray(spec.flux_range).T
    assert np.all((made.seen.flux >= low) & (made.seen.flux <= high))
    assert made.seen.mask.all()
    embedded = load_sfh_bases()
    np.testing.assert_allclose(loaded.model.bases.sfr, embedded.sfr)
    statistics = loaded.posterior.flow.embedding
    assert statistics.mean.shape == statistics.std.shape == (n_features(5),)
    assert float(statistics.std.min()) > 0


@pytest.mark.slow
def test_bases_go_with_gammas(small_training, papers_folder, tmp_path, monkeypatch, capsys):
    out = ["--run", tmp_path / "run", "--out", tmp_path / "model.tinsley"]
    assert train(monkeypatch, "--config", "sedflow", *out) == 2
    assert "the papers' bases" in capsys.readouterr().err
    assert train(monkeypatch, "--provabgs-bases", papers_folder, *out) == 2
    assert "gamma_1 and gamma_2" in capsys.readouterr().err
    assert train(monkeypatch, "--config", "popsed", *out) == 2
    assert "expected one of tinsley, sedflow" in capsys.readouterr().err
    assert train(monkeypatch, "--galaxies", 500, "--steps", 5, *out) == 2
    assert "the stopping rule decides" in capsys.readouterr().err
    assert train(monkeypatch, "--steps", 16, "--hours", 0.0, *out) == 2
    assert "before the first validation" in capsys.readouterr().err


def test_training_stops_when_some_epochs_bring_nothing():
    rule = UntilNoGain(galaxies=1000, batch=50, patience=2)
    losses = [3.0, 2.0, 1.0, *[1.5] * 7]
    history = [entry(i, loss) for i, loss in enumerate(losses)]
    assert not any(rule.is_over(history[:n]) for n in range(len(history)))
    assert not rule.is_over(history)
    assert rule.is_over([*history, entry(10, 1.0)])  # no lower than before
    assert not rule.is_over([*history, entry(10, 0.9)])


def test_stored_pairs_stay_together_and_all_are_drawn(key):
    x = jnp.arange(50.0)[:, None]
    stored = StoredPairs(x, 2 * x, 5000)
    points, told = stored.batch(key)
    np.testing.assert_array_equal(told, 2 * points)
    assert len(np.unique(points)) == 50


@pytest.mark.slow
def test_a_stored_set_is_that_of_its_key_and_its_chunks_differ(small_simulator, key, monkeypatch):
    monkeypatch.setattr(pairs_module, "_CHUNK", 64)
    fresh = FreshPairs(small_simulator, posterior_pairs, 8)
    x, told = store_pairs(fresh, 150, key)
    assert (len(x), len(told)) == (150, 150)
    assert len(np.unique(x[:, 0])) == 150
    np.testing.assert_array_equal(store_pairs(fresh, 150, key)[0], x)


def test_a_flow_without_embedding_sees_standard_features(key):
    config = SMALL_FLOW | {"kind": "maf", "embedding_size": 0}
    told = 3.0 + 5.0 * jax.random.normal(key, (500, 4)) * jnp.asarray([1.0, 1.0, 1.0, 0.0])
    flow = standardised(make_flow(config, 4, 2, key=key), told)
    seen = jax.vmap(flow.embedding)(told)
    np.testing.assert_allclose(seen.mean(axis=0), 0.0, atol=1e-4)
    np.testing.assert_allclose(seen.std(axis=0), [1, 1, 1, 0], atol=1e-4)
    slope = eqx.filter_grad(lambda f: f.log_prob(jnp.ones(2), told[0]))(flow)
    assert not np.any(slope.embedding.mean)
    assert not np.any(slope.embedding.std)
    with_network = make_flow(SMALL_FLOW, 4, 2, key=key)
    assert standardised(with_network, told) is with_network


@pytest.mark.slow
def test_a_model_is_taught_redshifts(small_model_file, own_cache, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "BLOCK", 4)
    monkeypatch.setattr(cli_train, "N_VALIDATION", 64)
    out = tmp_path / "taught.tinsley"
    options = ["--steps", 16, "--batch", 16, "--run", tmp_path / "run", "--out", out]
    assert train(monkeypatch, small_model_file, *options, kind="redshift") == 0
    before, after = read_model(small_model_file), read_model(out)
    assert before[1].redshift_density is None
    assert_same_bits(before[1].flow, after[1].flow)
    density = load_posterior(out).posterior.redshift_density
    assert (density.low, density.high) == tuple(before[0].redshift_range)
    assert after[0].redshift_training["last"]["step"] == 16
    assert after[0].training == before[0].training


@pytest.fixture
def small_support(monkeypatch, own_cache):
    """The real command, with a small network and few galaxies behind the limits."""
    monkeypatch.setattr(mixture, "BAND", {"components": 2, "width": 8, "depth": 1})
    monkeypatch.setattr(training, "BLOCK", 4)
    monkeypatch.setattr(cli_train, "N_VALIDATION", 64)
    monkeypatch.setattr(cli_train, "N_LIMITS", 4)


@pytest.mark.slow
def test_a_model_is_taught_its_support(small_support, small_model_file, tmp_path, monkeypatch):
    whole, resumed = tmp_path / "whole.tinsley", tmp_path / "resumed.tinsley"
    options = [small_model_file, "--steps", 16, "--batch", 16]
    run_a = [*options, "--run", tmp_path / "a", "--out", whole]
    assert train(monkeypatch, *run_a, kind="support") == 0
    again = [*options, "--run", tmp_path / "b", "--out", resumed]
    with monkeypatch.context() as patched:
        patched.setattr(TrainingFolder, "_write", killed_at(4, TrainingFolder._write))
        assert train(patched, *again, kind="support") == 130
    assert not resumed.exists()
    assert train(monkeypatch, *again, kind="support") == 0
    before, one, other = read_model(small_model_file), read_model(whole), read_model(resumed)
    assert_same_bits(one[1], other[1])
    assert_same_bits(before[1].flow, one[1].flow)
    assert before[1].photometry_density is None
    assert one[0].photometry_density == other[0].photometry_density
    assert one[0].photometry_training["last"]["step"] == 16
    limits = one[0].photometry_density["limits"]
    assert len(limits) == 4
    loaded = load_posterior(whole)
    assert loaded.support.limits == tuple(limits)
    # what was taught stays when something else is
    both = tmp_path / "both.tinsley"
    options = [whole, "--steps", 8, "--batch", 16, "--run", tmp_path / "c", "--out", both]
    assert train(monkeypatch, *options, kind="redshift") == 0
    assert_same_bits(one[1].photometry_density, read_model(both)[1].photometry_density)
    assert read_model(both)[1].redshift_density is not None


def test_what_support_can_not_do_is_said(
    small_support, small_model_file, tmp_path, monkeypatch, capsys
):
    out = ["--out", tmp_path / "nowhere" / "model.tinsley"]
    assert train(monkeypatch, small_model_file, *out, kind="support") == 2
    assert "folder does not exist" in capsys.readouterr().err
    assert train(monkeypatch, "sloan", "--out", tmp_path / "m.tinsley", kind="support") == 2
    assert "no model 'sloan'" in capsys.readouterr().err
    TrainingFolder(tmp_path / "run", {"steps": 3})
    out = ["--run", tmp_path / "run", "--out", tmp_path / "m.tinsley"]
    assert train(monkeypatch, small_model_file, *out, kind="support") == 2
    assert "holds a training with other settings" in capsys.readouterr().err


def test_a_training_of_other_settings_is_refused(small_training, tmp_path, monkeypatch, capsys):
    TrainingFolder(tmp_path / "run", {"survey": "sdss", "seed": 0})
    out = ["--run", tmp_path / "run", "--out", tmp_path / "model.tinsley"]
    assert train(monkeypatch, "--steps", 16, *out) == 2
    assert "holds a training with other settings" in capsys.readouterr().err
    assert train(monkeypatch, "--density", "planar", *out) == 2
    assert "expected one of coupling, maf" in capsys.readouterr().err
    assert train(monkeypatch, "--out", tmp_path / "nowhere" / "model.tinsley") == 2
    assert "folder does not exist" in capsys.readouterr().err


def entry(step: int, validation_loss: float) -> dict[str, float]:
    return {"step": step, "seconds": 1.0, "train_loss": 1.0, "validation_loss": validation_loss}


def killed_at(number: int, write):
    """`write`, but for a kill instead of the call of that number."""
    calls = []

    def wrapped(self, name, tree):
        calls.append(name)
        if len(calls) == number:
            raise KeyboardInterrupt
        write(self, name, tree)

    return wrapped


def without_seconds(spec) -> dict:
    plain = spec.to_dict()
    for validation in (plain["training"]["best"], plain["training"]["last"]):
        del validation["seconds"], validation["cpu_seconds"]
    return plain
