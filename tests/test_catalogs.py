"""Users' tables: layouts, calibration, what becomes of each row, and what is refused as a whole."""

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from astropy.io import fits
from astropy.table import MaskedColumn, Table
from hypothesis import given, settings
from hypothesis import strategies as st

from tinsley.errors import InputError
from tinsley.io.catalogs import (
    Catalog,
    load_sample_catalog_path,
    open_catalog,
    read_photometry,
)
from tinsley.io.results import write_csv, write_json, write_parquet, write_table
from tinsley.io.surveys import load_survey
from tinsley.io.tables import MemoryTable
from tinsley.observe.survey import Layout, with_redshift_range

SDSS = load_survey("sdss")
BANDS = SDSS.bands
SHARED = Path(__file__).resolve().parents[1].parent / "shared"
KCORRECT = SHARED / "data" / "sdss_kcorrect" / "gst_tests_small.fits"
NAN = np.nan


def native(n_rows=7, seed=0):
    """A table in native layout: galaxies redder than flat, S/N 30."""
    rng = np.random.default_rng(seed)
    r = 10 ** rng.uniform(1.5, 3, n_rows)
    table = {"object_id": np.arange(n_rows) + 100, "redshift": rng.uniform(0.02, 0.4, n_rows)}
    for band, colour in zip(BANDS, (0.2, 0.6, 1.0, 1.3, 1.6), strict=True):
        table[f"flux_{band}"] = r * colour
        table[f"flux_err_{band}"] = r * colour / 30
    return table


def write_fits(path, table):
    columns = []
    for name, values in table.items():
        values = np.asarray(values)
        code = {"i": "K", "f": "D", "U": "12A"}[values.dtype.kind]
        size = values.shape[1] if values.ndim > 1 else ""
        columns.append(fits.Column(name, f"{size}{code}", array=values))
    fits.BinTableHDU.from_columns(columns).writeto(path)


WRITERS = {
    ".fits": write_fits,
    ".parquet": lambda path, table: write_parquet(path, table, {}),
    ".csv": write_csv,
}


def assert_same(one, other):
    for field in dataclasses.fields(one):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name))


