"""Cells of the number line, frozen from a reference."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sidelight.detectors import NumericReference, SampleError, values_of
from sidelight.detectors._locating import Locating

Sample = np.ndarray[tuple[int], np.dtype[np.float64]]

heavy_ties = arrays(
    np.float64,
    st.integers(1, 80),
    elements=st.sampled_from([-2.0, -1.0, -0.0, 0.0, 0.5, 1e300, -1e300, float("nan")]),
).filter(lambda sample: not np.isnan(sample).all())


def fit(sample: Sample, n_bins: int = 10) -> NumericReference:
    return NumericReference.fit(values_of(sample), n_bins=n_bins)


def test_values_fall_before_on_and_after_the_points() -> None:
    reference = fit(np.array([1.0, 2.0, 2.0]))

    cells = reference.cells(values_of(np.array([np.nan, 0.0, 1.0, 1.5, 2.0, 3.0, np.inf])))

    assert cells.tolist() == [0, 1, 2, 3, 4, 5, 0]
    assert reference.counts.tolist() == [0, 0, 1, 0, 2, 0]


def test_quantile_bins_hold_equal_shares_of_a_continuous_reference() -> None:
    reference = fit(np.random.default_rng(0).normal(size=1000))

    assert reference.bin_counts.tolist() == [0] + [100] * 10


def test_values_beyond_the_reference_belong_to_the_outer_bins() -> None:
    reference = fit(np.arange(100.0))

    cells = reference.cells(values_of(np.array([-1e308, 1e308])))

    assert reference.bins[cells].tolist() == [1, 10]


@given(heavy_ties, st.integers(2, 12))
def test_every_bin_holds_part_of_the_reference(sample: Sample, n_bins: int) -> None:
    reference = fit(sample, n_bins)

    assert (reference.bin_counts[1:] > 0).all()
    assert reference.bin_counts.size <= n_bins + 1
    assert reference.bin_counts.sum() == sample.size


@given(heavy_ties)
def test_bins_and_ranks_rise_with_the_cells(sample: Sample) -> None:
    reference = fit(sample)

    assert (np.diff(reference.bins) >= 0).all()
    assert (np.diff(reference.ranks(64)) >= 0).all()
    assert reference.ranks(64).max() <= 64


@given(heavy_ties, heavy_ties)
def test_counts_of_two_blocks_add_up_to_the_counts_of_both(first: Sample, second: Sample) -> None:
    reference = fit(first)

    def counts(sample: Sample) -> np.ndarray[Any, np.dtype[np.int64]]:
        return np.bincount(reference.cells(values_of(sample)), minlength=reference.n_cells)

    both = counts(np.concatenate([first, second]))
    assert (counts(first) + counts(second) == both).all()
    assert (counts(first) == reference.counts).all()


def test_more_values_than_cells_are_thinned() -> None:
    reference = fit(np.arange(50_000.0))

    assert reference.n_cells <= 2**16
    assert reference.counts.sum() == 50_000


def test_reference_without_a_value_is_refused() -> None:
    with pytest.raises(SampleError) as caught:
        fit(np.array([np.nan]))

    assert caught.value.got == "none"


# All columns at once.


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_points_below_are_those_of_a_search_of_each_column(data: st.DataObject) -> None:
    numbers = st.one_of(
        st.floats(allow_nan=False, allow_infinity=False),
        st.floats(-5, 5).map(lambda value: round(value, 2)),
        st.sampled_from([0.0, 5e-324, -5e-324, 1e308, -1e308, 1e-300]),
    )
    points = data.draw(st.lists(st.lists(numbers, min_size=1, max_size=60), min_size=1, max_size=4))
    columns = [np.unique(np.array(each)) + 0.0 for each in points]
    rows = data.draw(st.lists(st.integers(0, 100), min_size=1, max_size=20))
    known = [[each[row % each.size] for row in rows] for each in columns]
    fresh = data.draw(arrays(np.float64, (len(columns), 5), elements=numbers))
    with np.errstate(over="ignore"):
        above = np.nextafter(np.array(known), np.inf)
    stream = np.concatenate([np.array(known), fresh, above], axis=1)
    stream[np.isinf(stream)] = np.nan

    below, equal = Locating(columns).below(stream)

    for index, each in enumerate(columns):
        present = ~np.isnan(stream[index])
        expected = each.searchsorted(stream[index][present])
        assert below[index][present].tolist() == expected.tolist()
        upto = each.searchsorted(stream[index][present], "right")
        assert equal[index][present].tolist() == (upto > expected).tolist()
        assert not equal[index][~present].any()


@pytest.mark.parametrize("n_points", [1, 2, 1000, 16_000])
def test_points_below_are_found_whatever_the_distribution(n_points: int) -> None:
    rng = np.random.default_rng(n_points)
    drawn = [rng.normal(size=n_points), np.exp(5 * rng.normal(size=n_points)), np.arange(n_points)]
    columns = [np.unique(each.astype(np.float64)) for each in drawn]
    stream = np.stack([rng.choice(each, 3000) + rng.normal(size=3000).round() for each in columns])

    below, equal = Locating(columns).below(stream)

    for index, each in enumerate(columns):
        assert (below[index] == each.searchsorted(stream[index])).all()
        assert (equal[index] == np.isin(stream[index], each)).all()


def test_no_columns_have_no_points_below() -> None:
    below, equal = Locating([]).below(np.zeros((0, 7)))

    assert below.shape == equal.shape == (0, 7)
