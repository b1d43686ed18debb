"""`tinsley train properties`: learn the columns of a table from photometry, images, or both."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from tinsley.cli.console import announce, console, progress
from tinsley.cli.training import outcome, refuse_missing_folder, train_until_over
from tinsley.errors import InputError

LEAST = 20
"""Galaxies to train on at least, and a tenth of them for each of validation and test."""
TEST_GALAXIES, TEST_DRAWS = 1000, 200
"""Of the test set, at most; and draws of each: coverage to 0.015."""


def properties(
    table: Annotated[Path, typer.Argument(help="FITS, Parquet or CSV table of galaxies.")],
    columns: Annotated[str, typer.Option(help="Properties to learn: its columns, with commas.")],
    photometry: Annotated[
        str | None,
        typer.Option(help="Use the table's photometry, of this survey (name or TOML file)."),
    ] = None,
    layout: Annotated[
        str | None, typer.Option(help="Layout of the photometry (default: by its columns).")
    ] = None,
    redshift: Annotated[
        bool, typer.Option("--redshift/--no-redshift", help="Use redshifts with the photometry.")
    ] = False,
    images: Annotated[
        Path | None,
        typer.Option(help="Use images: a folder of <object_id>.jpg|png|npy|fits, or HDF5."),
    ] = None,
    pixels: Annotated[
        int | None, typer.Option(min=16, max=256, help="Average images to so many pixels.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Model file to write.")] = Path("properties.tinsley"),
    run: Annotated[Path, typer.Option(help="Folder of checkpoints; resumes.")] = Path(
        "runs/properties"
    ),
    name: Annotated[str, typer.Option(help="Name of the model.")] = "my-properties",
    config: Annotated[
        str,
        typer.Option(
            help="tinsley (measures images), convolutions (learns to look at them), or yunus2025: "
            "the paper's network, solver and rule."
        ),
    ] = "tinsley",
    start: Annotated[
        Path | None,
        typer.Option(
            "--from", help="Model whose image encoder to begin with (default: a new one)."
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimiser steps (default: 6000).")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=8, help="Galaxies a step (default: 256).")
    ] = None,
    max_shift: Annotated[
        int,
        typer.Option(
            min=0, max=64, help="Largest shift of training images, pixels; not for tinsley."
        ),
    ] = 2,
    hours: Annotated[
        float | None, typer.Option(min=0.0, help="Stop after so long; start again to go on.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of the run.")] = 0,
) -> None:
    """Train a posterior of any properties of galaxies: those that columns of TABLE list.

    Eight in ten galaxies, by a hash of their names, are learnt from; one in ten decides which
    weights are kept; one in ten judges the result: errors and coverage are shown, and are in the
    model's header. Rows without a property, photometry or image are left out and counted. Kill it
    and start it again with the same options: it goes on from the last checkpoint. Then `tinsley
    infer TABLE --model MODEL` (with --images) gives every row a posterior. Where galaxies are few,
    --from begins with an encoder that has learnt from many others, such as simulated ones.
    """
    from tinsley.infer.property_spec import PROPERTY_CONFIGS

    asked = tuple(dict.fromkeys(word.strip() for word in columns.split(",") if word.strip()))
    if not asked:
        raise InputError("--columns names no property; give columns of the table, with commas.")
    if photometry is None and (images is None or redshift or layout):
        raise InputError("give --photometry, --images, or both; --redshift goes with photometry.")
    teach(
        Assignment(
            table=table,
            columns=asked,
            light=(photometry, layout, redshift),
            pictures=(images, pixels),
            out=out,
            run=run,
            name=name,
            config=config,
            configs=PROPERTY_CONFIGS,
            start=start,
            steps=steps,
            batch=batch,
            max_shift=max_shift,
            hours=hours,
            seed=seed,
        )
    )


@dataclasses.dataclass(frozen=True)
class Assignment:
    """What is to be learnt from which galaxies, and how; fields are a command's options.

    Attributes:
        table: Galaxies.
        columns: What to learn of them.
        light: Survey, layout, and whether redshifts are told; no survey, no photometry.
        pictures: Images or none, and the side to average them to.
        out: Model file to write.
        run: Folder of checkpoints.
        name: Of the model.
        config: One of
        configs: these ways to train, by name.
        start: Model whose image encoder to begin with.
        steps: Optimiser steps, or the configuration's.
        batch: Galaxies a step, likewise.
        max_shift: Of augmented images, pixels.
        hours: To stop after.
        seed: Of the run.
        space: Ranges of the columns where they are SPS parameters.
    """

    table: Path
    columns: tuple[str, ...]
    light: tuple[str | None, str | None, bool]
    pictures: tuple[Path | None, int | None]
    out: Path
    run: Path
    name: str
    config: str
    configs: dict[str, Any]
    start: Path | None
    steps: int | None
    batch: int | None
    max_shift: int
    hours: float | None
    seed: int
    space: Any = None


def teach(what: Assignment) -> None:
    """Read, train, judge and save a posterior of the columns of a table."""
    import jax

    from tinsley.catalog.lesson import measured
    from tinsley.density.train import start_training, train_block, train_steps
    from tinsley.infer.properties import held_out_loss, make_property_network, property_loss
    from tinsley.infer.property_targets import target_from_dict
    from tinsley.io.checkpoints import TrainingFolder
    from tinsley.io.property_models import save_properties

    refuse_missing_folder(what.out)
    taught = _read(what)
    images = what.pictures[0]
    chosen = _choose(what, len(taught.rows["training"]))
    key_network, key_run, key_check, key_test = jax.random.split(jax.random.key(what.seed), 4)
    spec = dataclasses.replace(
        taught.spec, name=what.name, matching=chosen.matching,
        encoder=chosen.encoder if images else {},
    )  # fmt: skip
    n_dim = target_from_dict(spec.target).n_dim
    sizes = (taught.told.shape[1], spec.image.get("channels", 0), n_dim)
    network = make_property_network(chosen.matching, chosen.encoder, sizes, key=key_network)
    network, origin = _with_encoder(network, spec, what.start)
    taught, network = measured(taught, network)
    schedule = dataclasses.asdict(chosen.schedule)
    how = {"config": what.config, "max_shift": what.max_shift, "seed": what.seed}
    setup: dict[str, Any] = origin | {"table_sha256": taught.checksum, "images": str(images)}
    setup |= how | {"spec": spec.to_dict(), "schedule": schedule}
    folder = TrainingFolder(what.run, setup)
    source = taught.stored("training", chosen.schedule.batch, what.max_shift)
    held_out = taught.stored("validation", 1, 0)
    lesson = (source, property_loss, lambda model: held_out_loss(model, held_out, key_check))
    begun = folder.resume(start_training(network, chosen.schedule))
    go_on = train_block if taught.images is None else train_steps
    history = train_until_over(begun, lesson, chosen.schedule, folder, key_run, what.hours, go_on)
    kept = folder.best(network)
    training = schedule | outcome(history) | {"galaxies": taught.counts} | origin | how
    test = _judge(spec, kept, taught, key_test)
    save_properties(what.out, dataclasses.replace(spec, training=training, test=test), kept)
    _show(test)
    announce(what.out, f"validation loss {training['best']['validation_loss']:.4f}")


def _with_encoder(network: Any, spec: Any, start: Path | None) -> tuple[Any, dict[str, str]]:
    """The network with the encoder of another model, and what that was."""
    import equinox as eqx

    from tinsley.io.property_models import load_properties

    if start is None:
        return network, {}
    if not spec.encoder:
        raise InputError("--from takes the image encoder of a model; it goes with --images.")
    if spec.encoder["encoder"] == "rings":
        raise InputError(
            "--from takes the image encoder of a model, and this --config's has learnt nothing: it "
            "measures. Leave --from out, or give both trainings --config convolutions."
        )
    known = load_properties(start)
    theirs = (known.spec.encoder, known.spec.image.get("channels", 0))
    if theirs != (spec.encoder, spec.image["channels"]):
        raise InputError(
            f"model {start} has the encoder {theirs[0] or 'none'} for {theirs[1]} channels; these "
            f"images and --config need {spec.encoder} for {spec.image['channels']}."
        )
    encoder = known.posterior.network.encoder
    return eqx.tree_at(lambda n: n.encoder, network, encoder), {"from": known.sha256}


def _choose(what: Assignment, galaxies: int) -> Any:
    """The configuration that the options describe."""
    from tinsley.density.train import UntilNoGainAdamW

    if what.config not in what.configs:
        known = ", ".join(what.configs)
        raise InputError(f"no config {what.config!r}; expected one of {known}.")
    chosen = what.configs[what.config]
    fixed = isinstance(chosen.schedule, UntilNoGainAdamW)
    if what.steps is not None and fixed:
        raise InputError(f"--steps is not for {what.config}: its stopping rule decides.")
    changes: dict[str, Any] = {"galaxies": galaxies} if fixed else {}
    changes |= {} if what.steps is None else {"steps": what.steps}
    changes |= {} if what.batch is None else {"batch": what.batch}
    return chosen._replace(schedule=dataclasses.replace(chosen.schedule, **changes))


def _read(what: Assignment) -> Any:
    """All that is learnt from, in memory."""
    from tinsley.catalog.lesson import read_lesson
    from tinsley.io.surveys import load_survey

    survey, layout, redshift = what.light
    light = (None if survey is None else load_survey(survey), layout, redshift)
    with progress("reading", "{task.completed:,}/{task.total:,} images") as bar:
        task = bar.add_task("", total=None, visible=False)

        def on_images(done: int, total: int) -> None:
            bar.update(task, visible=True, total=total, advance=done)

        taught = read_lesson(what.table, what.columns, light, what.pictures, on_images, what.space)
    said = ", ".join(f"{count:,} {word}" for word, count in taught.counts.items() if count)
    console.print(f"{said}", highlight=False)
    if taught.problem:
        console.print(f"the first bad image: {taught.problem}", highlight=False, markup=False)
    lacking = [word for word, rows in taught.rows.items() if len(rows) < max(1, LEAST // 10)]
    if lacking or len(taught.rows["training"]) < LEAST:
        raise InputError(
            f"{what.table} leaves too few galaxies ({said}); expected at least {LEAST} to train "
            "on, and some to validate and test with."
        )
    return taught


def _judge(spec: Any, network: Any, taught: Any, key: Any) -> dict[str, Any]:
    """How right the posterior is about the test galaxies."""
    from tinsley.catalog.properties import draw_all
    from tinsley.infer.properties import judge_properties
    from tinsley.io.property_models import property_posterior

    posterior = property_posterior(spec, network)
    rows = taught.rows["test"][:TEST_GALAXIES]
    known = taught.told[rows], None if taught.images is None else taught.images[rows]
    with progress("testing", "{task.completed:,}/{task.total:,}") as bar:
        task = bar.add_task("", total=len(rows))

        def on_batch(done: int) -> None:
            bar.advance(task, done)

        draws = draw_all(posterior, known, taught.object_id[rows], TEST_DRAWS, key, on_batch)
    judged = judge_properties(spec.properties, taught.properties[rows], draws)
    return {"galaxies": len(rows), "draws": TEST_DRAWS, "properties": judged}


def _show(test: dict[str, Any]) -> None:
    """The test's results as a table."""
    from rich.table import Table

    judged = test["properties"]
    shown = Table(title=f"{test['galaxies']:,} test galaxies")
    shown.add_column("property")
    for what in next(iter(judged.values())):
        shown.add_column(what, justify="right")
    for name, values in judged.items():
        shown.add_row(name, *(f"{value:.3f}" for value in values.values()))
    console.print(shown)
