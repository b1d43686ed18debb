"""What does an image tell of each SPS parameter, beside photometry and redshift? In nats.

    python benchmarks/image_information.py [--galaxies 20000] [--work runs/image_information]

Simulates bulge + disc galaxies (`tinsley simulate-images`), trains posteriors of the parameters of
whole galaxies from ugriz photometry and redshift, and from gri images too (`tinsley train posterior
--table`, with and without `--images`), and asks both about 2,000 other galaxies.

- Joint gain: mean difference of ln q(truth), which the flows give exactly.
- Gain in one parameter: mean difference of the ln of its marginal density at the truth, by normal
  kernels over the draws (`tinsley.infer.information.log_marginal`), in the normal quantile of its
  range. What photometry says: the same against the distribution in the training set.
- Both flows are trained for `--steps`.
- Errors: bootstrap over the test galaxies. Another training would differ by more than that says.

If both posteriors were exact, a gain would be the mutual information of parameter and image, given
photometry and redshift. They are not, and ranks of the truths say how far from it (simulation-based
calibration). All steps go on where they were killed. Writes
benchmarks/results/image_information.json and docs/figures/images-information.png.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from matplotlib.figure import Figure

from commands import command
from images import densities, ranks
from machine import machine
from tinsley.catalog.batch import as_observation
from tinsley.catalog.lesson import sps_parameters
from tinsley.catalog.properties import draw_all
from tinsley.cli.console import console
from tinsley.infer.information import log_marginal
from tinsley.infer.properties import Galaxies, judge_properties
from tinsley.infer.property_targets import inside
from tinsley.infer.ranks import JOINT, holm, uniformity
from tinsley.io.images import load_images, open_images
from tinsley.io.models import build_model, build_tables
from tinsley.io.property_models import LoadedProperties, load_properties
from tinsley.io.property_tables import open_galaxies, read_properties
from tinsley.io.results import make_folder, write_json
from tinsley.io.surveys import load_survey
from tinsley.observe.photometry import photometry
from tinsley.parameters import ParamSpace, Simplex, whole_space
from tinsley.plot.style import BLUE, GREY, label, new_figure

HERE = Path(__file__).resolve().parent
MODELS = ("photometry", "images")
SPACE = whole_space()
BATCH = 50
BOOTSTRAPS = 1000
_EDGE = 1e-6
_SEED = 6


class Asked(NamedTuple):
    """What a model says of the test galaxies.

    Attributes:
        draws: [n, draw, parameter].
        log_p: ln of the joint density at the truth, [n].
        marginal: ln of the density of each parameter at the truth, [n, parameter].
        ranks: Of the truths by parameter, and their joint coverage, each [n].
    """

    draws: np.ndarray
    log_p: np.ndarray
    marginal: np.ndarray
    ranks: dict[str, np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--galaxies", type=int, default=20_000)
    parser.add_argument("--test", type=int, default=2000)
    parser.add_argument("--pixels", type=int, default=64, help="of the simulated images")
    parser.add_argument("--averaged", type=int, default=64, help="to so many pixels")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--work", type=Path, default=Path("runs/image_information"))
    parser.add_argument("--out", type=Path, default=HERE / "results" / "image_information.json")
    parser.add_argument("--figures", type=Path, default=HERE.parent / "docs" / "figures")
    options = parser.parse_args()
    work, started = make_folder(options.work), time.process_time()
    folders = simulate(options, work)
    models = {name: train(options, work, name) for name in MODELS}
    truth = {name: parameters(folder) for name, folder in folders.items()}
    found = {name: ask(models[name], folders["test"], truth, options.draws) for name in MODELS}
    kept = ("galaxies", "test", "pixels", "averaged", "steps", "batch", "draws")
    report: dict[str, Any] = {"machine": machine()}
    report["settings"] = {name: getattr(options, name) for name in kept}
    report |= gains(found, truth)
    report["models"] = {n: about(models[n], found[n], truth["test"]) for n in MODELS}
    report["whole_less_sum_mag"] = one_for_two(folders["test"])
    report["cpu_seconds"] = {
        **{f"train_{n}": models[n].spec.training["last"]["cpu_seconds"] for n in MODELS},
        "this_run": round(time.process_time() - started, 1),
    }
    write_json(options.out, report)
    gain_figure(report).savefig(options.figures / "images-information.png")
    console.print_json(data={k: report[k] for k in ("joint_gain_nats", "parameters")})


# --- the commands that a user would give ---


def simulate(options: argparse.Namespace, work: Path) -> dict[str, Path]:
    folders = {"training": work / "training", "test": work / "test"}
    sizes = {"training": options.galaxies, "test": options.test}
    for seed, (name, folder) in enumerate(folders.items()):
        if not (folder / "galaxies.parquet").exists():
            command("simulate-images", "--number", str(sizes[name]), "--pixels",
                    str(options.pixels), "--seed", str(seed), "--out", str(folder))  # fmt: skip
    return folders


def train(options: argparse.Namespace, work: Path, name: str) -> LoadedProperties:
    """A model of the parameters, from photometry and redshift, and images if `name` says so."""
    folder, path = work / "training", work / f"{name}.tinsley"
    if not path.exists():
        pictures = ("--images", str(folder / "images.h5"), "--pixels", str(options.averaged))
        command(
            "train", "posterior", "--table", str(folder / "galaxies.parquet"),
            "--steps", str(options.steps), "--batch", str(options.batch),
            *(pictures if name == "images" else ()),
            "--run", str(work / f"run-{name}"), "--out", str(path),
        )  # fmt: skip
    return load_properties(path)


# --- what they say ---


def parameters(folder: Path) -> np.ndarray:
    """True parameters as they are learnt, [n, parameter]."""
    path = folder / "galaxies.parquet"
    table = open_galaxies(path, load_survey("sdss"), redshift=True)
    names = next(table.chunks(table.n_rows)).object_id
    values = sps_parameters(SPACE, read_properties(path, SPACE.names), names)
    assert inside(SPACE, values).all()
    return values


def ask(loaded: LoadedProperties, folder: Path, truth: dict[str, np.ndarray], number: int) -> Asked:
    table = open_galaxies(folder / "galaxies.parquet", load_survey("sdss"), redshift=True)
    rows = next(table.chunks(table.n_rows))
    told = np.asarray(loaded.posterior.told(as_observation(rows)))
    images = None
    if loaded.form is not None:
        images = load_images(open_images(folder / "images.h5"), rows.object_id, loaded.form).images
    key = jax.random.key(_SEED)
    draws = draw_all(loaded.posterior, (told, images), rows.object_id, number, key).astype(float)
    true, learnt = truth["test"], truth["training"]
    log_p = []
    for low in range(0, len(rows), BATCH):
        some = slice(low, low + BATCH)
        shown = None if images is None else jnp.asarray(images[some])
        galaxies = Galaxies(jnp.asarray(told[some]), shown)
        log_p.append(densities(loaded.posterior, galaxies, jnp.asarray(true[some], jnp.float32)))
    inner = [coordinates(SPACE, values) for values in (draws, true, learnt)]
    marginal = [
        log_marginal(inner[0][..., i], inner[1][:, i], inner[2][:, i])
        for i in range(len(SPACE.names))
    ]
    ranked = ranks(*inner, inner[2].std(axis=0), SPACE.names)
    return Asked(draws, np.concatenate(log_p).astype(float), np.stack(marginal, axis=1), ranked)


def coordinates(space: ParamSpace, values: np.ndarray) -> np.ndarray:
    """Each parameter as the normal quantile of its place in its range; shares one by one."""
    columns = []
    for prior in space.priors:
        theta = {n: jnp.asarray(values[..., space.names.index(n)], float) for n in prior.names}
        shares = isinstance(prior, Simplex)
        unit = jnp.stack([*theta.values()], -1) if shares else prior.to_unit(theta, jnp.inf)
        columns.append(np.asarray(ndtri(jnp.clip(unit, _EDGE, 1 - _EDGE)), float))
    return np.concatenate(columns, axis=-1)


def one_for_two(folder: Path) -> dict[str, dict[str, float]]:
    """How far the photometry of the whole's parameters is from that of the components, mag."""
    survey, path = load_survey("sdss"), folder / "galaxies.parquet"
    tables, _ = build_tables(survey.filters, (0.02, 0.15), build_model())
    redshift = read_properties(path, ["redshift"])[:, 0]

    def flux(end: str) -> np.ndarray:
        common = ("n_dust",) if end else ()
        named = [n if n in common else n + end for n in SPACE.names]
        columns = dict(zip(SPACE.names, read_properties(path, named).T, strict=True))
        theta = {
            n: jnp.asarray(v, jnp.float32) for n, v in (columns | {"redshift": redshift}).items()
        }
        return np.asarray(photometry(tables, theta), float)

    mag = -2.5 * np.log10(flux("") / (flux("_disc") + flux("_bulge")))
    return {
        band: {"median": round(float(np.median(mag[:, b])), 4),
               "q16": round(float(np.quantile(mag[:, b], 0.16)), 4),
               "q84": round(float(np.quantile(mag[:, b], 0.84)), 4)}
        for b, band in enumerate(survey.bands)
    }  # fmt: skip