class TestFormats:
    @pytest.mark.parametrize("suffix", WRITERS)
    def test_all_formats_give_the_same_photometry(self, tmp_path, suffix):
        table = native()
        WRITERS[suffix](tmp_path / f"t{suffix}", table)
        catalog = open_catalog(tmp_path / f"t{suffix}", SDSS)
        assert (catalog.n_rows, catalog.layout.name) == (7, "native")
        (seen,) = catalog.chunks()
        assert_same(seen, read_photometry(table, SDSS))
        assert seen.object_id.dtype == np.int64
        assert seen.flux.dtype.isnative
        assert seen.flux.dtype == np.float64
        data = (tmp_path / f"t{suffix}").read_bytes()
        assert catalog.checksum == hashlib.sha256(data).hexdigest()

    @pytest.mark.parametrize("suffix", WRITERS)
    @pytest.mark.parametrize(("size", "start"), [(1, 0), (3, 0), (3, 4), (7, 0), (50, 6), (4, 7)])
    def test_chunks_make_up_the_whole(self, tmp_path, suffix, size, start):
        table = native()
        WRITERS[suffix](tmp_path / f"t{suffix}", table)
        whole = read_photometry(table, SDSS)
        parts = list(open_catalog(tmp_path / f"t{suffix}", SDSS).chunks(size, start))
        assert all(len(part) == size for part in parts[:-1])
        assert sum(len(part) for part in parts) == 7 - start
        for k, part in enumerate(parts):
            low = start + k * size
            assert_same(part, whole.take(slice(low, low + size)))

    @pytest.mark.parametrize("start", [0, 2, 3, 5, 6])
    def test_chunks_cross_row_groups(self, tmp_path, start):
        table = native()
        pa.parquet.write_table(pa.table(table), tmp_path / "t.parquet", row_group_size=3)
        whole = read_photometry(table, SDSS)
        parts = list(open_catalog(tmp_path / "t.parquet", SDSS).chunks(4, start))
        ids = np.concatenate([part.object_id for part in parts])
        assert ids.tolist() == whole.object_id[start:].tolist()
        assert len(parts[0]) == min(4, 7 - start)

    def test_row_numbers_count_on_from_chunk_to_chunk(self, tmp_path):
        table = {"Z": np.full(5, 0.1), "EXTINCTION": np.zeros((5, 5))}
        table |= {"MODELFLUX": np.full((5, 5), 9.0), "MODELFLUX_IVAR": np.ones((5, 5))}
        write_fits(tmp_path / "t.fits", table)
        catalog = open_catalog(tmp_path / "t.fits", SDSS)
        ids = [chunk.object_id.tolist() for chunk in catalog.chunks(2, start=1)]
        assert ids == [[1, 2], [3, 4]]

    @pytest.mark.parametrize("suffix", WRITERS)
    def test_text_ids(self, tmp_path, suffix):
        table = native(3) | {"object_id": np.array(["J1+02", "a b", "7"])}
        WRITERS[suffix](tmp_path / f"t{suffix}", table)
        (seen,) = open_catalog(tmp_path / f"t{suffix}", SDSS).chunks()
        assert seen.object_id.tolist() == ["J1+02", "a b", "7"]

    def test_ids_of_64_bits_survive(self, tmp_path):
        ids = np.array([1237648720693755918, 5, 5 + 2**32])
        for suffix, write in WRITERS.items():
            write(tmp_path / f"t{suffix}", native(3) | {"object_id": ids})
            (seen,) = open_catalog(tmp_path / f"t{suffix}", SDSS).chunks()
            assert seen.object_id.tolist() == ids.tolist()

    def test_csv_keeps_ids_with_leading_zeros_as_text(self, tmp_path):
        write_csv(tmp_path / "t.csv", native(2) | {"object_id": np.array(["007", "7"])})
        (seen,) = open_catalog(tmp_path / "t.csv", SDSS).chunks()
        assert seen.object_id.tolist() == ["007", "7"]

    def test_nulls_and_masked_values_are_missing(self, tmp_path):
        nulls = native(3)
        for name in ("flux_g", "flux_err_g"):
            nulls[name] = pa.array([1.0, None, 2.0])
        pa.parquet.write_table(pa.table(nulls), tmp_path / "t.parquet")
        pa.csv.write_csv(pa.table(nulls), tmp_path / "t.csv")
        masked = Table(native(3))
        for name, values in (("flux_g", [1.0, 5.0, 2.0]), ("flux_err_g", [1.0, 5.0, 2.0])):
            masked[name] = MaskedColumn(values, mask=[False, True, False])
        for seen in (
            next(open_catalog(tmp_path / "t.parquet", SDSS).chunks()),
            next(open_catalog(tmp_path / "t.csv", SDSS).chunks()),
            read_photometry(masked, SDSS),
        ):
            assert seen.mask[:, 1].tolist() == [True, False, True]
            assert seen.mask[:, [0, 2, 3, 4]].all()
            assert seen.usable.all()

    def test_vectors_in_parquet(self, tmp_path):
        flux = np.full((4, 5), 9.0) + np.arange(5)
        vectors = {"MODELFLUX": flux, "MODELFLUX_IVAR": flux / flux, "EXTINCTION": flux * 0}
        table = pa.table({"Z": [0.1] * 4} | {k: pa.array(list(v)) for k, v in vectors.items()})
        pa.parquet.write_table(table, tmp_path / "t.parquet")
        (seen,) = open_catalog(tmp_path / "t.parquet", SDSS).chunks()
        expected = read_photometry({"Z": [0.1] * 4} | vectors, SDSS)
        assert_same(seen, expected)

    def test_case_of_column_names_does_not_matter(self):
        table = {name.upper(): values for name, values in native().items()}
        assert_same(read_photometry(table, SDSS), read_photometry(native(), SDSS))


