"""What refining does for real galaxies, and what it costs.

    python benchmarks/refine.py [--model sdss] [--number 10000] [--draws 1000]
    python benchmarks/refine.py --chains [--work runs/refine-chains]

Runs `tinsley infer` on the embedded catalogue with `--refine never` and with `--refine auto`, each
in a process of its own (start, compilation, reading and writing included). Says how many galaxies
end with an effective sample size of 100, by which method, and of each that can not be trusted: why.
Evidences that a refined galaxy had before are compared with what it has now. With `--chains` the
galaxies that the result file says are left are inferred once more, with `--refine chains`, from
where a killed run ended. Writes benchmarks/results/refine.json; some six minutes on two cores, and
minutes of a core for each galaxy left.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from machine import machine
from tinsley.infer.importance import ESS_GOOD, KHAT_GOOD, RHAT_GOOD, is_weak
from tinsley.io.catalogs import load_sample_catalog_path
from tinsley.io.models import load_posterior
from tinsley.io.results import make_folder, write_json, write_parquet
from tinsley.io.runs import load_galaxies
from tinsley.status import Method

RESULT = Path(__file__).parent / "results" / "refine.json"
FAR = 5
"""Errors that evidences differ by in no galaxy of ten thousand, if both are right."""
QUANTILES = (0.0, 0.16, 0.5, 0.84)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="sdss")
    parser.add_argument("--number", type=int, help="only the first galaxies, to try it out")
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--chains", action="store_true", help="long chains for what is left")
    parser.add_argument("--work", type=Path, default=Path("runs/refine-chains"))
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    result = with_chains(options) if options.chains else refined(options)
    write_json(options.out, result)
    print(json.dumps({k: v for k, v in result.items() if k != "not_reached"}, indent=1))


def refined(options: argparse.Namespace) -> dict[str, Any]:
    """Never against auto."""
    before = machine()
    with tempfile.TemporaryDirectory() as folder:
        catalog = Path(load_sample_catalog_path())
        if options.number is not None:
            first = np.arange(pq.read_metadata(catalog).num_rows) < options.number
            catalog = rows_of(catalog, first, Path(folder) / "catalog.parquet")
        runs, seconds = {}, {}
        for refine in ("never", "auto"):
            out = Path(folder) / refine
            seconds[refine] = infer(catalog, out, options.model, options.draws, refine)
            runs[refine] = load_galaxies(out)
        manifest = json.loads((out / "manifest.json").read_text())
    never, auto = runs["never"], runs["auto"]
    return {
        "model": manifest["model"],
        "model_sha256": manifest["model_sha256"],
        "draws": options.draws,
        "machine": before,
        "seconds": {name: round(spent, 1) for name, spent in seconds.items()},
        "never": reached(never),
        "auto": reached(auto),
        "by_method": by_method(auto),
        "evidence": evidence_moved(never, auto),
        "not_reached": not_reached(auto),
    }


def with_chains(options: argparse.Namespace) -> dict[str, Any]:
    """The result file, with what long chains make of the galaxies that were not reached."""
    result = json.loads(options.out.read_text())
    if load_posterior(options.model).sha256 != result["model_sha256"]:
        raise SystemExit(f"{options.out} is of another model: run without --chains first.")
    catalog = Path(load_sample_catalog_path())
    left = {row["object_id"] for row in result["not_reached"]}
    object_id = pq.read_table(catalog, columns=["object_id"])["object_id"].to_numpy().astype(str)
    make_folder(options.work)
    catalog = rows_of(catalog, np.isin(object_id, list(left)), options.work / "left.parquet")
    out = options.work / "run"
    infer(catalog, out, options.model, result["draws"], "chains", "--chunk-size", 2)
    found = load_galaxies(out)
    chains = {"galaxies": len(left), "by_method": by_method(found)}
    return result | {"chains": chains | {"not_reached": not_reached(found)}}


def rows_of(catalog: Path, wanted: np.ndarray, path: Path) -> Path:
    """A catalogue of some of its rows."""
    table = pq.read_table(catalog)
    columns = {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}
    write_parquet(path, {name: values[wanted] for name, values in columns.items()}, {})
    return path


def infer(catalog: Path, out: Path, model: str, draws: int, refine: str, *more: Any) -> float:
    """Seconds of one run."""
    words = ["infer", catalog, "--out", out, "--model", model, "--draws", draws, "--refine", refine]
    words += more
    started = time.monotonic()
    command = [sys.executable, "-c", "from tinsley.cli.main import run; run()"]
    subprocess.run([*command, *map(str, words)], check=True)
    return time.monotonic() - started


def reached(found: dict[str, Any]) -> dict[str, Any]:
    """Shares of the usable galaxies that can be trusted."""
    usable = found["method"] != ""
    ess = found["ess"][usable]
    words, counts = np.unique(found["status"], return_counts=True)
    return {
        "galaxies": int(usable.sum()),
        "share_ess_100": float(np.mean(ess >= ESS_GOOD)),
        "share_trusted": float(np.mean(~weak(found)[usable])),
        "statuses": {str(w): int(n) for w, n in zip(words, counts, strict=True)},
    }


def weak(found: dict[str, Any]) -> np.ndarray:
    """Which rows are not to be trusted, by k-hat or, for chains, by R-hat."""
    return is_weak(found["ess"], found["khat"], found["rhat"])


def by_method(found: dict[str, Any]) -> dict[str, Any]:
    return {str(method): of_method(found, method) for method in Method}


def of_method(found: dict[str, Any], method: Method) -> dict[str, Any]:
    """Effective sample sizes of the galaxies that ended with one method."""
    rows = found["method"] == str(method)
    ess = np.nan_to_num(found["ess"][rows])
    if not len(ess):
        return {"galaxies": 0}
    name, bad = ("khat_above_0.7", ~(found["khat"][rows] <= KHAT_GOOD))
    if method == Method.HMC:
        name, bad = "rhat_1.01_or_more", ~(found["rhat"][rows] < RHAT_GOOD)
    return {
        "galaxies": int(rows.sum()),
        "ess_quantiles": {f"{q:g}": round(float(np.quantile(ess, q)), 1) for q in QUANTILES},
        "ess_below_100": int(np.sum(ess < ESS_GOOD)),
        name: int(np.sum(bad)),
        "best_chi2_median": round(float(np.nanmedian(found["best_chi2"][rows])), 2),
    }


def evidence_moved(never: dict[str, Any], auto: dict[str, Any]) -> dict[str, Any]:
    """Change of ln evidence of the refined galaxies in units of its error, where both are good.

    Each is unbiased with a relative error of at most 1 / sqrt(ESS), so that the median should be
    near 0 and the spread below 1. One that moves much further had first draws which looked good and
    were not; how many of those a test of the support had flagged.
    """
    rows = np.isin(auto["method"], ["weighted", "smc"])
    rows &= ~weak(never) & ~weak(auto)
    error = np.sqrt(1 / never["ess"][rows] + 1 / auto["ess"][rows])
    moved = (auto["log_evidence"] - never["log_evidence"])[rows] / error
    if not len(moved):
        return {"galaxies": 0}
    low, median, high = np.quantile(moved, (0.16, 0.5, 0.84))
    far = np.abs(moved) > FAR
    flagged = np.char.startswith(never["status"][rows].astype(str), "unusual")
    return {
        "galaxies": len(moved),
        "median_in_errors": round(float(median), 3),
        "half_of_16_to_84_in_errors": round(float(high - low) / 2, 3),
        f"beyond_{FAR}_errors": int(far.sum()),
        "flagged_of_these": int((far & flagged).sum()),
    }


def not_reached(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Each galaxy that ended untrusted, with what it says about itself."""
    rows = np.flatnonzero((found["method"] != "") & weak(found))
    labels = ("ess", "khat", "rhat", "log_evidence", "best_chi2", "redshift")
    return [
        {
            "object_id": str(found["object_id"][i]),
            "status": str(found["status"][i]),
            "method": str(found["method"][i]),
            **{label: rounded(found[label][i]) for label in labels},
        }
        for i in rows
    ]


def rounded(value: float) -> float | None:
    """To four decimals; None where there is no number, which JSON has not."""
    return round(float(value), 4) if np.isfinite(value) else None


if __name__ == "__main__":
    main()
