"""Densities of a population, on the unbounded space where the prior is N(0, 1)."""

from __future__ import annotations

import abc
import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flowjax.bijections import RationalQuadraticSpline
from flowjax.distributions import AbstractTransformed, Normal
from flowjax.flows import coupling_flow
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float

from tinsley.density.coupling import INTERVAL, MIN_SLOPE, MIN_WIDTH, coupling_layers

FLOW: dict[str, Any] = {"kind": "flow", "layers": 6, "width": 64, "depth": 2, "knots": 8}
"""Tinsley's default. Of the sizes that were tried (benchmarks/results/population_sizes.json)
none is better by more than members scatter."""

POPSED: dict[str, Any] = {"kind": "flow", "layers": 20, "width": 100, "depth": 2, "knots": 60}
"""PopSED's (Li et al. 2023): 20 blocks, 60 bins, 100 hidden units."""

MIXTURE: dict[str, Any] = {"kind": "mixture", "components": 12}
"""The baseline."""


class AbstractPopulation(eqx.Module):
    """A density with draws that are differentiable in its weights."""

    @abc.abstractmethod
    def sample_and_log_prob(
        self, number: int, *, key: Array
    ) -> tuple[Float[Array, "number d"], Float[Array, " number"]]:
        """Draws in the unbounded space, with their log-densities."""

    @abc.abstractmethod
    def log_prob(self, x: Float[Array, "n d"]) -> Float[Array, " n"]:
        """Log-density of points in the unbounded space."""


class FlowPopulation(AbstractPopulation):
    """A neural spline coupling flow from N(0, 1).

    Attributes:
        flow: The flow; its splines act on (-4, 4), all but 6e-5 of the prior, and are the identity
            beyond. Evaluated by `tinsley.density.coupling`.

    Source:
        Durkan et al. (2019). PopSED (Li et al. 2023, section 2.3) maps it to the box as
        `tinsley.population.space` does, but starts from random weights.
    """

    flow: AbstractTransformed

    def sample_and_log_prob(
        self, number: int, *, key: Array
    ) -> tuple[Float[Array, "number d"], Float[Array, " number"]]:
        layers = coupling_layers(self.flow)
        if layers is None:
            return self.flow.sample_and_log_prob(key, (number,))
        base = layers.loc + layers.scale * jax.random.normal(key, (number, layers.n_dim))
        x, log_det = layers.to_data(base, jnp.zeros(0))
        return x, layers.log_base(base) - log_det

    def log_prob(self, x: Float[Array, "n d"]) -> Float[Array, " n"]:
        layers = coupling_layers(self.flow)
        if layers is None:
            return self.flow.log_prob(x)
        base, log_det = layers.to_base(x, jnp.zeros(0))
        return layers.log_base(base) + log_det


class MixturePopulation(AbstractPopulation):
    """Gaussians of equal shares, so that every draw is differentiable in everything.

    Attributes:
        mean: [k, d].
        factor: Lower triangles; the diagonal holds the logarithm of the factor's, [k, d, d].
    """

    mean: Float[Array, "k d"]
    factor: Float[Array, "k d d"]

    def sample_and_log_prob(
        self, number: int, *, key: Array
    ) -> tuple[Float[Array, "number d"], Float[Array, " number"]]:
        of = jnp.arange(number) % self.mean.shape[0]
        noise = jax.random.normal(key, (number, self.mean.shape[1]))
        x = self.mean[of] + jnp.einsum("nij,nj->ni", self._lower()[of], noise)
        return x, self.log_prob(x)

    def log_prob(self, x: Float[Array, "n d"]) -> Float[Array, " n"]:
        def one(mean: Array, lower: Array) -> Array:
            residual = solve_triangular(lower, (x - mean).T, lower=True)
            log_det = jnp.sum(jnp.log(jnp.diagonal(lower)))
            constant = 0.5 * np.log(2 * np.pi) * mean.shape[0]
            return -0.5 * jnp.sum(residual**2, axis=0) - log_det - constant

        each = jax.vmap(one)(self.mean, self._lower())
        return jax.nn.logsumexp(each, axis=0) - np.log(self.mean.shape[0])

    def _lower(self) -> Array:
        diagonal = jnp.exp(jnp.diagonal(self.factor, axis1=1, axis2=2))
        return jnp.tril(self.factor, -1) + jax.vmap(jnp.diag)(diagonal)


def make_population(config: dict[str, Any], n_dim: int, *, key: Array) -> AbstractPopulation:
    """A density from its plain description; before training it is the prior, exactly.

    All of one description share what is compiled for one of them.

    Args:
        config: `FLOW`, `POPSED`, `MIXTURE`, or like one of them.
        n_dim: Coordinates of the unbounded space.
        key: For the weights that are random to begin with.

    Raises:
        ValueError: The kind is unknown.
    """
    if config["kind"] == "mixture":
        shape = (config["components"], n_dim)
        return MixturePopulation(jnp.zeros(shape), jnp.zeros((*shape, n_dim)))
    if config["kind"] != "flow":
        raise ValueError(f"unknown density {config['kind']!r}; expected flow or mixture.")
    shape = tuple(config[name] for name in ("layers", "width", "depth", "knots"))
    return _shuffled(_make_flow(*shape, n_dim), key=key)


@functools.cache
def _make_flow(layers: int, width: int, depth: int, knots: int, n_dim: int) -> FlowPopulation:
    """One flow of a shape: flowjax gives each functions of its own, so that no two are alike."""
    spline = RationalQuadraticSpline(
        knots=knots, interval=INTERVAL, min_derivative=MIN_SLOPE, min_width=MIN_WIDTH
    )
    flow = coupling_flow(
        jax.random.key(0),
        base_dist=Normal(jnp.zeros(n_dim)),
        transformer=spline,
        flow_layers=layers,
        nn_width=width,
        nn_depth=depth,
        nn_activation=jax.nn.silu,
        invert=False,
    )
    return FlowPopulation(_from_identity(flow))


def _from_identity(flow: Any) -> Any:
    """The flow with zeros in the last layer of each network: splines that change nothing."""

    def last(flow_: Any) -> tuple[Any, ...]:
        layer = _conditioner(flow_).layers[-1]
        return layer.weight, layer.bias

    return eqx.tree_at(last, flow, tuple(jnp.zeros_like(a) for a in last(flow)))


def _conditioner(flow: Any) -> eqx.nn.MLP:
    """The networks of all coupling layers, stacked."""
    nodes = jax.tree.leaves(flow, is_leaf=lambda node: isinstance(node, eqx.nn.MLP))
    (found,) = [node for node in nodes if isinstance(node, eqx.nn.MLP)]
    return found


def _shuffled(population: FlowPopulation, *, key: Array) -> FlowPopulation:
    """The same density with its random initial weights in another order."""

    def weights(of: Any) -> list[Any]:
        layers = _conditioner(of.flow).layers[:-1]
        return [array for layer in layers for array in (layer.weight, layer.bias)]

    found = weights(population)
    keys = jax.random.split(key, len(found))
    shuffled = [
        jax.random.permutation(one, array.ravel()).reshape(array.shape)
        for one, array in zip(keys, found, strict=True)
    ]
    return eqx.tree_at(weights, population, shuffled)
