"""What nebular emission does to posteriors of real galaxies at known redshift.

    python benchmarks/nebular_posteriors.py [--number 10000]

`tinsley infer` on the embedded SDSS galaxies with both shipped models, stars alone (`sdss`) and
with gas (`sdss-nebular`), first draws only. Of the galaxies that both give a posterior, blue or red
as observed: which statuses and effective draws each has; by how much the logarithm of the evidence
is higher with gas, where it can be trusted in both (ESS of 100 or more); and by how much posterior
means of mass, star formation, age, metallicity and dust move.

Writes benchmarks/results/nebular_posteriors.json; five minutes.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

from machine import machine
from photoz import is_blue, sample
from tinsley.catalog.run import RunSettings, run_catalog
from tinsley.io.catalogs import load_usual_error, open_catalog
from tinsley.io.models import load_posterior
from tinsley.io.results import write_json, write_parquet
from tinsley.io.runs import load_galaxies
from tinsley.io.surveys import load_survey
from tinsley.status import Refine

RESULT = Path(__file__).parent / "results" / "nebular_posteriors.json"
MODELS = ("sdss", "sdss-nebular")
PROPERTIES = (
    "log10_mstar_surviving_msun",
    "log10_sfr_100myr_msun_yr",
    "log10_ssfr_100myr_yr",
    "age_mw_gyr",
    "log10_z_zsun",
    "tau_ism",
)
LEAST_ESS = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=10_000)
    number = parser.parse_args().number
    rows = sample(number)
    with tempfile.TemporaryDirectory() as folder:
        write_parquet(Path(folder) / "rows.parquet", rows, {})
        stars, gas = (infer(model, Path(folder)) for model in MODELS)
    both = np.isfinite(stars["ess"]) & np.isfinite(gas["ess"])
    blue = is_blue(rows)
    report = {"machine": machine(), "galaxies": number}
    for name, kept in {"all": both, "blue": both & blue, "red": both & ~blue}.items():
        report[name] = compare(*({k: v[kept] for k, v in one.items()} for one in (stars, gas)))
    write_json(RESULT, report)
    print(json.dumps(report, indent=1))


def infer(model: str, folder: Path) -> dict[str, np.ndarray]:
    """The table of a run on the folder's rows."""
    survey, out = load_survey("sdss"), folder / model
    catalog = open_catalog(folder / "rows.parquet", survey)
    settings = RunSettings(refine=Refine.NEVER)
    run_catalog(load_posterior(model), catalog, load_usual_error(survey), out, settings)
    return load_galaxies(out)


def compare(stars: dict[str, np.ndarray], gas: dict[str, np.ndarray]) -> dict[str, object]:
    """Of the same galaxies, with gas beside stars alone."""
    trusted = (stars["ess"] >= LEAST_ESS) & (gas["ess"] >= LEAST_ESS)
    more = (gas["log_evidence"] - stars["log_evidence"])[trusted].astype(float)
    moved = {name: (gas[f"{name}_mean"] - stars[f"{name}_mean"])[trusted] for name in PROPERTIES}
    width = {name: stars[f"{name}_std"][trusted] for name in PROPERTIES}
    return {
        "galaxies": len(trusted),
        "statuses": [Counter(sorted(one["status"].tolist())) for one in (stars, gas)],
        "ess_median": [float(np.median(one["ess"])) for one in (stars, gas)],
        "share_ess_100": [float(np.mean(one["ess"] >= LEAST_ESS)) for one in (stars, gas)],
        "trusted": int(trusted.sum()),
        "ln_evidence_gain": {
            "mean": float(more.mean()),
            "mean_error": float(more.std() / np.sqrt(len(more))),
            "median": float(np.median(more)),
            "share_above_0": float(np.mean(more > 0)),
        },
        "moved": {
            name: {
                "median": float(np.median(by)),
                "q16": float(np.quantile(by, 0.16)),
                "q84": float(np.quantile(by, 0.84)),
                "median_of_posterior_widths": float(np.median(by / width[name])),
            }
            for name, by in moved.items()
        },
    }


if __name__ == "__main__":
    main()
