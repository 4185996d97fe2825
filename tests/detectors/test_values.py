"""One form for the values of a column."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidelight.detectors import Rows, SampleError, values_of
from sidelight.detectors._categorical_reference import CategoricalReference
from sidelight.detectors._collection import Collection


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


@given(st.lists(st.text(alphabet="ab\ud800é", min_size=254, max_size=260), max_size=8))
def test_long_text_is_the_same_where_it_was_and_short(texts: list[str]) -> None:
    texts += [text + "c" * 10_000 for text in texts]

    words = values_of(np.array([*texts, None], dtype=object)).words

    assert [words[row] for row, text in enumerate(texts) if len(text) <= 256] == [
        text for text in texts if len(text) <= 256
    ]
    assert len(set(words.values())) == len(set(texts))
    assert all(len(word) <= 256 for word in words.values())


def test_long_categories_are_told_apart_by_references_of_versions_before_as_well() -> None:
    texts = ["x" * 300 + end for end in "abc"] * 40
    values = values_of(np.array(texts, dtype=object))
    new = CategoricalReference.fit(values, n_categories=10)

    before = CategoricalReference.build(
        ["x" * 300 + category for category in "abc"], new.counts, new.bins, new.surprises
    )

    cells = before.cells(values_of(np.array([*texts[:3], "x" * 300], dtype=object)))
    assert cells.tolist() == [1, 2, 3, 4]
    assert sum(map(len, new.categories)) < 400


def test_long_text_of_collected_rows_is_not_kept_whole() -> None:
    text = "x" * 100_000
    collection = Collection(2)
    collection.add({"a": np.array([text], dtype=object)}, 1)
    head, arrays = collection.to_parts()

    restored = Collection.from_parts({**head, "words": [[(0, text)]]}, arrays)

    assert len(repr(head)) < 400
    assert restored.columns["a"].words == collection.columns["a"].words
