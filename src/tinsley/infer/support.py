"""Is a galaxy one that the training set knows? Unusual colours, and photometry unusual in any way.

SEDflow's first test, unusual errors, is `tinsley.observe.noise.unusual_error`.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from tinsley.cosmology import Cosmology
from tinsley.density.mixture import ConditionalMixture
from tinsley.infer.features import features_of_band
from tinsley.infer.likelihood import Observation
from tinsley.infer.simulator import Simulator

QUANTILE = 0.999
SIGMAS = 3.0
FALSE_ALARMS = 0.01
"""Share of the training galaxies whose photometry is unusual, however many bands there are."""
TOO_FAINT = 0.9
"""Weight of deviates to the faint side: what dust makes is known better than what is too blue for
any galaxy of the prior (SEDflow's test of colours looks to that side alone)."""
_ROUND = 2**14


class ColourLimits(eqx.Module):
    """The bluest colours of the training galaxies, redshift bin by redshift bin.

    Attributes:
        redshift: Middles of the bins, increasing, [bin].
        ratio: Flux ratio of each band to the next redder one that 99.9 % of noiseless training
            galaxies stay below, [bin, band - 1].
    """

    redshift: Array
    ratio: Array

    def unusual(self, seen: Observation) -> Bool[Array, " batch"]:
        """True where a colour is bluer than the limit by more than three of its errors."""
        return self.excess(seen) > SIGMAS

    def excess(self, seen: Observation) -> Float[Array, " batch"]:
        """How far the bluest colour is beyond its limit, in its errors; -inf without a colour.

        Source:
            Hahn & Melchior (2022), appendix A, case 2; with limits from noiseless galaxies and the
            galaxy's own error, so that noise alone is never unusual.
        """
        limit = jnp.stack(
            [jnp.interp(seen.redshift, self.redshift, row) for row in self.ratio.T], axis=-1
        )
        blue, red = seen.flux[:, :-1], seen.flux[:, 1:]
        error = jnp.hypot(seen.sigma[:, :-1], limit * seen.sigma[:, 1:])
        both = seen.mask[:, :-1] & seen.mask[:, 1:]
        return jnp.max(jnp.where(both, (blue - limit * red) / error, -jnp.inf), axis=-1)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, for files."""
        return {"redshift": self.redshift.tolist(), "ratio": self.ratio.tolist()}


def fit_colour_limits(
    flux_true: np.ndarray, redshift: np.ndarray, n_bins: int = 12
) -> ColourLimits:
    """Limits from noiseless training galaxies: flux [n, band], redshift [n]."""
    edges = np.quantile(redshift, np.linspace(0, 1, n_bins + 1))
    ratio = flux_true[:, :-1] / flux_true[:, 1:]
    bin_of = np.clip(np.searchsorted(edges, redshift, side="right") - 1, 0, n_bins - 1)
    limits = [np.quantile(ratio[bin_of == i], QUANTILE, axis=0) for i in range(n_bins)]
    middles = 0.5 * (edges[1:] + edges[:-1])
    return colour_limits_from_dict({"redshift": middles, "ratio": limits})


def colour_limits_from_dict(plain: dict[str, Any]) -> ColourLimits:
    """The limits that `ColourLimits.to_dict` described."""
    return ColourLimits(
        jnp.asarray(np.asarray(plain["redshift"]), dtype=float),
        jnp.asarray(np.asarray(plain["ratio"]), dtype=float),
    )


class PhotometryDensity(eqx.Module):
    """A learned density of the photometry: each band's flux given the redder ones and all else.

    By the chain rule the product is the density of all colours, given redshift and errors; a band
    that is not measured has no part in it. The reddest band, which says how bright a galaxy is, is
    not tested: a survey's galaxies are brighter or fainter than the training set's without being
    any stranger.

    Attributes:
        mixture: The density of one band.
        cosmology: For the features.
        limits: Greatest deviate that is usual for 1, 2, ... tested bands; empty before it is
            calibrated.
    """

    mixture: ConditionalMixture
    cosmology: Cosmology
    limits: tuple[float, ...] = eqx.field(static=True, default=())

    def deviates(self, seen: Observation) -> Float[Array, "*batch band"]:
        """How far each band is from what the redder ones make of it, in standard deviations.

        For galaxies like the training set's they are N(0, 1), independent of each other and of
        errors, redshift and missing bands; 0 where a band is not tested.
        """
        number = seen.flux.shape[-1]

        def one(band: Array) -> Array:
            y, told = features_of_band(seen, jnp.full(seen.redshift.shape, band), self.cosmology)
            return jnp.vectorize(self.mixture.deviate, signature="(),(f)->()")(y, told)

        each = jnp.stack([one(jnp.asarray(band)) for band in range(number)], axis=-1)
        return jnp.where(has_redder(seen.mask), each, 0.0)

    def largest(self, seen: Observation) -> Float[Array, "*batch"]:
        """The deviate that is furthest from 0, without its sign; 0 where no band is tested.

        A band that is too faint counts `TOO_FAINT` of what one counts that is too bright. Of the
        statistics tried (the sum of the squares, of the fourth powers, this) it finds most galaxies
        whose one colour is wrong, and as many of the others.
        """
        each = self.deviates(seen)
        return jnp.max(jnp.where(each > 0, each, -TOO_FAINT * each), axis=-1)

    def unusual(self, seen: Observation) -> Bool[Array, "*batch"]:
        """True where a band is further from its prediction than the limit."""
        limit = jnp.asarray([jnp.inf, *self.limits])[jnp.sum(has_redder(seen.mask), axis=-1)]
        return self.largest(seen) > limit


def has_redder(mask: Bool[Array, "*batch band"]) -> Bool[Array, "*batch band"]:
    """True where a band and a redder one are measured."""
    redder = jnp.flip(jnp.cumsum(jnp.flip(mask, axis=-1), axis=-1), axis=-1) - mask
    return mask & (redder > 0)


def fit_limits(
    density: PhotometryDensity, simulator: Simulator, number: int, *, key: Array
) -> tuple[float, ...]:
    """Limits that 1 % of fresh simulations exceed, for each number of tested bands.

    Args:
        density: What was learned.
        simulator: The galaxies it was learned from; some must lack bands.
        number: How many galaxies, at least.
        key: Random key.
    """

    @eqx.filter_jit
    def one_round(key: Array) -> tuple[Array, Array]:
        seen = simulator.sample(_ROUND, key=key).seen
        return density.largest(seen), jnp.sum(has_redder(seen.mask), axis=-1)

    rounds = [one_round(each) for each in jax.random.split(key, -(-number // _ROUND))]
    largest, n_tested = (np.concatenate(parts) for parts in zip(*rounds, strict=True))
    wanted = range(1, simulator.tables.n_bands)
    return tuple(float(np.quantile(largest[n_tested == n], 1 - FALSE_ALARMS)) for n in wanted)


def band_pairs(simulator: Simulator, number: int, key: Array) -> tuple[Array, Array]:
    """Fresh (flux of a band, features) pairs, of one random band of each galaxy.

    A tested one; where there is none, the only one that is measured.
    """
    key_sample, key_band = jax.random.split(key)
    seen = simulator.sample(number, key=key_sample).seen
    log_share = jnp.where(has_redder(seen.mask), 0.0, jnp.where(seen.mask, -100.0, -jnp.inf))
    band = jax.random.categorical(key_band, log_share, axis=-1)
    return features_of_band(seen, band, simulator.tables.history.cosmology)
