"""Star-formation histories: bins, bases, normalisation, and their tables over redshift."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from tinsley.io.histories import load_sfh_bases
from tinsley.parameters import BETAS
from tinsley.sps.bases import SfhBases
from tinsley.sps.galaxy import RedshiftGrid, make_history, redshift_grid
from tinsley.sps.sfh import (
    EDGES_GYR,
    N_BINS,
    basis_mass,
    bin_centres_gyr,
    bin_edges_gyr,
    mass_before_gyr,
    n_young_bins,
)

ages = st.floats(0.5, 13.79)


@pytest.fixture(scope="module")
def bases():
    return load_sfh_bases()


@pytest.fixture(scope="module")
def history(small_model):
    return make_history(small_model, redshift_grid(0.005, 1.5))


# --- bins ------------------------------------------------------------------------------------


def test_bins_are_those_of_provabgs():
    assert len(EDGES_GYR) == 43
    assert EDGES_GYR[0] == 0.0
    np.testing.assert_allclose(EDGES_GYR[1], 1.1220e-3, rtol=1e-4)
    np.testing.assert_allclose(EDGES_GYR[-2:], [11.2202, 13.8], rtol=1e-4)
    np.testing.assert_allclose(np.diff(np.log10(EDGES_GYR[1:-1])), 0.1)


@given(ages)
def test_bins_end_at_the_galaxys_age(age_gyr):
    edges, middles = bin_edges_gyr(age_gyr), bin_centres_gyr(age_gyr)
    assert edges[0] == 0
    assert edges[-1] == age_gyr
    assert np.all(np.diff(edges) >= 0)
    assert np.all((middles >= edges[:-1]) & (middles <= edges[1:]))
    kept = EDGES_GYR < age_gyr
    np.testing.assert_array_equal(edges[kept], EDGES_GYR[kept])


@pytest.mark.parametrize(("t_gyr", "number"), [(0.0112202, 11), (0.01, 10), (0.1, 20), (0.0, 0)])
def test_young_bins_end_before_the_birth_cloud_does(t_gyr, number):
    assert n_young_bins(t_gyr) == number
    assert np.all(EDGES_GYR[1:][:number] <= t_gyr * 1.001)


# --- bases -----------------------------------------------------------------------------------


@pytest.mark.parametrize("age_gyr", [1.0, 5.9, 13.79])
def test_mass_of_a_bin_is_the_integral_of_the_basis(bases, age_gyr):
    mass, edges = basis_mass(bases, age_gyr), bin_edges_gyr(age_gyr)
    for k in range(4):
        for i in (0, 5, 20, 30, 36, 41):
            knots = bases.lookback_gyr[
                (bases.lookback_gyr > edges[i]) & (bases.lookback_gyr < edges[i + 1])
            ]
            expected = quad(
                lambda t, k=k: np.interp(t, bases.lookback_gyr, bases.sfr[k]),
                edges[i],
                edges[i + 1],
                points=knots if len(knots) else None,
                limit=500,
            )[0]
            assert mass[k, i] == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_bases_go_on_linearly_beyond_their_table():
    """A line is integrated as that line on both sides of its table, 2 to 10 Gyr."""
    line = SfhBases(np.array([2.0, 5.0, 10.0]), np.array([[4.0, 7.0, 12.0]]))
    at = np.array([0.0, 0.5, 2.0, 7.0, 13.8])
    np.testing.assert_allclose(mass_before_gyr(line, at)[0], 2 * at + at**2 / 2, rtol=1e-12)


@given(ages)
def test_bins_hold_all_mass_up_to_the_age(age_gyr):
    bases = load_sfh_bases()
    total = mass_before_gyr(bases, np.array([age_gyr]))[:, 0]
    np.testing.assert_allclose(basis_mass(bases, age_gyr).sum(axis=1), total, rtol=1e-12)


# --- histories of galaxies -------------------------------------------------------------------


def one_galaxy(shares, f_burst, t_burst_gyr, redshift):
    shares = np.asarray(shares) / np.sum(shares)
    theta = dict(zip(BETAS, shares, strict=True))
    theta |= {"f_burst": f_burst, "t_burst_gyr": t_burst_gyr, "redshift": redshift}
    return {name: jnp.asarray([value], dtype=float) for name, value in theta.items()}


@given(
    shares=st.lists(st.floats(0.001, 1.0), min_size=4, max_size=4),
    f_burst=st.floats(0.0, 1.0),
    t_burst_gyr=st.floats(0.01, 13.27),
    redshift=st.floats(0.005, 1.5),
)
def test_bins_and_burst_sum_to_one(history, shares, f_burst, t_burst_gyr, redshift):
    theta = one_galaxy(shares, f_burst, t_burst_gyr, redshift)
    mass, middles = history.bins(theta)
    burst = float(history.f_burst(theta)[0])
    assert mass.shape == middles.shape == (1, N_BINS)
    assert float(mass.min()) >= 0
    assert float(mass.sum()) + burst == pytest.approx(1.0, abs=2e-6)
    age_gyr = float(history.cosmology.age_gyr(theta["redshift"])[0])
    assert burst == (pytest.approx(f_burst, abs=1e-6) if t_burst_gyr <= age_gyr else 0.0)
    assert float(middles.max()) <= age_gyr * 1.0001


def test_betas_weigh_the_bases_before_the_cut(history, bases):
    """PROVABGS: the sum is normalised after the cut, so betas are no mass fractions."""
    redshift, beta = float(history.grid.nodes[200]), np.array([0.1, 0.2, 0.3, 0.4])
    mass, _ = history.bins(one_galaxy(beta, 0.25, 1.0, redshift))
    age_gyr = float(history.cosmology.age_gyr(jnp.asarray(redshift)))
    uncut = beta @ basis_mass(bases, age_gyr)
    np.testing.assert_allclose(mass[0], 0.75 * uncut / uncut.sum(), rtol=2e-4, atol=1e-8)


# --- tables over redshift --------------------------------------------------------------------


@given(st.floats(0.004, 1.5))
def test_redshift_lies_between_its_nodes(redshift):
    grid = RedshiftGrid(0.004, 1.51, 57)
    low, share = grid.locate(jnp.asarray(redshift))
    below, above = np.log1p(grid.nodes[int(low)]), np.log1p(grid.nodes[int(low) + 1])
    assert 0 <= float(share) <= 1
    assert below + float(share) * (above - below) == pytest.approx(np.log1p(redshift), abs=1e-6)


def test_redshifts_outside_take_the_ends():
    grid = RedshiftGrid(0.1, 1.0, 5)
    low, share = grid.locate(jnp.asarray([0.0, 0.1, 1.0, 5.0]))
    np.testing.assert_allclose(low + share, [0.0, 0.0, 4.0, 4.0], atol=1e-5)


@pytest.mark.parametrize(("z_min", "z_max"), [(0.01, 0.6), (0.002, 0.01), (0.005, 1.5)])
def test_usual_grid_covers_its_range(z_min, z_max):
    grid = redshift_grid(z_min, z_max)
    assert 0 < grid.z_min < z_min
    assert grid.z_max > z_max
    assert np.diff(np.log1p(grid.nodes)).max() < 0.0041
