"""Train a posterior that ships: src/tinsley/data/models/NAME.tinsley.

    python tools/make_model.py [--name sdss-v1|sdss-nebular-v1] [--run runs/NAME]

First the posterior at known redshift. Then, in two processes, its second leg, and beside it
p(redshift | photometry) and the density of the photometry, which know nothing of the posterior's
network. Checkpointed: killed and started again it goes on. Writes the histories of the trainings,
with their processor seconds, to benchmarks/results/training.json, or training-nebular.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tinsley.io.models import load_posterior, save_model

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = {
    "sdss-v1": ("", "training.json"),
    "sdss-nebular-v1": ("--nebular -3", "training-nebular.json"),
}
"""Options of the first training, beyond those of all, and where the histories go."""
FIRST = "train posterior --survey sdss --density coupling --steps 50000 --batch 1024 --seed 0"
FURTHER = "--steps 40000 --batch 1024 --seed 1"
REDSHIFT = "--steps 20000 --batch 1024 --seed 0"
SUPPORT = "--steps 16000 --batch 2048 --seed 0"


def main() -> None:
    """Train all four, join them, then write their histories."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", choices=tuple(SHIPPED), default="sdss-v1")
    parser.add_argument("--run", type=Path)
    options = parser.parse_args()
    name, (more, result) = options.name, SHIPPED[options.name]
    run = options.run or ROOT / "runs" / name
    run.mkdir(parents=True, exist_ok=True)
    first, further, redshift, support = (
        run / f"{leg}.tinsley" for leg in ("first", "further", "redshift", "support")
    )
    begin = f"{FIRST} {more}".strip()
    train(begin, name, first)
    with ThreadPoolExecutor() as pool:
        second = pool.submit(train, f"train posterior --from {first} {FURTHER}", name, further)
        train(f"train redshift {first} {REDSHIFT}", None, redshift)
        train(f"train support {redshift} {SUPPORT}", None, support)
        second.result()
    join(further, support, ROOT / "src" / "tinsley" / "data" / "models" / f"{name}.tinsley")
    later = {
        further: f"train posterior --from {first.name} {FURTHER}",
        redshift: f"train redshift {first.name} {REDSHIFT}",
        support: f"train support {redshift.name} {SUPPORT}",
    }
    told = {
        leg.stem: {"command": f"tinsley {c}", "history": history(leg)} for leg, c in later.items()
    }
    told = {"command": f"tinsley {begin}", "history": history(first), **told}
    (ROOT / "benchmarks" / "results" / result).write_text(json.dumps(told, indent=1))


def train(arguments: str, name: str | None, out: Path) -> None:
    """The command line of this very Python, with a folder of checkpoints beside the model."""
    named = () if name is None else ("--name", name)
    where = ("--run", str(out.with_suffix("")), "--out", str(out))
    program = "from tinsley.cli.main import run; run()"
    subprocess.run([sys.executable, "-c", program, *arguments.split(), *named, *where], check=True)


def join(posterior: Path, densities: Path, out: Path) -> None:
    """One model: the posterior of one file, the redshifts and the photometry of another."""
    one, other = load_posterior(posterior), load_posterior(densities)
    about = ("redshift_density", "redshift_training", "photometry_density", "photometry_training")
    spec = dataclasses.replace(one.spec, **{name: getattr(other.spec, name) for name in about})
    save_model(out, spec, other.networks._replace(flow=one.networks.flow))


def history(model: Path) -> list[dict[str, float]]:
    """The validations of a training."""
    return json.loads((model.with_suffix("") / "history.json").read_text())


if __name__ == "__main__":
    main()
