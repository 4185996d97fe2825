"""Categories of a reference."""

import numpy as np
import pytest

from sidelight.detectors import CategoricalReference, SampleError, values_of


def objects(*items: object) -> np.ndarray[tuple[int], np.dtype[np.object_]]:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


def test_categories_are_ordered_by_frequency_then_by_name() -> None:
    values = values_of(objects("b", "a", "c", "c", None, "a", "b", "d"))

    reference = CategoricalReference.fit(values, n_categories=4)

    assert reference.categories == ("a", "b", "c", "d")
    assert reference.counts.tolist() == [1, 2, 2, 2, 1, 0]


def test_new_and_rare_values_are_others_and_missing_ones_are_missing() -> None:
    reference = CategoricalReference.fit(
        values_of(objects("a", "a", "b", "a", "a", "b", "b", "c")), n_categories=2
    )

    cells = reference.cells(values_of(objects("a", "b", "c", "never", None)))

    assert cells.tolist() == [1, 2, 3, 3, 0]


def test_choosing_among_many_categories_does_not_bias_their_counts() -> None:
    shares = []
    for seed in range(20):
        codes = np.random.default_rng(seed).integers(0, 100, 1000)
        reference = CategoricalReference.fit(values_of(codes), n_categories=30)
        shares.append(1 - reference.counts[-1] / reference.counts.sum())

    assert np.mean(shares) == pytest.approx(0.3, abs=0.015)


def test_a_number_is_the_same_category_however_it_is_carried() -> None:
    reference = CategoricalReference.fit(values_of(objects("1", "0.5", "true")), n_categories=5)

    as_floats = reference.cells(values_of(np.array([1.0, 0.5, np.nan])))
    as_objects = reference.cells(values_of(objects(1, 0.5, None)))
    as_booleans = reference.cells(values_of(np.array([True])))

    assert as_floats.tolist() == as_objects.tolist()
    assert as_floats[2] == 0
    assert 0 < as_booleans[0] < reference.n_cells - 1


def test_ranks_of_many_categories_stay_within_the_bag() -> None:
    values = values_of(objects(*[str(i) for i in range(200)]))
    reference = CategoricalReference.fit(values, n_categories=200)

    ranks = reference.ranks(64)

    assert ranks.max() == 64
    assert (np.diff(ranks) >= 0).all()


def test_what_is_new_surprises_most() -> None:
    reference = CategoricalReference.fit(values_of(objects("a", "a", "b")), n_categories=5)

    assert reference.surprises[-1] == reference.surprises.max()


def test_reference_without_a_value_is_refused() -> None:
    with pytest.raises(SampleError):
        CategoricalReference.fit(values_of(objects(None, None)), n_categories=5)
