"""The population behind real galaxies, redshifts hidden, against what their spectra say.

    python benchmarks/population_sdss.py [--members 4] [--steps 1200] [--batch 1536] [--runs runs]
    python benchmarks/population_sdss.py --distance characteristic --prior posteriors --nebular -3
        --name NAME

`tinsley population` on the embedded SDSS galaxies with `--select "r < 17.77"`; their redshifts are
not read. With `--prior posteriors` it is informed by the posteriors of `tinsley infer --redshift
free` for the same galaxies, whose redshifts are not read there either. Then, for the population as
observed: mean and Wasserstein-1 distance of redshift from the spectroscopic ones of the same
galaxies, and of the masses from those that `tinsley infer` gives with the redshifts known (draws of
all galaxies together; these are blurred by their own errors, of 0.1 dex or so, as the population is
not). With `--nebular` the model of both runs has nebular emission too. Again without the members
that the command says to leave out. Goes on where it was killed.

Writes benchmarks/results/NAME.json (population-sdss) and a figure beside the run.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from commands import command
from machine import machine
from population_mock import wasserstein_1
from tinsley.catalog.run import RunSettings, run_catalog
from tinsley.cli.population import BADLY_MATCHED
from tinsley.io.catalogs import Catalog, load_sample_catalog_path, open_catalog
from tinsley.io.models import load_posterior
from tinsley.io.populations import load_population, read_whole_rows
from tinsley.io.results import new_file, write_json
from tinsley.io.runs import iterate_draws
from tinsley.io.surveys import load_survey
from tinsley.observe.survey import Photometry
from tinsley.population.summaries import MEMBER, SELECTED, density, over_members
from tinsley.status import Refine

RESULTS = Path(__file__).parent / "results"
CUT = "r < 17.77"
DRAWS = 200
EDGES = {"redshift": np.linspace(0.0, 0.3, 61), "log10_mstar_msun": np.linspace(8.0, 12.5, 61)}
POSTERIORS = "posteriors"
MODELS = {None: "sdss", -3.0: "sdss-nebular"}
"""The shipped posterior of the population's physics, by log10 U."""
TARGETS = {"mean_redshift": 0.01, "redshift_wasserstein_1": 0.015}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--batch", type=int, default=1536)
    parser.add_argument("--prior", default="uniform", help=f"or {POSTERIORS}, as above")
    parser.add_argument("--distance", default="sliced")
    parser.add_argument("--nebular", type=float, choices=(-3.0,), help="stars alone without")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--name", default="population-sdss", help="of the result")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    args = parser.parse_args()
    out = args.runs / args.name
    fit(args, out)
    fitted = load_population(out)
    catalog = open_catalog(load_sample_catalog_path(), load_survey("sdss"))
    rows, _ = read_whole_rows(catalog, fitted.selection)
    mass = masses(catalog, rows, args.runs, MODELS[args.nebular])
    truth = {"redshift": rows.redshift, "log10_mstar_msun": mass}
    report = {
        "machine": machine(),
        "galaxies": fitted.manifest["rows"],
        "members": args.members,
        "config": fitted.manifest["config"],
        "prior": args.prior,
        "nebular": args.nebular,
        "seed": args.seed,
        "photometry_ratio": [m["photometry_ratio"] for m in fitted.manifest["members"]],
        "catalog_ratio": [m["catalog_ratio"] for m in fitted.manifest["members"]],
        "kl_nats": [m["best"]["kl"] for m in fitted.manifest["members"]],
        "unreached_share": fitted.manifest["unreached_share"],
        "targets": TARGETS,
    }
    report |= {name: compare(fitted.columns, name, true) for name, true in truth.items()}
    good = [m["member"] for m in fitted.manifest["members"] if m["catalog_ratio"] <= BADLY_MATCHED]
    if len(good) > args.members / 2:
        kept = np.isin(fitted.columns[MEMBER], good)
        heeded = {name: values[kept] for name, values in fitted.columns.items()}
        report["advice_heeded"] = {n: compare(heeded, n, true) for n, true in truth.items()}
    write_json(RESULTS / f"{args.name}.json", report)
    draw(fitted.columns, truth, out / "against_spectra.png")
    print(report)


