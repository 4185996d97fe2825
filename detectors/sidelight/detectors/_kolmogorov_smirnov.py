"""Kolmogorov-Smirnov test on the cells of the reference."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sidelight.detectors._comparison import Comparison, insufficient
from sidelight.detectors._tail_probabilities import kolmogorov_tail
from sidelight.detectors.errors import ParameterError

# The asymptotic distribution is good to a hundredth from about here on.
_MIN_ROWS = 30
_LARGEST_INT32 = 2**31
# Mean square of Kolmogorov's limiting distribution: what squared distances show without change.
_NULL_MEAN_SQUARE = math.pi**2 / 12


@dataclass(frozen=True, slots=True, kw_only=True)
class KolmogorovSmirnov:
    """Largest difference of two distribution functions.

    The raw statistic ``D`` is exact on the cells of a ``NumericReference``, ties included, with
    missing values as the smallest. The p-value is that of scipy's ``ks_2samp`` with
    ``method="asymp"``. The distance is ``sqrt(max(0, D**2 - pi**2/12 * (1/n + 1/m)))``: the
    square has the chance part subtracted (ours; a plain difference overcorrects large distances).

    Parameters
    ----------
    threshold : float, default 0.1
        Distances from it on count as drift, in (0, 1].

    Raises
    ------
    ParameterError
        If ``threshold`` is outside its range.

    References
    ----------
    D. dos Reis et al., *Fast unsupervised online drift detection using incremental
    Kolmogorov-Smirnov test*, KDD 2016, for the form on a frozen reference.

    """

    threshold: float = 0.1

    def __post_init__(self) -> None:
        """Reject a threshold that nothing or everything exceeds."""
        if not 0 < self.threshold <= 1:
            raise ParameterError("threshold", self.threshold, "above 0 and at most 1")

    def compare(self, reference: NDArray[np.int64], window: NDArray[np.int64]) -> Comparison:
        """Compare counts of shape (n_cells,) on the same ordered cells."""
        n, m = int(reference.sum()), int(window.sum())
        statistic = largest_difference(reference, window) if n and m else 0.0
        (answer,) = numeric_comparisons(n, m, [statistic])
        return answer


def numeric_comparisons(n: int, m: int, statistics: Sequence[float]) -> list[Comparison]:
    """Return the answers for statistics of n rows of a reference and m of a window."""
    if min(n, m) < _MIN_ROWS:
        answer = insufficient(min(n, m), _MIN_ROWS, "window" if m < n else "reference")
        return [answer] * len(statistics)
    effective = n * m / (n + m)
    chance, rows = _NULL_MEAN_SQUARE / effective, round(effective)
    return [
        Comparison(math.sqrt(max(0.0, each * each - chance)), kolmogorov_tail(rows, each))
        for each in statistics
    ]


def largest_difference(reference: NDArray[np.int64], window: NDArray[np.int64]) -> float:
    """Return D of two non-empty samples by their counts on the same ordered cells."""
    n, m = int(reference.sum()), int(window.sum())
    (found,) = OrderedCells([reference], n).largest_differences(window, m)
    return found


class OrderedCells:
    """The cells of several columns, one column after the other.

    Parameters
    ----------
    reference : sequence of ndarray of int, each of shape (n_cells,)
        Counts of each column.
    n : int
        Rows of the reference, the same for all columns, at least 1.

    """

    def __init__(self, reference: Sequence[NDArray[np.int64]], n: int) -> None:
        sizes = np.array([column.size for column in reference])
        self._starts = np.cumsum(sizes) - sizes
        self._n = n
        kind = np.int32 if n < _LARGEST_INT32 else np.int64
        self._counts: NDArray[Any] = np.concatenate(reference).astype(kind)

    def largest_differences(self, window: NDArray[np.int64], m: int) -> list[float]:
        """Return D of each column for counts of a window of m rows, shape (n_cells of all,)."""
        # Whole numbers, so that the order of rows can change nothing; and over the cells of a
        # column the differences add up to zero, so that the sum begins anew with the next.
        n, common = self._n, math.gcd(self._n, m)
        small = n // common * m < _LARGEST_INT32
        kind: np.dtype[Any] = np.dtype(np.int32 if small else np.int64)
        difference = window.astype(kind)
        counts = self._counts.astype(kind, copy=False)
        if n != common:
            difference *= kind.type(n // common)
        difference -= counts if m == common else counts * kind.type(m // common)
        np.cumsum(difference, dtype=kind, out=difference)
        np.abs(difference, out=difference)
        largest = np.maximum.reduceat(difference, self._starts).tolist()
        return [float(value * common) / (n * m) for value in largest]
