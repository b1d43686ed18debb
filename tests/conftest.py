"""Fixtures that several test modules share.

`small_*` is a whole posterior on made-up physics (black bodies, five bands), which takes a second
to make: no calibration, no realism, but every part is the real one.
"""

from __future__ import annotations

import gc
import os
import zlib
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import settings

from tinsley.density.flows import COUPLING, make_flow
from tinsley.infer.amortized import AmortizedPosterior
from tinsley.infer.features import n_features
from tinsley.infer.simulator import Simulator
from tinsley.infer.spec import PosteriorSpec
from tinsley.io.histories import load_sfh_bases
from tinsley.io.models import (
    LoadedPosterior,
    Networks,
    load_posterior,
    physics_checksums,
    save_model,
)
from tinsley.observe.filters import Filter
from tinsley.observe.noise import BroadNoise
from tinsley.observe.photometry import make_band_tables
from tinsley.parameters import default_space
from tinsley.sps.derived import make_derived_tables
from tinsley.sps.galaxy import GalaxyModel, RedshiftGrid
from tinsley.sps.ssp import SspGrid

settings.register_profile("tinsley", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("tinsley")

if kept := os.environ.get("JAX_COMPILATION_CACHE_DIR"):
    # A worker that reads what another is writing would warn, and warnings are errors here.
    worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")
    jax.config.update("jax_compilation_cache_dir", str(Path(kept) / worker))

SMALL_FLOW = COUPLING | {
    "layers": 2,
    "width": 16,
    "depth": 1,
    "knots": 4,
    "embedding_width": 16,
    "embedding_depth": 1,
    "embedding_size": 8,
}
SMALL_GRID = RedshiftGrid(0.008, 0.605, 24)
SMALL_WAVE_AA = {"u": 3550.0, "g": 4770.0, "r": 6230.0, "i": 7630.0, "z": 9130.0}


MOST_MAPS = 40_000
"""Memory maps of a process from where on compiled programs are dropped. Linux allows 65,530; a
worker that has run most of the suite gets there, and then XLA aborts it."""


@pytest.fixture(scope="module", autouse=True)
def _compiled_programs_do_not_pile_up():
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MOST_MAPS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def key(request) -> jax.Array:
    """A random key that follows from the test's name."""
    return jax.random.key(zlib.crc32(request.node.name.encode()))


@pytest.fixture(scope="session")
def tiny_ssp() -> SspGrid:
    """A made-up grid of black bodies that fade and redden: 3 metallicities, 8 ages, 50 waves."""
    log10_z_zsun = np.array([-1.5, -0.5, 0.3])
    log10_age_yr = np.linspace(6.0, 10.2, 8)
    wave_rest_aa = np.geomspace(912.0, 50_000.0, 50)
    temperature_k = 25_000 * 10 ** (-0.17 * (log10_age_yr - 6) - 0.05 * log10_z_zsun[:, None])
    x = 1.4388e8 / (wave_rest_aa * temperature_k[..., None])
    shape = wave_rest_aa**-5.0 / np.expm1(x)
    bolometric_lsun = 1e3 * 10 ** (-0.8 * (log10_age_yr - 6))
    scale = bolometric_lsun[:, None] / np.trapezoid(shape, wave_rest_aa)[..., None]
    return SspGrid(
        log10_z_zsun=log10_z_zsun,
        log10_age_yr=log10_age_yr,
        wave_rest_aa=wave_rest_aa,
        lum_lsun_aa=scale * shape,
        live_fraction=np.tile(np.linspace(1.0, 0.45, 8), (3, 1)),
        name="tiny",
        about={"source": "made up"},
    )


@pytest.fixture(scope="session")
def small_filters() -> tuple[Filter, ...]:
    """Five triangular bands about where ugriz are."""
    shape = np.array([0.0, 1.0, 0.0])
    return tuple(
        Filter(f"small-{name}", wave_aa * np.array([0.92, 1.0, 1.08]), shape)
        for name, wave_aa in SMALL_WAVE_AA.items()
    )


@pytest.fixture(scope="session")
def small_model(tiny_ssp) -> GalaxyModel:
    """The embedded histories with the light of black bodies."""
    return GalaxyModel(tiny_ssp, load_sfh_bases())


@pytest.fixture(scope="session")
def small_posterior(small_model, small_filters) -> AmortizedPosterior:
    """An untrained posterior on a coarse redshift grid, 0.008-0.605."""
    space = default_space()
    n_dim = space.without_mass().n_unit
    return AmortizedPosterior(
        flow=make_flow(SMALL_FLOW, n_features(len(small_filters)), n_dim, key=jax.random.key(1)),
        space=space,
        tables=make_band_tables(small_model, small_filters, SMALL_GRID),
        derived_tables=make_derived_tables(small_model, SMALL_GRID),
    )


@pytest.fixture(scope="session")
def small_simulator(small_posterior) -> Simulator:
    """Simulations for `small_posterior`: S/N 1-100, z 0.01-0.6."""
    noise = BroadNoise(1.0, 100.0)
    return Simulator(small_posterior.space, small_posterior.tables, noise, (0.01, 0.6))


@pytest.fixture
def own_cache(monkeypatch, tmp_path_factory) -> None:
    """Keep band tables in a folder of the test run, not in the user's."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def small_spec(small_posterior) -> PosteriorSpec:
    """A model of SDSS on the embedded physics, over a narrow range of redshifts."""
    return PosteriorSpec(
        name="small",
        survey="sdss",
        bands=tuple(SMALL_WAVE_AA),
        filters=tuple(f"sdss2010-{band}" for band in SMALL_WAVE_AA),
        space=small_posterior.space.to_dict(),
        redshift_range=(0.05, 0.06),
        snr_range=(1.0, 100.0),
        flow=SMALL_FLOW,
        colour_limits={"redshift": [0.05, 0.06], "ratio": [[4.0] * 4] * 2},
        **physics_checksums(),
    )


@pytest.fixture(scope="session")
def small_model_file(small_spec, small_posterior, tmp_path_factory) -> Path:
    """`small_spec` with untrained weights, as a file."""
    path = tmp_path_factory.mktemp("models") / "small.tinsley"
    save_model(path, small_spec, Networks(small_posterior.flow))
    return path


@pytest.fixture(scope="session")
def small_loaded(small_model_file) -> LoadedPosterior:
    """The same, loaded."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", str(small_model_file.parent / "cache"))
        return load_posterior(small_model_file)
