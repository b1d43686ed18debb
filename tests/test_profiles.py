"""Profiles: closed forms, and GalSim, which shares nothing with them."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from tinsley.observe.profiles import (
    GaussianPsf,
    MoffatPsf,
    exponential_transform,
    make_sersic_table,
    sersic_b,
    sersic_brightness,
)

Q = np.array([0.0, 0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 30.0, 200.0, 1000.0])


@pytest.fixture(scope="module")
def table():
    return make_sersic_table()


def floats(values):
    return jnp.asarray(values, dtype=float)


def test_sersic_of_index_one_is_the_exponential(table):
    ours = table.transform(floats(1.0), floats(Q))
    np.testing.assert_allclose(ours, exponential_transform(floats(Q)), atol=2e-5)


def test_sersic_of_index_one_half_is_a_gaussian(table):
    sigma = 1 / np.sqrt(2 * np.log(2))
    ours = table.transform(floats(0.5), floats(Q))
    np.testing.assert_allclose(ours, np.exp(-0.5 * (Q * sigma) ** 2), atol=3e-5)


@pytest.mark.parametrize("index", [1.3, 2.06, 4.0, 5.4])
def test_sersic_agrees_with_galsim_also_between_nodes(table, index):
    galsim = pytest.importorskip("galsim")
    params = galsim.GSParams(kvalue_accuracy=1e-8)
    profile = galsim.Sersic(n=index, half_light_radius=1.0, gsparams=params)
    theirs = [profile.kValue(float(q), 0.0).real for q in Q]
    np.testing.assert_allclose(table.transform(floats(index), floats(Q)), theirs, atol=2e-4)


def test_indices_beyond_the_table_count_as_its_ends(table):
    for beyond, end in ((0.1, 0.5), (9.0, 8.0)):
        there, here = (table.transform(floats(n), floats(Q)) for n in (beyond, end))
        np.testing.assert_array_equal(there, here)


def test_a_table_has_limits():
    with pytest.raises(ValueError, match="expected Sersic indices"):
        make_sersic_table(0.3, 4.0)


@pytest.mark.parametrize("index", [1.0, 2.5, 4.0, 6.0])
def test_brightness_holds_unit_flux_half_of_it_inside(index):
    def ring(radius):
        return 2 * np.pi * radius * float(sersic_brightness(floats(index), floats(radius)))

    inside = quad(lambda u: ring(u**4) * 4 * u**3, 1e-9, 1.0, epsrel=1e-5)[0]
    assert inside == pytest.approx(0.5, abs=3e-4)


def test_series_of_b():
    n = np.linspace(1.0, 8.0, 29)
    radius = np.full_like(n, 3.0)
    ratio = sersic_brightness(floats(n), floats(radius)) / sersic_brightness(
        floats(n), floats(np.ones_like(n))
    )
    b = -np.log(np.asarray(ratio, float)) / (3.0 ** (1 / n) - 1)
    np.testing.assert_allclose(b, [sersic_b(value) for value in n], rtol=1e-4)


@pytest.mark.parametrize("beta", [2.5, 3.5, 4.5])
def test_moffat_agrees_with_galsim(beta):
    galsim = pytest.importorskip("galsim")
    profile = galsim.Moffat(beta=beta, fwhm=1.0)
    q = np.array([0.0, 0.1, 0.5, 1.0, 3.0, 8.0])
    theirs = [profile.kValue(k, 0.0).real for k in q]
    np.testing.assert_allclose(MoffatPsf(beta).transform(floats(q)), theirs, atol=1e-6)


def test_gaussian_has_its_width():
    """Half of the peak at half the FWHM, by the inverse transform."""
    k = np.linspace(0.0, 60.0, 6001)
    transform = np.asarray(GaussianPsf().transform(floats(k)), float)
    from scipy.special import j0

    peak, half = (np.trapezoid(k * transform * j0(k * r), k) for r in (0.0, 0.5))
    assert half / peak == pytest.approx(0.5, abs=1e-4)


def test_other_moffats_are_refused():
    with pytest.raises(ValueError, match="beta 2.5, 3.5 or 4.5"):
        MoffatPsf(3.0)
