"""`tinsley check`: is a trained posterior calibrated?"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from tinsley.cli.console import announce, console, progress
from tinsley.status import Redshift

SETS = {"complete": 1.0, "dropped": 0.0}
"""Share of complete galaxies in each set; of the others each band is dropped with 40 %."""


def check(
    model: Annotated[str, typer.Argument(help="Name or file of a trained posterior.")],
    out: Annotated[Path, typer.Option(help="Folder for check.json and figures.")] = Path("check"),
    number: Annotated[int, typer.Option(min=64, help="Galaxies in each set.")] = 5000,
    histories: Annotated[
        int, typer.Option(min=0, help="Galaxies with histories outside the model.")
    ] = 1000,
    draws: Annotated[int, typer.Option(min=100, help="Draws a galaxy and round.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed.")] = 1,
    redshift: Annotated[
        Redshift,
        typer.Option(help="Told, or inferred too (without histories)."),
    ] = Redshift.GIVEN,
) -> None:
    """Test the calibration of MODEL on fresh simulations.

    Two sets from the model's own prior: complete photometry, and randomly dropped bands. For all
    parameters and derived properties, raw and importance-weighted: ranks must be uniform (1 %
    family-wise), p-p lines and the joint coverage within 0.03 of the diagonal. Then galaxies whose
    star-formation histories the model can not make: reported, not judged. Writes check.json.
    """
    import jax

    from tinsley.catalog.run import refuse_free_redshifts
    from tinsley.io.models import load_posterior
    from tinsley.io.results import make_folder

    started = time.monotonic()
    loaded = load_posterior(model)
    refuse_free_redshifts(loaded, redshift)
    make_folder(out)
    histories = histories if redshift == Redshift.GIVEN else 0
    keys = jax.random.split(jax.random.key(seed), len(SETS) + 1)
    results, ranks = {}, {}
    for (name, complete), key in zip(SETS.items(), keys[:-1], strict=True):
        results[name], ranks[name] = _check_prior(
            (loaded, redshift), name, complete, (number, draws), key
        )
    outside = None
    if histories:
        outside, ranks["histories"] = _check_histories(loaded, (histories, draws), keys[-1])
    passed = all(c["passed"] for r in results.values() for c in r["criteria"].values())
    report = {
        "model": {"name": loaded.spec.name, "sha256": loaded.sha256},
        "passed": passed,
        "settings": _settings(loaded, number, histories, draws, seed) | {"redshift": redshift},
        "machine": {"processor": platform.machine(), "cores": os.cpu_count()},
        "seconds": round(time.monotonic() - started, 1),
        "sets": results,
        "histories": outside,
    }
    _write(out, report, ranks)
    _print(report)
    announce(out, "passed" if passed else "not passed")


def _check_prior(
    of: tuple[Any, Redshift], name: str, complete: float, size: tuple[int, int], key: Any
) -> tuple[dict[str, Any], Any]:
    """One set of galaxies from the prior, and its ranks; of a model, with redshifts told or not."""
    import jax

    from tinsley.infer.calibrate import summarise
    from tinsley.infer.ranks import judge
    from tinsley.infer.truths import simulate_prior

    loaded, redshift = of
    key_truth, key_draws = jax.random.split(key)
    simulator, snr_range = loaded.simulator(complete), loaded.snr_range
    truth = simulate_prior(
        loaded.posterior, simulator, size[0], snr_range, key_truth, redshift=redshift
    )
    found = _calibrate(loaded, truth, size[1], name, key_draws)
    finite = np.isfinite(found.ess)
    ranks = {
        kind: {n: of_kind[n][finite] for n in _in_order(loaded, of_kind)}
        for kind, of_kind in found.ranks.items()
    }
    summary = summarise(truth, found, np.ones(size[0], bool))
    return {"criteria": judge(ranks)} | summary, ranks


def _check_histories(loaded: Any, size: tuple[int, int], key: Any) -> tuple[dict[str, Any], Any]:
    """Galaxies whose histories the bases can not make: all of them, and those that pass as ok."""
    import jax

    from tinsley.errors import InputError
    from tinsley.infer.calibrate import summarise
    from tinsley.infer.importance import is_weak
    from tinsley.infer.support import colour_limits_from_dict
    from tinsley.infer.truths import simulate_histories
    from tinsley.io.filters import load_filters
    from tinsley.io.histories import load_diffstarpop_histories

    key_rows, key_truth, key_draws = jax.random.split(key, 3)
    all_histories = load_diffstarpop_histories()
    low, high = loaded.spec.redshift_range
    inside = np.flatnonzero((all_histories.redshift >= low) & (all_histories.redshift <= high))
    if len(inside) < size[0]:
        raise InputError(
            f"there are {len(inside)} histories in the model's range of redshift; got "
            f"--histories {size[0]}."
        )
    rows = np.asarray(jax.random.permutation(key_rows, inside))[: size[0]]
    truth = simulate_histories(
        loaded.model,
        load_filters(loaded.spec.filters),
        loaded.simulator(1.0),
        tuple(column[rows] for column in all_histories),
        key_truth,
    )
    found = _calibrate(loaded, truth, size[1], "histories", key_draws)
    finite = np.isfinite(found.ess)
    unusual = np.asarray(colour_limits_from_dict(loaded.spec.colour_limits).unusual(truth.seen))
    weak = is_weak(found.efficiency * size[1], found.khat)
    fine = finite & ~unusual & ~weak
    summary = {
        "unusual_colour": float(np.mean(unusual)),
        "low_ess_or_high_khat": float(np.mean(weak & finite)),
        "all": summarise(truth, found, np.ones(size[0], bool)),
        "ok": summarise(truth, found, fine) if fine.any() else None,
    }
    ranks = {
        kind: {n: of_kind[n][finite] for n in _in_order(loaded, of_kind)}
        for kind, of_kind in found.ranks.items()
    }
    return summary, ranks


def _calibrate(loaded: Any, truth: Any, draws: int, name: str, key: Any) -> Any:
    """Ranks of a set, with a bar."""
    from tinsley.infer.calibrate import calibrate

    with progress("{task.description}", "{task.completed:,}/{task.total:,}") as bar:
        task = bar.add_task(name, total=len(truth.seen.redshift))
        return calibrate(
            loaded.posterior,
            truth,
            loaded.snr_range,
            _effort(draws),
            key,
            lambda done, of: bar.update(task, completed=done, total=of),
        )


def _effort(draws: int) -> Any:
    from tinsley.infer.calibrate import Effort

    return Effort(draws=draws, workers=os.cpu_count() or 1)


def _in_order(loaded: Any, names: Mapping[str, Any]) -> list[str]:
    """Parameters, then derived properties, then the rest."""
    from tinsley.sps.derived import DERIVED

    order = [*loaded.posterior.space.names, *DERIVED]
    return [n for n in order if n in names] + [n for n in names if n not in order]


def _settings(loaded: Any, number: int, histories: int, draws: int, seed: int) -> dict[str, Any]:
    import dataclasses

    import tinsley

    return {
        "tinsley": tinsley.__version__,
        "galaxies": number,
        "histories": histories,
        "seed": seed,
        "snr_range": loaded.spec.snr_range,
        "redshift_range": loaded.spec.redshift_range,
        **dataclasses.asdict(_effort(draws)),
    }


def _write(out: Path, report: dict[str, Any], ranks: dict[str, Any]) -> None:
    from tinsley.infer.ranks import JOINT, JUDGED
    from tinsley.io.results import new_file, write_json
    from tinsley.plot.calibration import coverage, pp_lines, rank_histograms

    write_json(out / "check.json", report)
    figures, curves, levels = {}, {}, np.linspace(0, 1, 101)
    for name, by_kind in ranks.items():
        for kind in JUDGED:
            shown = {n: v for n, v in by_kind[kind].items() if n != JOINT}
            title = f"{name}, {kind}"
            figures[f"ranks-{name}-{kind}"] = rank_histograms(shown, title=title)
            figures[f"pp-{name}-{kind}"] = pp_lines(shown, title=title)
            if JOINT in by_kind[kind]:
                joint = np.sort(by_kind[kind][JOINT])
                curves[title] = np.searchsorted(joint, levels, side="right") / len(joint)
    number = report["settings"]["galaxies"]
    figures["coverage"] = coverage(levels, curves, number, title="joint coverage (TARP)")
    for name, figure in figures.items():
        with new_file(out / f"{name}.png") as file:
            figure.savefig(file, format="png", dpi=100)


def _print(report: dict[str, Any]) -> None:
    table = Table("set", "criterion", "value", "limit", "of", "", title="calibration")
    for name, result in report["sets"].items():
        for criterion, found in result["criteria"].items():
            sign = "[green]ok[/]" if found["passed"] else "[red]no[/]"
            value, limit = f"{found['value']:.4f}", f"{found['limit']:g}"
            table.add_row(name, criterion, value, limit, found["of"], sign)
    console.print(table)
    table = Table("set", "galaxies", "median efficiency", "below 1 %", "ESS < 200", "failed")
    groups = dict(report["sets"])
    if report["histories"]:
        groups |= {f"histories, {k}": report["histories"][k] for k in ("all", "ok")}
    for name, result in groups.items():
        if result is None:
            continue
        efficiency = result["efficiency"]
        table.add_row(
            name,
            f"{result['galaxies']:,}",
            f"{efficiency['median']:.3f}",
            f"{efficiency['share_below_1_percent']:.3f}",
            f"{result['pooled_ess']['share_below_200']:.3f}",
            str(result["failed"]),
        )
    console.print(table)
    if report["histories"]:
        console.print(_histories_table(report["histories"]["all"]))


def _histories_table(result: dict[str, Any]) -> Table:
    from tinsley.infer.ranks import WEIGHTED

    title = "histories that the model can not make (weighted)"
    table = Table("property", "bias", "scatter", "68 % holds", "95 % holds", title=title)
    for name, found in result["properties"].items():
        ranks = found[WEIGHTED]
        shares = (f"{ranks['coverage_68']:.2f}", f"{ranks['coverage_95']:.2f}")
        table.add_row(name, f"{found['bias']:+.3f}", f"{found['scatter']:.3f}", *shares)
    return table
