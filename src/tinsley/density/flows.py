"""Conditional densities: an embedding of the data, then a normalizing flow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from flowjax.bijections import RationalQuadraticSpline
from flowjax.distributions import AbstractTransformed, Normal
from flowjax.flows import coupling_flow, masked_autoregressive_flow
from jax.scipy.stats import norm
from jaxtyping import Array, Float
from paramax import unwrap

from tinsley.density.autoregressive import autoregressive_layers
from tinsley.density.coupling import INTERVAL, MIN_SLOPE, MIN_WIDTH, coupling_layers


class Standardise(eqx.Module):
    """(features - mean) / std: in place of a network where there is none. Not trained.

    Attributes:
        mean: Of the training set's features.
        std: Likewise; 1 for a feature that is always the same.
    """

    mean: Float[Array, " f"]
    std: Float[Array, " f"]

    def __call__(self, features: Float[Array, " f"]) -> Float[Array, " f"]:
        return (features - jax.lax.stop_gradient(self.mean)) / jax.lax.stop_gradient(self.std)


class ConditionalFlow(eqx.Module):
    """q(x | features) on an unbounded space where the prior is N(0, 1).

    Attributes:
        embedding: Network from features to the flow's condition.
        flow: The flow; its base is normal. Many points at once of a coupling flow are evaluated by
            `tinsley.density.coupling`, draws of a masked autoregressive one by
            `tinsley.density.autoregressive`, all else by flowjax.
    """

    embedding: eqx.nn.MLP | Standardise
    flow: AbstractTransformed

    def log_prob(self, x: Float[Array, " d"], features: Float[Array, " f"]) -> Float[Array, ""]:
        """Log-density of one point for one galaxy."""
        return self.flow.log_prob(x, self.embedding(features))

    def log_prob_each(
        self, x: Float[Array, "n d"], features: Float[Array, "n f"]
    ) -> Float[Array, " n"]:
        """Log-density of one point for each of many galaxies: what training asks for."""
        loc, scale = self._base
        base, log_det = self._to_base(x, jax.vmap(self.embedding)(features))
        return jnp.sum(norm.logpdf(base, loc, scale), axis=-1) + log_det

    def sample_and_log_prob(
        self, number: int, features: Float[Array, " f"], *, key: Array
    ) -> tuple[Float[Array, "number d"], Float[Array, " number"]]:
        """Draws for one galaxy, with their log-densities."""
        return self._sample(number, self.embedding(features), key)

    def sample_each(
        self, features: Float[Array, "n f"], *, key: Array
    ) -> tuple[Float[Array, "n d"], Float[Array, " n"]]:
        """One draw for each of many feature vectors, with its log-density."""
        return self._sample(len(features), jax.vmap(self.embedding)(features), key)

    def sample_wide(
        self, number: int, features: Float[Array, " f"], width: float, *, key: Array
    ) -> Float[Array, "number d"]:
        """Draws for one galaxy of the flow whose normal base is `width` times as wide."""
        return self._sample(number, self.embedding(features), key, width)[0]

    def log_prob_wide(
        self, x: Float[Array, "point d"], features: Float[Array, " f"], widths: Sequence[float]
    ) -> Float[Array, "point width"]:
        """Log-densities of points for one galaxy, for bases of several widths; inverted once."""
        loc, scale = self._base
        base, log_det = self._to_base(x, self.embedding(features))
        each = [jnp.sum(norm.logpdf(base, loc, width * scale), axis=-1) for width in widths]
        return jnp.stack(each, axis=1) + log_det[:, None]

    @property
    def _base(self) -> tuple[Array, Array]:
        """Mean and standard deviation of the normal base."""
        base = unwrap(self.flow).base_dist
        return base.loc, base.scale

    def _sample(
        self, number: int, condition: Array, key: Array, width: float = 1.0
    ) -> tuple[Array, Array]:
        """Draws from one condition, or from one each."""
        loc, scale = self._base
        base = loc + width * scale * jax.random.normal(key, (number, *self.flow.shape))
        x, log_det = self._to_data(base, condition)
        return x, jnp.sum(norm.logpdf(base, loc, width * scale), axis=-1) - log_det

    def _to_data(self, base: Array, condition: Array) -> tuple[Array, Array]:
        layers = coupling_layers(self.flow) or autoregressive_layers(self.flow)
        if layers is not None:
            return layers.to_data(base, condition)
        transform = unwrap(self.flow).bijection.transform_and_log_det
        return jax.vmap(transform, in_axes=(0, None if condition.ndim == 1 else 0))(base, condition)

    def _to_base(self, x: Array, condition: Array) -> tuple[Array, Array]:
        layers = coupling_layers(self.flow)
        if layers is not None:
            return layers.to_base(x, condition)
        inverse = unwrap(self.flow).bijection.inverse_and_log_det
        return jax.vmap(inverse, in_axes=(0, None if condition.ndim == 1 else 0))(x, condition)


def make_flow(
    config: dict[str, Any], n_features: int, n_dim: int, *, key: Array
) -> ConditionalFlow:
    """Build a flow from its plain description.

    Args:
        config: `kind` ("coupling": neural spline coupling flow, or "maf": masked autoregressive
            flow with affine steps, as SEDflow's), `layers`, `width`, `depth`, `knots`,
            `embedding_width`, `embedding_depth`, `embedding_size` (0 for none: the features
            themselves are the condition, see `standardised`), `activation` (silu if not given).
        n_features: Length of the feature vector.
        n_dim: Dimensions of the density.
        key: For the initial weights.

    Raises:
        ValueError: If `kind` is unknown.
    """
    key_embedding, key_flow = jax.random.split(key)
    shape = {
        "base_dist": Normal(jnp.zeros(n_dim)),
        "cond_dim": config["embedding_size"] or n_features,
        "flow_layers": config["layers"],
        "nn_width": config["width"],
        "nn_depth": config["depth"],
        "nn_activation": getattr(jax.nn, config.get("activation", "silu")),
    }
    if config["kind"] == "coupling":
        spline = RationalQuadraticSpline(
            knots=config["knots"],
            interval=INTERVAL,
            min_derivative=MIN_SLOPE,
            min_width=MIN_WIDTH,
        )
        flow = coupling_flow(key_flow, transformer=spline, **shape)
    elif config["kind"] == "maf":
        flow = masked_autoregressive_flow(key_flow, **shape)
    else:
        raise ValueError(f"unknown flow {config['kind']!r}; expected coupling or maf.")
    return ConditionalFlow(_make_embedding(config, n_features, key_embedding), flow)


def standardised(flow: ConditionalFlow, features: Float[Array, "n f"]) -> ConditionalFlow:
    """A flow without embedding, told the statistics of its training set; others as they are."""
    if not isinstance(flow.embedding, Standardise):
        return flow
    std = jnp.std(features, axis=0)
    statistics = Standardise(jnp.mean(features, axis=0), jnp.where(std > 1e-5, std, 1.0))
    return eqx.tree_at(lambda f: f.embedding, flow, statistics)


def _make_embedding(
    config: dict[str, Any], n_features: int, key: Array
) -> eqx.nn.MLP | Standardise:
    if not config["embedding_size"]:
        return Standardise(jnp.zeros(n_features), jnp.ones(n_features))
    return eqx.nn.MLP(
        n_features,
        config["embedding_size"],
        config["embedding_width"],
        config["embedding_depth"],
        activation=jax.nn.silu,
        key=key,
    )


COUPLING: dict[str, Any] = {
    "kind": "coupling",
    "layers": 6,
    "width": 64,
    "depth": 2,
    "knots": 8,
    "embedding_width": 128,
    "embedding_depth": 3,
    "embedding_size": 64,
}
"""Tinsley's default; what sizes cost and bring: docs/calibration.md, "Which network?"."""

MAF: dict[str, Any] = {
    "kind": "maf",
    "layers": 15,
    "width": 500,
    "depth": 3,
    "activation": "tanh",
    "embedding_size": 0,
}
"""SEDflow's (Hahn & Melchior 2022): 15 blocks, each a first layer of 500 units and two more, which
are the ones that its code counts; 7.9 million weights, as theirs."""

FLOWS = {"coupling": COUPLING, "maf": MAF}
