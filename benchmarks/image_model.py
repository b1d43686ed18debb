"""The image model: how exact beside GalSim, and how fast.

    python benchmarks/image_model.py [--galaxies 24] [--images 1024]

Accuracy: random bulge + disc galaxies without noise, drawn by GalSim (2.7 or later) from the same
parameters: the largest difference of a pixel in units of the brightest pixel, and the difference of
the stamps' fluxes, for three ranges of size. Speed: images in three bands with noise; per second of
wall time (best of five), and per second of processor time on two cores, which does not count what
else the machine is doing. Break and attenuation: against full spectra.

Writes benchmarks/results/image_model.json.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import galsim
import jax
import jax.numpy as jnp
import numpy as np

from machine import machine
from tinsley.io.models import build_model
from tinsley.observe.exact import rest_spectrum
from tinsley.observe.images import (
    SDSS_PIXEL_ARCSEC,
    Shapes,
    noiseless_images,
    observed_images,
    sdss_camera,
)
from tinsley.observe.indices import VISUAL_AA, dn4000, indices, make_index_tables
from tinsley.observe.profiles import SersicTable, make_sersic_table
from tinsley.parameters import default_space
from tinsley.rng import split_id
from tinsley.sps.galaxy import redshift_grid

BANDS = "gri"
SIZES = {"small": (0.2, 1.0), "usual": (1.0, 4.0), "large": (4.0, 8.0)}
"""Half-light radii of discs, arcsec; bulges' are 0.1 to 1 times as large."""


def random_galaxies(number: int, radii: tuple[float, float], n_bands: int, seed: int) -> Shapes:
    """Shapes over the whole range of the simulations."""
    rng = np.random.default_rng(seed)
    radius = rng.uniform(*radii, number)
    values = (
        rng.uniform(5, 100, (number, 1)) * np.ones(n_bands),
        rng.uniform(5, 100, (number, 1)) * np.ones(n_bands),
        radius * rng.uniform(0.1, 1.0, number),
        radius,
        rng.uniform(0.4, 1.0, number),
        rng.uniform(0.15, 1.0, number),
        rng.uniform(1.0, 6.0, number),
        rng.uniform(0, np.pi, number),
        rng.uniform(-0.5, 0.5, (number, 2)),
        rng.uniform(1.0, 1.8, (number, 1)) * np.ones(n_bands),
    )
    return Shapes(*(jnp.asarray(v, dtype=float) for v in values))


def galsim_stamp(shapes: Shapes, row: int, n_pixels: int) -> np.ndarray:
    """One galaxy in the first band."""
    s = Shapes(*(np.asarray(v[row], float) for v in shapes))
    params = galsim.GSParams(
        folding_threshold=1e-3, maxk_threshold=1e-4, kvalue_accuracy=1e-6, maximum_fft_size=16384
    )

    def component(flux: np.ndarray, index: float, radius: float, ratio: float) -> Any:
        circle = float(radius * np.sqrt(ratio))
        whole = galsim.Sersic(
            n=float(index), half_light_radius=circle, flux=float(flux[0]), gsparams=params
        )
        return whole.shear(q=float(ratio), beta=float(s.position_angle_rad) * galsim.radians)

    bulge = component(s.bulge_flux, s.sersic_index, s.bulge_radius_arcsec, s.bulge_axis_ratio)
    disc = component(s.disc_flux, 1.0, s.disc_radius_arcsec, s.disc_axis_ratio)
    psf = galsim.Moffat(beta=3.5, fwhm=float(s.psf_fwhm_arcsec[0]), gsparams=params)
    seen = galsim.Convolve(bulge + disc, psf)
    return seen.drawImage(
        nx=n_pixels,
        ny=n_pixels,
        scale=SDSS_PIXEL_ARCSEC,
        offset=tuple(s.offset_pixels.tolist()),
        dtype=float,
    ).array


