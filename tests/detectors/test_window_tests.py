"""Tests of one window: known answers, and the contract that all three keep."""

from typing import Protocol

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sidelight.detectors import (
    CategoricalReference,
    ChiSquare,
    Comparison,
    DetectionSettings,
    KolmogorovSmirnov,
    NumericReference,
    ParameterError,
    PopulationStability,
    values_of,
)
from sidelight.detectors._chi_square import merge_rare
from sidelight.detectors._kolmogorov_smirnov import largest_difference
from sidelight.detectors._reference import ColumnReference
from sidelight.detectors._window_tests import WindowTests

Window = np.ndarray[tuple[int, int], np.dtype[np.uint16]]
Counts = np.ndarray[tuple[int], np.dtype[np.int64]]


class WindowTest(Protocol):
    def compare(self, reference: Counts, window: Counts) -> Comparison: ...


TESTS = [
    pytest.param(PopulationStability(), id="population_stability"),
    pytest.param(KolmogorovSmirnov(), id="kolmogorov_smirnov"),
    pytest.param(ChiSquare(), id="chi_square"),
]
counts = st.lists(st.integers(0, 400), min_size=3, max_size=12)


def cells_of(reference: NumericReference, sample: np.ndarray) -> Counts:
    return np.bincount(reference.cells(values_of(sample)), minlength=reference.n_cells)


# Known answers.


@pytest.mark.parametrize("seed", range(60))
def test_kolmogorov_smirnov_equals_scipy_with_and_without_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first = rng.normal(size=int(rng.integers(30, 1200)))
    second = rng.normal(rng.choice([0, 0.2, 1.0]), size=int(rng.integers(30, 1200)))
    if seed % 2:
        first, second = first.round(1), second.round(1)
    reference = NumericReference.fit(values_of(first), n_bins=10)
    window = cells_of(reference, second)

    answer = KolmogorovSmirnov().compare(reference.counts, window)

    expected = stats.ks_2samp(first, second, method="asymp")
    statistic = largest_difference(reference.counts, window)
    assert statistic == pytest.approx(expected.statistic, abs=1e-14)
    assert answer.p_value == pytest.approx(expected.pvalue, abs=5e-6, rel=1e-6)


def test_missing_values_count_as_the_smallest() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=300), rng.normal(size=200)
    first[:10] = np.nan
    second[:60] = np.nan
    reference = NumericReference.fit(values_of(first), n_bins=10)

    statistic = largest_difference(reference.counts, cells_of(reference, second))

    lowest = [np.where(np.isnan(sample), -1e9, sample) for sample in (first, second)]
    assert statistic == pytest.approx(stats.ks_2samp(*lowest).statistic, abs=1e-14)


def test_chi_square_equals_scipy_on_frequent_categories() -> None:
    reference, window = np.array([300, 200, 100]), np.array([80, 70, 50])

    answer = ChiSquare().compare(reference, window)

    expected = stats.chi2_contingency(np.stack([reference, window]), correction=False)
    assert answer.p_value == pytest.approx(expected.pvalue)


def test_rare_categories_are_merged_until_five_are_expected() -> None:
    reference, window = np.array([500, 3, 2, 495, 0]), np.array([100, 0, 1, 99, 0])

    merged_reference, merged_window = merge_rare(reference, window)

    pooled = merged_reference + merged_window
    assert (pooled * window.sum() / pooled.sum() >= 5).all()
    assert merged_reference.sum() == reference.sum()
    assert merged_window.sum() == window.sum()


def test_stability_index_follows_the_formula() -> None:
    p, q = np.array([400.5, 600.5]) / 1001, np.array([600.5, 400.5]) / 1001
    index = float(((q - p) * np.log(q / p)).sum())

    answer = PopulationStability().compare(np.array([400, 600]), np.array([600, 400]))

    assert answer.distance == pytest.approx(index - 2 / 1000)
    assert answer.p_value == pytest.approx(stats.chi2.sf(index / (2 / 1000), 1))


def test_shift_of_one_deviation_has_the_distance_of_the_closed_form() -> None:
    rng = np.random.default_rng(0)
    reference = NumericReference.fit(values_of(rng.normal(size=10_000)), n_bins=10)

    answer = KolmogorovSmirnov().compare(
        reference.counts, cells_of(reference, rng.normal(1, 1, 10_000))
    )

    assert answer.distance == pytest.approx(2 * stats.norm.cdf(0.5) - 1, abs=0.02)


# Contract of all.


@pytest.mark.parametrize("test", TESTS)
@given(first=counts, second=counts)
def test_answer_is_a_distance_and_a_probability_or_a_reason(
    test: WindowTest, first: list[int], second: list[int]
) -> None:
    size = min(len(first), len(second))

    answer = test.compare(np.array(first[:size]), np.array(second[:size]))

    if answer.distance is None:
        assert answer.p_value is None
        assert "needed" in answer.reason
    else:
        assert answer.p_value is not None
        assert answer.distance >= 0
        assert 0 < answer.p_value <= 1


@pytest.mark.parametrize("test", TESTS)
@given(sample=counts.filter(lambda sample: sum(sample) >= 400))
def test_reference_compared_with_itself_is_at_no_distance(
    test: WindowTest, sample: list[int]
) -> None:
    answer = test.compare(np.array(sample), np.array(sample))

    assert answer.distance == 0
    assert answer.p_value == pytest.approx(1)


