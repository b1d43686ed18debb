"""Synthetic catalogues: a population as a survey would record it."""

from __future__ import annotations

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
_FAR = 4.0
"""Standard deviations from where on distances count as their logarithm: a few failed measurements
must not outweigh the catalogue."""


class Selection(eqx.Module):
    """A cut on noisy photometry: a galaxy is in when every band is bright enough.

    Attributes:
        flux_min: Least flux, nanomaggies, -inf where there is none, [band].
        snr_min: Least flux over error in every band; -inf where there is none.
    """

    flux_min: tuple[float, ...] = eqx.field(static=True)
    snr_min: float = eqx.field(static=True, default=-np.inf)

    @property
    def selects(self) -> bool:
        """False where every galaxy is in."""
        return bool(np.isfinite(self.flux_min).any() or np.isfinite(self.snr_min))

    def passes(self, flux: np.ndarray, sigma: np.ndarray) -> np.ndarray:
        """True where an observed galaxy is in, [n]."""
        limit = np.maximum(np.asarray(self.flux_min), self.snr_min * sigma)
        return np.all(flux > limit, axis=-1)


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
    weight alone, give the distribution of those that pass (tests/test_synthetic.py).

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
    several = jnp.broadcast_to(flux_true, (_CANDIDATES, *flux_true.shape))
    sigma = noise.sample_sigma(several, key=key_sigma) * noise_share
    above = ndtr(jnp.clip((flux_true - _limit(selection, sigma)) / sigma, -_DEEP, _DEEP))
    passing = jnp.prod(above, axis=-1)
    log_passing = jnp.log(jnp.maximum(jax.lax.stop_gradient(passing), _TINY))
    chosen = jax.random.categorical(key_choice, log_passing, axis=0)[None, :, None]
    sigma, above = (jnp.take_along_axis(a, chosen, axis=0)[0] for a in (sigma, above))
    level = jax.random.uniform(key_noise, sigma.shape, minval=_TINY)
    flux = flux_true - sigma * ndtri(jnp.maximum(level * above, _TINY))
    return Recorded(flux, sigma, jnp.mean(passing, axis=0))


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


def parse_selection(words: str, bands: tuple[str, ...]) -> Selection:
    """A cut from words: "r < 17.77", "snr > 1", or several joined by commas.

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
    return Selection(tuple(flux_min), snr_min)


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
