"""Catalogues whose redshifts have errors or a p(z): what is read, inferred and refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from test_catalogs import native, write_fits
from test_redshift import taught
from test_run import DRAWS, assert_same, columns, draws, galaxies
from test_surveys import write  # noqa: F401
from tinsley.catalog.run import RunSettings, run_catalog
from tinsley.errors import InputError
from tinsley.io.catalogs import open_catalog, read_photometry
from tinsley.io.results import write_csv, write_parquet
from tinsley.io.surveys import load_survey
from tinsley.observe.survey import with_redshift_range
from tinsley.posterior import Posterior
from tinsley.status import Redshift, Refine

NAN = np.nan
SDSS = load_survey("sdss")
GRID = np.linspace(0.045, 0.065, 9)
BUMP = np.exp(-0.5 * ((GRID - 0.055) / 0.003) ** 2)

# rows of `mixed`, of which each has its own kind of redshift
CASES = {
    # name: (redshift, error, p(z), grid, status or None, uncertain)
    "exact": (0.055, 0.0, NAN, GRID, None, False),
    "no error": (0.055, NAN, NAN, GRID, None, False),
    "narrow": (0.055, 1e-5, NAN, GRID, None, True),
    "wide": (0.055, 0.01, NAN, GRID, None, True),
    "negative redshift": (-0.002, 0.03, NAN, GRID, None, True),
    "p(z)": (NAN, NAN, BUMP, GRID, None, True),
    "p(z) before error": (0.3, -1.0, BUMP, GRID, None, True),
    "spike": (NAN, NAN, 1.0 * (np.arange(9) == 4), GRID, None, True),
    "negative error": (0.055, -0.01, NAN, GRID, "bad_input", False),
    "infinite error": (0.055, np.inf, NAN, GRID, "bad_input", False),
    "negative p(z)": (0.055, 0.01, BUMP - 0.1, GRID, "bad_input", False),
    "p(z) of zeros": (0.055, 0.01, 0 * BUMP, GRID, "bad_input", False),
    "p(z) with a hole": (0.055, 0.01, np.where(np.arange(9) == 2, NAN, BUMP), GRID, "bad_input",
                         False),
    "infinite p(z)": (0.055, 0.01, np.where(np.arange(9) == 2, np.inf, BUMP), GRID, "bad_input",
                      False),
    "falling grid": (0.055, 0.01, BUMP, GRID[::-1], "bad_input", False),
    "grid with a hole": (0.055, 0.01, BUMP, np.where(np.arange(9) == 2, NAN, GRID), "bad_input",
                         False),
    "error of nothing": (NAN, 0.01, NAN, GRID, "redshift_out_of_range", False),
    "exact outside": (0.3, 0.0, NAN, GRID, "redshift_out_of_range", False),
    "error outside": (0.1, 0.01, NAN, GRID, "redshift_out_of_range", True),
    "p(z) outside": (0.055, 0.0, BUMP, GRID + 0.1, "redshift_out_of_range", True),
}  # fmt: skip
N = len(CASES)
WORKS = np.array([case[4] is None for case in CASES.values()])


def mixed() -> dict[str, np.ndarray]:
    """One faint galaxy under many names; each row another kind of redshift."""
    made = {name: np.repeat(values[:1], N) for name, values in columns().items()}
    made["object_id"] = np.arange(N) + 5
    made["redshift"], made["redshift_err"] = (
        np.array([case[i] for case in CASES.values()]) for i in (0, 1)
    )
    made["redshift_pdf"] = np.stack([case[2] * np.ones(9) for case in CASES.values()])
    made["redshift_grid"] = np.stack([case[3] for case in CASES.values()])
    return made


def save(path, table):
    """A table with vector columns as Parquet."""
    arrays = {k: pa.array(list(v)) if v.ndim > 1 else pa.array(v) for k, v in table.items()}
    pq.write_table(pa.table(arrays), path)
    return path


@pytest.fixture(scope="module")
def loaded(small_loaded):
    posterior = taught(small_loaded.posterior, small_loaded.spec.redshift_range)
    return dataclasses.replace(small_loaded, posterior=posterior)


@pytest.fixture(scope="module")
def run(loaded, tmp_path_factory):
    def run(table=None, out=None, on_chunk=lambda rows: None, **settings):
        folder = tmp_path_factory.mktemp("run")
        catalog = open_catalog(save(folder / "g.parquet", table or mixed()), SDSS)
        chosen = RunSettings(**({"draws": DRAWS, "refine": Refine.NEVER} | settings))
        run_catalog(loaded, catalog, None, out or folder / "out", chosen, on_chunk)
        return out or folder / "out"

    return run


@pytest.fixture(scope="module")
def whole(run):
    return run()


def row(name: str) -> int:
    return list(CASES).index(name)


# --- runs ---


@pytest.mark.slow
def test_each_row_has_its_status(whole):
    table = galaxies(whole)
    for (name, case), status in zip(CASES.items(), table["status"], strict=True):
        assert status == case[4] if case[4] else status in ("ok", "low_ess"), name
    assert np.all(np.isfinite(table["ess"]) == WORKS)


@pytest.mark.slow
def test_redshifts_are_among_the_results_of_every_row(whole, small_spec):
    table = galaxies(whole)
    low, high = small_spec.redshift_range
    mean, std = (np.array(table[f"redshift_{end}"])[WORKS] for end in ("mean", "std"))
    names = [name for name, works in zip(CASES, WORKS, strict=True) if works]
    assert np.all((mean >= low) & (mean <= high))
    found = dict(zip(names, zip(mean, std, strict=True), strict=True))
    for name in ("exact", "no error"):
        assert found[name] == (np.float32(0.055), 0.0)
    assert found["narrow"] == pytest.approx((0.055, 1e-5), abs=3e-6)
    assert 1e-3 < found["wide"][1] < 0.003  # as wide as the range
    assert found["negative redshift"][0] == pytest.approx(0.055, abs=0.004)
    assert found["p(z)"][1] == pytest.approx(0.002, abs=0.0015)
    assert found["p(z) before error"][0] == pytest.approx(found["p(z)"][0], abs=0.003)
    assert found["spike"][1] == pytest.approx(0.001, abs=3e-4)  # a triangle of half width 0.0025
    drawn = draws(whole)["redshift"].reshape(-1, DRAWS)
    assert len(drawn) == WORKS.sum()
    assert np.all(drawn[0] == np.float32(0.055))
    assert np.all((drawn >= np.float32(low)) & (drawn <= np.float32(high)))
    assert len(np.unique(drawn[names.index("p(z)")])) > DRAWS / 2


@pytest.mark.slow
def test_exact_rows_keep_their_bits_beside_uncertain_ones(whole, run):
    plain = {k: v for k, v in mixed().items() if k not in ("redshift_err", "redshift_pdf")}
    before, after = galaxies(run(plain)), galaxies(whole)
    assert "redshift_mean" not in before
    for name, values in before.items():
        np.testing.assert_array_equal(values[:2], after[name][:2], err_msg=name)
    assert set(after) - set(before) == {
        "best_redshift", *(f"redshift_{end}" for end in ("mean", "std", "q16", "q50", "q84"))
    }  # fmt: skip


@pytest.mark.slow
def test_chunks_order_and_a_restart_change_nothing(whole, run, tmp_path):
    order = np.random.default_rng(1).permutation(N)
    shuffled = {name: values[order] for name, values in mixed().items()}
    assert_same(whole, run(shuffled, chunk=3), order)

    def kill(rows):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(out=tmp_path / "out", chunk=4, on_chunk=kill)
    assert_same(whole, run(out=tmp_path / "out", chunk=4))


def test_free_redshifts_read_none_of_it(loaded, tmp_path):
    path = save(tmp_path / "g.parquet", mixed())
    catalog = open_catalog(path, SDSS, needs_redshift=False)
    assert catalog.redshift_known_by == ()
    seen = next(catalog.chunks(N))
    assert seen.redshift_prior is None
    assert np.all(seen.usable)


def test_a_model_that_was_not_taught_says_so(small_loaded, tmp_path):
    catalog = open_catalog(save(tmp_path / "g.parquet", mixed()), SDSS)
    with pytest.raises(InputError, match=r"model small needs exact redshifts; the catalogue has "
                                         r"redshift_err and redshift_pdf\. Teach it"):  # fmt: skip
        run_catalog(small_loaded, catalog, None, tmp_path / "out", RunSettings())
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_refined_rows_of_uncertain_redshifts_end_well(run):
    made = {name: values[[0, row("narrow"), row("p(z)")]] for name, values in mixed().items()}
    for k, band in enumerate("ugriz"):  # too well measured for an untrained flow
        made[f"flux_{band}"][1:] = 10 * [8.0, 25.0, 40.0, 50.0, 55.0][k]
        made[f"flux_err_{band}"][1:] = made[f"flux_{band}"][1:] / 60
    found = galaxies(run(made, refine=Refine.AUTO))
    assert found["method"][1:] == ["smc", "smc"]
    assert min(found["ess"]) > 100
    assert found["redshift_mean"][1] == pytest.approx(0.055, abs=1e-5)


# --- reading ---


def with_pdf(n_rows=7):
    grid = np.linspace(0.0, 0.5, 6)
    table = native(n_rows)
    pdf = np.exp(-0.5 * ((table["redshift"][:, None] - grid) / 0.05) ** 2)
    pdf[3] = NAN
    return table | {
        "redshift_err": np.full(n_rows, 0.02),
        "redshift_pdf": pdf,
        "redshift_grid": np.tile(grid, (n_rows, 1)),
    }


def test_all_formats_give_the_same_priors(tmp_path):
    table = with_pdf()
    write_fits(tmp_path / "t.fits", table)
    save(tmp_path / "t.parquet", table)
    expected = read_photometry(table, SDSS)
    assert expected.uncertain.all()
    paths = (tmp_path / "t.fits", tmp_path / "t.parquet")
    others = [next(open_catalog(path, SDSS).chunks()) for path in paths]
    for other in others:
        for name in ("node", "density", "cumulative"):
            one, two = (getattr(x.redshift_prior, name) for x in (expected, other))
            np.testing.assert_array_equal(one, two)
    pieces = list(open_catalog(tmp_path / "t.parquet", SDSS).chunks(3))
    np.testing.assert_array_equal(pieces[1].redshift_prior.node, expected.redshift_prior.node[3:6])


def test_data_frames_hold_vectors_too():
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    table = with_pdf()
    frame = pandas.DataFrame({k: list(v) if v.ndim > 1 else v for k, v in table.items()})
    one, two = (read_photometry(made, SDSS).redshift_prior.node for made in (table, frame))
    np.testing.assert_array_equal(one, two)


def test_errors_are_read_from_csv(tmp_path):
    write_csv(
        tmp_path / "t.csv", native() | {"redshift_err": np.array([0.01, 0, NAN] + [0.02] * 4)}
    )
    seen = next(open_catalog(tmp_path / "t.csv", SDSS).chunks())
    assert seen.uncertain.tolist() == [True, False, False] + [True] * 4


def test_a_range_cuts_what_is_known():
    seen = with_redshift_range(read_photometry(with_pdf(), SDSS), 0.1, 0.2)
    assert np.nanmin(seen.redshift_prior.node) >= 0.1
    assert np.nanmax(seen.redshift_prior.node) <= 0.2
    assert set(seen.status) <= {"", "redshift_out_of_range"}


NEW = """
name = "new"
bands = ["g", "r"]
filters = ["sdss2010-g", "sdss2010-r"]
[[layouts]]
name = "photoz"
redshift = []
flux = "F_{band}"
error = "E_{band}"
error_kind = "sigma"
"""


def test_a_layout_names_its_columns(write):  # noqa: F811
    survey = load_survey(write(NEW + 'redshift_pdf = "PZ"\nredshift_grid = [0.0, 0.1, 0.3]\n'))
    table = {f"{kind}_{band}": np.ones(4) for kind in "FE" for band in "gr"}
    seen = read_photometry(table | {"PZ": np.tile([0.0, 2.0, 0.0], (4, 1))}, survey)
    assert seen.uncertain.all()
    np.testing.assert_allclose(seen.redshift_prior.node[:, :4], np.tile([0, 0.1, 0.3, 0.3], (4, 1)))
    errors = NEW.replace("redshift = []", 'redshift = "Z"\nredshift_err = ["ZERR", "E_Z"]')
    survey = load_survey(write(errors))
    seen = read_photometry(table | {"Z": np.full(4, 0.1), "E_Z": np.full(4, 0.01)}, survey)
    assert seen.uncertain.all()
    assert not read_photometry(table | {"Z": np.full(4, 0.1)}, survey).uncertain.any()


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ('redshift_pdf = "PZ"', "give redshift_pdf and redshift_grid together"),
        ("redshift_grid = [0.1, 0.2]", "give redshift_pdf and redshift_grid together"),
        ('redshift_pdf = "PZ"\nredshift_grid = [0.1, 0.1]', "at least two increasing numbers"),
        ('redshift_pdf = "PZ"\nredshift_grid = ["a", "b"]', "at least two increasing numbers"),
        ('redshift_pdf = "PZ"\nredshift_grid = [0.1]', "at least two increasing numbers"),
        ("redshift_pdf = 1\nredshift_grid = [0.1, 0.2]", "expected a word in quotes"),
        ("redshift_err = 1", "expected a list of words"),
    ],
)
def test_faulty_layouts_are_refused(lines, words, write):  # noqa: F811
    with pytest.raises(InputError, match=words):
        load_survey(write(NEW + lines + "\n"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"redshift_grid": None}, "lacks column redshift_grid of layout 'native'"),
        ({"redshift_grid": np.zeros((7, 5))}, r"'redshift_pdf', as many .*; got \(6,\) and \(5,\)"),
        ({"redshift_grid": np.zeros(7)}, r"got \(6,\) and \(\)"),
        ({"redshift_pdf": np.zeros(7)}, r"got \(\) and \(6,\)"),
        ({"redshift_pdf": np.full(7, "a")}, "column 'redshift_pdf' should hold numbers"),
        ({"redshift_err": np.zeros((7, 2))}, r"numbers in column 'redshift_err'; got \(2,\)"),
        ({"redshift_pdf": [[1.0], [1.0, 2.0]] * 3 + [[1.0]]}, "should hold numbers"),
    ],
)
def test_columns_of_other_shapes_are_refused(change, words):
    table = {k: v for k, v in (with_pdf() | change).items() if v is not None}
    with pytest.raises(InputError, match=words):
        read_photometry(table, SDSS)


@pytest.mark.parametrize("size", [100, 2])  # in one piece, and from piece to piece
def test_vectors_of_several_lengths_are_refused(size, tmp_path):
    vectors = [[0.0, 1.0, 2.0]] * 4 + [[0.0, 1.0]] * 3
    arrays = {k: pa.array(v) for k, v in native().items()}
    arrays |= {"redshift_pdf": pa.array(vectors), "redshift_grid": pa.array(vectors)}
    pq.write_table(pa.table(arrays), tmp_path / "t.parquet", row_group_size=size)
    with pytest.raises(InputError, match=r"the vectors in column 'redshift_\w+' differ in length"):
        list(open_catalog(tmp_path / "t.parquet", SDSS).chunks(7))


@pytest.mark.parametrize("kind", [pa.list_(pa.float64()), pa.list_(pa.float64(), 2)])
def test_rows_without_a_vector_are_refused(kind, tmp_path):
    arrays = {k: pa.array(v) for k, v in native().items()}
    arrays["redshift_pdf"] = pa.array([[0.0, 1.0]] * 6 + [None], kind)
    arrays["redshift_grid"] = pa.array([[0.0, 1.0]] * 7, kind)
    pq.write_table(pa.table(arrays), tmp_path / "t.parquet")
    with pytest.raises(InputError, match="some rows have no vector in column 'redshift_pdf'"):
        open_catalog(tmp_path / "t.parquet", SDSS)


def test_an_error_without_redshifts_is_not_enough(tmp_path):
    table = native() | {"redshift_err": np.ones(7)}
    del table["redshift"]
    write_parquet(tmp_path / "t.parquet", table, {})
    with pytest.raises(InputError, match="lacks column redshift of layout"):
        open_catalog(tmp_path / "t.parquet", SDSS)


# --- Python ---


@pytest.fixture(scope="module")
def posterior(loaded):
    return Posterior(loaded, SDSS)


QUICK = {"draws": DRAWS, "refine": "never"}


def arrays(rows):
    table = mixed()
    flux, error = (np.stack([table[f"{n}_{b}"] for b in "ugriz"], 1) for n in ("flux", "flux_err"))
    return {"flux": flux[rows], "flux_err": error[rows], "object_id": table["object_id"][rows]}


@pytest.mark.slow
def test_python_gives_the_same(posterior, whole):
    expected = galaxies(whole)["redshift_q50"]
    table = posterior.infer(mixed(), **QUICK)
    np.testing.assert_array_equal(table.table["redshift_q50"], expected)
    few = [row(name) for name in ("exact", "no error", "narrow", "wide")]
    made = mixed()
    result = posterior.infer(**arrays(few), redshift=made["redshift"][few],
                             redshift_err=made["redshift_err"][few], **QUICK)  # fmt: skip
    np.testing.assert_array_equal(result.table["redshift_q50"], np.array(expected)[few])
    some = [row(name) for name in ("p(z)", "spike", "p(z) of zeros", "negative p(z)")]
    result = posterior.infer(**arrays(some), redshift=(GRID, made["redshift_pdf"][some]), **QUICK)
    np.testing.assert_array_equal(result.table["redshift_q50"], np.array(expected)[some])
    assert result.status[2:].tolist() == ["bad_input"] * 2
    one = posterior.infer(**arrays([row("p(z)")]), redshift=(GRID, BUMP), **QUICK)
    assert one.table["redshift_q50"][0] == np.array(expected)[row("p(z)")]
    assert "z = 0.05" in result.plot_corner(0, ("redshift", "tau_ism"))._suptitle.get_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"redshift": (GRID, BUMP[:-1])}, r"redshift=\(z, pdf\) of shapes \(n,\) and \(3, n\)"),
        ({"redshift": (GRID, np.ones((2, 9)))}, r"got \(9,\) and \(2, 9\)"),
        ({"redshift": (GRID[:1], np.ones(1))}, "n at least 2"),
        ({"redshift": (GRID[::-1], BUMP)}, "finite and to increase"),
        ({"redshift": (np.full(9, NAN), BUMP)}, "finite and to increase"),
        ({"redshift": (["a"] * 9, BUMP)}, "expected numbers for the redshifts and p"),
        ({"redshift": (GRID, BUMP), "redshift_err": 0.1}, "beside numbers for redshift only"),
        ({"redshift": "free", "redshift_err": 0.1}, "beside numbers for redshift only"),
        ({"redshift": None, "redshift_err": 0.1}, "beside numbers for redshift only"),
        ({"redshift": 0.055, "redshift_err": [0.1, 0.2]}, "expected 3 values of redshift_err"),
        ({"redshift": 0.055, "redshift_err": "wide"}, "expected numbers for redshift_err; got"),
    ],
)
def test_wrong_arguments(change, words, posterior):
    with pytest.raises(InputError, match=words):
        posterior.infer(**arrays([0, 1, 2]), **change, **QUICK)


@pytest.mark.slow
def test_a_pair_of_numbers_is_two_redshifts(posterior):
    result = posterior.infer(**arrays([0, 1]), redshift=(0.052, 0.058), **QUICK)
    assert result.table["redshift"].tolist() == [0.052, 0.058]
    assert "redshift" not in result.draws


def test_python_refuses_for_a_model_that_was_not_taught(small_loaded):
    with pytest.raises(InputError, match="needs exact redshifts; the catalogue has redshift_err"):
        Posterior(small_loaded, SDSS).infer(**arrays([0]), redshift=0.055, redshift_err=0.01)


def test_settings_say_given():
    assert RunSettings().redshift == Redshift.GIVEN
