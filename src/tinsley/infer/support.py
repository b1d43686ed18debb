"""Is a galaxy one that the training set knows? SEDflow's second test: unusual colours.

The first, unusual errors, is `tinsley.observe.noise.unusual_error`.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from tinsley.infer.likelihood import Observation

QUANTILE = 0.999
SIGMAS = 3.0


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
        """True where a colour is bluer than the limit by more than three of its errors.

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
        return jnp.any(both & (blue - limit * red > SIGMAS * error), axis=-1)

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
