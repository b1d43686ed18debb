"""How much could images add to photometry, whatever network looks at them?

    python benchmarks/image_ceiling.py [--galaxies 60000] [--work runs/image_ceiling]

An image of `tinsley simulate-images` is made from eleven numbers: fluxes of bulge and disc in three
bands, radii, axis ratios, the Sersic index; and from a position, an angle and the seeing, which
know nothing of the stars. An image tells of the stars what it tells of the eleven. So posteriors
are trained that need no convolutions: beside the photometry they are told the eleven

- "exact": no image can tell more;
- "measured": as an efficient measurement on an image of 64 x 64 pixels has them. To first order
  that is a normal with the inverse of Fisher's information as its covariance, from the derivatives
  of the image and the noise of its pixels, the other four unknown too; told are the mean and
  widths that follow from it and from the population's covariance. Optimistic: the information is
  that at the true numbers, so the widths tell of these too.

Both are compared with photometry alone, by the questions of benchmarks/images.py, on 2,000 other
galaxies: spline flows with exact densities, all trained on the same galaxies for the same steps,
the best validation deciding. Writes benchmarks/results/image_ceiling.json.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from commands import command
from images import DRAWS, Asked, answers, compared, judged
from machine import machine
from tinsley.catalog.batch import as_observation
from tinsley.cli.console import console
from tinsley.density.properties import SPLINE
from tinsley.density.train import Schedule, start_training, train_block
from tinsley.infer.properties import (
    Galaxies,
    PropertyNetwork,
    StoredGalaxies,
    held_out_loss,
    make_property_network,
    property_loss,
    raw_features,
    standard_features,
)
from tinsley.infer.property_targets import Standard, fit_standard
from tinsley.io.property_tables import open_galaxies, read_properties
from tinsley.io.results import make_folder, write_json
from tinsley.io.surveys import load_survey
from tinsley.observe.gallery import PROPERTIES
from tinsley.observe.images import (
    SDSS_PSF_FWHM_ARCSEC,
    SDSS_PSF_SCATTER,
    Camera,
    Shapes,
    noiseless_images,
    pixel_variance,
    sdss_camera,
)
from tinsley.observe.profiles import make_sersic_table
from tinsley.rng import object_key, split_id

HERE = Path(__file__).resolve().parent
PIXELS = "16"
"""Of images that nobody looks at."""
PARTS = ("disc", "bulge")
SEEN_BANDS = "gri"
LOGARITHMIC = tuple(f"{part}_flux_{band}" for part in PARTS for band in SEEN_BANDS)
LOGARITHMIC += tuple(f"{part}_radius_arcsec" for part in PARTS)
PLAIN = ("disc_axis_ratio", "bulge_axis_ratio", "sersic_index")
STAMP = 64
AT_ONCE = 256
STEP = 0.01
"""Of differences, in each number."""
DARK = 50.0
NUISANCE_VARIANCE = (1.0, 1.0, 1.0, SDSS_PSF_SCATTER**2)
"""Of angle (rad), offsets (pixels) and the logarithm of the seeing, before the image."""
_SEED = 5


class Set(NamedTuple):
    """Galaxies.

    Attributes:
        object_id: Names, [n].
        properties: [n, p].
        told: By model, what it is told, not yet standardised, [n, f].
    """

    object_id: np.ndarray
    properties: np.ndarray
    told: dict[str, np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--galaxies", type=int, default=60_000)
    parser.add_argument("--test", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--work", type=Path, default=Path("runs/image_ceiling"))
    options = parser.parse_args()
    work, found = make_folder(options.work), {}
    learnt = galaxies(work / "training", options.galaxies, seed=0)
    test = galaxies(work / "test", options.test, seed=1)
    report: dict[str, Any] = {"machine": machine(), "models": {}, "against_photometry": {}}
    report["settings"] = {n: getattr(options, n) for n in ("galaxies", "test", "steps", "batch")}
    for model in learnt.told:
        feature, target = fit_standard(learnt.told[model]), fit_standard(learnt.properties)
        network, about = train(options, learnt, model, feature, target)
        found[model] = ask(network, (feature, target), model, learnt, test)
        report["models"][model] = {"training": about} | judged(found[model], test.properties)
        pair = {"photometry": found["photometry"], "images": found[model]}
        report["against_photometry"][model] = compared(pair, test.properties)
        console.print_json(data=report["against_photometry"][model]["shares"])
        write_json(HERE / "results" / "image_ceiling.json", report)


def galaxies(folder: Path, number: int, *, seed: int) -> Set:
    """Simulated galaxies, and what is known of them."""
    command("simulate-images", "--number", str(number), "--pixels", PIXELS, "--seed", str(seed),
            "--out", str(folder))  # fmt: skip
    path = folder / "galaxies.parquet"
    table = open_galaxies(path, load_survey("sdss"))
    rows = next(table.chunks(table.n_rows))
    seen = np.asarray(raw_features(as_observation(rows), None))
    logarithmic = np.log(np.maximum(read_properties(path, LOGARITHMIC), 1e-3))
    looks = np.concatenate([logarithmic, read_properties(path, PLAIN)], axis=1)
    fwhm_arcsec = read_properties(path, ("psf_fwhm_arcsec",))[:, 0]
    told = {"photometry": seen}
    told["exact"] = np.concatenate([seen, looks], axis=1)
    told["measured"] = np.concatenate([seen, measured(looks, fwhm_arcsec, seed)], axis=1)
    return Set(rows.object_id, read_properties(path, PROPERTIES), told)


def measured(looks: np.ndarray, fwhm_arcsec: np.ndarray, seed: int) -> np.ndarray:
    """Means of the eleven numbers and ln of their widths after an image of each galaxy, [n, 22]."""
    camera = sdss_camera(SEEN_BANDS, STAMP, make_sersic_table())
    seeing = np.log(fwhm_arcsec / SDSS_PSF_FWHM_ARCSEC[SEEN_BANDS[0]])
    angle, nothing = np.full((len(looks), 1), 0.5), np.zeros((len(looks), 2))
    true = np.concatenate([looks, angle, nothing, seeing[:, None]], axis=1)
    k, n = looks.shape[1], true.shape[1]
    covariance = np.zeros((n, n))
    covariance[:k, :k], covariance[k:, k:] = np.cov(looks.T), np.diag(NUISANCE_VARIANCE)
    before, middle = np.linalg.inv(covariance), true.mean(axis=0)
    rng, parts = np.random.default_rng(seed), []
    for low in range(0, len(true), AT_ONCE):
        some = true[low : low + AT_ONCE]
        fisher = information(camera, some)
        value, axes = np.linalg.eigh(fisher)
        root = np.sqrt(np.maximum(value, 0)) * rng.normal(size=value.shape)
        score = np.einsum("nij,nj->ni", axes, root)
        score += np.einsum("nij,nj->ni", fisher, some - middle)
        after = np.linalg.inv(fisher + before)
        width = np.sqrt(np.diagonal(after, axis1=1, axis2=2))
        mean = middle + np.einsum("nij,nj->ni", after, score)
        parts.append(np.concatenate([mean[:, :k], np.log(width[:, :k])], axis=1))
    return np.concatenate(parts)


def information(camera: Camera, true: np.ndarray) -> np.ndarray:
    """Fisher's information of images on all fifteen numbers, [n, 15, 15].

    Images are linear in the fluxes, six of the fifteen; of the others differences are taken.
    """

    def images(numbers: np.ndarray) -> np.ndarray:
        return np.asarray(noiseless_images(camera, shapes(jnp.asarray(numbers, float))))

    n_bands, step = len(SEEN_BANDS), np.eye(true.shape[1]) * STEP
    parts = [images(_without(true, other)) for other in (1, 0)]
    slopes = [part * np.eye(n_bands)[b][:, None, None] for part in parts for b in range(n_bands)]
    for direction in step[2 * n_bands :]:
        slopes.append((images(true + direction) - images(true - direction)) / (2 * STEP))
    deviation = np.sqrt(np.asarray(pixel_variance(camera, jnp.asarray(sum(parts)))))
    flat = np.stack([(one / deviation).reshape(len(true), -1) for one in slopes], axis=1)
    return flat @ flat.swapaxes(1, 2)


def _without(numbers: np.ndarray, part: int) -> np.ndarray:
    """The same without the light of the disc (0) or the bulge (1)."""
    dark, n_bands = numbers.copy(), len(SEEN_BANDS)
    dark[:, part * n_bands : (part + 1) * n_bands] = -DARK
    return dark


def shapes(numbers: jax.Array) -> Shapes:
    """What the camera takes, from `LOGARITHMIC`, `PLAIN`, angle, offsets and ln of the seeing."""
    fwhm = jnp.asarray([SDSS_PSF_FWHM_ARCSEC[band] for band in SEEN_BANDS])
    n = len(SEEN_BANDS)
    light, rest = jnp.exp(numbers[:, : 2 * n + 2]), numbers[:, 2 * n + 2 :]
    return Shapes(
        disc_flux=light[:, :n],
        bulge_flux=light[:, n : 2 * n],
        disc_radius_arcsec=light[:, -2],
        bulge_radius_arcsec=light[:, -1],
        disc_axis_ratio=rest[:, 0],
        bulge_axis_ratio=rest[:, 1],
        sersic_index=rest[:, 2],
        position_angle_rad=rest[:, 3],
        offset_pixels=rest[:, 4:6],
        psf_fwhm_arcsec=jnp.exp(rest[:, 6:7]) * fwhm,
    )


def train(
    options: argparse.Namespace, learnt: Set, model: str, feature: Standard, target: Standard
) -> tuple[PropertyNetwork, dict[str, Any]]:
    """The weights of the best validation: on a tenth of the galaxies."""
    told = standard_features(feature, jnp.asarray(learnt.told[model], float))
    theta = target.inward(jnp.asarray(learnt.properties, float))
    last = len(theta) // 10
    source = StoredGalaxies(theta[last:], Galaxies(told[last:], None), None, options.batch, 0)
    held_out = StoredGalaxies(theta[:last], Galaxies(told[:last], None), None, 1, 0)
    sizes = (told.shape[1], 0, theta.shape[1])
    network = make_property_network(SPLINE, {}, sizes, key=jax.random.key(_SEED))
    schedule = Schedule(options.steps, options.batch, rate=2e-3, average=0.998)
    state, best = start_training(network, schedule), network
    history: list[dict[str, float]] = []
    begun = time.process_time()
    for _ in range(16):
        fixed = (source, property_loss, schedule, options.steps // 16)
        state, losses = train_block(fixed, state, jax.random.key(_SEED + 1))
        loss = float(held_out_loss(state.average, held_out, jax.random.key(0)))
        if not history or loss < min(entry["validation_loss"] for entry in history):
            best = state.average
        history.append({"step": int(state.step), "train_loss": float(jnp.mean(losses)),
                        "validation_loss": loss})  # fmt: skip
        console.print(model, history[-1])
    lowest = min(history, key=lambda entry: entry["validation_loss"])
    return best, {"best": lowest, "last": history[-1],
                  "cpu_seconds": round(time.process_time() - begun, 1)}  # fmt: skip


def ask(
    network: PropertyNetwork,
    scales: tuple[Standard, Standard],
    model: str,
    learnt: Set,
    test: Set,
) -> Asked:
    """What benchmarks/images.py asks of a model."""
    feature, target = scales
    told = standard_features(feature, jnp.asarray(test.told[model], float))
    true = jnp.asarray(test.properties, float)

    def one(galaxy: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        condition, theta, words = galaxy
        key = object_key(jax.random.key(_SEED), words)
        draws = network.density.sample(DRAWS, condition, key=key)
        log_p = network.density.log_prob(target.inward(theta), condition) + target.log_slope(theta)
        return target.outward(draws), log_p

    words = jnp.asarray(split_id(test.object_id))
    draws, log_p = jax.lax.map(one, (told, true, words))
    both = np.asarray(draws, float), np.asarray(log_p, float)
    return answers(*both, test.properties, learnt.properties)


if __name__ == "__main__":
    main()