@pytest.mark.parametrize("test", TESTS)
def test_input_is_not_changed_and_the_answer_is_repeatable(test: WindowTest) -> None:
    reference, window = np.array([200, 200, 200]), np.array([300, 200, 100])

    first = test.compare(reference, window)

    assert test.compare(reference, window) == first
    assert reference.tolist() == [200, 200, 200]
    assert window.tolist() == [300, 200, 100]


@pytest.mark.parametrize("test", TESTS)
def test_too_few_rows_are_insufficient_and_no_number(test: WindowTest) -> None:
    answer = test.compare(np.array([500, 500]), np.array([5, 5]))

    assert not answer.sufficient
    assert answer.p_value is None
    assert answer.reason.startswith("10 rows in the window")


@pytest.mark.parametrize("test", TESTS)
def test_constant_column_has_an_answer(test: WindowTest) -> None:
    answer = test.compare(np.array([0, 500, 0]), np.array([0, 400, 0]))

    assert answer.distance == 0
    assert answer.p_value == 1


@pytest.mark.parametrize("test", TESTS)
def test_what_the_reference_never_had_is_a_large_change(test: WindowTest) -> None:
    answer = test.compare(np.array([0, 500, 0]), np.array([0, 300, 100]))

    assert answer.distance is not None
    assert answer.p_value is not None
    assert answer.distance > 0.1
    assert answer.p_value < 1e-10


@pytest.mark.parametrize("test", TESTS)
def test_level_of_one_look_is_near_its_p_value(test: WindowTest) -> None:
    rng = np.random.default_rng(0)
    shares = np.full(11, 1 / 11)
    draws = [
        test.compare(rng.multinomial(1000, shares), rng.multinomial(500, shares))
        for _ in range(400)
    ]

    false = sum(answer.p_value is not None and answer.p_value <= 0.05 for answer in draws)

    # 20 expected; KS on few cells is conservative. 36 is far out in Binomial(400, 0.05).
    assert false <= 36


# Errors.


@pytest.mark.parametrize("kind", [PopulationStability, KolmogorovSmirnov, ChiSquare])
@pytest.mark.parametrize("threshold", [0.0, -1.0, float("nan")])
def test_impossible_threshold_is_named(kind: type, threshold: float) -> None:
    with pytest.raises(ParameterError) as caught:
        kind(threshold=threshold)

    assert caught.value.name == "threshold"


# All columns at once.


@st.composite
def columns_of_all_kinds(draw: st.DrawFn) -> tuple[dict[str, ColumnReference], Window]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n, m = draw(st.integers(50, 400)), draw(st.integers(1, 400))
    columns: dict[str, ColumnReference] = {}
    cells = []
    for number in range(draw(st.integers(1, 6))):
        if draw(st.booleans()):
            values = rng.normal(size=n + m).round(draw(st.integers(0, 3)))
            values[rng.random(n + m) < draw(st.sampled_from([0, 0.1]))] = np.nan
            numeric = NumericReference.fit(values_of(values[:n]), n_bins=draw(st.integers(2, 12)))
            columns[f"{number}"] = numeric
            cells.append(numeric.cells(values_of(values[n:] + draw(st.sampled_from([0, 1])))))
        else:
            words = rng.integers(0, draw(st.integers(1, 60)), n + m).astype(str).astype(object)
            some = CategoricalReference.fit(values_of(words[:n]), n_categories=30, n_bins=5)
            columns[f"{number}"] = some
            cells.append(some.cells(values_of(words[n:])))
    return columns, np.stack(cells, axis=1)


@settings(max_examples=60, deadline=None)
@given(columns_of_all_kinds())
def test_all_columns_at_once_are_the_same_to_the_last_bit(
    drawn: tuple[dict[str, ColumnReference], Window],
) -> None:
    columns, window = drawn
    kolmogorov_smirnov, chi_square = KolmogorovSmirnov(), ChiSquare()

    effects = WindowTests(columns, DetectionSettings()).compare(window)

    for index, column in enumerate(columns.values()):
        own = np.bincount(window[:, index], minlength=column.n_cells)
        test = kolmogorov_smirnov if isinstance(column, NumericReference) else chi_square
        bins = np.bincount(column.bins, weights=own).astype(np.int64)
        assert effects.shift[index] == test.compare(column.counts, own)
        assert effects.stability[index] == PopulationStability().compare(column.bin_counts, bins)


@settings(max_examples=60, deadline=None)
@given(
    columns_of_all_kinds(),
    st.lists(st.tuples(st.integers(0, 399), st.integers(1, 400)), min_size=1, max_size=6),
)
def test_several_windows_at_once_are_the_same_as_each_alone(
    drawn: tuple[dict[str, ColumnReference], Window], spans: list[tuple[int, int]]
) -> None:
    columns, rows = drawn
    tests = WindowTests(columns, DetectionSettings())
    windows = [slice(first % len(rows), first % len(rows) + size) for first, size in spans]

    together = tests.compare_each(rows + tests.offsets, windows)

    assert together == [tests.compare(rows[window]) for window in windows]


def test_counts_beyond_32_bits_are_compared_as_well() -> None:
    reference, window = np.array([70_001, 0, 60_000]), np.array([65_536, 1, 65_537])

    statistic = largest_difference(reference, window)

    assert statistic == pytest.approx(70_001 / 130_001 - 65_536 / 131_074, rel=1e-14)