class TestLayouts:
    def test_extinction_offsets_and_floors_of_sdss_kcorrect(self):
        extinction = np.array([[0.5, 0.4, 0.3, 0.2, 0.1]])
        flux = np.array([[10.0, 20.0, 30.0, 40.0, 50.0]])
        table = {"Z": [0.1], "MODELFLUX": flux, "MODELFLUX_IVAR": np.full((1, 5), 4.0)}
        seen = read_photometry(table | {"EXTINCTION": extinction}, SDSS)
        offset = np.array([-0.036, 0.012, 0.010, 0.028, 0.040])
        true = 10 ** (-0.4 * (22.5 - 2.5 * np.log10(flux) - extinction + offset - 22.5))
        floor = np.array([0.05, 0.02, 0.02, 0.02, 0.03]) * 0.4 * np.log(10) * true
        np.testing.assert_allclose(seen.flux, true)
        np.testing.assert_allclose(seen.sigma, np.hypot(0.5 * true / flux, floor))

    def nsa(self, flux="NMGY"):
        values = np.arange(14.0).reshape(2, 7) + 10
        return {
            "NSAID": [11, 12], "Z": [0.02, 0.03], "ZDIST": [0.021, 0.031],
            flux: values, f"{flux}_IVAR": np.full((2, 7), 4.0), "EXTINCTION": np.full((2, 7), 0.3),
        }  # fmt: skip

    def test_nsa_v0_is_taken_as_it_is(self):
        """NMGY is AB and dereddened, and NMGY_IVAR has floors in it: the Atlas's data model."""
        seen = read_photometry(self.nsa(), SDSS)
        assert seen.object_id.tolist() == [11, 12]
        assert seen.redshift.tolist() == [0.02, 0.03]
        np.testing.assert_allclose(seen.flux, self.nsa()["NMGY"][:, 2:])
        np.testing.assert_allclose(seen.sigma, 0.5)

    def test_nsa_v1_is_dereddened_and_made_ab(self):
        seen = read_photometry(self.nsa("ELPETRO_FLUX"), SDSS, "nsa")
        factor = 10 ** (0.4 * (0.3 - np.array([-0.036, 0.012, 0.010, 0.028, 0.040])))
        raw = self.nsa()["NMGY"][:, 2:]
        np.testing.assert_allclose(seen.flux, raw * factor)
        assert np.all(seen.sigma > 0.5 * factor)

    def test_nsa_zdist_where_there_is_no_z(self):
        table = self.nsa()
        del table["Z"]
        assert read_photometry(table, SDSS).redshift.tolist() == [0.021, 0.031]

    def test_nsa_quality_cuts_where_the_flags_are(self):
        good = 1 << 28
        table = self.nsa() | {"flags": [good, good | 1 << 18]}
        assert read_photometry(table, SDSS).status.tolist() == ["", "bad_input"]
        table["flags"] = [good | 1 << 44, good | 1 << 44 | 1 << 12]
        assert read_photometry(table, SDSS).status.tolist() == ["", "bad_input"]
        table["flags"] = [good, 0]
        assert read_photometry(table, SDSS).status.tolist() == ["", "bad_input"]

    def test_reddening_by_ebv(self):
        layout = dataclasses.replace(SDSS.layouts[0], name="mine", ebv="EBV")
        survey = dataclasses.replace(SDSS, layouts=(layout,))
        seen = read_photometry(native() | {"EBV": np.full(7, 0.1)}, survey)
        factor = 10 ** (0.04 * np.array([5.155, 3.793, 2.751, 2.086, 1.479]))
        np.testing.assert_allclose(seen.flux, read_photometry(native(), SDSS).flux * factor)

    def test_a_band_may_be_absent_altogether(self):
        table = native()
        del table["flux_u"], table["flux_err_u"]
        seen = read_photometry(table, SDSS)
        assert seen.usable.all()
        assert not seen.mask[:, 0].any()
        assert (seen.flux[:, 0] == 0).all()
        assert (seen.sigma[:, 0] == 1).all()

    @pytest.mark.parametrize("lost", ["object_id", "redshift", "flux_r", "flux_err_r"])
    def test_a_missing_column_is_refused_by_name(self, lost):
        table = native()
        del table[lost]
        with pytest.raises(InputError, match=f"lacks column {lost} of layout 'native'.*--layout"):
            read_photometry(table, SDSS)

    def test_a_table_without_any_band_is_refused(self):
        with pytest.raises(InputError, match="lacks column flux_u, flux_err_u"):
            read_photometry({"object_id": [1], "redshift": [0.1]}, SDSS)

    def test_a_layout_asked_for_must_exist_and_fit(self):
        with pytest.raises(InputError, match="no layout 'sdss'; expected one of native, sdss-k"):
            read_photometry(native(), SDSS, "sdss")
        with pytest.raises(InputError, match="of layout 'nsa'"):
            read_photometry(native(), SDSS, "nsa")

    def test_short_or_flat_vectors_are_refused(self):
        table = self.nsa()
        with pytest.raises(InputError, match="vectors of at least 7 numbers in column 'NMGY'"):
            read_photometry(table | {"NMGY": table["NMGY"][:, :5]}, SDSS)
        with pytest.raises(InputError, match="vectors of at least 7 numbers in column 'NMGY'"):
            read_photometry(table | {"NMGY": table["NMGY"][:, 0]}, SDSS)


