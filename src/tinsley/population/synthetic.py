"""Synthetic catalogues: a population as a survey would record it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr, ndtri
from jaxtyping import Array, Float

from tinsley.observe.noise import AbstractNoise
from tinsley.observe.survey import AB_ZEROPOINT_MAG, FLUX_PER_MAG

_TINY = 1e-30
_DEEP = 10.0
"""Errors below the cut from where on the probability of passing, 1e-23, falls no more."""
_NO_LIMIT_NMGY = -1e9
_CANDIDATES = 4
"""Errors to choose from for each galaxy near a cut: large ones pass more easily than small ones."""
_RECORDS = 16
"""Whole records to choose from where a survey is not complete."""
_FAR = 4.0
"""Standard deviations from where on distances count as their logarithm: a few failed measurements
must not outweigh the catalogue."""


class CompletenessTable(eqx.Module):
    """Share of galaxies that a survey keeps at a recorded magnitude in one band.

    Linear between nodes; before the first and beyond the last as there. A flux that is not positive
    is fainter than all nodes.

    Attributes:
        band: Which band, by its number.
        mag: Nodes, AB magnitude, increasing, [node].
        share: Of the galaxies there, 0-1, [node].
    """

    band: int = eqx.field(static=True)
    mag: Float[Array, " node"]
    share: Float[Array, " node"]

    def __check_init__(self) -> None:
        mag, share = np.asarray(self.mag), np.asarray(self.share)
        if len(mag) < 2 or not (np.diff(mag) > 0).all():
            raise ValueError("a completeness needs at least two magnitudes, increasing.")
        if not ((share >= 0) & (share <= 1)).all() or share.max() == 0:
            raise ValueError("a completeness is from 0 to 1, and not 0 everywhere.")

    def __call__(self, flux: Float[Array, "*n band"]) -> Float[Array, "*n"]:
        """The share, from fluxes in nanomaggies."""
        mag = AB_ZEROPOINT_MAG - 2.5 * jnp.log10(jnp.maximum(flux[..., self.band], _TINY))
        return jnp.interp(mag, self.mag, self.share)


class Selection(eqx.Module):
    """What a survey keeps by its noisy photometry.

    A galaxy is in when every band is bright enough, and then with the probability `completeness`.

    Attributes:
        flux_min: Least flux, nanomaggies, -inf where there is none, [band].
        snr_min: Least flux over error in every band; -inf where there is none.
        completeness: From recorded fluxes, nanomaggies, [..., band], the probability of being in,
            [...]: any function in JAX, such as a `CompletenessTable`; None where it is 1.
    """

    flux_min: tuple[float, ...] = eqx.field(static=True)
    snr_min: float = eqx.field(static=True, default=-np.inf)
    completeness: Callable[[Array], Array] | None = None

    @property
    def selects(self) -> bool:
        """False where every galaxy is in."""
        cuts = np.isfinite(self.flux_min).any() or np.isfinite(self.snr_min)
        return bool(cuts) or self.completeness is not None

    def passes(self, flux: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        """True where an observed galaxy is beyond the cuts, [n]."""
        limit = np.maximum(np.asarray(self.flux_min), self.snr_min * sigma)
        return np.all(flux > limit, axis=-1)

    def keeps(self, flux: np.ndarray, sigma: np.ndarray, *, key: Array) -> np.ndarray:
        """True where a synthetic galaxy is in: beyond the cuts, and lucky, [n]."""
        passing = self.passes(flux, sigma)
        if self.completeness is None:
            return passing
        share = self.completeness(jnp.asarray(flux, dtype=float))
        return passing & np.asarray(jax.random.uniform(key, share.shape) < share)


class Recorded(NamedTuple):
    """Synthetic galaxies that passed.

    Attributes:
        flux: Noisy flux, nanomaggies, [n, band].
        sigma: Its error, [n, band].
        pass_probability: Of a galaxy of this true flux and error, [n].
    """

    flux: Array
    sigma: Array
    pass_probability: Array


def record(
    flux_true: Float[Array, "n band"],
    noise: AbstractNoise,
    selection: Selection,
    *,
    key: Array,
    noise_share: Array | float = 1.0,
) -> Recorded:
    """Observe galaxies with noise such that each passes, and say how probable that was.

    A galaxy that passes has an error, and noise, from the part of their distributions that leads
    above the cut; the galaxies that pass are weighted by the probability. Both together, not the
    weight alone, give the distribution of those that pass (tests/test_synthetic.py). Where a survey
    is not complete, one of 16 such records is kept, as often as its completeness says; slopes do
    not see that choice, which matters little where completeness changes slowly with the noise.

    Args:
        flux_true: Nanomaggies.
        noise: p(sigma | true flux).
        selection: The cut.
        key: Random key.
        noise_share: The errors are multiplied by it, for annealing.
    """
    key_sigma, key_noise, key_choice = jax.random.split(key, 3)
    if not selection.selects:
        sigma = noise.sample_sigma(flux_true, key=key_sigma) * noise_share
        flux = flux_true + sigma * jax.random.normal(key_noise, flux_true.shape)
        return Recorded(flux, sigma, jnp.ones(flux.shape[0]))
    number = _CANDIDATES if selection.completeness is None else _RECORDS
    several = jnp.broadcast_to(flux_true, (number, *flux_true.shape))
    sigma = noise.sample_sigma(several, key=key_sigma) * noise_share
    above = ndtr(jnp.clip((flux_true - _limit(selection, sigma)) / sigma, -_DEEP, _DEEP))
    passing = jnp.prod(above, axis=-1)
    if selection.completeness is None:
        sigma, above = _chosen(passing, (sigma, above), key_choice)
        return Recorded(
            _noisy(flux_true, sigma, above, key_noise), sigma, jnp.mean(passing, axis=0)
        )
    flux = _noisy(flux_true, sigma, above, key_noise)
    passing = passing * selection.completeness(flux)
    flux, sigma = _chosen(passing, (flux, sigma), key_choice)
    return Recorded(flux, sigma, jnp.mean(passing, axis=0))


def _chosen(
    passing: Float[Array, "m n"], candidates: tuple[Array, ...], key: Array
) -> tuple[Array, ...]:
    """Of each galaxy's candidates, [m, n, band], one: as often as its probability of passing."""
    log_passing = jnp.log(jnp.maximum(jax.lax.stop_gradient(passing), _TINY))
    chosen = jax.random.categorical(key, log_passing, axis=0)[None, :, None]
    return tuple(jnp.take_along_axis(a, chosen, axis=0)[0] for a in candidates)


