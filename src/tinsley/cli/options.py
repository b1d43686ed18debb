"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

Nebular = Annotated[
    float | None,
    typer.Option(
        min=-4,
        max=-2,
        help="Add nebular emission, lines and continuum, as real galaxies have it: log10 of the "
        "ionisation parameter U, usually -3 (default: stars alone, as in the papers).",
    ),
]
