"""`tinsley demo`: the main job on the embedded catalogue, with figures."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from tinsley.cli.console import announce, console
from tinsley.cli.infer import infer
from tinsley.status import Refine

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from tinsley.io.catalogs import Catalog
    from tinsley.io.models import LoadedPosterior
    from tinsley.observe.survey import Photometry, Survey

N_SIMULATED = 300_000
"""Training galaxies behind the figure of the training set's support."""
QUANTILES = (0.02, 0.16, 0.5, 0.84, 0.98)


def demo(
    out: Annotated[Path, typer.Option(help="Folder of results and figures.")] = Path("demo"),
    number: Annotated[
        int | None, typer.Option(min=1, help="Only the first galaxies (default: all 10,000).")
    ] = None,
    draws: Annotated[int, typer.Option(min=100, help="Draws a galaxy.")] = 500,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the run.")] = 0,
    model: Annotated[str | None, typer.Option(help="Model name or file (default: sdss).")] = None,
    refine: Annotated[Refine, typer.Option(help="As for `tinsley infer`.")] = Refine.NEVER,
) -> None:
    """Infer the 10,000 SDSS galaxies that come with the package and draw figures of the result.

    Minutes the first time; the same command again finds its results and only says what they are.
    """
    from tinsley.io.catalogs import load_sample_catalog_path, open_catalog
    from tinsley.io.models import load_posterior
    from tinsley.io.results import write_json
    from tinsley.io.runs import load_galaxies, load_manifest
    from tinsley.io.surveys import load_survey

    sample, survey = load_sample_catalog_path(), load_survey("sdss")
    path = sample if number is None else _first_rows(sample, number, out)
    begun, started = (out / "run.json").exists(), time.monotonic()
    infer(path, "sdss", out, model, None, draws, keep_draws=True, seed=seed, refine=refine)
    seconds = None if begun else time.monotonic() - started
    manifest = load_manifest(out)
    galaxies = load_galaxies(out)
    if not (out / "demo.json").exists():
        loaded, catalog = load_posterior(model or "sdss"), open_catalog(path, survey)
        misfit = _save_figures(loaded, catalog, galaxies, out, manifest)
        write_json(out / "demo.json", summary(galaxies, manifest, seconds) | {"misfit": misfit})
    _report(json.loads((out / "demo.json").read_text()), out)


def summary(
    galaxies: dict[str, np.ndarray], manifest: dict[str, Any], seconds: float | None
) -> dict[str, Any]:
    """The run in numbers; `seconds` is None where an earlier command did part of the work."""
    import numpy as np

    from tinsley.infer.importance import KHAT_GOOD
    from tinsley.status import Method

    inferred = np.isfinite(galaxies["ess"])
    share = (galaxies["ess"] / galaxies["n_draws"])[inferred]
    khat = galaxies["khat"][inferred & (galaxies["method"] != Method.HMC)]
    quantiles = np.quantile(share, QUANTILES) if len(share) else []
    rows = len(inferred)
    return {
        "galaxies": rows,
        "draws": manifest["draws"],
        "seed": manifest["seed"],
        "model": manifest["model"],
        "model_sha256": manifest["model_sha256"],
        "inference_seconds": None if seconds is None else round(seconds, 1),
        "galaxies_per_second": None if seconds is None else round(rows / seconds, 1),
        "statuses": manifest["statuses"],
        "efficiency_quantiles": {
            f"{q:g}": round(float(value), 4) for q, value in zip(QUANTILES, quantiles, strict=False)
        },
        "share_below_1_percent": round(float(np.mean(share < 0.01)), 4) if rows else None,
        "share_khat_above_0.7": round(float(np.mean(~(khat <= KHAT_GOOD))), 4)
        if len(khat)
        else None,
    }


