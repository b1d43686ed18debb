"""Completeness from tables, and back from manifests."""

from __future__ import annotations

import numpy as np
import pytest

from tinsley.errors import InputError
from tinsley.io.completeness import (
    completeness_from_dict,
    completeness_to_dict,
    read_completeness,
)

BANDS = ("g", "r")
TABLE = "mag_r,completeness\n17,1\n18,0.8\n19.5,0\n"


def written(tmp_path, text):
    path = tmp_path / "share.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_table_and_a_manifest_say_the_same(tmp_path):
    read = read_completeness(written(tmp_path, TABLE), BANDS)
    again = completeness_from_dict(completeness_to_dict(read, BANDS), BANDS)
    for one in (read, again):
        assert one.band == 1
        np.testing.assert_allclose(one.mag, [17, 18, 19.5])
        np.testing.assert_allclose(one.share, [1, 0.8, 0])
    assert completeness_from_dict(completeness_to_dict(None, BANDS), BANDS) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mag_z,completeness\n17,1\n18,0.5\n", "of one of g, r"),
        ("mag_g,mag_r,completeness\n17,17,1\n18,18,0.5\n", "mag_g, mag_r"),
        ("mag_r,share\n17,1\n18,0.5\n", "completeness; got mag_r, share"),
        ("mag_r,completeness\n18,1\n17,0.5\n", "increasing"),
        ("mag_r,completeness\n17,1\n18,50\n", "from 0 to 1"),
        ("mag_r,completeness\n17,1\n18,\n", "numbers in every row"),
    ],
)
def test_what_is_no_completeness_is_refused(tmp_path, text, words):
    with pytest.raises(InputError, match=words):
        read_completeness(written(tmp_path, text), BANDS)
