"""`tinsley train posterior --table --images`: SPS posteriors with images, where they are known."""

from __future__ import annotations

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest

from test_cli_properties import SMALL
from test_cli_properties import call as call_properties
from test_train import assert_same_bits, killed_at, without_seconds
from tinsley.catalog.batch import as_observation
from tinsley.catalog.properties import draw_all
from tinsley.density.encoders import AsinhScale
from tinsley.density.flows import COUPLING
from tinsley.density.properties import SPLINE, make_density
from tinsley.density.train import Schedule, start_training, train_block, train_steps
from tinsley.errors import InputError
from tinsley.infer import property_spec
from tinsley.infer.information import log_marginal
from tinsley.infer.properties import (
    Galaxies,
    PropertyPosterior,
    StoredGalaxies,
    make_property_network,
    property_loss,
)
from tinsley.infer.property_targets import Bounded, Standard, inside
from tinsley.io.catalogs import open_catalog
from tinsley.io.checkpoints import TrainingFolder
from tinsley.io.models import load_posterior
from tinsley.io.property_models import load_properties
from tinsley.io.results import write_parquet
from tinsley.io.surveys import load_survey
from tinsley.parameters import ParamSpace, Uniform, whole_space

SIDE, SKY, ERROR = 16, 8.0, 0.5
"""The mean of 16 x 16 pixels of noise 8 errs by 0.5."""
FLOW = SPLINE | {"layers": 2, "width": 16, "depth": 1, "knots": 4, "embedding_size": 0}
FLOW |= {"frame_width": 16, "frame_depth": 1}
SPACE = whole_space()
N = 90
NAMES = np.array([f"J{i:03d}" for i in range(N)])

# --- a posterior that is known ---

TARGET = Bounded(
    ParamSpace((Uniform("seen", -1.0, 3.0), Uniform("unseen", 0.0, 1.0))),
    Standard((0.0, 0.0), (1.0, 1.0)),
)


def galaxies(number: int, seed: int) -> tuple[jax.Array, Galaxies]:
    """Two uniform parameters, of which one is measured by photometry, and shown as a level.

    Its normal quantile x ~ N(0, 1) is told with an error of 0.5, and the image tells it with an
    error of 0.5 more.
    """
    keys = jax.random.split(jax.random.key(seed), 3)
    x = jax.random.normal(keys[0], (number, 2))
    told = x[:, :1] + ERROR * jax.random.normal(keys[1], (number, 1))
    noise = SKY * jax.random.normal(keys[2], (number, 1, SIDE, SIDE))
    return TARGET.outward(x), Galaxies(told, x[:, 0, None, None, None] + noise)


def learn(channels: int) -> PropertyPosterior:
    """Trained as `tinsley train posterior --table` does, with images or without."""
    values, known = galaxies(4096, 1)
    scale = AsinhScale(jnp.full(1, SKY)) if channels else None
    known = known if channels else known._replace(images=None)
    encoder = {"encoder": "plain", "widths": [8, 8]}
    network = make_property_network(FLOW, encoder, (1, channels, 2), key=jax.random.key(2))
    source = StoredGalaxies(TARGET.inward(values), known, scale, number=128, max_shift=1)
    schedule = Schedule(steps=350, batch=128, rate=8e-3, warmup=30, average=0.97)
    go_on = train_steps if channels else train_block
    state, _ = go_on(
        (source, property_loss, schedule, 350), start_training(network, schedule), jax.random.key(3)
    )
    return PropertyPosterior(state.average, TARGET, Standard((0.0,), (1.0,)), scale, None)


