"""Coding of rows: values come back, equal rows have equal digests, weights are kept."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidelight.explainers import Background, Grid, RowError
from sidelight.explainers._grid import distinct

values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([0.5, -0.0, 0.0, math.nan, math.inf, 1.0]),
    st.sampled_from(["", "a", "é", "1"]),
    st.sampled_from([b"", b"1"]),
    st.sampled_from([(1.0, 2.0), (1.0,), ((1, 2), (3,))]),
)
rows = st.lists(st.tuples(values, values, values), min_size=1, max_size=8)


def same(one: Any, other: Any) -> bool:
    """Equal as the model sees it: a whole number may have become the equal float."""
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    both_numbers = type(one) in (int, float) and type(other) in (int, float)
    return bool(one == other) and (both_numbers or type(one) is type(other))


@given(rows, st.tuples(values, values, values))
def test_codes_restore_the_values(background: Any, instance: Any) -> None:
    grid = Grid.of(instance, Background(names=("a", "b", "c"), rows=background))

    start = np.zeros((1, 3), dtype=np.uint8)
    assert all(map(same, instance, (column[0] for column in grid.values(start))))
    restored = list(zip(*grid.values(grid.background), strict=True))
    for row in background:
        assert any(all(map(same, row, other)) for other in restored)
    assert grid.weights.sum() == pytest.approx(1)


@given(rows, st.tuples(values, values, values))
def test_equal_rows_of_two_grids_have_equal_digests(background: Any, instance: Any) -> None:
    names = ("a", "b", "c")
    one = Grid.of(instance, Background(names=names, rows=background))
    other = Grid.of(instance, Background(names=names, rows=background[::-1]))

    digests = [
        {
            digest: repr(row)
            for digest, row in zip(
                grid.row_digests(grid.background, b"k"),
                zip(*grid.values(grid.background), strict=True),
                strict=True,
            )
        }
        for grid in (one, other)
    ]

    assert digests[0] == digests[1]
    assert len(digests[0]) == len(one.background)


def test_numpy_values_and_lists_become_plain_ones() -> None:
    background = Background(
        names=("a", "b"), rows=[(np.float32(0.5), np.array([1, 2])), (np.int64(2), [3, 4])]
    )

    assert background.rows == ((0.5, (1, 2)), (2, (3, 4)))


def test_equal_background_rows_become_one_with_their_weights() -> None:
    background = Background(names=("a",), rows=[(1,), (2,), (1,)], weights=[1, 2, 1])

    grid = Grid.of((3,), background)

    assert sorted(grid.weights.tolist()) == [0.5, 0.5]


def test_rows_without_weight_are_left_out() -> None:
    background = Background(names=("a",), rows=[(1,), (2,)], weights=[0, 2])

    assert Grid.of((3,), background).values(Grid.of((3,), background).background) == ([2],)


def test_more_levels_than_a_byte_can_count() -> None:
    background = Background(names=("a",), rows=[(value,) for value in range(70_000)])

    grid = Grid.of((-1,), background)

    assert grid.background.dtype == np.uint32
    assert grid.values(grid.background[-1:]) == ([69_999],)


def test_value_that_is_no_value_is_refused() -> None:
    with pytest.raises(RowError):
        Grid.of((object(),), Background(names=("a",), rows=[(1,)]))


def test_colliding_hashes_are_told_apart_by_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "sidelight.explainers._grid._hashes", lambda codes: np.zeros(len(codes), np.uint64)
    )
    codes = np.array([[1, 2], [2, 1], [1, 2]], dtype=np.uint16)

    first, inverse = distinct(codes)

    assert first.tolist() == [0, 1]
    assert inverse.tolist() == [0, 1, 0]
