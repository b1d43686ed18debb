"""Random keys of galaxies follow from their names."""

from __future__ import annotations

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tinsley.rng import object_key, split_id

RUN_KEY = jax.random.key(0)


def keys_of(ids) -> np.ndarray:
    words = jnp.asarray(split_id(np.asarray(ids)))
    return np.asarray(jax.random.key_data(jax.vmap(lambda w: object_key(RUN_KEY, w))(words)))


def test_integers_are_split_into_their_halves():
    ids = np.array([0, 5, 5 + 2**32, 2**63 - 1, -1])
    expected = [[0, 0], [0, 5], [1, 5], [2**31 - 1, 2**32 - 1], [2**32 - 1, 2**32 - 1]]
    np.testing.assert_array_equal(split_id(ids), expected)


def test_names_are_hashed_as_documented():
    digest = hashlib.sha256(b"NGC 4151").digest()
    expected = [int.from_bytes(digest[:4], "big"), int.from_bytes(digest[4:8], "big")]
    np.testing.assert_array_equal(split_id(np.array(["NGC 4151"])), [expected])


@pytest.mark.parametrize(
    "ids",
    [
        np.arange(3000),
        np.arange(3000) * 2**32 + 7,
        np.array([5, 5 + 2**32, 5 + 2**33, 2**40 + 5]),
        np.array([f"SDSS J{i:06d}" for i in range(3000)]),
        np.array(["a", "b", "ab", "ba", " a", "galaxie-é"]),
    ],
    ids=["small", "high_word", "same_low_word", "names", "odd_names"],
)
def test_every_name_has_a_key_of_its_own(ids):
    assert len(np.unique(keys_of(ids), axis=0)) == len(ids)


def test_key_depends_on_name_and_run_alone():
    ids = np.array([7, 11, 13])
    np.testing.assert_array_equal(keys_of(ids[::-1])[::-1], keys_of(ids))
    np.testing.assert_array_equal(keys_of(np.array([11])), keys_of(ids)[1:2])
    np.testing.assert_array_equal(keys_of(ids.astype(np.int32)), keys_of(ids))
    other = object_key(jax.random.key(1), jnp.asarray(split_id(ids)[0]))
    assert not np.array_equal(jax.random.key_data(other), keys_of(ids)[0])


def test_long_and_short_strings_are_the_same_names():
    short, long = np.array(["a", "b"]), np.array(["a", "b", "a much longer name"])
    np.testing.assert_array_equal(split_id(short), split_id(long)[:2])
