import jax.numpy as jnp
import numpy as np
import pytest
from astropy.cosmology import FlatLambdaCDM, LambdaCDM, Planck18

from tinsley.cosmology import default_cosmology, make_cosmology

MODELS = {
    "default": default_cosmology(),
    "curved": LambdaCDM(H0=60.0, Om0=0.4, Ode0=0.4),
    "massive neutrinos": Planck18,
}
REDSHIFTS = np.concatenate([np.geomspace(1e-4, 1.5, 200), np.linspace(0.3, 1.99, 100)])


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_tables_are_astropy(model):
    tables = make_cosmology(model)
    age_gyr = tables.age_gyr(jnp.asarray(REDSHIFTS, dtype=float))
    np.testing.assert_allclose(age_gyr, model.age(REDSHIFTS).to_value("Gyr"), rtol=3e-6)
    dl_mpc = 10 ** np.asarray(tables.log10_dl_mpc(jnp.asarray(REDSHIFTS, dtype=float)), float)
    expected = model.luminosity_distance(REDSHIFTS).to_value("Mpc")
    np.testing.assert_allclose(dl_mpc, expected, rtol=5e-6)


def test_default_is_flat_with_the_stated_parameters():
    model = default_cosmology()
    assert isinstance(model, FlatLambdaCDM)
    assert model.H0.to_value("km/(s Mpc)") == 67.7
    assert model.Om0 == 0.307


def test_nearby_distance_is_hubbles_law():
    """At z = 1e-6, where d_L / z comes from the limit."""
    dl_mpc = 10 ** float(make_cosmology().log10_dl_mpc(jnp.asarray(1e-6)))
    assert dl_mpc == pytest.approx(1e-6 * 299792.458 / 67.7, rel=1e-5)


def test_ages_fall_and_distances_grow_with_redshift():
    tables = make_cosmology()
    redshift = jnp.linspace(0.001, 1.9, 500)
    assert np.all(np.diff(tables.age_gyr(redshift)) < 0)
    assert np.all(np.diff(tables.log10_dl_mpc(redshift)) > 0)