class TestRows:
    """One row of a table is spoiled; it says so, holds harmless numbers, and the others stay."""

    @pytest.mark.parametrize(
        ("flux", "error", "status"),
        [
            (NAN, 1.0, "bad_input"),
            (5.0, NAN, "bad_input"),
            (5.0, 0.0, "bad_input"),
            (5.0, -1.0, "bad_input"),
            (5.0, np.inf, "bad_input"),
            (np.inf, 1.0, "bad_input"),
            (-np.inf, 1.0, "bad_input"),
            (1e30, 1.0, "bad_input"),
            (5.0, 1e30, "bad_input"),
            (0.0, 1e-30, "bad_input"),
            (-10.1, 1.0, "bad_input"),
            (-9999.0, -9999.0, "bad_input"),
            (NAN, 0.0, "bad_input"),
            (-9.9, 1.0, ""),
            (NAN, NAN, ""),
            (0.0, 1.0, ""),
        ],
    )
    def test_flux_and_error(self, flux, error, status):
        table = native()
        table["flux_g"][2], table["flux_err_g"][2] = flux, error
        seen = read_photometry(table, SDSS)
        assert seen.status[2] == status
        assert seen.mask[2, 1] == (status == "" and np.isfinite(flux))
        assert seen.mask[2, 0] == (status == "")
        self.assert_harmless(seen)
        others = [0, 1, 3, 4, 5, 6]
        assert_same(seen.take(others), read_photometry(native(), SDSS).take(others))

    @pytest.mark.parametrize(
        ("flux", "ivar", "status", "measured"),
        [
            (5.0, 0.0, "", False),
            (NAN, 0.0, "", False),
            (NAN, NAN, "", False),
            (5.0, -1.0, "bad_input", False),
            (5.0, NAN, "bad_input", False),
            (5.0, np.inf, "bad_input", False),
            (NAN, 4.0, "bad_input", False),
            (5.0, 4.0, "", True),
        ],
    )
    def test_flux_and_inverse_variance(self, flux, ivar, status, measured):
        table = {"Z": [0.1, 0.2], "EXTINCTION": np.zeros((2, 5))}
        table |= {"MODELFLUX": np.full((2, 5), 9.0), "MODELFLUX_IVAR": np.ones((2, 5))}
        table["MODELFLUX"][1, 3], table["MODELFLUX_IVAR"][1, 3] = flux, ivar
        seen = read_photometry(table, SDSS)
        assert seen.status.tolist() == ["", status]
        assert seen.mask[1, 3] == measured
        self.assert_harmless(seen)

    @pytest.mark.parametrize("extinction", [NAN, np.inf, 100.0])
    def test_extinction(self, extinction):
        table = {"Z": [0.1, 0.2], "EXTINCTION": np.zeros((2, 5))}
        table |= {"MODELFLUX": np.full((2, 5), 9.0), "MODELFLUX_IVAR": np.ones((2, 5))}
        table["EXTINCTION"][1, 3] = extinction
        seen = read_photometry(table, SDSS)
        assert seen.status.tolist() == ["", "bad_input"]
        self.assert_harmless(seen)

    @pytest.mark.parametrize("redshift", [NAN, 0.0, -9999.0, np.inf])
    def test_redshift(self, redshift):
        table = native()
        table["redshift"][2] = redshift
        seen = read_photometry(table, SDSS)
        assert seen.status.tolist() == ["", "", "redshift_out_of_range", "", "", "", ""]
        np.testing.assert_equal(seen.redshift[2], redshift)
        self.assert_harmless(seen)

    def test_redshift_not_asked_for(self):
        """Photometry alone: whether there are redshifts, and what they are, changes nothing."""
        table = native()
        table["redshift"][2] = NAN
        without = {name: values for name, values in native().items() if name != "redshift"}
        for one in (table, without):
            (seen,) = Catalog(MemoryTable(one), SDSS, None, needs_redshift=False).chunks()
            assert seen.status.tolist() == [""] * 7
            assert np.isnan(seen.redshift).all()
            np.testing.assert_array_equal(seen.flux, read_photometry(native(), SDSS).flux)
        with pytest.raises(InputError, match="lacks column redshift"):
            read_photometry(without, SDSS)

    def test_no_band_measured(self):
        table = native()
        for band in BANDS:
            table[f"flux_{band}"][0] = table[f"flux_err_{band}"][0] = NAN
        seen = read_photometry(table, SDSS)
        assert seen.status[0] == "too_few_bands"
        self.assert_harmless(seen)

    def test_precedence_is_that_of_status(self):
        table = native(2)
        for band in BANDS:
            table[f"flux_{band}"][:] = table[f"flux_err_{band}"][:] = NAN
        table["redshift"][:] = NAN
        table["flux_u"][1] = 1.0
        assert read_photometry(table, SDSS).status.tolist() == [
            "redshift_out_of_range",
            "bad_input",
        ]

    def test_with_redshift_range(self):
        table = native(5) | {"redshift": np.array([0.009, 0.01, 0.6, 0.61, 0.7])}
        table["flux_u"][4] = NAN
        seen = with_redshift_range(read_photometry(table, SDSS), 0.01, 0.6)
        outside = "redshift_out_of_range"
        assert seen.status.tolist() == [outside, "", "", outside, "bad_input"]
        assert seen.usable.tolist() == [False, True, True, False, False]
        self.assert_harmless(seen)

    def assert_harmless(self, seen):
        idle = ~seen.mask
        assert (seen.flux[idle] == 0).all()
        assert (seen.sigma[idle] == 1).all()
        assert not seen.mask[~seen.usable].any()
        assert np.isfinite(seen.flux).all()
        assert (seen.sigma > 0).all()

    @settings(max_examples=200, deadline=None)
    @given(st.lists(st.floats(width=64), min_size=11, max_size=11))
    def test_any_numbers_whatever(self, numbers):
        """Nothing that a float can hold stops the reading or gets through to a kernel."""
        table = {"object_id": [1], "redshift": numbers[:1]}
        for i, band in enumerate(BANDS):
            table[f"flux_{band}"], table[f"flux_err_{band}"] = [numbers[1 + i]], [numbers[6 + i]]
        try:
            seen = read_photometry(table, SDSS)
        except InputError as error:
            assert "magnitudes" in str(error)  # noqa: PT017 - one such table in a million
            return
        self.assert_harmless(seen)
        assert np.isfinite(seen.flux.astype(np.float32) ** 2).all()
        assert ((1 / seen.sigma.astype(np.float32)) ** 2 > 0).all()


