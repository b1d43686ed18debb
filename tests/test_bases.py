"""Bases of a history: what the class refuses."""

import numpy as np
import pytest

from tinsley.sps.bases import SfhBases

TIME = np.array([0.0, 1.0, 3.0])
SFR = np.array([[1.0, 0.5, 0.0], [0.0, 0.2, 0.4]])


def with_value(array, value):
    changed = array.copy()
    changed.flat[1] = value
    return changed


def test_a_sound_table_is_kept_as_it_is():
    bases = SfhBases(TIME, SFR)
    assert bases.lookback_gyr is TIME
    assert bases.sfr is SFR


@pytest.mark.parametrize(
    ("time", "sfr", "message"),
    [
        (TIME, SFR.T, "order of the axes"),
        (TIME, SFR[0], "need shape"),
        (TIME, SFR[:, :2], "need shape"),
        (TIME[:1], SFR[:, :1], "2 or more lookback times"),
        (TIME[None], SFR, "2 or more lookback times"),
        (TIME[::-1], SFR, "must be finite and increase"),
        (with_value(TIME, 0.0), SFR, "must be finite and increase"),
        (with_value(TIME, np.nan), SFR, "must be finite and increase"),
        (np.array([0.0, 1.0, np.inf]), SFR, "must be finite and increase"),
        (TIME - 0.5, SFR, "0 Gyr or more"),
        (TIME, with_value(SFR, -1e-9), "not negative"),
        (TIME, with_value(SFR, np.nan), "must be finite"),
        (TIME, SFR * [[1.0], [0.0]], "an empty one"),
    ],
)
def test_an_unsound_table_is_refused(time, sfr, message):
    with pytest.raises(ValueError, match=message):
        SfhBases(time, sfr)
