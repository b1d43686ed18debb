"""The posteriors of many galaxies laid over each other."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tinsley.io.runs import ChunkDraws


def stacked_density(
    chunks: Iterable[ChunkDraws],
    object_id: np.ndarray,
    names: tuple[str, str],
    edges: tuple[np.ndarray, np.ndarray],
) -> np.ndarray:
    """Sum of the posteriors of some galaxies in the plane of two properties, each counting 1.

    Args:
        chunks: Draws, as `tinsley.io.runs.iterate_draws` gives them.
        object_id: Galaxies that count.
        names: The two properties.
        edges: Edges of the cells, increasing.

    Returns:
        Galaxies per cell, [x, y].
    """
    total = np.zeros((len(edges[0]) - 1, len(edges[1]) - 1))
    for chunk in chunks:
        counted = np.isin(chunk.object_id, object_id)
        x, y = (chunk.theta[name][counted].ravel() for name in names)
        weight = np.exp(chunk.log_weight[counted].ravel())
        total += np.histogram2d(x, y, edges, weights=weight)[0]
    return total