class TestLimits:
    def limited(self, **columns):
        """Row 0 has a limit in r and no flux there; the other rows have fluxes in all bands."""
        table = native(4)
        table["flux_r"][0] = table["flux_err_r"][0] = NAN
        return table | {name: np.asarray(values, float) for name, values in columns.items()}

    def test_a_limit_stands_for_a_missing_flux(self):
        table = self.limited(flux_limit_r=[6.0, 6.0, NAN, NAN])
        seen, plain = read_photometry(table, SDSS), read_photometry(self.limited(), SDSS)
        assert plain.limit is None
        assert seen.limit.tolist() == [[False, False, True, False, False]] + [[False] * 5] * 3
        assert (seen.flux[0, 2], seen.status[0]) == (6.0, "")
        floor = 0.02 * 0.4 * np.log(10) * 6.0
        assert seen.sigma[0, 2] == pytest.approx(np.hypot(2.0, floor))
        for name in ("mask", "status", "redshift"):
            np.testing.assert_array_equal(getattr(seen, name), getattr(plain, name))
        there = ~seen.limit
        np.testing.assert_array_equal(seen.flux[there], plain.flux[there])
        np.testing.assert_array_equal(seen.sigma[there], plain.sigma[there])
        np.testing.assert_array_equal(seen.take([2, 0]).limit, seen.limit[[2, 0]])

    def test_an_error_beside_a_limit_is_the_limits(self):
        table = self.limited(flux_limit_r=[6.0, NAN, NAN, NAN])
        table["flux_err_r"][0] = 1.5
        assert read_photometry(table, SDSS).sigma[0, 2] == pytest.approx(
            np.hypot(1.5, 0.02 * 0.4 * np.log(10) * 6.0)
        )

    @pytest.mark.parametrize(
        ("limit", "error"),
        [(limit, error) for limit in (0.0, -1.0, np.inf, -np.inf, 1e10) for error in (NAN, 1.5)]
        + [(1e-12, NAN)],
    )
    def test_limits_that_can_not_be(self, limit, error):
        table = self.limited(flux_limit_r=[limit, NAN, NAN, limit])
        table["flux_err_r"][0] = error
        seen = read_photometry(table, SDSS)
        assert seen.status.tolist() == ["bad_input", "", "", ""]  # row 3 has a flux: not looked at
        assert not seen.limit.any()
        assert seen.flux[0].tolist() == [0.0] * 5

    @pytest.mark.parametrize("error", [0.0, -1.0, np.inf])
    def test_a_limit_with_an_error_that_can_not_be(self, error):
        table = self.limited(flux_limit_r=[6.0, NAN, NAN, NAN])
        table["flux_err_r"][0] = error
        assert read_photometry(table, SDSS).status[0] == "bad_input"

    def test_no_limit_and_no_flux_but_an_error(self):
        table = self.limited(flux_limit_r=[NAN, NAN, NAN, NAN])
        table["flux_err_r"][0] = 1.5
        assert read_photometry(table, SDSS).status[0] == "bad_input"

    def test_limits_alone_are_too_few_bands(self):
        table = native(2)
        for band in BANDS:
            table[f"flux_{band}"][0] = table[f"flux_err_{band}"][0] = NAN
            table[f"flux_limit_{band}"] = np.array([5.0, 5.0])
        seen = read_photometry(table, SDSS)
        assert seen.status.tolist() == ["too_few_bands", ""]
        assert not seen.limit.any()

    def test_a_band_may_have_limits_only(self):
        table = native(3)
        del table["flux_u"], table["flux_err_u"]
        seen = read_photometry(table | {"flux_limit_u": np.array([2.0, NAN, 2.0])}, SDSS)
        assert seen.limit[:, 0].tolist() == [True, False, True]
        assert not seen.mask[:, 0].any()

    def test_out_of_range_rows_lose_their_limits(self):
        table = self.limited(flux_limit_r=[6.0, NAN, NAN, NAN])
        seen = with_redshift_range(read_photometry(table, SDSS), 3.0, 4.0)
        assert not seen.limit.any()

    def test_a_layout_may_name_its_limits(self):
        layout = Layout(
            "theirs", ("z",), "F", "IVAR", "ivar", index=tuple(range(5)), unit_nmgy=2.0,
            limit="LIM", limit_sigmas=5.0,
        )  # fmt: skip
        survey = dataclasses.replace(SDSS, layouts=(layout,))
        flux, ivar, limit = np.full((2, 5), 9.0), np.ones((2, 5)), np.full((2, 5), 10.0)
        ivar[0, 1] = 0.0
        table = {"z": np.full(2, 0.1), "F": flux, "IVAR": ivar}
        seen = read_photometry(table | {"LIM": limit}, survey)
        assert seen.limit.tolist() == [[False, True, False, False, False], [False] * 5]
        assert (seen.flux[0, 1], seen.sigma[0, 1]) == (20.0, 4.0)
        assert read_photometry(table, survey).limit is None

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.floats(width=64), min_size=3, max_size=3))
    def test_any_numbers_whatever(self, numbers):
        table = self.limited(flux_limit_r=[numbers[2], NAN, NAN, NAN])
        table["flux_r"][0], table["flux_err_r"][0] = numbers[:2]
        seen = read_photometry(table, SDSS)
        assert np.isfinite(seen.flux.astype(np.float32) ** 2).all()
        assert ((1 / seen.sigma.astype(np.float32)) ** 2 > 0).all()
        assert not (seen.limit & seen.mask).any()
        assert (seen.flux[seen.limit] > 0).all()