def _first_rows(sample: Path, number: int, out: Path) -> Path:
    """A catalogue of the sample's first rows, in the folder of the run."""
    from tinsley.io.results import make_folder, write_parquet
    from tinsley.io.tables import open_table

    table = open_table(sample)
    kinds: Any = {name: "name" if name == "object_id" else "real" for name in table.columns}
    write_parquet(make_folder(out) / "catalog.parquet", next(table.pieces(kinds, number, 0)), {})
    return out / "catalog.parquet"


def _save_figures(
    loaded: LoadedPosterior,
    catalog: Catalog,
    galaxies: dict[str, np.ndarray],
    out: Path,
    manifest: dict[str, Any],
) -> dict[str, Any]:
    """Write every figure, and return the misfit of each band."""
    from tinsley.catalog.residuals import best_fit_residuals, misfit_by_band
    from tinsley.io.results import make_folder, new_file

    folder = make_folder(out / "figures", "figures")
    posterior = loaded.posterior
    residual = best_fit_residuals(posterior.tables, posterior.space, catalog, out, manifest)
    misfit = misfit_by_band(residual, catalog.survey.bands)
    with console.status("drawing figures"):
        for name, figure in _figures(loaded, catalog, galaxies, out, manifest, residual, misfit):
            with new_file(folder / f"{name}.png") as file:
                figure.savefig(file, format="png")
    return misfit


def _figures(
    loaded: LoadedPosterior,
    catalog: Catalog,
    galaxies: dict[str, np.ndarray],
    out: Path,
    manifest: dict[str, Any],
    residual: np.ndarray,
    misfit: dict[str, Any],
) -> Iterator[tuple[str, Figure]]:
    """Name and figure, one after the other."""
    from tinsley.catalog.stack import stacked_density
    from tinsley.infer.importance import ESS_GOOD, KHAT_GOOD
    from tinsley.io.runs import iterate_draws
    from tinsley.plot.residuals import residual_histograms
    from tinsley.plot.sequence import EDGES, MASS, SFR, star_forming_sequence
    from tinsley.plot.trust import trust
    from tinsley.status import UNUSUAL, Status

    bands, status = catalog.survey.bands, galaxies["status"]
    rows = next(catalog.chunks(catalog.n_rows))
    ok = status == Status.OK
    chunks = iterate_draws(out, manifest["draws"])
    density = stacked_density(chunks, galaxies["object_id"][ok], (MASS, SFR), EDGES)
    good = {name: values[ok] for name, values in galaxies.items()}
    title = f"{ok.sum():,} SDSS galaxies with status ok"
    yield "star_forming_sequence", star_forming_sequence(good, density, title)
    yield from _example(loaded, galaxies, rows, manifest["draws"])
    title = f"best of {manifest['draws']} draws for {len(rows):,} SDSS galaxies"
    yield "residuals", residual_histograms(residual, bands, misfit, title)
    unusual = {str(word): status == word for word in UNUSUAL}
    yield "training_support", support_figure(loaded, catalog.survey, rows, unusual)
    title = f"{len(rows):,} SDSS galaxies, {manifest['draws']} draws each"
    yield "trust", trust(galaxies, manifest["draws"], (ESS_GOOD, KHAT_GOOD), title)


def support_figure(
    loaded: LoadedPosterior, survey: Survey, rows: Photometry, unusual: dict[str, np.ndarray]
) -> Figure:
    """The training set's colours and the usual errors behind a catalogue's, strangers marked.

    Args:
        loaded: The model.
        survey: Of the catalogue.
        rows: The catalogue.
        unusual: Which rows are strangers, by the word for them, each [row] of bool.
    """
    import numpy as np

    from tinsley.io.catalogs import load_usual_error
    from tinsley.observe.survey import AB_ZEROPOINT_MAG, FLUX_PER_MAG
    from tinsley.plot.support import Errors, training_support

    observed, usual = _observed_magnitudes(rows), load_usual_error(survey)
    errors = None
    if usual is not None:
        error_mag = rows.sigma / (FLUX_PER_MAG * 10 ** (0.4 * (AB_ZEROPOINT_MAG - observed)))
        nodes = (usual.mag, usual.mean_mag, usual.scatter_mag)
        errors = Errors(error_mag, *(np.asarray(values) for values in nodes))
    title = (
        f"training set of {loaded.spec.name} around {len(rows):,} {survey.name.upper()} galaxies"
    )
    simulated = _simulated_magnitudes(loaded, rows)
    return training_support(simulated, observed, unusual, survey.bands, errors, title)


