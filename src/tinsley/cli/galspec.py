"""`tinsley galspec`: SDSS photometry with the spectroscopic properties of its galaxies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinsley.cli.console import announce, console


def galspec(
    photometry: Annotated[
        Path, typer.Argument(help="Table with specObjID and petroMag_r, and what else is wanted.")
    ],
    extra: Annotated[Path, typer.Option(help="galSpecExtra, FITS, Parquet or CSV.")],
    indx: Annotated[Path, typer.Option(help="galSpecIndx, FITS, Parquet or CSV.")],
    out: Annotated[Path, typer.Option(help="CSV or Parquet file to write.")],
    star_forming: Annotated[
        bool, typer.Option("--star-forming/--all-classes", help="Star-forming galaxies alone.")
    ] = True,
    r_min: Annotated[float, typer.Option(help="Brightest r, mag.")] = 16.0,
    r_max: Annotated[float, typer.Option(help="Faintest r, mag.")] = 17.78,
) -> None:
    """Join the MPA-JHU properties to PHOTOMETRY, with the cuts of Yunus, Wu & Holwerda (2025).

    Adds log10_mstar_msun, log10_sfr_msun_yr, oh_12_log10, dn4000 and a_v_mag: what `tinsley train
    properties` can learn. Rows without one of them are left out.
    """
    from tinsley.io.galspec import load_galspec
    from tinsley.io.results import write_table

    joined = load_galspec(
        photometry, extra, indx, star_forming=star_forming, r_range_mag=(r_min, r_max)
    )
    write_table(out, joined.columns)
    for step, count in joined.counts.items():
        console.print(f"{count:,} {step}", highlight=False)
    announce(out, f"{joined.counts['measured']:,} galaxies")
