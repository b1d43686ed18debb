"""`tinsley photometry`: noiseless magnitudes of given parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tinsley.cli.console import announce
from tinsley.cli.options import Nebular


def photometry(
    parameters: Annotated[Path, typer.Argument(help="CSV: one row a galaxy, one column a name.")],
    out: Annotated[Path, typer.Option(help="CSV or Parquet file to write.")],
    survey: Annotated[str, typer.Option(help="Survey name or TOML file.")] = "sdss",
    exact: Annotated[
        bool, typer.Option("--exact", help="Full-resolution float64 integrals, 80 galaxies/s.")
    ] = False,
    provabgs_bases: Annotated[
        Path | None,
        typer.Option(help="Folder of the papers' NMF text files, for gamma_1, gamma_2."),
    ] = None,
    nebular: Nebular = None,
) -> None:
    """Noiseless AB magnitudes mag_<band> for parameters and redshift.

    Columns: log10_mstar_msun (formed), beta_1 ... beta_4 (sum 1), f_burst, t_burst_gyr,
    log10_z_zsun (or gamma_1 and gamma_2, with --provabgs-bases), tau_bc, tau_ism, n_dust, redshift.
    Values may lie outside the prior, as long as the stellar grid and the time bins hold them; other
    rows are refused by number. A burst older than the galaxy has no mass.
    """
    import numpy as np

    from tinsley.io.band_tables import load_band_tables
    from tinsley.io.filters import load_filters
    from tinsley.io.histories import load_provabgs_bases
    from tinsley.io.models import build_model, model_grid
    from tinsley.io.parameters import read_parameters
    from tinsley.io.results import write_table
    from tinsley.io.surveys import load_survey
    from tinsley.observe.exact import exact_photometry
    from tinsley.observe.photometry import photometry as fast_photometry

    survey_ = load_survey(survey)
    bases = load_provabgs_bases(provabgs_bases) if provabgs_bases else None
    model = build_model(bases, nebular=nebular)
    theta = read_parameters(parameters, model)
    filters = load_filters(survey_.filters)
    if exact:
        rows = ({k: float(v[i]) for k, v in theta.items()} for i in range(len(theta["redshift"])))
        flux = np.stack([exact_photometry(model, filters, row) for row in rows])
    else:
        ends = float(theta["redshift"].min()), float(theta["redshift"].max())
        tables = load_band_tables(model, filters, model_grid(model, filters, ends))
        flux = np.asarray(fast_photometry(tables, theta), float)
    magnitude = 22.5 - 2.5 * np.log10(flux)
    columns = {f"mag_{band}": magnitude[:, b] for b, band in enumerate(survey_.bands)}
    write_table(out, columns)
    announce(out, f"magnitudes of {len(flux):,} galaxies")