def _noisy(flux_true: Array, sigma: Array, above: Array, key: Array) -> Array:
    """Fluxes with noise from the part of its distribution above the cut, of probability `above`."""
    level = jax.random.uniform(key, sigma.shape, minval=_TINY)
    return flux_true - sigma * ndtri(jnp.maximum(level * above, _TINY))


def _limit(selection: Selection, sigma: Array) -> Array:
    """Least flux of each band, finite, so that slopes are."""
    limit = jnp.maximum(jnp.asarray(selection.flux_min), _NO_LIMIT_NMGY)
    if np.isfinite(selection.snr_min):
        limit = jnp.maximum(limit, selection.snr_min * sigma)
    return limit


class View(eqx.Module):
    """The space in which synthetic and observed galaxies are compared.

    asinh magnitudes (Lupton et al. 1999), which negative fluxes have too, each band softened at its
    own typical error; standardised by the catalogue. With `colours` the magnitude of the reference
    band and the differences between neighbouring bands take the place of all magnitudes: these are
    so alike that most directions would look at brightness alone. Where the catalogue's redshifts
    are known they are one more column, the last, which has no noise.

    Attributes:
        softening: Nanomaggies, [band].
        centre: Median of each column.
        scale: Half of the range from 16 to 84 % of each column.
        colours: Whether columns are one magnitude and the colours.
        redshift: Whether there is a column of redshifts.
    """

    softening: Array
    centre: Array
    scale: Array
    colours: bool = eqx.field(static=True)
    redshift: bool = eqx.field(static=True, default=False)

    def __call__(
        self, flux: Float[Array, "n band"], redshift: Float[Array, " n"] | None = None
    ) -> Float[Array, "n k"]:
        """Columns of each galaxy, standardised; the redshift is looked at where it is a column."""
        told = redshift if self.redshift else None
        columns = _columns(flux, told, self.softening, self.colours)
        return _FAR * jnp.arcsinh((columns - self.centre) / self.scale / _FAR)


