"""Train the posterior that ships: src/tinsley/data/models/sdss-v1.tinsley.

    python tools/make_model.py [--run runs/sdss-v1]

First the posterior at known redshift, in two legs, then p(redshift | photometry), then the density
of the photometry; the last two know nothing of the posterior's network. Checkpointed: killed and
started again it goes on. Writes the histories of the trainings, with their processor seconds, to
benchmarks/results/training.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAME = "sdss-v1"


def main() -> None:
    """Train all three, then write their histories."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=ROOT / "runs" / NAME)
    run = parser.parse_args().run
    run.mkdir(parents=True, exist_ok=True)
    first, half = run / f"{NAME}-first.tinsley", run / f"{NAME}.tinsley"
    out = ROOT / "src" / "tinsley" / "data" / "models" / f"{NAME}.tinsley"
    posterior = (
        "train posterior --survey sdss --density coupling --steps 50000 --batch 1024 --seed 0"
    )
    further = "--steps 40000 --batch 1024 --seed 1"
    named = ("--name", NAME, "--run")
    tinsley(*posterior.split(), *named, str(run / "posterior"), "--out", str(first))
    begun = ("train", "posterior", "--from", str(first), *further.split())
    tinsley(*begun, *named, str(run / "further"), "--out", str(half))
    redshift = "--steps 20000 --batch 1024 --seed 0"
    taught = run / f"{NAME}-redshift.tinsley"
    options = [*redshift.split(), "--run", str(run / "redshift"), "--out", str(taught)]
    tinsley("train", "redshift", str(half), *options)
    support = "--steps 16000 --batch 2048 --seed 0"
    options = [*support.split(), "--run", str(run / "support"), "--out", str(out)]
    tinsley("train", "support", str(taught), *options)
    result = {
        "command": f"tinsley {posterior}",
        "history": history(run / "posterior"),
        "further": {
            "command": f"tinsley train posterior --from {first.name} {further}",
            "history": history(run / "further"),
        },
        "redshift": {
            "command": f"tinsley train redshift {half.name} {redshift}",
            "history": history(run / "redshift"),
        },
        "support": {
            "command": f"tinsley train support {taught.name} {support}",
            "history": history(run / "support"),
        },
    }
    (ROOT / "benchmarks" / "results" / "training.json").write_text(json.dumps(result, indent=1))


def tinsley(*arguments: str) -> None:
    """The command line of this very Python."""
    program = "from tinsley.cli.main import run; run()"
    subprocess.run([sys.executable, "-c", program, *arguments], check=True)


def history(run: Path) -> list[dict[str, float]]:
    """The validations of a training."""
    return json.loads((run / "history.json").read_text())


if __name__ == "__main__":
    main()