def accuracy(table: SersicTable, n_pixels: int, number: int) -> dict[str, Any]:
    """Differences from GalSim by range of sizes, percent."""
    out = {}
    for name, radii in SIZES.items():
        shapes = random_galaxies(number, radii, 1, seed=3)
        ours = np.asarray(noiseless_images(sdss_camera("r", n_pixels, table), shapes), float)[:, 0]
        theirs = np.stack([galsim_stamp(shapes, i, n_pixels) for i in range(number)])
        pixel = 100 * np.abs(ours - theirs).max((1, 2)) / theirs.max((1, 2))
        flux = 100 * np.abs(ours.sum((1, 2)) / theirs.sum((1, 2)) - 1)
        total = np.asarray(shapes.bulge_flux + shapes.disc_flux, float)[:, 0]
        out[name] = {
            "galaxies": number,
            "worst_pixel_percent_of_peak": round(float(pixel.max()), 4),
            "median_pixel_percent_of_peak": round(float(np.median(pixel)), 4),
            "worst_flux_percent": round(float(flux.max()), 4),
            "median_flux_percent": round(float(np.median(flux)), 4),
            "least_share_of_flux_in_stamp": round(float((theirs.sum((1, 2)) / total).min()), 3),
        }
        print(n_pixels, name, out[name], flush=True)
    return out


def speed(table: SersicTable, n_pixels: int, number: int) -> dict[str, float]:
    """Images with noise in three bands."""
    camera = sdss_camera(BANDS, n_pixels, table)
    shapes = random_galaxies(number, SIZES["usual"], len(BANDS), seed=1)
    words = jnp.asarray(split_id(np.arange(number)))
    wall, processor = [], []
    jax.block_until_ready(observed_images(camera, shapes, words, key=jax.random.key(0)))
    for _ in range(5):
        start, used = time.perf_counter(), time.process_time()
        jax.block_until_ready(observed_images(camera, shapes, words, key=jax.random.key(0)))
        wall.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
    return {
        "images": number,
        "per_s_wall": round(number / min(wall)),
        "per_s_of_two_cores": round(2 * number / min(processor)),
    }


def spectra(number: int) -> dict[str, float]:
    """Worst errors of break and attenuation over draws of the prior."""
    model, grid = build_model(), redshift_grid(0.02, 0.15)
    tables = make_index_tables(model, grid)
    redshift = jax.random.uniform(jax.random.key(0), (number,), minval=0.02, maxval=0.15)
    age_gyr = tables.history.cosmology.age_gyr(redshift)
    theta = default_space().sample(number, age_gyr, key=jax.random.key(1)) | {"redshift": redshift}
    ours, visual = indices(tables, [theta]), np.linspace(*VISUAL_AA, 2001)
    breaks, depths = [], []
    for i in range(number):
        row = {name: float(value[i]) for name, value in theta.items()}
        wave, seen = rest_spectrum(model, row)
        _, clear = rest_spectrum(model, row | {"tau_bc": 0.0, "tau_ism": 0.0})
        light = [np.interp(visual, wave, lum).sum() for lum in (seen, clear)]
        breaks.append(float(ours["dn4000"][i]) / dn4000(wave, seen) - 1)
        depths.append(float(ours["a_v_mag"][i]) + 2.5 * np.log10(light[0] / light[1]))
    return {
        "galaxies": number,
        "worst_dn4000_relative": float(f"{np.abs(breaks).max():.2g}"),
        "worst_a_v_mag": float(f"{np.abs(depths).max():.2g}"),
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--galaxies", type=int, default=24)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/image_model.json"))
    args = parser.parse_args()
    table = make_sersic_table()
    result: dict[str, Any] = {"machine": machine() | {"galsim": version("galsim")}, "bands": BANDS}

    def keep(name: str, value: Any) -> None:
        result[name] = value
        args.out.write_text(json.dumps(result, indent=1) + "\n")
        print(name, value, flush=True)

    keep("speed", {str(n): speed(table, n, args.images) for n in (64, 128)})
    memory_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    keep("peak_memory_gb_images", round(memory_kb / 2**20, 2))
    keep("spectra", spectra(40))
    keep("galsim", {str(n): accuracy(table, n, args.galaxies) for n in (64, 128)})


if __name__ == "__main__":
    main()