class TestRefusals:
    def test_file_not_found(self, tmp_path):
        with pytest.raises(InputError, match="does not exist or is not a file"):
            open_catalog(tmp_path / "gone.fits", SDSS)
        with pytest.raises(InputError, match="does not exist or is not a file"):
            open_catalog(tmp_path, SDSS)

    def test_unknown_suffix(self, tmp_path):
        (tmp_path / "t.xlsx").write_bytes(b"x")
        with pytest.raises(InputError, match=r"suffix '.xlsx'; expected one of .fits"):
            open_catalog(tmp_path / "t.xlsx", SDSS)

    @pytest.mark.parametrize("suffix", WRITERS)
    def test_text_called_something_else(self, tmp_path, suffix):
        path = tmp_path / f"t{suffix}"
        path.write_text("This is a letter to my mother.\nDear mother, all is well.\n")
        expected = "lacks column" if suffix == ".csv" else "is not a .* file that can be read"
        with pytest.raises(InputError, match=expected):
            open_catalog(path, SDSS)

    @pytest.mark.parametrize("suffix", WRITERS)
    def test_empty_file(self, tmp_path, suffix):
        (tmp_path / f"t{suffix}").write_bytes(b"")
        with pytest.raises(InputError, match="is not a .* file|has no header line"):
            open_catalog(tmp_path / f"t{suffix}", SDSS)

    @pytest.mark.parametrize("suffix", [".fits", ".parquet"])
    @pytest.mark.parametrize("kept", [0.3, 0.6, 0.95])
    def test_truncated(self, tmp_path, suffix, kept):
        path = tmp_path / f"t{suffix}"
        WRITERS[suffix](path, native(2000))
        path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
        with pytest.raises(InputError, match="is cut short|is not a Parquet file that can be read"):
            open_catalog(path, SDSS)

    def test_parquet_damaged_in_the_middle(self, tmp_path):
        path = tmp_path / "t.parquet"
        table = pa.table(native(5000))
        pa.parquet.write_table(table, path, row_group_size=1000, compression="zstd")
        data = bytearray(path.read_bytes())
        data[len(data) // 2 : len(data) // 2 + 5000] = b"\xff" * 5000
        path.write_bytes(data)
        with pytest.raises(InputError, match="is not a Parquet file that can be read"):
            list(open_catalog(path, SDSS).chunks(500))

    def test_fits_without_table(self, tmp_path):
        fits.PrimaryHDU(np.zeros((4, 4))).writeto(tmp_path / "image.fits")
        with pytest.raises(InputError, match="holds no table"):
            open_catalog(tmp_path / "image.fits", SDSS)

    def test_csv_with_words_for_numbers(self, tmp_path):
        path = tmp_path / "t.csv"
        path.write_text("object_id,redshift,flux_r,flux_err_r\n1,0.1,5,1\n2,0.1,bright,1\n")
        with pytest.raises(InputError, match="is not a CSV file that can be read.*bright"):
            open_catalog(path, SDSS)

    def test_words_for_numbers_in_memory(self):
        with pytest.raises(InputError, match="column 'flux_r' should hold numbers"):
            read_photometry(native(1) | {"flux_r": np.array(["bright"])}, SDSS)

    @pytest.mark.parametrize("suffix", WRITERS)
    def test_empty_table(self, tmp_path, suffix):
        WRITERS[suffix](tmp_path / f"t{suffix}", {k: v[:0] for k, v in native().items()})
        with pytest.raises(InputError, match="has no rows"):
            open_catalog(tmp_path / f"t{suffix}", SDSS)

    @pytest.mark.parametrize("suffix", WRITERS)
    @pytest.mark.parametrize("ids", [[5, 6, 5, 7, 6], ["a", "b", "a", "c", "b"]])
    def test_duplicate_ids_are_named(self, tmp_path, suffix, ids):
        WRITERS[suffix](tmp_path / f"t{suffix}", native(5) | {"object_id": np.array(ids)})
        with pytest.raises(InputError, match=r"names 2 galaxies more than once \((5, 6|a, b)\)"):
            open_catalog(tmp_path / f"t{suffix}", SDSS)

    def test_ids_must_be_there(self, tmp_path):
        table = native(2) | {"object_id": pa.array([1, None])}
        pa.parquet.write_table(pa.table(table), tmp_path / "t.parquet")
        with pytest.raises(InputError, match="every row needs a name"):
            open_catalog(tmp_path / "t.parquet", SDSS)
        (tmp_path / "t.csv").write_text("object_id,redshift,flux_r,flux_err_r\n,0.1,5,1\n")
        with pytest.raises(InputError, match="'object_id' should hold whole numbers or text"):
            open_catalog(tmp_path / "t.csv", SDSS)
        with pytest.raises(InputError, match="'object_id' should hold whole numbers or text"):
            read_photometry(native(2) | {"object_id": np.array([1.5, 2.0])}, SDSS)


def magnitudes_of(table):
    """The same galaxies, a careless user's way."""
    mags = dict(table)
    for band in BANDS:
        flux = np.maximum(table[f"flux_{band}"], 0.1)
        mags[f"flux_{band}"] = 22.5 - 2.5 * np.log10(flux)
        mags[f"flux_err_{band}"] = table[f"flux_err_{band}"] / flux / 0.921
    return mags


def bands_of(table, bands):
    kept = [
        "object_id",
        "redshift",
        *(f"flux_{b}" for b in bands),
        *(f"flux_err_{b}" for b in bands),
    ]
    return {name: table[name] for name in kept}


class TestMagnitudes:
    @staticmethod
    def sample():
        table = pa.parquet.read_table(load_sample_catalog_path())
        return {name: table[name].to_numpy() for name in table.column_names}

    @pytest.mark.parametrize("n_rows", [1, 5, 100, 10_000])
    @pytest.mark.parametrize("bands", ["ugriz", "gr"])
    def test_sdss_magnitudes_are_refused(self, n_rows, bands):
        table = {k: v[:n_rows] for k, v in self.sample().items()}
        with pytest.raises(InputError, match=r"magnitudes .* expects fluxes: convert them with"):
            read_photometry(bands_of(magnitudes_of(table), bands), SDSS)

    @pytest.mark.parametrize("band", "gri")
    def test_magnitudes_of_one_band_are_refused(self, band):
        with pytest.raises(InputError, match="magnitudes"):
            read_photometry(bands_of(magnitudes_of(self.sample()), band), SDSS)

    def test_round_magnitudes_of_a_few_galaxies_are_refused(self):
        table = native(3)
        for band, mag in zip(BANDS, (19.1, 18.0, 17.5, 17.2, 17.0), strict=True):
            table[f"flux_{band}"], table[f"flux_err_{band}"] = np.full(3, mag), np.full(3, 0.05)
        with pytest.raises(InputError, match="magnitudes"):
            read_photometry(table, SDSS)

    @pytest.mark.parametrize("bands", ["ugriz", "u", "g", "r", "ug", "iz"])
    def test_sdss_fluxes_are_not(self, bands):
        """The worst part of the sample: galaxies faint in u, all of them, and one at a time."""
        table = bands_of(self.sample(), bands)
        read_photometry(table, SDSS)
        faint = (table[f"flux_{bands[0]}"] > 8) & (table[f"flux_{bands[0]}"] < 35)
        read_photometry({k: v[faint] for k, v in table.items()}, SDSS)
        for row in range(0, 10_000, 100):
            read_photometry({k: v[row : row + 1] for k, v in table.items()}, SDSS)

    @settings(max_examples=100, deadline=None)
    @given(
        seed=st.integers(0, 2**32 - 1),
        n_rows=st.integers(1, 200),
        width=st.floats(0, 3),
        colour=st.floats(-0.3, 1.5),
        bands=st.sampled_from(["ugriz", "gri", "r"]),
    )
    def test_simulated_fluxes_are_not(self, seed, n_rows, width, colour, bands):
        """S/N 1-200 at any flux and colour up to 0.3 dex bluer than flat, centred on 17 nmgy."""
        rng = np.random.default_rng(seed)
        table = {"object_id": np.arange(n_rows), "redshift": np.full(n_rows, 0.1)}
        log_flux = 1.23 + rng.normal(0, width, n_rows)
        for i, band in enumerate(bands):
            flux = 10 ** (log_flux + colour * i / 4 + rng.normal(0, 0.1, n_rows))
            sigma = flux / 200 ** rng.uniform(0, 1, n_rows)
            table[f"flux_{band}"] = flux + sigma * rng.normal(size=n_rows)
            table[f"flux_err_{band}"] = sigma
        read_photometry(table, SDSS)


class TestSample:
    def test_it_is_what_the_layout_gives_on_the_original(self):
        if not KCORRECT.exists():
            pytest.skip(f"{KCORRECT} is not here: the sample can not be compared with its source")
        original = open_catalog(KCORRECT, SDSS)
        assert original.layout.name == "sdss-kcorrect"
        (expected,) = original.chunks(10_000)
        (sample,) = open_catalog(load_sample_catalog_path(), SDSS).chunks(10_000)
        np.testing.assert_array_equal(sample.object_id, expected.object_id)
        np.testing.assert_array_equal(sample.redshift, expected.redshift)
        np.testing.assert_array_equal(sample.mask, expected.mask)
        np.testing.assert_allclose(sample.flux, expected.flux, rtol=1e-7)
        np.testing.assert_allclose(sample.sigma, expected.sigma, rtol=1e-7)
        ivar = fits.getdata(KCORRECT)["MODELFLUX_IVAR"][:1].astype(float)
        assert sample.sigma[0, 0] > 1 / np.sqrt(ivar[0, 0])

    def test_it_is_small_and_whole(self):
        assert load_sample_catalog_path().stat().st_size <= 1.5e6
        (sample,) = open_catalog(load_sample_catalog_path(), SDSS).chunks(10_000)
        assert len(sample) == 10_000
        assert sample.usable.all()
        assert sample.mask.all()
        assert np.sum(sample.flux <= 0) == 12


class TestResults:
    COLUMNS = {"object_id": np.array([3, 1, 2]), "x": np.array([0.5, np.nan, -1.0])}

    def test_parquet_keeps_columns_and_metadata(self, tmp_path):
        write_parquet(tmp_path / "t.parquet", self.COLUMNS, {"seed": "0"})
        table = pa.parquet.read_table(tmp_path / "t.parquet")
        assert table["object_id"].to_pylist() == [3, 1, 2]
        np.testing.assert_array_equal(table["x"].to_numpy(), self.COLUMNS["x"])
        assert table.schema.metadata[b"seed"] == b"0"
        assert [p.name for p in tmp_path.iterdir()] == ["t.parquet"]

    def test_table_by_suffix(self, tmp_path):
        write_table(tmp_path / "t.csv", self.COLUMNS)
        assert (tmp_path / "t.csv").read_text().startswith('"object_id","x"\n3,0.5\n')
        write_table(tmp_path / "t.parquet", self.COLUMNS)
        assert pa.parquet.read_table(tmp_path / "t.parquet").num_rows == 3
        with pytest.raises(InputError, match="expected a name in .parquet or .csv"):
            write_table(tmp_path / "t.txt", self.COLUMNS)

    @pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.json"])
    def test_a_full_disk_is_said_and_leaves_nothing(self, tmp_path, name):
        if not Path("/dev/full").exists():
            pytest.skip("/dev/full is not here: no disk that is always full")
        path = tmp_path / name
        path.write_text("what was there before")
        (tmp_path / f"{name}.part").symlink_to("/dev/full")
        with pytest.raises(InputError, match="the disk is full; free some space"):
            write_json(path, [1]) if name == "t.json" else write_table(path, self.COLUMNS)
        assert path.read_text() == "what was there before"
        assert [p.name for p in tmp_path.iterdir()] == [name]

    def test_a_folder_that_is_not_there(self, tmp_path):
        with pytest.raises(InputError, match="can not be written: No such file or directory"):
            write_json(tmp_path / "no" / "t.json", {})

    def test_json_refuses_what_it_can_not_say(self, tmp_path):
        with pytest.raises(ValueError, match="JSON compliant"):
            write_json(tmp_path / "t.json", {"x": np.nan})
        assert not list(tmp_path.iterdir())
