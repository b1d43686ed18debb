"""From simulated galaxies to their images and their properties."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from tinsley.cosmology import Cosmology
from tinsley.errors import InputError
from tinsley.observe.images import (
    MIN_FWHM_PIXELS,
    SDSS_PIXEL_ARCSEC,
    SDSS_PSF_FWHM_ARCSEC,
    SDSS_PSF_SCATTER,
    Camera,
    Shapes,
    observed_images,
)
from tinsley.observe.indices import indices
from tinsley.observe.morphology import (
    CIRCULARISED,
    arcsec_per_kpc,
    early_type_radius_kpc,
    late_type_radius_kpc,
    radius_scatter,
)
from tinsley.observe.photometry import BandTables
from tinsley.observe.scenes import Scenes
from tinsley.observe.whole import whole_parameters
from tinsley.rng import split_id
from tinsley.sps.derived import DerivedTables, derived

PROPERTIES = (
    "log10_mstar_surviving_msun",
    "log10_sfr_100myr_msun_yr",
    "log10_z_mw_zsun",
    "dn4000",
    "a_v_mag",
)
"""What images help to infer: see docs/images.md."""
SDSS_BANDS = "ugriz"
R_BAND = SDSS_BANDS.index("r")
SURVIVES = "log10_mstar_surviving_msun"
SFR = "log10_sfr_100myr_msun_yr"


@dataclass(frozen=True)
class GalaxyImages:
    """Simulated galaxies, ready to be drawn.

    Attributes:
        scenes: Their stars and looks.
        shapes: What the camera sees, in its bands.
        properties: `PROPERTIES` and the rest of the truth, each [n].
    """

    scenes: Scenes
    shapes: Shapes
    properties: dict[str, np.ndarray]

    def images(
        self, camera: Camera, start: int, stop: int, *, key: Array
    ) -> Float[Array, "n band y x"]:
        """Images of some of the galaxies, nanomaggies per pixel, whatever others are drawn.

        Args:
            camera: In the bands of `shapes`.
            start: Number of the first galaxy, from 0, which is its name too.
            stop: Number after the last.
            key: Of the run.
        """
        rows = Shapes(*(values[start:stop] for values in self.shapes))
        words = jnp.asarray(split_id(np.arange(start, stop)))
        return observed_images(camera, rows, words, key=key)

    def table(self, bands: Sequence[str]) -> dict[str, np.ndarray]:
        """Names, redshifts, measured fluxes in the bands (layout `native`), and the truth."""
        flux, error = (np.asarray(v, float) for v in (self.scenes.flux, self.scenes.error))
        columns = {
            "object_id": np.arange(len(flux)),
            "redshift": np.asarray(self.scenes.disc["redshift"], float),
        }
        for b, band in enumerate(bands):
            columns |= {f"flux_{band}": flux[:, b], f"flux_err_{band}": error[:, b]}
        return columns | self.properties


def make_gallery(
    scenes: Scenes,
    derived_tables: DerivedTables,
    index_tables: BandTables,
    *,
    bands: str,
    size_scale: float = 1.0,
    psf_scale: float = 1.0,
) -> GalaxyImages:
    """Properties of galaxies, and their looks in some bands.

    Args:
        scenes: From `tinsley.observe.scenes.sample_scenes`.
        derived_tables: Of the same physics.
        index_tables: From `tinsley.observe.indices.make_index_tables`.
        bands: Letters of the bands to draw, of "ugriz", which are the bands of the scenes.
        size_scale: Factor on all radii.
        psf_scale: Factor on the widths of all point-spread functions.

    Raises:
        InputError: They would be narrower than pixels can sample.
    """
    narrowest = min(SDSS_PSF_FWHM_ARCSEC[name] for name in bands) / np.exp(2 * SDSS_PSF_SCATTER)
    least = MIN_FWHM_PIXELS * SDSS_PIXEL_ARCSEC / narrowest
    if psf_scale < least:
        raise InputError(
            f"expected a scale of the point-spread functions of at least {least:.2f}, so that "
            f"pixels can sample them; got {psf_scale:g}."
        )
    of_disc, of_bulge = (derived(derived_tables, t) for t in (scenes.disc, scenes.bulge))
    cosmology = derived_tables.history.cosmology
    radii = _radii_arcsec(scenes, 10 ** of_disc[SURVIVES], 10 ** of_bulge[SURVIVES], cosmology)
    looks = scenes.looks
    fwhm = jnp.asarray([SDSS_PSF_FWHM_ARCSEC[name] for name in bands], dtype=float)
    seeing = psf_scale * jnp.exp(SDSS_PSF_SCATTER * looks["seeing"])
    columns = np.asarray([SDSS_BANDS.index(name) for name in bands])
    shapes = Shapes(
        bulge_flux=scenes.bulge_flux[:, columns],
        disc_flux=scenes.disc_flux[:, columns],
        bulge_radius_arcsec=size_scale * radii[0],
        disc_radius_arcsec=size_scale * radii[1],
        bulge_axis_ratio=looks["bulge_axis_ratio"],
        disc_axis_ratio=looks["disc_axis_ratio"],
        sersic_index=looks["sersic_index"],
        position_angle_rad=looks["position_angle_rad"],
        offset_pixels=jnp.stack([looks["offset_x_pixels"], looks["offset_y_pixels"]], axis=-1),
        psf_fwhm_arcsec=seeing[:, None] * fwhm,
    )
    truth = _total(scenes, of_disc, of_bulge) | indices(index_tables, (scenes.disc, scenes.bulge))
    truth = {name: truth[name] for name in PROPERTIES} | _appearance(scenes, shapes)
    recent = (of_disc[SFR], of_bulge[SFR])
    truth |= whole_parameters(scenes, derived_tables.history, recent, R_BAND) | _parts(scenes)
    return GalaxyImages(scenes, shapes, {k: np.asarray(v, float) for k, v in truth.items()})


@eqx.filter_jit
def _total(scenes: Scenes, of_disc: dict, of_bulge: dict) -> dict[str, Array]:
    """Properties of disc and bulge together."""
    share = scenes.looks["bulge_fraction"]
    z = (1 - share) * 10 ** scenes.disc["log10_z_zsun"] + share * 10 ** scenes.bulge["log10_z_zsun"]
    return {
        SURVIVES: jnp.log10(10 ** of_disc[SURVIVES] + 10 ** of_bulge[SURVIVES]),
        SFR: jnp.log10(10 ** of_disc[SFR] + 10 ** of_bulge[SFR]),
        "log10_z_mw_zsun": jnp.log10(z),
    }


@eqx.filter_jit
def _appearance(scenes: Scenes, shapes: Shapes) -> dict[str, Array]:
    """The rest of the truth, for the table."""
    light = scenes.bulge_flux / (scenes.bulge_flux + scenes.disc_flux)
    axes = ("disc_axis_ratio", "bulge_axis_ratio")
    looks = ("bulge_fraction", "cos_inclination", *axes, "sersic_index")
    radii = {f"{c}_radius_arcsec": getattr(shapes, f"{c}_radius_arcsec") for c in ("disc", "bulge")}
    fluxes = {
        f"{component}_flux_{band}": getattr(scenes, f"{component}_flux")[:, b]
        for component in ("disc", "bulge")
        for b, band in enumerate(SDSS_BANDS)
    }
    return (
        {"bulge_to_total_r": light[:, R_BAND]}
        | fluxes
        | {name: scenes.looks[name] for name in looks}
        | radii
        | {"psf_fwhm_arcsec": shapes.psf_fwhm_arcsec[:, 0]}
    )


def _parts(scenes: Scenes) -> dict[str, Array]:
    """The parameters of each component, but for what is common to both."""
    return {
        f"{name}_{component}": values
        for component in ("disc", "bulge")
        for name, values in getattr(scenes, component).items()
        if name not in ("redshift", "n_dust")
    }


@eqx.filter_jit
def _radii_arcsec(
    scenes: Scenes, disc_msun: Array, bulge_msun: Array, cosmology: Cosmology
) -> tuple[Array, Array]:
    """Half-light radii of bulge and disc along their major axes.

    A disc is as large as late-type galaxies of the whole galaxy's mass are, a bulge as early-type
    galaxies of its own mass.
    """
    angle = arcsec_per_kpc(cosmology, scenes.disc["redshift"])
    whole, looks = disc_msun + bulge_msun, scenes.looks
    disc = CIRCULARISED * late_type_radius_kpc(whole)
    disc = disc * jnp.exp(radius_scatter(whole) * looks["disc_size"])
    bulge = early_type_radius_kpc(bulge_msun)
    bulge = bulge * jnp.exp(radius_scatter(bulge_msun) * looks["bulge_size"])
    return angle * bulge, angle * disc
