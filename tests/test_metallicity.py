"""Metallicity histories: constant, two coefficients, enrichment with the mass formed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinsley.sps.bases import SfhBases
from tinsley.sps.metallicity import Z_MIST, ConstantMetallicity, Enrichment, NmfMetallicity
from tinsley.sps.ssp import Z_SUN

TIME = np.array([0.5, 4.0, 10.0])
LINES = SfhBases(TIME, np.stack([6.0 - 0.5 * TIME, 0.25 * TIME]))  # two straight lines
HISTORIES = {
    "constant": ConstantMetallicity,
    "nmf": lambda: NmfMetallicity(LINES),
    "enrichment": Enrichment,
}
N_BINS = 42
CENTRE_GYR = jnp.asarray(np.linspace(0.05, 12.0, N_BINS)[None])
log10_zs = st.floats(-2.2, 0.4)
f_bursts, t_bursts = st.floats(0.0, 1.0), st.floats(0.01, 13.0)


def theta(log10_z=0.1, gammas=(2e-3, 3e-3), t_burst_gyr=1.0):
    values = {"log10_z_zsun": log10_z, "t_burst_gyr": t_burst_gyr}
    values |= {"gamma_1": gammas[0], "gamma_2": gammas[1]}
    return {name: jnp.asarray([value], dtype=float) for name, value in values.items()}


def mass(f_burst=0.2):
    shape = np.exp(-np.linspace(0, 2, N_BINS))
    return jnp.asarray((1 - f_burst) * shape / shape.sum(), dtype=float)[None]


@pytest.mark.parametrize("make", HISTORIES.values(), ids=HISTORIES.keys())
@given(log10_z=log10_zs, f_burst=f_bursts, t_burst_gyr=t_bursts)
def test_metallicities_are_finite_within_limits(make, log10_z, f_burst, t_burst_gyr):
    history = make()
    at = theta(log10_z, t_burst_gyr=t_burst_gyr)
    for value in (
        history.of_bins(at, CENTRE_GYR, mass(f_burst))[0],
        history.of_burst(at, CENTRE_GYR, mass(f_burst)),
    ):
        assert np.all((value > -2.7) & (value < 0.41))
    assert {name for prior in history.priors() for name in prior.names} <= set(at)


@given(log10_zs)
def test_constant_is_constant(log10_z):
    history = ConstantMetallicity()
    at = theta(log10_z)
    np.testing.assert_array_equal(history.of_bins(at, CENTRE_GYR, mass()), at["log10_z_zsun"][0])
    np.testing.assert_array_equal(history.of_burst(at, CENTRE_GYR, mass()), at["log10_z_zsun"])


# --- two coefficients ------------------------------------------------------------------------


@given(t_gyr=st.floats(0.0, 13.8), g1=st.floats(1e-4, 4e-3), g2=st.floats(1e-4, 4e-3))
def test_nmf_is_the_sum_of_the_bases_drawn_on_linearly(t_gyr, g1, g2):
    expected = np.clip(g1 * (6.0 - 0.5 * t_gyr) + g2 * 0.25 * t_gyr, *Z_MIST)
    history, at = NmfMetallicity(LINES), theta(gammas=(g1, g2), t_burst_gyr=t_gyr)
    centre = jnp.full((1, N_BINS), t_gyr)
    bins, burst = history.of_bins(at, centre, mass()), history.of_burst(at, centre, mass())
    np.testing.assert_allclose(Z_SUN * 10 ** np.asarray(bins, float), expected, rtol=2e-5)
    np.testing.assert_allclose(Z_SUN * 10 ** np.asarray(burst, float), expected, rtol=2e-5)


def test_nmf_stops_at_the_isochrones_limits():
    history = NmfMetallicity(LINES)
    for gammas, limit in (((1e-9, 1e-9), Z_MIST[0]), ((1.0, 1.0), Z_MIST[1])):
        log10_z = history.of_burst(theta(gammas=gammas), CENTRE_GYR, mass())
        np.testing.assert_allclose(Z_SUN * 10 ** np.asarray(log10_z, float), limit, rtol=1e-5)


# --- enrichment ------------------------------------------------------------------------------


@given(log10_z=st.floats(-2.0, 0.4), f_burst=f_bursts, t_burst_gyr=t_bursts)
def test_enrichment_grows_with_time_to_its_present_value(log10_z, f_burst, t_burst_gyr):
    history = Enrichment()
    at = theta(log10_z, t_burst_gyr=t_burst_gyr)
    z = Z_SUN * 10 ** np.asarray(history.of_bins(at, CENTRE_GYR, mass(f_burst))[0], float)
    assert np.all(np.diff(z) <= 1e-9)  # older stars have less metal
    assert z.min() >= history.z_start * (1 - 1e-5)
    assert z.max() <= Z_SUN * 10**log10_z * (1 + 1e-5)


def test_enrichment_is_linear_in_the_mass_formed():
    """Half the mass formed, half the way from 1e-4 to today's; by hand for three bins."""
    shares, z_now = np.array([0.2, 0.3, 0.5]), 0.02
    at = theta(float(np.log10(z_now / Z_SUN)), t_burst_gyr=0.01)
    centre = jnp.asarray([[1.0, 4.0, 9.0]])
    log10_z = Enrichment().of_bins(at, centre, jnp.asarray(shares, dtype=float)[None])
    formed_before = np.array([0.8 + 0.1, 0.5 + 0.15, 0.25])
    expected = 1e-4 + (z_now - 1e-4) * formed_before
    np.testing.assert_allclose(Z_SUN * 10 ** np.asarray(log10_z[0], float), expected, rtol=1e-5)


def test_enrichment_counts_the_burst():
    """A burst of half the mass at 5 Gyr: the younger bins come after it, the older before."""
    at = theta(0.0, t_burst_gyr=5.0)
    centre, shares = jnp.asarray([[1.0, 9.0]]), jnp.asarray([[0.25, 0.25]])
    z = Z_SUN * 10 ** np.asarray(Enrichment().of_bins(at, centre, shares)[0], float)
    grown = (z - 1e-4) / (Z_SUN - 1e-4)
    np.testing.assert_allclose(grown, [0.25 + 0.5 + 0.125, 0.125], rtol=1e-4)
    burst = Z_SUN * 10 ** float(Enrichment().of_burst(at, centre, shares)[0])
    assert (burst - 1e-4) / (Z_SUN - 1e-4) == pytest.approx(0.25 + 0.25, rel=1e-4)


@pytest.mark.parametrize("make", HISTORIES.values(), ids=HISTORIES.keys())
@pytest.mark.parametrize("log10_z", [-2.2, 0.4])
@pytest.mark.parametrize("f_burst", [0.0, 1.0])
def test_gradients_are_finite_at_the_priors_edges(make, log10_z, f_burst):
    history = make()

    def total(at):
        bins = history.of_bins(at, CENTRE_GYR, mass(f_burst))
        return jnp.sum(bins) + jnp.sum(history.of_burst(at, CENTRE_GYR, mass(f_burst)))

    gradient = jax.grad(total)(theta(log10_z, gammas=(4.5e-5, 1.5e-2), t_burst_gyr=0.01))
    assert all(np.all(np.isfinite(value)) for value in gradient.values())
