"""Simulated galaxies: prior, forward model, noise, missing bands; fresh for every batch."""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from tinsley.infer.likelihood import Observation
from tinsley.observe.noise import AbstractNoise
from tinsley.observe.photometry import BandTables, photometry
from tinsley.parameters import ParamSpace

_OVERSAMPLING = 5


class Simulation(NamedTuple):
    """Galaxies whose truth is known.

    Attributes:
        theta: True parameters and `redshift`, each [batch].
        flux_true: Noiseless flux, nanomaggies, [batch, band].
        seen: What a survey would record of them.
    """

    theta: dict[str, Array]
    flux_true: Array
    seen: Observation


class Simulator(eqx.Module):
    """Draws galaxies from the prior and observes them.

    Attributes:
        space: The prior.
        tables: The forward model.
        noise: Errors given the true flux.
        redshift_range: Redshifts are uniform in it.
        complete: Share of galaxies with every band; of the others each band is dropped with
            probability `dropped`, never all of them.
        flux_range: Galaxies with an observed flux outside, nanomaggies, (low, high) of each band,
            are left out; empty to keep all.
    """

    space: ParamSpace
    tables: BandTables
    noise: AbstractNoise
    redshift_range: tuple[float, float] = eqx.field(static=True)
    complete: float = eqx.field(static=True, default=0.5)
    dropped: float = eqx.field(static=True, default=0.4)
    flux_range: tuple[tuple[float, float], ...] = eqx.field(static=True, default=())

    @eqx.filter_jit
    def sample(self, number: int, *, key: Array) -> Simulation:
        """Simulate `number` galaxies.

        Where some are left out, five times as many are simulated and the first that remain are
        taken; should they be too few, they come again.
        """
        if not self.flux_range:
            return self._sample(number, key)
        made = self._sample(_OVERSAMPLING * number, key)
        inside = self._inside(made.seen)
        remaining = jnp.argsort(~inside, stable=True)
        rows = remaining[jnp.arange(number) % jnp.maximum(jnp.sum(inside), 1)]
        return jax.tree.map(lambda values: values[rows], made)

    def _sample(self, number: int, key: Array) -> Simulation:
        key_z, key_theta, key_observe = jax.random.split(key, 3)
        low, high = self.redshift_range
        redshift = jax.random.uniform(key_z, (number,), minval=low, maxval=high)
        age_gyr = self.tables.history.cosmology.age_gyr(redshift)
        theta = self.space.sample(number, age_gyr, key=key_theta) | {"redshift": redshift}
        return self.observe(theta, photometry(self.tables, theta), key=key_observe)

    @eqx.filter_jit
    def observe(self, theta: dict[str, Array], flux_true: Array, *, key: Array) -> Simulation:
        """Add noise and drop bands."""
        key_sigma, key_noise, key_mask = jax.random.split(key, 3)
        sigma = self.noise.sample_sigma(flux_true, key=key_sigma)
        flux = flux_true + sigma * jax.random.normal(key_noise, flux_true.shape)
        mask = self._mask(flux_true.shape, key_mask)
        return Simulation(theta, flux_true, Observation(flux, sigma, mask, theta["redshift"]))

    def _inside(self, seen: Observation) -> Array:
        """True where every measured flux is in the range, [batch]."""
        low, high = jnp.asarray(self.flux_range).T
        return jnp.all(~seen.mask | ((seen.flux >= low) & (seen.flux <= high)), axis=-1)

    def _mask(self, shape: tuple[int, ...], key: Array) -> Array:
        key_whole, key_band = jax.random.split(key)
        whole = jax.random.uniform(key_whole, shape[:1]) < self.complete
        kept = jax.random.uniform(key_band, shape) >= self.dropped
        whole = whole | ~jnp.any(kept, axis=-1)
        return kept | whole[:, None]
