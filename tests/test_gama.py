"""GAMA's tables: their columns, units, extinction and cuts."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.table import Table

from tinsley.errors import InputError
from tinsley.io.catalogs import open_catalog, read_photometry
from tinsley.io.populations import read_whole_rows
from tinsley.io.surveys import load_survey
from tinsley.population.synthetic import parse_selection

N = 8


def table(**changes) -> dict[str, np.ndarray]:
    """Galaxies of magnitudes 17 to 20, in the form of data release 3, all of them good."""
    mag = np.array([20.0, 18.5, 17.6, 17.2, 17.0])[:, None] + np.linspace(0, 1, N)
    columns = {"CATAID": np.arange(N) + 6802, "Z": np.linspace(0.05, 0.4, N), "NQ": np.full(N, 4)}
    for band, m in zip("ugriz", mag, strict=True):
        flux = 10 ** (0.4 * (30 - m))
        columns |= {f"FLUX_AUTO_{band}": flux, f"FLUXERR_AUTO_{band}": 0.1 * flux}
        columns |= {f"MAG_AUTO_{band}": m, f"A_{band}": np.full(N, 0.1)}
    columns |= {"MAG_AUTO_J": np.full(N, 16.8), "MAG_AUTO_K": np.full(N, 16.5)}
    return columns | {"logmstar": np.full(N, 10.5)} | changes


def test_fluxes_are_nanomaggies_without_dust():
    seen = read_photometry(table(), load_survey("gama"))
    assert seen.object_id.tolist() == list(range(6802, 6802 + N))
    assert seen.usable.all()
    mag = 22.5 - 2.5 * np.log10(seen.flux)
    np.testing.assert_allclose(mag, table()["MAG_AUTO_r"][:, None] + [2.3, 0.8, -0.1, -0.5, -0.7])
    floor = 0.4 * np.log(10) * np.array([0.05, 0.02, 0.02, 0.02, 0.03])
    np.testing.assert_allclose(seen.sigma / seen.flux, np.hypot(0.1, np.tile(floor, (N, 1))))


def test_doubtful_redshifts_and_stars_are_left_out():
    quality = np.array([4, 3, 2, 1, 0, 5, 4, 4])
    jay = np.array([16.8, 16.8, 16.8, 16.8, 16.8, 16.52, -9999.0, 99.0])
    seen = read_photometry(table(NQ=quality, MAG_AUTO_J=jay), load_survey("gama"))
    assert seen.usable.tolist() == [True, True] + [False] * 6
    assert set(seen.status[2:]) == {"bad_input"}


def test_cuts_apply_where_their_columns_are():
    bare = {name: v for name, v in table().items() if name not in ("NQ", "MAG_AUTO_K")}
    bare["MAG_AUTO_J"] = np.full(N, 99.0)
    assert read_photometry(bare, load_survey("gama")).usable.all()


def test_a_file_of_that_form_gives_a_population_its_photometry(tmp_path):
    """Written as the archive does; S/N > 1 in every band is the paper's second cut."""
    noisy = table()
    noisy["FLUXERR_AUTO_u"] = noisy["FLUX_AUTO_u"] * np.where(np.arange(N) < 3, 1.2, 0.1)
    Table(noisy).write(tmp_path / "gama.fits")
    survey = load_survey("gama")
    catalog = open_catalog(tmp_path / "gama.fits", survey, needs_redshift=False)
    assert catalog.layout.name == "gama-dr3"
    rows, counts = read_whole_rows(catalog, parse_selection("snr > 1", survey.bands))
    left_out = {"bad_input": 0, "redshift_out_of_range": 0, "band_missing": 0, "below_cut": 3}
    assert counts == {"rows": N, "used": 5} | left_out
    np.testing.assert_allclose(
        rows.flux[:, 2], 1e-3 * noisy["FLUX_AUTO_r"][3:] * 10**0.04, rtol=1e-6
    )


def test_photometry_that_still_holds_dust_is_not_taken():
    dusty = {name: v for name, v in table().items() if not name.startswith("A_")}
    with pytest.raises(InputError, match="lacks column A_u"):
        read_photometry(dusty, load_survey("gama"))


@pytest.mark.parametrize(
    ("cut", "message"),
    [
        ("column = 'NQ'", "least lacks value"),
        ("column = 'NQ'\nvalue = 'three'", "value and missing are finite numbers"),
        ("column = 'NQ'\nvalue = 3\nmissing = [nan]", "value and missing are finite numbers"),
        ("column = 'NQ'\nvalue = 3\nminus = 4", "expected a word in quotes; got 4"),
        ("column = 'NQ'\nvalue = 3\nmost = 4", "unknown key 'most'"),
    ],
)
def test_cuts_that_say_nothing_are_refused(cut, message, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'name = "x"\nbands = ["g"]\nfilters = ["sdss2010-g"]\n[[layouts]]\nname = "y"\nflux = "f"\n'
        f'error = "e"\nredshift = "z"\nerror_kind = "sigma"\nindex = [0]\n'
        f"[[layouts.least]]\n{cut}\n"
    )
    with pytest.raises(InputError, match=message):
        load_survey(path)
