"""What does an image add to photometry? The experiment of Yunus, Wu & Holwerda (2025), simulated.

    python benchmarks/images.py [--galaxies 20000] [--pixels 64] [--work runs/images]

Simulates bulge + disc galaxies whose truth is known (`tinsley simulate-images`), trains posteriors
of five properties from ugriz photometry alone and with gri images too (`tinsley train properties`),
and asks both about 2,000 other galaxies: the density at the truth, the divergence from the prior
(nearest neighbours, `tinsley.infer.information`), the distribution of the posterior means beside
that of the truths, and whether the truths rank uniformly. Then about the same galaxies in images
that differ from those of the training: wider point-spread functions, more noise, larger galaxies.

All steps go on where they were killed. Writes benchmarks/results/images.json and
docs/figures/images-*.png. On a GPU the paper's size: --galaxies 100000 --pixels 128.

--config yunus2025 is the paper's networks, solver and stopping rule in place of the default's and
of --steps and --batch, --config convolutions the default with an encoder that learns to look at
images; they write benchmarks/results/images-yunus2025.json and -convolutions.json, and no figures.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats
from scipy.spatial import cKDTree

from commands import command
from images_figures import write_figures
from machine import machine
from tinsley.catalog.batch import as_observation
from tinsley.cli.console import console
from tinsley.infer.information import kl_divergence
from tinsley.infer.properties import Galaxies, draw_properties, judge_properties
from tinsley.infer.property_spec import PROPERTY_CONFIGS
from tinsley.infer.ranks import holm, uniformity
from tinsley.io.images import load_images, open_images
from tinsley.io.property_models import LoadedProperties, load_properties
from tinsley.io.property_tables import open_galaxies, read_properties
from tinsley.io.results import make_folder, write_json
from tinsley.io.surveys import load_survey
from tinsley.observe.gallery import PROPERTIES
from tinsley.rng import split_id

HERE = Path(__file__).resolve().parent
FIGURES = HERE.parent / "docs" / "figures"
TEST = 2000
DRAWS = 1000
BATCH = 50
SHIFTS = {
    "psf_1.3": ("--psf-scale", "1.3"),
    "noise_1.5": ("--noise-scale", "1.5"),
    "size_1.2": ("--size-scale", "1.2"),
}
MODELS = ("photometry", "images")
DEFAULT, PAPER = "tinsley", "yunus2025"
TARGETS = {"delta_log_p_positive": 0.75, "divergence_higher": 0.9}
BOOTSTRAPS = 200
_SEED = 5


class Asked(NamedTuple):
    """What a model says of galaxies.

    Attributes:
        draws: [n, draw, property].
        log_p: Density at the truth, properties in units of the prior's standard deviation, [n].
        divergence: From the prior, nats, and its error, [n, 2].
        ranks: Of the truths in each property, and of their distance from a random galaxy, each [n].
    """

    draws: np.ndarray
    log_p: np.ndarray
    divergence: np.ndarray
    ranks: dict[str, np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--galaxies", type=int, default=20_000)
    parser.add_argument("--pixels", type=int, default=64)
    parser.add_argument("--test", type=int, default=TEST)
    parser.add_argument("--config", choices=tuple(PROPERTY_CONFIGS), default=DEFAULT)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--work", type=Path, default=Path("runs/images"))
    parser.add_argument("--only-test", action="store_true", help="no images unlike the training's")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/images*.json")
    parser.add_argument("--figures", type=Path, help="default: docs/figures, and none with --out")
    options = parser.parse_args()
    work, seconds = make_folder(options.work), {}
    sets = simulate(options, work, seconds)
    models = {name: train(options, work, name, seconds) for name in MODELS}
    truth = {name: read_properties(folder / "galaxies.parquet", PROPERTIES)
             for name, folder in sets.items()}  # fmt: skip
    started = time.monotonic()
    found = {name: ask(loaded, sets["test"], truth) for name, loaded in models.items()}
    report: dict[str, Any] = {"machine": machine(), "settings": settings(options)}
    report["models"] = {n: about(models[n], found[n], truth["test"]) for n in MODELS}
    report["images_against_photometry"] = compared(found, truth["test"])
    report["shifted"] = {
        shift: judged(ask(models["images"], sets[shift], truth), truth["test"])
        for shift in shifts(options)
    }
    seconds["judge"] = time.monotonic() - started
    report["seconds"] = {name: round(value, 1) for name, value in seconds.items()}
    other = "" if options.config == DEFAULT else f"-{options.config}"
    write_json(options.out or HERE / "results" / f"images{other}.json", report)
    figures = options.figures or (None if other or options.out else FIGURES)
    if figures is not None:
        write_figures(figures, found, truth, sets["test"])
    console.print_json(data=report["images_against_photometry"])


def settings(options: argparse.Namespace) -> dict[str, Any]:
    names = ("config", "galaxies", "pixels", "test")
    names += ("steps", "batch") if options.config != PAPER else ()
    return {name: getattr(options, name) for name in names} | {"draws": DRAWS}


def shifts(options: argparse.Namespace) -> dict[str, tuple[str, ...]]:
    return {} if options.only_test else SHIFTS


# --- the commands that a user would give ---


def simulate(options: argparse.Namespace, work: Path, seconds: dict[str, float]) -> dict[str, Path]:
    """The training set, the test set, and the test set's galaxies otherwise imaged."""
    pixels = ["--pixels", str(options.pixels)]
    folders, started = {"training": work / "training"}, time.monotonic()
    command("simulate-images", "--number", str(options.galaxies), *pixels, "--seed", "0",
            "--out", str(folders["training"]))  # fmt: skip
    for name, shift in {"test": (), **shifts(options)}.items():
        folders[name] = work / name
        command("simulate-images", "--number", str(options.test), *pixels, "--seed", "1", *shift,
                "--out", str(folders[name]))  # fmt: skip
    seconds["simulate"] = time.monotonic() - started
    return folders