@pytest.mark.slow
def test_gain_of_information_is_the_known_one():
    """0.5 ln((1 + 1 / 0.25 + 1 / 0.25) / (1 + 1 / 0.25)) = 0.294 nats, all in what is seen.

    The standard error of the mean over 1,200 galaxies is 0.02; networks err by as much.
    """
    exact = 0.5 * np.log((1 + 2 / ERROR**2) / (1 + 1 / ERROR**2))
    values, known = galaxies(1200, 4)
    x = np.asarray(TARGET.inward(values), float)
    reference = np.random.default_rng(0).normal(size=4000)
    log_p, one = [], []
    for channels in (0, 1):
        posterior = learn(channels)
        some = known if channels else known._replace(images=None)
        condition = jax.vmap(posterior.condition)(*some)
        log_p.append(np.asarray(jax.vmap(posterior.log_prob)(values, condition), float))
        names = np.arange(len(values))
        arrays = jax.tree.map(np.asarray, some)
        draws = draw_all(posterior, tuple(arrays)[:2], names, 200, jax.random.key(5))
        assert inside(TARGET.space, draws.reshape(-1, 2)).all()
        inward = np.asarray(TARGET.inward(jnp.asarray(draws, float)), float)
        one.append([log_marginal(inward[..., i], x[:, i], reference) for i in range(2)])
        rank = (draws < np.asarray(values)[:, None]).mean(axis=1)
        np.testing.assert_allclose((np.abs(rank - 0.5) < 0.34).mean(axis=0), 0.68, atol=0.06)
    before = 0.5 * np.log(5.0) - np.log(4.0)  # of "seen", less the entropy of its uniform prior
    assert log_p[0].mean() == pytest.approx(before, abs=0.06)
    assert (log_p[1] - log_p[0]).mean() == pytest.approx(exact, abs=0.06)
    gain = np.mean(np.array(one[1]) - np.array(one[0]), axis=1)
    np.testing.assert_allclose(gain, [exact, 0.0], atol=0.06)


def test_densities_that_can_not_be_built_are_refused():
    with pytest.raises(ValueError, match="needs a frame"):
        make_density(COUPLING | {"frame_width": 0, "frame_depth": 1}, 3, 2, key=jax.random.key(0))


# --- the command ---


def columns() -> dict[str, np.ndarray]:
    """Whole galaxies, as `tinsley simulate-images` writes them; half without a burst."""
    theta = SPACE.sample(N, jnp.full(N, jnp.inf), key=jax.random.key(0))
    made = {"object_id": NAMES} | {name: np.asarray(v, float) for name, v in theta.items()}
    made["f_burst"][::2] = 0.0
    rng = np.random.default_rng(0)
    made["redshift"] = rng.uniform(0.02, 0.2, N)
    for band in "ugriz":
        flux = 10 ** (made["log10_mstar_msun"] - 9) * rng.normal(10.0, 0.2, N)
        made |= {f"flux_{band}": flux, f"flux_err_{band}": 0.02 * flux}
    return made


