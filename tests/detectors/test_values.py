"""One form for the values of a column."""

import numpy as np
import pytest

from sidelight.detectors import Rows, SampleError, values_of


def test_infinities_and_none_are_missing() -> None:
    floats = values_of(np.array([1.0, np.inf, -np.inf, np.nan]))
    objects = values_of(np.array([1, float("inf"), None, 10**400], dtype=object))

    assert np.isnan(floats.numbers).tolist() == [False, True, True, True]
    assert np.isnan(objects.numbers).tolist() == [False, True, True, True]


def test_numbers_carried_as_objects_are_numbers() -> None:
    values = values_of(np.array([1, 2.5, "x", b"y", True, ["z"]], dtype=object))

    assert values.numbers[:2].tolist() == [1.0, 2.5]
    assert values.words == {2: "x", 3: "y", 4: "true", 5: "['z']"}


def test_whole_numbers_become_categories_without_a_fraction() -> None:
    values = values_of(np.array([1.0, -0.0, 0.25, 1e300, np.nan]))

    assert values.as_categories() == ["1", "0", "0.25", "1e+300", None]


def test_columns_of_another_length_are_refused() -> None:
    with pytest.raises(SampleError) as caught:
        Rows(times=["t"], columns={"a": np.zeros(2)})

    assert caught.value.what == "column a"
