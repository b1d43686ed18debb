"""A finished population read back from its folder."""

from __future__ import annotations

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tinsley.cosmology import make_cosmology
from tinsley.errors import InputError
from tinsley.io.catalogs import open_catalog
from tinsley.io.models import build_model, build_tables
from tinsley.io.populations import (
    load_population,
    member_folder,
    read_prior,
    read_whole_rows,
    save_population,
)
from tinsley.io.results import write_parquet
from tinsley.io.surveys import load_survey
from tinsley.observe.noise import SnrGivenFlux
from tinsley.observe.survey import FLUX_PER_MAG
from tinsley.parameters import default_space
from tinsley.population.density import MIXTURE, make_population
from tinsley.population.space import PopulationSpace
from tinsley.population.synthetic import parse_selection

CONFIG = MIXTURE | {"components": 2}


@pytest.fixture
def folder(tmp_path):
    """As a run with a restarted second member would leave it."""
    space = default_space()
    nodes = jnp.asarray([[15.0, 25.0]] * 5)
    manifest = {
        "space": space.to_dict(),
        "redshift_range": [0.01, 0.6],
        "config": {"density": CONFIG},
        "select": "r < 19.8",
        "bands": list("ugriz"),
        "noise": SnrGivenFlux(nodes, nodes * 0 + 1, nodes * 0 + 0.1).to_dict(),
        "members": [{"member": 0, "restarts": 0}, {"member": 1, "restarts": 1}],
    }
    columns = {"member": np.repeat([0, 1], 3), "redshift": np.linspace(0.1, 0.5, 6)}
    save_population(tmp_path, columns, manifest, seed=1)
    for number, shift in ((0, 0.3), (1, -0.2)):
        path = member_folder(tmp_path, number, number)
        path.mkdir(parents=True)
        member = make_population(CONFIG, 1 + space.n_unit, key=jax.random.key(9))
        eqx.tree_serialise_leaves(
            path / "best.eqx", eqx.tree_at(lambda m: m.mean, member, member.mean + shift)
        )
    return tmp_path


def test_everything_comes_back(folder):
    found = load_population(folder)
    assert found.columns["redshift"].shape == (6,)
    assert found.space.redshift_range == (0.01, 0.6)
    assert found.space.n_dim == 1 + default_space().n_unit
    assert [float(m.mean[0, 0]) for m in found.members] == pytest.approx([0.3, -0.2])
    assert found.selection.flux_min[2] == pytest.approx(10 ** (0.4 * (22.5 - 19.8)))
    assert isinstance(found.noise, SnrGivenFlux)


@pytest.mark.parametrize("quoted", [0.04, 1e-9])
def test_errors_are_those_that_the_table_quotes(tmp_path, quoted):
    """Not with the floor, which galaxies share; of an error far below it a tenth of the floor."""
    survey, flux = load_survey("sdss"), np.linspace(10, 1000, 4)
    columns = {"object_id": np.arange(4)}
    for band in survey.bands:
        columns |= {f"flux_{band}": flux, f"flux_err_{band}": quoted * flux}
    write_parquet(tmp_path / "rows.parquet", columns, {})
    catalog = open_catalog(tmp_path / "rows.parquet", survey, needs_redshift=False)
    rows, counts = read_whole_rows(catalog, parse_selection("", survey.bands))
    assert counts["used"] == 4
    floor = survey.error_floor_mag * FLUX_PER_MAG
    expected = np.maximum(quoted, 0.1 * floor)
    np.testing.assert_allclose(rows.sigma, expected * flux[:, None], rtol=1e-6)


def test_galaxies_at_other_redshifts_do_not_shift_a_prior(tmp_path):
    """Beyond the range they would lie on its edge, five standard deviations out."""
    wide, space = (
        PopulationSpace(default_space(), make_cosmology(), ends)
        for ends in ((0.01, 0.6), (0.1, 0.3))
    )
    theta = wide.theta(jax.random.normal(jax.random.key(0), (1500, wide.n_dim)))
    write_parquet(tmp_path / "all.parquet", {k: np.asarray(v) for k, v in theta.items()}, {})
    found = read_prior(str(tmp_path / "all.parquet"), space, build_model(), None)
    inside = (theta["redshift"] > 0.1) & (theta["redshift"] < 0.3)
    x = np.asarray(space.unbounded({name: value[inside] for name, value in theta.items()}))
    np.testing.assert_allclose(found.mean, x.mean(axis=0), atol=1e-3)
    narrow = PopulationSpace(default_space(), make_cosmology(), (0.1, 0.11))
    with pytest.raises(InputError, match="at redshifts 0.1-0.11"):
        read_prior(str(tmp_path / "all.parquet"), narrow, build_model(), None)


@pytest.mark.slow
def test_a_prior_by_name_centres_the_references_on_its_galaxies():
    """More volume lies far away, and most galaxies are small; of all else it says nothing."""
    physics = build_model()
    _, derived_tables = build_tables(load_survey("sdss").filters, (0.01, 0.6), physics)
    space = PopulationSpace(default_space(), make_cosmology(), (0.01, 0.6))
    found = read_prior("volume_mass_function", space, physics, derived_tables)
    redshift, mass, *rest = np.asarray(found.mean)
    width = np.sqrt(np.diagonal(found.factor @ found.factor.T))
    assert redshift == pytest.approx(0.74, abs=0.05)
    assert width[0] == pytest.approx(0.77, abs=0.05)
    assert mass == pytest.approx(-0.83, abs=0.1)  # its low end is that of the mass function
    assert np.abs(rest).max() < 0.15
    with pytest.raises(InputError, match="volumes"):
        read_prior("volumes", space, physics, derived_tables)


def test_what_is_no_finished_run_is_refused(folder):
    with pytest.raises(InputError, match="holds no finished population"):
        load_population(folder / "members")
    manifest = json.loads((folder / "manifest.json").read_text())
    weights = member_folder(folder, 1, 1) / "best.eqx"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(InputError, match="does not hold the weights"):
        load_population(folder)
    manifest.pop("noise")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="older version"):
        load_population(folder)
