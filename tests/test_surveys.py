"""Survey files: what ships, what a new one needs, and what is refused."""

import numpy as np
import pytest

from tinsley.errors import InputError
from tinsley.io.catalogs import load_noise_catalog, read_photometry
from tinsley.io.surveys import load_survey, survey_names
from tinsley.observe.survey import NATIVE, Quality

SMALLEST = """
name = "tiny"
bands = ["g", "r"]
filters = ["hsc2017-g", "hsc2017-r"]
"""

LAYOUT = """
[[layouts]]
name = "theirs"
redshift = "zspec"
flux = "f{band}"
error = "e{band}"
error_kind = "sigma"
"""


@pytest.fixture
def write(tmp_path):
    def write(text, name="tiny.toml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.mark.parametrize("name", survey_names())
def test_every_survey_that_ships_loads(name):
    survey = load_survey(name)
    assert survey.name == name
    assert survey.layouts[0] is NATIVE


def test_sdss_is_calibrated_as_kcorrect_does():
    survey = load_survey("sdss")
    assert survey.bands == ("u", "g", "r", "i", "z")
    assert survey.filters[0] == "sdss2010-u"
    assert survey.error_floor_mag.tolist() == [0.05, 0.02, 0.02, 0.02, 0.03]
    assert survey.ab_offset_mag.tolist() == [-0.036, 0.012, 0.010, 0.028, 0.040]
    assert survey.layout_names == ("native", "sdss-kcorrect", "nsa")


def test_floors_add_in_quadrature_and_come_off_again():
    survey = load_survey("sdss")
    flux = np.array([[10.0, -20.0, 30.0, 40.0, 0.0]])
    error = np.full((1, 5), 0.3)
    sigma = survey.total_sigma(flux, error)
    floor = np.array([0.05, 0.02, 0.02, 0.02, 0.03]) * 0.4 * np.log(10) * np.abs(flux)
    np.testing.assert_allclose(sigma, np.sqrt(0.09 + floor**2))
    np.testing.assert_allclose(survey.measured_sigma(flux, sigma), error)


def test_a_new_survey_is_a_toml_file_only(write):
    survey = load_survey(write(SMALLEST + LAYOUT + "unit_nmgy = 0.5\n"))
    table = {"zspec": [0.1], "fg": [2.0], "eg": [0.2], "fr": [4.0], "er": [0.4]}
    seen = read_photometry(table, survey)
    assert seen.object_id.tolist() == [0]
    np.testing.assert_allclose(seen.flux, [[1.0, 2.0]])
    np.testing.assert_allclose(seen.sigma, [[0.1, 0.2]])
    assert survey.noise["snr_max"] == 200.0


def test_errors_may_be_correlated(write):
    survey = load_survey(write(SMALLEST + "error_correlation = [[1, 0.5], [0.5, 1.0]]\n"))
    np.testing.assert_array_equal(survey.error_correlation, [[1, 0.5], [0.5, 1]])
    assert load_survey("sdss").error_correlation is None


def test_noise_catalogue_is_found_beside_the_survey_file(write, tmp_path):
    (tmp_path / "mine.csv").write_text(
        "object_id,redshift,flux_g,flux_err_g\n1,0.1,5,1\n2,nan,5,1\n3,0.3,6,1\n"
    )
    survey = load_survey(write(SMALLEST + '[noise]\ncatalog = "mine.csv"\n'))
    assert load_noise_catalog(survey).object_id.tolist() == [1, 3]


def test_a_survey_without_noise_catalogue_says_so(write):
    with pytest.raises(InputError, match="'tiny' names no catalogue"):
        load_noise_catalog(load_survey(write(SMALLEST)))


def test_quality_bits():
    cut = Quality("flags", reject_any=0b0011, reject_all=0b1100, require_all=0b10000)
    flags = np.array([0b10000, 0b10001, 0b10010, 0b10100, 0b11100, 0b00000])
    assert cut.fails(flags).tolist() == [False, True, True, False, True, True]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", "is not valid TOML"),
        ('name = "x"\nbands = ["g"]\n', "lacks filters"),
        (SMALLEST + "error_flor_mag = [0, 0]\n", "unknown key 'error_flor_mag'"),
        (SMALLEST.replace('"hsc2017-g", ', ""), "different bands with one filter each"),
        (SMALLEST.replace('"r"', '"g"'), "different bands with one filter each"),
        (SMALLEST.replace('"g", ', "1, "), "expected a word in quotes; got 1"),
        (SMALLEST + "error_floor_mag = [0.1]\n", "error_floor_mag needs 2 finite numbers"),
        (SMALLEST + "ab_offset_mag = [0.1, nan]\n", "ab_offset_mag needs 2 finite numbers"),
        (SMALLEST + "error_floor_mag = [0.1, -0.1]\n", "error_floor_mag can not be negative"),
        (SMALLEST + "[noise]\nsnr_min = 300\n", "0 < snr_min < snr_max; got 300"),
        (SMALLEST + "[noise]\nsnr = 3\n", "unknown key 'snr'"),
        (SMALLEST + "layouts = [1]\n", "expected a table"),
        (SMALLEST + LAYOUT.replace("theirs", "native"), "built in and the same for all"),
        (SMALLEST + LAYOUT.replace('"sigma"', '"percent"'), "error_kind is 'sigma' or 'ivar'"),
        (SMALLEST + LAYOUT.replace("f{band}", "FLUX"), "vector column 'FLUX' needs index"),
        (SMALLEST + LAYOUT.replace("f{band}", "F") + "index = [0, 0]\n", "needs index"),
        (SMALLEST + LAYOUT.replace("f{band}", "F") + "index = [0, -1]\n", "needs index"),
        (SMALLEST + LAYOUT + "index = 1\n", "index should be a list; got 1"),
        (SMALLEST + "layouts = 1\n", "layouts should be a list; got 1"),
        (SMALLEST + LAYOUT + 'needs = ["dust"]\n', "needs lists some of"),
        (SMALLEST + LAYOUT + "unit_nmgy = 0\n", "unit_nmgy is a positive number"),
        (SMALLEST + LAYOUT + 'ebv = "E"\nextinction = "A{band}"\n', "extinction or ebv, not both"),
        (SMALLEST + LAYOUT + "limit_sigmas = 0\n", "limit_sigmas is a positive number; got 0"),
        (SMALLEST + LAYOUT + 'limit = "LIM"\n', "vector column 'LIM' needs index"),
        (SMALLEST + LAYOUT + "limit = 3\n", "expected a word in quotes; got 3"),
        (SMALLEST + "error_correlation = 0.5\n", "error_correlation should be a list; got 0.5"),
        (SMALLEST + "error_correlation = [[1, 0]]\n", "needs 2 rows of 2 finite numbers"),
        (SMALLEST + "error_correlation = [[1, nan], [nan, 1]]\n", "2 rows of 2 finite numbers"),
        (SMALLEST + "error_correlation = [[1, 0.5], [0.4, 1]]\n", "symmetric, with 1 on its diag"),
        (SMALLEST + "error_correlation = [[2, 0.5], [0.5, 2]]\n", "symmetric, with 1 on its diag"),
        (SMALLEST + "error_correlation = [[1, 1], [1, 1]]\n", "positive definite, with eigenv"),
        (SMALLEST + LAYOUT + '[[layouts.quality]]\ncolumn = "q"\n', "positive whole numbers"),
    ],
)
def test_faulty_survey_files_are_refused(write, text, message):
    with pytest.raises(InputError, match=message):
        load_survey(write(text))


def test_unknown_surveys_are_refused_with_those_that_exist(tmp_path):
    with pytest.raises(InputError, match=r"no survey 'sdsss': expected one of gama, sdss, or"):
        load_survey("sdsss")
    with pytest.raises(InputError, match="can not be read: No such file"):
        load_survey(tmp_path / "gone.toml")
