"""Kolmogorov-Smirnov test on the cells of the reference."""

import math
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
        return numeric_comparison(n, m, largest_difference(reference, window) if n and m else 0.0)


def numeric_comparison(n: int, m: int, statistic: float) -> Comparison:
    """Return the answer for a statistic of n rows of a reference and m of a window."""
    if min(n, m) < _MIN_ROWS:
        return insufficient(min(n, m), _MIN_ROWS, "window" if m < n else "reference")
    effective = n * m / (n + m)
    excess = statistic * statistic - _NULL_MEAN_SQUARE / effective
    return Comparison(
        distance=math.sqrt(max(0.0, excess)),
        p_value=kolmogorov_tail(round(effective), statistic),
    )


def largest_difference(reference: NDArray[np.int64], window: NDArray[np.int64]) -> float:
    """Return D of two non-empty samples by their counts on the same ordered cells."""
    n, m = int(reference.sum()), int(window.sum())
    (found,) = largest_differences(reference, window, np.zeros(1, dtype=np.int64), n=n, m=m)
    return found


def largest_differences(
    reference: NDArray[np.int64],
    window: NDArray[np.int64],
    starts: NDArray[np.int64],
    *,
    n: int,
    m: int,
) -> list[float]:
    """Return D of several columns by their counts on ordered cells, one column after the other.

    Parameters
    ----------
    reference, window : ndarray of int, shape (n_cells,)
        Of all columns, with the same number of rows for each.
    starts : ndarray of int, shape (n_columns,)
        Where the cells of each column begin.
    n, m : int
        Rows of the reference and of the window, at least 1.

    """
    # Whole numbers, so that the order of rows can change nothing; and over the cells of a column
    # the differences add up to zero, so that the sum begins anew with the next by itself.
    common = math.gcd(n, m)
    small = n // common * m < _LARGEST_INT32
    kind: np.dtype[Any] = np.dtype(np.int32 if small else np.int64)
    difference = np.multiply(window.astype(kind), n // common, dtype=kind)
    difference -= np.multiply(reference.astype(kind), m // common, dtype=kind)
    np.cumsum(difference, dtype=kind, out=difference)
    np.abs(difference, out=difference)
    largest = np.maximum.reduceat(difference, starts).tolist()
    return [float(value * common) / (n * m) for value in largest]