def fit(args: argparse.Namespace, out: Path) -> None:
    """The command itself."""
    size = ("--members", str(args.members), "--steps", str(args.steps), "--batch", str(args.batch))
    asked, model = args.prior, MODELS[args.nebular]
    prior = posteriors(args.runs, model) if asked == POSTERIORS else asked
    what = ("--select", CUT, "--prior", prior, "--distance", args.distance)
    what += () if args.nebular is None else ("--nebular", str(args.nebular))
    what += ("--seed", str(args.seed), "--out", str(out))
    command("population", str(load_sample_catalog_path()), *what, *size)


def posteriors(runs: Path, model: str) -> str:
    """The run of `tinsley infer` on the same galaxies, their redshifts not read."""
    out = str(runs / f"{model}-free")
    how = ("--model", model, "--redshift", "free", "--refine", "never", "--out", out)
    command("infer", str(load_sample_catalog_path()), *how)
    return out


def masses(catalog: Catalog, rows: Photometry, runs: Path, model: str) -> np.ndarray:
    """Formed masses of some galaxies, redshifts known: equally weighted draws of all."""
    out = runs / f"{model}-known"
    settings = RunSettings(draws=DRAWS, refine=Refine.NEVER)
    run_catalog(load_posterior(model), catalog, None, out, settings)
    rng, parts, kept = np.random.default_rng(0), [], set(rows.object_id.tolist())
    for chunk in iterate_draws(out, DRAWS):
        mass = chunk.theta["log10_mstar_msun"]
        for name, draws, log_weight in zip(chunk.object_id, mass, chunk.log_weight, strict=True):
            if name in kept:
                weight = np.exp(log_weight.astype(float))
                parts.append(rng.choice(draws, 20, p=weight / weight.sum()))
    return np.concatenate(parts)


def compare(columns: dict[str, np.ndarray], name: str, true: np.ndarray) -> dict[str, object]:
    """Means and distance of a property, as observed."""
    each = over_members(columns, lambda one, w: np.average(one[name], weights=w), SELECTED).each
    numbers = np.unique(columns[MEMBER])
    alone = [{key: v[columns[MEMBER] == n] for key, v in columns.items()} for n in numbers]
    far = [round(wasserstein_1(one[name], one[SELECTED], true), 4) for one in alone]
    return {
        "wasserstein_1": round(wasserstein_1(columns[name], columns[SELECTED], true), 4),
        "wasserstein_1_of_members": far,
        "mean": round(float(each.mean()), 4),
        "means_of_members": np.round(each, 4).tolist(),
        "reference_mean": round(float(true.mean()), 4),
        "reference_inside_members": bool(each.min() <= true.mean() <= each.max()),
    }


def draw(columns: dict[str, np.ndarray], truth: dict[str, np.ndarray], path: Path) -> None:
    """Both distributions with the members' band."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for ax, (name, edges) in zip(axes, EDGES.items(), strict=True):
        middle = 0.5 * (edges[1:] + edges[:-1])
        band = density(columns, name, edges, SELECTED)
        ax.fill_between(middle, *band.outer, alpha=0.3, color="C0", lw=0)
        ax.plot(middle, band.median, color="C0", label="population, photometry alone")
        label = "spectroscopic" if name == "redshift" else "galaxy by galaxy, redshift known"
        height, *_ = ax.hist(
            truth[name], edges, density=True, histtype="step", color="k", label=label
        )
        ax.set_ylim(0, 2.5 * height.max())
        ax.set_xlabel(name)
        ax.legend(frameon=False, fontsize=8)
    with new_file(path) as file:
        figure.savefig(file, format="png", dpi=150)


if __name__ == "__main__":
    main()