def train(
    options: argparse.Namespace, work: Path, name: str, seconds: dict[str, float]
) -> LoadedProperties:
    path, folder, started = work / f"{name}.tinsley", work / "training", time.monotonic()
    told = ["--photometry", "sdss"]
    told += ["--images", str(folder / "images.h5")] if name == "images" else []
    if not path.exists():
        told += ["--config", options.config]
        if options.config != PAPER:
            told += ["--steps", str(options.steps), "--batch", str(options.batch)]
        told += ["--run", str(work / f"run-{name}"), "--out", str(path)]
        table = str(folder / "galaxies.parquet")
        command("train", "properties", table, "--columns", ",".join(PROPERTIES), *told)
    seconds[f"train_{name}"] = time.monotonic() - started
    return load_properties(path)


# --- what they say ---


def ask(loaded: LoadedProperties, folder: Path, truth: dict[str, np.ndarray]) -> Asked:
    """Draws, densities, divergences and ranks of a set of galaxies."""
    survey = load_survey(loaded.spec.survey)
    table = open_galaxies(folder / "galaxies.parquet", survey)
    rows = next(table.chunks(table.n_rows))
    true, learnt = truth["test"], truth["training"]
    told = np.asarray(loaded.posterior.told(as_observation(rows)))
    source = open_images(str(folder / "images.h5")) if loaded.form else None
    parts = []
    for low in range(0, len(rows), BATCH):
        some = slice(low, low + BATCH)
        images = None
        if source is not None:
            images = jnp.asarray(load_images(source, rows.object_id[some], loaded.form).images)
        galaxies = Galaxies(jnp.asarray(told[some]), images)
        words = jnp.asarray(split_id(rows.object_id[some]))
        key = jax.random.key(_SEED)
        draws = draw_properties(loaded.posterior, galaxies, words, key, DRAWS)
        log_p = densities(loaded.posterior, galaxies, jnp.asarray(true[some], jnp.float32))
        parts.append((np.asarray(draws, float), np.asarray(log_p, float)))
    draws, log_p = (np.concatenate(of) for of in zip(*parts, strict=True))
    return answers(draws, log_p, true, learnt)


def answers(draws: np.ndarray, log_p: np.ndarray, true: np.ndarray, learnt: np.ndarray) -> Asked:
    """All of them, from draws [n, draw, property] and ln of the density at the truth, [n].

    Args:
        draws: Of each galaxy's properties.
        log_p: In the units of the properties.
        true: The test set's properties, [n, property].
        learnt: The training set's, [m, property]: the prior.
    """
    mean, std = learnt.mean(axis=0), learnt.std(axis=0)
    tree = cKDTree((learnt - mean) / std)
    divergence = np.array([kl_divergence((d - mean) / std, tree) for d in draws])
    return Asked(draws, log_p + np.log(std).sum(), divergence, ranks(draws, true, learnt, std))


