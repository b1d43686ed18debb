"""The posterior of one galaxy by chains in all parameters: what weighted draws are to agree with.

Shares with what it checks the forward model, the prior's map from the unit cube and the sampler's
library; neither network, nor weights, nor the integral over mass: mass is a parameter like others.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from arviz_stats.base import array_stats
from jax.scipy.stats import norm

from tinsley.infer.amortized import AmortizedPosterior
from tinsley.infer.chains import Path, Walk, walk_on, warm_up
from tinsley.infer.likelihood import Observation
from tinsley.observe.photometry import photometry
from tinsley.parameters import MASS

RHAT, ESS = 1.01, 2000
"""Chains go on until R-hat is below and the bulk ESS above, in every parameter."""
ROUND = 250
MOST_ROUNDS = 96
_TYPICAL_LOG10_MASS = 10.0
_BRIGHTNESS = 0.3
"""Unit of the first coordinate, dex: so that N(0, 1) covers it, where the chains come from."""


class Sample(NamedTuple):
    """Chains of one galaxy.

    Attributes:
        theta: Every parameter, and `redshift`, each [chain, draw].
        rhat: Largest R-hat of all parameters.
        ess: Least bulk ESS of all parameters.
        gradients: Gradients taken after warm-up.
        accepted: Mean probability of acceptance in the last round.
        jumped: Share of jumps that were accepted in the last round.
        seconds: Of processor time, warm-up included.
    """

    theta: dict[str, np.ndarray]
    rhat: float
    ess: float
    gradients: float
    accepted: float
    jumped: float
    seconds: float

    @property
    def converged(self) -> bool:
        return self.rhat < RHAT and self.ess >= ESS


def to_theta(posterior: AmortizedPosterior, seen: Observation, y: jax.Array) -> dict:
    """Parameters of points [point, 10].

    The first coordinate is how bright the model is in all bands, relative to the data; the others
    are those of the unbounded space. Given these, log mass is the first plus a constant, so that
    the change of variables has a constant determinant, and the prior stays uniform in log mass.
    """
    redshift = jnp.broadcast_to(seen.redshift, y.shape[:1])
    age_gyr = posterior.cosmology.age_gyr(redshift)
    theta = posterior.space.without_mass().from_unbounded(y[:, 1:], age_gyr)
    theta |= {"redshift": redshift, MASS: jnp.full(y.shape[0], _TYPICAL_LOG10_MASS)}
    model = _brightness(photometry(posterior.tables, theta), seen)
    data = jnp.maximum(_brightness(seen.flux, seen), 1.0)
    excess = _BRIGHTNESS * y[:, 0] + jnp.log10(data) - jnp.log10(model)
    return theta | {MASS: _TYPICAL_LOG10_MASS + excess}


def log_density(
    posterior: AmortizedPosterior, seen: Observation, snr_range: jax.Array, y: jax.Array
) -> jax.Array:
    """Gaussian likelihood times prior, ln, up to a constant, at one point [10].

    Args:
        posterior: Its forward model and its prior are used.
        seen: One galaxy.
        snr_range: Errors were drawn log-uniformly in true S/N between these; (0, inf) for none.
        y: The point.
    """
    theta = to_theta(posterior, seen, y[None])
    flux = photometry(posterior.tables, theta)[0]
    pull = jnp.where(seen.mask, (flux - seen.flux) / seen.sigma, 0.0)
    snr = flux / seen.sigma
    prior = posterior.space.mass_prior
    mass = theta[MASS][0]
    possible = (mass > prior.low) & (mass < prior.high)
    possible &= jnp.all(~seen.mask | ((snr >= snr_range[0]) & (snr <= snr_range[1])))
    smooth = jnp.sum(norm.logpdf(y[1:])) - 0.5 * jnp.sum(pull**2)
    return smooth + jnp.where(possible, 0.0, -jnp.inf)


def sample(
    posterior: AmortizedPosterior,
    seen: Observation,
    snr_range: tuple[float, float] | None,
    key: jax.Array,
    most_rounds: int = MOST_ROUNDS,
) -> Sample:
    """Chains that go on until they have converged, or `most_rounds` are over."""
    started = time.process_time()
    limits = jnp.asarray(snr_range or (0.0, np.inf), dtype=float)
    key_start, key_rounds = jax.random.split(key)
    walk = _start(posterior, seen, limits, key_start)
    parts, gradients = [], 0.0
    for key_round in jax.random.split(key_rounds, most_rounds):
        walk, path, drawn = _go_on(posterior, seen, limits, walk, key_round)
        parts.append(jax.tree.map(np.asarray, drawn))
        gradients += float(path.gradients)
        theta = {name: np.concatenate([p[name] for p in parts], axis=1) for name in parts[0]}
        rhat, ess = _convergence(theta, tuple(posterior.space.names))
        shares = float(path.accepted), float(path.jumped)
        found = Sample(theta, rhat, ess, gradients, *shares, time.process_time() - started)
        if found.converged:
            break
    return found


@eqx.filter_jit
def _start(
    posterior: AmortizedPosterior, seen: Observation, limits: jax.Array, key: jax.Array
) -> Walk:
    posterior, n_dim = posterior.at_redshift(seen.redshift), posterior.space.n_unit
    return warm_up(lambda y: log_density(posterior, seen, limits, y), n_dim, key=key)


@eqx.filter_jit
def _go_on(
    posterior: AmortizedPosterior,
    seen: Observation,
    limits: jax.Array,
    walk: Walk,
    key: jax.Array,
) -> tuple[Walk, Path, dict]:
    posterior = posterior.at_redshift(seen.redshift)
    walk, path = walk_on(lambda y: log_density(posterior, seen, limits, y), walk, ROUND, key=key)
    theta = to_theta(posterior, seen, path.x.reshape(-1, path.x.shape[-1]))
    return walk, path, {name: v.reshape(path.x.shape[:2]).T for name, v in theta.items()}


def _brightness(flux: jax.Array, seen: Observation) -> jax.Array:
    """Fluxes over errors, summed over the bands."""
    return jnp.sum(jnp.where(seen.mask, flux / seen.sigma, 0.0), axis=-1)


def _convergence(theta: dict[str, np.ndarray], names: tuple[str, ...]) -> tuple[float, float]:
    """Largest R-hat, least bulk ESS."""
    axes = {"chain_axis": 0, "draw_axis": 1}
    values = [np.asarray(theta[name], float) for name in names]
    rhat = max(float(array_stats.rhat(v, **axes)) for v in values)
    ess = min(float(array_stats.ess(v, **axes)) for v in values)
    return rhat, ess
