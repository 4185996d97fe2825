"""Times that are written out only where one is said."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidelight.detectors import SampleError, Times
from sidelight.detectors._times import joined, marks, written

_moments = st.datetimes(timezones=st.just(UTC))


def _micros(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


@settings(deadline=None)
@given(st.lists(_moments, min_size=1, max_size=5), st.data())
def test_a_time_is_said_as_rfc_3339_with_microseconds(
    moments: list[datetime], data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(moments) - 1))
    times = Times(np.array([_micros(moment) for moment in moments], dtype=np.int64))

    expected = moments[place].isoformat(timespec="microseconds").replace("+00:00", "Z")

    assert times[place] == expected
    assert written(marks(times, np.array([place]))) == [expected]
    assert next(iter(times[place:])) == expected
    assert len(times) == len(moments)


def test_times_of_one_kind_stay_numbers_and_others_become_words() -> None:
    numbers = Times(np.arange(3))
    words = ["yesterday", "today"]

    together = joined([numbers, numbers])

    assert isinstance(together, Times)
    assert together.microseconds.tolist() == [0, 1, 2, 0, 1, 2]
    assert joined([numbers, words]) == [*numbers, *words]
    assert joined([words]) is words
    assert marks(words, np.array([1, 0])) == ["today", "yesterday"]
    assert written([]) == []
    assert written(["today", 1, "yesterday", 2]) == ["today", numbers[1], "yesterday", numbers[2]]


def test_times_of_another_shape_are_refused() -> None:
    with pytest.raises(SampleError) as caught:
        Times(np.zeros((2, 2), dtype=np.int64))

    assert caught.value.what == "times"
