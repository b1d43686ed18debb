"""Another prior than the trained one: the ratio of the two, by which draws are weighted.

    ratio(theta | z) = prod_k f_k(y_k) / g_k(y_k | z)

Each y_k is a parameter or a derived property, f_k the density that is asked for and g_k what the
trained prior implies. Where only parameters with a prior of their own are named, g_k is that prior
and the ratio is exact. Otherwise the g_k are found from points of the trained prior, by raking:
of all priors with the marginals f_k the result is the one nearest to the trained prior.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from tinsley.infer.marginals import (
    REDSHIFT,
    SAMPLED,
    Entries,
    Marginal,
    marginal,
    properties,
    refuse_unknown,
    too_wide,
)
from tinsley.infer.raking import Tabulated, rake
from tinsley.parameters import (
    MASS,
    AbstractBoundedPrior,
    ParamSpace,
    Theta,
    Uniform,
    UniformToAge,
)
from tinsley.sps.derived import DerivedTables, derived


class Exact(eqx.Module):
    """The ratio of two densities of one parameter.

    Attributes:
        new: What is asked for.
        trained: What the model was trained with; it reaches as far as `new` or farther.
    """

    new: Marginal
    trained: AbstractBoundedPrior

    def log_ratio(self, values: Theta) -> Array:
        """Natural log, [draw]."""
        value = values[self.new.name]
        inside = jnp.clip(value, self.trained.low, self.trained.high)
        return self.new.log_prob(value) - self.trained.log_prob(inside)


class PriorRatio(eqx.Module):
    """A new prior over the trained one.

    Its mean over the trained prior is 1 at each redshift, so that an evidence weighted with it is
    the new prior's.

    Attributes:
        factors: Their product is the ratio at a given redshift.
        redshift: The factor of an unknown redshift; None to leave it uniform.
    """

    factors: tuple[Exact | Tabulated, ...]
    redshift: Exact | None = None

    def log_ratio(self, theta: Theta, *, free: bool) -> Float[Array, " draw"]:
        """Natural log at draws.

        Args:
            theta: Parameters, derived properties and `redshift`, each [draw].
            free: True where the redshift is not known; a given one has no prior.
        """
        values = properties(theta)
        total = jnp.zeros_like(values[MASS])
        for factor in self.factors:
            total = total + factor.log_ratio(values)
        if free and self.redshift is not None:
            total = total + self.redshift.log_ratio(values)
        return total


def make_ratio(
    space: ParamSpace,
    derived_tables: DerivedTables,
    redshift_range: tuple[float, float],
    entries: Entries,
    *,
    cut_mass: bool = True,
) -> tuple[ParamSpace, PriorRatio]:
    """The ratio of a new prior to the trained one, and the part of the space where it lives.

    Quantities that are not named keep the trained prior. The space that is returned is the trained
    one, its mass cut to the new prior's ends where it is integrated exactly: then this costs no
    draws.

    Args:
        space: The trained prior.
        derived_tables: Of the model.
        redshift_range: Of the model, in which the trained prior of an unknown redshift is uniform.
        entries: The new prior.
        cut_mass: True where the mass is integrated, not drawn by a network.

    Raises:
        ValueError: A quantity that is not known; a density that can not be, that reaches beyond the
            trained prior, or several that can not be had together.

    Source:
        Importance sampling; for derived properties SEDflow's division by the prior that the
        parameters imply (Hahn & Melchior 2022, section 6.2; Handley & Millea 2019), and for several
        that depend on each other iterative proportional fitting (Deming & Stephan 1940), whose
        limit is nearest to the trained prior in relative entropy (Csiszar 1975). Tested against
        quadrature and priors that were sampled directly (tests/test_prior.py).
    """
    refuse_unknown(space, entries)
    entries = dict(entries)
    about_redshift = entries.pop(REDSHIFT, None)
    redshift = None
    if about_redshift is not None:
        uniform = Uniform(REDSHIFT, *redshift_range)
        redshift = Exact(_within(REDSHIFT, about_redshift, redshift_range), uniform)
    if cut_mass and MASS in entries:
        trained = space.mass_prior
        mass = _within(MASS, entries[MASS], (trained.low, trained.high))
        space = space.replaced(Uniform(MASS, mass.low, mass.high))
        if isinstance(mass, Uniform):
            del entries[MASS]
    known = {p.name: p for p in space.priors if isinstance(p, AbstractBoundedPrior)}
    factors: tuple[Exact | Tabulated, ...]
    if entries.keys() <= known.keys():
        exact = {name: _within(name, entry, _ends(known[name])) for name, entry in entries.items()}
        factors = tuple(Exact(new, known[name]) for name, new in exact.items())
    else:
        factors = rake(space, derived_tables, redshift_range, entries)
    return space, PriorRatio(factors, redshift)


def replaced_space(
    space: ParamSpace, redshift_range: tuple[float, float], entries: Entries
) -> tuple[ParamSpace, tuple[float, float]]:
    """The space and the range of redshift of a model that is trained with a prior of its own.

    Raises:
        ValueError: The prior can only be had by weights: it is on a derived property, on one of the
            shares of a simplex, or not uniform in mass or redshift.
    """
    refuse_unknown(space, entries)
    old = {prior.names[0]: prior for prior in space.priors if len(prior.names) == 1}
    for name, entry in entries.items():
        kind = entry["prior"]
        flat = name in (MASS, REDSHIFT) or isinstance(old.get(name), UniformToAge)
        if name not in (*old, REDSHIFT) or kind not in SAMPLED or (flat and kind != "uniform"):
            allowed = "uniform" if flat else ", ".join(SAMPLED)
            raise ValueError(
                f"{name}: no network can be trained with the prior {kind!r}: expected parameters "
                f"with a prior of their own ({', '.join(old)}, {REDSHIFT}), here {allowed}; for "
                "others weight the draws, `tinsley infer --prior`."
            )
        if name == REDSHIFT:
            redshift_range = (entry["low"], entry["high"])
        elif isinstance(old[name], UniformToAge):
            aged = UniformToAge(name, entry["low"], entry["high"])
            space = ParamSpace(tuple(aged if p.names == (name,) else p for p in space.priors))
        else:
            space = space.replaced(marginal(name, entry, _ends(old[name])))
    return space, redshift_range


def draw_prior(
    space: ParamSpace,
    derived_tables: DerivedTables,
    redshift_range: tuple[float, float],
    entries: Entries,
    number: int,
    *,
    key: Array,
) -> tuple[dict[str, Array], Float[Array, " number"]]:
    """Galaxies of a prior: all properties, each [number], and weights that sum to 1.

    A prior that a network can be trained with is drawn from itself, with equal weights; others are
    weighted draws of the trained one.

    Args:
        space: The trained prior.
        derived_tables: Of the model.
        redshift_range: Of the model.
        entries: The prior; empty for the trained one.
        number: How many.
        key: Random key.

    Raises:
        ValueError: As `make_ratio`.
    """
    try:
        space, ends = replaced_space(space, redshift_range, entries)
        ratio = None
    except ValueError:
        space, ratio = make_ratio(space, derived_tables, redshift_range, entries)
        ends = redshift_range
    if ends[0] < redshift_range[0] or ends[1] > redshift_range[1]:
        raise too_wide(REDSHIFT, ends, redshift_range)
    key_redshift, key_theta = jax.random.split(key)
    redshift = jax.random.uniform(key_redshift, (number,), minval=ends[0], maxval=ends[1])
    age_gyr = derived_tables.history.cosmology.age_gyr(redshift)
    theta = space.sample(number, age_gyr, key=key_theta) | {REDSHIFT: redshift}
    theta |= derived(derived_tables, theta)
    log_ratio = jnp.zeros(number) if ratio is None else ratio.log_ratio(theta, free=True)
    return properties(theta), jax.nn.softmax(log_ratio)


def _ends(prior: Any) -> tuple[float, float]:
    return prior.low, prior.high


def _within(name: str, entry: Mapping[str, Any], ends: tuple[float, float]) -> Any:
    """The density of an entry, refused where it reaches beyond the ends of the trained prior."""
    new = marginal(name, entry, ends)
    if new.low < ends[0] or new.high > ends[1]:
        raise too_wide(name, _ends(new), ends)
    return new