def call(*words) -> tuple[int, str]:
    small = SMALL._replace(matching=FLOW)
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(property_spec.POSTERIOR_CONFIGS, "tinsley", small)
        return call_properties(*words)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Table and images; one galaxy has no image, one has a black one, one a parameter too high."""
    here = tmp_path_factory.mktemp("sps")
    spoilt = columns()
    spoilt["tau_bc"][7] = 11.0
    write_parquet(here / "t.parquet", spoilt, {})
    images = np.random.default_rng(1).normal(size=(N, SIDE, SIDE, 2)).astype(np.float32)
    images += columns()["n_dust"][:, None, None, None].astype(np.float32)
    images[3] = 0.0
    with h5py.File(here / "i.h5", "w") as file:
        file["images"] = images[:-1]
        file["object_id"] = NAMES[:-1].astype("S")
    return here


def train(made, name, *words):
    return call(
        "train", "posterior", "--table", made / "t.parquet", "--images", made / "i.h5",
        "--out", made / f"{name}.tinsley", "--run", made / name, "--steps", 8, *words,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(made):
    code, said = train(made, "m")
    assert code == 0, said
    return said, load_properties(made / "m.tinsley")


@pytest.mark.slow
def test_it_learns_the_parameters_of_the_table(trained):
    said, loaded = trained
    for part in ("1 no_image", "1 bad_image", "1 out of range", "coverage_68"):
        assert part in said
    spec = loaded.spec
    assert spec.properties == SPACE.names
    assert (spec.redshift, spec.survey, spec.image["channels"]) == (True, "sdss", 2)
    assert spec.target["space"] == SPACE.to_dict()
    assert len(spec.target["mean"]) == SPACE.n_unit
    assert sum(spec.training["galaxies"][w] for w in ("training", "validation", "test")) == N - 3


@pytest.mark.slow
def test_draws_are_the_flows_own_without_any_weight(made, trained):
    out = made / "o"
    code, said = call(
        "infer", made / "t.parquet", "--model", made / "m.tinsley", "--images", made / "i.h5",
        "--out", out, "--draws", 100, "--seed", 4,
    )  # fmt: skip
    assert code == 0, said
    table = pq.read_table(out / "galaxies.parquet")
    expected = np.full(N, "ok", object)
    expected[3], expected[-1] = "bad_image", "no_image"
    assert table["status"].to_pylist() == expected.tolist()
    drawn = pq.read_table(out / "draws" / "draws-000000.parquet")
    weights = {"ess", "khat", "log_evidence", "log_weight", "method"}
    assert not weights & {*table.column_names, *drawn.column_names}
    posterior, row = trained[1].posterior, 10
    with h5py.File(made / "i.h5") as file:
        image = np.moveaxis(file["images"][row : row + 1], -1, 1)
    theta = np.stack([np.asarray(drawn[name]) for name in SPACE.names], axis=-1)
    at = np.asarray(drawn["object_id"]) == NAMES[row]
    rows = next(open_catalog(made / "t.parquet", load_survey("sdss")).chunks(N))
    told = np.asarray(posterior.told(as_observation(rows)))[row : row + 1]
    own = draw_all(posterior, (told, image), NAMES[row : row + 1], 100, jax.random.key(4))[0]
    np.testing.assert_allclose(theta[at], own, rtol=1e-4, atol=1e-5)
    assert inside(SPACE, theta.astype(float)).all()


@pytest.mark.slow
@pytest.mark.usefixtures("trained")
def test_no_likelihood_of_the_photometry_gets_near_it(made):
    """Neither as a proposal to be weighted, nor by an option that means weights."""
    with pytest.raises(InputError, match="load_properties"):
        load_posterior(made / "m.tinsley")
    start = ("infer", made / "t.parquet", "--model", made / "m.tinsley", "--images",
             made / "i.h5", "--out", made / "q")  # fmt: skip
    for words in (("--refine", "all"), ("--prior", "volume_mass_function"),
                  ("--likelihood", "student-t"), ("--redshift", "free")):  # fmt: skip
        code, said = call(*start, *words)
        assert (code, f"{words[0]}: not for a model" in said) == (2, True), said
    assert not (made / "q").exists()


@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_same_model(made, trained):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(TrainingFolder, "_write", killed_at(7, TrainingFolder._write))
        code, said = train(made, "k")
    assert code != 0
    assert "Traceback" not in said
    assert not (made / "k.tinsley").exists()
    assert train(made, "k")[0] == 0
    whole, resumed = trained[1], load_properties(made / "k.tinsley")
    assert_same_bits(resumed.posterior, whole.posterior)
    assert without_seconds(resumed.spec) == without_seconds(whole.spec)


@pytest.mark.slow
def test_without_images_it_learns_from_photometry_alone(made):
    words = ("--table", made / "t.parquet", "--out", made / "p.tinsley", "--run", made / "p")
    code, said = call("train", "posterior", *words, "--steps", 8)
    assert code == 0, said
    spec = load_properties(made / "p.tinsley").spec
    assert (spec.image, spec.encoder, spec.properties) == ({}, {}, SPACE.names)
    assert sum(spec.training["galaxies"][w] for w in ("training", "validation", "test")) == N - 1


def test_what_can_not_be_learnt_is_refused_in_a_sentence(made):
    lacking = {k: v for k, v in columns().items() if k not in ("beta_2", "tau_ism")}
    write_parquet(made / "lacking.parquet", lacking, {})
    start = ("train", "posterior", "--out", made / "x.tinsley", "--run", made / "x")
    table, images = ("--table", made / "t.parquet"), ("--images", made / "i.h5")
    with h5py.File(made / "others.h5", "w") as file:
        file["images"] = np.zeros((5, SIDE, SIDE, 2), np.float32)
        file["object_id"] = np.arange(5)
    cases = {
        "--images goes with --table": (*start, *images),
        "has no column beta_2, tau_ism; expected every SPS parameter": (
            *start, "--table", made / "lacking.parquet", *images),
        "--galaxies, --prior: not with --table": (
            *start, *table, *images, "--galaxies", 500, "--prior", made / "p.toml"),
        "--config sedflow: not with --table": (*start, *table, "--config", "sedflow"),
        "do not exist": (*start, *table, "--images", made / "none.h5"),
        "no image of": (*start, *table, "--images", made / "others.h5"),
        "give a divisor of 16": (*start, *table, *images, "--pixels", 17),
    }  # fmt: skip
    for part, words in cases.items():
        code, said = call(*words)
        assert (code, part in said, "Traceback" in said) == (2, True, False), said
    assert not (made / "x").exists()
