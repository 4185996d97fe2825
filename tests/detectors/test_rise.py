"""When evidence began to rise, look after look and several looks at once."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sidelight.detectors import Times
from sidelight.detectors._rise import Rise


def walk(seed: int, n_rows: int, n: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Evidence of some streams, each side by side in memory as capital leaves it."""
    steps = np.random.default_rng(seed).normal(0, 0.1, size=(n, n_rows))
    return np.cumsum(steps, axis=1).round(2).T


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5), st.lists(st.integers(1, 6), max_size=5))
def test_looks_at_once_are_the_same_as_one_after_the_other(
    seed: int, n: int, groups: list[int]
) -> None:
    rows, n_looks = 20, sum(groups)
    evidence, times = walk(seed, rows * n_looks, n), Times(np.arange(rows * n_looks))
    whole, single = Rise.start(n), Rise.start(n)

    first = 0
    for size in groups:
        part = evidence[first * rows : (first + size) * rows]
        for number, risen in enumerate(whole.after_each(part, size), start=first):
            look = slice(number * rows, (number + 1) * rows)
            (own,) = single.after_each(evidence[look], 1)
            whole.take(risen, times[look])
            single.take(own, times[look])

            assert whole.to_parts()[0] == single.to_parts()[0]
            assert np.array_equal(whole.peaks, single.peaks)
            assert np.array_equal(whole.lows, single.lows)
        first += size


def test_peaks_and_beginnings_follow_the_definition() -> None:
    evidence = np.array([[0.0, -1.0], [0.5, -1.2], [0.0, -1.1], [3.0, -0.5]])
    rise = Rise.start(2)

    (risen,) = rise.after_each(evidence, 1)
    rise.take(risen, ["a", "b", "c", "d"])

    assert rise.peaks.tolist() == [3.0, 0.0]
    assert rise.lows.tolist() == [0.0, -1.2]
    assert [rise.since(0), rise.since(1)] == ["d", "c"]


def test_a_low_rises_a_little_each_look() -> None:
    rise = Rise.start(1)

    for level in (0.0, 5.0, 5.0):
        (risen,) = rise.after_each(np.full((4, 1), level), 1)
        rise.take(risen, ["a", "b", "c", "d"])

    assert rise.lows[0] == 0.2
    assert rise.since(0) == "d"
