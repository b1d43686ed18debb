"""Make src/tinsley/data/sdss_sample.parquet, the 10,000 SDSS galaxies that come with Tinsley.

    python tools/make_sample_catalog.py gst_tests_small.fits

The input is kcorrect/data/test/gst_tests_small.fits of kcorrect 5.1.9 (PyPI; BSD-3-Clause, notice
in src/tinsley/data/SOURCES.md). The output has layout `native`: AB nanomaggies corrected for
Galactic extinction, errors without the survey's floors; object_id is the row number.
"""

import hashlib
import sys
from pathlib import Path

import numpy as np

from tinsley.io.catalogs import load_sample_catalog_path, open_catalog
from tinsley.io.results import write_parquet
from tinsley.io.surveys import load_survey

SHA256 = "d7e87e8abc45167e48889a0e824870760a2e6dde20650a6e41a72164859bf578"


def main(source: Path) -> None:
    """Convert the table and say how large it became."""
    survey = load_survey("sdss")
    catalog = open_catalog(source, survey, "sdss-kcorrect")
    if catalog.checksum != SHA256:
        raise SystemExit(f"{source} has SHA-256 {catalog.checksum}; expected {SHA256}.")
    (photometry,) = catalog.chunks(catalog.n_rows)
    if not photometry.usable.all() or not photometry.mask.all():
        raise SystemExit("some rows of the sample have no photometry; that needs a decision.")
    error = survey.measured_sigma(photometry.flux, photometry.sigma)
    columns = {"object_id": photometry.object_id, "redshift": photometry.redshift}
    columns |= {f"flux_{b}": photometry.flux[:, i] for i, b in enumerate(survey.bands)}
    columns |= {f"flux_err_{b}": error[:, i] for i, b in enumerate(survey.bands)}
    narrow = {k: v.astype(np.float32) for k, v in columns.items() if k != "object_id"}
    about = {
        "about": "SDSS model fluxes, AB nanomaggies, dereddened; errors without floors",
        "source": "kcorrect 5.1.9, kcorrect/data/test/gst_tests_small.fits",
        "source_sha256": SHA256,
        "license": "BSD-3-Clause",
    }
    path = load_sample_catalog_path()
    write_parquet(path, {"object_id": columns["object_id"], **narrow}, about)
    data = path.read_bytes()
    print(f"{path}: {len(data)} bytes, SHA-256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
