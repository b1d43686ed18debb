"""The demo, measured: point by point what `make demo` prints.

    python benchmarks/demo.py [--out FOLDER]

Runs `tinsley demo` in a process of its own on the embedded 10,000 galaxies with 500 draws each, in
a new folder (or one given, to look at its figures afterwards), and stores its summary: seconds of
inference (compilation and reading included), galaxies/s, statuses, effective draws / draws, and the
best fits' chi^2 by band. Writes benchmarks/results/demo.json; about five minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import machine
from tinsley.io.results import write_json

RESULT = Path(__file__).parent / "results" / "demo.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="a new folder to keep")
    parser.add_argument("--number", type=int, help="only the first galaxies, to try it out")
    parser.add_argument("--model", help="another model, to try it out")
    args = parser.parse_args()
    before = machine()
    with tempfile.TemporaryDirectory() as folder:
        out = args.out or Path(folder) / "demo"
        if (out / "run.json").exists():
            parser.error(f"{out} holds a run; a measurement needs a new folder")
        command = [sys.executable, "-c", "from tinsley.cli.main import run; run()", "demo"]
        for option in ("number", "model"):
            value = getattr(args, option)
            command += [] if value is None else [f"--{option}", str(value)]
        started = time.monotonic()
        subprocess.run([*command, "--out", str(out)], check=True)
        seconds = time.monotonic() - started
        summary = json.loads((out / "demo.json").read_text())
        size_mb = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 1e6
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    measured = {
        "command_seconds": round(seconds, 1),
        "command_cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_memory_gb": round(used.ru_maxrss / 1e6, 2),
        "output_mb": round(size_mb, 1),
        "machine": before,
    }
    write_json(RESULT, summary | measured)
    print(json.dumps(summary | measured, indent=1))


if __name__ == "__main__":
    main()
