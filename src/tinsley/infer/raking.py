"""The ratio of two priors of quantities whose trained prior is known by points alone.

Points of the trained prior are counted in bins of each quantity, and weighted until each has the
density that is asked for: raking, or iterative proportional fitting.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.stats import qmc

from tinsley.infer.marginals import REDSHIFT, Entries, marginal, properties, too_wide
from tinsley.parameters import Normal, ParamSpace, Theta, UniformToAge
from tinsley.sps.derived import DerivedTables, derived

_POINTS = 2**15
"""Points of the trained prior at each redshift, evenly spread (Sobol's)."""
_BINS = (96, 48, 24, 12)
"""Of a density; fewer where a narrow one leaves too few points in each."""
_STEP = 0.05
"""Of the redshifts at which the trained prior is looked at; linear between them."""
_LEAST = 16
"""Points in a bin, fewer of which do not tell a density."""
_REACH_STD = 4.5
_ROUNDS = 300
_TOLERANCE = 0.01
"""Probability that may be in another bin than it should, twice over."""
_LEAST_SHARE = 0.01
"""Of a density that is cut off where the trained prior ends, at least so much must be left."""


class Tabulated(eqx.Module):
    """The ratio of two densities of one quantity, constant in bins, linear in redshift.

    Attributes:
        name: The quantity.
        ends: Its first and last edge; the ratio is 0 outside.
        redshift_ends: First and last redshift of the table.
        ratio: [node, bin].
    """

    name: str = eqx.field(static=True)
    ends: tuple[float, float] = eqx.field(static=True)
    redshift_ends: tuple[float, float] = eqx.field(static=True)
    ratio: Float[Array, "node bin"]

    def log_ratio(self, values: Theta) -> Array:
        """Natural log, [draw]."""
        n_nodes, n_bins = self.ratio.shape
        (low, high), (z_low, z_high) = self.ends, self.redshift_ends
        value = values[self.name]
        place = jnp.floor((value - low) / (high - low) * n_bins).astype(jnp.int32)
        place = jnp.clip(place, 0, n_bins - 1)
        node = jnp.clip((values[REDSHIFT] - z_low) / (z_high - z_low), 0.0, 1.0) * (n_nodes - 1)
        below = jnp.clip(node.astype(jnp.int32), 0, n_nodes - 2)
        share = node - below
        ratio = self.ratio[below, place] * (1 - share) + self.ratio[below + 1, place] * share
        return jnp.where((value >= low) & (value <= high), jnp.log(ratio), -jnp.inf)


class _Target(NamedTuple):
    """A density in bins; a soft one is cut off where the trained prior ends."""

    name: str
    edges: np.ndarray
    share: np.ndarray
    soft: bool


def rake(
    space: ParamSpace,
    derived_tables: DerivedTables,
    redshift_range: tuple[float, float],
    entries: Entries,
) -> tuple[Tabulated, ...]:
    """A table of the ratio for each quantity; together they give each its density.

    Args:
        space: The trained prior.
        derived_tables: Of the model.
        redshift_range: Of the model.
        entries: The densities that are asked for.

    Raises:
        ValueError: One reaches beyond the trained prior, at some redshift; or the trained prior
            ties the quantities so closely that their densities can not be had together.
    """
    number = max(2, int(np.ceil((redshift_range[1] - redshift_range[0]) / _STEP)) + 1)
    nodes = np.linspace(*redshift_range, number)
    unit = qmc.Sobol(space.n_unit, seed=1).random(_POINTS)
    seen = [_implied(space, derived_tables, unit, z, tuple(entries)) for z in nodes]
    targets = [_target(space, name, entry, seen, nodes) for name, entry in entries.items()]
    tables = [_balance(targets, values, z) for values, z in zip(seen, nodes, strict=True)]
    return tuple(
        Tabulated(
            target.name,
            (float(target.edges[0]), float(target.edges[-1])),
            redshift_range,
            jnp.asarray(np.stack([table[k] for table in tables]), dtype=float),
        )
        for k, target in enumerate(targets)
    )


def _implied(
    space: ParamSpace,
    derived_tables: DerivedTables,
    unit: np.ndarray,
    redshift: float,
    names: tuple[str, ...],
) -> dict[str, np.ndarray]:
    """Values of some quantities at points of the trained prior, each [point]."""
    z = jnp.full(len(unit), redshift)
    age_gyr = derived_tables.history.cosmology.age_gyr(z)
    theta = space.from_unit(jnp.asarray(unit, dtype=float), age_gyr) | {REDSHIFT: z}
    values = properties(theta | derived(derived_tables, theta))
    return {name: np.asarray(values[name], float) for name in names}


def _target(
    space: ParamSpace,
    name: str,
    entry: Mapping[str, Any],
    seen: list[dict[str, np.ndarray]],
    nodes: np.ndarray,
) -> _Target:
    """The density in as many bins as the points allow at every redshift."""
    reach = min(v[name].min() for v in seen), max(v[name].max() for v in seen)
    new = marginal(name, entry, (float(reach[0]), float(reach[1])))
    low, high = new.low, new.high
    if isinstance(new, Normal):
        low = max(low, new.mean - _REACH_STD * new.std)
        high = min(high, new.mean + _REACH_STD * new.std)
    to_age = {p.names[0] for p in space.priors if isinstance(p, UniformToAge)}
    soft = name in to_age or not {"low", "high"} <= entry.keys()
    for n_bins in _BINS:
        target = _Target(name, *_binned(new, low, high, n_bins), soft)
        short = [z for v, z in zip(seen, nodes, strict=True) if _short(target, v[name])]
        if not short:
            return target
    values = seen[int(np.flatnonzero(nodes == short[0])[0])][name]
    ends = _longest_run(values, (high - low) / n_bins)
    raise ValueError(f"{too_wide(name, (low, high), ends)} This is at redshift {short[0]:.3g}.")


def _binned(new: Any, low: float, high: float, n_bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Edges, and the share of the density in each bin."""
    inner = np.linspace(low, high, 8 * n_bins + 1)
    middle = jnp.asarray(0.5 * (inner[1:] + inner[:-1]), dtype=float)
    share = np.exp(np.asarray(new.log_prob(middle), float)).reshape(n_bins, 8).sum(axis=1)
    return np.linspace(low, high, n_bins + 1), share / share.sum()


def _short(target: _Target, values: np.ndarray) -> bool:
    """True where the points do not reach as far as the density."""
    reached = target.share[_counts(target, values) >= _LEAST].sum()
    return bool(reached < (_LEAST_SHARE if target.soft else 1 - 1e-9))


def _counts(target: _Target, values: np.ndarray) -> np.ndarray:
    return np.bincount(_places(target, values), minlength=len(target.share) + 1)[:-1]


def _places(target: _Target, values: np.ndarray) -> np.ndarray:
    """The bin of each value; one past the last for those outside."""
    edges, n_bins = target.edges, len(target.share)
    place = np.floor((values - edges[0]) / (edges[-1] - edges[0]) * n_bins).astype(int)
    place = np.where(values == edges[-1], n_bins - 1, place)
    return np.where((place < 0) | (place >= n_bins), n_bins, place)


def _balance(
    targets: list[_Target], values: Mapping[str, np.ndarray], redshift: float
) -> list[np.ndarray]:
    """The ratios that give the points the target shares, for each target [bin].

    Each turn multiplies the weights of a bin's points so that the bin holds its share, one target
    after the other, until all hold theirs.
    """
    places = [_places(t, values[t.name]) for t in targets]
    counts = [_counts(t, values[t.name]) for t in targets]
    shares = [np.where(n >= _LEAST, t.share, 0.0) for t, n in zip(targets, counts, strict=True)]
    shares = [share / share.sum() for share in shares]
    ratios = [np.append(share > 0, False).astype(float) for share in shares]
    for _ in range(_ROUNDS):
        worst = 0.0
        for share, place, ratio in zip(shares, places, ratios, strict=True):
            weight = np.prod([r[p] for r, p in zip(ratios, places, strict=True)], axis=0)
            held = np.bincount(place, weight / len(place), minlength=len(ratio))[:-1]
            worst = max(worst, float(np.sum(np.abs(held - share))))
            ratio[:-1] *= np.where(held > 0, share / np.maximum(held, 1e-30), 0.0)
        if worst < _TOLERANCE:
            return [ratio[:-1] for ratio in ratios]
    names = " and ".join(target.name for target in targets)
    raise ValueError(
        f"the densities of {names} can not be had together at redshift {redshift:.3g}: the trained "
        "prior ties these quantities too closely. Choose narrower ends."
    )


def _longest_run(values: np.ndarray, width: float) -> tuple[float, float]:
    """Ends of the longest run of bins of some width that hold points enough."""
    edges = np.arange(values.min(), values.max() + width, width)
    enough = np.histogram(values, edges)[0] >= _LEAST
    starts = np.flatnonzero(np.diff(np.concatenate([[0], enough, [0]])))
    runs = starts.reshape(-1, 2)
    if not len(runs):
        return float(values.min()), float(values.max())
    first, last = runs[np.argmax(runs[:, 1] - runs[:, 0])]
    return float(edges[first]), float(edges[last])