def recalibrated(
    flux: Float[Array, "n band"], view: View, floor_mag: Float[Array, " band"], *, key: Array
) -> Float[Array, "n band"]:
    """The catalogue as it might be with another calibration, and to another model.

    Each band is off by as much for all galaxies, and by as much more in proportion to their colour
    (of the reference band and the one before it, in standard deviations, two at most): the model is
    wrong about red galaxies in another way than about blue ones. Of a galaxy that is one standard
    deviation redder than the median, both together have the floor's standard deviation.

    Args:
        flux: Observed, nanomaggies.
        view: Of the catalogue: how faint magnitudes are softened.
        floor_mag: The survey's error floor.
        key: For one draw of the errors.
    """
    magnitude = asinh_magnitude(flux, view.softening)
    reference = flux.shape[-1] // 2
    colour = magnitude[:, max(reference - 1, 0)] - magnitude[:, reference]
    low, middle, high = jnp.quantile(colour, jnp.array([0.16, 0.5, 0.84]))
    redder = jnp.clip((colour - middle) / jnp.maximum((high - low) / 2, _TINY), -2, 2)
    same, slope = jax.random.normal(key, (2, *floor_mag.shape))
    error_mag = floor_mag * (same + redder[:, None] * slope) / np.sqrt(2)
    return flux * 10 ** (0.4 * error_mag)


def asinh_magnitude(flux: Array, softening: Array) -> Array:
    """AB magnitude -2.5 / ln 10 (asinh(f / 2b) + ln b) of nanomaggies, finite for any flux."""
    asinh = jnp.arcsinh(flux / (2 * softening)) + jnp.log(softening)
    return AB_ZEROPOINT_MAG - asinh / FLUX_PER_MAG


def make_view(
    flux: np.ndarray,
    sigma: np.ndarray,
    redshift: np.ndarray | None = None,
    *,
    colours: bool = True,
) -> View:
    """The view that a catalogue is standardised in.

    Args:
        flux: Observed, nanomaggies, [n, band].
        sigma: Errors, nanomaggies, [n, band].
        redshift: Where they are known, [n].
        colours: See `View`.

    Raises:
        ValueError: A column does not vary: its galaxies are all the same.
    """
    softening = jnp.asarray(np.quantile(sigma, 0.1, axis=0), dtype=float)
    told = None if redshift is None else jnp.asarray(redshift, dtype=float)
    columns = np.asarray(_columns(jnp.asarray(flux, dtype=float), told, softening, colours))
    low, centre, high = np.quantile(columns, (0.16, 0.5, 0.84), axis=0)
    if not (high - low > 1e-4).all():
        raise ValueError("the galaxies' photometry does not vary; expected galaxies that differ.")
    scale = jnp.asarray((high - low) / 2)
    return View(softening, jnp.asarray(centre), scale, colours, redshift is not None)


def _columns(
    flux: Array,
    redshift: Array | None,
    softening: Array,
    colours: bool,  # noqa: FBT001
) -> Array:
    magnitude = asinh_magnitude(flux, softening)
    reference = magnitude.shape[-1] // 2
    columns = [magnitude]
    if colours:
        columns = [magnitude[..., reference : reference + 1], -jnp.diff(magnitude, axis=-1)]
    columns += [] if redshift is None else [redshift[..., None]]
    return jnp.concatenate(columns, axis=-1)


def parse_selection(
    words: str,
    bands: tuple[str, ...],
    completeness: Callable[[Array], Array] | None = None,
) -> Selection:
    """A cut from words: "r < 17.77", "snr > 1", or several joined by commas.

    Args:
        words: The cut.
        bands: Names of the survey's bands.
        completeness: As `Selection` takes it.

    Raises:
        ValueError: The words are no cut, or name a band that the survey has not.
    """
    flux_min, snr_min = [-np.inf] * len(bands), -np.inf
    for word in (part.strip() for part in words.split(",") if part.strip()):
        left, sign, right = _parts(word)
        if left == "snr" and sign == ">" and np.isfinite(right):
            snr_min = right
        elif left in bands and sign == "<" and np.isfinite(right):
            flux_min[bands.index(left)] = float(10 ** (0.4 * (AB_ZEROPOINT_MAG - right)))
        else:
            raise ValueError(_expected(word, bands))
    return Selection(tuple(flux_min), snr_min, completeness)


def _parts(word: str) -> tuple[str, str, float]:
    for sign in ("<", ">"):
        left, found, right = word.partition(sign)
        if found:
            try:
                return left.strip(), sign, float(right)
            except ValueError:
                break
    return "", "", np.nan


def _expected(word: str, bands: tuple[str, ...]) -> str:
    return (
        f"{word!r} is no cut; expected a band brighter than an AB magnitude, as in "
        f"'{bands[len(bands) // 2]} < 17.77' (bands: {', '.join(bands)}), or 'snr > 1'."
    )