# --- what is said of that ---


def gains(found: dict[str, Asked], truth: dict[str, np.ndarray]) -> dict[str, Any]:
    """Joint gain and gains by parameter, each with its bootstrap error."""
    inner = {name: coordinates(SPACE, values) for name, values in truth.items()}
    learnt, true = inner["training"], inner["test"]
    some = np.random.default_rng(_SEED).choice(len(learnt), found["images"].draws.shape[1])
    before = np.stack(
        [log_marginal(np.broadcast_to(learnt[some, i], (len(true), len(some))), true[:, i],
                      learnt[:, i]) for i in range(len(SPACE.names))], axis=1
    )  # fmt: skip
    one, other = found["photometry"], found["images"]
    gain, said = other.marginal - one.marginal, one.marginal - before
    each = {
        name: {
            "photometry_nats": estimate(said[:, i]),
            "gain_nats": estimate(gain[:, i]),
            "share_gaining": round(float(np.mean(gain[:, i] > 0)), 3),
        }
        for i, name in enumerate(SPACE.names)
    }
    joint = other.log_p - one.log_p
    return {
        "joint_gain_nats": estimate(joint) | {"share_gaining": round(float(np.mean(joint > 0)), 3)},
        "parameters": each,
    }


def estimate(values: np.ndarray) -> dict[str, float]:
    """Mean over galaxies, and its bootstrap error."""
    rng = np.random.default_rng(_SEED)
    means = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(BOOTSTRAPS)]
    return {"mean": round(float(values.mean()), 4), "error": round(float(np.std(means)), 4)}


