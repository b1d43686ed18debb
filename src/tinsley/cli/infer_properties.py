"""`tinsley infer` with a model that learnt from a table."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import Any

from tinsley.cli.console import announce, console, progress
from tinsley.errors import InputError


def is_of_properties(model: str) -> bool:
    """True for a file of a model that learnt from a table; a name that ships is none."""
    from tinsley.io.model_files import PROPERTIES, model_kind
    from tinsley.io.models import model_path

    return model_kind(model_path(model)) == PROPERTIES


def refuse_options(given: list[str]) -> None:
    """Refuse options that a model of properties can do nothing with."""
    if given:
        raise InputError(
            f"{', '.join(given)}: not for a model that learnt from a table, which has no "
            "likelihood and the training set's prior; leave it out."
        )


def infer_properties(
    table: Path,
    survey: str,
    layout: str | None,
    model: Path,
    images: Path | None,
    out: Path,
    how: dict[str, Any],
) -> None:
    """Posteriors of every row of a table; `how` is of `PropertySettings`."""
    from tinsley.catalog.properties import PropertySettings, run_properties
    from tinsley.catalog.run import refuse_other_bands
    from tinsley.io.images import open_images
    from tinsley.io.property_models import load_properties
    from tinsley.io.property_tables import open_galaxies
    from tinsley.io.surveys import load_survey

    loaded = load_properties(model)
    survey_ = load_survey(survey) if loaded.spec.bands else None
    if survey_ is not None:
        refuse_other_bands(loaded.spec, survey_)
    rows = open_galaxies(table, survey_, layout, redshift=loaded.spec.redshift)
    source = None if images is None else open_images(images)
    settings = PropertySettings(command=shlex.join(sys.argv), **how)
    console.print(f"{rows.n_rows:,} galaxies, model {loaded.spec.name}", highlight=False)
    started = time.monotonic()
    with progress("inferring", "{task.completed:,}/{task.total:,}") as bar:
        task = bar.add_task("", total=rows.n_rows)
        manifest = run_properties(
            loaded, rows, source, out, settings, lambda done: bar.advance(task, done)
        )
    words = ", ".join(f"{count:,} {word}" for word, count in manifest["statuses"].items())
    announce(out, f"{words}; {rows.n_rows / (time.monotonic() - started):.0f} galaxies/s")