def _example(
    loaded: LoadedPosterior, galaxies: dict[str, np.ndarray], rows: Photometry, draws: int
) -> Iterator[tuple[str, Figure]]:
    """A well-measured galaxy's posterior and its spectrum; nothing if none has a posterior."""
    from tinsley.catalog.closeup import choose_example, look_closely
    from tinsley.io.filters import load_filters
    from tinsley.plot.galaxy import corner_plot, sed

    i = choose_example(galaxies, rows)
    if i is None:
        return
    close = look_closely(loaded, loaded.model, rows.take(slice(i, i + 1)), draws)
    title = f"SDSS galaxy {rows.object_id[i]}, z = {rows.redshift[i]:.3f}"
    yield "galaxy_corner", corner_plot(close.theta, close.weight, title=title)
    spectra, observed = (close.wave_aa, close.spectra_ujy), (rows.flux[i], rows.sigma[i])
    filters = load_filters(loaded.spec.filters)
    yield "galaxy_sed", sed(spectra, observed, close.flux_nmgy, filters, title)


def _simulated_magnitudes(
    loaded: LoadedPosterior, rows: Photometry
) -> tuple[np.ndarray, np.ndarray]:
    """Noiseless magnitudes of training galaxies, and of some at the catalogue's redshifts."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from tinsley.observe.photometry import photometry
    from tinsley.observe.survey import AB_ZEROPOINT_MAG

    space, tables = loaded.posterior.space, loaded.posterior.tables
    low, high = loaded.spec.redshift_range
    key_z, key_theta = jax.random.split(jax.random.key(0))
    inside = rows.redshift[(rows.redshift >= low) & (rows.redshift <= high)]
    anywhere = jax.random.uniform(key_z, (N_SIMULATED,), minval=low, maxval=high)
    theirs = jnp.asarray(np.resize(inside if len(inside) else low, N_SIMULATED), dtype=float)
    made = []
    for redshift in (anywhere, theirs):
        age_gyr = loaded.posterior.cosmology.age_gyr(redshift)
        theta = space.sample(N_SIMULATED, age_gyr, key=key_theta) | {"redshift": redshift}
        made.append(AB_ZEROPOINT_MAG - 2.5 * np.log10(np.asarray(photometry(tables, theta))))
    return made[0], made[1]


def _observed_magnitudes(rows: Photometry) -> np.ndarray:
    """AB magnitudes, NaN where a flux is missing or not positive, [row, band]."""
    import numpy as np

    from tinsley.observe.survey import AB_ZEROPOINT_MAG

    there = rows.mask & (rows.flux > 0)
    return np.where(there, AB_ZEROPOINT_MAG - 2.5 * np.log10(np.where(there, rows.flux, 1)), np.nan)


def _report(found: dict[str, Any], out: Path) -> None:
    """Say what came out."""
    table = Table(
        "status", "galaxies", title=f"{found['galaxies']:,} galaxies", title_justify="left"
    )
    table.columns[1].justify = "right"
    for word, count in sorted(found["statuses"].items(), key=lambda item: -item[1]):
        table.add_row(word, f"{count:,}")
    console.print(table)
    quantiles = found["efficiency_quantiles"].items()
    words = ", ".join(f"{float(q):.0%}: {value:.0%}" for q, value in quantiles)
    console.print(f"effective draws / draws, quantiles  {words}", highlight=False, soft_wrap=True)
    if found["galaxies_per_second"] is not None:
        console.print(
            f"inference  {found['inference_seconds']:.0f} s, "
            f"{found['galaxies_per_second']:.0f} galaxies/s",
            highlight=False,
        )
    announce(out, "galaxies.parquet, draws and figures")