@eqx.filter_jit
def densities(posterior: Any, galaxies: Galaxies, true: jax.Array) -> jax.Array:
    """ln of the density at the truth, [n]."""
    condition = jax.vmap(posterior.condition)(*galaxies)
    return jax.vmap(posterior.log_prob)(true, condition)


def ranks(
    draws: np.ndarray,
    true: np.ndarray,
    learnt: np.ndarray,
    std: np.ndarray,
    names: tuple[str, ...] = PROPERTIES,
) -> dict[str, np.ndarray]:
    """Shares of the draws below the truth; "joint": nearer than it to a random galaxy.

    Source:
        Lemos et al. (2023) for the joint coverage.
    """
    rng = np.random.default_rng(_SEED)
    jitter = rng.uniform(size=(len(true), len(names) + 1))
    below = (draws < true[:, None]).sum(axis=1)
    random = learnt[rng.integers(len(learnt), size=len(true))]
    away = np.linalg.norm((draws - random[:, None]) / std, axis=-1)
    true_away = np.linalg.norm((true - random) / std, axis=-1)
    below = np.column_stack([below, (away < true_away[:, None]).sum(axis=1)])
    share = (below + jitter) / (draws.shape[1] + 1)
    return dict(zip((*names, "joint"), share.T, strict=True))


# --- what is said of that ---


def about(loaded: LoadedProperties, asked: Asked, true: np.ndarray) -> dict[str, Any]:
    training = loaded.spec.training
    return {"training": {k: training[k] for k in ("best", "last")}} | judged(asked, true)


def judged(asked: Asked, true: np.ndarray) -> dict[str, Any]:
    """Errors, coverage, and the distances of the ranks from uniform."""
    tested = {name: uniformity(values) for name, values in asked.ranks.items()}
    one_property = {name: t["p"] for name, t in tested.items() if name != "joint"}
    means = asked.draws.mean(axis=1)
    return {
        "properties": judge_properties(PROPERTIES, true, asked.draws),
        "log_p": mean_and_error(asked.log_p),
        "divergence_nats": mean_and_error(asked.divergence[:, 0]),
        "divergence_error_of_one": float(np.median(asked.divergence[:, 1])),
        "pp_distance": {name: round(t["distance"], 4) for name, t in tested.items()},
        "rejected_at_1_percent": holm(one_property),
        "wasserstein_of_means": {
            name: stats.wasserstein_distance(means[:, i], true[:, i])
            for i, name in enumerate(PROPERTIES)
        },
    }


def mean_and_error(values: np.ndarray) -> dict[str, float]:
    return {
        "mean": float(values.mean()),
        "error": float(values.std() / np.sqrt(len(values))),
        "median": float(np.median(values)),
    }


def compared(found: dict[str, Asked], true: np.ndarray) -> dict[str, Any]:
    """Images and photometry against photometry alone, galaxy by galaxy."""
    one, other = found["images"], found["photometry"]
    gain, more = one.log_p - other.log_p, one.divergence[:, 0] - other.divergence[:, 0]
    closer = {}
    rng = np.random.default_rng(_SEED)
    for i, name in enumerate(PROPERTIES):
        difference = []
        for _ in range(BOOTSTRAPS):
            rows = rng.integers(len(true), size=len(true))
            each = [
                stats.wasserstein_distance(asked.draws[rows, :, i].mean(axis=1), true[rows, i])
                for asked in (one, other)
            ]
            difference.append(each[0] - each[1])
        closer[name] = {
            "difference": float(np.mean(difference)),
            "error": float(np.std(difference)),
        }
    shares = {"delta_log_p_positive": gain > 0, "divergence_higher": more > 0}
    return {
        "delta_log_p": mean_and_error(gain),
        "delta_divergence_nats": mean_and_error(more),
        "shares": {
            name: {"value": float(np.mean(is_so)), "target": TARGETS[name],
                   "met": bool(np.mean(is_so) >= TARGETS[name])}
            for name, is_so in shares.items()
        },
        "wasserstein_images_minus_photometry": closer,
    }  # fmt: skip


if __name__ == "__main__":
    main()
