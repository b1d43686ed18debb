"""`tinsley download`: images for galaxies that have none yet."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinsley.cli.console import announce, progress

app = typer.Typer(no_args_is_help=True, help="Fetch images from a survey.")


@app.callback()
def main() -> None:
    """Fetch images from a survey."""


@app.command()
def cutouts(
    table: Annotated[
        Path, typer.Argument(help="Table with object_id, ra and dec (degrees, J2000).")
    ],
    out: Annotated[Path, typer.Option(help="Folder of images; a begun one is gone on with.")],
    pixels: Annotated[int, typer.Option(min=16, max=2048, help="Side of a cutout.")] = 128,
    scale: Annotated[float, typer.Option(min=0.01, max=60.0, help="Arcsec of a pixel.")] = 0.396,
    rate: Annotated[
        float, typer.Option(min=0.001, max=10.0, help="Requests a second at most.")
    ] = 2.0,
    attempts: Annotated[int, typer.Option(min=1, max=20, help="For one cutout.")] = 5,
    service: Annotated[
        str | None, typer.Option(help="Another address (default: SkyServer's).")
    ] = None,
) -> None:
    """Fetch gri colour cutouts of SDSS, <object_id>.jpg, for the galaxies in TABLE.

    One at a time, never faster than --rate; what fails is asked for again, later and later. Kill it
    and start it again: what is there, and is whole, is not fetched twice. failed.csv lists galaxies
    without a cutout, manifest.jsonl the checksums of the others.
    """
    from tinsley.io.downloads import SDSS, Cutouts, Manners, download_cutouts, read_targets

    targets = read_targets(table)
    wanted = Cutouts(pixels, scale, service or SDSS)
    manners = Manners(rate_hz=rate, attempts=attempts)
    with progress("fetching", "{task.completed:,}/{task.total:,}") as bar:
        task = bar.add_task("", total=len(targets.object_id))
        counts = download_cutouts(targets, out, wanted, manners, lambda: bar.advance(task))
    announce(out, ", ".join(f"{count:,} {word}" for word, count in counts.items()) or "none")
