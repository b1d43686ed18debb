"""Posteriors that the flow's first draws do not give: a defensive mixture, a sampler, then chains.

All draw anew, and more: a galaxy comes here because its first weights were uneven, so that to pool
them would bias the evidence upwards. Mixture and sampler return weighted draws whose proposal
density is known, so that effective sample size, k-hat and evidence mean what they mean for the
flow's. Chains need no proposal that is near the posterior everywhere: their draws count equally,
and R-hat takes the place of k-hat.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from jaxtyping import Array, Float

from tinsley.infer import chains
from tinsley.infer.amortized import AmortizedPosterior, Draws, log_likelihood, weigh
from tinsley.infer.features import features
from tinsley.infer.likelihood import Observation
from tinsley.infer.smc import EFFORT, Effort, propose

MORE_DRAWS = 8192
"""Draws that a refined galaxy gets at least: 100 effective ones at an efficiency of 1.2 %."""
_SHARES = (0.5, 0.375, 0.125)
"""Of the mixture's draws: from the flow, the widened flow, the prior."""
_WIDTHS = (1.0, 1.5)
"""Standard deviations of the flow's base, as trained and widened."""


def draw_mixture(
    posterior: AmortizedPosterior, seen: Observation, number: int, *, key: Array
) -> Draws:
    """Draws from a defensive mixture of the flow, the flow with a wider base, and the prior.

    No weight exceeds eight times the likelihood, for an eighth of the density is the prior's.

    Args:
        posterior: The trained model.
        seen: One galaxy: flux [band], redshift [].
        number: How many draws.
        key: Random key.

    Source:
        Owen & Zhou (2000): fixed numbers from each component, weighted by the mixture's density.
    """
    posterior = posterior.at_redshift(seen.redshift)
    key_x, key_mass = jax.random.split(key)
    x, log_q = sample_mixture(posterior, seen, number, key=key_x)
    return weigh(posterior, seen, x, log_q, key=key_mass)


def sample_mixture(
    posterior: AmortizedPosterior, seen: Observation, number: int, *, key: Array
) -> tuple[Float[Array, "number d"], Float[Array, " number"]]:
    """Draws of the defensive mixture in the unbounded space, with ln of its density."""
    keys = jax.random.split(key, len(_SHARES))
    counts = [round(share * number) for share in _SHARES[:-1]]
    counts.append(number - sum(counts))
    told = features(seen, posterior.cosmology)
    parts = [
        posterior.flow.sample_wide(count, told, width, key=key_part)
        for count, width, key_part in zip(counts, _WIDTHS, keys, strict=False)
    ]
    parts.append(jax.random.normal(keys[-1], (counts[-1], parts[0].shape[1])))
    x = jnp.concatenate(parts)
    of_flow = posterior.flow.log_prob_wide(x, told, _WIDTHS)
    of_prior = jnp.sum(norm.logpdf(x), axis=-1)
    each = jnp.concatenate([of_flow, of_prior[:, None]], axis=1)
    each = jnp.where(jnp.isnan(each), -jnp.inf, each)
    return x, jax.nn.logsumexp(each + jnp.log(np.asarray(counts) / number), axis=1)


def sample_smc(
    posterior: AmortizedPosterior,
    at: Callable[[Float[Array, "point extra"]], Observation],
    n_extra: int,
    number: int,
    effort: Effort = EFFORT,
    *,
    key: Array,
) -> Draws:
    """Draws from kernels around particles of tempered sequential Monte Carlo.

    The sampler knows all parameters but mass, which is integrated out and then drawn from its exact
    conditional. A sampler that did not reach the posterior gives no finite weight.

    Args:
        posterior: The model; its flow is not used.
        at: One galaxy at points of some coordinates beside the parameters, whose prior is N(0, 1).
        n_extra: How many such coordinates there are; 0 where all else is known.
        number: How many draws.
        effort: How hard to work.
        key: Random key.
    """
    key_smc, key_x, key_mass = jax.random.split(key, 3)
    n_unit = posterior.flow_space.n_unit
    proposal, particles = propose(
        lambda x: log_likelihood(posterior, *_apart(x, n_unit, at)),
        n_unit + n_extra,
        effort,
        key=key_smc,
    )
    x = proposal.sample(number, key=key_x)
    log_q = proposal.log_prob(x) - jnp.sum(norm.logpdf(x[:, n_unit:]), axis=-1)
    log_q = jnp.where(particles.settled, log_q, jnp.inf)
    return weigh(posterior, *_apart(x, n_unit, at), log_q, key=key_mass)


def sample_hmc(
    posterior: AmortizedPosterior,
    at: Callable[[Float[Array, "point extra"]], Observation],
    n_extra: int,
    number: int,
    effort: chains.Effort = chains.EFFORT,
    *,
    key: Array,
) -> Draws:
    """Draws from long chains in all parameters but mass, which is integrated out and then drawn.

    Args:
        posterior: The model; its flow is not used.
        at: As for `sample_smc`.
        n_extra: As for `sample_smc`.
        number: How many draws, of all chains together.
        effort: How hard to work.
        key: Random key.

    Returns:
        Equally weighted draws, unless a new prior or errors that tell of the flux weigh them; the
        effective sample size is the chains', times the share that such weights leave. `rhat` takes
        the place of k-hat, which is NaN. The evidence is the tempered particles', from which the
        chains' jumps are made; if these have not settled, there is none, and no draw counts.
    """
    key_walk, key_mass = jax.random.split(key)
    n_unit = posterior.flow_space.n_unit

    def log_density(x: Float[Array, " d"]) -> Float[Array, ""]:
        of_data = log_likelihood(posterior, *_apart(x[None], n_unit, at))[0]
        return of_data + jnp.sum(norm.logpdf(x))

    each = -(-number // effort.chains)
    found = chains.sample_chains(log_density, n_unit + n_extra, each, effort, key=key_walk)
    x = found.x.swapaxes(0, 1).reshape(-1, n_unit + n_extra)[:number]
    drawn = weigh(posterior, *_apart(x, n_unit, at), None, key=key_mass)
    share = jnp.where(jnp.isfinite(found.log_evidence), found.ess / number, jnp.nan)
    psis = drawn.psis._replace(ess=share * drawn.psis.ess, khat=jnp.asarray(jnp.nan))
    return drawn._replace(
        psis=psis,
        log_evidence=drawn.log_evidence + found.log_evidence,
        rhat=found.rhat,
        ess_trained_prior=jax.tree.map(lambda ess: share * ess, drawn.ess_trained_prior),
    )


def _apart(
    x: Float[Array, "point d"], n_unit: int, at: Callable[[Array], Observation]
) -> tuple[Observation, Float[Array, "point n_unit"]]:
    """The galaxy as the coordinates beside the parameters have it, and the parameters."""
    return at(x[:, n_unit:]), x[:, :n_unit]


def with_known_redshift(sample: Callable[..., Draws]) -> Callable[..., Draws]:
    """`sample_smc` or `sample_hmc` of a galaxy at its redshift: called as `draw_mixture` is."""

    def draw(
        posterior: AmortizedPosterior, seen: Observation, number: int, *effort: Any, key: Array
    ) -> Draws:
        fixed = posterior.at_redshift(seen.redshift)
        return sample(fixed, lambda extra: seen, 0, number, *effort, key=key)

    return draw


draw_smc = with_known_redshift(sample_smc)
draw_hmc = with_known_redshift(sample_hmc)
