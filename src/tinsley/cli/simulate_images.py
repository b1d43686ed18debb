"""`tinsley simulate-images`: galaxies with photometry and images, whose truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tinsley.cli.console import announce, progress

if TYPE_CHECKING:
    from jaxtyping import Array

    from tinsley.observe.gallery import GalaxyImages
    from tinsley.observe.noise import SigmaGivenFlux
    from tinsley.observe.survey import Survey

CHUNK = 256
"""Images drawn, and written, together."""


def simulate_images(
    out: Annotated[Path, typer.Option(help="Folder to write; the same command goes on with it.")],
    number: Annotated[int, typer.Option(min=1, help="Galaxies.")] = 1000,
    pixels: Annotated[int, typer.Option(min=16, max=512, help='Side of an image, 0.396".')] = 128,
    bands: Annotated[str, typer.Option(help='Bands of the images: letters of "ugriz".')] = "gri",
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed.")] = 0,
    redshift_min: Annotated[float, typer.Option(min=0.005, max=0.49)] = 0.02,
    redshift_max: Annotated[float, typer.Option(min=0.01, max=0.5)] = 0.15,
    mag_min: Annotated[float, typer.Option(help="Brightest measured r magnitude.")] = 16.0,
    mag_max: Annotated[float, typer.Option(help="Faintest measured r magnitude.")] = 17.78,
    psf_scale: Annotated[
        float, typer.Option(help="Factor on the width of all point-spread functions.")
    ] = 1.0,
    noise_scale: Annotated[float, typer.Option(help="Factor on the images' noise.")] = 1.0,
    size_scale: Annotated[float, typer.Option(help="Factor on all half-light radii.")] = 1.0,
) -> None:
    """Draw bulge + disc galaxies and observe them as SDSS would: catalogue, images, truth.

    Each component has its own star-formation history, metallicity and dust; inclination dims the
    disc. Writes into the folder OUT:

    images.h5: `images` [N, y, x, band], nanomaggies per pixel, sky subtracted; `object_id` [N].

    galaxies.parquet: one row an image: object_id, redshift, flux_* and flux_err_* in ugriz (layout
    `native`), the five properties log10_mstar_surviving_msun, log10_sfr_100myr_msun_yr,
    log10_z_mw_zsun, dn4000 and a_v_mag, the SPS parameters of the whole galaxy, and what it is made
    of.

    cutouts.png: some of them in colour, where the images have three bands or more.

    The three scales are for galaxies that differ from those a model was trained on; they leave
    photometry and properties as they are. The same seed with a greater number begins with the same
    galaxies.

    Example: tinsley simulate-images --number 20000 --pixels 64 --out training
    """
    import jax
    import numpy as np

    from tinsley.io.image_sets import ImageSetFolder, load_image_set
    from tinsley.observe.images import SDSS_PIXEL_ARCSEC, SDSS_SKY_NMGY, sdss_camera
    from tinsley.observe.profiles import make_sersic_table
    from tinsley.plot.cutouts import COLUMNS, ROWS, cutouts_figure

    _check(bands, (redshift_min, redshift_max), (mag_min, mag_max), noise_scale, size_scale)
    setup = {
        "number": number, "pixels": pixels, "bands": bands, "seed": seed,
        "redshift_range": [redshift_min, redshift_max], "mag_range": [mag_min, mag_max],
        "psf_scale": psf_scale, "noise_scale": noise_scale, "size_scale": size_scale,
    }  # fmt: skip
    key_scenes, key_noise = jax.random.split(jax.random.key(seed))
    gallery, survey = _gallery(setup, key_scenes)
    folder = ImageSetFolder(out, setup)
    camera = sdss_camera(bands, pixels, make_sersic_table(), noise_scale=noise_scale)
    with progress("drawing", "{task.completed:,}/{task.total:,}") as bar:
        task = bar.add_task("", total=number)
        for chunk, start in enumerate(range(0, number, CHUNK)):
            stop = min(start + CHUNK, number)
            if not folder.has(chunk):
                images = gallery.images(camera, start, stop, key=key_noise)
                folder.save(chunk, np.asarray(images))
            bar.advance(task, stop - start)
    attributes = {"bands": bands, "unit": "nanomaggy / pixel", "pixel_arcsec": SDSS_PIXEL_ARCSEC}
    folder.finish(gallery.table(survey.bands), attributes | {"seed": seed})
    if len(bands) >= 3:
        shown = min(number, 20 * ROWS * COLUMNS)
        three = np.moveaxis(load_image_set(out, 0, shown), -1, 1)[:, [0, len(bands) // 2, -1]]
        noise = noise_scale * SDSS_SKY_NMGY[bands[len(bands) // 2]]
        truth = {name: values[:shown] for name, values in gallery.properties.items()}
        cutouts_figure(three, truth, noise).savefig(out / "cutouts.png")
    announce(out, f"{number:,} galaxies with images of {pixels} x {pixels} in {bands}")


def _gallery(setup: dict[str, Any], key: Array) -> tuple[GalaxyImages, Survey]:
    """The galaxies, and the survey that sees them."""
    import jax.numpy as jnp

    from tinsley.errors import InputError
    from tinsley.io.models import build_model, build_tables
    from tinsley.io.surveys import load_survey
    from tinsley.observe.gallery import make_gallery
    from tinsley.observe.indices import make_index_tables
    from tinsley.observe.scenes import SceneModel, sample_scenes
    from tinsley.observe.survey import FLUX_PER_MAG
    from tinsley.sps.galaxy import redshift_grid

    survey, physics = load_survey("sdss"), build_model()
    ends = tuple(setup["redshift_range"])
    tables, derived_tables = build_tables(survey.filters, ends, physics)
    model = SceneModel(
        tables=tables,
        noise=_quoted_errors(survey),
        floor=tuple(FLUX_PER_MAG * float(floor) for floor in survey.error_floor_mag),
        redshift_range=ends,
        mag_range=jnp.asarray(setup["mag_range"]),
    )
    try:
        scenes = sample_scenes(model, setup["number"], key=key)
    except ValueError as problem:
        raise InputError(str(problem)) from problem
    gallery = make_gallery(
        scenes,
        derived_tables,
        make_index_tables(physics, redshift_grid(*ends)),
        bands=setup["bands"],
        size_scale=setup["size_scale"],
        psf_scale=setup["psf_scale"],
    )
    return gallery, survey


def _quoted_errors(survey: Survey) -> SigmaGivenFlux:
    """Errors of the survey's own catalogue, given the flux, without the floor."""
    from tinsley.io.catalogs import load_noise_catalog
    from tinsley.observe.noise import fit_sigma_given_flux

    known = load_noise_catalog(survey)
    return fit_sigma_given_flux(
        known.flux, survey.measured_sigma(known.flux, known.sigma), known.mask
    )


def _check(
    bands: str,
    redshifts: tuple[float, float],
    mags: tuple[float, float],
    noise_scale: float,
    size_scale: float,
) -> None:
    from tinsley.errors import InputError

    if not bands or len(set(bands)) < len(bands) or not set(bands) <= set("ugriz"):
        raise InputError(f'expected --bands of different letters of "ugriz"; got {bands!r}.')
    for name, (low, high) in (("redshift", redshifts), ("mag", mags)):
        if not low < high:
            raise InputError(f"expected --{name}-min below --{name}-max; got {low} and {high}.")
    for name, value in (("noise", noise_scale), ("size", size_scale)):
        if not 0 < value <= 100:
            raise InputError(f"expected --{name}-scale above 0, at most 100; got {value}.")
