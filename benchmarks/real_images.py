"""What 400 real galaxies can teach: metallicities from SDSS cutouts, with and without simulations.

    python benchmarks/real_images.py DIR [--pixels 32] [--work runs/real_images]

DIR holds `train/` and `test/` with 400 and 100 cutouts `<objID>.jpg` of 128 x 128 pixels and
`catalogs/train.csv`, `test.csv` with `objID` and `oh_p50` (12 + log O/H, MPA-JHU): the data of
github.com/jwuphysics/convnet-demo. Posteriors of oh_p50 from the cutout alone are trained on the
400: by convolutions from random weights; by those that have learnt the five properties of simulated
galaxies (`tinsley simulate-images`, made 8-bit colours by a stretch after Lupton et al. 2004, which
is not SkyServer's to the last detail); by the default, which measures. Several seeds of each.
Judged on the 100: error of the posterior means against the sample's own spread, bias, coverage.

All steps go on where they were killed. Writes benchmarks/results/real_images.json.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as pq

from commands import command
from machine import machine
from tinsley.cli.console import console
from tinsley.io.image_sets import load_image_set
from tinsley.io.property_tables import read_properties
from tinsley.io.results import make_folder, write_json
from tinsley.observe.gallery import PROPERTIES
from tinsley.observe.images import SDSS_SKY_NMGY
from tinsley.plot.cutouts import colour_image

OUT = Path(__file__).resolve().parent / "results" / "real_images.json"
SEEDS = (0, 1, 2)
LEARNS = "convolutions"
"""The configuration whose encoder has weights."""
PUBLISHED_RMSE_DEX = 0.085
"""Wu & Boada (2019), a convolutional network on 10^5 galaxies."""
BOOTSTRAPS = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, metavar="DIR")
    parser.add_argument("--pixels", type=int, default=32)
    parser.add_argument("--simulated", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=600, help="on the 400")
    parser.add_argument("--before", type=int, default=1500, help="on the simulated ones")
    parser.add_argument("--work", type=Path, default=Path("runs/real_images"))
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    work = make_folder(options.work)
    encoder = learn_from_simulations(options, work)
    truth = read_properties(options.data / "catalogs" / "test.csv", ["oh_p50"])[:, 0]
    report: dict[str, Any] = {"machine": machine(), "published_rmse_dex": PUBLISHED_RMSE_DEX}
    report |= {n: getattr(options, n) for n in ("pixels", "simulated", "steps", "before")}
    report["test"] = {"galaxies": len(truth), "spread_dex": float(truth.std())}
    learns = ("--config", LEARNS)
    ways = {"from_scratch": learns, "from_simulations": (*learns, "--from", str(encoder))}
    for name, how in (ways | {"measured": ()}).items():
        runs = [one_run(options, work / f"{name}-{seed}", seed, how) for seed in SEEDS]
        report[name] = [judged(found, truth) for found in runs]
    write_json(options.out, report)
    console.print_json(data=report)


def learn_from_simulations(options: argparse.Namespace, work: Path) -> Path:
    """A model of the properties of simulated galaxies, from their colours as a viewer sees them."""
    folder, colours = work / "simulated", work / "colours.h5"
    path = work / "simulated.tinsley"
    command("simulate-images", "--number", str(options.simulated), "--pixels", "128",
            "--seed", "3", "--out", str(folder))  # fmt: skip
    if not colours.exists():
        write_colours(folder, colours)
    if not path.exists():
        command("train", "properties", str(folder / "galaxies.parquet"), "--columns",
                ",".join(PROPERTIES), "--images", str(colours), "--pixels", str(options.pixels),
                "--steps", str(options.before), "--batch", "128", "--config", LEARNS,
                "--run", str(work / "run-simulated"), "--out", str(path))  # fmt: skip
    return path


def write_colours(folder: Path, path: Path) -> None:
    """8-bit colours of a simulated set."""
    fluxes = np.moveaxis(load_image_set(folder), -1, 1)
    noise = SDSS_SKY_NMGY["r"]
    part = path.with_suffix(".part")
    with h5py.File(part, "w") as file:
        file["object_id"] = np.arange(len(fluxes))
        file["images"] = np.stack([to_bytes(colour_image(f, noise)) for f in fluxes])
    part.rename(path)


def to_bytes(image: np.ndarray) -> np.ndarray:
    return np.round(255 * image).astype(np.uint8)


def one_run(
    options: argparse.Namespace, folder: Path, seed: int, how: tuple[str, ...]
) -> dict[str, list]:
    """The table of the 100, by a model trained on the 400."""
    make_folder(folder)
    path, data = folder / "oh.tinsley", options.data
    if not path.exists():
        command("train", "properties", str(data / "catalogs" / "train.csv"), "--columns", "oh_p50",
                "--images", str(data / "train"), "--pixels", str(options.pixels), "--steps",
                str(options.steps), "--batch", "64", "--seed", str(seed), *how,
                "--run", str(folder / "run"), "--out", str(path))  # fmt: skip
    command("infer", str(data / "catalogs" / "test.csv"), "--model", str(path), "--images",
            str(data / "test"), "--out", str(folder / "test"))  # fmt: skip
    return pq.read_table(folder / "test" / "galaxies.parquet").to_pydict()


def judged(found: dict[str, list], truth: np.ndarray) -> dict[str, Any]:
    """Errors of the posterior means, and how often the truth is inside; bootstrap errors."""
    names = ("mean", "std", "q16", "q84")
    mean, std, low, high = (np.array(found[f"oh_p50_{s}"], float) for s in names)
    error, inside = mean - truth, (low < truth) & (truth < high)
    rng = np.random.default_rng(0)
    rows = rng.integers(len(truth), size=(BOOTSTRAPS, len(truth)))
    rmse = np.sqrt(np.mean(error[rows] ** 2, axis=1))
    return {
        "statuses": {word: found["status"].count(word) for word in set(found["status"])},
        "rmse_dex": float(np.sqrt(np.mean(error**2))),
        "rmse_error_dex": float(rmse.std()),
        "bias_dex": float(error.mean()),
        "mean_std_dex": float(std.mean()),
        "coverage_68": float(inside.mean()),
    }


if __name__ == "__main__":
    main()
