"""`tinsley infer`: posteriors for a catalogue."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from tinsley.cli.console import announce, console, progress
from tinsley.cli.infer_properties import infer_properties, is_of_properties, refuse_options
from tinsley.errors import InputError
from tinsley.status import Likelihood, Redshift, Refine


def infer(
    catalog: Annotated[Path, typer.Argument(help="FITS, Parquet or CSV table of galaxies.")],
    survey: Annotated[str, typer.Option(help="Survey name or TOML file.")] = "sdss",
    out: Annotated[Path, typer.Option(help="Folder of results; a begun run goes on.")] = Path(
        "posteriors"
    ),
    model: Annotated[
        str | None,
        typer.Option(
            help="Model name or file: sdss-nebular has nebular emission (default: the survey's, of "
            "stars alone)."
        ),
    ] = None,
    layout: Annotated[
        str | None, typer.Option(help="Layout of the table (default: by its columns).")
    ] = None,
    draws: Annotated[int, typer.Option(min=100, help="Draws a galaxy.")] = 1000,
    keep_draws: Annotated[
        bool, typer.Option("--keep-draws/--no-draws", help="Write every draw.")
    ] = True,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Seed; the same seed gives the same bits.")
    ] = 0,
    refine: Annotated[
        Refine,
        typer.Option(
            help="More draws, and a sampler where they fail, for galaxies whose first draws "
            "are not to be trusted (auto); also long chains where that fails, minutes of a core "
            "each (chains); all of it for all galaxies, or for none."
        ),
    ] = Refine.AUTO,
    redshift: Annotated[
        Redshift,
        typer.Option(
            help="Are the catalogue's redshifts right, within redshift_err or redshift_pdf where "
            "it has such a column (given), or to be inferred (free)? Then none is needed or read."
        ),
    ] = Redshift.GIVEN,
    likelihood: Annotated[
        Likelihood,
        typer.Option(
            help="Errors are normal (gaussian), or have the wings of Student's t (student-t): "
            "then a band with an error larger than it says, an outlier, hardly counts. The "
            "network was trained on normal errors, so that the ESS is lower."
        ),
    ] = Likelihood.GAUSSIAN,
    dof: Annotated[
        float | None,
        typer.Option(
            min=1.0,
            max=1e6,
            help="Degrees of freedom of student-t: fewer, more outliers (default: 4).",
        ),
    ] = None,
    prior: Annotated[
        str | None,
        typer.Option(
            help="Another prior than the trained one: a .toml file (docs/priors.md) or a name, "
            "such as volume_mass_function. Draws are weighted with it."
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="Images, for a model that takes them: a folder, or an HDF5 file."),
    ] = None,
    chunk_size: Annotated[int, typer.Option(min=1, help="Rows kept in memory at a time.")] = 1024,
) -> None:
    """Infer stellar mass, star formation, age, metallicity and dust of every galaxy in CATALOG.

    With a --model of `tinsley train properties`, or of `tinsley train posterior --table`: infer
    what that was taught, from photometry, from --images, or from both; draws have no weights. A row
    without a usable image has the status no_image or bad_image.

    Writes galaxies.parquet (one row per input row: status, method, n_draws, ess, khat, rhat,
    log_evidence, the best fit, and the mean, std and quantiles of every property), draws/*.parquet
    and manifest.json. Look at `status` first: "ok" is to be trusted; docs/conventions.md says what
    the other words mean.

    A band without a flux may have an upper limit: in the layout native, a column
    flux_limit_<band> with the 3-sigma limit in nanomaggies. A non-detection with a measured flux,
    even below 0, is better given as that flux and its error.
    """
    from tinsley.catalog.run import RunSettings, run_catalog
    from tinsley.infer.likelihood import StudentT
    from tinsley.io.catalogs import load_usual_error, open_catalog
    from tinsley.io.models import load_posterior
    from tinsley.io.priors import impose, load_prior
    from tinsley.io.surveys import load_survey

    if model is not None and is_of_properties(model):
        odd = {"--prior": prior, "--dof": dof, "--likelihood": likelihood != Likelihood.GAUSSIAN}
        odd |= {
            "--redshift": redshift != Redshift.GIVEN,
            "--refine": refine in (Refine.CHAINS, Refine.ALL),
        }
        refuse_options([word for word, value in odd.items() if value])
        how = {"draws": draws, "keep_draws": keep_draws, "seed": seed, "chunk": chunk_size}
        infer_properties(catalog, survey, layout, Path(model), images, out, how)
        return
    if images is not None:
        raise InputError("--images is for models of tables that were given images; give --model.")
    if dof is not None and likelihood != Likelihood.STUDENT_T:
        raise InputError(
            f"--dof {dof:g} is for --likelihood student-t; the likelihood is {likelihood}. "
            "Add --likelihood student-t or leave --dof out."
        )
    asked = None if prior is None else load_prior(prior)
    survey_ = load_survey(survey)
    given = redshift == Redshift.GIVEN
    table = open_catalog(catalog, survey_, layout, needs_redshift=given)
    loaded = load_posterior(model or survey_.name)
    loaded = loaded if asked is None else impose(loaded, asked)
    usual = load_usual_error(survey_)
    settings = RunSettings(
        draws=draws,
        keep_draws=keep_draws,
        seed=seed,
        chunk=chunk_size,
        refine=refine,
        redshift=redshift,
        likelihood=StudentT(dof or 4.0) if likelihood == Likelihood.STUDENT_T else None,
        command=shlex.join(sys.argv),
    )
    started = time.monotonic()
    console.print(
        f"{table.n_rows:,} galaxies, layout {table.layout.name}, model {loaded.spec.name}"
    )
    with progress("inferring", "{task.completed:,}/{task.total:,}") as bar:
        task = bar.add_task("", total=table.n_rows)
        manifest = run_catalog(
            loaded, table, usual, out, settings, lambda rows: bar.advance(task, rows)
        )
    seconds = time.monotonic() - started
    words = ", ".join(f"{count:,} {word}" for word, count in manifest["statuses"].items())
    announce(out, f"{words}; {table.n_rows / seconds:.0f} galaxies/s")
    if (left := manifest.get("prior_efficiency")) is not None:
        console.print(f"the new prior leaves {left:.2f} of the effective draws (median)")
