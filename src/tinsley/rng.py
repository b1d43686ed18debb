"""Random keys of galaxies: they follow from the galaxy's name, never from its place."""

from __future__ import annotations

import hashlib

import jax
import numpy as np
from jaxtyping import Array, UInt32


def split_id(object_id: np.ndarray) -> np.ndarray:
    """Two 32-bit words for each object id, uint32 [n, 2].

    Integers are split into their halves; names go through SHA-256.
    """
    ids = np.asarray(object_id)
    if ids.dtype.kind not in "iu":
        digests = [hashlib.sha256(str(name).encode()).digest()[:8] for name in ids]
        ids = np.asarray([int.from_bytes(digest, "big") for digest in digests], np.uint64)
    ids = ids.astype(np.uint64)
    return np.stack([ids >> np.uint64(32), ids & np.uint64(0xFFFFFFFF)], axis=-1).astype(np.uint32)


def object_key(run_key: Array, words: UInt32[Array, " words"]) -> Array:
    """The key of one galaxy in one run."""
    return jax.random.fold_in(jax.random.fold_in(run_key, words[0]), words[1])