def about(loaded: LoadedProperties, asked: Asked, true: np.ndarray) -> dict[str, Any]:
    """Training, errors, coverage, and how far the ranks are from uniform."""
    tested = {name: uniformity(values) for name, values in asked.ranks.items()}
    return {
        "training": {k: loaded.spec.training[k] for k in ("best", "last")},
        "log_p": estimate(asked.log_p),
        "properties": judge_properties(SPACE.names, true, asked.draws),
        "pp_distance": {name: round(t["distance"], 4) for name, t in tested.items()},
        "rank_counts": {name: t["counts"] for name, t in tested.items()},
        "rejected_at_1_percent": holm({n: t["p"] for n, t in tested.items() if n != JOINT}),
    }


def gain_figure(report: dict[str, Any]) -> Figure:
    """What photometry says of each parameter, and what the image adds."""
    figure, axes = new_figure(1, 2, 10, 4.5)
    names = list(report["parameters"])
    place = np.arange(len(names))[::-1]
    said, gain = (
        {what: np.array([report["parameters"][n][kind][what] for n in names])
         for what in ("mean", "error")}
        for kind in ("photometry_nats", "gain_nats")
    )  # fmt: skip
    left, right = axes[0]
    left.barh(place, said["mean"], color=GREY, alpha=0.5, label="photometry and redshift")
    left.barh(place, gain["mean"], left=said["mean"], color=BLUE, label="image")
    left.set(yticks=place, yticklabels=[label(n) for n in names],
             xlabel="information on the parameter, nats")  # fmt: skip
    left.legend(frameon=False, fontsize=8)
    right.barh(place, gain["mean"], xerr=gain["error"], color=BLUE, alpha=0.7)
    right.axvline(0, color=GREY, lw=0.7)
    joint = report["joint_gain_nats"]
    right.set(yticks=place, yticklabels=[], xlabel="gain by the image, nats",
              title=f"jointly {joint['mean']:.2f} ± {joint['error']:.2f} nats")  # fmt: skip
    return figure


if __name__ == "__main__":
    main()
