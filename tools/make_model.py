"""Train the posterior that ships: src/tinsley/data/models/sdss-v1.tinsley.

    python tools/make_model.py [--run runs/sdss-v1]

Checkpointed: killed and started again it goes on. Writes the history of the training to
benchmarks/results/training.json. About an hour on two cores.
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
    """Train, then write the history."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=ROOT / "runs" / NAME)
    run = parser.parse_args().run
    out = ROOT / "src" / "tinsley" / "data" / "models" / f"{NAME}.tinsley"
    command = "train posterior --survey sdss --density coupling --steps 50000 --batch 1024 --seed 0"
    program = "from tinsley.cli.main import run; run()"
    arguments = [*command.split(), "--name", NAME, "--run", str(run), "--out", str(out)]
    subprocess.run([sys.executable, "-c", program, *arguments], check=True)
    history = json.loads((run / "history.json").read_text())
    result = {"command": f"tinsley {command}", "cores": 2, "history": history}
    (ROOT / "benchmarks" / "results" / "training.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
